package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// TestBridge: a bridge is made, its ports come in, the device too; then all goes
// and the interfaces are as they were.
func TestBridge(t *testing.T) {
	s := newSite(t, "eth1", "eth2 down", "eth3")
	s.device("a")
	lan := bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}}
	a := bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"}
	for range 2 { // the second time changes nothing
		s.bridge(lan)
		s.attach(a)
		s.expect("attached", `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth2-down"
		  eth1 up
		  eth2 up
		  pw-a up
		eth3 up
		`)
	}
	s.do(s.Refresh)
	s.do(s.Prune)

	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth3", "eth1"}})
	s.expect("other ports", `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth3"
		  eth1 up
		  eth3 up
		  pw-a up
		eth2 down
		`)
	s.do(func() error { return s.RemoveAttachment("a") })
	s.do(func() error { return s.RemoveAttachment("a") })
	s.expect("detached", `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth3"
		  eth1 up
		  eth3 up
		eth2 down
		pw-a up
		`)
	s.bridge(lan)
	s.attach(a)
	s.do(func() error { return s.RemoveBridge("br-lan") })
	s.do(func() error { return s.RemoveBridge("br-lan") })
	s.expect("bridge removed", `
		eth1 up
		eth2 down
		eth3 up
		pw-a up
		`)
}

// TestInterface: a whole interface has a private bridge that passes link-local groups too.
func TestInterface(t *testing.T) {
	s := newSite(t, "eth2 down", "enp130s0f1np1")
	s.device("a", "b")
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "enp130s0f1np1"})
	both := `
		pwb-enp130-YYYY up "pwd:bridge:pwb-enp130-YYYY uses=enp130s0f1np1"
		  enp130s0f1np1 up forward=0xfffd
		  pw-b up forward=0xfffd
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2-down"
		  eth2 up forward=0xfffd
		  pw-a up forward=0xfffd
		`
	s.expect("attached", strings.ReplaceAll(both, "pwb-enp130-YYYY", bridge.PrivateBridge("enp130s0f1np1")))
	s.do(func() error { return s.RemoveAttachment("a") })
	s.do(func() error { return s.RemoveAttachment("b") })
	s.expect("removed", `
		enp130s0f1np1 up
		eth2 down
		pw-a up
		pw-b up
		`)
}

// TestMoves: one attachment goes from place to place by SetAttachment alone, and
// nothing of the place before stays.
func TestMoves(t *testing.T) {
	s := newSite(t, "eth1", "eth2 down")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-one", Ports: []string{"eth1"}})
	s.bridge(bridge.Bridge{Name: "br-two"})
	s.do(s.Prune)
	a := bridge.Attachment{Pseudowire: "a", Device: "pw-a"}

	a.Bridge = "br-one"
	s.attach(a)
	a.Bridge = "br-two"
	s.attach(a)
	s.expect("on another bridge", `
		br-one up "pwd:bridge:br-one uses=eth1"
		  eth1 up
		br-two up "pwd:bridge:br-two"
		  pw-a up
		eth2 down
		pw-b down
		`)
	a.Bridge, a.Interface = "", "eth2"
	s.attach(a)
	s.expect("on an interface", `
		br-one up "pwd:bridge:br-one uses=eth1"
		  eth1 up
		br-two up "pwd:bridge:br-two"
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2-down"
		  eth2 up forward=0xfffd
		  pw-a up forward=0xfffd
		pw-b down
		`)
	a.Device = "pw-b"
	s.attach(a)
	s.expect("with another device", `
		br-one up "pwd:bridge:br-one uses=eth1"
		  eth1 up
		br-two up "pwd:bridge:br-two"
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2-down"
		  eth2 up forward=0xfffd
		  pw-b up forward=0xfffd
		pw-a up
		`)

	// The interface becomes a bridge's port before the attachment has left it.
	s.bridge(bridge.Bridge{Name: "br-two", Ports: []string{"eth2"}})
	a.Bridge, a.Interface = "br-two", ""
	s.attach(a)
	s.expect("its interface in a bridge", `
		br-one up "pwd:bridge:br-one uses=eth1"
		  eth1 up
		br-two up "pwd:bridge:br-two uses=eth2-down"
		  eth2 up
		  pw-b up
		pw-a up
		`)
	// Ports change places, in the order of the bridges' names.
	s.bridge(bridge.Bridge{Name: "br-one", Ports: []string{"eth2"}})
	s.bridge(bridge.Bridge{Name: "br-two", Ports: []string{"eth1"}})
	s.do(s.Refresh)
	s.expect("ports exchanged", `
		br-one up "pwd:bridge:br-one uses=eth2-down"
		  eth2 up
		br-two up "pwd:bridge:br-two uses=eth1"
		  eth1 up
		  pw-b up
		pw-a up
		`)
}

