package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// everyMessage has the daemon send a message of each type that it has, in both
// roles, and returns all control messages that it sent.
func everyMessage(t *testing.T) []message {
	d := start(t, options{
		tunnels: []string{"gold", "silver"}, hello: "1s", retransmit: "500ms",
		pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}, {name: "b", cookie: 4, tunnel: "silver", circuit: "eth2"}},
	})
	c := d.client
	// As a responder, with a session that the client asks for.
	gold := c.open("gold", d.socket)
	gold.decline(1)
	a := gold.open("a", octets(avpCookie, 1, 2, 3, 4))
	// As an initiator, with a session that it asks for itself.
	silver := c.accept("silver", d.socket)
	b := silver.accept(octets(avpCookie, 1, 2, 3, 4, 5, 6, 7, 8))
	d.circuits["eth1"].Down()
	gold.aside = []messageType{hello} // perhaps a second has passed
	a.isFor(gold.expect(sli))
	// A HELLO, and the answers to what no daemon can like.
	silver.expect(hello)
	_, m := silver.call("nobody")
	silver.transmit(silver.stamp(m))
	silver.expect(cdn)
	b.send(cdn, u16(avpResultCode, resultAdministered))
	silver.send(scccn)
	silver.stopped(0, 0)
	gold.send(stopCCN, u16(avpResultCode, 6), u32(avpAssignedCCID, gold.local))
	for m := gold.next("the ACK"); m.nr != gold.ns; m = gold.next("the ACK") {
		gold.nr = m.ns // a HELLO, perhaps
	}
	var all []message
	for _, p := range received(c) {
		all = append(all, p.m)
	}
	return all
}

// received are the control messages that came so far.
func received(c *client) (all []packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.log {
		if !p.sent && p.isControl() {
			p.m, _ = decode(p.payload)
			all = append(all, p)
		}
	}
	return all
}

// Rules 1 and 9: the header and the first AVP of every message that the daemon can
// send. (These and more are checked of every message that comes in any test, see judge.)
func TestEveryMessage(t *testing.T) {
	t.Parallel()
	all := everyMessage(t)
	t.Run("Rule1_3_2_1_Header", func(t *testing.T) {
		for _, kind := range []messageType{sccrq, sccrp, scccn, stopCCN, hello, icrq, icrp, iccn, cdn, sli, ack} {
			if !slices.ContainsFunc(all, func(m message) bool { return m.kind() == kind }) {
				t.Errorf("the daemon sent no %v", kind)
			}
		}
		for _, m := range all {
			if m.bits != 0xc803 {
				t.Errorf("%v begins with %04x", m, m.bits)
			}
		}
	})
	t.Run("Rule9_5_4_1_MessageTypeIsFirst", func(t *testing.T) {
		for _, m := range all {
			if m.kind() == zlb {
				continue
			}
			if a := m.avps[0]; a.vendor != 0 || a.kind != avpMessageType || !a.mandatory || a.hidden || len(a.value) != 2 {
				t.Errorf("%v begins with %v", m, a)
			}
		}
	})
}

func TestRule2_3_2_1_ReservedBitsAreIgnored(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	n := d.client.newConnection("gold", d.socket)
	request := n.request()
	request.bits = controlWord | reservedBits
	for i := range request.avps {
		request.avps[i].reserved = 0xf // Section 5.1: "ignored upon reception"
	}
	n.transmit(request)
	n.answered()
	n.send(scccn)
	n.delivered()

	m := n.stamp(newMessage(hello))
	m.bits = controlWord | reservedBits
	n.transmit(m)
	n.acked()
	n.alive()
}

func TestRule4_7_1_MalformedHeaderIsDiscarded(t *testing.T) {
	t.Parallel()
	d := start(t, options{})

	// A tempting message: as the SCCRQ it would be answered by SCCRP, as the HELLO acknowledged.
	type damage struct {
		name string
		do   func(b []byte) []byte
	}
	length := func(n int) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[2:], uint16(n)); return b }
	}
	damages := []damage{
		{"Length 0", length(0)},
		{"Length 4", length(4)},
		{"Length 11", length(11)},
		{"Length 65535", length(65535)},
		{"Length one more than there is", func(b []byte) []byte { return length(len(b) + 1)(b) }},
		{"one octet less than Length", func(b []byte) []byte { return b[:len(b)-1] }},
		{"the header alone", func(b []byte) []byte { return b[:headerLength] }},
	}
	for n := range headerLength {
		damages = append(damages, damage{fmt.Sprintf("cut off after %d octets", n), func(b []byte) []byte { return b[:n] }})
	}

	n := d.client.newConnection("gold", d.socket)
	for _, damage := range damages {
		n.socket.send(port, damage.do(n.request().encode()))
	}
	n.transmit(n.request())
	n.answered()
	n.send(scccn)
	n.delivered()
	answers := 0
	for _, p := range received(d.client) {
		if n.isFor(&p) && !p.m.isACK() {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("%d answers to the SCCRQs, want one, to the good one", answers)
	}

	for _, damage := range damages {
		m := n.stamp(newMessage(hello))
		n.socket.send(n.port, damage.do(m.encode()))
		n.ns-- // it was not used up: the next HELLO has it
		n.alive()
		if t.Failed() {
			t.Fatalf("after a HELLO with %s", damage.name)
		}
	}
}

