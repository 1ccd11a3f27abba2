package l2tpv3

// Append writes the message after b, from the T bit on, and returns the longer
// slice. A message that came from Parse is written as it was. On an error, an
// *EncodeError that says which AVP cannot be written and why, it returns b.
//
// A Message Digest is written as it is in the message; Sign fills it in afterwards.
func (m *Message) Append(b []byte) ([]byte, error) {
	version := uint16(m.Version)
	if version == 0 {
		version = 3
	}
	if version != 3 && version != 2 {
		return b, &EncodeError{Index: -1, Field: "Ver", Err: ErrVersion}
	}
	if m.Reserved&^maskReserved != 0 || version == 2 && m.Reserved&flagO != 0 {
		return b, &EncodeError{Index: -1, Field: "reserved bits", Err: ErrFlags}
	}
	if len(m.Flags) != 0 && len(m.Flags) != len(m.AVPs) {
		return b, &EncodeError{Index: -1, Field: "Flags", Err: ErrLength}
	}
	start := len(b)
	out := be.AppendUint16(b, flagT|flagL|flagS|m.Reserved|version)
	out = be.AppendUint16(out, 0)
	out = be.AppendUint32(out, m.ControlConnectionID)
	out = be.AppendUint16(out, m.Ns)
	out = be.AppendUint16(out, m.Nr)
	for i, a := range m.AVPs {
		if a == nil {
			return b, &EncodeError{Index: i, Field: "AVP", Err: ErrValue}
		}
		var err error
		vendor, number, flags := m.numbered(a, m.FlagsAt(i))
		if out, err = appendAVP(out, a, vendor, number, flags); err != nil {
			return b, &EncodeError{Index: i, Field: fieldName(a), Err: err}
		}
	}
	if len(out)-start > maxMessage {
		return b, &EncodeError{Index: -1, Field: "Length", Err: ErrTooLong}
	}
	be.PutUint16(out[start+2:], uint16(len(out)-start))
	return out, nil
}

// appendAVP writes one AVP with its header (Figure 5.1).
func appendAVP(b []byte, a AVP, vendor uint16, number AVPType, f AVPFlags) ([]byte, error) {
	start := len(b)
	var word uint16
	raw, isRaw := a.(RawAVP)
	if isRaw && raw.Hidden {
		word |= avpHidden
	}
	if f.Mandatory {
		word |= avpMandatory
	}
	if f.Reserved > 0xf {
		return b, ErrFlags
	}
	word |= uint16(f.Reserved) << avpReservedPos
	b = be.AppendUint16(b, 0)
	b = be.AppendUint16(b, vendor)
	b = be.AppendUint16(b, uint16(number))
	b = a.appendValue(b)
	n := len(b) - start
	if n > avpLengthMask {
		return b, ErrTooLong
	}
	if !isRaw {
		info := lookup(a.AVPType())
		if info == nil {
			return b, ErrValue
		}
		if err := info.valid(b[start+avpHeaderLength:]); err != nil {
			return b, err
		}
	}
	be.PutUint16(b[start:], word|uint16(n))
	return b, nil
}

// nameOf is the AVP's name as its RFC writes it.
func nameOf(a AVP) string {
	if r, ok := a.(RawAVP); ok {
		return avpName(r.Vendor, r.Type)
	}
	return avpName(0, a.AVPType())
}

// fieldName is the AVP's name in errors.
func fieldName(a AVP) string { return nameOf(a) + " AVP" }
