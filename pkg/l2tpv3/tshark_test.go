package l2tpv3

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What this package writes, read by another implementation: tshark's dissector
// has to find every field as it was meant, and nothing malformed.

const (
	testPort     = 40001
	linkRawIP    = 101
	protocolUDP  = 17
	addressLeft  = "c0000201" // 192.0.2.1
	addressRight = "c0000202"
)

// packet is the payload in an IPv4 packet, over UDP with the source port.
func packet(e Encapsulation, source uint16, payload []byte) []byte {
	protocol := byte(Protocol)
	if e == UDP {
		protocol = protocolUDP
		udp := be.AppendUint16(nil, source)
		udp = be.AppendUint16(udp, Port)
		udp = be.AppendUint16(udp, uint16(8+len(payload)))
		payload = append(be.AppendUint16(udp, 0), payload...) // no checksum
	}
	ip := octets("4500 0000 0000 4000 4000 0000", addressLeft, addressRight)
	be.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
	ip[9] = protocol
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(be.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	be.PutUint16(ip[10:], ^uint16(sum))
	return append(ip, payload...)
}

// control is a message in a packet. A digest in it is the one of the integrity
// check, which tshark verifies where it has no secret (Section 4.3).
func control(t *testing.T, e Encapsulation, source uint16, m *Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sign(b, nil, nil, NewSecret(nil)); err != nil && !errors.Is(err, ErrNoDigest) {
		t.Fatal(err)
	}
	return packet(e, source, append(AppendControlPrefix(nil, e), b...))
}

// tshark reads the packets and returns, for each, the fields asked for. Several
// values of one field are separated by commas.
func tshark(t *testing.T, options []string, packets [][]byte, fields ...string) [][]string {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		needs(t, "tshark, to read back what is written: %v", err)
	}
	le := binary.LittleEndian
	var file []byte
	for _, v := range []uint32{0xa1b2c3d4, 4<<16 | 2, 0, 0, 65535, linkRawIP} {
		file = le.AppendUint32(file, v)
	}
	for i, p := range packets {
		for _, v := range []uint32{uint32(1000 + i), 0, uint32(len(p)), uint32(len(p))} {
			file = le.AppendUint32(file, v)
		}
		file = append(file, p...)
	}
	name := filepath.Join(t.TempDir(), "written.pcap")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"-n", "-r", name, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,"}, options...)
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(ctx, "tshark", args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("tshark: %v: %s", err, complaints.String())
	}
	var rows [][]string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	if len(rows) != len(packets) {
		t.Fatalf("tshark read %d packets of %d: %s", len(rows), len(packets), complaints.String())
	}
	return rows
}

// marks are the fields by which tshark says that something is wrong.
var marks = []string{"_ws.malformed", "l2tp.avp_length.bad", "l2tp.incorrect_digest", "_ws.expert.message"}

// notes are what tshark remarks although nothing is wrong: it knows the number of
// an AVP but nothing of its value, and takes a Remote End ID for text.
var notes = []string{"Vendor-Specific AVP data", "Trailing stray characters"}

// tsharkCannot says why an AVP is not shown to tshark 4.0; empty if it is.
func tsharkCannot(a AVP) string {
	switch v := a.(type) {
	case CircuitErrors:
		if v.Short {
			return "it has the six counters of RFC 2661 only"
		}
	case ExtendedVendorID:
		return "it reads the 32-bit Vendor ID two octets too early, over the Attribute Type (Figure 5.2)"
	case MessageDigest:
		if v.Algorithm.size() == 0 {
			return "it has no other digests than MD5 and SHA-1"
		}
	}
	return ""
}

// headerFields are what every control message has.
var headerFields = []string{
	"l2tp.version", "l2tp.length", "l2tp.ccid", "l2tp.Ns", "l2tp.Nr", "l2tp.avp.message_type",
	"l2tp.avp.type", "l2tp.avp.length", "l2tp.avp.mandatory", "l2tp.avp.hidden",
}

