package l2tpv3

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// What cannot be written, and which AVP it is.
func TestEncodeErrors(t *testing.T) {
	long := strings.Repeat("x", 1018)
	full := RawAVP{Vendor: 1, Value: make([]byte, maxValue)}
	var many []AVP
	for range 65 {
		many = append(many, full) // 64 x 1023 + 12 octets fit, one more does not
	}
	for _, c := range []struct {
		name  string
		m     *Message
		index int
		field string
		want  error
	}{
		{"Version 4", &Message{Version: 4}, -1, "Ver", ErrVersion},
		{"Version 1", &Message{Version: 1}, -1, "Ver", ErrVersion},
		{"T bit among the reserved", &Message{Reserved: 0x8000}, -1, "reserved bits", ErrFlags},
		{"O bit in Version 2", &Message{Version: 2, Reserved: 0x0200}, -1, "reserved bits", ErrFlags},
		{"flags of another message", &Message{AVPs: []AVP{Hello}, Flags: make([]AVPFlags, 2)}, -1, "Flags", ErrLength},
		{"reserved bits of an AVP", &Message{AVPs: []AVP{Hello}, Flags: []AVPFlags{{Reserved: 0x10}}}, 0, "Message Type AVP", ErrFlags},
		{"nothing where an AVP should be", &Message{AVPs: []AVP{Hello, nil}}, 1, "AVP", ErrValue},
		{"message too long", &Message{AVPs: many}, -1, "Length", ErrTooLong},
		{"Host Name too long", NewMessage(SCCRQ, HostName(long)), 1, "Host Name AVP", ErrTooLong},
		{"vendor AVP too long", NewMessage(SCCRQ, RawAVP{Vendor: 9, Type: 2, Value: make([]byte, 1018)}), 1, "attribute 2 of vendor 9 AVP", ErrTooLong},
		{"Host Name without octets", NewMessage(SCCRQ, RouterID(1), HostName("")), 2, "Host Name AVP", ErrLength},
		{"window of zero", NewMessage(SCCRQ, ReceiveWindowSize(0)), 1, "Receive Window Size AVP", ErrValue},
		{"Assigned Control Connection ID of zero", NewMessage(SCCRQ, AssignedControlConnectionID(0)), 1, "Assigned Control Connection ID AVP", ErrValue},
		{"no capabilities", NewMessage(SCCRQ, PseudowireCapabilities{}), 1, "Pseudowire Capabilities List AVP", ErrLength},
		{"too many capabilities", NewMessage(SCCRQ, make(PseudowireCapabilities, 509)), 1, "Pseudowire Capabilities List AVP", ErrTooLong},
		{"cookie of five octets", NewMessage(ICRQ, AssignedCookie("12345")), 1, "Assigned Cookie AVP", ErrLength},
		{"cookie of sixteen octets", NewMessage(ICRQ, AssignedCookie("0123456789abcdef")), 1, "Assigned Cookie AVP", ErrLength},
		{"no nonce in the nonce", NewMessage(SCCRQ, Nonce(nil)), 1, "Control Message Authentication Nonce AVP", ErrLength},
		{"MD5 digest of 20 octets", NewMessage(Hello, MessageDigest{HMACMD5, make([]byte, 20)}), 1, "Message Digest AVP", ErrLength},
		{"SHA-1 digest without octets", NewMessage(Hello, MessageDigest{Algorithm: HMACSHA1}), 1, "Message Digest AVP", ErrLength},
		{"Frame Relay header of three", NewMessage(ICRQ, FrameRelayHeaderLength(3)), 1, "Frame Relay Header Length AVP", ErrValue},
		{"no discriminators", NewMessage(ICRQ, SBFDTargetDiscriminator{}), 1, "S-BFD Target Discriminator ID AVP", ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := []byte("before")
			b, err := c.m.Append(before)
			want := &EncodeError{Index: c.index, Field: c.field, Err: c.want}
			if !reflect.DeepEqual(err, error(want)) {
				t.Fatalf("error %#v (%v), want %#v", err, err, want)
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.field) {
				t.Errorf("error text %q", err)
			}
			if string(b) != "before" {
				t.Errorf("left %q", b)
			}
		})
	}
}

