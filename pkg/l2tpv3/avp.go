package l2tpv3

// AVPType is the attribute's number (Section 5.1).
type AVPType uint16

// The values of the AVPs, one type each, named as the RFC names the AVP.
type (
	HostName                    string           // 7
	VendorName                  string           // 8
	ReceiveWindowSize           uint16           // 10
	SerialNumber                uint32           // 15
	PhysicalChannelID           uint32           // 25
	TieBreaker                  [8]byte          // 5
	RandomVector                []byte           // 36
	RouterID                    uint32           // 60
	AssignedControlConnectionID uint32           // 61
	PseudowireCapabilities      []PseudowireType // 62
	LocalSessionID              uint32           // 63
	RemoteSessionID             uint32           // 64
	AssignedCookie              []byte           // 65
	RemoteEndID                 []byte           // 66
	PreferredLanguage           string           // 72
	Nonce                       []byte           // 73
	TxConnectSpeed              uint64           // 74, bit/s
	RxConnectSpeed              uint64           // 75, bit/s
	AttachmentGroupID           []byte           // 89
	LocalEndID                  []byte           // 90
	InterfaceMTU                uint16           // 91, octets
)

// ResultCode is why a connection or a session was cleared (Section 5.4.2).
type ResultCode struct {
	Result uint16
	// HasError is set if Error (and Message) are on the wire.
	HasError bool
	Error    ErrorCode
	Message  string // UTF-8
}

// ErrorCode is a General Error Code (Section 5.4.2).
type ErrorCode uint16

// MessageDigest is the Message Digest AVP (Section 5.4.1).
type MessageDigest struct {
	Algorithm DigestAlgorithm
	Digest    []byte // 16 octets for HMACMD5, 20 for HMACSHA1
}

// DigestAlgorithm is the Digest Type of a Message Digest AVP.
type DigestAlgorithm uint8

const (
	HMACMD5  DigestAlgorithm = 0
	HMACSHA1 DigestAlgorithm = 1
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
