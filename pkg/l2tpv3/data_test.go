package l2tpv3

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Section 4.1.2.1 and Section 4.1.1.1: the header over UDP is the one over IP
// with four octets before it.
func TestDataHeader(t *testing.T) {
	for _, c := range []struct {
		name string
		h    DataHeader
		ip   string
	}{
		{"no cookie", DataHeader{SessionID: 1}, "0000 0001"},
		{"cookie of 4", DataHeader{SessionID: 0x01020304, Cookie: octets("a1a2a3a4")}, "0102 0304 a1a2 a3a4"},
		{"cookie of 8", DataHeader{SessionID: 0xffffffff, Cookie: octets("a1a2a3a4a5a6a7a8")}, "ffff ffff a1a2 a3a4 a5a6 a7a8"},
		{"default sublayer, not sequenced", DataHeader{SessionID: 1, Sublayer: SublayerDefault}, "0000 0001 0000 0000"},
		{"default sublayer, sequenced", DataHeader{SessionID: 1, Sublayer: SublayerDefault, Flags: SublayerSequenced, Sequence: 0x010203}, "0000 0001 4001 0203"},
		{"the last sequence number", DataHeader{SessionID: 1, Sublayer: SublayerDefault, Flags: SublayerSequenced, Sequence: 0xffffff}, "0000 0001 40ff ffff"},
		{"all together", DataHeader{SessionID: 1, Cookie: octets("a1a2a3a4a5a6a7a8"), Sublayer: SublayerDefault, Flags: SublayerSequenced | SublayerBegin | SublayerEnd, Sequence: 7}, "0000 0001 a1a2 a3a4 a5a6 a7a8 7000 0007"},
		{"VCCV, BFD", DataHeader{SessionID: 1, Sublayer: SublayerDefault, Flags: SublayerVCCV, Sequence: 0x000007}, "0000 0001 8000 0007"},
		{"ATM sublayer", DataHeader{SessionID: 1, Sublayer: SublayerATM, Flags: 0x4a, Sequence: 9}, "0000 0001 4a00 0009"},
	} {
		for e, prefix := range map[Encapsulation]string{UDP: "0003 0000", IP: ""} {
			t.Run(c.name+" over "+e.String(), func(t *testing.T) {
				want := octets(prefix, c.ip)
				b, err := c.h.Append(nil, e)
				if err != nil || !bytes.Equal(b, want) {
					t.Fatalf("wrote %x, %v, want %x", b, err, want)
				}
				if c.h.Length(e) != len(want) {
					t.Errorf("Length %d, want %d", c.h.Length(e), len(want))
				}
				h, frame, err := ParseData(append(b, "frame"...), e, len(c.h.Cookie), c.h.Sublayer)
				if err != nil || !reflect.DeepEqual(h, c.h) || string(frame) != "frame" {
					t.Errorf("read %+v, %q, %v", h, frame, err)
				}
				id, err := DataSessionID(b, e)
				if err != nil || id != c.h.SessionID {
					t.Errorf("Session ID %x, %v", id, err)
				}
				if _, control := ControlPayload(b, e); control {
					t.Error("looks like a control message")
				}
				// Every shorter one is refused.
				for n := range len(want) {
					if _, _, err := ParseData(want[:n], e, len(c.h.Cookie), c.h.Sublayer); !errors.Is(err, ErrShort) {
						t.Errorf("%d of %d octets: %v", n, len(want), err)
					}
				}
			})
		}
	}
}

// Section 4.1.2.1: x bits and the reserved field are ignored.
func TestDataReservedBits(t *testing.T) {
	h, _, err := ParseData(octets("7ff3 ffff 0000 0001"), UDP, 0, SublayerNone)
	if err != nil || !reflect.DeepEqual(h, DataHeader{SessionID: 1}) {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestDataErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		e    Encapsulation
		wire string
		want ParseError
	}{
		{"version 2", UDP, "0002 0000 0000 0001", ParseError{0, "Ver", ErrVersion}},
		{"control message", UDP, "c803 000c 0000 0001 0000 0000", ParseError{0, "T bit", ErrFlags}},
		{"Session ID 0 over UDP", UDP, "0003 0000 0000 0000", ParseError{4, "Session ID", ErrValue}},
		{"Session ID 0 over IP", IP, "0000 0000 c803 000c", ParseError{0, "Session ID", ErrValue}},
		{"no Session ID over UDP", UDP, "0003 0000", ParseError{0, "session header", ErrShort}},
		{"half a cookie", UDP, "0003 0000 0000 0001 0102 0304", ParseError{8, "Cookie", ErrShort}},
		{"no sublayer", IP, "0000 0001 0102 0304 0506 0708 4000", ParseError{12, "L2-Specific Sublayer", ErrShort}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := ParseData(octets(c.wire), c.e, 8, SublayerDefault)
			if !reflect.DeepEqual(err, error(&c.want)) {
				t.Errorf("error %#v, want %#v", err, &c.want)
			}
		})
	}
	if _, _, err := ParseData(octets("0000 0001 0102 0304 0506"), IP, 6, SublayerNone); !errors.Is(err, ErrLength) {
		t.Errorf("cookie of six octets: %v", err)
	}
	for _, c := range []struct {
		h     DataHeader
		field string
		want  error
	}{
		{DataHeader{}, "Session ID", ErrValue},
		{DataHeader{SessionID: 1, Cookie: []byte("12345")}, "Cookie", ErrLength},
		{DataHeader{SessionID: 1, Sequence: 1 << 24, Sublayer: SublayerDefault}, "Sequence Number", ErrValue},
	} {
		b, err := c.h.Append([]byte("x"), UDP)
		if e, ok := errors.AsType[*EncodeError](err); !ok || e.Field != c.field || !errors.Is(err, c.want) || string(b) != "x" {
			t.Errorf("%+v: %q, %v, want %s", c.h, b, err, c.field)
		}
		if !strings.Contains(err.Error(), c.field) {
			t.Errorf("error text %q", err)
		}
	}
}
