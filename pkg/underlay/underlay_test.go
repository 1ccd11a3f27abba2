package underlay

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// What the link takes and the route allows is given; without a way, or with one that is not to be taken, there is none.
func TestPathMTU(t *testing.T) {
	lab := netlab.New(t)
	ns, far := lab.Namespace("one"), lab.Namespace("two")
	wan, other := lab.Veth(ns, "wan0", far, "wan0")
	wan.MTU(1400).Addr("192.0.2.1/24").Up()
	other.Up()
	local, remote := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	dst := &net.IPNet{IP: remote.AsSlice(), Mask: net.CIDRMask(32, 32)}
	via := net.IPv4(192, 0, 2, 2)
	for _, c := range []struct {
		name  string
		route *netlink.Route
		want  MTU
		link  int
	}{
		{"no route", nil, MTU{}, 0},
		{"a route", &netlink.Route{Dst: dst, Gw: via}, MTU{1400, 1400}, 1400},
		{"one with an MTU of its own", &netlink.Route{Dst: dst, Gw: via, MTU: 1300}, MTU{1300, 1300}, 1400},
		{"one with a small one", &netlink.Route{Dst: dst, Gw: via, MTU: 1000}, MTU{1000, 1000}, 1400},
		{"one that prohibits", &netlink.Route{Dst: dst, Type: unix.RTN_PROHIBIT}, MTU{}, 0},
		{"one that says unreachable", &netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE}, MTU{}, 0},
		{"one that swallows", &netlink.Route{Dst: dst, Type: unix.RTN_BLACKHOLE}, MTU{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ns.Do(func() error {
				nl := ns.Netlink()
				if c.route != nil {
					if err := nl.RouteAdd(c.route); err != nil {
						return err
					}
					defer nl.RouteDel(c.route)
				}
				got, link, err := PathMTU(nl, local, remote)
				if got != c.want || link != c.link {
					t.Errorf("%+v over a link of %d, want %+v, %d", got, link, c.want, c.link)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
