package l2tpv3

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// Every attribute that Cisco numbered goes out under that number with its M bit, and
// comes back as what it is. What is younger keeps its own number.
func TestCiscoNumbers(t *testing.T) {
	for _, c := range []struct {
		in   MessageType
		avp  AVP
		wire string // the AVP's
	}{
		{SCCRQ, AssignedControlConnectionID(0x11111111), "800a0009000111111111"},
		{SCCRQ, PseudowireCapabilities{4, 5}, "800a0009000200040005"},
		{SCCRQ, Nonce{1, 2}, "80080009000d0102"},
		{SCCRQ, TieBreaker{1}, "800e000000050100000000000000"},
		{SCCRQ, RouterID(1), "000a0000003c00000001"},
		{ICRQ, LocalSessionID(2), "800a0009000300000002"},
		{ICRQ, RemoteSessionID(0), "800a0009000400000000"},
		{ICRQ, AssignedCookie{1, 2, 3, 4}, "800a0009000501020304"},
		{ICRQ, RemoteEndID("10"), "8008000900063130"},
		{ICRQ, EthernetVLAN, "8008000900070004"},
		{ICRQ, CircuitActive, "8008000900080001"},
		{ICRQ, TieBreaker{1}, "800e000900090100000000000000"},
		{ICRQ, InterfaceMTU(1500), "00080009000e05dc"},
		{ICRQ, SublayerDefault, "8008000000450001"},
		{ICRQ, SerialNumber(7), "000a0000000f00000007"},
	} {
		m := NewMessage(c.in, c.avp)
		m.Numbers = CiscoNumbers
		b, err := m.Append(nil)
		if err != nil || !bytes.Equal(b[20:], octets(c.wire)) {
			t.Errorf("%T: %x, %v; want %s", c.avp, b[20:], err, c.wire)
			continue
		}
		back, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%T: parsed and written again %x, %v; want %x", c.avp, again, err, b)
		}
		if back.Standardize(); !reflect.DeepEqual(back.AVPs[1], c.avp) {
			t.Errorf("%#v came back as %#v", c.avp, back.AVPs[1])
		}
		names := back.AVPs[1].AVPType() == AVPAssignedControlConnectionID || back.AVPs[1].AVPType() == AVPLocalSessionID
		if (back.Numbers == CiscoNumbers) != names {
			t.Errorf("%T: numbers %d", c.avp, back.Numbers)
		}
		if f := back.FlagsAt(1); f.Mandatory != (c.wire[0] == '8') {
			t.Errorf("%T: flags %+v", c.avp, f)
		}
	}
}

// The standard number counts where both are there, wherever they stand. Nothing becomes
// of what is hidden, malformed, or has a number without a meaning.
func TestStandardizeLeaves(t *testing.T) {
	for _, c := range []struct {
		name string
		avps []AVP
	}{
		{"standard before", []AVP{AssignedControlConnectionID(1), RawAVP{Vendor: VendorCisco, Type: 1, Value: []byte{0, 0, 0, 2}}}},
		{"standard after", []AVP{RawAVP{Vendor: VendorCisco, Type: 1, Value: []byte{0, 0, 0, 2}}, AssignedControlConnectionID(1)}},
		{"hidden", []AVP{RawAVP{Vendor: VendorCisco, Type: 1, Hidden: true, Value: []byte{0, 0, 0, 2}}}},
		{"malformed", []AVP{RawAVP{Vendor: VendorCisco, Type: 1, Value: []byte{0, 2}}}},
		{"zero", []AVP{RawAVP{Vendor: VendorCisco, Type: 1, Value: []byte{0, 0, 0, 0}}}},
		{"unknown", []AVP{RawAVP{Vendor: VendorCisco, Type: 0}, DraftVersion(), RawAVP{Vendor: VendorCisco, Type: 11}, RawAVP{Vendor: VendorCisco, Type: 115}}},
		{"other vendor", []AVP{RawAVP{Vendor: 4491, Type: 1, Value: []byte{0, 0, 0, 2}}}},
	} {
		m := NewMessage(SCCRQ, c.avps...)
		before := NewMessage(SCCRQ, c.avps...)
		if m.Standardize(); !reflect.DeepEqual(m, before) {
			t.Errorf("%s: %v became %v", c.name, before, m)
		}
	}
}

// A digest under Cisco's number is found where a digest has to be, and covers what it should.
func TestCiscoDigest(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, a := range []DigestAlgorithm{HMACMD5, HMACSHA1} {
		m := NewMessage(SCCCN, NewMessageDigest(a), HostName("a"))
		m.Numbers = CiscoNumbers
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Sign(b, nonceA, nonceB, secret); err != nil {
			t.Fatal(err)
		}
		if b[20+3] != VendorCisco || b[20+5] != byte(ciscoMessageDigest) {
			t.Errorf("the digest is at %x", b[20:26])
		}
		if err := Verify(b, nonceA, nonceB, secret); err != nil {
			t.Error(err)
		}
		b[len(b)-1] ^= 1
		if err := Verify(b, nonceA, nonceB, secret); err == nil {
			t.Error("a changed message is accepted")
		}
	}
}

// tshark knows Cisco's numbers, too, and finds each value under its own.
func TestTsharkCisco(t *testing.T) {
	fields := []string{
		"assigned_control_connection_id", "pw_type", "local_session_id", "remote_session_id", "assigned_cookie", "remote_end_id",
		"pseudowire_type", "circuit_status", "tie_breaker", "draft_avp_version", "message_digest", "nonce", "interface_mtu",
	}
	for i := range fields {
		fields[i] = "l2tp.cisco." + fields[i]
	}
	var packets [][]byte
	for _, m := range []*Message{
		NewMessage(SCCRQ, NewMessageDigest(HMACMD5), Nonce(nonceA), HostName("pe9"), AssignedControlConnectionID(0x11111111), PseudowireCapabilities{Ethernet}, DraftVersion()),
		NewMessage(ICRQ, LocalSessionID(7), RemoteSessionID(8), AssignedCookie{1, 2, 3, 4}, RemoteEndID("vc10"), Ethernet, CircuitActive, TieBreaker{7: 9}, InterfaceMTU(1500)),
	} {
		m.Numbers = CiscoNumbers
		packets = append(packets, control(t, IP, 0, m))
	}
	want := [][]string{
		{"286331153", "5", "", "", "", "", "", "", "", "1", "digest", hex.EncodeToString(nonceA), ""},
		{"", "", "7", "8", "01020304", "vc10", "5", "1", "0x0000000000000009", "", "", "", "1500"},
	}
	for i, row := range tshark(t, nil, packets, append(slices.Clone(fields), marks...)...) {
		if i == 0 && row[10] != "" {
			row[10] = "digest"
		}
		checkRow(t, fmt.Sprintf("packet %d", i), fields, row, want[i])
	}
}
