// Package l2tpv3 is the wire of L2TPv3 (RFC 3931): control messages and their
// AVPs, the data message header, message digests and AVP hiding. It holds no
// state and does no I/O.
//
// Parse reads a control message, Message.Append writes one. Every AVP of the
// IETF is a Go type of its own, found in a message by Find; what is unknown,
// hidden or malformed is a RawAVP, which keeps what was on the wire. Parsed
// messages alias the octets they were read from: who keeps one longer than its
// buffer copies the buffer first.
//
// Nothing that was on the wire is lost: appending a parsed message gives the
// octets that were parsed, reserved bits and unusual M bits included.
//
// FCSRetention (RFC 4720) is read and written like any other AVP. Package control
// refuses what it asks for by leaving it out of the answer: Linux takes the FCS off
// before either datapath sees a frame, so there is none to retain.
package l2tpv3

// Encapsulation is the kind of packet that carries L2TPv3 over the PSN
// (RFC 3931, Section 4.1).
type Encapsulation uint8

const (
	// UDP carries L2TPv3 in UDP datagrams, port 1701 (Section 4.1.2).
	UDP Encapsulation = iota
	// IP carries L2TPv3 directly in IP, protocol 115 (Section 4.1.1).
	IP
)

const (
	// Port is the UDP port on which an LCCE listens (Section 4.1.2.2).
	Port = 1701
	// Protocol is the IP protocol number of L2TPv3 over IP (Section 4.1.1).
	Protocol = 115
)

// Message is one control message (Section 3.2.1). A Message without AVPs is a
// ZLB.
type Message struct {
	// Version is 3, or 2 in a fallback SCCRQ (Section 4.7.3). 0 is written as 3.
	Version uint8
	// Reserved has the x bits of the header where they stand in its first 16 bits.
	// They are 0 in what is sent and mean nothing in what is received.
	Reserved uint16
	// ControlConnectionID is the one that the recipient assigned; 0 while unknown.
	// In a Version 2 message it holds the Tunnel ID and the Session ID.
	ControlConnectionID uint32
	Ns, Nr              uint16
	// AVPs in wire order. The first is the MessageType.
	AVPs []AVP
	// Flags has the M and reserved bits of each AVP, in the order of AVPs. It is
	// empty if all have what DefaultFlags says, the normal case. The entry of a
	// RawAVP is not used: it has its own.
	Flags []AVPFlags
	// Numbers are those that Append writes. Parse leaves what is not standard as it
	// is, in RawAVPs; see Standardize.
	Numbers Numbers
}

// AVPFlags is what the header of an AVP has besides its length, its number and
// the H bit (Section 5.1).
type AVPFlags struct {
	// Mandatory is the M bit.
	Mandatory bool
	// Reserved has the four rsvd bits, 0 in what is sent.
	Reserved uint8
}

// AVP is the value of one attribute (Section 5.1): one of the types of this
// package, or RawAVP for those it does not know and those that are malformed.
type AVP interface {
	// AVPType is the attribute's number under vendor 0 (for RawAVP see its fields).
	AVPType() AVPType
	appendValue(b []byte) []byte
}

// NewMessage is a Version 3 message of type t. The Message Type comes first, as
// it has to (Section 5.4.1), then avps in their order.
func NewMessage(t MessageType, avps ...AVP) *Message {
	all := make([]AVP, 0, 1+len(avps))
	all = append(all, t)
	return &Message{Version: 3, AVPs: append(all, avps...)}
}

// Type is the message's type: its first AVP. It is false for a ZLB and for a
// message whose Message Type is missing, malformed or another vendor's.
func (m *Message) Type() (MessageType, bool) {
	if len(m.AVPs) == 0 {
		return 0, false
	}
	t, ok := m.AVPs[0].(MessageType)
	return t, ok
}

// IsZLB reports whether the message is a header only, which acknowledges
// without the explicit ACK (Section 6.15).
func (m *Message) IsZLB() bool { return len(m.AVPs) == 0 }

// Find returns the first AVP of type T.
func Find[T AVP](m *Message) (T, bool) {
	for _, a := range m.AVPs {
		if v, ok := a.(T); ok {
			return v, true
		}
		if v, ok := a.(any).(*T); ok { // of a Parser
			return *v, true
		}
	}
	var none T
	return none, false
}

// FlagsAt is the M and reserved bits with which the i-th AVP came, or will be sent.
func (m *Message) FlagsAt(i int) AVPFlags {
	if r, ok := m.AVPs[i].(RawAVP); ok {
		return AVPFlags{Mandatory: r.Mandatory, Reserved: r.Reserved}
	}
	if i < len(m.Flags) {
		return m.Flags[i]
	}
	return DefaultFlags(m.Version, m.AVPs[i])
}

// SetFlags gives the i-th AVP other M and reserved bits than the default. The M
// bit is the sender's choice (Section 5.2).
func (m *Message) SetFlags(i int, f AVPFlags) {
	if r, ok := m.AVPs[i].(RawAVP); ok {
		r.Mandatory, r.Reserved = f.Mandatory, f.Reserved
		m.AVPs[i] = r
		return
	}
	for j := len(m.Flags); j < len(m.AVPs); j++ {
		m.Flags = append(m.Flags, m.FlagsAt(j))
	}
	m.Flags[i] = f
}

// DefaultFlags is what this package sends for an AVP: the M bit that the AVP's
// RFC recommends. In a Version 2 message the M bit of everything that RFC 2661
// does not know is 0 (Section 4.7.3).
func DefaultFlags(version uint8, a AVP) AVPFlags {
	switch a := a.(type) {
	case RawAVP:
		return AVPFlags{Mandatory: a.Mandatory, Reserved: a.Reserved}
	case MessageType:
		return AVPFlags{Mandatory: a.mandatory()}
	}
	info := lookup(a.AVPType())
	if info == nil {
		return AVPFlags{}
	}
	if version == 2 {
		return AVPFlags{Mandatory: info.mandatory2}
	}
	return AVPFlags{Mandatory: info.Mandatory}
}
