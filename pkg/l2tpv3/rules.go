package l2tpv3

import (
	"iter"
	"slices"
)

// MessageInfo is what this package knows of a type of message.
type MessageInfo struct {
	Type MessageType
	// Name is the abbreviation, Title what it stands for.
	Name, Title string
	// Mandatory are the AVPs without which the message is malformed, the Message
	// Type not counted.
	Mandatory []AVPType
	// Optional are the other AVPs that the RFCs have in it. Random Vector, Message
	// Digest and Extended Vendor ID may be in any message, and are not listed. An
	// AVP that is in neither list is no error: the RFCs do not say what a receiver
	// should do with one, and this package leaves it alone.
	Optional []AVPType
	// Reference is the RFC and the section that define it.
	Reference string
}

// The AVPs that several messages have in common.
var (
	controlOptional = []AVPType{AVPNonce, AVPVendorName, AVPReceiveWindowSize, AVPPreferredLanguage, AVPControlConnectionDS, AVPFailoverCapability, AVPECNCapability}
	sessionRequest  = []AVPType{AVPAssignedCookie, AVPTieBreaker, AVPL2SpecificSublayer, AVPDataSequencing, AVPTxConnectSpeed, AVPRxConnectSpeed, AVPSessionDS, AVPMaximumReceiveUnit, AVPMaximumReassembledReceiveUnit, AVPVCCVCapability, AVPTDMPseudowire, AVPRTP, AVPSBFDTargetDiscriminator}
	sessionReply    = []AVPType{AVPAssignedCookie, AVPL2SpecificSublayer, AVPDataSequencing, AVPTxConnectSpeed, AVPRxConnectSpeed, AVPPhysicalChannelID, AVPSessionDS, AVPMaximumReceiveUnit, AVPMaximumReassembledReceiveUnit, AVPVCCVCapability, AVPRTP, AVPSBFDTargetDiscriminator}
	sessionConnect  = []AVPType{AVPL2SpecificSublayer, AVPDataSequencing, AVPCircuitStatus, AVPTxConnectSpeed, AVPRxConnectSpeed, AVPMaximumReceiveUnit, AVPMaximumReassembledReceiveUnit}

	controlStart = []AVPType{AVPHostName, AVPRouterID, AVPAssignedControlConnectionID, AVPPseudowireCapabilities}
	sessionIDs   = []AVPType{AVPLocalSessionID, AVPRemoteSessionID}
	requestIDs   = []AVPType{AVPLocalSessionID, AVPRemoteSessionID, AVPSerialNumber, AVPPseudowireType, AVPRemoteEndID, AVPCircuitStatus}
	replyIDs     = []AVPType{AVPLocalSessionID, AVPRemoteSessionID, AVPCircuitStatus}
)

