//go:build !vm

package bridge_test

import (
	"errors"
	"testing"

	"github.com/pwd-project/pwd/pkg/bridge"
)

// TestCrashes: a process ends after each single request to the kernel; the next
// one's Cleanup puts everything back, and the next one's setters come to the same end.
func TestCrashes(t *testing.T) {
	s := newSite(t, "eth1", "eth2 down", "eth3 down")
	s.device("a", "b")
	empty := `
		eth1 up
		eth2 down
		eth3 down
		pw-a up
		pw-b up
		`
	full := `
		br-lan up "pwd:bridge:br-lan uses=eth1,eth2-down"
		  eth1 up
		  eth2 up
		  pw-a up
		pwb-eth3 up "pwd:bridge:pwb-eth3 uses=eth3-down"
		  eth3 up forward=0xfffd
		  pw-b up forward=0xfffd
		`
	build := func() error {
		return errors.Join(
			s.SetBridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"}),
			s.SetAttachment(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth3"}),
			s.Prune(),
		)
	}
	s.do(build)
	s.do(s.Cleanup)
	requests := 0
	for crash := 0; ; crash++ {
		s.open()
		s.FailAfter(crash)
		err := s.in(build)
		if err == nil {
			requests = crash
			break
		}
		if crash%2 == 0 {
			s.open()
			s.do(s.Cleanup)
			s.expect("cleaned up", empty)
		}
		s.open()
		s.do(build)
		s.expect("built", full)

		// The same for taking it apart.
		s.open()
		s.FailAfter(crash)
		s.in(s.Cleanup)
		s.open()
		s.do(s.Cleanup)
		s.expect("taken apart", empty)
		if t.Failed() {
			t.Fatalf("after request %d", crash)
		}
	}
	if requests < 15 {
		t.Errorf("it took only %d requests", requests)
	}
	t.Logf("%d moments", requests)
}

// Release takes devices of pseudowires out of where an earlier process put them, and nothing else.
func TestRelease(t *testing.T) {
	s := newSite(t, "eth1", "eth3")
	s.device("a", "b", "c")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth3"})
	s.attach(bridge.Attachment{Pseudowire: "c", Device: "pw-c", Bridge: "br-lan"})
	s.open()
	s.do(func() error { return s.Release([]string{"pw-a", "pw-b", "eth1", "br-lan", "nothing"}) })
	s.expect("released", `
		br-lan up "pwd:bridge:br-lan uses=eth1"
		  eth1 up
		  pw-c up
		pwb-eth3 up "pwd:bridge:pwb-eth3 uses=eth3"
		  eth3 up forward=0xfffd
		pw-a up
		pw-b up
		`)
}
