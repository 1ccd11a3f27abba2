package control

import (
	"encoding/hex"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// packetsFlag prints the packets of simulated runs.
var packetsFlag = flag.Bool("packets", false, "print every packet of the simulated runs")

// traceAll prints every packet that is sent.
func (n *network) traceAll() {
	n.trace = func(from *host, d Datagram) {
		fmt.Printf("%10.3f %s %d>%d %s\n", n.now.Sub(epoch).Seconds(), from.name, d.Remote.Port(), d.Local.Port(), describe(d.Payload))
	}
}

// field is one AVP in the text form of messages: name=value.
type field struct {
	name  string
	print func(l2tpv3.AVP) (string, bool)
	parse func(string) (l2tpv3.AVP, error)
}

func number[T interface {
	l2tpv3.AVP
	~uint8 | ~uint16 | ~uint32
}](name string) field {
	return field{name,
		func(a l2tpv3.AVP) (string, bool) {
			v, ok := a.(T)
			return strconv.FormatUint(uint64(v), 10), ok
		},
		func(s string) (l2tpv3.AVP, error) {
			v, err := strconv.ParseUint(s, 0, 32)
			return T(v), err
		}}
}

func text[T interface {
	l2tpv3.AVP
	~string | ~[]byte
}](name string) field {
	return field{name,
		func(a l2tpv3.AVP) (string, bool) { v, ok := a.(T); return string(v), ok },
		func(s string) (l2tpv3.AVP, error) { return T(s), nil }}
}

func octets[T interface {
	l2tpv3.AVP
	~[]byte
}](name string) field {
	return field{name,
		func(a l2tpv3.AVP) (string, bool) { v, ok := a.(T); return hex.EncodeToString(v), ok },
		func(s string) (l2tpv3.AVP, error) { b, err := hex.DecodeString(s); return T(b), err }}
}

// fields are the AVPs in the order in which text forms are matched.
var fields = []field{
	text[l2tpv3.HostName]("host"),
	number[l2tpv3.RouterID]("router"),
	number[l2tpv3.AssignedControlConnectionID]("assigned"),
	{"caps", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.PseudowireCapabilities)
		s := make([]string, len(v))
		for i := range v {
			s[i] = strconv.Itoa(int(v[i]))
		}
		return strings.Join(s, ","), ok
	}, func(s string) (l2tpv3.AVP, error) {
		var v l2tpv3.PseudowireCapabilities
		for p := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(p)
			if err != nil {
				return nil, err
			}
			v = append(v, l2tpv3.PseudowireType(n))
		}
		return v, nil
	}},
	number[l2tpv3.ReceiveWindowSize]("window"),
	text[l2tpv3.VendorName]("vendor"),
	{"tie", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.TieBreaker)
		return strings.TrimLeft(hex.EncodeToString(v[:7]), "0") + hex.EncodeToString(v[7:]), ok
	}, func(s string) (l2tpv3.AVP, error) {
		v, err := strconv.ParseUint(s, 16, 64)
		var t l2tpv3.TieBreaker
		for i := range t {
			t[i] = byte(v >> (56 - 8*i))
		}
		return t, err
	}},
	octets[l2tpv3.Nonce]("nonce"),
	{"result", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.ResultCode)
		s := strconv.Itoa(int(v.Result))
		if v.HasError {
			s += "/" + strconv.Itoa(int(v.Error))
		}
		if v.Message != "" {
			s += "/" + strings.ReplaceAll(v.Message, " ", "_")
		}
		return s, ok
	}, func(s string) (l2tpv3.AVP, error) {
		p := append(strings.SplitN(s, "/", 3), "", "")
		r, err := strconv.Atoi(p[0])
		e, _ := strconv.Atoi(p[1])
		return l2tpv3.ResultCode{Result: uint16(r), HasError: p[1] != "", Error: l2tpv3.ErrorCode(e), Message: p[2]}, err
	}},
	number[l2tpv3.LocalSessionID]("local"),
	number[l2tpv3.RemoteSessionID]("remote"),
	number[l2tpv3.SerialNumber]("serial"),
	number[l2tpv3.PseudowireType]("type"),
	text[l2tpv3.RemoteEndID]("end"),
	text[l2tpv3.AttachmentGroupID]("agi"),
	{"circuit", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.CircuitStatus)
		return circuitText(v), ok
	}, func(s string) (l2tpv3.AVP, error) { return circuitOf(s), nil }},
	octets[l2tpv3.AssignedCookie]("cookie"),
	number[l2tpv3.L2SpecificSublayer]("sublayer"),
	number[l2tpv3.DataSequencing]("sequencing"),
	number[l2tpv3.InterfaceMTU]("mtu"),
	text[l2tpv3.LocalEndID]("local-end"),
	number[l2tpv3.FCSRetention]("fcs"),
	number[l2tpv3.SessionDS]("sds"),
	number[l2tpv3.ControlConnectionDS]("ccds"),
	text[l2tpv3.PreferredLanguage]("language"),
	{"ecn", func(a l2tpv3.AVP) (string, bool) {
		_, ok := a.(l2tpv3.ECNCapability)
		return "yes", ok
	}, func(string) (l2tpv3.AVP, error) { return l2tpv3.ECNCapability{}, nil }},
	{"errors", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.CircuitErrors)
		return errorsText(v), ok
	}, func(s string) (l2tpv3.AVP, error) {
		var v l2tpv3.CircuitErrors
		_, err := fmt.Sscanf(s, "%d/%d/%d/%d/%d/%d", &v.CRC, &v.Framing, &v.HardwareOverruns, &v.BufferOverruns, &v.Timeouts, &v.Alignment)
		return v, err
	}},
	{"digest", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.MessageDigest)
		return v.Algorithm.String(), ok
	}, nil},
	// avp=M:vendor:type:value and avp=-:vendor:type:value
	{"avp", func(a l2tpv3.AVP) (string, bool) {
		v, ok := a.(l2tpv3.RawAVP)
		return fmt.Sprintf("%s:%d:%d:%x", map[bool]string{true: "M", false: "-"}[v.Mandatory], v.Vendor, v.Type, v.Value), ok
	}, func(s string) (l2tpv3.AVP, error) {
		p := append(strings.Split(s, ":"), "", "", "", "")
		vendor, _ := strconv.Atoi(p[1])
		kind, err := strconv.Atoi(p[2])
		value, _ := hex.DecodeString(p[3])
		return l2tpv3.RawAVP{Mandatory: p[0] == "M", Vendor: uint16(vendor), Type: l2tpv3.AVPType(kind), Value: value}, err
	}},
}

