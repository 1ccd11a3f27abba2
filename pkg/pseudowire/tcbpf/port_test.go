package tcbpf

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// In these tests the hosts' ports are cross-connected, and the bridge is down: what
// takes the way over it does not arrive.

func TestCrossConnectedFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
		all  bool
	}{
		{"IPv4, cookie 8", setting{cookie: 8}, true},
		{"IPv6, no cookie", setting{v6: true}, false},
		{"protocol 115 over IPv4, cookie 8", setting{cookie: 8, ip: true}, false},
		{"protocol 115 over IPv6, cookie 4", setting{cookie: 4, v6: true, ip: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.crossed, c.set.mtu, c.set.tagRoom = true, 1600, 16
			a, b := up(t, c.set)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for i, s := range shapes {
				which := some(60, s.most())
				if c.all && i < 2 {
					which = sizes(60, 1514)
				}
				carry(t, portA, portB, s, which)
				carry(t, portB, portA, s, which)
			}
			for _, v6 := range []bool{false, true} {
				for _, tags := range [][]byte{nil, tag5, twice} {
					// TCP goes by where segments are put together.
					frame := syn(v6, tags, 0x10, nil)
					portA.send(frame)
					if got := portB.receive(); !bytes.Equal(got, frame) {
						t.Errorf("TCP, IPv6 %v, tags % x: %s", v6, tags, firstDifference(got, frame))
					}
				}
			}
		})
	}
}

// The counters say what the hosts sent and received, to the octet.
func TestCrossConnectedCounters(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8, crossed: true}, nil)
	out := openPort(t, a.host, "eth0")
	before := a.counters()
	var sent, received, octets, receivedOctets uint64
	// take counts what comes at the tap, which is also what the host has to say itself.
	take := func() []byte {
		b := far.receiveFrom([6]byte(far.near))
		if b != nil && isTunnel(b) {
			sent++
			octets += uint64(len(b) - ethernetLen - ipv4Len - udpLen - l2tpLen - 8)
		}
		return b
	}
	rng := newRand()
	for n := 60; n <= 1400; n += 67 {
		frame := shapes[0].frame(rng, n)
		out.send(frame)
		for b := take(); !bytes.Contains(b, frame); b = take() {
			if b == nil {
				t.Fatalf("%d octets: nothing came", n)
			}
		}
		far.send(far.inbound(a, false, frame, nil))
		if got := out.receive(); !bytes.Equal(got, frame) {
			t.Fatalf("%d octets: %s", n, firstDifference(got, frame))
		}
		received, receivedOctets = received+1, receivedOctets+uint64(n)
	}
	var got, want string
	for range 20 {
		for take() != nil {
		}
		after := a.counters()
		got = fmt.Sprint(after.ReceivedFrames-before.ReceivedFrames, after.ReceivedOctets-before.ReceivedOctets, after.TransmittedFrames, after.TransmittedOctets)
		want = fmt.Sprint(received, receivedOctets, sent, octets)
		if got == want {
			return
		}
	}
	t.Errorf("frames and octets received and sent: counted %s, were %s", got, want)
}

// TCP with segmentation offload and full datagrams, in fragments where they have to be.
func TestCrossConnectedFlows(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
	}{
		{"IPv4 1500", setting{cookie: 8}},
		{"IPv6 1280", setting{cookie: 8, mtu: 1280, v6: true}},
		{"protocol 115 over IPv4 1500", setting{cookie: 8, ip: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.crossed = true
			a, b := up(t, c.set)
			pump(t, a)
			pump(t, b)
			const n = 8 << 20
			transfer(t, a.host, b.host, "10.0.0.2:5001", n)
			transfer(t, b.host, a.host, "[fd00::1]:5001", n)
			for _, s := range []*site{a, b} {
				got := s.counters()
				drops := difference(nil, got.Drops)
				delete(drops, "no-neighbour") // what the hosts had to say before
				delete(drops, "not-established")
				if len(drops) != 0 {
					t.Errorf("%s: %v", s.name, got.Drops)
				}
				if got.TransmittedOctets < n || got.ReceivedOctets < n {
					t.Errorf("%s: %d octets sent, %d received, of more than %d each", s.name, got.TransmittedOctets, got.ReceivedOctets, n)
				}
			}
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for _, s := range shapes[:8] {
				for _, n := range []int{1224, 1443, 1444, 1500, 1510} {
					carry(t, portA, portB, s, []int{n})
					carry(t, portB, portA, s, []int{n})
				}
			}
			if got := b.counters().Drops; got["reassembled"] == 0 || got["fragmented"] == 0 {
				t.Errorf("nothing was fragmented: %v", got)
			}
		})
	}
}

