package tcbpf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// tap is a port on the far end of a site's underlay, where another LCCE would be.
type tap struct {
	*port
	near, far net.HardwareAddr
}

// upAgainstTap brings one site up, with a tap in the place of the other.
func upAgainstTap(t testing.TB, set setting, change func(*site)) (*site, *tap) {
	t.Helper()
	a, b := newSites(t, set)
	if change != nil {
		change(a)
	}
	a.open()
	a.set()
	a.resolve()
	mac := func(s *space) (m net.HardwareAddr) {
		s.do(func() {
			l, err := netlink.LinkByName("wan")
			must(t, err)
			m = l.Attrs().HardwareAddr
		})
		return m
	}
	return a, &tap{openPort(t, b.space, "wan"), mac(a.space), mac(b.space)}
}

// data returns the next data message with a frame of the station's that comes.
func (p *tap) data() []byte {
	for {
		b := p.receiveFrom([6]byte(p.near))
		if b == nil || isTunnel(b) && bytes.Contains(b, station[:]) {
			return b
		}
	}
}

// isTunnel says that an untagged or tagged frame has UDP from port 1701, or protocol 115.
func isTunnel(frame []byte) bool {
	at := 14
	for frame[at-2] == 0x81 || frame[at-2] == 0x88 {
		at += 4
	}
	switch {
	case frame[at-2] == 0x08 && frame[at-1] == 0x00 && frame[at+9] == protocolL2TP, frame[at-2] == 0x86 && frame[at+6] == protocolL2TP:
		return true
	case frame[at-2] == 0x08 && frame[at-1] == 0x00:
		return frame[at+9] == 17 && binary.BigEndian.Uint16(frame[at+20:]) == 1701
	case frame[at-2] == 0x86 && frame[at-1] == 0xdd:
		return frame[at+6] == 17 && binary.BigEndian.Uint16(frame[at+40:]) == 1701
	}
	return false
}

// unhex reads octets as the figures below write them.
func unhex(t testing.TB, rows ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(strings.Join(rows, "")))
	must(t, err)
	return b
}

