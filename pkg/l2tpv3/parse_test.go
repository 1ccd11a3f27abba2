package l2tpv3

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Figure 3.2.1, and what is wrong with headers that are to be discarded (Section 7.1).
func TestHeader(t *testing.T) {
	for _, c := range []struct {
		name string
		wire string
		want *ParseError // nil: accepted
		then Message
	}{
		{name: "ZLB", wire: "c803 000c 1111 1111 0002 0003",
			then: Message{Version: 3, ControlConnectionID: 0x11111111, Ns: 2, Nr: 3}},
		{name: "all x bits set", wire: "fff3 000c 1111 1111 0002 0003",
			then: Message{Version: 3, Reserved: 0x37f0, ControlConnectionID: 0x11111111, Ns: 2, Nr: 3}},
		{name: "octets beyond Length", wire: "c803 000c 0000 0001 0000 0000 8008 0000 0000 0006",
			then: Message{Version: 3, ControlConnectionID: 1}},
		{name: "Version 2", wire: "c802 000c 0000 0000 0000 0000",
			then: Message{Version: 2}},
		{name: "Version 2, Tunnel ID and Session ID", wire: "c802 000c 0001 0002 0000 0000",
			then: Message{Version: 2, ControlConnectionID: 0x00010002}},
		{name: "nothing", wire: "", want: &ParseError{0, "control message header", ErrShort}},
		{name: "eleven octets", wire: "c803 000c 1111 1111 0002 00", want: &ParseError{0, "control message header", ErrShort}},
		{name: "data message", wire: "0003 0000 1111 1111 0000 0000", want: &ParseError{0, "T, L and S bits", ErrFlags}},
		{name: "without L", wire: "8803 000c 1111 1111 0002 0003", want: &ParseError{0, "T, L and S bits", ErrFlags}},
		{name: "without S", wire: "c003 000c 1111 1111 0002 0003", want: &ParseError{0, "T, L and S bits", ErrFlags}},
		{name: "Version 1", wire: "c801 000c 1111 1111 0002 0003", want: &ParseError{0, "Ver", ErrVersion}},
		{name: "Version 4", wire: "c804 000c 1111 1111 0002 0003", want: &ParseError{0, "Ver", ErrVersion}},
		{name: "Version 2 with an Offset", wire: "ca02 000c 0000 0000 0000 0000", want: &ParseError{0, "O bit", ErrFlags}},
		{name: "Length shorter than the header", wire: "c803 000b 1111 1111 0002 0003", want: &ParseError{2, "Length", ErrLength}},
		{name: "Length of zero", wire: "c803 0000 1111 1111 0002 0003", want: &ParseError{2, "Length", ErrLength}},
		{name: "Length longer than the datagram", wire: "c803 000d 1111 1111 0002 0003", want: &ParseError{2, "Length", ErrLength}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(octets(c.wire))
			if c.want != nil {
				if !reflect.DeepEqual(err, error(c.want)) {
					t.Fatalf("error %#v, want %#v", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*m, c.then) || !m.IsZLB() {
				t.Errorf("read %#v, want %#v", *m, c.then)
			}
		})
	}
}

// AVPs whose lengths do not lead to the next one.
func TestFraming(t *testing.T) {
	for _, c := range []struct {
		name string
		wire string
		want ParseError
	}{
		{"half an AVP header", "8008 0000 0000 0006  8006 00", ParseError{20, "AVP header", ErrShort}},
		{"AVP Length of zero", "8000 0000 0000 0006", ParseError{12, "AVP Length", ErrLength}},
		{"AVP Length of five", "8005 0000 0000 0006", ParseError{12, "AVP Length", ErrLength}},
		{"AVP beyond the message", "8008 0000 0000 0006  800b 0000 003c 0000 0001", ParseError{20, "AVP Length", ErrLength}},
		{"unknown AVP beyond the message", "8008 0000 0000 0006  03ff 0009 0001 00", ParseError{20, "AVP Length", ErrLength}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(message(c.wire))
			if !reflect.DeepEqual(err, error(&c.want)) {
				t.Fatalf("error %#v, want %#v", err, &c.want)
			}
			if !strings.Contains(err.Error(), c.want.Field) || !errors.Is(err, c.want.Err) {
				t.Errorf("error text %q", err)
			}
		})
	}
	t.Run("Length ends inside an AVP", func(t *testing.T) {
		b := message("8008 0000 0000 0006")
		b[3] -= 2
		if _, err := Parse(b); !errors.Is(err, ErrLength) {
			t.Errorf("error %v", err)
		}
	})
}

// Every prefix of a message is refused, and none makes the parser fall.
func TestTruncated(t *testing.T) {
	for _, whole := range captured(t) {
		for n := range whole {
			if m, err := Parse(whole[:n]); err == nil {
				t.Fatalf("%d of %d octets read as %v", n, len(whole), m)
			}
		}
	}
}

