package l2tpv3

// The control message header (Figure 3.2.1).
const (
	headerLength = 12
	maxMessage   = 65535 // Length has 16 bits

	flagT        = 0x8000
	flagL        = 0x4000
	flagS        = 0x0800
	flagO        = 0x0200 // Offset of RFC 2661, Section 3.1; an x bit in Version 3
	maskReserved = 0x37f0
	maskVersion  = 0x000f
)

// IsControl reports whether the payload of a UDP datagram is a control message
// rather than a data message: whether it has the T bit (Section 4.1.2.1). The Ver
// field comes first, because other versions may put other bits there: it has to
// be 3, or 2 for a fallback SCCRQ (Section 4.7.3).
func IsControl(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	w := be.Uint16(b)
	v := w & maskVersion
	return (v == 3 || v == 2) && w&flagT != 0
}

// ControlPayload tells control from data in what a UDP datagram or an IP packet
// carries: it returns the control message, from the T bit on, and true; or b and
// false for a data message. Over IP the four zero octets that stand where a data
// message has its Session ID are taken off (Section 4.1.1.2).
func ControlPayload(b []byte, e Encapsulation) ([]byte, bool) {
	if e == UDP {
		return b, IsControl(b)
	}
	if len(b) < ipSessionHeader || be.Uint32(b) != 0 {
		return b, false
	}
	return b[ipSessionHeader:], true
}

// AppendControlPrefix writes what precedes a control message: nothing over UDP,
// four zero octets over IP (Section 4.1.1.2). Neither Length nor digest covers it.
func AppendControlPrefix(b []byte, e Encapsulation) []byte {
	if e == IP {
		b = be.AppendUint32(b, 0)
	}
	return b
}

// SetNr puts another Nr into an encoded message: a retransmission has the Ns of
// the first time and the latest Nr (Section 4.2). A digest has to be made anew, by
// Sign. The message has to be whole.
func SetNr(message []byte, nr uint16) {
	if len(message) >= headerLength {
		be.PutUint16(message[10:], nr)
	}
}

// parseHeader returns the message's Length.
func (m *Message) parseHeader(b []byte) (int, error) {
	if len(b) < headerLength {
		return 0, &ParseError{Offset: 0, Field: "control message header", Err: ErrShort}
	}
	w := be.Uint16(b)
	version := w & maskVersion
	// Section 4.1.2.1: Ver before any other bit. Section 4.7.3: 2 in a fallback SCCRQ.
	if version != 3 && version != 2 {
		return 0, &ParseError{Offset: 0, Field: "Ver", Err: ErrVersion}
	}
	// Section 3.2.1: T, L and S MUST be 1.
	if w&(flagT|flagL|flagS) != flagT|flagL|flagS {
		return 0, &ParseError{Offset: 0, Field: "T, L and S bits", Err: ErrFlags}
	}
	// RFC 2661, Section 3.1: the O bit, which moves what follows, is 0 in control messages.
	if version == 2 && w&flagO != 0 {
		return 0, &ParseError{Offset: 0, Field: "O bit", Err: ErrFlags}
	}
	n := int(be.Uint16(b[2:]))
	// Section 7.1: an invalid value in the header.
	if n < headerLength || n > len(b) {
		return 0, &ParseError{Offset: 2, Field: "Length", Err: ErrLength}
	}
	m.Version, m.Reserved = uint8(version), w&maskReserved
	m.ControlConnectionID = be.Uint32(b[4:])
	m.Ns, m.Nr = be.Uint16(b[8:]), be.Uint16(b[10:])
	return n, nil
}