// TestSharedInterface: pseudowires with VLANs of one interface share its bridge
// where the datapath handles the tags. If the kernel can, the bridge keeps the
// VLANs apart; one that cannot does not learn addresses once it carries two of them.
func TestSharedInterface(t *testing.T) {
	s := newSite(t, "eth2")
	s.device("a", "b", "c")
	s.do(s.Prune)
	can := filtering(t, s)
	expect := func(when, apart, together string) {
		t.Helper()
		if can {
			s.expect(when, apart)
		} else {
			s.expect(when, together)
		}
	}
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2", VLAN: 30, Tagged: true})
	expect("one VLAN", `
		pwb-eth2 up filtering no vlans "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up forward=0xfffd vlans 30
		  pw-a up forward=0xfffd vlans 30
		pw-b down
		pw-c down
		`, `
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up forward=0xfffd
		  pw-a up forward=0xfffd
		pw-b down
		pw-c down
		`)
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth2", VLAN: 31, Tagged: true})
	expect("two VLANs", `
		pwb-eth2 up filtering no vlans "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up forward=0xfffd vlans 30,31
		  pw-a up forward=0xfffd vlans 30
		  pw-b up forward=0xfffd vlans 31
		pw-c down
		`, `
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up no-learning forward=0xfffd
		  pw-a up no-learning forward=0xfffd
		  pw-b up no-learning forward=0xfffd
		pw-c down
		`)
	// A whole interface beside them has everything, so that the bridge cannot filter.
	s.attach(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Interface: "eth2"})
	s.expect("and the whole", `
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up no-learning forward=0xfffd
		  pw-a up no-learning forward=0xfffd
		  pw-b up no-learning forward=0xfffd
		  pw-c up no-learning forward=0xfffd
		`)
	s.do(func() error { return errors.Join(s.RemoveAttachment("c"), s.RemoveAttachment("b")) })
	expect("one again", `
		pwb-eth2 up filtering no vlans "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up forward=0xfffd vlans 30
		  pw-a up forward=0xfffd vlans 30
		pw-b up
		pw-c up
		`, `
		pwb-eth2 up "pwd:bridge:pwb-eth2 uses=eth2"
		  eth2 up forward=0xfffd
		  pw-a up forward=0xfffd
		pw-b up
		pw-c up
		`)
}

// TestTaggedOnPlainBridge: the same on a bridge without VLAN filtering.
func TestTaggedOnPlainBridge(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.Off})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", VLAN: 200, Tagged: true})
	want := `
		br-lan up "pwd:bridge:br-lan uses=eth1"
		  eth1 up no-learning
		  pw-a up no-learning
		  pw-b up no-learning
		`
	s.expect("two VLANs", want)

	// While a restarted daemon has named one of them only, nothing changes.
	s.open()
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.Off})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true})
	s.expect("restarted, one named", want)
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", VLAN: 200, Tagged: true})
	s.expect("restarted, both named", want)
}

// TestStateOfOthers: a datapath whose devices are down while nothing is to be sent finds them as it
// left them. Two that each have their own idea of it would turn them up and down without end.
func TestStateOfOthers(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b")
	s.ns.Link("pw-b").Up()
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", StateOfOthers: true})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", StateOfOthers: true})
	s.do(s.Prune)
	s.do(s.Refresh)
	s.expect("attached, and looked at", `
		br-lan up "pwd:bridge:br-lan uses=eth1"
		  eth1 up
		  pw-a down
		  pw-b up
		`)
}

