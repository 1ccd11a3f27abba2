package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// outer is the datapath's end of a pseudowire's device: what is sent there comes
// out of the pseudowire.
func (s *site) outer(name string) *netlab.Link { return s.ns.Link("pwo-" + name) }

// table is what the bridges have learned, as "02:…:09 br-lan eth1" or "… pw-a of a".
func (s *site) table() string {
	s.t.Helper()
	var lines []string
	s.do(func() error {
		macs, err := s.MACs()
		for _, m := range macs {
			line := fmt.Sprintf("%v %s", m.Address, m.Bridge)
			if m.VLAN > 1 {
				line += fmt.Sprintf(" vlan %d", m.VLAN)
			}
			line += " " + m.Port
			if m.Pseudowire != "" {
				line += " of " + m.Pseudowire
			}
			if m.Idle > time.Minute {
				line += " idle"
			}
			lines = append(lines, line)
		}
		return err
	})
	return strings.Join(lines, "\n")
}

// learns waits until the table is as wanted.
func (s *site) learns(when, want string) {
	s.t.Helper()
	want = strings.TrimSpace(strings.ReplaceAll(want, "\t", ""))
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	var got string
	err := netlab.Poll(ctx, when, func() error {
		if got = s.table(); got != want {
			return errors.New("the table is another")
		}
		return nil
	})
	if err != nil {
		s.t.Errorf("%s:\n--- got\n%s\n--- want\n%s", when, got, want)
	}
}

func (s *site) send(l *netlab.Link, frames ...[]byte) {
	s.t.Helper()
	if err := l.Send(frames...); err != nil {
		s.t.Fatal(err)
	}
}

// operational waits until the devices carry frames: the kernel brings ports up in the background.
func (s *site) operational(names ...string) {
	for _, name := range names {
		s.ns.Link(name).Operational()
	}
}

func from(n byte) []byte { return []byte{2, 0, 0, 0, 0, n} }

// TestMACs: where each address is; it moves with the first frame that it sends.
func TestMACs(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})
	s.operational("eth1", "pw-a", "pw-b")
	s.learns("nothing has been sent", "")

	lan := s.lan.Link("lan1")
	s.send(lan, frameTo(toAll, from(1), "x"), frameTo(toAll, from(2), "x"))
	s.send(s.outer("a"), frameTo(toAll, from(3), "x"))
	s.learns("three have sent", `
		02:00:00:00:00:01 br-lan eth1
		02:00:00:00:00:02 br-lan eth1
		02:00:00:00:00:03 br-lan pw-a of a
	`)
	s.send(s.outer("b"), frameTo(toAll, from(2), "x"))
	s.learns("one has moved", `
		02:00:00:00:00:01 br-lan eth1
		02:00:00:00:00:02 br-lan pw-b of b
		02:00:00:00:00:03 br-lan pw-a of a
	`)
	s.do(func() error { return s.Flush("b") })
	s.learns("flushed", `
		02:00:00:00:00:01 br-lan eth1
		02:00:00:00:00:03 br-lan pw-a of a
	`)

	// A pseudowire that goes down: what was behind it is forgotten at once.
	s.outer("a").Down()
	s.learns("without carrier", `
		02:00:00:00:00:01 br-lan eth1
	`)
}

// TestMACMoves: the same as news, in order.
func TestMACMoves(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.operational("eth1", "pw-a")
	var moves *bridge.Moves
	s.do(func() (err error) { moves, err = bridge.OpenMoves(); return err })
	defer moves.Close()

	lan := s.lan.Link("lan1")
	names := map[int]string{s.ns.Link("eth1").Index: "eth1", s.ns.Link("pw-a").Index: "pw-a"}
	var got []string
	expect := func(want string) {
		t.Helper()
		for {
			select {
			case <-moves.Wake:
			case <-time.After(20 * time.Second):
				t.Fatalf("got %q, want %s", got, want)
			}
			news, lost := moves.Take()
			if lost {
				t.Fatal("lost some")
			}
			for _, m := range news {
				verb := " at "
				if m.Forgotten {
					verb = " forgotten at "
				}
				got = append(got, fmt.Sprint(m.Address[5])+verb+names[m.Port])
			}
			if len(got) > 0 && got[len(got)-1] == want {
				return
			}
		}
	}
	s.send(lan, frameTo(toAll, from(1), "x"))
	expect("1 at eth1")
	s.send(s.outer("a"), frameTo(toAll, from(1), "x"))
	expect("1 at pw-a")
	s.send(lan, frameTo(toAll, from(1), "x"))
	expect("1 at eth1")
	s.do(func() error { return s.SetBlocked("a", true) })
	s.do(func() error { return s.RemoveBridge("br-lan") })
	expect("1 forgotten at eth1")
	if all := strings.Join(got, ", "); all != "1 at eth1, 1 at pw-a, 1 at eth1, 1 forgotten at eth1" {
		t.Errorf("moves: %s", all)
	}
}

