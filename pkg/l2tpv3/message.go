// Package l2tpv3 is the wire of L2TPv3 (RFC 3931): control messages and their
// AVPs, the data message header, message digests and AVP hiding. It holds no
// state and does no I/O.
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

// Port is the UDP port on which an LCCE listens (Section 4.1.2.2).
const Port = 1701

// Message is one control message (Section 3.2.1). A Message without AVPs is a
// ZLB.
type Message struct {
	// Version is 3, or 2 in a fallback SCCRQ (Section 4.7.3). 0 is written as 3.
	Version uint8
	// ControlConnectionID is the one that the recipient assigned; 0 while unknown.
	ControlConnectionID uint32
	Ns, Nr              uint16
	// AVPs in wire order. The first is the MessageType.
	AVPs []AVP
}

// AVP is the value of one attribute (Section 5.1): one of the types of this
// package, or RawAVP for those it does not know and those that are malformed.
type AVP interface {
	// AVPType is the attribute's number under vendor 0 (for RawAVP see its fields).
	AVPType() AVPType
	appendValue(b []byte) []byte
}