// TestRestartLosesNothing: frames go through a bridge while daemons come and go;
// each makes the same again, and none is lost.
func TestRestartLosesNothing(t *testing.T) {
	s := newSite(t, "eth1")
	far := s.lab.Namespace("far")
	s.device("a")
	port, end := s.lab.Veth(s.ns, "eth2", far, "lan2")
	port.Up()
	end.Addr("192.0.2.2/24").Up()
	s.lan.Link("lan1").Addr("192.0.2.1/24")
	build := func() error {
		return errors.Join(
			s.SetBridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true}),
			s.Prune(),
		)
	}
	s.do(build)
	for _, name := range []string{"eth1", "eth2"} {
		s.ns.Link(name).Operational()
	}
	flow, err := s.lan.Flow(far, netip.MustParseAddr("192.0.2.2"), netlab.FlowOptions{Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range uint64(20) {
		s.open()
		s.do(build)
		s.do(s.Refresh)
		if err := flow.WaitReceived(ctx, (i+1)*20); err != nil {
			t.Fatal(err)
		}
	}
	result, err := flow.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result)
	if result.Lost() > 0 || result.Received == 0 {
		t.Error("frames were lost")
	}
}

// TestExternal: somebody else's bridge is used, and otherwise left as it is.
func TestExternal(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a")
	s.ns.Bridge("br0", s.ns.Link("eth1"))
	s.bridge(bridge.Bridge{Name: "br0", External: true})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br0"})
	with, without := `
		br0 up snooping
		  eth1 up
		  pw-a up
		`, `
		br0 up snooping
		  eth1 up
		pw-a up
		`
	s.expect("attached", with)
	s.do(s.Prune)
	s.expect("pruned", with)
	s.do(func() error { return s.RemoveBridge("br0") })
	s.expect("removed", without)
	s.bridge(bridge.Bridge{Name: "br0", External: true})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br0"})
	s.do(s.Cleanup)
	s.expect("cleaned up", without)

	// A bridge of ours that is declared external becomes the user's.
	s.open()
	s.bridge(bridge.Bridge{Name: "br1"})
	s.bridge(bridge.Bridge{Name: "br1", External: true})
	s.do(s.Cleanup)
	s.expect("handed over", without[:1]+`		br0 up snooping
		  eth1 up
		br1 up
		pw-a up
		`)
}

