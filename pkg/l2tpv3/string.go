package l2tpv3

import (
	"fmt"
	"log/slog"
	"strings"
)

func (t MessageType) String() string {
	if i := lookupMessage(t); i != nil {
		return i.Name
	}
	return fmt.Sprintf("message type %d", uint16(t))
}

func (t AVPType) String() string { return avpName(0, t) }

func avpName(vendor uint16, t AVPType) string {
	if vendor != 0 {
		return fmt.Sprintf("attribute %d of vendor %d", uint16(t), vendor)
	}
	if i := lookup(t); i != nil {
		return i.Name
	}
	return fmt.Sprintf("attribute %d", uint16(t))
}

func (e Encapsulation) String() string {
	switch e {
	case UDP:
		return "udp"
	case IP:
		return "ip"
	}
	return fmt.Sprintf("encapsulation %d", uint8(e))
}

var pseudowireTypes = map[PseudowireType]string{
	FrameRelayDLCI:      "Frame Relay DLCI",
	ATMAAL5SDU:          "ATM AAL5 SDU",
	ATMCellPort:         "ATM cell, port",
	EthernetVLAN:        "Ethernet VLAN",
	Ethernet:            "Ethernet",
	HDLC:                "HDLC",
	PPP:                 "PPP",
	ATMCellVCC:          "ATM cell, VCC",
	ATMCellVPC:          "ATM cell, VPC",
	MPTPseudowire:       "MPEG-TS",
	PSPPseudowire:       "Packet Streaming Protocol",
	StructureAgnosticE1: "E1",
	StructureAgnosticT1: "T1",
	StructureAgnosticE3: "E3",
	StructureAgnosticT3: "T3",
	CESoPSNBasic:        "CESoPSN",
	CESoPSNWithCAS:      "CESoPSN with CAS",
}

func (t PseudowireType) String() string {
	if s, ok := pseudowireTypes[t]; ok {
		return s
	}
	return fmt.Sprintf("pseudowire type 0x%04x", uint16(t))
}

func (l L2SpecificSublayer) String() string {
	switch l {
	case SublayerNone:
		return "none"
	case SublayerDefault:
		return "default"
	case SublayerATM:
		return "ATM"
	case SublayerMPT:
		return "MPT"
	case SublayerPSP:
		return "PSP"
	}
	return fmt.Sprintf("sublayer type %d", uint16(l))
}

func (s DataSequencing) String() string {
	switch s {
	case SequencingNone:
		return "none"
	case SequencingNonIP:
		return "non-IP"
	case SequencingAll:
		return "all"
	}
	return fmt.Sprintf("sequencing level %d", uint16(s))
}

// String is "active" or "inactive", then the other bits (RFC 5641, Section 2).
func (s CircuitStatus) String() string {
	words := []string{"inactive"}
	if s&CircuitActive != 0 {
		words[0] = "active"
	}
	for _, bit := range []struct {
		mask CircuitStatus
		name string
	}{
		{CircuitNew, "new"},
		{CircuitACRxFault, "AC receive fault"},
		{CircuitACTxFault, "AC transmit fault"},
		{CircuitPSNRxFault, "PSN receive fault"},
		{CircuitPSNTxFault, "PSN transmit fault"},
		{CircuitStandby, "standby"},
	} {
		if s&bit.mask != 0 {
			words = append(words, bit.name)
		}
	}
	if rest := s &^ (CircuitActive | CircuitNew | CircuitFaults | CircuitStandby); rest != 0 {
		words = append(words, fmt.Sprintf("0x%04x", uint16(rest)))
	}
	return strings.Join(words, ", ")
}

// String has the form of an IPv4 address, as operators write Router IDs. It need
// not be one (Section 5.4.3).
func (r RouterID) String() string {
	return fmt.Sprintf("%d.%d.%d.%d", byte(r>>24), byte(r>>16), byte(r>>8), byte(r))
}