// What leaves, octet by octet. The frame has 60 octets from its addresses on.
func TestOuterPacket(t *testing.T) {
	const (
		frame = "027077640002 027077640001 88b5"
		tag   = "027077640002 027077640001 8100 6005 88b5"
	)
	ip4 := func(length, sum string) string {
		return "0800 4500" + length + "0000 4000 40 11 " + sum + " c0000201 c0000202"
	}
	ip6 := func(length string) string {
		return "86dd 60000000" + length + "11 40 20010db8000000000000000000000001 20010db8000000000000000000000002"
	}
	for _, c := range []struct {
		name   string
		set    setting
		change func(*site)
		shape  shape
		want   []string // after the outer addresses, up to the payload
	}{
		{
			"IPv4, cookie 8", setting{cookie: 8}, nil, shapes[0],
			[]string{ip4("0068", "b681"), "06a5 06a5 0054 0000", "0003 0000 a0000002", "0a0b0c0d0e0f1011", frame},
		},
		{
			"IPv4, cookie 4", setting{cookie: 4}, nil, shapes[0],
			[]string{ip4("0064", "b685"), "06a5 06a5 0050 0000", "0003 0000 a0000002", "0a0b0c0d", frame},
		},
		{
			"IPv4, no cookie", setting{}, nil, shapes[0],
			[]string{ip4("0060", "b689"), "06a5 06a5 004c 0000", "0003 0000 a0000002", frame},
		},
		{
			"IPv6, cookie 8", setting{cookie: 8, v6: true}, nil, shapes[0],
			[]string{ip6("0054"), "06a5 06a5 0054 0000", "0003 0000 a0000002", "0a0b0c0d0e0f1011", frame},
		},
		{
			"default sublayer", setting{cookie: 4},
			func(s *site) { s.session.TransmitSublayer = l2tpv3.SublayerDefault }, shapes[0],
			[]string{ip4("0068", "b681"), "06a5 06a5 0054 0000", "0003 0000 a0000002", "0a0b0c0d", "00000000", frame},
		},
		{
			"the tag is in the payload", setting{cookie: 8}, nil, shapes[6],
			[]string{ip4("006c", "b67d"), "06a5 06a5 0058 0000", "0003 0000 a0000002", "0a0b0c0d0e0f1011", tag},
		},
		{
			"and over IPv6", setting{v6: true}, nil, shapes[6],
			[]string{ip6("0050"), "06a5 06a5 0050 0000", "0003 0000 a0000002", tag},
		},
		{
			"protocol 115 over IPv4, cookie 8", setting{cookie: 8, ip: true}, nil, shapes[0],
			[]string{"0800 4500005c 0000 4000 40 73 b62b c0000201 c0000202", "a0000002", "0a0b0c0d0e0f1011", frame},
		},
		{
			"protocol 115 over IPv6, no cookie, default sublayer", setting{v6: true, ip: true},
			func(s *site) { s.session.TransmitSublayer = l2tpv3.SublayerDefault }, shapes[0],
			[]string{"86dd 60000000 0044 73 40 20010db8000000000000000000000001 20010db8000000000000000000000002", "a0000002", "00000000", frame},
		},
		{
			"DSCP 46 over IPv4", setting{}, func(s *site) { s.session.DSCP = 46 }, shapes[0],
			[]string{"0800 45b80060 0000 4000 40 11 b5d1 c0000201 c0000202", "06a5 06a5 004c 0000", "0003 0000 a0000002", frame},
		},
		{
			"DSCP 46 over IPv6, protocol 115", setting{v6: true, ip: true}, func(s *site) { s.session.DSCP = 46 }, shapes[0],
			[]string{"86dd 6b800000 0040 73 40 20010db8000000000000000000000001 20010db8000000000000000000000002", "a0000002", frame},
		},
		{
			"VLAN 5 stays", setting{cookie: 8, vlanA: 5}, func(s *site) { s.pw.KeepTag = true }, shapes[6],
			[]string{ip4("006c", "b67d"), "06a5 06a5 0058 0000", "0003 0000 a0000002", "0a0b0c0d0e0f1011", tag},
		},
		{
			"VLAN 5 is the pseudowire's", setting{cookie: 8, vlanA: 5}, nil, shapes[6],
			[]string{ip4("0068", "b681"), "06a5 06a5 0054 0000", "0003 0000 a0000002", "0a0b0c0d0e0f1011", frame},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, far := upAgainstTap(t, c.set, c.change)
			in := openPort(t, a.host, "eth0")
			sent := c.shape.frame(newRand(), 60)
			in.send(sent)
			want := append(bytes.Clone(far.far), far.near...)
			want = append(want, unhex(t, c.want...)...)
			want = append(want, sent[14+len(c.shape.tags):]...)
			if got := far.data(); !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", hex.Dump(got), hex.Dump(want))
			}
		})
	}
}

// No packet on the underlay has a tag, in its octets or beside them, whatever
// the frames have and whichever way they take.
func TestOuterPacketsHaveNoTag(t *testing.T) {
	for _, mtu := range []int{1600, 1280} {
		for _, v6 := range []bool{false, true} {
			a, far := upAgainstTap(t, setting{cookie: 8, mtu: mtu, v6: v6, tagRoom: 16}, nil)
			in := openPort(t, a.host, "eth0")
			for _, s := range shapes {
				for _, n := range []int{60, 1000, 1500} {
					in.send(s.frame(newRand(), n))
					got := far.receiveFrom([6]byte(far.near))
					for got != nil && got[12] == 0x86 && got[20] == 58 { // neighbour discovery
						got = far.receiveFrom([6]byte(far.near))
					}
					if got == nil {
						t.Fatalf("%s, %d octets: no packet", s.name, n)
					}
					if e := binary.BigEndian.Uint16(got[12:]); e != 0x0800 && e != 0x86dd {
						t.Errorf("%s, %d octets: EtherType %#04x on the underlay", s.name, n, e)
					}
				}
				for far.receiveNow() != nil { // other fragments
				}
			}
		}
	}
}

