package l2tpv3

import (
	"bytes"
	"iter"
)

// AVPInfo is what this package knows of an attribute of vendor 0.
type AVPInfo struct {
	Type AVPType
	// Name as its RFC writes it, without "AVP".
	Name string
	// Mandatory is the M bit that a sender SHOULD set.
	Mandatory bool
	// MayHide says that the H bit is allowed (Section 5.3).
	MayHide bool
	// MinLength and MaxLength bound the octets of the value, before hiding. A
	// length is MinLength plus a multiple of Step.
	MinLength, MaxLength, Step int
	// Reference is the RFC and the section that define it.
	Reference string

	// mandatory2 is the M bit in a Version 2 message.
	mandatory2 bool
	// check judges what the length alone does not; nil for no such rule.
	check func(v []byte) error
	// decode reads a value whose length and content have been checked.
	decode func(v []byte) AVP
}

// maxValue is how much fits into an AVP, its header taken off (Section 5.1).
const maxValue = 1023 - avpHeaderLength

// registry is indexed by AVPType; an entry without a name is a number that this
// package has no type for.
var registry = [...]AVPInfo{
	AVPMessageType:         fixed("Message Type", 2, "RFC 3931, 5.4.1", mBit|mBit2, decodeMessageType),
	AVPResultCode:          variable("Result Code", 2, 1, "RFC 3931, 5.4.2", mBit|mBit2, decodeResultCode).checked(checkResultCode),
	AVPProtocolVersion:     fixed("Protocol Version", 2, "RFC 2661, 4.4.3", mBit|mBit2, func(v []byte) AVP { return ProtocolVersion{v[0], v[1]} }),
	AVPFramingCapabilities: fixed("Framing Capabilities", 4, "RFC 2661, 4.4.3", mBit|mBit2|hBit, decode32[FramingCapabilities]),
	AVPBearerCapabilities:  fixed("Bearer Capabilities", 4, "RFC 2661, 4.4.3", mBit|mBit2|hBit, decode32[BearerCapabilities]),
	AVPTieBreaker:          fixed("Tie Breaker", 8, "RFC 3931, 5.4.3 and 5.4.4", mBit, func(v []byte) AVP { return TieBreaker(v) }),
	AVPFirmwareRevision:    fixed("Firmware Revision", 2, "RFC 2661, 4.4.3", hBit, decode16[FirmwareRevision]),
	AVPHostName:            variable("Host Name", 1, 1, "RFC 3931, 5.4.3", mBit|mBit2, decodeString[HostName]),
	AVPVendorName:          variable("Vendor Name", 0, 1, "RFC 3931, 5.4.3", hBit, decodeString[VendorName]),
	AVPAssignedTunnelID:    fixed("Assigned Tunnel ID", 2, "RFC 2661, 4.4.3", mBit|mBit2|hBit, decode16[AssignedTunnelID]),
	// Section 4.2: the advertised window is not zero.
	AVPReceiveWindowSize:  fixed("Receive Window Size", 2, "RFC 3931, 5.4.3", mBit|mBit2, decode16[ReceiveWindowSize]).checked(notZero),
	AVPChallenge:          variable("Challenge", 1, 1, "RFC 2661, 4.4.3", mBit|mBit2|hBit, decodeOctets[Challenge]),
	AVPChallengeResponse:  fixed("Challenge Response", 16, "RFC 2661, 4.4.3", mBit|mBit2|hBit, func(v []byte) AVP { return ChallengeResponse(v) }),
	AVPSerialNumber:       fixed("Serial Number", 4, "RFC 3931, 5.4.4", mBit2|hBit, decode32[SerialNumber]),
	AVPPhysicalChannelID:  fixed("Physical Channel ID", 4, "RFC 3931, 5.4.4", hBit, decode32[PhysicalChannelID]),
	AVPCircuitErrors:      sized("Circuit Errors", 18, 26, 8, "RFC 3931, 5.4.5", mBit2|hBit, decodeCircuitErrors),
	AVPSequencingRequired: fixed("Sequencing Required", 0, "RFC 2661, 4.4.4", mBit|mBit2, func([]byte) AVP { return SequencingRequired{} }),
	AVPRandomVector:       variable("Random Vector", 0, 1, "RFC 3931, 5.4.1", mBit|mBit2, decodeOctets[RandomVector]),

	AVPControlConnectionDS: fixed("Control Connection DS", 2, "RFC 3308, 3.1", hBit, decode16[ControlConnectionDS]),
	AVPSessionDS:           fixed("Session DS", 2, "RFC 3308, 4.1", hBit, decode16[SessionDS]),

	// Section 5.1: the M bit MUST be 0.
	AVPExtendedVendorID: variable("Extended Vendor ID", 6, 1, "RFC 3931, 5.1", hBit, decodeExtendedVendorID),
	AVPMessageDigest:    variable("Message Digest", 2, 1, "RFC 3931, 5.4.1", mBit, decodeMessageDigest).checked(checkMessageDigest),
	AVPRouterID:         fixed("Router ID", 4, "RFC 3931, 5.4.3", mBit, decode32[RouterID]),
	// Section 5.4.3: the zero value MUST NOT be sent.
	AVPAssignedControlConnectionID: fixed("Assigned Control Connection ID", 4, "RFC 3931, 5.4.3", mBit|hBit, decode32[AssignedControlConnectionID]).checked(notZero),
	AVPPseudowireCapabilities:      variable("Pseudowire Capabilities List", 2, 2, "RFC 3931, 5.4.3", mBit|hBit, decodeCapabilities),
	AVPLocalSessionID:              fixed("Local Session ID", 4, "RFC 3931, 5.4.4", mBit|hBit, decode32[LocalSessionID]),
	AVPRemoteSessionID:             fixed("Remote Session ID", 4, "RFC 3931, 5.4.4", mBit|hBit, decode32[RemoteSessionID]),
	AVPAssignedCookie:              sized("Assigned Cookie", 0, 8, 4, "RFC 3931, 5.4.4", mBit|hBit, decodeOctets[AssignedCookie]),
	AVPRemoteEndID:                 variable("Remote End ID", 0, 1, "RFC 3931, 5.4.4", mBit|hBit, decodeOctets[RemoteEndID]),
	AVPPseudowireType:              fixed("Pseudowire Type", 2, "RFC 3931, 5.4.4", mBit|hBit, decode16[PseudowireType]),
	AVPL2SpecificSublayer:          fixed("L2-Specific Sublayer", 2, "RFC 3931, 5.4.4", mBit|hBit, decode16[L2SpecificSublayer]),
	AVPDataSequencing:              fixed("Data Sequencing", 2, "RFC 3931, 5.4.4", mBit|hBit, decode16[DataSequencing]),
	AVPCircuitStatus:               fixed("Circuit Status", 2, "RFC 3931, 5.4.5", mBit|hBit, decode16[CircuitStatus]),
	AVPPreferredLanguage:           variable("Preferred Language", 0, 1, "RFC 3931, 5.4.3", hBit, decodeString[PreferredLanguage]),
	// A nonce without octets would be none: nothing would keep old messages out.
	AVPNonce:          variable("Control Message Authentication Nonce", 1, 1, "RFC 3931, 5.4.1", mBit, decodeOctets[Nonce]),
	AVPTxConnectSpeed: fixed("Tx Connect Speed", 8, "RFC 3931, 5.4.4", hBit, decode64[TxConnectSpeed]),
	AVPRxConnectSpeed: fixed("Rx Connect Speed", 8, "RFC 3931, 5.4.4", hBit, decode64[RxConnectSpeed]),

	AVPFailoverCapability:       fixed("Failover Capability", 6, "RFC 4951, 5.1", hBit, decodeFailoverCapability),
	AVPTunnelRecovery:           fixed("Tunnel Recovery", 10, "RFC 4951, 5.2", mBit|mBit2, decodeTunnelRecovery),
	AVPSuggestedControlSequence: fixed("Suggested Control Sequence", 6, "RFC 4951, 5.3", hBit, decodeSuggestedControlSequence),
	AVPFailoverSessionState:     fixed("Failover Session State", 10, "RFC 4951, 5.4", mBit|mBit2|hBit, decodeFailoverSessionState),

	AVPFrameRelayHeaderLength:      fixed("Frame Relay Header Length", 2, "RFC 4591", hBit, decode16[FrameRelayHeaderLength]).checked(checkFrameRelayHeader),
	AVPATMMaximumConcatenatedCells: fixed("ATM Maximum Concatenated Cells", 2, "RFC 4454", hBit, decode16[ATMMaximumConcatenatedCells]),
	AVPOAMEmulationRequired:        fixed("OAM Emulation Required", 0, "RFC 4454", hBit, func([]byte) AVP { return OAMEmulationRequired{} }),
	AVPATMAlarmStatus:              fixed("ATM Alarm Status", 4, "RFC 4454", hBit, decodeATMAlarmStatus),
	AVPAttachmentGroupID:           variable("Attachment Group Identifier", 0, 1, "RFC 4667, 4.3", hBit, decodeOctets[AttachmentGroupID]),
	AVPLocalEndID:                  variable("Local End ID", 0, 1, "RFC 4667, 4.3", hBit, decodeOctets[LocalEndID]),
	AVPInterfaceMTU:                fixed("Interface Maximum Transmission Unit", 2, "RFC 4667, 4.3", hBit, decode16[InterfaceMTU]),
	AVPFCSRetention:                fixed("FCS Retention", 2, "RFC 4720, 4", hBit, decode16[FCSRetention]),

	AVPMaximumReceiveUnit:            fixed("Maximum Receive Unit", 2, "RFC 4623, 5.3", hBit, decode16[MaximumReceiveUnit]),
	AVPMaximumReassembledReceiveUnit: fixed("Maximum Reassembled Receive Unit", 2, "RFC 4623, 5.4", hBit, decode16[MaximumReassembledReceiveUnit]),
	AVPVCCVCapability:                fixed("VCCV Capability", 2, "RFC 5085, 6.3.1", hBit, func(v []byte) AVP { return VCCVCapability{v[0], v[1]} }),
	AVPConnectSpeedUpdate:            fixed("Connect Speed Update", 20, "RFC 5515", hBit, decodeConnectSpeedUpdate),
	AVPConnectSpeedUpdateEnable:      fixed("Connect Speed Update Enable", 0, "RFC 5515", hBit, func([]byte) AVP { return ConnectSpeedUpdateEnable{} }),
	AVPTDMPseudowire:                 fixed("TDM Pseudowire", 6, "RFC 5611", hBit, func(v []byte) AVP { return TDMPseudowire(v) }),
	AVPRTP:                           fixed("RTP", 10, "RFC 5611", hBit, func(v []byte) AVP { return RTP(v) }),
	AVPPseudowireSwitchingPoint:      variable("PW Switching Point", 0, 1, "RFC 6073, 8.6", hBit, decodeOctets[PseudowireSwitchingPoint]),
	AVPSBFDTargetDiscriminator:       variable("S-BFD Target Discriminator ID", 4, 4, "RFC 7886, 2.1", hBit, decodeDiscriminators),
	AVPECNCapability:                 fixed("ECN Capability", 0, "RFC 9601, 6.1.1.2.1", hBit, func([]byte) AVP { return ECNCapability{} }),
}

