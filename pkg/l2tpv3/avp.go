package l2tpv3

// AVPType is the attribute's number (Section 5.1).
type AVPType uint16

// The attributes of vendor 0 that this package has types for.
const (
	AVPMessageType                   AVPType = 0
	AVPResultCode                    AVPType = 1
	AVPProtocolVersion               AVPType = 2
	AVPFramingCapabilities           AVPType = 3
	AVPBearerCapabilities            AVPType = 4
	AVPTieBreaker                    AVPType = 5
	AVPFirmwareRevision              AVPType = 6
	AVPHostName                      AVPType = 7
	AVPVendorName                    AVPType = 8
	AVPAssignedTunnelID              AVPType = 9
	AVPReceiveWindowSize             AVPType = 10
	AVPChallenge                     AVPType = 11
	AVPChallengeResponse             AVPType = 13
	AVPSerialNumber                  AVPType = 15
	AVPPhysicalChannelID             AVPType = 25
	AVPCircuitErrors                 AVPType = 34
	AVPRandomVector                  AVPType = 36
	AVPSequencingRequired            AVPType = 39
	AVPControlConnectionDS           AVPType = 47
	AVPSessionDS                     AVPType = 48
	AVPExtendedVendorID              AVPType = 58
	AVPMessageDigest                 AVPType = 59
	AVPRouterID                      AVPType = 60
	AVPAssignedControlConnectionID   AVPType = 61
	AVPPseudowireCapabilities        AVPType = 62
	AVPLocalSessionID                AVPType = 63
	AVPRemoteSessionID               AVPType = 64
	AVPAssignedCookie                AVPType = 65
	AVPRemoteEndID                   AVPType = 66
	AVPPseudowireType                AVPType = 68
	AVPL2SpecificSublayer            AVPType = 69
	AVPDataSequencing                AVPType = 70
	AVPCircuitStatus                 AVPType = 71
	AVPPreferredLanguage             AVPType = 72
	AVPNonce                         AVPType = 73
	AVPTxConnectSpeed                AVPType = 74
	AVPRxConnectSpeed                AVPType = 75
	AVPFailoverCapability            AVPType = 76
	AVPTunnelRecovery                AVPType = 77
	AVPSuggestedControlSequence      AVPType = 78
	AVPFailoverSessionState          AVPType = 79
	AVPFrameRelayHeaderLength        AVPType = 85
	AVPATMMaximumConcatenatedCells   AVPType = 86
	AVPOAMEmulationRequired          AVPType = 87
	AVPATMAlarmStatus                AVPType = 88
	AVPAttachmentGroupID             AVPType = 89
	AVPLocalEndID                    AVPType = 90
	AVPInterfaceMTU                  AVPType = 91
	AVPFCSRetention                  AVPType = 92
	AVPMaximumReceiveUnit            AVPType = 94
	AVPMaximumReassembledReceiveUnit AVPType = 95
	AVPVCCVCapability                AVPType = 96
	AVPConnectSpeedUpdate            AVPType = 97
	AVPConnectSpeedUpdateEnable      AVPType = 98
	AVPTDMPseudowire                 AVPType = 99
	AVPRTP                           AVPType = 100
	AVPPseudowireSwitchingPoint      AVPType = 101
	AVPSBFDTargetDiscriminator       AVPType = 102
	AVPECNCapability                 AVPType = 103
)

// The values of the AVPs of RFC 3931, one type each, named as the RFC names the
// AVP. MessageType, PseudowireType, L2SpecificSublayer, DataSequencing and
// CircuitStatus are AVPs too.
type (
	HostName                    string           // 7, at least one octet
	VendorName                  string           // 8
	ReceiveWindowSize           uint16           // 10, messages; not 0
	SerialNumber                uint32           // 15
	PhysicalChannelID           uint32           // 25
	TieBreaker                  [8]byte          // 5
	RandomVector                []byte           // 36
	RouterID                    uint32           // 60
	AssignedControlConnectionID uint32           // 61, not 0
	PseudowireCapabilities      []PseudowireType // 62, at least one
	// LocalSessionID (63) is not 0, save in the CDN of a peer that never assigned one.
	LocalSessionID    uint32
	RemoteSessionID   uint32 // 64, 0 while unknown
	AssignedCookie    []byte // 65, 0, 4 or 8 octets
	RemoteEndID       []byte // 66
	PreferredLanguage string // 72
	Nonce             []byte // 73, the Control Message Authentication Nonce
	TxConnectSpeed    uint64 // 74, bit/s
	RxConnectSpeed    uint64 // 75, bit/s
)

// ResultCode is why a connection or a session was cleared (1, Section 5.4.2).
type ResultCode struct {
	// Result is one of the StopCCN… or the CDN… constants, after the message.
	Result uint16
	// HasError is set if Error (and Message) are on the wire. Appending treats it
	// as set where Error or Message say something.
	HasError bool
	Error    ErrorCode
	Message  string // UTF-8
}

// ErrorCode is a General Error Code (Section 5.4.2).
type ErrorCode uint16

// MessageDigest is the Message Digest AVP (59, Section 5.4.1).
type MessageDigest struct {
	Algorithm DigestAlgorithm
	// Digest has 16 octets for HMACMD5, 20 for HMACSHA1. An algorithm that is not
	// known here keeps what it came with.
	Digest []byte
}