// TestRefusals: each mistake has its own error, and leaves things as they are.
func TestRefusals(t *testing.T) {
	s := newSite(t, "eth1", "eth2", "eth3")
	s.device("a")
	s.ns.Bridge("br0", s.ns.Link("eth3"))
	s.lab.Veth(s.ns, "br-veth", s.lan, "veth")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.Off})
	s.expect("before", before)

	var (
		notPresent  *bridge.NotPresentError
		notOurs     *bridge.NotOursError
		enslaved    *bridge.EnslavedError
		unsupported *bridge.UnsupportedError
		invalid     *bridge.InvalidError
	)
	a := func(c bridge.Attachment) func() error {
		if c.Pseudowire == "" {
			c.Pseudowire, c.Device = "a", "pw-a"
		}
		return func() error { return errors.Join(s.SetAttachment(c), s.RemoveAttachment(c.Pseudowire)) }
	}
	b := func(b bridge.Bridge) func() error {
		return func() error {
			err := s.SetBridge(b)
			if b.Name == "br-lan" {
				return errors.Join(err, s.SetBridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.Off}))
			}
			return errors.Join(err, s.RemoveBridge(b.Name))
		}
	}
	for _, c := range []struct {
		name   string
		do     func() error
		target any
		want   string
	}{
		{"missing port", b(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth9"}, VLANAware: bridge.Off}), &notPresent,
			"bridge: interface eth9, wanted by bridge br-lan, is not there; it is used when it appears"},
		{"missing external bridge", b(bridge.Bridge{Name: "br9", External: true}), &notPresent,
			"bridge: interface br9, wanted by bridge br9, is not there; it is used when it appears"},
		{"missing interface", a(bridge.Attachment{Interface: "eth9"}), &notPresent,
			"bridge: interface eth9, wanted by bridge pwb-eth9, is not there; it is used when it appears"},
		{"missing device", a(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Bridge: "br-lan"}), &notPresent,
			"bridge: interface pw-c, wanted by pseudowire c, is not there; it is used when it appears"},
		{"somebody's bridge", b(bridge.Bridge{Name: "br0"}), &notOurs,
			"bridge: bridge br0 exists and was not made by this daemon; mark it `external: true` to use it, or remove it"},
		{"no bridge at all", b(bridge.Bridge{Name: "br-veth"}), &notOurs,
			"bridge: br-veth is to be made as a bridge, and a veth of that name exists that was not made by this daemon; rename or remove it"},
		{"external and no bridge", b(bridge.Bridge{Name: "eth2", External: true}), &invalid,
			"bridge: bridge eth2: the interface of that name is no bridge but a veth"},
		{"somebody's port", b(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth3"}, VLANAware: bridge.Off}), &enslaved,
			"bridge: interface eth3, wanted by bridge br-lan, is a port of br0; take it out there, or attach to br0 instead"},
		{"somebody's port attached", a(bridge.Attachment{Interface: "eth3"}), &enslaved,
			"bridge: interface eth3, wanted by bridge pwb-eth3, is a port of br0; take it out there, or attach to br0 instead"},
		{"our own bridge's port attached", a(bridge.Attachment{Interface: "eth1"}), &invalid,
			"bridge: pseudowire a: interface eth1 is a port of br-lan; attach to that bridge"},
		{"a bridge as port", b(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "br0"}, VLANAware: bridge.Off}), &invalid,
			"bridge: bridge br-lan: a bridge cannot be a port: br0"},
		{"external with ports", b(bridge.Bridge{Name: "br0", External: true, Ports: []string{"eth2"}}), &invalid,
			"bridge: bridge br0: ports of an external bridge are its owner's; leave them out"},
		{"external and aware", b(bridge.Bridge{Name: "br0", External: true, VLANAware: bridge.On}), &invalid,
			"bridge: bridge br0: VLAN filtering of an external bridge is its owner's; leave vlan-aware out"},
		{"no name", b(bridge.Bridge{}), &invalid,
			"bridge: bridge : a bridge's name has 1 to 15 octets"},
		{"unknown bridge", a(bridge.Attachment{Bridge: "br-x"}), &invalid,
			"bridge: pseudowire a: bridge br-x is not set"},
		{"nothing attached to", a(bridge.Attachment{}), &invalid,
			"bridge: pseudowire a: an attachment is to a bridge or to an interface"},
		{"VLAN 4095", a(bridge.Attachment{Bridge: "br-lan", VLAN: 4095}), &invalid,
			"bridge: pseudowire a: VLAN 4095; there are 1 to 4094"},
		{"tagged with nothing", a(bridge.Attachment{Bridge: "br-lan", Tagged: true}), &invalid,
			"bridge: pseudowire a: tagged without a VLAN"},
		{"VLAN on an external bridge without filtering", func() error {
			return errors.Join(s.SetBridge(bridge.Bridge{Name: "br0", External: true}),
				a(bridge.Attachment{Bridge: "br0", VLAN: 100})(), s.RemoveBridge("br0"))
		}, &unsupported, ""},
		{"VLAN on a bridge that must not filter", a(bridge.Attachment{Bridge: "br-lan", VLAN: 100}), &unsupported, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.in(c.do)
			if !errors.As(err, c.target) {
				t.Fatalf("%T %v, want %T", err, err, c.target)
			}
			if c.want != "" && err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			t.Log(err)
		})
	}
	s.expect("after all", strings.ReplaceAll(before, "pw-a down", "pw-a up"))
}

const before = `
		br-lan up "pwd:bridge:br-lan uses=eth1"
		  eth1 up
		br0 up snooping
		  eth3 up
		br-veth down
		eth2 up
		pw-a down
		`

