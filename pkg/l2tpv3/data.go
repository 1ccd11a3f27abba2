package l2tpv3

// The octets before the payload of a data message (Section 4.1).
const (
	udpSessionHeader = 8 // flags and version, reserved, Session ID
	ipSessionHeader  = 4 // Session ID
	sublayerLength   = 4

	dataFlagsUDP = 0x0003 // T is 0, Ver is 3 (Section 4.1.2.1)
	maxSequence  = 1<<24 - 1
)

// SublayerFlags are the first eight bits of an L2-Specific Sublayer.
type SublayerFlags uint8

const (
	// SublayerVCCV marks a message of the pseudowire's control channel (V, RFC 5085,
	// Section 6.1): the 24 bits after the flags are not a sequence number.
	SublayerVCCV SublayerFlags = 0x80
	// SublayerSequenced says that the sequence number is valid (S, Section 4.6).
	SublayerSequenced SublayerFlags = 0x40
	// SublayerBegin and SublayerEnd mark fragments (B and E, RFC 4623, Section 5.1).
	SublayerBegin SublayerFlags = 0x20
	SublayerEnd   SublayerFlags = 0x10
)

// DataHeader is what precedes the frame in a data message (Sections 4.1 and 4.6).
type DataHeader struct {
	// SessionID is the receiver's; never 0.
	SessionID uint32
	// Cookie is the receiver's: 0, 4 or 8 octets.
	Cookie []byte
	// Sublayer is what the receiver asked for: SublayerNone, or one with a word of
	// flags and a sequence number.
	Sublayer L2SpecificSublayer
	Flags    SublayerFlags
	// Sequence has 24 bits. It means nothing without SublayerSequenced.
	Sequence uint32
}

// DataSessionID reads the Session ID of a data message: a UDP payload, or what
// follows the IP header. With it the cookie's length and the sublayer are looked
// up, which ParseData needs (Section 4.5).
func DataSessionID(b []byte, e Encapsulation) (uint32, error) {
	n := ipSessionHeader
	if e == UDP {
		n = udpSessionHeader
	}
	if len(b) < n {
		return 0, &ParseError{Offset: 0, Field: "session header", Err: ErrShort}
	}
	if e == UDP {
		w := be.Uint16(b)
		// Section 4.1.2.1: Ver MUST be 3; the T bit tells control messages.
		if w&maskVersion != 3 {
			return 0, &ParseError{Offset: 0, Field: "Ver", Err: ErrVersion}
		}
		if w&flagT != 0 {
			return 0, &ParseError{Offset: 0, Field: "T bit", Err: ErrFlags}
		}
	}
	id := be.Uint32(b[n-4:])
	// Section 4.1.1.2: Session ID 0 is reserved for control messages.
	if id == 0 {
		return 0, &ParseError{Offset: n - 4, Field: "Session ID", Err: ErrValue}
	}
	return id, nil
}

// ParseData reads the header of a data message and returns the frame after it.
// The length of the cookie, in octets, and the sublayer are those of the session
// (Section 4.1). Cookie and frame alias b. Reserved bits of the session header
// are ignored and not kept; those of the sublayer are in Flags.
func ParseData(b []byte, e Encapsulation, cookieLength int, sublayer L2SpecificSublayer) (DataHeader, []byte, error) {
	id, err := DataSessionID(b, e)
	if err != nil {
		return DataHeader{}, nil, err
	}
	off := ipSessionHeader
	if e == UDP {
		off = udpSessionHeader
	}
	h := DataHeader{SessionID: id, Sublayer: sublayer}
	// Section 5.4.4: 0, 32 or 64 bits.
	if !cookieLengthOK(cookieLength) {
		return DataHeader{}, nil, &ParseError{Offset: off, Field: "Cookie", Err: ErrLength}
	}
	if cookieLength != 0 {
		if len(b)-off < cookieLength {
			return DataHeader{}, nil, &ParseError{Offset: off, Field: "Cookie", Err: ErrShort}
		}
		h.Cookie = b[off : off+cookieLength : off+cookieLength]
		off += cookieLength
	}
	if sublayer != SublayerNone {
		if len(b)-off < sublayerLength {
			return DataHeader{}, nil, &ParseError{Offset: off, Field: "L2-Specific Sublayer", Err: ErrShort}
		}
		w := be.Uint32(b[off:])
		h.Flags, h.Sequence = SublayerFlags(w>>24), w&maxSequence
		off += sublayerLength
	}
	return h, b[off:], nil
}

// Length is the number of octets that the header has in encapsulation e, the UDP
// and IP headers not counted.
func (h DataHeader) Length(e Encapsulation) int {
	n := ipSessionHeader
	if e == UDP {
		n = udpSessionHeader
	}
	n += len(h.Cookie)
	if h.Sublayer != SublayerNone {
		n += sublayerLength
	}
	return n
}

// Append writes the header after b; the frame follows it. Errors are *EncodeError.
func (h DataHeader) Append(b []byte, e Encapsulation) ([]byte, error) {
	switch {
	case h.SessionID == 0:
		return b, &EncodeError{Index: -1, Field: "Session ID", Err: ErrValue}
	case !cookieLengthOK(len(h.Cookie)):
		return b, &EncodeError{Index: -1, Field: "Cookie", Err: ErrLength}
	case h.Sequence > maxSequence:
		return b, &EncodeError{Index: -1, Field: "Sequence Number", Err: ErrValue}
	}
	if e == UDP {
		b = be.AppendUint32(b, dataFlagsUDP<<16)
	}
	b = be.AppendUint32(b, h.SessionID)
	b = append(b, h.Cookie...)
	if h.Sublayer != SublayerNone {
		b = be.AppendUint32(b, uint32(h.Flags)<<24|h.Sequence)
	}
	return b, nil
}

func cookieLengthOK(n int) bool { return n == 0 || n == 4 || n == 8 }