// rules has the messages of RFC 3931, Section 6, and those that later RFCs
// define for L2TPv3, by number. Those of RFCs 3573, 3817 and 4045 have names only.
var rules = [...]MessageInfo{
	SCCRQ: {Name: "SCCRQ", Title: "Start-Control-Connection-Request", Reference: "RFC 3931, 6.1", Mandatory: controlStart,
		Optional: append([]AVPType{AVPTieBreaker, AVPTunnelRecovery}, controlOptional...)},
	SCCRP: {Name: "SCCRP", Title: "Start-Control-Connection-Reply", Reference: "RFC 3931, 6.2", Mandatory: controlStart,
		Optional: append([]AVPType{AVPSuggestedControlSequence}, controlOptional...)},
	SCCCN:   {Name: "SCCCN", Title: "Start-Control-Connection-Connected", Reference: "RFC 3931, 6.3"},
	StopCCN: {Name: "StopCCN", Title: "Stop-Control-Connection-Notification", Reference: "RFC 3931, 6.4", Mandatory: []AVPType{AVPResultCode}, Optional: []AVPType{AVPAssignedControlConnectionID}},
	Hello:   {Name: "HELLO", Title: "Hello", Reference: "RFC 3931, 6.5"},
	OCRQ:    {Name: "OCRQ", Title: "Outgoing-Call-Request", Reference: "RFC 3931, 6.9", Mandatory: requestIDs, Optional: sessionRequest},
	OCRP:    {Name: "OCRP", Title: "Outgoing-Call-Reply", Reference: "RFC 3931, 6.10", Mandatory: replyIDs, Optional: sessionReply},
	OCCN:    {Name: "OCCN", Title: "Outgoing-Call-Connected", Reference: "RFC 3931, 6.11", Mandatory: sessionIDs, Optional: sessionConnect},
	ICRQ: {Name: "ICRQ", Title: "Incoming-Call-Request", Reference: "RFC 3931, 6.6", Mandatory: requestIDs,
		Optional: append([]AVPType{AVPPhysicalChannelID, AVPAttachmentGroupID, AVPLocalEndID, AVPInterfaceMTU, AVPFCSRetention, AVPFrameRelayHeaderLength, AVPATMMaximumConcatenatedCells, AVPOAMEmulationRequired, AVPConnectSpeedUpdateEnable, AVPPseudowireSwitchingPoint}, sessionRequest...)},
	ICRP: {Name: "ICRP", Title: "Incoming-Call-Reply", Reference: "RFC 3931, 6.7", Mandatory: replyIDs,
		Optional: append([]AVPType{AVPInterfaceMTU, AVPFCSRetention, AVPFrameRelayHeaderLength, AVPATMMaximumConcatenatedCells, AVPOAMEmulationRequired, AVPPseudowireSwitchingPoint}, sessionReply...)},
	ICCN: {Name: "ICCN", Title: "Incoming-Call-Connected", Reference: "RFC 3931, 6.8", Mandatory: sessionIDs,
		Optional: append([]AVPType{AVPFCSRetention, AVPPseudowireSwitchingPoint}, sessionConnect...)},
	CDN:   {Name: "CDN", Title: "Call-Disconnect-Notify", Reference: "RFC 3931, 6.12", Mandatory: []AVPType{AVPResultCode, AVPLocalSessionID, AVPRemoteSessionID}},
	WEN:   {Name: "WEN", Title: "WAN-Error-Notify", Reference: "RFC 3931, 6.13", Mandatory: []AVPType{AVPLocalSessionID, AVPRemoteSessionID, AVPCircuitErrors}},
	SLI:   {Name: "SLI", Title: "Set-Link-Info", Reference: "RFC 3931, 6.14", Mandatory: sessionIDs, Optional: []AVPType{AVPCircuitStatus, AVPATMMaximumConcatenatedCells, AVPOAMEmulationRequired, AVPATMAlarmStatus, AVPMaximumReceiveUnit, AVPMaximumReassembledReceiveUnit}},
	MDMST: {Name: "MDMST", Title: "Modem-Status", Reference: "RFC 3573"},
	SRRQ:  {Name: "SRRQ", Title: "Service-Relay-Request", Reference: "RFC 3817"},
	SRRP:  {Name: "SRRP", Title: "Service-Relay-Reply", Reference: "RFC 3817"},
	ACK:   {Name: "ACK", Title: "Explicit-Acknowledgement", Reference: "RFC 3931, 6.15"},
	FSQ:   {Name: "FSQ", Title: "Failover-Session-Query", Reference: "RFC 4951, 4.1", Mandatory: []AVPType{AVPFailoverSessionState}},
	FSR:   {Name: "FSR", Title: "Failover-Session-Response", Reference: "RFC 4951, 4.2", Mandatory: []AVPType{AVPFailoverSessionState}},
	MSRQ:  {Name: "MSRQ", Title: "Multicast-Session-Request", Reference: "RFC 4045"},
	MSRP:  {Name: "MSRP", Title: "Multicast-Session-Response", Reference: "RFC 4045"},
	MSE:   {Name: "MSE", Title: "Multicast-Session-Establishment", Reference: "RFC 4045"},
	MSI:   {Name: "MSI", Title: "Multicast-Session-Information", Reference: "RFC 4045"},
	MSEN:  {Name: "MSEN", Title: "Multicast-Session-End-Notify", Reference: "RFC 4045"},
	CSUN:  {Name: "CSUN", Title: "Connect-Speed-Update-Notification", Reference: "RFC 5515", Mandatory: []AVPType{AVPConnectSpeedUpdate}},
	CSURQ: {Name: "CSURQ", Title: "Connect-Speed-Update-Request", Reference: "RFC 5515", Mandatory: []AVPType{AVPConnectSpeedUpdate}},
}

func lookupMessage(t MessageType) *MessageInfo {
	if int(t) >= len(rules) || rules[t].Name == "" {
		return nil
	}
	return &rules[t]
}