// A VLAN of the port. The others stay the host's: here they go to the bridge. The tag
// is popped either way: by the device's programs, or for a device that has none.
func TestCrossConnectedVLAN(t *testing.T) {
	for _, c := range []struct {
		name             string
		untagged, keeps  bool
		underlay         int
		sequencing, ipv6 bool
	}{
		{"tagged device", false, false, 1600, false, false},
		{"untagged device", true, false, 1600, false, true},
		{"untagged device, fragments", true, false, 1400, false, false},
		{"Ethernet VLAN", false, true, 1600, false, false},
		{"untagged device, in order", true, false, 1600, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newSites(t, setting{cookie: 8, mtu: c.underlay, tagRoom: 16, v6: c.ipv6})
			for i, s := range []*site{a, b} {
				vlan := uint16(100 + 100*i)
				s.pw.Port, s.pw.PortVLAN, s.pw.KeepTag = "lan", vlan, c.keeps
				if !c.untagged {
					s.pw.VLAN = vlan
				}
				if c.sequencing {
					s.session.ReceiveSublayer, s.session.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
					s.session.ReceiveSequencing, s.session.TransmitSequencing = l2tpv3.SequencingAll, l2tpv3.SequencingAll
				}
				s.open()
				s.do(func() {
					must(t, s.dp.SetPseudowire(s.pw))
					must(t, s.dp.SetTunnel(s.tunnel))
					must(t, s.dp.SetSession(s.session))
				})
				s.resolve()
				pump(t, s)
			}
			in, out := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for _, n := range []int{60, 1000, 1514} {
				for _, ethertype := range []uint16{experimental, 0x0800} {
					frame := shape{"", unicast, nil, ethertype}.frame(newRand(), n)
					in.send(withTag(frame, 100))
					if got, want := out.receive(), withTag(frame, 200); !bytes.Equal(got, want) {
						t.Errorf("%d octets, %#04x: %s", n, ethertype, firstDifference(got, want))
					}
					out.send(withTag(frame, 200))
					if got, want := in.receive(), withTag(frame, 100); !bytes.Equal(got, want) {
						t.Errorf("back, %d octets, %#04x: %s", n, ethertype, firstDifference(got, want))
					}
				}
			}
			tcp := syn(false, nil, 0x10, nil)
			in.send(withTag(tcp, 100))
			if got, want := out.receive(), withTag(tcp, 200); !bytes.Equal(got, want) {
				t.Errorf("TCP: %s", firstDifference(got, want))
			}

			host := openPort(t, a.space, "br0")
			before := a.counters()
			frame := shapes[4].frame(newRand(), 60)
			for _, other := range [][]byte{frame, withTag(frame, 101), withTag(frame, 0)} {
				in.send(other)
				if got := host.receive(); !bytes.Equal(got, other) {
					t.Errorf("of another VLAN, at the host: %s", firstDifference(got, other))
				}
			}
			if after := a.counters(); after.TransmittedFrames != before.TransmittedFrames {
				t.Errorf("%d frames of other VLANs were carried", after.TransmittedFrames-before.TransmittedFrames)
			}
		})
	}
}