func TestRule8_5_4_3_ControlConnectionIDs(t *testing.T) {
	t.Parallel()
	d := start(t, options{tunnels: []string{"gold", "silver"}, pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	c := d.client
	request := c.request("silver")
	if request.m.ccid != 0 {
		t.Errorf("%v: the peer's ID is not known", request.m)
	}
	silver := c.reply("silver", d.socket, request)
	silver.alive()
	gold := c.open("gold", d.socket)
	gold.accept()
	gold.alive()
	// Every message came with one of the client's IDs: it is how they were told apart. None
	// may have come with another.
	for _, p := range received(c) {
		if m := p.m; m.kind() != sccrq && m.ccid != gold.local && m.ccid != silver.local {
			t.Errorf("%v is for no connection", m)
		}
		if p.m.has(avpAssignedCCID) && p.m.number(avpAssignedCCID) == 0 {
			t.Errorf("%v assigns 0", p.m)
		}
	}
	if gold.peer == silver.peer {
		t.Errorf("two connections with the ID %08x", gold.peer)
	}
}

func TestRule10_6_1_6_2_MandatoryAVPs(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	request := d.client.request("gold").m
	n := d.client.newConnection("gold", d.socket)
	n.transmit(n.request())
	reply := n.answered()
	for _, m := range []message{request, reply} {
		for _, want := range []uint16{avpHostName, avpRouterID, avpAssignedCCID, avpCapabilities} {
			if len(m.value(want)) == 0 {
				t.Errorf("%v: AVP %d is missing or empty: %x", m, want, m.encode())
			}
		}
		// One LCCE, the same in both roles.
		if host := string(m.value(avpHostName)); host != "gold.dc1" {
			t.Errorf("%v: Host Name %q", m, host)
		}
		if !slices.Contains(capabilities(m), ethernet) {
			t.Errorf("%v: Pseudowire Capabilities %v without Ethernet", m, capabilities(m))
		}
	}
	if a, b := request.number(avpRouterID), reply.number(avpRouterID); a != b {
		t.Errorf("Router ID %08x in the SCCRQ, %08x in the SCCRP", a, b)
	}
}

// capabilities are the types in the Pseudowire Capabilities List (Section 5.4.3).
func capabilities(m message) (types []uint16) {
	for v := m.value(avpCapabilities); len(v) >= 2; v = v[2:] {
		types = append(types, binary.BigEndian.Uint16(v))
	}
	return types
}

func TestRule7_4_1_2_3_UDPChecksums(t *testing.T) {
	t.Parallel()
	d := start(t, options{hello: "1s", pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	capture, err := d.underlay.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return isUDP(f.Data) }})
	if err != nil {
		t.Fatal(err)
	}
	n := d.client.open("gold", d.socket)
	n.accept()
	n.alive()
	n.expect(hello)
	n.send(scccn)
	n.stopped(0, 0)
	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, f := range frames {
		const ip, udp = 14, 14 + 20
		payload := f.Data[udp+8:]
		if len(payload) < 2 || payload[0]&0x80 == 0 {
			continue // data
		}
		checked++
		if f.ChecksumPending {
			t.Fatal("the checksum is left to hardware: this test cannot see it")
		}
		if binary.BigEndian.Uint16(f.Data[udp+6:]) == 0 {
			t.Errorf("no checksum: %x", f.Data)
		}
		// RFC 768: the pseudo header, then all; what is right adds up to ffff.
		length := binary.BigEndian.Uint16(f.Data[udp+4:])
		sum := uint32(17) + uint32(length) + sum16(f.Data[ip+12:ip+20]) + sum16(f.Data[udp:udp+int(length)])
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if sum != 0xffff {
			t.Errorf("wrong checksum: %x", f.Data)
		}
	}
	if checked < 5 {
		t.Errorf("%d control messages, want more", checked)
	}
}

// isUDP says whether a frame is an unfragmented UDP datagram in IPv4 without options.
func isUDP(f []byte) bool {
	return len(f) >= 14+20+8 && f[12] == 8 && f[13] == 0 && f[14] == 0x45 && f[14+9] == 17 &&
		binary.BigEndian.Uint16(f[14+6:])&0x3fff == 0
}

// sum16 adds up 16-bit words; an odd octet has a zero behind it.
func sum16(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}
