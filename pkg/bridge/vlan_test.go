//go:build vm

package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// The tests of this file need a kernel with bridge VLAN filtering and VLAN devices.

// ip runs iproute2 in the site: somebody else at work.
func (s *site) ip(args ...string) {
	s.t.Helper()
	if out, err := s.ns.Run(s.t.Context(), "ip", args...); err != nil {
		s.t.Fatal(out, err)
	}
}

// TestSupports: both are found, and looking for them leaves nothing behind.
func TestSupports(t *testing.T) {
	s := newSite(t)
	var filtering, devices bool
	s.do(func() (err error) { filtering, devices, err = s.Supports(); return err })
	if !filtering || !devices {
		t.Errorf("VLAN filtering %v, VLAN devices %v", filtering, devices)
	}
	if links, err := s.ns.Links(); err != nil || len(links) > 0 {
		t.Errorf("left behind: %v %v", links, err)
	}
}

// TestVLANs: a bridge filters VLANs from its first VLAN attachment to its last;
// a device has its VLAN and no other, the host's ports have what the devices need.
func TestVLANs(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.device("a", "b", "c")
	lan := bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}}
	a := bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true}
	b := bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", VLAN: 200}
	c := bridge.Attachment{Pseudowire: "c", Device: "pw-c", Bridge: "br-lan"}
	s.bridge(lan)
	s.do(s.Prune)
	s.attach(c)
	s.expect("untagged", `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up
		  eth2 up
		  pw-c up
		pw-a down
		pw-b down
		`)
	s.attach(a)
	s.expect("the first VLAN", `
		br-lan up filtering vlans 1* "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up vlans 1*,100
		  eth2 up vlans 1*,100
		  pw-a up vlans 100
		  pw-c up vlans 1*
		pw-b down
		`)
	s.attach(b)
	all := `
		br-lan up filtering vlans 1* "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up vlans 1*,100,200
		  eth2 up vlans 1*,100,200
		  pw-a up vlans 100
		  pw-b up vlans 200*
		  pw-c up vlans 1*
		`
	s.expect("all", all)

	// A restarted daemon takes nothing away before it has named everything.
	s.open()
	s.bridge(lan)
	s.expect("restarted, the bridge", all)
	s.attach(c)
	s.expect("restarted, one attachment", all)
	s.attach(b)
	s.do(s.Prune)
	s.expect("restarted, without one", strings.ReplaceAll(strings.ReplaceAll(all, "1*,100,200", "1*,200"), "  pw-a up vlans 100\n\t\t", "")+`pw-a up
		`)
	s.attach(a)
	s.expect("with it again", all)

	// Other VLANs, live.
	a.VLAN, b.VLAN, b.Tagged = 101, 201, true
	s.attach(a)
	s.attach(b)
	s.expect("others", strings.NewReplacer("100", "101", "200*", "201", "200", "201").Replace(all))

	// VLAN 1 on the wire is not the untagged frames' any more.
	a.VLAN = 1
	s.attach(a)
	s.expect("VLAN 1", `
		br-lan up filtering vlans 4094* "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up vlans 1,201,4094*
		  eth2 up vlans 1,201,4094*
		  pw-a up vlans 1
		  pw-b up vlans 201
		  pw-c up vlans 4094*
		`)
	s.do(func() error { return errors.Join(s.RemoveAttachment("a"), s.RemoveAttachment("b")) })
	s.expect("no VLAN", `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up
		  eth2 up
		  pw-c up
		pw-a up
		pw-b up
		`)
	lan.VLANAware = bridge.On
	s.bridge(lan)
	s.expect("always", `
		br-lan up filtering vlans 4094* "pwd:bridge:br-lan uses=eth1,eth2"
		  eth1 up vlans 4094*
		  eth2 up vlans 4094*
		  pw-c up vlans 4094*
		pw-a up
		pw-b up
		`)
}

