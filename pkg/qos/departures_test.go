package qos_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/qos"
)

// What is not about packets that wait: a qdisc that every kernel has stands for fq here.
func newHeldHost(t *testing.T) *host {
	t.Helper()
	t.Cleanup(qos.HoldBy("pfifo"))
	h := newHost(t)
	h.ns.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "1") // no frames of the host's own
	return h
}

// macvlan adds one over eth0.
func (h *host) macvlan() netlink.Link {
	h.t.Helper()
	nl := h.ns.Netlink()
	l := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "mac0", ParentIndex: h.index}, Mode: netlink.MACVLAN_MODE_BRIDGE}
	h.must(errors.Join(nl.LinkAdd(l), nl.LinkSetUp(l)))
	h.ns.Sysctl("net.ipv6.conf.mac0.disable_ipv6", "1")
	return l
}

// at is the class's counters on an interface.
func (h *host) at(index int, class uint16) qos.Counters {
	h.t.Helper()
	all, err := h.Counters(index)
	h.must(err)
	return all[class]
}

var slow = qos.Class{Number: 3, Ceiling: 80e3, Queue: 1000}

// A class that goes from one interface to another has its ceiling there, and one whose
// packets leave through two interfaces, one over the other, has it once.
func TestDeparturesOfInterfaces(t *testing.T) {
	h := newHeldHost(t)
	over := h.macvlan()
	upper, lower := h.paced(slow), h.paced(qos.Class{Number: 4, Ceiling: 1e6})
	upper.Index = over.Attrs().Index
	under := h.index
	send := func(index int, class uint16) {
		h.index = index
		fill(h, qos.Handle(class))
		h.index = under
	}
	want := func(index int, class uint16, frames uint64) {
		t.Helper()
		if c := h.at(index, class); c.Frames != frames || c.Octets != frames*1000 {
			t.Errorf("class %d of interface %d: %+v, want %d frames", class, index, c, frames)
		}
	}
	h.must(h.set(h.paced(slow)))
	send(under, 3)
	want(under, 3, frames)
	h.must(h.set(upper))
	send(upper.Index, 3)
	want(upper.Index, 3, frames)
	h.must(h.set(upper, lower))
	send(upper.Index, 3)
	want(upper.Index, 3, 2*frames)
	send(under, 4)
	want(under, 4, frames)
	if c := h.at(under, 3); c.Frames != 0 {
		t.Errorf("the interface below has it, too: %+v", c)
	}
	h.must(h.ns.Do(h.Cleanup))
}

// Where somebody's qdisc is left alone nothing is dropped for ceilings either.
func TestDeparturesLeaveOthers(t *testing.T) {
	for name, replaced := range map[string]bool{"theirs came": false, "theirs is not to be replaced any more": true} {
		t.Run(name, func(t *testing.T) {
			h := newHeldHost(t)
			theirs := func() {
				if _, err := h.tc("qdisc", "replace", "dev", "eth0", "root", "handle", "8:", "pfifo", "limit", "123"); err != nil {
					t.Fatal(err)
				}
			}
			i := h.paced(slow)
			if replaced {
				theirs()
				i.Replace = true
			}
			h.must(h.set(i))
			if !replaced {
				theirs()
			}
			i.Replace = false
			for range 2 {
				if err := h.set(i); !errors.As(err, new(*qos.OccupiedError)) {
					t.Fatal(err)
				}
				there, err := h.ns.Netlink().FilterList(h.link, netlink.HANDLE_MIN_EGRESS)
				if len(there) != 0 || (err != nil && !errors.Is(err, unix.EINVAL)) {
					t.Errorf("%d programs are there: %v", len(there), err)
				}
			}
		})
	}
}