// LookupMessage returns what is known of messages of type t.
func LookupMessage(t MessageType) (MessageInfo, bool) {
	if i := lookupMessage(t); i != nil {
		return i.numbered(t), true
	}
	return MessageInfo{}, false
}

// KnownMessages are the registered types of messages, by number.
func KnownMessages() iter.Seq[MessageInfo] {
	return func(yield func(MessageInfo) bool) {
		for t, i := range rules {
			if i.Name != "" && !yield(i.numbered(MessageType(t))) {
				return
			}
		}
	}
}

// MessagesWith are the messages in which the RFCs have the AVP t, by number.
func MessagesWith(t AVPType) iter.Seq[MessageType] {
	return func(yield func(MessageType) bool) {
		everywhere := t == AVPMessageType || t == AVPRandomVector || t == AVPMessageDigest || t == AVPExtendedVendorID
		for i := range KnownMessages() {
			// Section 6.15: an ACK has nothing but a Message Type and a Message Digest.
			in := everywhere && (i.Type != ACK || t == AVPMessageType || t == AVPMessageDigest)
			if !in && !slices.Contains(i.Mandatory, t) && !slices.Contains(i.Optional, t) {
				continue
			}
			if !yield(i.Type) {
				return
			}
		}
	}
}

// numbered fills in the Type, which in the table is the index.
func (i MessageInfo) numbered(t MessageType) MessageInfo {
	i.Type = t
	return i
}

// Validate checks that the message has the AVPs that its type requires (Section
// 6), with values that it may have: a *MissingAVPError or an *InvalidAVPError
// says what not. A ZLB and a message of a type that is not known, another
// vendor's among them, are valid.
// What the type does not require is not looked at; UnknownMandatory is for that.
func Validate(m *Message) error {
	if m.IsZLB() {
		return nil
	}
	t, ok := m.Type()
	if !ok {
		// Section 5.4.1: a Message Type with a Vendor ID is a vendor's own message.
		if r, ok := m.AVPs[0].(RawAVP); ok && r.Vendor != 0 && r.Type == AVPMessageType {
			return nil
		}
		return &MissingAVPError{AVP: AVPMessageType}
	}
	info := lookupMessage(t)
	if info == nil {
		return nil
	}
	for _, need := range info.Mandatory {
		if need == AVPRouterID && m.Numbers == CiscoNumbers {
			continue // it is younger than they
		}
		if !slices.ContainsFunc(m.AVPs, func(a AVP) bool {
			_, raw := a.(RawAVP)
			return !raw && a.AVPType() == need
		}) {
			return &MissingAVPError{Message: t, AVP: need}
		}
	}
	// Section 5.4.4: a Local Session ID is not zero. A CDN that refuses a session
	// answers for one that never had an ID, and the text does not say which to send.
	if id, ok := Find[LocalSessionID](m); ok && id == 0 && t != CDN {
		return &InvalidAVPError{Message: t, AVP: AVPLocalSessionID, Err: ErrValue}
	}
	return nil
}

// UnknownMandatory finds the first AVP with the M bit that is not known, not
// readable, or still hidden: for it the session or the control connection has to
// be shut down (Sections 5.2 and 7.1). The Message Type is not judged: its M bit
// is about the message (Section 5.4.1).
//
// An AVP of RFC 2661 that RFC 3931 does not have counts as known, and ignored.
// Section 4.7.3 demands it for a Version 2 SCCRQ; there are peers that send such
// AVPs, M bit set, in Version 3.
func UnknownMandatory(m *Message) (*UnknownMandatoryAVPError, bool) {
	for i, a := range m.AVPs {
		r, ok := a.(RawAVP)
		if !ok || !r.Mandatory || r.Vendor == 0 && only2661(r.Type) {
			continue
		}
		return &UnknownMandatoryAVPError{Index: i, Vendor: r.Vendor, Type: r.Type, Hidden: r.Hidden, Malformed: r.Malformed}, true
	}
	return nil, false
}

// only2661 reports whether RFC 2661 defines the attribute and RFC 3931 does not.
func only2661(t AVPType) bool {
	switch t {
	case AVPMessageType, AVPResultCode, AVPTieBreaker, AVPHostName, AVPVendorName, AVPReceiveWindowSize,
		AVPSerialNumber, AVPPhysicalChannelID, AVPCircuitErrors, AVPRandomVector:
		return false
	}
	return t <= AVPSequencingRequired
}