// inbound is a data message of 14 octets of Ethernet header and payload, as the
// peer sends it; change may spoil it.
func (p *tap) inbound(s *site, v6 bool, frame []byte, change func(*message)) []byte {
	m := &message{
		ip:          overIP(&s.tunnel),
		destination: p.near, source: p.far, flags: 3,
		session: s.session.LocalID, cookie: bytes.Clone(s.session.LocalCookie), frame: frame,
		from: s.tunnel.Remote.Addr().AsSlice(), to: s.tunnel.Local.Addr().AsSlice(),
		fromPort: s.tunnel.Remote.Port(), toPort: s.tunnel.Local.Port(),
	}
	if change != nil {
		change(m)
	}
	return m.append(nil, v6)
}

// message is a data message and all that is around it.
type message struct {
	ip                  bool // no UDP header
	tos                 byte
	destination, source net.HardwareAddr
	from, to            []byte
	fromPort, toPort    uint16
	fragment            uint16
	options             []byte
	flags               uint16
	session             uint32
	cookie, sublayer    []byte
	frame, trailer      []byte
	cut                 int
}

func (m *message) append(b []byte, v6 bool) []byte {
	var l2tp []byte
	if !m.ip {
		l2tp = binary.BigEndian.AppendUint16(nil, m.flags)
		l2tp = append(l2tp, 0, 0)
	}
	l2tp = binary.BigEndian.AppendUint32(l2tp, m.session)
	l2tp = append(l2tp, m.cookie...)
	l2tp = append(l2tp, m.sublayer...)
	l2tp = append(l2tp, m.frame...)
	l2tp = l2tp[:len(l2tp)-m.cut]
	protocol, udp := byte(protocolL2TP), l2tp
	if !m.ip {
		protocol = protocolUDP
		udp = binary.BigEndian.AppendUint16(nil, m.fromPort)
		udp = binary.BigEndian.AppendUint16(udp, m.toPort)
		udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(l2tp)))
		udp = append(udp, 0, 0)
		udp = append(udp, l2tp...)
	}
	b = append(b, m.destination...)
	b = append(b, m.source...)
	if v6 {
		b = append(b, 0x86, 0xdd, 0x60|m.tos>>4, m.tos<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(udp)))
		b = append(b, protocol, 64)
		b = append(b, m.from...)
		b = append(b, m.to...)
		return append(append(b, udp...), m.trailer...)
	}
	h := []byte{0x45 + byte(len(m.options)/4), m.tos}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(m.options)+len(udp)))
	h = append(h, 0, 0)
	h = binary.BigEndian.AppendUint16(h, m.fragment)
	h = append(h, 64, protocol, 0, 0)
	h = append(append(h, m.from...), m.to...)
	h = append(h, m.options...)
	sum := sum16(h)
	sum = sum&0xffff + sum>>16
	binary.NativeEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	b = append(b, 0x08, 0x00)
	b = append(b, h...)
	return append(append(b, udp...), m.trailer...)
}

// end is a site, the other end of its underlay, and its host.
type end struct {
	site *site
	tap  *tap
	out  *port
}