// TestRetry: what was missing is used when it has come, in any order.
func TestRetry(t *testing.T) {
	s := newSite(t)
	var missing *bridge.NotPresentError
	fails := func(name string, f func() error) {
		t.Helper()
		if err := s.in(f); !bridge.NotPresent(err) || !errors.As(err, &missing) || missing.Interface != name {
			t.Fatalf("%v, want %s missing", err, name)
		}
	}
	lan := bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}}
	a := bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"}
	fails("eth1", func() error { return s.SetBridge(lan) })
	fails("pw-a", func() error { return s.SetAttachment(a) })
	s.device("a")
	s.attach(a) // is not about the port
	s.lab.Veth(s.ns, "eth1", s.lan, "lan1")
	s.do(s.Refresh)
	want := `
		br-lan up "pwd:bridge:br-lan uses=eth1-down"
		  eth1 up
		  pw-a up
		`
	s.expect("all there", want)

	// The device goes and comes back, as the kernel datapath's does with its session.
	s.ns.Link("pw-a").Delete()
	fails("pw-a", func() error { return s.SetAttachment(a) })
	fails("pw-a", s.Refresh)
	s.bridge(lan) // is not about the device
	s.device("a")
	s.attach(a)
	s.expect("device back", want)

	// So does the interface, and the bridge itself.
	s.ns.Link("eth1").Delete()
	fails("eth1", s.Refresh)
	s.expect("interface gone", `
		br-lan up "pwd:bridge:br-lan"
		  pw-a up
		`)
	s.lab.Veth(s.ns, "eth1", s.lan, "lan1")
	s.do(s.Refresh)
	s.expect("interface back", want)
	s.ns.Link("br-lan").Delete()
	s.do(s.Refresh)
	s.expect("bridge back", strings.ReplaceAll(want, "eth1-down", "eth1"))
	s.ns.Link("pw-a").Master(s.ns.Bridge("br-x"))
	s.attach(a)
	s.ns.Link("br-x").Delete()
	s.expect("taken back", strings.ReplaceAll(want, "eth1-down", "eth1"))
}

// TestOwnerTakesDown: an interface or a bridge that somebody took down stays so.
func TestOwnerTakesDown(t *testing.T) {
	s := newSite(t, "eth1", "eth2 down")
	s.device("a")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	for _, name := range []string{"br-lan", "eth1", "eth2"} {
		s.ns.Link(name).Down()
	}
	want := `
		br-lan down "pwd:bridge:br-lan uses=eth1,eth2-down"
		  eth1 down
		  eth2 down
		  pw-a up
		`
	s.do(s.Refresh)
	s.expect("refreshed", want)
	s.open()
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}})
	s.do(s.Refresh)
	s.expect("restarted", want)
}

// TestPrune: what a run before left and this one does not name goes; the rest,
// and what is not ours, stays.
func TestPrune(t *testing.T) {
	s := newSite(t, "eth1 down", "eth2 down", "eth3 down")
	s.device("a", "b")
	s.ns.Bridge("br0")
	s.bridge(bridge.Bridge{Name: "br-old", Ports: []string{"eth1"}})
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth3"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})

	s.open()
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth3"}})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})
	s.do(s.Prune)
	s.expect("pruned", `
		br-lan up "pwd:bridge:br-lan uses=eth3-down"
		  eth3 up
		  pw-b up
		br0 up snooping
		eth1 down
		eth2 down
		pw-a up
		`)
	s.do(s.Cleanup)
	s.expect("cleaned up", `
		br0 up snooping
		eth1 down
		eth2 down
		eth3 down
		pw-a up
		pw-b up
		`)
}

