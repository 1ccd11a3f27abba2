package qos_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/qos"
)

// host is a namespace with one interface of an underlay, and a Manager in it.
type host struct {
	*qos.Manager
	t     *testing.T
	ns    *netlab.Namespace
	far   *netlab.Namespace
	link  netlink.Link
	index int
	// memory is what outlives a Manager.
	memory qos.Memory
	// bpfDir is on a bpffs, or empty.
	bpfDir string
}

// memory keeps what was replaced.
type memory struct{ list []qos.Replaced }

func (m *memory) Replaced() ([]qos.Replaced, error)     { return m.list, nil }
func (m *memory) SetReplaced(list []qos.Replaced) error { m.list = list; return nil }

func newHost(t *testing.T) *host {
	t.Helper()
	lab := netlab.New(t)
	ns := lab.Namespace("host")
	beyond := lab.Namespace("far")
	eth0, far := lab.Veth(ns, "eth0", beyond, "eth0")
	eth0.Addr("192.0.2.1/24").Up()
	far.Up()
	l, err := ns.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, ns: ns, far: beyond, link: l, index: l.Attrs().Index, memory: &memory{}}
	h.open()
	if err := h.set(h.shaped()); errors.Is(err, qos.ErrNoHTB) {
		netlab.Missing(t, "htb", err)
	}
	h.must(h.set())
	return h
}

// open starts with a new Manager, as after a restart.
func (h *host) open() {
	h.t.Helper()
	h.must(h.ns.Do(func() (err error) { h.Manager, err = qos.Open(h.memory, h.bpfDir); return err }))
	h.t.Cleanup(h.Close)
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) set(i ...qos.Interface) error { return h.ns.Do(func() error { return h.Set(i) }) }

func (h *host) shaped(classes ...qos.Class) qos.Interface {
	for i := range classes {
		classes[i].In = 1
	}
	return qos.Interface{Index: h.index, Groups: []qos.Group{{Number: 1, Rate: 100e6}}, Classes: classes}
}

// classes are those of the interface: rates in bits a second.
func (h *host) classes() map[uint32][3]uint64 {
	h.t.Helper()
	list, err := h.ns.Netlink().ClassList(h.link, netlink.HANDLE_NONE)
	h.must(err)
	all := map[uint32][3]uint64{}
	for _, c := range list {
		if c, ok := c.(*netlink.HtbClass); ok {
			all[c.Handle] = [3]uint64{c.Rate * 8, c.Ceil * 8, uint64(c.Prio)}
		}
	}
	return all
}

// root is the kind of the root qdisc.
func (h *host) root() string {
	h.t.Helper()
	list, err := h.ns.Netlink().QdiscList(h.link)
	h.must(err)
	for _, q := range list {
		if a := q.Attrs(); a.LinkIndex == h.index && a.Parent == netlink.HANDLE_ROOT {
			return q.Type()
		}
	}
	return ""
}

func (h *host) want(want map[uint32][3]uint64) {
	h.t.Helper()
	got := h.classes()
	for handle, w := range want {
		if got[handle] != w {
			h.t.Errorf("class %s is %v, want %v", netlink.HandleStr(handle), got[handle], w)
		}
	}
	if len(got) != len(want) {
		h.t.Errorf("classes %v, want %v", got, want)
	}
}

const link = 0x70640011

func TestClasses(t *testing.T) {
	h := newHost(t)
	before := h.root()
	voice := qos.Class{Number: 1, Rate: 20e6, Ceiling: 40e6, Priority: 1, Queue: 10}
	bulk := qos.Class{Number: qos.MaxNumber, Ceiling: 1e9, Priority: 7}
	h.must(h.set(h.shaped(voice, bulk)))
	full := map[uint32][3]uint64{
		link: {100e6, 100e6, 0}, qos.Handle(1): {20e6, 40e6, 1}, qos.Handle(qos.MaxNumber): {8000, 100e6, 7},
	}
	h.want(full)

	// Another Manager finds them, and what it does twice changes nothing.
	h.open()
	for range 2 {
		h.must(h.set(h.shaped(voice, bulk)))
		h.want(full)
	}

	voice.Rate, voice.Priority = 5e6, 0
	h.must(h.set(h.shaped(voice)))
	h.want(map[uint32][3]uint64{link: {100e6, 100e6, 0}, qos.Handle(1): {5e6, 40e6, 0}})

	h.must(h.ns.Do(h.Cleanup))
	if got := h.root(); got != before {
		t.Errorf("the root qdisc is %s, was %s", got, before)
	}
	h.must(h.ns.Do(h.Cleanup))
}