// TestExternalVLANs: on somebody else's bridge only the device's VLANs are set.
func TestExternalVLANs(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b", "c")
	s.ns.Bridge("br0", s.ns.Link("eth1"))
	s.ip("link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
	s.bridge(bridge.Bridge{Name: "br0", External: true})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br0", VLAN: 100, Tagged: true})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br0", VLAN: 200})
	s.attach(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Bridge: "br0"})
	s.expect("attached", `
		br0 up filtering vlans 1* snooping
		  eth1 up vlans 1*
		  pw-a up vlans 100
		  pw-b up vlans 200*
		  pw-c up vlans 1*
		`)
	// It stops filtering: what cannot be told apart any more is told.
	s.ip("link", "set", "br0", "type", "bridge", "vlan_filtering", "0")
	var unsupported *bridge.UnsupportedError
	if err := s.in(s.Refresh); !errors.As(err, &unsupported) || unsupported.For != "pseudowire b" {
		t.Errorf("Refresh: %v", err)
	}
}

// TestVLANDevice: one VLAN of an interface, the rest of which stays the host's.
func TestVLANDevice(t *testing.T) {
	s := newSite(t, "eth2 down", "enp130s0f1np1")
	s.device("a", "b", "c")
	long, longBridge := bridge.VLANDevice("enp130s0f1np1", 4000), bridge.PrivateBridge(bridge.VLANDevice("enp130s0f1np1", 4000))
	if len(long) != 15 || len(longBridge) != 15 {
		t.Fatalf("names %q %q", long, longBridge)
	}
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2", VLAN: 30})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth2", VLAN: 31})
	s.attach(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Interface: "enp130s0f1np1", VLAN: 4000})
	s.expect("attached", fmt.Sprintf(`
		%[2]s up "pwd:bridge:%[2]s"
		  %[1]s up vlan 4000 of enp130s0f1np1 forward=0xfffd "pwd:vlan:%[1]s uses=enp130s0f1np1"
		  pw-c up forward=0xfffd
		pwb-eth2.30 up "pwd:bridge:pwb-eth2.30"
		  eth2.30 up vlan 30 of eth2 forward=0xfffd "pwd:vlan:eth2.30 uses=eth2-down"
		  pw-a up forward=0xfffd
		pwb-eth2.31 up "pwd:bridge:pwb-eth2.31"
		  eth2.31 up vlan 31 of eth2 forward=0xfffd "pwd:vlan:eth2.31 uses=eth2"
		  pw-b up forward=0xfffd
		enp130s0f1np1 up
		eth2 up
		`, long, longBridge))
	// The interface was down: it stays up for the second, and goes down with it.
	s.do(func() error { return errors.Join(s.RemoveAttachment("a"), s.RemoveAttachment("c")) })
	s.expect("one left", `
		pwb-eth2.31 up "pwd:bridge:pwb-eth2.31"
		  eth2.31 up vlan 31 of eth2 forward=0xfffd "pwd:vlan:eth2.31 uses=eth2-down"
		  pw-b up forward=0xfffd
		enp130s0f1np1 up
		eth2 up
		pw-a up
		pw-c up
		`)
	s.open()
	s.do(s.Prune)
	s.expect("pruned", `
		enp130s0f1np1 up
		eth2 down
		pw-a up
		pw-b up
		pw-c up
		`)

	// Somebody else's device for that VLAN.
	s.ip("link", "set", "eth2", "up")
	s.ip("link", "add", "link", "eth2", "name", "eth2.30", "type", "vlan", "id", "30")
	a := bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2", VLAN: 30}
	var notOurs *bridge.NotOursError
	if err := s.in(func() error { return s.SetAttachment(a) }); !errors.As(err, &notOurs) {
		t.Errorf("eth2.30 of somebody else's: %v", err)
	}
	s.do(func() error { return s.RemoveAttachment("a") })
	s.ip("link", "set", "eth2.30", "name", "customer")
	var invalid *bridge.InvalidError
	if err := s.in(func() error { return s.SetAttachment(a) }); !errors.As(err, &invalid) {
		t.Errorf("VLAN 30 of somebody else's: %v", err)
	}
	a.Interface, a.VLAN = "customer", 0
	s.attach(a)
	s.do(s.Prune)
	s.expect("attached to that device itself", `
		pwb-customer up "pwd:bridge:pwb-customer uses=customer-down"
		  customer up vlan 30 of eth2 forward=0xfffd
		  pw-a up forward=0xfffd
		enp130s0f1np1 up
		eth2 up
		pw-b up
		pw-c up
		`)
}

