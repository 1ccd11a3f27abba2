package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/underlay"
)

// outer is what the program at a site's pseudowire has as its outer headers.
func (s *site) outer() (mtu int, destination net.HardwareAddr, resolved bool) {
	tx := s.dp.pseudowires[pseudowireName].written
	var b []byte
	for _, w := range tx.Outer {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return int(tx.Mtu), b[:6], s.dp.tunnels[tunnelName].path.resolved()
}

func (s *space) link(name string) (l netlink.Link) {
	s.t.Helper()
	s.do(func() {
		var err error
		l, err = netlink.LinkByName(name)
		must(s.t, err)
	})
	return l
}

func (s *site) refresh() {
	s.t.Helper()
	s.do(func() { must(s.t, s.dp.Refresh()) })
}

// passes says whether a frame goes from one port to the other.
func passes(from, to *port) bool {
	frame := shapes[0].frame(newRand(), 100)
	from.send(frame)
	return bytes.Equal(to.receive(), frame)
}

// What changes on the underlay is in the programs' maps after a look at the ways alone, too.
func TestRefreshWays(t *testing.T) {
	a, _ := up(t, setting{cookie: 8})
	wan := a.link("wan")
	for _, mtu := range []int{1400, 1380} {
		a.do(func() {
			must(t, netlink.LinkSetMTU(wan, mtu))
			must(t, a.dp.RefreshWays())
		})
		if got, _, _ := a.outer(); got != mtu {
			t.Errorf("MTU %d, not the link's %d", got, mtu)
		}
	}
}

// What changes on the underlay is in the programs' maps after Refresh.
func TestRefresh(t *testing.T) {
	a, b := up(t, setting{cookie: 8})
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	wanA := a.link("wan")

	// The MTU of the link, and that of the route.
	a.do(func() { must(t, netlink.LinkSetMTU(wanA, 1400)) })
	a.refresh()
	if mtu, _, _ := a.outer(); mtu != 1400 {
		t.Errorf("MTU %d, not the link's", mtu)
	}
	dst := &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(32, 32)}
	route := &netlink.Route{LinkIndex: wanA.Attrs().Index, Dst: dst, MTU: 1300, Scope: netlink.SCOPE_LINK}
	a.do(func() { must(t, netlink.RouteAdd(route)) })
	a.refresh()
	if mtu, _, _ := a.outer(); mtu != 1300 {
		t.Errorf("MTU %d, not the route's", mtu)
	}
	a.do(func() {
		must(t, netlink.RouteDel(route))
		must(t, netlink.LinkSetMTU(wanA, 1500))
	})

	// The peer's link-layer address.
	other := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	b.do(func() {
		l, err := netlink.LinkByName("wan")
		must(t, err)
		must(t, netlink.LinkSetHardwareAddr(l, other))
	})
	a.do(func() {
		must(t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: wanA.Attrs().Index, IP: net.IPv4(192, 0, 2, 2), HardwareAddr: other, State: netlink.NUD_REACHABLE,
		}))
	})
	a.refresh()
	if _, destination, _ := a.outer(); !bytes.Equal(destination, other) {
		t.Errorf("frames go to %v, not %v", destination, other)
	}
	if !passes(portA, portB) {
		t.Error("nothing passes to the peer's new address")
	}

	// The kernel forgets its neighbour, as it does when it has many: frames pass.
	a.do(func() {
		must(t, netlink.NeighDel(&netlink.Neigh{LinkIndex: wanA.Attrs().Index, IP: net.IPv4(192, 0, 2, 2)}))
	})
	a.refresh()
	if _, destination, _ := a.outer(); !bytes.Equal(destination, other) {
		t.Errorf("after the kernel forgot the neighbour frames go to %v", destination)
	}

	// The link goes down: frames are counted, and pass again when it is back.
	a.do(func() { must(t, netlink.LinkSetDown(wanA)) })
	a.refresh()
	before := a.counters()
	if _, _, resolved := a.outer(); resolved || passes(portA, portB) {
		t.Error("frames pass over a link that is down")
	}
	if n := a.counters().Drops["no-neighbour"] - before.Drops["no-neighbour"]; n == 0 {
		t.Error("the frame was not counted")
	}
	a.do(func() { must(t, netlink.LinkSetUp(wanA)) })
	a.resolve()
	if !passes(portA, portB) || !passes(portB, portA) {
		t.Error("nothing passes after the link came back")
	}

	// Somebody takes our program off the link: it is put there again.
	a.do(func() { must(t, netlink.QdiscDel(clsact(wanA.Attrs().Index))) })
	if passes(portB, portA) {
		t.Error("frames come in without the program")
	}
	a.refresh()
	if !passes(portB, portA) {
		t.Error("nothing comes in after the program was taken off")
	}
}

