package qos_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/qos"
)

// paced is a host whose classes have departure times.
func (h *host) paced(classes ...qos.Class) qos.Interface {
	return qos.Interface{Index: h.index, EDT: true, Classes: classes}
}

// needsFQ sets it, where the kernel has fq; otherwise the error has to say that it is missing,
// and nothing may be left of the attempt.
func (h *host) needsFQ(i qos.Interface) bool {
	h.t.Helper()
	before := h.qdiscs()
	err := h.set(i)
	if !errors.Is(err, qos.ErrNoFQ) {
		h.must(err)
		return true
	}
	h.must(h.set())
	if now := h.qdiscs(); now != before {
		h.t.Errorf("without fq there was\n%sand is\n%s", before, now)
	}
	if h.managed() {
		netlab.Missing(h.t, "fq", err)
	}
	h.t.Log("this kernel has no fq: ", err)
	return false
}

// sent are the frames that have left.
func (h *host) sent() uint64 {
	h.t.Helper()
	l, err := h.ns.Netlink().LinkByIndex(h.index)
	h.must(err)
	return l.Attrs().Statistics.TxPackets
}

// awaitSent waits until that many frames have left, and says how long it took.
func (h *host) awaitSent(n uint64) time.Duration {
	h.t.Helper()
	began := time.Now()
	for h.sent() < n {
		if time.Since(began) > 30*time.Second {
			h.t.Fatalf("%d frames left, not %d", h.sent(), n)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// A class's frames leave one after the other at its ceiling, and what is in no class at once.
// Those that would have to wait for too long are dropped and counted.
func TestDepartures(t *testing.T) {
	h := newHost(t)
	h.ns.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "1") // no frames of the host's own
	before := h.qdiscs()
	// A frame of fill is 1000 octets: 100 ms each.
	slow := qos.Class{Number: 3, Ceiling: 80e3, Queue: 1000}
	if !h.needsFQ(h.paced(slow)) {
		return
	}
	h.must(h.set(h.paced(slow)))
	start := h.sent()
	began := time.Now()
	fill(h, qos.Handle(3))
	c := h.count(3)
	if c.Frames != frames || c.Octets != frames*1000 || c.Full != 0 {
		t.Errorf("%d frames have their times: %+v", frames, c)
	}
	if waits := float64(c.BacklogOctets) / 1000; waits < frames/2 || waits > frames {
		t.Errorf("%.1f frames wait", waits)
	}
	// The class waits, and nobody else.
	left := h.sent()
	fill(h, 0)
	if took := h.awaitSent(left + frames); took > time.Second {
		t.Errorf("frames of no class took %v", took)
	}
	h.awaitSent(start + 2*frames)
	// The first leaves at once.
	if took, want := time.Since(began), (frames-1)*100*time.Millisecond; took < want*95/100 || took > want*3/2 {
		t.Errorf("%d frames took %v, want %v", frames, took, want)
	}

	// Five full packets may wait, 605 ms.
	few := qos.Class{Number: 3, Ceiling: 100e3, Queue: 5}
	h.must(h.set(h.paced(few)))
	fill(h, qos.Handle(3))
	if d := h.count(3); d.Full != frames-(d.Frames-c.Frames) || d.Full < frames-12 || d.Full > frames-5 {
		t.Errorf("of %d frames: %+v", frames, d)
	}
	h.must(h.ns.Do(h.Cleanup))
	if now := h.qdiscs(); now != before {
		t.Errorf("it was\n%sand is\n%s", before, now)
	}
}

// HTB and departure times take each other's place, other processes go on with either, what
// others take away comes back, and nothing is left in the end.
func TestDeparturesComeAndGo(t *testing.T) {
	h := newHost(t)
	before := h.qdiscs()
	voice := qos.Class{Number: 1, Ceiling: 20e6}
	if !h.needsFQ(h.paced(voice)) {
		return
	}
	is := func(kind string, filters int) {
		t.Helper()
		there, err := h.ns.Netlink().FilterList(h.link, netlink.HANDLE_MIN_EGRESS)
		if got := h.root(); got != kind || len(there) != filters || err != nil {
			t.Errorf("the root qdisc is %s with %d programs, want %s with %d: %v", got, len(there), kind, filters, err)
		}
	}
	for range 2 {
		h.must(h.set(h.paced(voice)))
		is("fq", 1)
		h.open()
		h.must(h.set(h.paced(voice)))
		is("fq", 1)
		htb := voice
		h.must(h.set(h.shaped(htb)))
		is("htb", 0)
	}
	h.must(h.set(h.paced(voice)))
	if _, err := h.tc("qdisc", "del", "dev", "eth0", "root"); err != nil {
		t.Fatal(err)
	}
	h.must(h.set(h.paced(voice)))
	is("fq", 1)
	if _, err := h.tc("filter", "del", "dev", "eth0", "egress"); err != nil {
		t.Fatal(err)
	}
	h.must(h.set(h.paced(voice)))
	is("fq", 1)
	for _, wrong := range [][]qos.Class{{{Number: 1}}, {voice, voice}, {{Ceiling: 1e6}}} {
		if err := h.set(h.paced(wrong...)); !errors.As(err, new(*qos.OpError)) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	// Another process finds what to remove, be it the program alone.
	if _, err := h.tc("qdisc", "del", "dev", "eth0", "root"); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.must(h.ns.Do(h.Cleanup))
	if now := h.qdiscs(); now != before {
		t.Errorf("it was\n%sand is\n%s", before, now)
	}
}

// Others' root qdiscs come back after departure times, too.
func TestDeparturesReplace(t *testing.T) {
	h := newHost(t)
	if _, err := h.tc("qdisc", "replace", "dev", "eth0", "root", "handle", "8:", "pfifo", "limit", "123"); err != nil {
		t.Fatal(err)
	}
	before := h.qdiscs()
	i := h.paced(qos.Class{Number: 1, Ceiling: 1e6})
	if err := h.set(i); !errors.As(err, new(*qos.OccupiedError)) || h.qdiscs() != before {
		t.Fatalf("replaced without being told to: %v\n%s", err, h.qdiscs())
	}
	i.Replace = true
	if !h.needsFQ(i) {
		return
	}
	h.open()
	h.must(h.set(i))
	if !strings.HasPrefix(h.qdiscs(), "qdisc fq 7065: root") {
		t.Errorf("it is\n%s", h.qdiscs())
	}
	h.must(h.ns.Do(h.Cleanup))
	if now := h.qdiscs(); now != before {
		t.Errorf("it was\n%sand is\n%s", before, now)
	}
}