// TestState: what is told of attachment circuits.
func TestState(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.device("a", "b", "c")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.bridge(bridge.Bridge{Name: "br-none"})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth2"})
	s.attach(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Bridge: "br-none"})
	s.ns.Link("eth1").Operational()
	s.ns.Link("eth2").Operational()

	expect := func(when string, want map[string]string) {
		t.Helper()
		var got map[string]bridge.State
		s.do(func() error { got = s.AttachmentStates(); return nil })
		for name, reason := range want {
			if g := got[name]; g.Up != (reason == "") || g.Reason != reason {
				t.Errorf("%s: %s is %v, %q; want %q", when, name, g.Up, g.Reason, reason)
			}
			up, r := s.AttachmentState(name)
			if up != got[name].Up || r != got[name].Reason {
				t.Errorf("%s: AttachmentState says %v %q", when, up, r)
			}
		}
	}
	const up = ""
	expect("at first", map[string]string{"a": up, "b": up, "c": up})
	s.lan.Link("lan1").Down()
	s.lan.Link("lan2").Down()
	expect("cables out", map[string]string{"a": "no port of bridge br-lan has a carrier", "b": "interface eth2 has no carrier"})
	s.ns.Link("br-lan").Addr("192.0.2.1/24")
	expect("an address on the bridge", map[string]string{"a": up})
	s.ns.Link("br-lan").Down()
	s.ns.Link("br-none").Down()
	s.ns.Link("eth2").Down()
	expect("all down", map[string]string{"a": "bridge br-lan is down", "b": "interface eth2 is down", "c": "bridge br-none is down"})
	s.ns.Link("eth2").Delete()
	s.ns.Link("br-lan").Delete()
	expect("gone", map[string]string{"a": "bridge br-lan is not there", "b": "interface eth2 is not there"})
	if up, reason := s.AttachmentState("x"); up || reason != "it is not attached" {
		t.Errorf("unknown: %v %q", up, reason)
	}
}

// TestMany: a thousand pseudowires on one bridge, and what is told when it is full.
func TestMany(t *testing.T) {
	s := newSite(t)
	s.bridge(bridge.Bridge{Name: "br-lan"})
	s.do(s.Prune)
	const most = 1023
	for i := range most + 1 {
		link := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: fmt.Sprintf("pwo-%d", i)}
		link.Name = fmt.Sprintf("pw-%d", i)
		if err := s.ns.Netlink().LinkAdd(link); err != nil {
			t.Fatal(err)
		}
	}
	attach := func(i int) error {
		return s.SetAttachment(bridge.Attachment{Pseudowire: fmt.Sprint(i), Device: fmt.Sprintf("pw-%d", i), Bridge: "br-lan"})
	}
	all := func() error {
		for i := range most {
			if err := attach(i); err != nil {
				return err
			}
		}
		return nil
	}
	began := time.Now()
	s.do(all)
	made := time.Now()
	s.do(all)
	t.Logf("attached in %v, again in %v", made.Sub(began), time.Since(made))
	var full *bridge.UnsupportedError
	if err := s.in(func() error { return attach(most) }); !errors.As(err, &full) {
		t.Errorf("one too many: %v", err)
	}
	if states := s.AttachmentStates(); len(states) != most+1 || !states["0"].Up {
		t.Errorf("%d states, %v", len(states), states["0"])
	}
}

// TestManyAtOnce: what it takes to look at many attachments does not grow with their number, and one that
// somebody has changed is mended all the same. To remove them takes one change each.
func TestManyAtOnce(t *testing.T) {
	const many = 30
	s := newSite(t, "eth1")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	var names []string
	for i := range many {
		name := fmt.Sprint(i)
		names = append(names, name)
		s.device(name)
		s.attach(bridge.Attachment{Pseudowire: name, Device: "pw-" + name, Bridge: "br-lan"})
	}
	s.do(s.Prune)
	asked := func(do func() error) int {
		t.Helper()
		before := s.Asked()
		s.do(do)
		return s.Asked() - before
	}
	if n := asked(s.Refresh); n > 5 {
		t.Errorf("to look at %d took %d requests", many, n)
	}
	strayed, err := s.ns.Netlink().LinkByName("pw-7")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Netlink().LinkSetNoMaster(strayed); err != nil {
		t.Fatal(err)
	}
	if n := asked(s.Refresh); n > 15 {
		t.Errorf("to mend one of %d took %d requests", many, n)
	}
	s.do(func() error {
		for _, r := range s.Repairs() {
			if r.Object != "pseudowire 7" {
				t.Errorf("repaired: %+v", r)
			}
		}
		br, err := s.ns.Netlink().LinkByName("br-lan")
		if err != nil {
			return err
		}
		all, err := s.ns.Netlink().LinkList()
		in := 0
		for _, l := range all {
			if l.Attrs().MasterIndex == br.Attrs().Index {
				in++
			}
		}
		if in != many+1 {
			t.Errorf("%d ports, not %d", in, many+1)
		}
		return err
	})
	if n := asked(func() error { return s.RemoveAttachment(names...) }); n > many+5 {
		t.Errorf("to remove %d took %d requests", many, n)
	}
	if states := s.AttachmentStates(); len(states) != 0 {
		t.Errorf("attached: %v", states)
	}
}

