package conformance

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// messageType is the value of the Message Type AVP (RFC 3931, Section 3.1).
type messageType uint16

const (
	sccrq   messageType = 1
	sccrp   messageType = 2
	scccn   messageType = 3
	stopCCN messageType = 4
	hello   messageType = 6
	icrq    messageType = 10
	icrp    messageType = 11
	iccn    messageType = 12
	cdn     messageType = 14
	wen     messageType = 15
	sli     messageType = 16
	ack     messageType = 20
	// zlb stands for a message without AVPs (Section 6.15); it is on no wire.
	zlb messageType = 0xffff
)

var messageNames = map[messageType]string{
	sccrq: "SCCRQ", sccrp: "SCCRP", scccn: "SCCCN", stopCCN: "StopCCN", hello: "HELLO", icrq: "ICRQ", icrp: "ICRP",
	iccn: "ICCN", cdn: "CDN", wen: "WEN", sli: "SLI", ack: "ACK", zlb: "ZLB",
}

func (t messageType) String() string {
	if s, ok := messageNames[t]; ok {
		return s
	}
	return fmt.Sprintf("message type %d", uint16(t))
}

// Attribute types (RFC 3931, Section 5.4; 2 to 11 and 9 also RFC 2661, Section 4.4).
const (
	avpMessageType       = 0
	avpResultCode        = 1
	avpProtocolVersion   = 2 // of L2TPv2
	avpFramingCaps       = 3 // of L2TPv2
	avpTieBreaker        = 5
	avpHostName          = 7
	avpVendorName        = 8
	avpAssignedTunnelID  = 9 // of L2TPv2
	avpReceiveWindow     = 10
	avpSerialNumber      = 15
	avpPhysicalChannel   = 25
	avpCircuitErrors     = 34
	avpRandomVector      = 36
	avpExtendedVendor    = 58
	avpRouterID          = 60
	avpAssignedCCID      = 61
	avpCapabilities      = 62
	avpLocalSessionID    = 63
	avpRemoteSessionID   = 64
	avpCookie            = 65
	avpRemoteEndID       = 66
	avpPseudowireType    = 68
	avpSublayer          = 69
	avpSequencing        = 70
	avpCircuitStatus     = 71
	avpPreferredLanguage = 72
	avpTxSpeed           = 74
	avpRxSpeed           = 75
)

// The first 16 bits of a control message (Section 3.2.1).
const (
	controlBit   = 0x8000
	controlWord  = 0xc803 // T, L and S set, Ver 3
	reservedBits = 0x37f0 // the x bits
)

// headerLength is a control message header's, in octets.
const headerLength = 12

// avp is an attribute-value pair (Section 5.1), its value not hidden.
type avp struct {
	mandatory, hidden bool
	reserved          uint16 // the rsvd bits, 0 to 15
	vendor, kind      uint16
	value             []byte
}

func (a avp) String() string {
	m := ""
	if a.mandatory {
		m = ", M"
	}
	return fmt.Sprintf("AVP %d:%d%s %x", a.vendor, a.kind, m, a.value)
}

// octets, u16 and u32 make IETF AVPs, with M set.
func octets(kind uint16, value ...byte) avp { return avp{mandatory: true, kind: kind, value: value} }

func text(kind uint16, s string) avp { return octets(kind, []byte(s)...) }

func u16(kind uint16, values ...uint16) avp {
	a := octets(kind)
	for _, v := range values {
		a.value = binary.BigEndian.AppendUint16(a.value, v)
	}
	return a
}

func u32(kind uint16, v uint32) avp {
	return octets(kind, binary.BigEndian.AppendUint32(nil, v)...)
}

// optional is the AVP with M clear.
func (a avp) optional() avp {
	a.mandatory = false
	return a
}

// unknown are AVPs that nobody can know: of an IETF number that is not assigned,
// and of a vendor.
func unknown(mandatory bool) []avp {
	return []avp{
		{mandatory: mandatory, kind: 0x7abc, value: []byte("unknown")},
		{mandatory: mandatory, vendor: 0xfffe, kind: 1, value: []byte{1, 2, 3}},
	}
}

// message is a control message. The zero bits are a controlWord's.
type message struct {
	bits   uint16
	ccid   uint32
	ns, nr uint16
	avps   []avp
}

// newMessage has the Message Type AVP and others behind it.
func newMessage(kind messageType, avps ...avp) message {
	return message{avps: append([]avp{u16(avpMessageType, uint16(kind))}, avps...)}
}

// with replaces AVPs by those of the same vendor and type, and adds those that
// are not there yet.
func (m message) with(avps ...avp) message {
	m.avps = append([]avp(nil), m.avps...)
next:
	for _, a := range avps {
		for i := range m.avps {
			if m.avps[i].vendor == a.vendor && m.avps[i].kind == a.kind {
				m.avps[i] = a
				continue next
			}
		}
		m.avps = append(m.avps, a)
	}
	return m
}

// without leaves IETF AVPs of a type out.
func (m message) without(kind uint16) message {
	var left []avp
	for _, a := range m.avps {
		if a.vendor != 0 || a.kind != kind {
			left = append(left, a)
		}
	}
	m.avps = left
	return m
}