// TestVLANCrashes is TestCrashes (of the host) with VLANs, at every second moment.
func TestVLANCrashes(t *testing.T) {
	s := newSite(t, "eth1", "eth2 down")
	s.device("a", "b", "c")
	build := func() error {
		return errors.Join(
			s.SetBridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", VLAN: 200}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Interface: "eth2", VLAN: 30}),
			s.Prune(),
		)
	}
	empty := `
		eth1 up
		eth2 down
		pw-a up
		pw-b up
		pw-c up
		`
	full := `
		br-lan up filtering vlans 1* "pwd:bridge:br-lan uses=eth1"
		  eth1 up vlans 1*,100,200
		  pw-a up vlans 100
		  pw-b up vlans 200*
		pwb-eth2.30 up "pwd:bridge:pwb-eth2.30"
		  eth2.30 up vlan 30 of eth2 forward=0xfffd "pwd:vlan:eth2.30 uses=eth2-down"
		  pw-c up forward=0xfffd
		eth2 up
		`
	s.do(build)
	s.expect("at first", full)
	s.do(s.Cleanup)
	s.open()
	for crash := 0; !t.Failed(); crash += 2 {
		s.FailAfter(crash)
		err := s.in(build)
		s.open()
		if err == nil {
			t.Logf("%d moments", crash)
			break
		}
		s.do(build)
		s.expect("built", full)
		s.open()
		s.FailAfter(crash)
		s.in(s.Cleanup)
		s.open()
		s.do(s.Cleanup)
		s.expect("taken apart", empty)
		s.open()
	}
}