// What arrives and is ours is delivered or counted, exactly; what is not is left
// to the stack.
func TestInboundPackets(t *testing.T) {
	full := shapes[0].frame(newRand(), 1514)
	ends := map[bool]end{}
	for _, v6 := range []bool{false, true} {
		a, far := upAgainstTap(t, setting{cookie: 8, mtu: 1700, v6: v6}, nil)
		ends[v6] = end{a, far, openPort(t, a.host, "eth0")}
	}
	for _, c := range []struct {
		name      string
		change    func(*message)
		delivered bool
		session   map[string]uint64 // of the session's counters
		global    map[string]uint64
	}{
		{name: "as the peer sends it", delivered: true},
		{name: "reserved bits", change: func(m *message) { m.flags = 0x7ff3 }, delivered: true},
		{name: "a trailer of the link's", change: func(m *message) { m.trailer = make([]byte, 9) }, delivered: true},
		{name: "wrong cookie", change: func(m *message) { m.cookie[7] ^= 1 }, session: map[string]uint64{"wrong-cookie": 1}},
		{name: "no cookie", change: func(m *message) { m.cookie = nil }, session: map[string]uint64{"wrong-cookie": 1}},
		{name: "another session", change: func(m *message) { m.session++ }, global: map[string]uint64{"unknown-session": 1}},
		{name: "session 0", change: func(m *message) { m.session = 0 }, global: map[string]uint64{"unknown-session": 1}},
		{name: "no frame", change: func(m *message) { m.frame = nil }, session: map[string]uint64{"error": 1}},
		{name: "less than a header", change: func(m *message) { m.frame = m.frame[:13] }, session: map[string]uint64{"error": 1}},
		{name: "cookie cut short", change: func(m *message) { m.cookie, m.frame = m.cookie[:5], nil }},
		{name: "too long for the device", change: func(m *message) { m.frame = append(bytes.Clone(full), 0) }, session: map[string]uint64{"oversize": 1}},
		{name: "control message", change: func(m *message) { m.flags = 0xc803 }},
		{name: "version 2", change: func(m *message) { m.flags = 2 }},
		{name: "a fragment", change: func(m *message) { m.fragment = 0x2000 }},
		{name: "IP options", change: func(m *message) { m.options = []byte{1, 1, 1, 0} }},
		{name: "another peer", change: func(m *message) { m.from[len(m.from)-1] = 9 }},
		{name: "another port of the peer's", change: func(m *message) { m.fromPort++ }},
		{name: "another port of ours", change: func(m *message) { m.toPort++ }},
		{name: "another station's", change: func(m *message) { m.destination = net.HardwareAddr{2, 0, 0, 0, 0, 9} }},
	} {
		for _, v6 := range []bool{false, true} {
			if v6 && (c.name == "a fragment" || c.name == "IP options") {
				continue
			}
			t.Run(fmt.Sprintf("%s, IPv6 %v", c.name, v6), func(t *testing.T) {
				a, far, out := ends[v6].site, ends[v6].tap, ends[v6].out
				frame := shapes[0].frame(newRand(), 100)
				before, globalBefore := a.counters(), a.global()
				far.send(far.inbound(a, v6, frame, c.change))
				// One that is good, after it: what comes first tells.
				last := shapes[0].frame(newRand(), 200)
				far.send(far.inbound(a, v6, last, nil))
				want, n := last, uint64(1)
				if c.delivered {
					want, n = frame, 2
				}
				if got := out.receive(); !bytes.Equal(got, want) {
					t.Fatalf("delivered %d octets, not %d; %+v", len(got), len(want), a.counters())
				}
				if c.delivered && !bytes.Equal(out.receive(), last) {
					t.Fatal("the second frame did not come")
				}
				after, globalAfter := a.counters(), a.global()
				if got := after.ReceivedFrames - before.ReceivedFrames; got != n {
					t.Errorf("counted %d frames, not %d", got, n)
				}
				if diff := cmp.Diff(orEmpty(c.session), difference(before.Drops, after.Drops)); diff != "" {
					t.Errorf("session (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(orEmpty(c.global), difference(globalBefore, globalAfter)); diff != "" {
					t.Errorf("global (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// difference is by how much counters went up.
func difference(before, after map[string]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for reason, n := range after {
		if n != before[reason] {
			m[reason] = n - before[reason]
		}
	}
	return m
}

// withTag is a frame with one tag more.
func withTag(frame []byte, vlan uint16) []byte {
	b := append(bytes.Clone(frame[:12]), 0x81, 0)
	b = binary.BigEndian.AppendUint16(b, vlan)
	return append(b, frame[12:]...)
}

func orEmpty(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return m
}

// What comes put together by the stack goes the same ways.
func TestDeliver(t *testing.T) {
	frame := shapes[0].frame(newRand(), 1514)
	ends := map[uint16]end{}
	for _, vlan := range []uint16{0, 7} {
		a, far := upAgainstTap(t, setting{cookie: 8, vlanA: vlan}, nil)
		ends[vlan] = end{a, far, openPort(t, a.host, "eth0")}
	}
	for _, c := range []struct {
		name      string
		change    func(*message)
		belongs   bool
		delivered bool
		counted   map[string]uint64
	}{
		{name: "as the peer sends it", belongs: true, delivered: true, counted: map[string]uint64{"reassembled": 1}},
		{name: "wrong cookie", change: func(m *message) { m.cookie[0] ^= 1 }, belongs: true, counted: map[string]uint64{"wrong-cookie": 1}},
		{name: "another session", change: func(m *message) { m.session++ }},
		{name: "control message", change: func(m *message) { m.flags = 0xc803 }},
		{name: "no frame", change: func(m *message) { m.frame = nil }, belongs: true, counted: map[string]uint64{"error": 1}},
		{name: "too long", change: func(m *message) { m.frame = append(bytes.Clone(frame), 1) }, belongs: true, counted: map[string]uint64{"oversize": 1}},
		{name: "cut short", change: func(m *message) { m.cookie, m.frame = m.cookie[:4], nil }, belongs: true},
	} {
		for _, vlan := range []uint16{0, 7} {
			t.Run(fmt.Sprintf("%s, VLAN %d", c.name, vlan), func(t *testing.T) {
				a, far, out := ends[vlan].site, ends[vlan].tap, ends[vlan].out
				before := a.counters()
				packet := far.inbound(a, false, frame, c.change)[14+20+8:]
				a.do(func() {
					if got := a.dp.Deliver(a.tunnel.Remote, packet); got != c.belongs {
						t.Errorf("belongs to a session: %v, not %v", got, c.belongs)
					}
				})
				if c.delivered {
					want := frame
					if vlan != 0 {
						want = withTag(frame, vlan)
					}
					if got := out.receive(); !bytes.Equal(got, want) {
						t.Errorf("got %s", firstDifference(got, want))
					}
				}
				a.counted(before, c.counted)
			})
		}
	}
	a, far := ends[0].site, ends[0].tap
	packet := far.inbound(a, false, frame, nil)[14+20+8:]
	a.do(func() {
		if a.dp.Deliver(a.tunnel.Local, packet) {
			t.Error("a packet of somebody else's was taken for the peer's")
		}
		for n := range 20 {
			a.dp.Deliver(a.tunnel.Remote, packet[:n])
		}
	})
}

// counted waits until a session's counters of events have gone up by as much.
func (s *site) counted(before pseudowire.Counters, want map[string]uint64) {
	s.t.Helper()
	var diff string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		got := difference(before.Drops, s.counters().Drops)
		delete(got, "wrong-vlan") // what the host has to say
		if diff = cmp.Diff(orEmpty(want), got); diff == "" {
			return
		}
	}
	s.t.Errorf("counters (-want +got):\n%s", diff)
}

// The sublayers of the two directions are independent of each other.
func TestReceiveSublayer(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, func(s *site) { s.session.ReceiveSublayer = l2tpv3.SublayerDefault })
	out := openPort(t, a.host, "eth0")
	frame, other := shapes[0].frame(newRand(), 100), shapes[0].frame(newRand(), 99)
	// RFC 5085: with the V bit it is no frame.
	far.send(far.inbound(a, false, other, func(m *message) { m.sublayer = []byte{0x80, 0, 0, 0x21} }))
	far.send(far.inbound(a, false, frame, func(m *message) { m.sublayer = []byte{0x40, 0, 0, 9} }))
	if got := out.receive(); !bytes.Equal(got, frame) {
		t.Errorf("got %s", firstDifference(got, frame))
	}
	if n := a.counters().Drops["error"]; n != 1 {
		t.Errorf("counted %d errors, not 1", n)
	}
}

// VLAN 100 here is VLAN 200 there.
func TestVLANsDiffer(t *testing.T) {
	for _, set := range []setting{{cookie: 8, vlanA: 100, vlanB: 200, mtu: 1600}, {cookie: 8, vlanA: 100, vlanB: 200, mtu: 1400}} {
		set.tagRoom = 16
		a, b := up(t, set)
		pump(t, a)
		pump(t, b)
		in, out := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		for _, n := range []int{60, 61, 1000, 1513, 1514} {
			for _, ethertype := range []uint16{experimental, 0x0800} {
				plain := shape{"", unicast, nil, ethertype}.frame(newRand(), n)
				for _, inner := range [][]byte{nil, tag5} {
					frame := append(append(bytes.Clone(plain[:12]), inner...), plain[12:]...)
					if set.mtu < 1500 && inner != nil {
						frame = frame[:min(len(frame), 1514)]
					}
					in.send(withTag(frame, 100))
					if got, want := out.receive(), withTag(frame, 200); !bytes.Equal(got, want) {
						t.Errorf("%d octets, %#04x, inner tag % x: %s", n, ethertype, inner, firstDifference(got, want))
					}
					out.send(withTag(frame, 200))
					if got, want := in.receive(), withTag(frame, 100); !bytes.Equal(got, want) {
						t.Errorf("back, %d octets, %#04x, inner tag % x: %s", n, ethertype, inner, firstDifference(got, want))
					}
				}
			}
		}
		before := a.counters()
		frame := shapes[0].frame(newRand(), 60)
		in.send(frame)                           // no tag
		in.send(withTag(frame, 101))             // another
		in.send(withTag(frame, 0))               // a priority tag
		in.send(shapes[11].frame(newRand(), 60)) // a service tag, VLAN 100
		in.send(withTag(frame, 100))
		if got, want := out.receive(), withTag(frame, 200); !bytes.Equal(got, want) {
			t.Errorf("after frames of other VLANs: %s", firstDifference(got, want))
		}
		after := a.counters()
		if n := after.Drops["wrong-vlan"] - before.Drops["wrong-vlan"]; n < 4 {
			t.Errorf("counted %d frames of other VLANs, not 4", n)
		}
		if n := after.TransmittedFrames - before.TransmittedFrames; n != 1 {
			t.Errorf("sent %d frames, not 1", n)
		}
	}
}

// An Ethernet VLAN pseudowire (RFC 4719, Section 3.1; RFC 4448, Section 4.4.1): the tag
// is part of the frame, its number is each end's own.
func TestTagStays(t *testing.T) {
	for _, set := range []setting{{cookie: 8, vlanA: 100, vlanB: 200, mtu: 1600}, {cookie: 8, vlanA: 100, vlanB: 200, mtu: 1400, v6: true}} {
		set.tagRoom = 16
		a, b := newSites(t, set)
		for _, s := range []*site{a, b} {
			s.pw.KeepTag = true
			s.open()
			s.set()
			s.resolve()
			pump(t, s)
		}
		in, out := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		for _, n := range []int{60, 1000, 1514} {
			for _, ethertype := range []uint16{experimental, 0x0800} {
				plain := shape{"", unicast, nil, ethertype}.frame(newRand(), n)
				for _, inner := range [][]byte{nil, tag5} {
					frame := append(append(bytes.Clone(plain[:12]), inner...), plain[12:]...)
					if set.mtu < 1500 && inner != nil {
						frame = frame[:min(len(frame), 1514)]
					}
					// Priority 5, drop eligible.
					in.send(withTag(frame, 0xb000|100))
					if got, want := out.receive(), withTag(frame, 0xb000|200); !bytes.Equal(got, want) {
						t.Errorf("%d octets, %#04x, inner tag % x: %s", n, ethertype, inner, firstDifference(got, want))
					}
					out.send(withTag(frame, 0xb000|200))
					if got, want := in.receive(), withTag(frame, 0xb000|100); !bytes.Equal(got, want) {
						t.Errorf("back, %d octets, %#04x, inner tag % x: %s", n, ethertype, inner, firstDifference(got, want))
					}
				}
			}
		}
		before := a.counters()
		frame := shapes[0].frame(newRand(), 60)
		in.send(frame)               // no tag
		in.send(withTag(frame, 101)) // another
		in.send(withTag(frame, 100))
		if got, want := out.receive(), withTag(frame, 200); !bytes.Equal(got, want) {
			t.Errorf("after frames of other VLANs: %s", firstDifference(got, want))
		}
		after := a.counters()
		if n := after.Drops["wrong-vlan"] - before.Drops["wrong-vlan"]; n < 2 {
			t.Errorf("counted %d frames of other VLANs, not 2", n)
		}
	}
}

// What a peer's frames become on a pseudowire with the tag 100, by their tags.
func TestTagOfReceived(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8, mtu: 1700, vlanA: 100, tagRoom: 16}, func(s *site) { s.pw.KeepTag = true })
	out := openPort(t, a.host, "eth0")
	plain := shapes[1].frame(newRand(), 1514)
	with := func(tags ...byte) []byte { return append(append(bytes.Clone(plain[:12]), tags...), plain[12:]...) }
	for _, c := range []struct {
		name           string
		received, want []byte
	}{
		{"the peer's number", with(0x81, 0, 0x70, 0x07), with(0x81, 0, 0x70, 100)},
		{"its own number", with(0x81, 0, 0, 100), with(0x81, 0, 0, 100)},
		{"a priority tag", with(0x81, 0, 0xe0, 0), with(0x81, 0, 0xe0, 100)},
		{"a service tag", with(0x88, 0xa8, 0x10, 0x64, 0x81, 0, 0, 9), with(0x81, 0, 0x10, 100, 0x81, 0, 0, 9)},
		{"no tag", plain, with(0x81, 0, 0, 100)},
	} {
		far.send(far.inbound(a, false, c.received, nil))
		if got := out.receive(); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %s", c.name, firstDifference(got, c.want))
		}
	}
}

// Without a session, or with a peer that does not listen, the device has no
// carrier; a session that is removed leaves the pseudowire to the one before it.
func TestCarrier(t *testing.T) {
	a, _ := newSites(t, setting{cookie: 8})
	a.open()
	carrier := func(want bool) {
		t.Helper()
		a.do(func() {
			l, err := netlink.LinkByName("pw-x")
			must(t, err)
			if got := l.Attrs().OperState == netlink.OperUp; got != want {
				t.Errorf("carrier %v, not %v", got, want)
			}
		})
	}
	session := a.session
	a.do(func() { must(t, a.dp.SetPseudowire(a.pw)) })
	carrier(false)
	a.do(func() { must(t, a.dp.SetTunnel(a.tunnel)) })
	session.Transmit = false
	a.do(func() { must(t, a.dp.SetSession(session)) })
	carrier(false)
	session.Transmit = true
	a.do(func() { must(t, a.dp.SetSession(session)) })
	carrier(true)
	second := session
	second.LocalID, second.RemoteID = 5, 6
	a.do(func() { must(t, a.dp.SetSession(second)) })
	carrier(true)
	outgoing := func() uint32 { return a.dp.outgoing(a.dp.pseudowires[pseudowireName]).LocalID }
	if got := outgoing(); got != 5 {
		t.Errorf("frames leave over session %d, not the newest", got)
	}
	a.do(func() { must(t, a.dp.RemoveSession(5)) })
	carrier(true)
	if got := outgoing(); got != session.LocalID {
		t.Errorf("frames leave over session %d, not the one that is left", got)
	}
	a.do(func() {
		must(t, a.dp.RemoveSession(session.LocalID))
		must(t, a.dp.RemoveSession(4711))
	})
	carrier(false)
	a.do(func() { must(t, a.dp.RemovePseudowires(pseudowireName)) })
	a.do(func() {
		if _, err := netlink.LinkByName("pw-x"); err == nil {
			t.Error("the device is still there")
		}
	})
}

// The devices of a pseudowire have nothing of their own to say in the LAN, on a
// host that routes and is eager to solicit and to report.
func TestDevicesAreSilent(t *testing.T) {
	a, _ := newSites(t, setting{cookie: 8})
	a.do(func() {
		for _, file := range []string{"all/forwarding", "default/forwarding"} {
			must(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte("1"), 0))
		}
	})
	a.open()
	out := openPort(t, a.host, "eth0")
	a.set()
	own := map[[6]byte]string{}
	a.do(func() {
		for _, name := range []string{"pw-x", "pwo-x", laneEntry, laneExit} {
			l, err := netlink.LinkByName(name)
			must(t, err)
			own[[6]byte(l.Attrs().HardwareAddr)] = name
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			must(t, err)
			if len(addrs) != 0 {
				t.Errorf("%s has addresses: %v", name, addrs)
			}
		}
	})
	// What an ordinary device says in the first second it says within it.
	for deadline := time.Now().Add(1200 * time.Millisecond); time.Now().Before(deadline); {
		if b := out.receiveNow(); b == nil {
			time.Sleep(10 * time.Millisecond)
		} else if name := own[[6]byte(b[6:12])]; name != "" {
			t.Errorf("%s sent % x", name, b)
		}
	}
}