// What the device would not take is counted, and not carried: a frame longer than it,
// in; one longer than the port, out. And a port's own flow control is nobody else's.
func TestCrossConnectedRefuses(t *testing.T) {
	a, b := newSites(t, setting{cookie: 8, mtu: 2000, tagRoom: 400})
	for _, s := range []*site{a, b} {
		s.crossed = true
		s.open()
		s.set()
		s.resolve()
	}
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	portA.send(shapes[0].frame(newRand(), 1519))
	carry(t, portA, portB, shapes[0], []int{1514})
	if n := a.counters().Drops["oversize"]; n != 1 {
		t.Errorf("counted %d frames that are too long for the device, not 1", n)
	}
	lan := b.link("lan")
	b.do(func() {
		must(t, netlink.LinkSetMTU(lan, 1400))
		must(t, b.dp.Refresh())
	})
	portA.send(shapes[0].frame(newRand(), 1415))
	carry(t, portA, portB, shapes[0], []int{1414})
	if n := b.counters().Drops["oversize"]; n != 1 {
		t.Errorf("counted %d frames that are too long for the port, not 1", n)
	}
	before := a.counters().TransmittedFrames
	pause := shape{"", [6]byte{1, 0x80, 0xc2, 0, 0, 1}, nil, 0x8808}.frame(newRand(), 60)
	portA.send(pause)
	carry(t, portA, portB, shapes[0], []int{60})
	if n := a.counters().TransmittedFrames - before; n != 1 {
		t.Errorf("carried %d frames, not the one", n)
	}
}

// A cross-connection comes and goes under traffic, as the bridge takes over: no datagram
// is lost. Without a bpffs or tcx a qdisc comes and goes with it, which the kernel
// stops the device for.
func TestCrossConnectionComesAndGoes(t *testing.T) {
	a, b := up(t, setting{cookie: 8, bpfDir: bpffs(t)})
	if a.dp.withoutTCX {
		t.Skip("this kernel has no tcx: programs are filters of a qdisc that comes and goes")
	}
	there := startStream(t, a.host, b.host, "10.0.0.2:9000")
	back := startStream(t, b.host, a.host, "10.0.0.1:9000")
	set := func(s *site, port string) {
		s.pw.Port = port
		s.do(func() { must(t, s.dp.SetPseudowire(s.pw)) })
	}
	for range 2 {
		for _, s := range []*site{a, b} {
			set(s, "lan")
			s.restart()
			set(s, "")
			s.restart()
		}
	}
	// A process that names it where the one before did not, and the other way round.
	a.pw.Port = "lan"
	a.restart()
	a.pw.Port = ""
	a.restart()
	there.end()
	back.end()
}

// Where the bridge is no way, a restart does without it.
func TestCrossConnectedRestart(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir, crossed: true})
		there := startStream(t, a.host, b.host, "10.0.0.2:9000")
		back := startStream(t, b.host, a.host, "10.0.0.1:9000")
		for range 2 {
			a.restart()
			b.restart()
		}
		there.end()
		back.end()
	}
}

// What a cross-connection needs at somebody else's port is gone when it is: after it
// was ended, after the process that made it, and after a crash.
func TestCrossConnectionLeavesNothing(t *testing.T) {
	for _, pinned := range []bool{true, false} {
		t.Run(fmt.Sprintf("pinned %v", pinned), func(t *testing.T) {
			set := setting{cookie: 8}
			if pinned {
				set.bpfDir = bpffs(t) + "/pwd"
			}
			a, _ := newSites(t, set)
			before := state(t, a)
			a.open()
			a.set()
			bridged := state(t, a)
			same := func(what, want string) {
				t.Helper()
				if got := state(t, a); got != want {
					t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
				}
			}
			port := func(name string) {
				a.pw.Port = name
				a.do(func() { must(t, a.dp.SetPseudowire(a.pw)) })
			}
			port("lan")
			if state(t, a) == bridged {
				t.Fatal("nothing was made")
			}
			port("")
			same("after its end", bridged)
			port("lan")
			a.pw.Port = ""
			a.restart()
			same("after a process that does not name it", bridged)
			port("lan")
			a.do(func() { must(t, a.dp.RemovePseudowires(a.pw.Name)) })
			a.do(func() {
				if keys, err := a.dp.objs.Circuits.Keys(); err != nil || len(keys) != 0 {
					t.Errorf("circuits are left: %v, %v", keys, err)
				}
				must(t, a.dp.SetPseudowire(a.pw))
				must(t, a.dp.Close())
			})
			a.open()
			a.cleanup()
			same("after the cleanup", before)
		})
	}
}