// wantHeader is what tshark has to say in headerFields. It shows the type of a
// vendor's AVP in other fields, and that of a hidden one not at all.
func wantHeader(t *testing.T, m *Message) []string {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var types, lengths, mandatory, hidden []string
	for i, a := range m.AVPs {
		raw, _ := a.(RawAVP)
		if raw.Vendor == 0 && !raw.Hidden {
			types = append(types, strconv.Itoa(int(a.AVPType())))
		}
		lengths = append(lengths, strconv.Itoa(avpHeaderLength+len(a.appendValue(nil))))
		mandatory = append(mandatory, flag(m.FlagsAt(i).Mandatory))
		hidden = append(hidden, flag(raw.Hidden))
	}
	messageType := ""
	if typ, ok := m.Type(); ok {
		messageType = strconv.Itoa(int(typ))
	}
	return []string{
		"3", strconv.Itoa(len(b)), fmt.Sprintf("0x%08x", m.ControlConnectionID), strconv.Itoa(int(m.Ns)), strconv.Itoa(int(m.Nr)), messageType,
		strings.Join(types, ","), strings.Join(lengths, ","), strings.Join(mandatory, ","), strings.Join(hidden, ","),
	}
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// Every type of message, with every AVP that the rules have for it, over UDP and IP.
func TestTsharkMessages(t *testing.T) {
	var messages []*Message
	var packets [][]byte
	for _, e := range []Encapsulation{UDP, IP} {
		zlb := &Message{ControlConnectionID: 0x11111111, Ns: 65535, Nr: 9}
		messages, packets = append(messages, zlb), append(packets, control(t, e, testPort, zlb))
		for info := range KnownMessages() {
			m := fullMessage(t, info)
			messages, packets = append(messages, m), append(packets, control(t, e, testPort, m))
		}
	}
	rows := tshark(t, nil, packets, append(slices.Clone(headerFields), marks...)...)
	for i, row := range rows {
		checkRow(t, messages[i].String(), headerFields, row, wantHeader(t, messages[i]))
	}
}

// checkRow compares what is wanted, and then demands that there are no marks.
func checkRow(t *testing.T, what string, fields, got, want []string) {
	t.Helper()
	for i, f := range fields {
		if got[i] != want[i] {
			t.Errorf("%s\n%s is %s, want %s", what, f, got[i], want[i])
		}
	}
	for i, f := range marks {
		for v := range strings.SplitSeq(got[len(fields)+i], ",") {
			if v != "" && !slices.Contains(notes, v) {
				t.Errorf("%s\n%s: %s", what, f, v)
			}
		}
	}
}

// tsharkValues is how tshark shows the value of each sample that it has a field
// for. Others it shows as octets, or not at all.
var tsharkValues = []struct {
	avp   AVP
	field string
	want  string
}{
	{ResultCode{Result: 2, HasError: true, Error: 6, Message: "text"}, "l2tp.result_code,l2tp.avp.error_code,l2tp.avp.error_message", "2 6 text"},
	{ProtocolVersion{1, 2}, "l2tp.avp.protocol_version,l2tp.avp.protocol_revision", "1 2"},
	{FramingCapabilities(2), "l2tp.avp.async_framing_supported,l2tp.avp.sync_framing_supported", "1 0"},
	{BearerCapabilities(1), "l2tp.avp.analog_access_supported,l2tp.avp.digital_access_supported", "0 1"},
	{TieBreaker(octets("0102030405060708")), "l2tp.tie_breaker", "0x0102030405060708"},
	{FirmwareRevision(0x611), "l2tp.avp.firmware_revision", "1553"},
	{HostName("gold.dc1"), "l2tp.avp.host_name", "gold.dc1"},
	{VendorName("pwd"), "l2tp.avp.vendor_name", "pwd"},
	{AssignedTunnelID(0x1234), "l2tp.avp.assigned_tunnel_id", "4660"},
	{ReceiveWindowSize(16), "l2tp.avp.receive_window_size", "16"},
	{Challenge(octets("0102")), "l2tp.avp.chap_challenge", "0102"},
	{ChallengeResponse(octets("0102030405060708090a0b0c0d0e0f10")), "l2tp.avp.chap_challenge_response", "0102030405060708090a0b0c0d0e0f10"},
	{SerialNumber(7), "l2tp.avp.call_serial_number", "7"},
	{PhysicalChannelID(0x00010002), "l2tp.avp.physical_channel", "65538"},
	{CircuitErrors{CRC: 5, Framing: 6, HardwareOverruns: 1, BufferOverruns: 2, Timeouts: 3, Alignment: 4},
		"l2tp.avp.crc_errors,l2tp.avp.framing_errors,l2tp.avp.hardware_overruns,l2tp.avp.buffer_overruns,l2tp.avp.time_out_errors,l2tp.avp.alignment_errors", "5 6 1 2 3 4"},
	{RandomVector(octets("b1b2b3b4")), "l2tp.avp.random_vector", "b1b2b3b4"},
	{RouterID(0xc0000201), "l2tp.avp.router_id", "3221225985"},
	{AssignedControlConnectionID(0x22222222), "l2tp.avp.assigned_control_conn_id", "572662306"},
	{PseudowireCapabilities{EthernetVLAN, Ethernet}, "l2tp.avp.pw_type", "4,5"},
	{LocalSessionID(0x01020304), "l2tp.avp.local_session_id", "16909060"},
	{RemoteSessionID(0x05060708), "l2tp.avp.remote_session_id", "84281096"},
	{AssignedCookie(octets("0102030405060708")), "l2tp.avp.assigned_cookie", "0102030405060708"},
	{AssignedCookie(octets("01020304")), "l2tp.avp.assigned_cookie", "01020304"},
	{RemoteEndID("tenant-a"), "l2tp.avp.remote_end_id", "tenant-a"},
	{Ethernet, "l2tp.avp.pseudowire_type", "5"},
	{SublayerDefault, "l2tp.avp.layer2_specific_sublayer", "1"},
	{SequencingAll, "l2tp.avp.data_sequencing", "2"},
	{CircuitActive | CircuitNew, "l2tp.avp.circuit_status,l2tp.avp.circuit_type", "1 1"},
	{CircuitStandby, "l2tp.avp.circuit_status,l2tp.avp.circuit_type", "0 0"},
	{PreferredLanguage("de"), "l2tp.avp.preferred_language", "de"},
	{Nonce(octets("a1a2a3a4")), "l2tp.avp.nonce", "a1a2a3a4"},
	{TxConnectSpeed(10_000_000_000), "l2tp.avp.tx_connect_speed_v3", "10000000000"},
	{RxConnectSpeed(1_000_000_000), "l2tp.avp.rx_connect_speed_v3", "1000000000"},
	{ConnectSpeedUpdate{RemoteSessionID: 0x01020304, Tx: 1_000_000, Rx: 64_000},
		"l2tp.avp.csu.current_tx_speed64,l2tp.avp.csu.current_rx_speed64", "1000000 64000"},
	{RawAVP{Vendor: 9, Type: 4, Value: octets("01020304")}, "l2tp.avp.vendor_id,l2tp.cisco.remote_session_id", "0,9 16909060"},
}

// Every AVP alone, and the values that tshark has fields for.
func TestTsharkAVPs(t *testing.T) {
	for _, e := range []Encapsulation{UDP, IP} {
		t.Run(e.String(), func(t *testing.T) {
			var messages []*Message
			var packets [][]byte
			add := func(a AVP) {
				m := NewMessage(SCCCN, a)
				if typ, ok := a.(MessageType); ok {
					m = NewMessage(typ)
				}
				m.ControlConnectionID = 0x11111111
				messages, packets = append(messages, m), append(packets, control(t, e, testPort, m))
			}
			var fields []string
			for _, v := range tsharkValues {
				add(v.avp)
				for f := range strings.SplitSeq(v.field, ",") {
					if !slices.Contains(fields, f) {
						fields = append(fields, f)
					}
				}
			}
			for _, s := range avpSamples {
				if why := tsharkCannot(s.avp); why != "" {
					t.Logf("not shown to tshark: %s: %s", describe(s.avp), why)
					continue
				}
				add(s.avp)
			}
			all := slices.Concat(headerFields, fields, marks)
			rows := tshark(t, nil, packets, all...)
			for i, row := range rows {
				checkRow(t, messages[i].String(), headerFields, slices.Concat(row[:len(headerFields)], row[len(row)-len(marks):]), wantHeader(t, messages[i]))
			}
			for i, v := range tsharkValues {
				var got []string
				for f := range strings.SplitSeq(v.field, ",") {
					got = append(got, rows[i][slices.Index(all, f)])
				}
				if s := strings.Join(got, " "); s != v.want {
					t.Errorf("%v: %s is %q, want %q", messages[i], v.field, s, v.want)
				}
			}
		})
	}
}

// Digests of a handshake, and the mark when one is wrong.
func TestTsharkDigests(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, algorithm := range []DigestAlgorithm{HMACMD5, HMACSHA1} {
		t.Run(algorithm.String(), func(t *testing.T) {
			digest := func() AVP { return NewMessageDigest(algorithm) }
			const idA, idB = 0x11111111, 0x22222222
			var packets [][]byte
			send := func(m *Message, ccid uint32, ns, nr uint16, sender, receiver []byte) {
				m.ControlConnectionID, m.Ns, m.Nr = ccid, ns, nr
				b, err := m.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := Sign(b, sender, receiver, secret); err != nil {
					t.Fatal(err)
				}
				packets = append(packets, packet(IP, 0, append(AppendControlPrefix(nil, IP), b...)))
			}
			about := []AVP{HostName("a"), RouterID(1), PseudowireCapabilities{Ethernet}}
			send(NewMessage(SCCRQ, slices.Concat([]AVP{digest(), Nonce(nonceA), AssignedControlConnectionID(idA)}, about)...), 0, 0, 0, nil, nil)
			send(NewMessage(SCCRP, slices.Concat([]AVP{digest(), Nonce(nonceB), AssignedControlConnectionID(idB)}, about)...), idA, 0, 1, nonceB, nonceA)
			send(NewMessage(SCCCN, digest()), idB, 1, 1, nonceA, nonceB)
			send(NewMessage(ACK, digest()), idA, 1, 2, nonceB, nonceA)
			send(NewMessage(Hello, digest()), idB, 2, 1, nonceB, nonceA) // the nonces in the receiver's order
			// From B to A, where that is so.
			for _, i := range []int{1, 3} {
				copy(packets[i][12:], octets(addressRight, addressLeft))
			}
			options := []string{"-o", "l2tp.shared_secret:" + string(testSecret)}
			for i, row := range tshark(t, options, packets, "l2tp.avp.message_type", "l2tp.incorrect_digest", "_ws.malformed") {
				if wrong := row[1] != ""; wrong != (i == 4) {
					t.Errorf("message type %s: incorrect digest is %v", row[0], wrong)
				}
				if row[2] != "" {
					t.Errorf("message type %s: %s", row[0], row[2])
				}
			}
		})
	}
}

// Data messages of every shape: an Ethernet frame comes out.
func TestTsharkData(t *testing.T) {
	// who has 192.0.2.9, from 02:00:00:00:00:01 to all
	frame := octets("ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0001 0200 0000 0001 c000 0201 0000 0000 0000 c000 0209",
		strings.Repeat("00", 18))
	for _, cookie := range []struct {
		value  []byte
		option string
		show   string
	}{
		{nil, "None", ""},
		{octets("a1a2a3a4"), "4 Byte Cookie", "a1a2a3a4"},
		{octets("a1a2a3a4a5a6a7a8"), "8 Byte Cookie", "a1a2a3a4a5a6a7a8"},
	} {
		for _, sublayer := range []L2SpecificSublayer{SublayerNone, SublayerDefault} {
			t.Run(fmt.Sprintf("cookie of %d, sublayer %v", len(cookie.value), sublayer), func(t *testing.T) {
				var packets [][]byte
				for _, e := range []Encapsulation{UDP, IP} {
					h := DataHeader{SessionID: 0x01020304, Cookie: cookie.value, Sublayer: sublayer}
					if sublayer != SublayerNone {
						h.Flags, h.Sequence = SublayerSequenced, 0x0a0b0c
					}
					b, err := h.Append(nil, e)
					if err != nil {
						t.Fatal(err)
					}
					packets = append(packets, packet(e, testPort, append(b, frame...)))
				}
				option := "None"
				show := []string{"0x01020304", cookie.show, "", "", "ff:ff:ff:ff:ff:ff", "192.0.2.9"}
				if sublayer == SublayerDefault {
					option, show[2], show[3] = "Default L2-Specific", "1", "658188"
				}
				options := []string{"-o", "l2tp.cookie_size:" + cookie.option, "-o", "l2tp.l2_specific:" + option, "-d", "l2tp.pw_type==0,eth"}
				fields := []string{"l2tp.sid", "l2tp.cookie", "l2tp.l2_spec_s", "l2tp.l2_spec_sequence", "eth.dst", "arp.dst.proto_ipv4"}
				for i, row := range tshark(t, options, packets, append(slices.Clone(fields), marks...)...) {
					checkRow(t, fmt.Sprintf("packet %d", i), fields, row, show)
				}
			})
		}
	}
}