// String is one line for a person: type, header and AVPs. Cookies, nonces and
// digests show as a number of octets.
func (m *Message) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s ccid=0x%08x ns=%d nr=%d", m.typeName(), m.ControlConnectionID, m.Ns, m.Nr)
	if avps := m.describeAVPs(); avps != "" {
		s.WriteString(" " + avps)
	}
	return s.String()
}

// LogValue has what String says, as a group.
func (m *Message) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("type", m.typeName()),
		slog.String("ccid", fmt.Sprintf("0x%08x", m.ControlConnectionID)),
		slog.Int("ns", int(m.Ns)),
		slog.Int("nr", int(m.Nr)),
		slog.String("avps", m.describeAVPs()),
	)
}

func (m *Message) typeName() string {
	if t, ok := m.Type(); ok {
		return t.String()
	}
	if m.IsZLB() {
		return "ZLB"
	}
	return "message without a Message Type"
}

// describeAVPs leaves the Message Type out where it says nothing new.
func (m *Message) describeAVPs() string {
	avps := m.AVPs
	if t, ok := m.Type(); ok {
		avps = avps[1:]
		if t == StopCCN || t == CDN {
			return describeAll(avps, t)
		}
	}
	return describeAll(avps, 0)
}

func describeAll(avps []AVP, t MessageType) string {
	words := make([]string, 0, len(avps))
	for _, a := range avps {
		if a == nil {
			continue
		}
		if r, ok := a.(ResultCode); ok {
			words = append(words, "Result Code: "+r.Describe(t))
			continue
		}
		words = append(words, describe(a))
	}
	return strings.Join(words, "; ")
}

// describe is an AVP's name and value.
func describe(a AVP) string {
	name := nameOf(a)
	switch v := a.(type) {
	case RawAVP:
		return v.String()
	case HostName:
		return fmt.Sprintf("%s: %q", name, string(v))
	case VendorName:
		return fmt.Sprintf("%s: %q", name, string(v))
	case PreferredLanguage:
		return fmt.Sprintf("%s: %q", name, string(v))
	case RemoteEndID:
		return name + ": " + identifier(v)
	case LocalEndID:
		return name + ": " + identifier(v)
	case AttachmentGroupID:
		return name + ": " + identifier(v)
	case AssignedControlConnectionID:
		return fmt.Sprintf("%s: 0x%08x", name, uint32(v))
	case LocalSessionID:
		return fmt.Sprintf("%s: 0x%08x", name, uint32(v))
	case *LocalSessionID:
		return describe(*v)
	case RemoteSessionID:
		return fmt.Sprintf("%s: 0x%08x", name, uint32(v))
	case *RemoteSessionID:
		return describe(*v)
	case *MessageDigest:
		return describe(*v)
	case MessageDigest:
		return fmt.Sprintf("%s: %v, %d octets", name, v.Algorithm, len(v.Digest))
	case AssignedCookie, Nonce, RandomVector, TieBreaker, Challenge, ChallengeResponse, PseudowireSwitchingPoint, TDMPseudowire, RTP, ExtendedVendorID:
		return fmt.Sprintf("%s: %d octets", name, len(a.appendValue(nil)))
	case OAMEmulationRequired, ConnectSpeedUpdateEnable, ECNCapability, SequencingRequired:
		return name
	}
	return fmt.Sprintf("%s: %+v", name, a)
}

// String is the attribute's number, and why it could not be read.
func (r RawAVP) String() string {
	s := fmt.Sprintf("%s: %d octets", avpName(r.Vendor, r.Type), len(r.Value))
	if r.Hidden {
		s += ", hidden"
	}
	if r.Mandatory {
		s += ", mandatory"
	}
	if r.Malformed != nil {
		s += ", malformed (" + r.Malformed.Error() + ")"
	}
	return s
}

// identifier is quoted where it is printable US-ASCII, hexadecimal otherwise.
func identifier(v []byte) string {
	for _, c := range v {
		if c < 0x20 || c > 0x7e {
			return fmt.Sprintf("0x%x", v)
		}
	}
	return fmt.Sprintf("%q", v)
}
