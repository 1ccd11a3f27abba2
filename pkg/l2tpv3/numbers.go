package l2tpv3

// Numbers says under which numbers a message has its attributes.
type Numbers uint8

const (
	// StandardNumbers are those of RFC 3931.
	StandardNumbers Numbers = iota
	// CiscoNumbers are those that Cisco gave the attributes, under its own Vendor ID,
	// before there were any others. Its routers speak them where they are set to
	// (`protocol l2tpv3` in place of `l2tpv3ietf`), and beside the standard ones
	// where not. Attributes that came later have their standard numbers.
	CiscoNumbers
)

func (n Numbers) String() string {
	if n == CiscoNumbers {
		return "cisco"
	}
	return "standard"
}

// VendorCisco is Cisco's Vendor ID (Section 5.1).
const VendorCisco = 9

const (
	ciscoSessionTieBreaker AVPType = 9
	ciscoDraftVersion      AVPType = 10
	ciscoMessageDigest     AVPType = 12
)

// ciscoNumbers are the attributes by the numbers that Cisco gave them.
var ciscoNumbers = [...]AVPType{
	1:                      AVPAssignedControlConnectionID,
	2:                      AVPPseudowireCapabilities,
	3:                      AVPLocalSessionID,
	4:                      AVPRemoteSessionID,
	5:                      AVPAssignedCookie,
	6:                      AVPRemoteEndID,
	7:                      AVPPseudowireType,
	8:                      AVPCircuitStatus,
	ciscoSessionTieBreaker: AVPTieBreaker,
	ciscoMessageDigest:     AVPMessageDigest,
	13:                     AVPNonce,
	14:                     AVPInterfaceMTU,
}

// DraftVersion says which draft of RFC 3931 the sender of SCCRQ or SCCRP with
// CiscoNumbers speaks: the one that all of them do.
func DraftVersion() RawAVP {
	return RawAVP{Vendor: VendorCisco, Type: ciscoDraftVersion, Mandatory: true, Value: []byte{0, 1}}
}

// standard is the attribute that Cisco's has as its meaning; false for none.
func (t AVPType) standard() (AVPType, bool) {
	if int(t) >= len(ciscoNumbers) || ciscoNumbers[t] == AVPMessageType {
		return 0, false
	}
	return ciscoNumbers[t], true
}

// cisco is the number that Cisco gave an attribute of messages of type in; false
// for none. The tie breaker of control connections is older, and RFC 2661's.
func (t AVPType) cisco(in MessageType) (AVPType, bool) {
	if t == AVPMessageType || t == AVPTieBreaker && !in.IsSession() {
		return 0, false
	}
	for number, standard := range ciscoNumbers {
		if standard == t {
			return AVPType(number), true
		}
	}
	return 0, false
}

// Standardize gives attributes under Cisco's numbers the types that they have
// under the standard ones, unless the message has one under that, which then counts.
// Where one that names the connection or the session was there under Cisco's number only,
// Numbers says so, and Append writes that number again for all that have one.
// What is hidden is left as it is: Reveal comes first.
func (m *Message) Standardize() {
	for i, a := range m.AVPs {
		r, ok := a.(RawAVP)
		if !ok || r.Vendor != VendorCisco || r.Hidden {
			continue
		}
		t, ok := r.Type.standard()
		if !ok || m.has(t) {
			continue
		}
		typed := RawAVP{Type: t, Mandatory: r.Mandatory, Reserved: r.Reserved, Value: r.Value}.typed(0)
		if _, unreadable := typed.(RawAVP); unreadable {
			continue // its M bit is Cisco's affair
		}
		m.AVPs[i] = typed
		if f := (AVPFlags{Mandatory: r.Mandatory, Reserved: r.Reserved}); f != m.FlagsAt(i) || len(m.Flags) > 0 {
			m.SetFlags(i, f)
		}
		if t == AVPAssignedControlConnectionID || t == AVPLocalSessionID {
			m.Numbers = CiscoNumbers
		}
	}
}

// has reports whether the message has the attribute, readable, under its standard number.
func (m *Message) has(t AVPType) bool {
	for _, a := range m.AVPs {
		if _, raw := a.(RawAVP); !raw && a.AVPType() == t {
			return true
		}
	}
	return false
}

// numbered is the vendor and the number under which the message writes an AVP,
// and its M bit. A peer that speaks Cisco's numbers cannot know what came after
// them: a Router ID is nothing to end the connection for, how data packets are made is.
func (m *Message) numbered(a AVP, f AVPFlags) (uint16, AVPType, AVPFlags) {
	if r, ok := a.(RawAVP); ok {
		return r.Vendor, r.Type, f
	}
	t := a.AVPType()
	if m.Numbers != CiscoNumbers {
		return 0, t, f
	}
	in, _ := m.Type()
	if number, ok := t.cisco(in); ok {
		return VendorCisco, number, f
	}
	if t == AVPRouterID {
		f.Mandatory = false
	}
	return 0, t, f
}
