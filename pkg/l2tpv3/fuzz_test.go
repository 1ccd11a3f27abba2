package l2tpv3

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

// Whatever is read is written again octet for octet, and read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range avpSamples {
		f.Add(message(s.wire))
	}
	for _, b := range captured(f) {
		f.Add(b)
	}
	for _, c := range signedMessages {
		f.Add(octets(c.wire))
	}
	secret := NewSecret(testSecret)
	var parser Parser
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		// A digest is verified before anything else is believed, and one that was
		// made is valid.
		_ = Verify(b, nonceA, nonceB, secret)
		signed := slices.Clone(b)
		if Sign(signed, nonceA, nonceB, secret) == nil {
			if err := Verify(signed, nonceA, nonceB, secret); err != nil {
				t.Fatalf("signed %x, but %v", signed, err)
			}
		}
		m, err := Parse(b)
		if err != nil {
			if m != nil {
				t.Errorf("a message with error %v", err)
			}
			return
		}
		one, err := m.Append(nil)
		if err != nil {
			t.Fatalf("read %v, but cannot write it: %v", m, err)
		}
		if n := int(be.Uint16(b[2:])); !bytes.Equal(one, b[:n]) {
			t.Fatalf("read\n%x, wrote\n%x", b[:n], one)
		}
		again, err := parser.Parse(one)
		if err != nil {
			t.Fatalf("wrote %x, but cannot read it: %v", one, err)
		}
		if !reflect.DeepEqual(values(again), values(m)) {
			t.Fatalf("read %v, then %v", m, again)
		}
		two, err := again.Append(nil)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("wrote %x, then %x, %v", one, two, err)
		}
		judge(m)
		secret.Reveal(m)
		judge(m)
		// None of these may write into what was received.
		if !bytes.Equal(before, b) {
			t.Error("the datagram has changed")
		}
		if _, err := m.Append(nil); err != nil {
			t.Errorf("revealed %v, but cannot write it: %v", m, err)
		}
	})
}

// judge does what is done to each message, for its panics.
func judge(m *Message) {
	_ = Validate(m)
	_ = m.String()
	_ = m.LogValue()
	if u, ok := UnknownMandatory(m); ok {
		_ = u.ResultCode()
		_ = u.Error()
	}
}

// What was hidden comes back, and what was not hidden so does no harm.
func FuzzReveal(f *testing.F) {
	f.Add(uint16(65), testVector, octets("0102030405060708"), []byte{})
	f.Add(uint16(66), testVector, bytes.Repeat([]byte{7}, 40), bytes.Repeat([]byte{8}, 13))
	f.Add(uint16(63), []byte{}, octets("00000001"), []byte{0})
	f.Add(uint16(2000), testVector, []byte{}, bytes.Repeat([]byte{8}, 1015))
	secret := NewSecret(testSecret)
	f.Fuzz(func(t *testing.T, number uint16, vector, value, padding []byte) {
		raw := RawAVP{Type: AVPType(number), Value: value}
		hidden, err := secret.Hide(raw, vector, padding)
		if err != nil {
			if 2+len(value)+len(padding) <= maxValue {
				t.Fatalf("cannot hide %v: %v", raw, err)
			}
			return
		}
		m := NewMessage(ICRQ, RandomVector(vector), hidden)
		secret.Reveal(m)
		switch got := m.AVPs[2].(type) {
		case RawAVP:
			if got.Hidden || !bytes.Equal(got.Value, value) {
				t.Fatalf("hid %x, revealed %v %x", value, got, got.Value)
			}
		default:
			if back := got.appendValue(nil); !bytes.Equal(back, value) {
				t.Fatalf("hid %x, revealed %x", value, back)
			}
		}
		// The value as if it were ciphertext.
		m = NewMessage(ICRQ, RandomVector(vector), RawAVP{Type: AVPType(number), Hidden: true, Mandatory: true, Value: value})
		secret.Reveal(m)
		judge(m)
	})
}

// The header that was read is the header that is written, and with the frame it is
// all there was.
func FuzzDataHeader(f *testing.F) {
	f.Add(octets("0003 0000 0000 0001"), false, uint8(0), uint16(0))
	f.Add(octets("0003 0000 0000 0001 0102 0304 0506 0708 4000 0001 ff"), false, uint8(8), uint16(1))
	f.Add(octets("0000 0001 0102 0304 4000 0001 ff"), true, uint8(4), uint16(1))
	f.Add(octets("c803 000c 0000 0000 0000 0000"), false, uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, ip bool, cookie uint8, sublayer uint16) {
		e := UDP
		if ip {
			e = IP
		}
		if message, control := ControlPayload(b, e); control {
			if _, _, err := ParseData(b, e, int(cookie), L2SpecificSublayer(sublayer)); err == nil {
				t.Fatalf("%x is control and data", message)
			}
			return
		}
		h, frame, err := ParseData(b, e, int(cookie), L2SpecificSublayer(sublayer))
		if err != nil {
			return
		}
		if id, err := DataSessionID(b, e); err != nil || id != h.SessionID {
			t.Fatalf("Session ID %x, %v, but %x in %+v", id, err, h.SessionID, h)
		}
		out, err := h.Append(nil, e)
		if err != nil {
			t.Fatalf("read %+v, but cannot write it: %v", h, err)
		}
		if len(out) != h.Length(e) || len(out)+len(frame) != len(b) {
			t.Fatalf("%d octets of header, %d of frame, of %d", len(out), len(frame), len(b))
		}
		want := slices.Clone(b[:len(out)])
		if e == UDP { // reserved bits are not kept
			copy(want, []byte{0, 3, 0, 0})
		}
		if !bytes.Equal(out, want) || !bytes.Equal(frame, b[len(out):]) {
			t.Fatalf("read %x, wrote %x", b, out)
		}
	})
}

// values are a message's AVPs, those in a Parser's storage included.
func values(m *Message) (all []AVP) {
	for _, a := range m.AVPs {
		switch p := a.(type) {
		case *LocalSessionID:
			a = *p
		case *RemoteSessionID:
			a = *p
		case *MessageDigest:
			a = *p
		}
		all = append(all, a)
	}
	return all
}
