package l2tpv3

// The header of an AVP (Figure 5.1).
const (
	avpHeaderLength = 6

	avpMandatory   = 0x8000
	avpHidden      = 0x4000
	avpReservedPos = 10 // the bits above the Length, below the H bit
	avpLengthMask  = 0x03ff
)

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
	if err := m.parse(b, nil); err != nil {
		return nil, err
	}
	return m, nil
}

// A Parser reads messages one after the other into the same storage, so that
// those that a living connection gets all the time leave no garbage. The zero
// value is ready for use.
//
// AVPs of the types Local Session ID, Remote Session ID and Message Digest are
// pointers into that storage. Find gives their values all the same.
type Parser struct {
	m      Message
	local  LocalSessionID
	remote RemoteSessionID
	digest MessageDigest
	// The fields that the current message uses; a repeated AVP gets memory of its own.
	hasLocal, hasRemote, hasDigest bool
}

// Parse is like the function of that name. The message is valid until the next call.
func (p *Parser) Parse(b []byte) (*Message, error) {
	p.hasLocal, p.hasRemote, p.hasDigest = false, false, false
	if err := p.m.parse(b, p); err != nil {
		return nil, err
	}
	return &p.m, nil
}

// box keeps the AVP in the Parser's storage if it has room for one of its type.
func (p *Parser) box(r RawAVP) (AVP, bool) {
	if p == nil || r.Vendor != 0 || r.Hidden {
		return nil, false
	}
	switch {
	case r.Type == AVPLocalSessionID && !p.hasLocal && len(r.Value) == 4:
		p.local, p.hasLocal = LocalSessionID(be.Uint32(r.Value)), true
		return &p.local, true
	case r.Type == AVPRemoteSessionID && !p.hasRemote && len(r.Value) == 4:
		p.remote, p.hasRemote = RemoteSessionID(be.Uint32(r.Value)), true
		return &p.remote, true
	case r.Type == AVPMessageDigest && !p.hasDigest && lookup(r.Type).valid(r.Value) == nil:
		p.digest, p.hasDigest = MessageDigest{Algorithm: DigestAlgorithm(r.Value[0]), Digest: r.Value[1:]}, true
		return &p.digest, true
	}
	return nil, false
}

// parse reads a message into m's storage. After an error m has no meaning.
func (m *Message) parse(b []byte, p *Parser) error {
	n, err := m.parseHeader(b)
	if err != nil {
		return err
	}
	m.AVPs, m.Flags, m.Numbers = m.AVPs[:0], m.Flags[:0], StandardNumbers
	if m.AVPs == nil {
		if c := countAVPs(b[headerLength:n]); c > 0 {
			m.AVPs = make([]AVP, 0, c)
		}
	}
	for off := headerLength; off < n; {
		size, err := m.parseAVP(b[:n], off, p)
		if err != nil {
			return err
		}
		off += size
	}
	return nil
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
func (m *Message) parseAVP(b []byte, off int, p *Parser) (int, error) {
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
	a, boxed := p.box(raw)
	if !boxed {
		a = raw.typed(off)
	}
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