// lookup returns the entry of t, nil if this package has no type for it.
func lookup(t AVPType) *AVPInfo {
	if int(t) >= len(registry) || registry[t].Name == "" {
		return nil
	}
	return &registry[t]
}

// LookupAVP returns what is known of the attribute t of vendor 0.
func LookupAVP(t AVPType) (AVPInfo, bool) {
	if i := lookup(t); i != nil {
		return i.numbered(t), true
	}
	return AVPInfo{}, false
}

// KnownAVPs are the attributes that this package has types for, by number.
func KnownAVPs() iter.Seq[AVPInfo] {
	return func(yield func(AVPInfo) bool) {
		for t, i := range registry {
			if i.Name != "" && !yield(i.numbered(AVPType(t))) {
				return
			}
		}
	}
}

// numbered fills in the Type, which in the table is the index.
func (i AVPInfo) numbered(t AVPType) AVPInfo {
	i.Type = t
	return i
}

// trait is a letter of the reference's tables.
type trait uint8

const (
	mBit  trait = 1 << iota // the M bit is set
	mBit2                   // the M bit is set in a Version 2 message as well
	hBit                    // may be hidden
)

func sized(name string, least, most, step int, ref string, t trait, decode func([]byte) AVP) AVPInfo {
	return AVPInfo{
		Name: name, Reference: ref,
		Mandatory: t&mBit != 0, MayHide: t&hBit != 0, mandatory2: t&mBit2 != 0,
		MinLength: least, MaxLength: most, Step: step,
		decode: decode,
	}
}