func errorsText(v l2tpv3.CircuitErrors) string {
	return fmt.Sprintf("%d/%d/%d/%d/%d/%d", v.CRC, v.Framing, v.HardwareOverruns, v.BufferOverruns, v.Timeouts, v.Alignment)
}

// circuitLetters are the bits of the Circuit Status AVP, as RFC 5641 names them.
const circuitLetters = "ANRTIES"

func circuitText(v l2tpv3.CircuitStatus) string {
	s := ""
	for i, l := range circuitLetters {
		if v>>i&1 != 0 {
			s += string(l)
		}
	}
	if s == "" {
		return "-"
	}
	return s
}

func circuitOf(s string) (v l2tpv3.CircuitStatus) {
	for i, l := range circuitLetters {
		if strings.ContainsRune(s, l) {
			v |= 1 << i
		}
	}
	return v
}

// describe is a message in text form: the type, the header, the AVPs in wire
// order. buildMessage reads it.
func describe(b []byte) string {
	m, err := l2tpv3.Parse(b)
	if err != nil {
		return err.Error()
	}
	kind := "ZLB"
	if !m.IsZLB() {
		t, ok := m.Type()
		kind = t.String()
		if !ok {
			kind = "?"
		}
	}
	s := fmt.Sprintf("%s ccid=%d ns=%d nr=%d", kind, m.ControlConnectionID, m.Ns, m.Nr)
	for _, a := range m.AVPs[min(1, len(m.AVPs)):] {
		known := false
		for _, f := range fields {
			if v, ok := f.print(a); ok {
				s += " " + f.name + "=" + v
				known = true
				break
			}
		}
		if !known {
			s += fmt.Sprintf(" %v", a.AVPType())
		}
	}
	return s
}

// messageTypes are the types by name.
var messageTypes = func() map[string]l2tpv3.MessageType {
	all := map[string]l2tpv3.MessageType{}
	for i := range l2tpv3.KnownMessages() {
		all[i.Name] = i.Type
	}
	return all
}()

// buildMessage reads the text form. Beside the AVPs it knows ver=2, xbits (all
// reserved header bits), numbers=cisco, invert (every M bit other than usual), and as type a
// number, with M=0 as NUMBER-.
func buildMessage(words []string) ([]byte, error) {
	m := &l2tpv3.Message{Version: 3}
	if words[0] != "ZLB" {
		t, ok := messageTypes[words[0]]
		if ok {
			m.AVPs = append(m.AVPs, t)
		} else {
			n, err := strconv.Atoi(strings.TrimSuffix(words[0], "-"))
			if err != nil {
				return nil, fmt.Errorf("no message %q", words[0])
			}
			m.AVPs = append(m.AVPs, l2tpv3.MessageType(n))
			m.SetFlags(0, l2tpv3.AVPFlags{Mandatory: !strings.HasSuffix(words[0], "-")})
		}
	}
	invert := false
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		n, notNumber := strconv.ParseUint(value, 0, 32)
		if slices.Contains([]string{"ccid", "ns", "nr", "ver"}, name) && notNumber != nil {
			return nil, fmt.Errorf("%s: %w", w, notNumber)
		}
		switch name {
		case "ccid":
			m.ControlConnectionID = uint32(n)
		case "ns":
			m.Ns = uint16(n)
		case "nr":
			m.Nr = uint16(n)
		case "ver":
			m.Version = uint8(n)
		case "xbits":
			m.Reserved = 0x37f0
		case "numbers":
			m.Numbers = l2tpv3.CiscoNumbers
		case "invert":
			invert = true
		default:
			err := fmt.Errorf("no field %q", name)
			for _, f := range fields {
				if f.name == name && f.parse != nil {
					var a l2tpv3.AVP
					if a, err = f.parse(value); err == nil {
						m.AVPs = append(m.AVPs, a)
					}
				}
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w, err)
			}
		}
	}
	if m.Version == 2 && m.Reserved != 0 {
		return nil, fmt.Errorf("xbits in Version 2")
	}
	if invert {
		for i := 1; i < len(m.AVPs); i++ {
			f := m.FlagsAt(i)
			f.Mandatory = !f.Mandatory
			m.SetFlags(i, f)
		}
	}
	return m.Append(nil)
}