// What waits in a class survives a change of it.
func TestChangeKeepsTheQueue(t *testing.T) {
	h := newHost(t)
	slow := qos.Class{Number: 3, Rate: 8000, Ceiling: 8000}
	h.must(h.set(h.shaped(slow)))
	fill(h, qos.Handle(3))
	before := h.count(3)
	if before.BacklogFrames == 0 {
		t.Fatalf("nothing waits: %+v", before)
	}
	slow.Rate, slow.Ceiling, slow.Priority = 16000, 16000, 5
	slow.Queue = 500
	h.must(h.set(h.shaped(slow)))
	// Whatever has been sent meanwhile: nothing was dropped or forgotten.
	after := h.count(3)
	if after.Drops() != 0 || after.BacklogFrames == 0 || after.Frames+after.BacklogFrames < frames {
		t.Errorf("%+v, and after the change %+v", before, after)
	}
}

func (h *host) count(number uint16) (c qos.Counters) {
	h.t.Helper()
	h.must(h.ns.Do(func() error {
		all, err := h.Counters(h.index)
		c = all[number]
		return err
	}))
	return c
}

func TestQdiscOfOthers(t *testing.T) {
	h := newHost(t)
	theirs := netlink.NewPrio(netlink.QdiscAttrs{LinkIndex: h.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	h.must(h.ns.Netlink().QdiscAdd(netlink.NewHtb(theirs.QdiscAttrs)))
	if err := h.set(h.shaped()); !errors.As(err, new(*qos.OccupiedError)) {
		t.Errorf("shaping an interface of others: %v", err)
	}
	h.must(h.ns.Do(h.Cleanup))
	if got := h.root(); got != "htb" {
		t.Errorf("their qdisc became %s", got)
	}
}

func TestEgress(t *testing.T) {
	h := newHost(t)
	for _, tt := range []struct{ local, remote string }{
		{"192.0.2.1", "192.0.2.2"}, {"", "192.0.2.2"}, {"192.0.2.1", ""},
	} {
		var local, remote netip.Addr
		if tt.local != "" {
			local = netip.MustParseAddr(tt.local)
		}
		if tt.remote != "" {
			remote = netip.MustParseAddr(tt.remote)
		}
		h.must(h.ns.Do(func() error {
			if index, err := h.Egress(local, remote); err != nil || index != h.index {
				t.Errorf("from %q to %q: interface %d, %v, want %d", tt.local, tt.remote, index, err, h.index)
			}
			return nil
		}))
	}
	h.must(h.ns.Do(func() error {
		if _, err := h.Egress(netip.Addr{}, netip.MustParseAddr("203.0.113.1")); err == nil {
			t.Error("a way to where there is none")
		}
		return nil
	}))
}

// Two underlays on one interface have a limit each, and pairs within them; what goes into
// another group, and groups that go, leave nothing behind.
func TestGroups(t *testing.T) {
	h := newHost(t)
	one := qos.Group{Number: 1, Rate: 100e6}
	two := qos.Group{Number: 2, Rate: 20e6}
	pair := qos.Group{Number: 3, In: 1, Rate: 30e6}
	set := func(groups []qos.Group, classes ...qos.Class) {
		t.Helper()
		h.must(h.set(qos.Interface{Index: h.index, Groups: groups, Classes: classes}))
	}
	group := func(n uint16) uint32 { return qos.Handle(n) | 1 }
	voice, bulk := qos.Class{Number: 1, In: 3, Rate: 10e6, Ceiling: 50e6}, qos.Class{Number: 2, In: 2, Priority: 5}
	for range 2 {
		set([]qos.Group{one, two, pair}, voice, bulk)
		h.want(map[uint32][3]uint64{
			group(1): {100e6, 100e6, 0}, group(2): {20e6, 20e6, 0}, group(3): {8000, 30e6, 0},
			qos.Handle(1): {10e6, 30e6, 0}, qos.Handle(2): {8000, 20e6, 5},
		})
		h.open() // another process
	}
	pair.Rate, two.Rate = 0, 0
	set([]qos.Group{one, two, pair}, voice)
	h.want(map[uint32][3]uint64{
		group(1): {100e6, 100e6, 0}, group(2): {1e12, 1e12, 0}, group(3): {8000, 100e6, 0}, qos.Handle(1): {10e6, 50e6, 0},
	})
	voice.In = 1
	set([]qos.Group{one}, voice)
	h.want(map[uint32][3]uint64{group(1): {100e6, 100e6, 0}, qos.Handle(1): {10e6, 50e6, 0}})
	voice.In = 3
	pair.In = 2
	set([]qos.Group{two, pair}, voice)
	h.want(map[uint32][3]uint64{group(2): {1e12, 1e12, 0}, group(3): {8000, 1e12, 0}, qos.Handle(1): {10e6, 50e6, 0}})

	for _, wrong := range []qos.Interface{
		{Classes: []qos.Class{{Number: 1, In: 9}}},
		{Groups: []qos.Group{pair, two}},
		{Groups: []qos.Group{two, two}},
		{Classes: []qos.Class{{}}},
		{Groups: []qos.Group{{Number: qos.MaxNumber + 1}}},
	} {
		wrong.Index = h.index
		if err := h.set(wrong); !errors.As(err, new(*qos.OpError)) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

// What a full queue drops is counted, by whatever kind of queue the kernel has.
func TestDrops(t *testing.T) {
	h := newHost(t)
	h.must(h.set(h.shaped(qos.Class{Number: 3, Rate: 8000, Ceiling: 8000, Queue: 5})))
	fill(h, qos.Handle(3))
	var c qos.Counters
	// One may be sent between the look at the class and that at its queue.
	for range 5 {
		if c = h.count(3); c.Full >= frames/2 && c.Frames+c.BacklogFrames+c.Drops() == frames {
			return
		}
	}
	t.Errorf("of %d frames: %+v", frames, c)
}

// The queue of a class is fq_codel, which marks instead of dropping where it may, or a plain one
// where the kernel does not have that; its limit changes in place.
func TestQueue(t *testing.T) {
	h := newHost(t)
	for _, limit := range []uint32{10, 2000, 0} {
		h.must(h.set(h.shaped(qos.Class{Number: 3, Rate: 1e6, Queue: limit})))
		words := fmt.Sprintf(" parent 7064:30 limit %dp", cmp.Or(limit, qos.DefaultQueue))
		got := h.qdiscs()
		if h.managed() {
			if !strings.Contains(got, "qdisc fq_codel 30:"+words) || !strings.Contains(got, " ecn ") {
				t.Errorf("limit %d:\n%s", limit, got)
			}
		} else if !strings.Contains(got, "qdisc pfifo 30:"+words) {
			t.Errorf("limit %d:\n%s", limit, got)
		}
	}
}

// managed says whether the kernel has fq_codel: Debian's, in the virtual machines.
func (h *host) managed() bool { return os.Getenv("PWD_VM") != "" }

// What fq_codel drops because it has waited for too long is told apart from what a full queue
// drops.
func TestWaitedTooLong(t *testing.T) {
	h := newHost(t)
	if !h.managed() {
		return
	}
	// 100 ms a frame: all but the first wait for longer than 5 ms, for longer than 100 ms.
	h.must(h.set(h.shaped(qos.Class{Number: 3, Rate: 80e3, Ceiling: 80e3})))
	fill(h, qos.Handle(3))
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c := h.count(3)
		if c.Managed > 0 && c.Full == 0 && c.Frames+c.BacklogFrames+c.Drops() <= frames {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("of %d frames: %+v", frames, c)
		}
	}
}