func fixed(name string, length int, ref string, t trait, decode func([]byte) AVP) AVPInfo {
	return sized(name, length, length, 1, ref, t, decode)
}

func variable(name string, least, step int, ref string, t trait, decode func([]byte) AVP) AVPInfo {
	return sized(name, least, maxValue, step, ref, t, decode)
}

func (i AVPInfo) checked(check func([]byte) error) AVPInfo {
	i.check = check
	return i
}

// valid judges the octets of a value, received or about to be sent.
func (i *AVPInfo) valid(v []byte) error {
	if len(v) < i.MinLength || len(v) > i.MaxLength || (len(v)-i.MinLength)%i.Step != 0 {
		return ErrLength
	}
	if i.check != nil {
		return i.check(v)
	}
	return nil
}

func notZero(v []byte) error {
	if len(bytes.Trim(v, "\x00")) == 0 {
		return ErrValue
	}
	return nil
}

// Section 5.4.2: the Error Code is there whole or not at all.
func checkResultCode(v []byte) error {
	if len(v) == 3 {
		return ErrLength
	}
	return nil
}

// Section 5.4.1: 16 octets of HMAC-MD5, 20 of HMAC-SHA-1. What a type that is not
// known has is not judged: the second digest of the message may be a known one.
func checkMessageDigest(v []byte) error {
	if n := DigestAlgorithm(v[0]).size(); n != 0 && len(v) != 1+n {
		return ErrLength
	}
	return nil
}

// RFC 4591: 2 or 4.
func checkFrameRelayHeader(v []byte) error {
	if n := be.Uint16(v); n != 2 && n != 4 {
		return ErrValue
	}
	return nil
}