// The underlay's device goes and another comes in its place.
func TestUnderlayReplaced(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir})
		portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		a.do(func() {
			l, err := netlink.LinkByName("wan")
			must(t, err)
			must(t, netlink.LinkDel(l))
		})
		a.refresh()
		b.refresh()
		if passes(portA, portB) {
			t.Error("frames pass without an underlay")
		}
		wire(t, a.space, "wan", b.space, "wan", 1500)
		address(t, a.space, "wan", "192.0.2.1/24")
		address(t, b.space, "wan", "192.0.2.2/24")
		a.resolve()
		b.resolve()
		if !passes(portA, portB) || !passes(portB, portA) {
			t.Errorf("nothing passes over the new underlay: a %+v, b %+v", a.counters(), b.counters())
		}
	}
}

// The way to the peer changes to another link, whose packets come in there too.
func TestRouteMoves(t *testing.T) {
	a, b := up(t, setting{cookie: 8})
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	wire(t, a.space, "wan2", b.space, "wan2", 1500)
	address(t, a.space, "wan2", "198.51.100.1/24")
	address(t, b.space, "wan2", "198.51.100.2/24")
	move := func(s *site, to string, via net.IP) {
		l := s.link("wan2").Attrs().Index
		s.do(func() {
			dst, err := netlink.ParseIPNet(to)
			must(t, err)
			must(t, netlink.RouteReplace(&netlink.Route{LinkIndex: l, Dst: dst, Gw: via}))
		})
		s.refresh()
	}
	move(a, "192.0.2.2/32", net.IPv4(198, 51, 100, 2))
	move(b, "192.0.2.1/32", net.IPv4(198, 51, 100, 1))
	a.resolve()
	b.resolve()
	if got, want := a.dp.tunnels[tunnelName].path.name, "wan2"; got != want {
		t.Errorf("frames leave over %s, not %s", got, want)
	}
	if !passes(portA, portB) || !passes(portB, portA) {
		t.Errorf("nothing passes over the other link: a %+v, b %+v", a.counters(), b.counters())
	}
}

