package l2tpv3

// The control message header (Figure 3.2.1).
const (
	headerLength    = 12
	avpHeaderLength = 6

	flagT          = 0x8000
	flagL          = 0x4000
	flagS          = 0x0800
	flagO          = 0x0200 // Offset of RFC 2661, Section 3.1; an x bit in Version 3
	maskReserved   = 0x37f0
	maskVersion    = 0x000f
	maxMessage     = 65535
	avpMandatory   = 0x8000
	avpHidden      = 0x4000
	avpLengthMask  = 0x03ff
	avpReservedPos = 10
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

// Parse reads a control message from the T bit on: the payload of a UDP
// datagram, or what follows the four zero octets in IP (Section 4.1.1.2).
//
// A *ParseError says that the header is malformed, or an AVP's length is, after
// which the next AVP cannot be found; such a message is to be discarded (Section
// 7.1). An AVP that is unknown, another vendor's or hidden becomes a RawAVP; one
// of a known type that is malformed becomes a RawAVP with Malformed set.
//
// Octets beyond the header's Length are not part of the message (Section 3.2.1)
// and are ignored: an IP packet may carry more than its payload needs. They are
// not covered by a digest either.
//
// The message aliases b.
func Parse(b []byte) (*Message, error) {
	m := new(Message)
	if err := m.Parse(b); err != nil {
		return nil, err
	}
	return m, nil
}

// Parse is like the function of that name, into a message whose storage for AVPs
// is used again. After an error m has no meaning.
func (m *Message) Parse(b []byte) error {
	n, err := m.parseHeader(b)
	if err != nil {
		return err
	}
	m.AVPs, m.Flags = m.AVPs[:0], m.Flags[:0]
	if m.AVPs == nil {
		if c := countAVPs(b[headerLength:n]); c > 0 {
			m.AVPs = make([]AVP, 0, c)
		}
	}
	for off := headerLength; off < n; {
		size, err := m.parseAVP(b[:n], off)
		if err != nil {
			return err
		}
		off += size
	}
	return nil
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

// countAVPs counts as far as the lengths make sense.
func countAVPs(b []byte) int {
	c := 0
	for len(b) >= avpHeaderLength {
		n := int(be.Uint16(b) & avpLengthMask)
		if n < avpHeaderLength || n > len(b) {
			break
		}
		b = b[n:]
		c++
	}
	return c
}

// parseAVP adds the AVP at off to the message and returns its Length.
func (m *Message) parseAVP(b []byte, off int) (int, error) {
	if len(b)-off < avpHeaderLength {
		return 0, &ParseError{Offset: off, Field: "AVP header", Err: ErrShort}
	}
	w := be.Uint16(b[off:])
	n := int(w & avpLengthMask)
	if n < avpHeaderLength || n > len(b)-off {
		return 0, &ParseError{Offset: off, Field: "AVP Length", Err: ErrLength}
	}
	raw := RawAVP{
		Vendor:    be.Uint16(b[off+2:]),
		Type:      AVPType(be.Uint16(b[off+4:])),
		Mandatory: w&avpMandatory != 0,
		Hidden:    w&avpHidden != 0,
		Reserved:  uint8(w >> avpReservedPos & 0xf),
		Value:     b[off+avpHeaderLength : off+n : off+n],
	}
	a := raw.typed(off)
	m.AVPs = append(m.AVPs, a)
	if _, ok := a.(RawAVP); !ok {
		f := AVPFlags{Mandatory: raw.Mandatory, Reserved: raw.Reserved}
		m.keepFlags(f)
	} else if len(m.Flags) > 0 {
		m.Flags = append(m.Flags, AVPFlags{})
	}
	return n, nil
}

// keepFlags records the flags of the AVP added last, if they or those of one
// before it are unusual.
func (m *Message) keepFlags(f AVPFlags) {
	last := len(m.AVPs) - 1
	if len(m.Flags) == 0 {
		if f == DefaultFlags(m.Version, m.AVPs[last]) {
			return
		}
		for _, a := range m.AVPs[:last] {
			if _, ok := a.(RawAVP); ok {
				m.Flags = append(m.Flags, AVPFlags{})
			} else {
				m.Flags = append(m.Flags, DefaultFlags(m.Version, a))
			}
		}
	}
	m.Flags = append(m.Flags, f)
}

// typed gives the AVP its type if it has one that can be read, or r itself.
// Offset is where its header starts.
func (r RawAVP) typed(offset int) AVP {
	if r.Vendor != 0 {
		return r
	}
	info := lookup(r.Type)
	if info == nil {
		return r
	}
	if r.Hidden {
		// Section 5.4: for some AVPs the H bit MUST be 0.
		if !info.MayHide {
			r.Malformed = &ParseError{Offset: offset, Field: info.Name + " AVP", Err: ErrHidden}
		}
		return r
	}
	if err := info.valid(r.Value); err != nil {
		r.Malformed = &ParseError{Offset: offset, Field: info.Name + " AVP", Err: err}
		return r
	}
	return info.decode(r.Value)
}
