package bridge_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// What is sent to an address that the bridge keeps gets into no pseudowire, blocked or not, while
// all else does; and the LAN's ports are told from the pseudowires' devices.
func TestKept(t *testing.T) {
	s := newSite(t, "eth1", "eth2")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})
	s.operational("eth1", "eth2", "pw-a", "pw-b")
	var sides map[string][]bridge.Side
	s.do(func() (err error) { sides, err = s.Sides("a", "b", "nowhere"); return err })
	for name, want := range map[string]string{"a": "eth1[0] eth2[0] ", "b": "eth1[0] eth2[0] ", "nowhere": ""} {
		names := ""
		for _, x := range sides[name] {
			names += fmt.Sprint(x.Name, x.Tags, " ")
		}
		if _, looked := sides[name]; names != want || !looked {
			t.Errorf("the LAN of %s is at %q", name, names)
		}
	}
	secret := bridge.Address{2, 'p', 'w', 'l', 'o', 'p'}
	s.do(func() error { return s.SetBlocked("a", true) })
	s.do(func() error { return s.SetKept("a", secret, true) })
	s.do(func() error { return s.SetKept("a", secret, true) })
	b, far := s.capture(s.outer("b")), s.capture(s.lan.Link("lan2"))
	s.send(s.lan.Link("lan1"), frameTo(secret[:], someone, "kept"), frame("for all"), frame("end"))
	for name, c := range map[string]*netlab.Capture{"b": b, "eth2": far} {
		if got := strings.Join(texts(t, c), ", "); got != "for all" {
			t.Errorf("out of %s came %q", name, got)
		}
	}
	s.do(func() error { return s.SetKept("a", secret, false) })
	s.do(func() error { return s.SetKept("a", secret, false) })
	b = s.capture(s.outer("b"))
	s.send(s.lan.Link("lan1"), frameTo(secret[:], someone, "not kept"), frame("end"))
	if got := strings.Join(texts(t, b), ", "); got != "not kept" {
		t.Errorf("afterwards came %q", got)
	}
}