// The way to the peer is that of the local address, where rules say so (policy routing), and
// follows them.
func TestPolicyRouting(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, b := up(t, setting{cookie: 8, v6: v6})
		portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		wire(t, a.space, "wan2", b.space, "wan2", 1500)
		const table = 100
		rules := map[*site]*netlink.Rule{}
		gateways := map[*site]string{a: "198.51.100.2", b: "198.51.100.1"}
		if v6 {
			gateways = map[*site]string{a: "2001:db8:2::2", b: "2001:db8:2::1"}
		}
		address(t, a.space, "wan2", fmt.Sprintf("%s/%d", gateways[b], a.tunnel.Local.Addr().BitLen()*3/4))
		address(t, b.space, "wan2", fmt.Sprintf("%s/%d", gateways[a], a.tunnel.Local.Addr().BitLen()*3/4))
		for _, s := range []*site{a, b} {
			from := s.tunnel.Local.Addr()
			rule := netlink.NewRule()
			rule.Table, rule.Family = table, netlink.FAMILY_V4
			if v6 {
				rule.Family = netlink.FAMILY_V6
			}
			var err error
			rule.Src, err = netlink.ParseIPNet(fmt.Sprintf("%v/%d", from, from.BitLen()))
			must(t, err)
			rules[s] = rule
			remote := s.tunnel.Remote.Addr()
			s.do(func() {
				dst, err := netlink.ParseIPNet(fmt.Sprintf("%v/%d", remote, remote.BitLen()))
				must(t, err)
				must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: index(t, "wan2"), Dst: dst, Table: table, Gw: net.ParseIP(gateways[s])}))
			})
		}
		over := func(want string, change func(*netlink.Rule) error) {
			t.Helper()
			for s, rule := range rules {
				s.do(func() { must(t, change(rule)) })
			}
			for s := range rules {
				s.resolve()
				if got := s.dp.tunnels[tunnelName].path.name; got != want {
					t.Errorf("IPv6 %v: frames leave over %s, not %s", v6, got, want)
				}
			}
			if !passes(portA, portB) || !passes(portB, portA) {
				t.Errorf("IPv6 %v: nothing passes over %s: a %+v, b %+v", v6, want, a.counters(), b.counters())
			}
		}
		over("wan2", netlink.RuleAdd)
		over("wan", netlink.RuleDel)
	}
}

// What a router says of the path is believed down to what every path carries.
func TestForgedPathMTU(t *testing.T) {
	a, _ := up(t, setting{cookie: 8, router: 1000})
	pump(t, a)
	port := openPort(t, a.host, "eth0")
	remote := a.tunnel.Remote.Addr().AsSlice()
	a.eventually("the router was not heard", func() bool {
		port.send(shapes[0].frame(newRand(), 1300))
		routes, err := a.dp.nl.RouteGet(remote)
		must(t, err)
		return len(routes) > 0 && routes[0].MTU == 1000
	})
	a.do(func() {
		must(t, a.dp.Refresh())
		if got := a.dp.tunnels[tunnelName].path.mtu.Heard; got != underlay.LeastMTU {
			t.Errorf("the path's MTU is taken to be %d, want %d", got, underlay.LeastMTU)
		}
	})
}