// TestManyBridges: what it takes to tell how many bridges are does not grow with their number, whether nothing
// is in them but pseudowires, or ports without a carrier.
func TestManyBridges(t *testing.T) {
	const many, ported = 20, 4
	var ports []string
	for i := range ported {
		ports = append(ports, fmt.Sprintf("eth%d", i+1))
	}
	s := newSite(t, ports...)
	for i := range many {
		name := fmt.Sprint(i)
		b := bridge.Bridge{Name: "br-" + name}
		if i < ported {
			b.Ports = ports[i : i+1]
		}
		s.bridge(b)
		s.device(name)
		s.attach(bridge.Attachment{Pseudowire: name, Device: "pw-" + name, Bridge: b.Name})
	}
	s.do(s.Prune)
	for i := range ported {
		s.lan.Link(fmt.Sprintf("lan%d", i+1)).Down()
	}
	before := s.Asked()
	var states map[string]bridge.State
	s.do(func() error { states = s.AttachmentStates(); return nil })
	if n := s.Asked() - before; n > 6 {
		t.Errorf("to tell how %d bridges are took %d requests", many, n)
	}
	for i := range many {
		if up := states[fmt.Sprint(i)].Up; up != (i >= ported) {
			t.Errorf("%d: %+v", i, states[fmt.Sprint(i)])
		}
	}
	// Another time is another look.
	s.ns.Link("br-9").Down()
	if up, reason := s.AttachmentState("9"); up || reason != "bridge br-9 is down" {
		t.Errorf("a bridge that was taken down is %v, %q", up, reason)
	}
}

// TestNotPresent: only errors that are all about missing interfaces count as such.
func TestNotPresent(t *testing.T) {
	missing, other := &bridge.NotPresentError{Interface: "eth1"}, &bridge.InvalidError{}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{missing, true},
		{other, false},
		{fmt.Errorf("apply: %w", missing), true},
		{errors.Join(missing, missing), true},
		{errors.Join(missing, errors.Join(missing, nil)), true},
		{errors.Join(missing, other), false},
		{errors.Join(errors.Join(missing, other), missing), false},
	} {
		if got := bridge.NotPresent(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// TestClosed: a closed Manager says so.
func TestClosed(t *testing.T) {
	s := newSite(t)
	s.do(s.Close)
	s.do(s.Close)
	for _, f := range []func() error{
		func() error { return s.SetBridge(bridge.Bridge{Name: "br-lan"}) },
		func() error { return s.RemoveBridge("br-lan") },
		func() error { return s.SetAttachment(bridge.Attachment{}) },
		func() error { return s.RemoveAttachment("a") },
		func() error { _, _, err := s.Supports(); return err },
		s.Refresh, s.Prune, s.Cleanup,
	} {
		if err := s.in(f); !errors.Is(err, bridge.ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	if links, err := s.ns.Links(); err != nil || !slices.Equal(links, nil) {
		t.Errorf("%v %v", links, err)
	}
}

// filtering says whether the kernel filters VLANs.
func filtering(t *testing.T, s *site) (can bool) {
	t.Helper()
	s.do(func() (err error) { can, _, err = s.Supports(); return err })
	return can
}

// Interfaces say what errors they have counted; those that are not there say nothing.
func TestCircuitErrors(t *testing.T) {
	s := newSite(t, "eth1")
	if e, ok := s.CircuitErrors("eth1"); !ok || e != (bridge.CircuitErrors{}) {
		t.Errorf("eth1: %+v, %v", e, ok)
	}
	if e, ok := s.CircuitErrors("eth9"); ok {
		t.Errorf("eth9: %+v", e)
	}
}