// The largest that fit.
func TestLimits(t *testing.T) {
	m := NewMessage(SCCRQ, HostName(strings.Repeat("x", 1017)))
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(b)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("read %v, %v", back, err)
	}
	var avps []AVP
	for range 64 {
		avps = append(avps, RawAVP{Vendor: 1, Value: make([]byte, maxValue)})
	}
	avps = append(avps, RawAVP{Vendor: 1, Value: make([]byte, maxMessage-headerLength-64*1023-avpHeaderLength)})
	b, err = (&Message{AVPs: avps}).Append(nil)
	if err != nil || len(b) != maxMessage {
		t.Fatalf("%d octets, %v", len(b), err)
	}
	if _, err := Parse(b); err != nil {
		t.Error(err)
	}
	last := avps[64].(RawAVP)
	last.Value = make([]byte, len(last.Value)+1)
	avps[64] = last
	if _, err = (&Message{AVPs: avps}).Append(nil); !errors.Is(err, ErrTooLong) {
		t.Errorf("one octet more: %v", err)
	}
}

// A message is written after what is there already.
func TestAppendAfter(t *testing.T) {
	m := NewMessage(Hello)
	alone, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := m.Append([]byte{1, 2, 3, 4})
	if err != nil || !bytes.Equal(after[4:], alone) || !bytes.Equal(after[:4], []byte{1, 2, 3, 4}) {
		t.Errorf("%x, %v", after, err)
	}
}

// Section 3.2.1: Ver 3 and reserved bits 0 is what a message has from the start.
func TestNewMessage(t *testing.T) {
	b, err := NewMessage(Hello).Append(nil)
	if want := octets("c803 0014 0000 0000 0000 0000  8008 0000 0000 0006"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, %v, want %x", b, err, want)
	}
	b, err = new(Message).Append(nil)
	if want := octets("c803 000c 0000 0000 0000 0000"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, %v, want %x", b, err, want)
	}
}

// Section 4.7.3: in a fallback SCCRQ the AVPs of RFC 2661 are as RFC 2661 has
// them, and the M bit of all others is 0.
func TestFallbackSCCRQ(t *testing.T) {
	m := NewMessage(SCCRQ,
		ProtocolVersion{1, 0}, FramingCapabilities(0), HostName("a"), AssignedTunnelID(1), TieBreaker{},
		RouterID(1), AssignedControlConnectionID(1), PseudowireCapabilities{Ethernet})
	m.Version = 2
	want := octets("c802 0056 0000 0000 0000 0000",
		"8008 0000 0000 0001",
		"8008 0000 0002 0100",
		"800a 0000 0003 0000 0000",
		"8007 0000 0007 61",
		"8008 0000 0009 0001",
		"000e 0000 0005 0000 0000 0000 0000",
		"000a 0000 003c 0000 0001",
		"000a 0000 003d 0000 0001",
		"0008 0000 003e 0005")
	want[3] = byte(len(want))
	b, err := m.Append(nil)
	if err != nil || !bytes.Equal(b, want) {
		t.Fatalf("wrote\n%x, %v, want\n%x", b, err, want)
	}
	back, err := Parse(b)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("read %#v, %v", back, err)
	}
	if err := Validate(back); err != nil {
		t.Error(err)
	}
}

// The M bit is the sender's choice (Section 5.2); what was received is kept, and
// stays with its AVP.
func TestFlags(t *testing.T) {
	m := NewMessage(SCCRQ, HostName("a"), RawAVP{Vendor: 9, Type: 1, Mandatory: true}, SerialNumber(1))
	for i, want := range []bool{true, true, true, false} {
		if got := m.FlagsAt(i); got != (AVPFlags{Mandatory: want}) {
			t.Errorf("flags of AVP %d are %v", i, got)
		}
	}
	m.SetFlags(1, AVPFlags{})
	m.SetFlags(2, AVPFlags{Reserved: 5})
	b, err := m.Append(nil)
	want := octets("c803 002b 0000 0000 0000 0000",
		"8008 0000 0000 0001",
		"0007 0000 0007 61",
		"1406 0009 0001",
		"000a 0000 000f 0000 0001")
	if err != nil || !bytes.Equal(b, want) {
		t.Fatalf("wrote\n%x, %v, want\n%x", b, err, want)
	}
	back, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.AVPs {
		if m.FlagsAt(i) != back.FlagsAt(i) {
			t.Errorf("flags of AVP %d: %v, read back as %v", i, m.FlagsAt(i), back.FlagsAt(i))
		}
	}
}

// Section 4.2: a retransmission has another Nr.
func TestSetNr(t *testing.T) {
	b := message("8008 0000 0000 0006")
	SetNr(b, 0x4711)
	m, err := Parse(b)
	if err != nil || m.Nr != 0x4711 || m.Ns != 2 {
		t.Errorf("%v, %v", m, err)
	}
	SetNr(b[:11], 1) // too short to have an Nr: nothing happens
	if again, err := Parse(b); err != nil || again.Nr != 0x4711 {
		t.Errorf("%v, %v", again, err)
	}
}