// DigestAlgorithm is the Digest Type of a Message Digest AVP.
type DigestAlgorithm uint8

const (
	HMACMD5  DigestAlgorithm = 0
	HMACSHA1 DigestAlgorithm = 1
)

// CircuitErrors are counters since the session was established (34, Section
// 5.4.5). The text gives the AVP a Length of 32 and draws it with 24: a peer may
// send the figure, four counters, or the six of RFC 2661.
type CircuitErrors struct {
	Reserved uint16 // 0 in what is sent
	// Short is the form with 24 octets, without CRC and Framing.
	Short            bool
	CRC, Framing     uint32
	HardwareOverruns uint32
	BufferOverruns   uint32
	Timeouts         uint32
	Alignment        uint32
}

// ExtendedVendorID carries an AVP of a vendor with a 32-bit ID (58, Section 5.1).
type ExtendedVendorID struct {
	Vendor uint32
	Type   uint16
	Value  []byte
}

// The AVPs of other RFCs that have one integer or one string.
type (
	ControlConnectionDS           uint16   // 47, RFC 3308: PHB code of control packets
	SessionDS                     uint16   // 48, RFC 3308: PHB code of data packets
	FrameRelayHeaderLength        uint16   // 85, RFC 4591: 2 or 4 octets
	ATMMaximumConcatenatedCells   uint16   // 86, RFC 4454
	OAMEmulationRequired          struct{} // 87, RFC 4454
	AttachmentGroupID             []byte   // 89, RFC 4667
	LocalEndID                    []byte   // 90, RFC 4667
	InterfaceMTU                  uint16   // 91, RFC 4667: octets
	FCSRetention                  uint16   // 92, RFC 4720: octets of FCS, 4 for Ethernet
	MaximumReceiveUnit            uint16   // 94, RFC 4623: octets
	MaximumReassembledReceiveUnit uint16   // 95, RFC 4623: octets
	ConnectSpeedUpdateEnable      struct{} // 98, RFC 5515
	PseudowireSwitchingPoint      []byte   // 101, RFC 6073: sub-TLVs
	SBFDTargetDiscriminator       []uint32 // 102, RFC 7886: at least one
	ECNCapability                 struct{} // 103, RFC 9601
)

// ATMAlarmStatus is why an ATM circuit is inactive (88, RFC 4454).
type ATMAlarmStatus struct{ Reason, Alarm uint16 }

// VCCVCapability is what a side can receive on the control channel of a
// pseudowire (96, RFC 5085, Section 6.3).
type VCCVCapability struct {
	ControlChannels          uint8 // CC types, a mask
	ConnectivityVerification uint8 // CV types, a mask
}

// ConnectSpeedUpdate tells of new speeds of a session (97, RFC 5515), in bit/s.
type ConnectSpeedUpdate struct {
	RemoteSessionID uint32
	Tx, Rx          uint64
}

// FailoverCapability is what of a control connection survives the sender's
// restart (76, RFC 4951, Section 5.1).
type FailoverCapability struct {
	Flags uint16 // FailoverControl, FailoverData
	// RecoveryTime is how long the peer should wait for a recovery, in ms.
	RecoveryTime uint32
}

const (
	FailoverControl uint16 = 0x0001
	FailoverData    uint16 = 0x0002
)

// TunnelRecovery names the connection that a recovery tunnel is for (77, RFC
// 4951, Section 5.2).
type TunnelRecovery struct {
	Reserved                  uint16 // 0 in what is sent
	ControlConnectionID       uint32 // of the sender
	RemoteControlConnectionID uint32 // of the receiver
}

// SuggestedControlSequence are the numbers that the recovered connection should
// go on with (78, RFC 4951, Section 5.3).
type SuggestedControlSequence struct {
	Reserved uint16 // 0 in what is sent
	Ns, Nr   uint16
}

// FailoverSessionState names a session in FSQ and FSR (79, RFC 4951, Section
// 5.4). A Session ID of 0 says that the session is unknown.
type FailoverSessionState struct {
	Reserved        uint16 // 0 in what is sent
	SessionID       uint32
	RemoteSessionID uint32
}

// The parameters of a TDM pseudowire, as RFC 5611 lays them out, octet by octet:
// TDM is not carried here, and only their length is judged.
type (
	TDMPseudowire [6]byte  // 99
	RTP           [10]byte // 100
)

// AVPs of RFC 2661 that L2TPv3 does not have: a fallback SCCRQ contains them
// (Section 4.7.3), some peers send them in Version 3 too, and they are ignored.
type (
	ProtocolVersion     struct{ Version, Revision uint8 } // 2
	FramingCapabilities uint32                            // 3
	BearerCapabilities  uint32                            // 4
	FirmwareRevision    uint16                            // 6
	AssignedTunnelID    uint16                            // 9
	Challenge           []byte                            // 11
	ChallengeResponse   [16]byte                          // 13
	SequencingRequired  struct{}                          // 39
)

// RawAVP is an attribute that this package does not know, that belongs to
// another vendor, that is hidden and not yet revealed, or whose value does not
// have the form of its type. It keeps what was on the wire.
type RawAVP struct {
	Vendor    uint16
	Type      AVPType
	Mandatory bool
	Hidden    bool
	Reserved  uint8
	Value     []byte
	// Malformed is why a known type's value could not be read; nil otherwise.
	Malformed error
}
