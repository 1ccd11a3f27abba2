package l2tpv3

import (
	"fmt"
	"strings"
)

// Result Codes of StopCCN (Section 5.4.2; 8: RFC 3308).
const (
	StopCCNGeneral       uint16 = 1
	StopCCNError         uint16 = 2 // the Error Code says which
	StopCCNExists        uint16 = 3
	StopCCNNotAuthorized uint16 = 4
	StopCCNVersion       uint16 = 5 // the Error Code is the highest version supported
	StopCCNShutdown      uint16 = 6
	StopCCNStateMachine  uint16 = 7 // or timeout
	StopCCNDS            uint16 = 8
)

// Result Codes of CDN (Section 5.4.2 and the RFCs in cdnResults).
const (
	CDNCircuitLost            uint16 = 1
	CDNError                  uint16 = 2 // the Error Code says which
	CDNAdministrative         uint16 = 3
	CDNTemporarilyUnavailable uint16 = 4
	CDNPermanentlyUnavailable uint16 = 5
	CDNInvalidDestination     uint16 = 6
	CDNNoCarrier              uint16 = 7
	CDNBusy                   uint16 = 8
	CDNNoDialTone             uint16 = 9
	CDNTimeout                uint16 = 10
	CDNNoFraming              uint16 = 11
	CDNSessionDS              uint16 = 12
	CDNTieBreakerLost         uint16 = 13
	CDNPseudowireType         uint16 = 14
	CDNSequencing             uint16 = 15
	CDNStateMachine           uint16 = 16 // or timeout
	CDNFrameRelayDeleted      uint16 = 17
	CDNFrameRelayInactive     uint16 = 18
	CDNFrameRelayHeader       uint16 = 19
	CDNHDLCDeleted            uint16 = 20
	CDNHDLCInactive           uint16 = 21
	CDNOAMEmulation           uint16 = 22
	CDNMTU                    uint16 = 23
	CDNNoForwarder            uint16 = 24
	CDNForwarderNotAuthorized uint16 = 25
	CDNLoop                   uint16 = 26
	CDNBoundToOtherPeer       uint16 = 27
	CDNBoundToOtherCircuit    uint16 = 28
	CDNTDMParameters          uint16 = 30 // the Error Code says which
	CDNSequencingNotSupported uint16 = 31
)

// General Error Codes (Section 5.4.2).
const (
	ErrorNone                ErrorCode = 0
	ErrorNoControlConnection ErrorCode = 1
	ErrorLength              ErrorCode = 2
	ErrorValue               ErrorCode = 3
	ErrorResources           ErrorCode = 4
	ErrorSessionID           ErrorCode = 5
	ErrorVendor              ErrorCode = 6
	ErrorTryAnother          ErrorCode = 7
	ErrorUnknownMandatoryAVP ErrorCode = 8
	ErrorTryAnotherDirected  ErrorCode = 9
)

// resultGeneralError is the same in StopCCN and CDN.
const resultGeneralError = StopCCNError

var stopCCNResults = map[uint16]string{
	0:                    "reserved",
	StopCCNGeneral:       "general request to clear the control connection",
	StopCCNError:         "general error",
	StopCCNExists:        "control connection already exists",
	StopCCNNotAuthorized: "not authorized to establish a control connection",
	StopCCNVersion:       "protocol version not supported",
	StopCCNShutdown:      "shutting down",
	StopCCNStateMachine:  "state machine error or timeout",
	StopCCNDS:            "mismatching CCDS value", // RFC 3308
}