// inverted has all M bits the other way.
func (m message) inverted() message {
	m.avps = append([]avp(nil), m.avps...)
	for i := range m.avps {
		m.avps[i].mandatory = !m.avps[i].mandatory
	}
	return m
}

// kind is the Message Type, zlb for none.
func (m message) kind() messageType {
	if len(m.avps) == 0 {
		return zlb
	}
	if a := m.avps[0]; a.vendor == 0 && a.kind == avpMessageType && len(a.value) == 2 {
		return messageType(binary.BigEndian.Uint16(a.value))
	}
	return 0
}

// isACK is true of a ZLB too: they have the same function (Section 6.15).
func (m message) isACK() bool { return m.kind() == ack || m.kind() == zlb }

// value is that of the first IETF AVP of a type, nil if there is none.
func (m message) value(kind uint16) []byte {
	for _, a := range m.avps {
		if a.vendor == 0 && a.kind == kind {
			return append([]byte{}, a.value...)
		}
	}
	return nil
}

func (m message) has(kind uint16) bool { return m.value(kind) != nil }

// number is the value of an AVP with 2 or 4 octets, 0 of any other.
func (m message) number(kind uint16) uint32 {
	switch v := m.value(kind); len(v) {
	case 2:
		return uint32(binary.BigEndian.Uint16(v))
	case 4:
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// result is the Result Code AVP's codes (Section 5.4.2); those not there are 0.
func (m message) result() (result, code uint16) {
	v := m.value(avpResultCode)
	if len(v) >= 2 {
		result = binary.BigEndian.Uint16(v)
	}
	if len(v) >= 4 {
		code = binary.BigEndian.Uint16(v[2:])
	}
	return result, code
}

func (m message) String() string {
	s := fmt.Sprintf("%v to %08x Ns %d Nr %d", m.kind(), m.ccid, m.ns, m.nr)
	if m.has(avpResultCode) {
		result, code := m.result()
		s += fmt.Sprintf(" result %d error %d", result, code)
		if v := m.value(avpResultCode); len(v) > 4 {
			s += fmt.Sprintf(" %q", v[4:])
		}
	}
	for _, a := range []struct {
		kind uint16
		name string
	}{{avpLocalSessionID, "local"}, {avpRemoteSessionID, "remote"}, {avpCircuitStatus, "circuit"}} {
		if m.has(a.kind) {
			s += fmt.Sprintf(" %s %x", a.name, m.number(a.kind))
		}
	}
	return s
}

// encode writes the message with the right Length.
func (m message) encode() []byte {
	bits := m.bits
	if bits == 0 {
		bits = controlWord
	}
	b := binary.BigEndian.AppendUint16(nil, bits)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, m.ccid)
	b = binary.BigEndian.AppendUint16(b, m.ns)
	b = binary.BigEndian.AppendUint16(b, m.nr)
	for _, a := range m.avps {
		flags := a.reserved<<10 | uint16(6+len(a.value))
		if a.mandatory {
			flags |= 0x8000
		}
		if a.hidden {
			flags |= 0x4000
		}
		b = binary.BigEndian.AppendUint16(b, flags)
		b = binary.BigEndian.AppendUint16(b, a.vendor)
		b = binary.BigEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// decode reads a control message. It is as strict as Section 3.2.1 and Section
// 5.1 are towards a sender: what does not add up to the last octet is an error.
func decode(b []byte) (message, error) {
	if len(b) < headerLength {
		return message{}, fmt.Errorf("%d octets, fewer than a header's %d", len(b), headerLength)
	}
	m := message{
		bits: binary.BigEndian.Uint16(b), ccid: binary.BigEndian.Uint32(b[4:]),
		ns: binary.BigEndian.Uint16(b[8:]), nr: binary.BigEndian.Uint16(b[10:]),
	}
	if length := int(binary.BigEndian.Uint16(b[2:])); length != len(b) {
		return m, fmt.Errorf("the Length is %d, of a datagram with %d octets", length, len(b))
	}
	for rest := b[headerLength:]; len(rest) > 0; {
		if len(rest) < 6 {
			return m, fmt.Errorf("%d octets behind the last AVP", len(rest))
		}
		flags := binary.BigEndian.Uint16(rest)
		length := int(flags & 0x03ff)
		if length < 6 || length > len(rest) {
			return m, fmt.Errorf("an AVP's Length is %d where %d octets are left", length, len(rest))
		}
		m.avps = append(m.avps, avp{
			mandatory: flags&0x8000 != 0, hidden: flags&0x4000 != 0, reserved: flags >> 10 & 0xf,
			vendor: binary.BigEndian.Uint16(rest[2:]), kind: binary.BigEndian.Uint16(rest[4:]),
			value: rest[6:length],
		})
		rest = rest[length:]
	}
	return m, nil
}

// describe is a packet in words and in hex, for transcripts.
func describe(b []byte) string {
	if len(b) >= 2 && binary.BigEndian.Uint16(b)&controlBit == 0 {
		return fmt.Sprintf("data %x", b)
	}
	m, err := decode(b)
	s := strings.TrimSpace(m.String())
	if err != nil {
		s = err.Error()
	}
	return fmt.Sprintf("%s  %x", s, b)
}
