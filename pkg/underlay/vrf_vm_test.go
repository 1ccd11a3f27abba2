//go:build vm

package underlay

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
)

// Whose interface is in no VRF is in none, whatever other interfaces have it as well; else it is the first one's.
func TestVRFOf(t *testing.T) {
	lab := netlab.New(t)
	ns, far := lab.Namespace("one"), lab.Namespace("two")
	nl := ns.Netlink()
	blue := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "blue"}, Table: 77}
	red := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "red"}, Table: 78}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	for _, l := range []netlink.Link{blue, red, bridge} {
		if err := nl.LinkAdd(l); err != nil {
			t.Fatalf("make %s: %v", l.Attrs().Name, err)
		}
	}
	for _, c := range []struct {
		name, in string
		addrs    []string
	}{
		{"a", "blue", []string{"192.0.2.1/24", "2001:db8::1/64", "192.0.2.9/24"}},
		{"b", "red", []string{"192.0.2.2/24", "192.0.2.1/24"}},
		{"c", "br0", []string{"198.51.100.1/24"}},
		{"d", "", []string{"203.0.113.1/24", "192.0.2.9/24", "192.0.2.77/32"}},
	} {
		near, other := lab.Veth(ns, c.name, far, c.name)
		for _, a := range c.addrs {
			near.Addr(a)
		}
		near.Up()
		other.Up()
		if c.in == "" {
			continue
		}
		master, err := nl.LinkByName(c.in)
		if err != nil {
			t.Fatal(err)
		}
		port, err := nl.LinkByName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := nl.LinkSetMaster(port, master); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.2", "red"}, {"::ffff:192.0.2.2", "red"},
		{"192.0.2.1", "blue"},
		{"192.0.2.9", ""},
		{"198.51.100.1", ""}, {"203.0.113.1", ""},
		{"192.0.2.200", ""}, {"127.0.0.1", ""}, {"::1", ""}, {"fe80::1%a", ""},
	} {
		if got, err := VRFOf(nl, netip.MustParseAddr(c.addr)); err != nil || got.Name != c.want || (got.Index != 0) != (c.want != "") {
			t.Errorf("%s is in %+v, %v; want %q", c.addr, got, err, c.want)
		}
	}
}