// TestIsolated: frames of one isolated device reach the host's ports and other
// devices, but no isolated one.
func TestIsolated(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b", "c")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	for _, name := range []string{"a", "b", "c"} {
		s.attach(bridge.Attachment{Pseudowire: name, Device: "pw-" + name, Bridge: "br-lan", Isolated: name != "c"})
	}
	s.operational("eth1", "pw-a", "pw-b", "pw-c")
	b, c, lan := s.capture(s.outer("b")), s.capture(s.outer("c")), s.capture(s.lan.Link("lan1"))
	s.send(s.outer("a"), frame("from a"))
	s.send(s.outer("c"), frame("from c"))
	s.send(s.lan.Link("lan1"), frame("from lan"), frame("end"))
	for name, want := range map[string]struct {
		c     *netlab.Capture
		texts string
	}{
		"b": {b, "from c, from lan"}, "c": {c, "from a, from lan"},
	} {
		if got := strings.Join(texts(t, want.c), ", "); got != want.texts {
			t.Errorf("out of %s came %q, want %q", name, got, want.texts)
		}
	}
	s.send(s.outer("c"), frame("end"))
	if got := strings.Join(texts(t, lan), ", "); got != "from a, from c" {
		t.Errorf("on the LAN came %q", got)
	}

	// Not isolated any more: an attachment's property like the others.
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})
	b = s.capture(s.outer("b"))
	s.send(s.outer("a"), frame("from a"), frame("end"))
	if got := strings.Join(texts(t, b), ", "); got != "from a" {
		t.Errorf("out of b came %q", got)
	}
}

// TestBlocked: a blocked device forwards nothing either way, the others do.
func TestBlocked(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan"})
	s.operational("eth1", "pw-a", "pw-b")
	s.do(func() error { return s.SetBlocked("a", true) })
	lan, a := s.capture(s.lan.Link("lan1")), s.capture(s.outer("a"))
	s.send(s.outer("a"), frame("from a"))
	s.send(s.lan.Link("lan1"), frame("from lan"))
	s.send(s.outer("b"), frame("from b"), frame("end"))
	if got := strings.Join(texts(t, lan), ", "); got != "from b" {
		t.Errorf("on the LAN came %q", got)
	}
	s.do(func() error { return s.SetBlocked("a", false) })
	s.send(s.lan.Link("lan1"), frame("later"), frame("end"))
	if got := strings.Join(texts(t, a), ", "); got != "later" {
		t.Errorf("out of a came %q", got)
	}
	// One that forwards is left as it is, with all that it has learned.
	s.send(s.outer("a"), frame("end"))
	behind := func() (n int) {
		var all []bridge.MAC
		s.do(func() (err error) { all, err = s.MACs(); return err })
		for _, m := range all {
			if m.Pseudowire == "a" {
				n++
			}
		}
		return n
	}
	before := behind()
	s.do(func() error { return s.SetBlocked("a", false) })
	if after := behind(); before == 0 || after != before {
		t.Errorf("%d addresses behind a, %d before", after, before)
	}
	if err := s.in(func() error { return s.SetBlocked("nobody", true) }); err == nil {
		t.Error("a pseudowire that is not attached was blocked")
	}
}

// TestAnnounce: the addresses that are here are told to the other end, each by a
// RARP request of its own (RFC 903), those behind other isolated pseudowires excepted.
func TestAnnounce(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b", "c")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
	for _, name := range []string{"a", "b", "c"} {
		s.attach(bridge.Attachment{Pseudowire: name, Device: "pw-" + name, Bridge: "br-lan", Isolated: name != "c"})
	}
	s.operational("eth1", "pw-a", "pw-b", "pw-c")
	s.send(s.lan.Link("lan1"), frameTo(toAll, from(1), "x"), frameTo(toAll, from(2), "x"))
	s.send(s.outer("b"), frameTo(toAll, from(3), "x"))
	s.send(s.outer("c"), frameTo(toAll, from(4), "x"))
	s.send(s.outer("a"), frameTo(toAll, from(5), "x"))
	s.learns("all have sent", `
		02:00:00:00:00:01 br-lan eth1
		02:00:00:00:00:02 br-lan eth1
		02:00:00:00:00:03 br-lan pw-b of b
		02:00:00:00:00:04 br-lan pw-c of c
		02:00:00:00:00:05 br-lan pw-a of a
	`)
	a, err := s.outer("a").Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return len(f.Data) > 14 && f.Data[12] == 0x80 && f.Data[13] == 0x35 }})
	if err != nil {
		t.Fatal(err)
	}
	var sent int
	s.do(func() (err error) { sent, err = s.Announce("a"); return err })
	if sent != 3 {
		t.Errorf("%d announced, want 3", sent)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	frames, err := a.Wait(ctx, "three announcements", func(fs []netlab.Frame) bool { return len(fs) >= 3 })
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []byte{1, 2, 4} {
		want := append(append([]byte{}, toAll...), from(n)...)
		want = append(want, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3)
		want = append(append(want, from(n)...), 0, 0, 0, 0)
		want = append(append(want, from(n)...), 0, 0, 0, 0)
		want = append(want, make([]byte, 60-len(want))...)
		if got := frames[i].Data; string(got) != string(want) {
			t.Errorf("announcement %d:\n%x, want\n%x", i, got, want)
		}
	}
}
