package underlay

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
)

// An address of an interface that is in no VRF, be it in a bridge, or of none, is in none.
func TestInNoVRF(t *testing.T) {
	lab := netlab.New(t)
	ns, far := lab.Namespace("one"), lab.Namespace("two")
	nl := ns.Netlink()
	near, other := lab.Veth(ns, "a", far, "a")
	near.Addr("192.0.2.1/24").Addr("2001:db8::1/64").Up()
	other.Up()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := nl.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	port, err := nl.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := nl.LinkSetMaster(port, bridge); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "127.0.0.1", "::1", "192.0.2.9", "fe80::1%a"} {
		if v, err := VRFOf(nl, netip.MustParseAddr(addr)); err != nil || v != (VRF{}) {
			t.Errorf("%s is in %v, %v", addr, v, err)
		}
	}
}
