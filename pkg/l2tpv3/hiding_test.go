package l2tpv3

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

func TestHide(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, c := range []struct {
		avp     AVP
		padding string
		wire    string
	}{
		{AssignedCookie(octets("0102030405060708")), "", "c0100000004169eaafe275574f0180f9"},
		{RemoteEndID(octets("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627")), "f0f1f2f3f4f5f6f7f8f9fafbfc",
			"c03d00000042099ffdfb4b95373a95668c7cf2732d1e3a873b38cdcb63df72891d7f37cb3698562f01fe8b40fa259ac9cb28a39c10329c759ccc6c479f"},
	} {
		raw, err := secret.Hide(c.avp, testVector, octets(c.padding))
		if err != nil {
			t.Fatal(err)
		}
		b, err := appendAVP(nil, raw, raw.Vendor, raw.Type, AVPFlags{Mandatory: raw.Mandatory})
		if err != nil || !bytes.Equal(b, octets(c.wire)) {
			t.Errorf("hidden %x, %v, want %s", b, err, c.wire)
		}
		m := &Message{AVPs: []AVP{ICRQ, RandomVector(testVector), raw}}
		secret.Reveal(m)
		if !reflect.DeepEqual(m.AVPs[2], c.avp) {
			t.Errorf("revealed %#v, want %#v", m.AVPs[2], c.avp)
		}
	}
}

// Everything that may be hidden, with 0 to 40 octets of padding, comes back; what
// must not be hidden is refused.
func TestHideAndRevealAll(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, s := range avpSamples {
		raw, isRaw := s.avp.(RawAVP)
		for n := range 41 {
			hidden, err := secret.Hide(s.avp, testVector, bytes.Repeat([]byte{0xee}, n))
			mayHide := isRaw && !raw.Hidden || !isRaw && lookup(s.avp.AVPType()).MayHide
			if !mayHide {
				if !errors.Is(err, ErrHidden) {
					t.Errorf("%s: %v", describe(s.avp), err)
				}
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", describe(s.avp), err)
			}
			sent := &Message{Version: 3, AVPs: []AVP{ICRQ, RandomVector(testVector), hidden}}
			b, err := sent.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			secret.Reveal(m)
			want := &Message{Version: 3, AVPs: []AVP{ICRQ, RandomVector(testVector), s.avp}}
			if !reflect.DeepEqual(m, want) {
				t.Fatalf("%s, padded by %d: revealed %v", describe(s.avp), n, m)
			}
		}
	}
}

// Section 5.3: the closest Random Vector before the AVP is the one that counts.
func TestTwoRandomVectors(t *testing.T) {
	secret := NewSecret(testSecret)
	hide := func(a AVP, v RandomVector) AVP {
		raw, err := secret.Hide(a, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	one, two := RandomVector("first vector"), RandomVector("second vector, longer than a block")
	m := NewMessage(ICRQ, one, hide(LocalSessionID(1), one), hide(RemoteSessionID(2), one), two, hide(AssignedCookie("12345678"), two), SerialNumber(3))
	secret.Reveal(m)
	want := NewMessage(ICRQ, one, LocalSessionID(1), RemoteSessionID(2), two, AssignedCookie("12345678"), SerialNumber(3))
	if !reflect.DeepEqual(m, want) {
		t.Errorf("revealed %v", m)
	}
}

// The M bit of a hidden AVP outlives its hiding.
func TestRevealedFlags(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, mandatory := range []bool{false, true} {
		raw, err := secret.Hide(LocalSessionID(7), testVector, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw.Mandatory = mandatory
		m := NewMessage(ICRQ, RandomVector(testVector), raw, HostName("a"))
		secret.Reveal(m)
		if id, ok := Find[LocalSessionID](m); !ok || id != 7 || m.FlagsAt(2).Mandatory != mandatory {
			t.Errorf("revealed %v with %v, want mandatory %v", m, m.FlagsAt(2), mandatory)
		}
		if m.FlagsAt(3) != (AVPFlags{Mandatory: true}) {
			t.Errorf("the next AVP has %v", m.FlagsAt(3))
		}
	}
}

// What cannot be revealed stays, marked, for its M bit to decide.
func TestNotRevealed(t *testing.T) {
	secret := NewSecret(testSecret)
	hidden := func(a AVP) RawAVP {
		raw, err := secret.Hide(a, testVector, nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	cookie := hidden(AssignedCookie("12345678"))
	overlong := RawAVP{Type: AVPAssignedCookie, Mandatory: true, Hidden: true, Value: octets("0009 0102030405060708")}
	secret.chain(overlong.Type, testVector, overlong.Value, overlong.Value)
	for _, c := range []struct {
		name string
		m    *Message
		want error
	}{
		{"no Random Vector", NewMessage(ICRQ, cookie), ErrRandomVector},
		{"Random Vector after it", NewMessage(ICRQ, cookie, RandomVector(testVector)), ErrRandomVector},
		{"wrong Random Vector", NewMessage(ICRQ, RandomVector("wrong"), cookie), ErrLength},
		{"too short for a length", NewMessage(ICRQ, RandomVector(testVector), RawAVP{Type: 65, Mandatory: true, Hidden: true, Value: []byte{1}}), ErrShort},
		{"empty", NewMessage(ICRQ, RandomVector(testVector), RawAVP{Type: 65, Mandatory: true, Hidden: true}), ErrShort},
		{"a length that is one too long", NewMessage(ICRQ, RandomVector(testVector), overlong), ErrLength},
		{"a value that its type cannot have", NewMessage(ICRQ, RandomVector(testVector), hidden(RawAVP{Type: AVPAssignedCookie, Mandatory: true, Value: []byte("12345")})), ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret.Reveal(c.m)
			u, ok := UnknownMandatory(c.m)
			if !ok || u.Type != AVPAssignedCookie || !errors.Is(u, c.want) {
				t.Errorf("%v, %v; want %v", u, ok, c.want)
			}
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		m := NewMessage(ICRQ, RandomVector(testVector), cookie)
		NewSecret([]byte("wrong")).Reveal(m)
		if c, ok := Find[AssignedCookie](m); ok {
			t.Errorf("revealed %x", c)
		}
	})
}

func TestHideErrors(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, c := range []struct {
		avp     AVP
		padding int
		want    error
	}{
		{HostName("a"), 0, ErrHidden},
		{SCCRQ, 0, ErrHidden},
		{AssignedCookie("12345"), 0, ErrLength},
		{AssignedControlConnectionID(0), 0, ErrValue},
		{RemoteEndID(make([]byte, 1015)), 0, nil},
		{RemoteEndID(make([]byte, 1016)), 0, ErrTooLong},
		{RemoteEndID("a"), 1015, ErrTooLong},
	} {
		_, err := secret.Hide(c.avp, testVector, make([]byte, c.padding))
		if !errors.Is(err, c.want) {
			t.Errorf("%s with %d octets of padding: %v, want %v", describe(c.avp), c.padding, err, c.want)
		}
		if e, ok := errors.AsType[*EncodeError](err); err != nil && (!ok || e.Field != fmt.Sprint(c.avp.AVPType())+" AVP") {
			t.Errorf("error %#v", err)
		}
	}
}
