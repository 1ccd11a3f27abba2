package mssclamp

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// bare is a datapath whose devices are there already.
type bare struct{ pseudowire.Datapath }

func (bare) SetPseudowire(pseudowire.Pseudowire) error { return nil }
func (bare) RemovePseudowires(...string) error         { return nil }
func (bare) SetTunnel(pseudowire.Tunnel) error         { return nil }
func (bare) RemoveTunnel(string) error                 { return nil }
func (bare) SetSession(pseudowire.Session) error       { return nil }
func (bare) RemoveSession(uint32) error                { return nil }
func (bare) Refresh() error                            { return nil }
func (bare) Close() error                              { return nil }

// numbered is one that knows the numbers of its devices.
type numbered struct {
	bare
	device int
}

func (n *numbered) DeviceIndex(string) (int, bool) { return n.device, true }

// The datapath below knows which device is which: it is asked, and not the kernel, and a device that was made
// anew is clamped, too.
func TestDevicesAreNotLookedUp(t *testing.T) {
	lab := netlab.New(t)
	one := lab.Namespace("one")
	below := new(numbered)
	var d *Datapath
	do := func(f func() error) {
		t.Helper()
		if err := one.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	do(func() (err error) { d, err = Wrap(below, Options{}); return err })
	defer d.Close()
	tunnel := pseudowire.Tunnel{Name: "gold/dc2", Local: netip.MustParseAddrPort("127.0.0.1:1701"), Remote: netip.MustParseAddrPort("127.0.0.1:1702")}
	for _, name := range []string{"pw-a", "pw-b"} {
		lab.Veth(one, name, one, "far-"+name)
		link, err := one.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		below.device = link.Attrs().Index
		do(func() error {
			return errors.Join(d.SetPseudowire(pseudowire.Pseudowire{Name: "lan", Device: "pw-lan"}), d.SetTunnel(tunnel),
				d.SetSession(pseudowire.Session{Tunnel: "gold/dc2", Pseudowire: "lan", LocalID: 7}), d.Refresh())
		})
		if keys, err := d.clamp.Rooms.Keys(); err != nil || len(keys) != 1 || int(keys[0]) != below.device {
			t.Errorf("%s: devices %v, %v, want %d", name, keys, err, below.device)
		}
		if filters, err := one.Netlink().FilterList(link, netlink.HANDLE_MIN_INGRESS); err != nil || len(filters) != 1 {
			t.Errorf("%s: filters %v, %v", name, filters, err)
		}
	}
	if n := d.devices.Asked(); n != 0 {
		t.Errorf("%d devices were looked up", n)
	}
}

// A device is clamped to what the way to the peer carries, at both hooks, for as long as
// its session is there.
func TestDevicesAreClamped(t *testing.T) {
	lab := netlab.New(t)
	one, two := lab.Namespace("one"), lab.Namespace("two")
	wan, far := lab.Veth(one, "wan0", two, "wan0")
	wan.Addr("192.0.2.1/24").Up()
	far.Up()
	lab.Veth(one, "pw-lan", two, "pw-lan")
	var d *Datapath
	do := func(what string, f func() error) {
		t.Helper()
		if err := one.Do(f); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	do("wrap", func() (err error) { d, err = Wrap(bare{}, Options{}); return err })
	defer d.Close()
	link, err := one.Netlink().LinkByName("pw-lan")
	if err != nil {
		t.Fatal(err)
	}
	device := uint32(link.Attrs().Index)
	rooms := func() map[uint32]uint32 {
		t.Helper()
		keys, err := d.clamp.Rooms.Keys()
		if err != nil {
			t.Fatal(err)
		}
		all := map[uint32]uint32{}
		for _, k := range keys {
			if all[k], err = d.clamp.Rooms.Get(k); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	expect := func(what string, room uint32) {
		t.Helper()
		got := rooms()
		if room == 0 && len(got) != 0 || room != 0 && (len(got) != 1 || got[device] != room) {
			t.Errorf("%s: %v, want %d for device %d", what, got, room, device)
		}
	}
	session := pseudowire.Session{Tunnel: "gold/dc2", Pseudowire: "lan", LocalID: 7, RemoteID: 8, RemoteCookie: make([]byte, 8)}
	tunnel := pseudowire.Tunnel{
		Name: "gold/dc2", Encapsulation: l2tpv3.UDP,
		Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("192.0.2.2:1701"),
	}
	do("set", func() error {
		if err := d.SetPseudowire(pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", MTU: 1500}); err != nil {
			return err
		}
		if err := d.SetTunnel(tunnel); err != nil {
			return err
		}
		return d.SetSession(session)
	})
	expect("over 1500 octets", 1500-20-8-8-8-14)
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := one.Netlink().FilterList(link, parent)
		if err != nil || len(filters) != 1 || filters[0].(*netlink.BpfFilter).Name != filterName {
			t.Errorf("filters at %x: %v, %v", parent, filters, err)
		}
	}
	wan.MTU(1400)
	do("refresh", d.Refresh)
	expect("over 1400 octets", 1400-20-8-8-8-14)
	wan.MTU(1390)
	do("look at the ways", d.RefreshWays)
	expect("over 1390 octets", 1390-20-8-8-8-14)
	wan.MTU(1400)
	do("look at the ways again", d.RefreshWays)
	expect("over 1400 octets again", 1400-20-8-8-8-14)
	tunnel.PathMTU = 1350
	do("set what gets through", func() error { return d.SetTunnel(tunnel) })
	expect("1350 octets get through", 1350-20-8-8-8-14)
	tunnel.PathMTU = 0
	do("set that all does", func() error { return d.SetTunnel(tunnel) })
	expect("1400 octets get through", 1400-20-8-8-8-14)
	do("set MTU", func() error {
		return d.SetPseudowire(pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", MTU: 1300})
	})
	expect("a device of 1300 octets", 1300)
	tunnel.Encapsulation = l2tpv3.IP
	session.LocalID = 9
	do("another session takes the device over", func() error {
		if err := d.SetTunnel(tunnel); err != nil {
			return err
		}
		return d.SetSession(session)
	})
	expect("after another session", 1300)
	do("remove", func() error { return d.RemoveSession(9) })
	expect("without a session", 0)
}