// fq has room for what may wait by its time, and bounds everybody else's about as it always does.
func TestDeparturesLimits(t *testing.T) {
	for _, c := range []struct {
		queue     uint32
		ceilings  []uint64
		all, flow uint32
	}{
		{0, nil, 10_000, 100},
		{0, []uint64{100e6}, 35_010, 25_010}, // 200 ms are 2.5 MB, of packets of 100 octets
		{0, []uint64{10e6, 1e6}, 10_000 + 2_510 + 260, 2_510},
		{1000, []uint64{100e6}, 10_000 + 15_150, 15_150},
		{0, []uint64{100e9, 100e9}, 1 << 20, 1 << 20},
	} {
		if all, flow := qos.Limits(c.queue, c.ceilings...); all != c.all || flow != c.flow {
			t.Errorf("queue %d, ceilings %v: %d packets, %d of a flow, want %d, %d", c.queue, c.ceilings, all, flow, c.all, c.flow)
		}
	}
}

// pinned has maps be pinned, by the process that begins.
func (h *host) pinned() {
	h.t.Helper()
	bpffs := h.t.TempDir()
	h.must(unix.Mount("bpf", bpffs, "bpf", 0, ""))
	h.t.Cleanup(func() { h.must(unix.Unmount(bpffs, unix.MNT_DETACH)) })
	h.bpfDir = filepath.Join(bpffs, "pwd")
	h.open()
}

// clocks is the pinned map of classes.
func (h *host) clocks() *ebpf.Map {
	h.t.Helper()
	pinned, err := filepath.Glob(filepath.Join(h.bpfDir, "*", "maps-*", "pacing", "clocks"))
	if err != nil || len(pinned) != 1 {
		h.t.Fatalf("pinned are %q (%v)", pinned, err)
	}
	clocks, err := ebpf.LoadPinnedMap(pinned[0], nil)
	h.must(err)
	h.t.Cleanup(func() { clocks.Close() })
	return clocks
}

// An interface that has HTB after a restart has no classes of departure times any more.
func TestDeparturesBecomeHTB(t *testing.T) {
	h := newHeldHost(t)
	h.pinned()
	upper := h.paced(slow)
	upper.Index = h.macvlan().Attrs().Index
	h.must(h.set(h.paced(slow), upper))
	h.open()
	htb := slow
	h.must(h.set(h.shaped(htb), upper))
	all := h.clocks().Iterate()
	var key [2]uint32 // interface, number
	var value [5]uint64
	for all.Next(&key, &value) {
		if key[0] != uint32(upper.Index) {
			t.Errorf("class %d of interface %d is there", key[1], key[0])
		}
	}
	h.must(all.Err())
	h.must(h.ns.Do(h.Cleanup))
}