// Ports go and come back, programs are taken off, and a port that becomes an underlay is
// left to that.
func TestCrossConnectionFollowsThePort(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir, crossed: true})
		portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		if !passesSoon(portA, portB) || !passesSoon(portB, portA) {
			t.Fatal("nothing passes")
		}
		lan := a.link("lan")
		a.do(func() {
			must(t, a.dp.detach(lan.Attrs().Index)) // as somebody else may
			must(t, a.dp.Refresh())
		})
		if !passesSoon(portA, portB) {
			t.Error("nothing passes after the program was taken off")
		}
		a.do(func() { must(t, netlink.LinkDel(lan)) })
		a.refresh()
		wire(t, a.space, "lan", a.host, "eth0", 1500)
		a.do(func() { enslave(t, "lan") })
		a.refresh()
		portA = openPort(t, a.host, "eth0")
		if !passesSoon(portA, portB) || !passesSoon(portB, portA) {
			t.Error("nothing passes over the port that came back")
		}

		a.do(func() {
			must(t, netlink.LinkSetUp(a.bridge()))
			must(t, a.dp.SetTunnel(a.overPort()))
		})
		if !passesSoon(portA, portB) || !passesSoon(portB, portA) {
			t.Error("nothing passes over the bridge while the port is an underlay as well")
		}
		a.do(func() {
			must(t, a.dp.RemoveTunnel("other/peer"))
			must(t, a.dp.Refresh())
			must(t, netlink.LinkSetDown(a.bridge()))
		})
		if !passesSoon(portA, portB) {
			t.Error("nothing passes after the port was an underlay")
		}
	}
}

// Somebody takes the port for a bridge of theirs: its frames are the pseudowire's no more,
// until it comes back.
func TestCrossConnectionEndsWithTheBridge(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir, crossed: true})
		portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		if !passesSoon(portA, portB) {
			t.Fatal("nothing passes")
		}
		a.do(func() {
			lan, err := netlink.LinkByName("lan")
			must(t, err)
			theirs := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "theirs"}}
			must(t, netlink.LinkAdd(theirs))
			must(t, netlink.LinkSetMaster(lan, theirs))
			must(t, a.dp.Refresh())
			if a.dp.CrossConnected(a.pw.Name) {
				t.Error("it is cross-connected with a port of another bridge")
			}
			if there, err := a.dp.attached(lan.Attrs().Index); err != nil || there {
				t.Errorf("the program is still at the port: %v, %v", there, err)
			}
		})
		a.do(func() {
			enslave(t, "lan")
			must(t, a.dp.Refresh())
		})
		if !passesSoon(portA, portB) || !passesSoon(portB, portA) {
			t.Error("nothing passes over the port that came back")
		}
	}
}

// A tunnel that goes another way leaves nothing where it went before.
func TestTunnelLeavesItsUnderlay(t *testing.T) {
	a, _ := up(t, setting{cookie: 8})
	lan := a.link("lan").Attrs().Index
	a.do(func() {
		over := a.overPort()
		must(t, a.dp.SetTunnel(over))
		if there, err := a.dp.attached(lan); err != nil || !there {
			t.Fatalf("no program at the port that is the underlay: %v, %v", there, err)
		}
		elsewhere := a.tunnel
		elsewhere.Name, elsewhere.Remote = over.Name, addrPort("192.0.2.77:1701")
		if a.tunnel.Remote.Addr().Is6() {
			t.Fatal("the sites are on IPv4")
		}
		must(t, a.dp.SetTunnel(elsewhere))
		if there, err := a.dp.attached(lan); err != nil || there {
			t.Errorf("a program is left where the tunnel went: %v, %v", there, err)
		}
	})
}

// passesSoon says whether a frame goes from one port to the other in the end: a machine may be busy.
func passesSoon(from, to *port) bool {
	for range 20 {
		if passes(from, to) {
			return true
		}
	}
	return false
}

func (s *site) bridge() netlink.Link {
	l, err := netlink.LinkByName("br0")
	must(s.t, err)
	return l
}

// overPort is another tunnel, which has its address at the port.
func (s *site) overPort() pseudowire.Tunnel {
	l, err := netlink.LinkByName("lan")
	must(s.t, err)
	addr, err := netlink.ParseAddr("203.0.113.1/24")
	must(s.t, err)
	must(s.t, netlink.AddrAdd(l, addr))
	other := s.tunnel
	other.Name = "other/peer"
	other.Local, other.Remote = addrPort("203.0.113.1:1701"), addrPort("203.0.113.2:1701")
	return other
}