// TestVLANFrames: tags come off and go on where they should, octet for octet, and
// frames of other VLANs stay out.
func TestVLANFrames(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("tagged", "plain", "whole")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "t", Device: "pw-tagged", Bridge: "br-lan", VLAN: 100, Tagged: true})
	s.attach(bridge.Attachment{Pseudowire: "p", Device: "pw-plain", Bridge: "br-lan", VLAN: 200})
	s.attach(bridge.Attachment{Pseudowire: "w", Device: "pw-whole", Bridge: "br-lan"})
	s.do(s.Prune)

	links := map[string]*netlab.Link{
		"lan": s.lan.Link("lan1"), "tagged": s.ns.Link("pwo-tagged"), "plain": s.ns.Link("pwo-plain"), "whole": s.ns.Link("pwo-whole"),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, l := range []string{"eth1", "pw-tagged", "pw-plain", "pw-whole"} {
		s.ns.Link(l).Operational()
	}
	captures := map[string]*netlab.Capture{}
	for name, l := range links {
		c, err := l.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
			return bytes.Equal(f.Data[6:12], someone)
		}})
		if err != nil {
			t.Fatal(err)
		}
		captures[name] = c
	}
	seen := map[string]int{}
	for i, c := range []struct {
		from string
		tags [][]byte
		to   map[string][][]byte // the others get nothing
	}{
		{"lan", nil, map[string][][]byte{"whole": nil}},
		{"lan", [][]byte{tag(5, 100)}, map[string][][]byte{"tagged": {tag(5, 100)}}},
		{"lan", [][]byte{tag(5, 200)}, map[string][][]byte{"plain": nil}},
		{"lan", [][]byte{tag(0, 300)}, nil},
		{"lan", [][]byte{tag(0, 100), tag(3, 7)}, map[string][][]byte{"tagged": {tag(0, 100), tag(3, 7)}}},
		{"lan", [][]byte{tag(0, 200), tag(3, 7)}, map[string][][]byte{"plain": {tag(3, 7)}}},
		{"tagged", [][]byte{tag(6, 100)}, map[string][][]byte{"lan": {tag(6, 100)}}},
		{"tagged", nil, nil},
		{"tagged", [][]byte{tag(0, 200)}, nil},
		{"plain", nil, map[string][][]byte{"lan": {tag(0, 200)}}},
		{"plain", [][]byte{tag(0, 100)}, nil},
		{"whole", nil, map[string][][]byte{"lan": nil}},
		{"whole", [][]byte{tag(0, 100)}, nil},
	} {
		text := fmt.Sprintf("case %d", i)
		if err := links[c.from].Send(frame(text, c.tags...)); err != nil {
			t.Fatal(err)
		}
		// What comes to everybody shows that the rest has had its time.
		for _, fence := range []struct {
			from string
			tags [][]byte
			to   []string
		}{
			{"lan", nil, []string{"whole"}}, {"lan", [][]byte{tag(0, 100)}, []string{"tagged"}}, {"lan", [][]byte{tag(0, 200)}, []string{"plain"}},
			{"whole", nil, []string{"lan"}},
		} {
			if err := links[fence.from].Send(frame("fence", fence.tags...)); err != nil {
				t.Fatal(err)
			}
			for _, to := range fence.to {
				_, err := captures[to].Wait(ctx, "fence "+text, func(fs []netlab.Frame) bool {
					return len(fs) > seen[to] && bytes.Contains(fs[len(fs)-1].Data, []byte("fence"))
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, capture := range captures {
			fs := capture.Frames()
			var got [][]byte
			for _, f := range fs[seen[name]:] {
				if !bytes.Contains(f.Data, []byte("fence")) {
					got = append(got, f.Data)
				}
			}
			seen[name] = len(fs)
			tags, wanted := c.to[name]
			switch {
			case !wanted && len(got) > 0:
				t.Errorf("case %d, %s % x: %s got % x", i, c.from, c.tags, name, got)
			case wanted && (len(got) != 1 || !bytes.Equal(got[0], frame(text, tags...))):
				t.Errorf("case %d, %s % x: %s got % x, want % x", i, c.from, c.tags, name, got, frame(text, tags...))
			}
		}
	}
}

// TestNoLeakWhileAttaching: while devices come into a filtering bridge and go,
// no frame of another VLAN gets to them, nor from them to the LAN.
func TestNoLeakWhileAttaching(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.On})
	s.do(s.Prune)
	s.ns.Link("eth1").Operational()
	lan, device := s.lan.Link("lan1"), s.ns.Link("pwo-a")

	capture := func(l *netlab.Link) *netlab.Capture {
		c, err := l.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return bytes.Equal(f.Data[6:12], someone) }})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	atLAN, atDevice := capture(lan), capture(device)
	stop, stopped := make(chan struct{}), make(chan error, 2)
	for _, l := range []*netlab.Link{lan, device} {
		go func() {
			for {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				// While the device is down its outer end has no carrier and sends nothing.
				err := l.Send(frame("untagged"), frame("wrong", tag(0, 300)), frame("right", tag(0, 100)))
				if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENETDOWN) {
					stopped <- err
					return
				}
			}
		}()
	}
	for range 20 {
		s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true})
		s.do(func() error { return s.RemoveAttachment("a") })
	}
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range []*netlab.Capture{atLAN, atDevice} {
		if _, err := c.WaitCount(ctx, 1); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	for range 2 {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
	for name, c := range map[string]*netlab.Capture{"LAN": atLAN, "device": atDevice} {
		frames, err := c.Stop()
		if err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for _, f := range frames {
			if !bytes.Contains(f.Data, []byte("right")) {
				wrong++
			}
		}
		t.Logf("%s: %d frames", name, len(frames))
		if wrong > 0 || len(frames) == 0 {
			t.Errorf("%s: %d frames, %d of another VLAN", name, len(frames), wrong)
		}
	}
}
