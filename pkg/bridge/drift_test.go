//go:build !vm

package bridge_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/bridge"
)

// Repairs tells what others did, and nothing of what was asked for.
func TestDrift(t *testing.T) {
	s := newSite(t, "eth1", "eth2", "eth3")
	s.device("a", "b")
	s.do(s.Prune)
	strays := func(when string, want ...string) {
		t.Helper()
		s.do(s.Refresh)
		var got []string
		for _, r := range s.Repairs() {
			line := fmt.Sprintf("%s: %s, %s", r.Object, r.Found, r.Done)
			if r.Err != nil {
				line += ", failed"
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	lan := bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}}
	s.bridge(lan)
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth3"})
	strays("made")
	lan.Ports, lan.LinkLocal = []string{"eth1", "eth2"}, 1<<3
	s.bridge(lan)
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", Isolated: true, Full: true})
	strays("another port, isolated, full")
	lan.Ports = []string{"eth1"}
	s.bridge(lan)
	s.do(func() error { return s.RemoveAttachment("b") })
	strays("without the port, another attachment removed")

	ip := func(command string) {
		t.Helper()
		if out, err := s.ns.Run(t.Context(), "ip", strings.Fields(command)...); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
	ip("link set pw-a nomaster")
	strays("device out", "pseudowire a: pw-a was taken out of br-lan, put back")
	ip("link set eth1 nomaster")
	strays("port out", "bridge br-lan: eth1 was taken out of br-lan, put back")
	ip("link set pw-a type bridge_slave isolated off learning on")
	strays("port changed", "pseudowire a: learning of addresses was turned on at pw-a, turned off again", "pseudowire a: isolation of pw-a was turned off, turned on again")
	ip("link del br-lan")
	strays("bridge removed", "bridge br-lan: it was removed, made again")
	strays("nothing more")

	ip("link add br-x type bridge")
	ip("link set eth1 master br-x")
	err := s.in(s.Refresh)
	repairs := s.Repairs()
	if err == nil || len(repairs) != 1 || repairs[0].Err == nil || repairs[0].Found != "eth1 was moved from br-lan into another bridge" {
		t.Errorf("in another bridge: %v, %+v", err, repairs)
	}
	ip("link del br-x")
	s.do(s.Refresh)
	s.expect("back again", `
		br-lan up "pwd:bridge:br-lan uses=eth1"
		  eth1 up forward=0x8
		  pw-a up no-learning forward=0x8
		eth2 up
		eth3 up
		pw-b up
		`)
}

// What is held stays as others have changed it, everything else is put back; and it is put
// back once it is not held any more.
func TestHeldThingsStay(t *testing.T) {
	s := newSite(t, "eth1", "eth2", "eth3")
	s.device("a", "b")
	s.do(s.Prune)
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}})
	s.bridge(bridge.Bridge{Name: "br-x", Ports: []string{"eth3"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", Isolated: true})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", Isolated: true})
	held := map[string]bool{}
	s.Heed(func(thing string) bool { return held[thing] })
	things := func() (things []string) {
		for _, r := range s.Repairs() {
			things = append(things, r.Thing)
		}
		return things
	}
	for _, c := range []struct {
		// thing is what ip does something to, besides what it does to others.
		thing, ip string
		others    []string
	}{
		{"bridge br-lan: eth1", "link set eth1 nomaster; link set eth2 nomaster; link set pw-a nomaster", []string{"bridge br-lan: eth2", "pseudowire a: pw-a"}},
		{"pseudowire a: pw-a", "link set pw-a nomaster; link set pw-b nomaster; link set eth1 nomaster", []string{"bridge br-lan: eth1", "pseudowire b: pw-b"}},
		{"pseudowire a: pw-a", "link set pw-a type bridge_slave isolated off; link set pw-b type bridge_slave isolated off", []string{"pseudowire b: pw-b"}},
		{"bridge br-x", "link del br-x; link set eth1 nomaster", []string{"bridge br-lan: eth1"}},
	} {
		clear(held)
		held[c.thing] = true
		for command := range strings.SplitSeq(c.ip, ";") {
			if out, err := s.ns.Run(t.Context(), "ip", strings.Fields(command)...); err != nil {
				t.Fatalf("ip %s: %v\n%s", command, err, out)
			}
		}
		for range 2 {
			// A bridge that is left out is missing.
			if err := s.in(s.Refresh); err != nil && c.thing != "bridge br-x" {
				t.Error(err)
			}
			if diff := cmp.Diff(c.others, things()); diff != "" {
				t.Errorf("%s: while %s is held (-want +got):\n%s", c.ip, c.thing, diff)
			}
			c.others = nil
		}
		clear(held)
		s.do(s.Refresh)
		if diff := cmp.Diff([]string{c.thing}, things()); diff != "" {
			t.Errorf("%s: then (-want +got):\n%s", c.ip, diff)
		}
	}
	s.do(s.Refresh)
	if more := things(); more != nil {
		t.Errorf("more: %q", more)
	}
}