func TestMessageType(t *testing.T) {
	for _, c := range []struct {
		name string
		wire []string
		want MessageType
		ok   bool
	}{
		{"HELLO", []string{"8008 0000 0000 0006"}, Hello, true},
		{"unknown", []string{"0008 0000 0000 7fff"}, 0x7fff, true},
		{"ZLB", nil, 0, false},
		{"not first", []string{"8008 0000 000a 0004", "8008 0000 0000 0006"}, 0, false},
		{"another vendor's", []string{"8008 0009 0000 0006"}, 0, false},
		{"malformed", []string{"8007 0000 0000 06"}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(message(c.wire...))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := m.Type(); got != c.want || ok != c.ok {
				t.Errorf("type %v, %v; want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
	// Section 5.4.1: the M bit says what an unknown type does to the connection.
	for wire, want := range map[string]bool{"8008 0000 0000 7fff": true, "0008 0000 0000 7fff": false} {
		m, err := Parse(message(wire))
		if err != nil {
			t.Fatal(err)
		}
		if m.FlagsAt(0).Mandatory != want {
			t.Errorf("%s: mandatory is not %v", wire, want)
		}
	}
}

func TestFind(t *testing.T) {
	m := NewMessage(ICRQ, LocalSessionID(1), RemoteSessionID(2), AssignedCookie{1, 2, 3, 4}, LocalSessionID(3))
	if v, ok := Find[LocalSessionID](m); !ok || v != 1 {
		t.Errorf("Local Session ID %v, %v: not the first", v, ok)
	}
	if v, ok := Find[AssignedCookie](m); !ok || !bytes.Equal(v, []byte{1, 2, 3, 4}) {
		t.Errorf("Assigned Cookie %v, %v", v, ok)
	}
	if v, ok := Find[HostName](m); ok || v != "" {
		t.Errorf("Host Name %q, %v: there is none", v, ok)
	}
	if v, ok := Find[MessageType](m); !ok || v != ICRQ {
		t.Errorf("Message Type %v, %v", v, ok)
	}
}

// The message that the parser is used on again has nothing of the one before.
func TestParseAgain(t *testing.T) {
	var p Parser
	for _, b := range append(captured(t), message("8008 0000 0000 0006"), message(), octets(signedMessages[3].wire)) {
		m, err := p.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := Parse(b)
		if err != nil || m.String() != fresh.String() {
			t.Fatalf("%v, and %v, %v", m, fresh, err)
		}
		again, err := m.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("wrote\n%x, %v, want\n%x", again, err, b)
		}
	}
}

// Messages of two cable systems, IP/115: M bits that are not those of the RFC,
// AVPs of RFC 2661 and of two vendors, a Result Code with text but without error.
func TestCapturedMessages(t *testing.T) {
	var types []string
	for _, b := range captured(t) {
		m, err := Parse(b)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		types = append(types, m.typeName())
		again, err := m.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("wrote\n%x, %v, want\n%x", again, err, b)
		}
	}
	if got, want := strings.Join(types, " "), "SCCRQ StopCCN SCCRP SCCCN ICRQ ZLB ICRP ICCN HELLO"; got != want {
		t.Errorf("read %s, want %s", got, want)
	}
	m, _ := Parse(captured(t)[4])
	want := map[string]bool{ // what this ICRQ has with the M bit and we do not know
		"attribute 3 of vendor 9": true,
	}
	if u, ok := UnknownMandatory(m); !ok || !want[avpName(u.Vendor, u.Type)] {
		t.Errorf("unknown mandatory: %v, %v", u, ok)
	}
}

func TestControlPayload(t *testing.T) {
	for _, c := range []struct {
		name    string
		e       Encapsulation
		wire    string
		control bool
		message string
	}{
		{"control over UDP", UDP, "c803 000c", true, "c803 000c"},
		{"fallback SCCRQ over UDP", UDP, "c802 000c", true, "c802 000c"},
		{"data over UDP", UDP, "0003 0000 0000 0001", false, "0003 0000 0000 0001"},
		{"version 2 data over UDP", UDP, "0002 0001 0001", false, "0002 0001 0001"},
		{"L2F over UDP", UDP, "c001 0000", false, "c001 0000"},
		{"one octet over UDP", UDP, "c8", false, "c8"},
		{"control over IP", IP, "0000 0000 c803 000c", true, "c803 000c"},
		{"data over IP", IP, "0000 0001 c803 000c", false, "0000 0001 c803 000c"},
		{"data over IP, an ID like a header", IP, "c803 000c 1111 1111", false, "c803 000c 1111 1111"},
		{"three octets over IP", IP, "0000 00", false, "0000 00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, control := ControlPayload(octets(c.wire), c.e)
			if control != c.control || !bytes.Equal(got, octets(c.message)) {
				t.Errorf("%x, %v", got, control)
			}
			if c.e == UDP && IsControl(octets(c.wire)) != c.control {
				t.Error("IsControl disagrees")
			}
			if control {
				whole := append(AppendControlPrefix(nil, c.e), got...)
				if !bytes.Equal(whole, octets(c.wire)) {
					t.Errorf("with its prefix %x", whole)
				}
			}
		})
	}
}