// Whoever forges what routers say of a path shortens the packets of pseudowires that believe them, and of no others:
// these are as long as the link takes and the route allows. What is longer leaves in fragments, or not at all.
func TestForgedICMP(t *testing.T) {
	const size = 1400
	for _, over := range []setting{{}, {v6: true}, {ip: true}, {v6: true, ip: true}} {
		t.Run(fmt.Sprintf("IPv6 %v, IP %v", over.v6, over.ip), func(t *testing.T) {
			over.cookie = 8
			a, tap := upAgainstTap(t, over, nil)
			pump(t, a)
			port := openPort(t, a.host, "eth0")
			local, remote := a.tunnel.Local.Addr(), a.tunnel.Remote.Addr()
			whole := size + pseudowire.Overhead(&a.tunnel, &a.session)
			// leaves is the first packet that a frame leaves in.
			leaves := func() int {
				for tap.receiveFrom([6]byte(tap.near)) != nil {
				}
				port.send(shapes[0].frame(newRand(), size+ethernetLen))
				for {
					switch b := tap.receiveFrom([6]byte(tap.near)); {
					case b == nil:
						t.Fatal("nothing leaves")
					case len(b) > size/3:
						return len(b) - ethernetLen
					}
				}
			}
			expect := func(what string, longest, mtu int) {
				t.Helper()
				if got := leaves(); longest == whole && got != whole || longest != whole && got > longest {
					t.Errorf("%s: the first packet is of %d octets, want %d", what, got, longest)
				}
				if got, _, _ := a.outer(); got != mtu {
					t.Errorf("%s: the program has an MTU of %d, want %d", what, got, mtu)
				}
			}
			set := func(change func(*pseudowire.Pseudowire)) {
				t.Helper()
				change(&a.pw)
				a.do(func() { must(t, a.dp.SetPseudowire(a.pw)) })
				a.refresh()
			}
			forge := func() {
				t.Helper()
				said, protocol := uint16(600), byte(unix.IPPROTO_ICMP)
				if over.v6 {
					said, protocol = underlay.LeastMTU, unix.IPPROTO_ICMPV6
				}
				a.eventually("what was forged is not believed", func() bool {
					tap.host.do(func() {
						must(t, netlab.SendTooBig(remote, protocol, netip.AddrPortFrom(local, 0), netip.AddrPortFrom(remote, 0), said))
					})
					routes, err := a.dp.nl.RouteGet(remote.AsSlice())
					must(t, err)
					return len(routes) > 0 && routes[0].MTU == int(said)
				})
				a.refresh()
			}
			expect("as the link is", whole, 1500)
			forge()
			expect("forged", underlay.LeastMTU, underlay.LeastMTU)
			set(func(p *pseudowire.Pseudowire) { p.IgnoreICMP = true })
			expect("not heeded", whole, 1500)

			// The route's own MTU is no message of a router's.
			a.do(func() {
				must(t, netlink.RouteReplace(&netlink.Route{
					LinkIndex: index(t, "wan"), Scope: netlink.SCOPE_LINK, MTU: 1350,
					Dst: &net.IPNet{IP: remote.AsSlice(), Mask: net.CIDRMask(remote.BitLen(), remote.BitLen())},
				}))
			})
			a.refresh()
			expect("the route has an MTU", 1350, 1350)
			forge()
			expect("and forged again", 1350, 1350)
			set(func(p *pseudowire.Pseudowire) { p.IgnoreICMP = false })
			expect("and heeded", underlay.LeastMTU, underlay.LeastMTU)
		})
	}
}

// A route that prohibits the way to the peer is as none: nothing else fails for it.
func TestProhibitedRoute(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, _ := upAgainstTap(t, setting{v6: v6}, nil)
		remote := a.tunnel.Remote.Addr()
		a.do(func() {
			dst := &net.IPNet{IP: remote.AsSlice(), Mask: net.CIDRMask(remote.BitLen(), remote.BitLen())}
			must(t, netlink.RouteAdd(&netlink.Route{Type: unix.RTN_PROHIBIT, Dst: dst, Priority: 1}))
			if err := a.dp.Refresh(); err != nil {
				t.Errorf("IPv6 %v: %v", v6, err)
			}
			if got := a.dp.tunnels[tunnelName].path; got.resolved() {
				t.Errorf("IPv6 %v: a way is known: %+v", v6, got)
			}
		})
	}
}

// A router on the way has a smaller MTU. The packets that do not fit are lost, but
// what the router says of them reaches the tunnel's socket, and from then on they
// leave in fragments.
func TestPathMTU(t *testing.T) {
	for _, over := range []setting{{}, {v6: true}, {ip: true}, {v6: true, ip: true}} {
		over.cookie, over.router = 8, 1300
		v6 := over.v6
		a, b := up(t, over)
		pump(t, a)
		pump(t, b)
		portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		frame := shapes[0].frame(newRand(), 1400)
		portA.send(frame)
		a.eventually("the MTU of the path was not found", func() bool {
			must(t, a.dp.Refresh())
			return a.dp.tunnels[tunnelName].path.mtu.Heard == 1300
		})
		for portB.receiveNow() != nil {
		}
		portA.send(frame)
		if got := portB.receive(); !bytes.Equal(got, frame) {
			t.Errorf("IPv6 %v, after the MTU was found: %s", v6, firstDifference(got, frame))
		}
		if !passes(portB, portA) {
			t.Errorf("IPv6 %v: nothing comes back", v6)
		}
	}
}