var cdnResults = map[uint16]string{
	0:                         "reserved",
	CDNCircuitLost:            "loss of carrier or circuit disconnect",
	CDNError:                  "general error",
	CDNAdministrative:         "administrative reasons",
	CDNTemporarilyUnavailable: "appropriate facilities temporarily not available",
	CDNPermanentlyUnavailable: "appropriate facilities not available",
	CDNInvalidDestination:     "invalid destination",                      // RFC 2661
	CDNNoCarrier:              "no carrier detected",                      // RFC 2661
	CDNBusy:                   "busy signal detected",                     // RFC 2661
	CDNNoDialTone:             "no dial tone",                             // RFC 2661
	CDNTimeout:                "not established within the time allotted", // RFC 2661
	CDNNoFraming:              "no appropriate framing detected",          // RFC 2661
	CDNSessionDS:              "mismatching SDS value",                    // RFC 3308
	CDNTieBreakerLost:         "tie breaker lost",
	CDNPseudowireType:         "pseudowire type not supported",
	CDNSequencing:             "sequencing requested without a valid L2-Specific Sublayer",
	CDNStateMachine:           "state machine error or timeout",
	CDNFrameRelayDeleted:      "Frame Relay PVC deleted permanently",           // RFC 4591
	CDNFrameRelayInactive:     "Frame Relay PVC inactive for an extended time", // RFC 4591
	CDNFrameRelayHeader:       "mismatching Frame Relay header length",         // RFC 4591
	CDNHDLCDeleted:            "HDLC link deleted permanently",                 // RFC 4349
	CDNHDLCInactive:           "HDLC link inactive for an extended time",       // RFC 4349
	CDNOAMEmulation:           "OAM cell emulation not supported",              // RFC 4454
	CDNMTU:                    "mismatching interface MTU",                     // RFC 4667
	CDNNoForwarder:            "no such forwarder",                             // RFC 4667
	CDNForwarderNotAuthorized: "forwarder not authorized",                      // RFC 4667
	CDNLoop:                   "loop detected",
	CDNBoundToOtherPeer:       "attachment circuit bound to another peer",               // RFC 6074
	CDNBoundToOtherCircuit:    "attachment circuit bound to another attachment circuit", // RFC 6074
	CDNTDMParameters:          "TDM parameters refused",                                 // RFC 5611
	CDNSequencingNotSupported: "sequencing not supported",                               // RFC 6073
}

var errorCodes = map[ErrorCode]string{
	ErrorNone:                "no general error",
	ErrorNoControlConnection: "no control connection yet",
	ErrorLength:              "wrong length",
	ErrorValue:               "value out of range",
	ErrorResources:           "insufficient resources",
	ErrorSessionID:           "invalid Session ID",
	ErrorVendor:              "vendor-specific error",
	ErrorTryAnother:          "try another",
	ErrorUnknownMandatoryAVP: "unknown mandatory AVP",
	ErrorTryAnotherDirected:  "try another of those listed",
}

// tdmErrors are the Error Codes of CDNTDMParameters (RFC 5611).
var tdmErrors = map[ErrorCode]string{
	1: "bit rate values disagree",
	2: "different trunk types",
	3: "requested payload size too big or too small",
	4: "RTP header cannot be generated",
	5: "requested timestamp clock frequency cannot be generated",
}

func (e ErrorCode) String() string {
	if s, ok := errorCodes[e]; ok {
		return s
	}
	return fmt.Sprintf("error code %d", uint16(e))
}

// longestMessage bounds the Error Message that Explained gives: it is for people.
const longestMessage = 200

// Explained is the result with an Error Message for the people at the other end
// (Section 5.4.2: "human-readable text"): why or, without it, what the code means in
// a message of type t. A message that is there already stays. The Error Code has to
// precede it, and is 0 where there is no error of the general kind.
func (r ResultCode) Explained(t MessageType, why string) ResultCode {
	if r.Message != "" {
		return r
	}
	if why == "" {
		why = r.meaning(t)
	}
	r.HasError = true
	r.Message = strings.ToValidUTF8(why[:min(len(why), longestMessage)], "")
	return r
}

// Shortened is the result with no more of its Error Message than people read.
func (r ResultCode) Shortened() ResultCode {
	if len(r.Message) > longestMessage {
		r.Message = strings.ToValidUTF8(r.Message[:longestMessage], "")
	}
	return r
}

// meaning is the registry's text for the Result Code.
func (r ResultCode) meaning(t MessageType) string {
	var table map[uint16]string
	switch t {
	case StopCCN:
		table = stopCCNResults
	case CDN:
		table = cdnResults
	}
	if s, ok := table[r.Result]; ok {
		return s
	}
	return fmt.Sprintf("result code %d", r.Result)
}

// Describe says in words what the code means in a message of type t, StopCCN or
// CDN: their tables differ.
func (r ResultCode) Describe(t MessageType) string {
	s := r.meaning(t)
	said := r.Message != "" && r.Message != s
	switch {
	case !r.HasError && r.Error == 0:
	case t == StopCCN && r.Result == StopCCNVersion:
		s += fmt.Sprintf(", the highest is %d", uint16(r.Error))
	case t == CDN && r.Result == CDNTDMParameters && tdmErrors[r.Error] != "":
		s += ": " + tdmErrors[r.Error]
	case r.Result == resultGeneralError || r.Error != 0:
		s += ": " + r.Error.String()
	}
	if said {
		s += fmt.Sprintf(" (%q)", r.Message)
	}
	return s
}
