package l2tpv3

import "crypto/md5"

// Hide makes the hidden form of an AVP for a message in which vector is the
// closest Random Vector AVP before it (Section 5.3). Padding is random octets that
// obscure the value's length; there may be none.
//
// Errors are *EncodeError: the AVP must not be hidden, its value is not one that
// may be sent, it is hidden already, or with the padding it is too long.
func (s *Secret) Hide(a AVP, vector RandomVector, padding []byte) (RawAVP, error) {
	raw, isRaw := a.(RawAVP)
	if !isRaw {
		f := DefaultFlags(3, a)
		raw = RawAVP{Type: a.AVPType(), Mandatory: f.Mandatory, Reserved: f.Reserved, Value: a.appendValue(nil)}
		info := lookup(raw.Type)
		if !info.MayHide {
			return RawAVP{}, &EncodeError{Index: -1, Field: fieldName(a), Err: ErrHidden}
		}
		if err := info.valid(raw.Value); err != nil {
			return RawAVP{}, &EncodeError{Index: -1, Field: fieldName(a), Err: err}
		}
	}
	if raw.Hidden {
		return RawAVP{}, &EncodeError{Index: -1, Field: fieldName(a), Err: ErrHidden}
	}
	n := 2 + len(raw.Value) + len(padding)
	if n > maxValue {
		return RawAVP{}, &EncodeError{Index: -1, Field: fieldName(a), Err: ErrTooLong}
	}
	// Figure 5.3: Hidden AVP Subformat.
	p := make([]byte, 0, n)
	p = be.AppendUint16(p, uint16(len(raw.Value)))
	p = append(append(p, raw.Value...), padding...)
	s.chain(raw.Type, vector, p, p)
	raw.Hidden, raw.Value, raw.Malformed = true, p, nil
	return raw, nil
}

// Reveal replaces the hidden AVPs of a message by what they hide. One that cannot
// be revealed, because no Random Vector precedes it or because what comes out is
// no value of its type, as with a wrong secret, stays a RawAVP and is marked
// Malformed: its M bit decides what becomes of the message (Section 7.1).
//
// The message does not give the same octets any more: a digest is verified over
// those that were received.
func (s *Secret) Reveal(m *Message) {
	var vector RandomVector
	found := false
	for i, a := range m.AVPs {
		switch a := a.(type) {
		case RandomVector:
			vector, found = a, true
		case RawAVP:
			if !a.Hidden || a.Malformed != nil {
				continue
			}
			if !found {
				a.Malformed = &ParseError{Field: fieldName(a), Err: ErrRandomVector}
				m.AVPs[i] = a
				continue
			}
			s.reveal(m, i, a, vector)
		}
	}
}

func (s *Secret) reveal(m *Message, i int, a RawAVP, vector RandomVector) {
	if len(a.Value) < 2 {
		a.Malformed = &ParseError{Field: fieldName(a), Err: ErrShort}
		m.AVPs[i] = a
		return
	}
	p := make([]byte, len(a.Value))
	s.chain(a.Type, vector, p, a.Value)
	n := int(be.Uint16(p))
	if n > len(p)-2 {
		a.Malformed = &ParseError{Field: fieldName(a), Err: ErrLength}
		m.AVPs[i] = a
		return
	}
	f := AVPFlags{Mandatory: a.Mandatory, Reserved: a.Reserved}
	a.Hidden, a.Value = false, p[2:2+n:2+n]
	typed := a.typed(0)
	m.AVPs[i] = typed
	if f != m.FlagsAt(i) {
		m.SetFlags(i, f)
	}
}

// chain XORs src into dst with b_1 = MD5 (A + S + RV), b_i = MD5 (S + c_i-1), c
// being the hidden octets: of dst when hiding, of src when revealing (Section
// 5.3). Hiding is done in place, dst and src the same octets; revealing is not.
func (s *Secret) chain(t AVPType, vector RandomVector, dst, src []byte) {
	hiding := len(src) > 0 && &dst[0] == &src[0]
	seed := be.AppendUint16(make([]byte, 0, 2+len(s.hideKey)+len(vector)), uint16(t))
	b := md5.Sum(append(append(seed, s.hideKey[:]...), vector...))
	var next [2 * md5.Size]byte
	copy(next[:], s.hideKey[:])
	for len(src) > 0 {
		n := min(md5.Size, len(src))
		c := src[:n]
		for j := range n {
			dst[j] = src[j] ^ b[j]
		}
		if hiding {
			c = dst[:n]
		}
		copy(next[md5.Size:], c)
		b = md5.Sum(next[:])
		dst, src = dst[n:], src[n:]
	}
}