// Clocks go on with the next process: what comes leaves behind what waits. In the end nothing
// is pinned, nor what a process with another layout of maps has pinned.
func TestDeparturesGoOn(t *testing.T) {
	h := newHeldHost(t)
	h.pinned()
	h.must(h.set(h.paced(slow)))
	fill(h, qos.Handle(3))
	pinned, err := filepath.Glob(filepath.Join(h.bpfDir, "*", "maps-*", "pacing", "clocks"))
	if err != nil || len(pinned) != 1 {
		t.Fatalf("pinned are %q (%v)", pinned, err)
	}
	other := filepath.Join(filepath.Dir(pinned[0]), "../../maps-1/pacing")
	h.must(os.MkdirAll(other, 0o700))
	again, err := h.clocks().Clone()
	h.must(err)
	defer again.Close()
	h.must(again.Pin(filepath.Join(other, "clocks")))
	before := time.Now()
	h.open()
	h.must(h.set(h.paced(slow)))
	if _, err := os.Stat(filepath.Dir(other)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("maps of another layout are left: %v", err)
	}
	fill(h, qos.Handle(3))
	c := h.count(3)
	if c.Frames != 2*frames {
		t.Errorf("%d frames have their times: %+v", 2*frames, c)
	}
	if gone := time.Since(before).Milliseconds() / 100; int64(c.BacklogOctets) < (2*frames-2-gone)*1000 {
		t.Errorf("after %d frames' time %+v waits", gone, c)
	}
	// What is not wanted any more is forgotten, by another process too.
	h.open()
	h.must(h.set(h.paced(qos.Class{Number: 4, Ceiling: 1e6})))
	h.must(h.set(h.paced(slow)))
	if c := h.count(3); c.Frames != 0 {
		t.Errorf("it was removed, and is %+v", c)
	}
	h.open()
	h.must(h.ns.Do(h.Cleanup))
	if _, err := os.Stat(h.bpfDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// Where ours does not come no note is kept of what it would have replaced.
func TestNotReplacedWithoutFQ(t *testing.T) {
	h := newHeldHost(t)
	if _, err := h.tc("qdisc", "replace", "dev", "eth0", "root", "handle", "8:", "pfifo", "limit", "123"); err != nil {
		t.Fatal(err)
	}
	before := h.qdiscs()
	t.Cleanup(qos.HoldBy("nothing"))
	i := h.paced(slow)
	i.Replace = true
	if err := h.set(i); !errors.Is(err, qos.ErrNoFQ) || h.qdiscs() != before {
		t.Errorf("%v\n%s", err, h.qdiscs())
	}
	if list, _ := h.memory.Replaced(); len(list) > 0 {
		t.Errorf("in memory: %v", list)
	}
}

// HTB takes the place of departure times to the end where the time before, or another process,
// came no further than to the qdisc.
func TestDeparturesEndLater(t *testing.T) {
	for name, restarts := range map[string]bool{"with the same process": false, "with another": true} {
		t.Run(name, func(t *testing.T) {
			h := newHeldHost(t)
			h.must(h.set(h.paced(slow)))
			if _, err := h.tc("qdisc", "replace", "dev", "eth0", "root", "handle", "7064:", "htb"); err != nil {
				t.Fatal(err)
			}
			if restarts {
				h.open()
			}
			h.must(h.set(h.shaped(slow)))
			if there, err := h.ns.Netlink().FilterList(h.link, netlink.HANDLE_MIN_EGRESS); len(there) != 0 || err != nil && !errors.Is(err, unix.EINVAL) {
				t.Errorf("%d programs are there: %v", len(there), err)
			}
			fill(h, qos.Handle(3))
			if c := h.count(3); c.Frames+c.BacklogFrames < frames {
				t.Errorf("HTB has %+v", c)
			}
		})
	}
}

// What could not be done the first time was not taken away by others: no repair is told of, and
// nothing is dropped meanwhile.
func TestDeparturesFailAtFirst(t *testing.T) {
	for name, c := range map[string]struct{ wrong, right func(*host) }{
		"the program": {
			wrong: func(h *host) {
				if _, err := h.tc("qdisc", "add", "dev", "eth0", "clsact"); err != nil {
					h.t.Fatal(err)
				}
				// Filters of two kinds have no priority in common.
				if _, err := h.tc("filter", "add", "dev", "eth0", "egress", "prio", "28774", "protocol", "all", "u32", "match", "u32", "0", "0"); err != nil {
					netlab.Missing(h.t, "cls_u32", err)
				}
			},
			right: func(h *host) {
				if _, err := h.tc("filter", "del", "dev", "eth0", "egress"); err != nil {
					h.t.Fatal(err)
				}
			},
		},
		"its place": {
			wrong: func(h *host) {
				if _, err := h.tc("qdisc", "add", "dev", "eth0", "ingress"); err != nil {
					h.t.Fatal(err)
				}
			},
			right: func(h *host) {
				if _, err := h.tc("qdisc", "del", "dev", "eth0", "ingress"); err != nil {
					h.t.Fatal(err)
				}
			},
		},
		"the qdisc": {
			wrong: func(h *host) { h.t.Cleanup(qos.HoldBy("nothing")) },
			right: func(*host) { qos.HoldBy("pfifo") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeldHost(t)
			c.wrong(h)
			for range 2 {
				if err := h.set(h.paced(slow)); !errors.As(err, new(*qos.OpError)) {
					t.Fatal(err)
				}
				if got := h.root(); got == "pfifo" {
					t.Error("it has the qdisc alone")
				}
			}
			c.right(h)
			h.must(h.set(h.paced(slow)))
			fill(h, qos.Handle(3))
			if n := h.count(3); n.Frames != frames {
				t.Errorf("%d frames have their times: %+v", frames, n)
			}
			if r := h.Repairs(); len(r) > 0 {
				t.Errorf("repaired: %+v", r)
			}
		})
	}
}
