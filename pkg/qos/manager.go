package qos

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/underlay"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Manager shapes interfaces of one network namespace.
type Manager struct {
	drift.Log
	nl *netlink.Handle
	// set is what the classes of interfaces were last set to, by handle.
	set map[int]map[uint32]shaped
	// pacing is loaded while an interface is in paced, or is to be: those whose classes have
	// departure times. inherited says that there may be classes of a process before, of
	// interfaces that are not among them. pins is where maps are pinned, empty without a bpffs.
	pacing    *bpf.Pacing
	paced     map[int]*pacing
	inherited bool
	pins      string
	// replaced are the qdiscs that ours took the place of, memory where that is kept.
	replaced []Replaced
	memory   Memory
}

// Open makes a Manager of the calling thread's network namespace. Without a memory what
// was replaced is known to this process alone. bpfDir is where the clocks of departure times
// are pinned, and go on with the next process; if it is not on a bpffs, or empty, they do not.
func Open(memory Memory, bpfDir string) (*Manager, error) {
	pins, err := bpf.PinDir(bpfDir)
	if err != nil {
		return nil, &OpError{"look for pinned maps", err}
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, &OpError{"open netlink", err}
	}
	m := &Manager{nl: nl, set: make(map[int]map[uint32]shaped), paced: make(map[int]*pacing), pins: pins, memory: memory}
	if memory == nil {
		return m, nil
	}
	if m.replaced, err = memory.Replaced(); err != nil {
		nl.Close()
		return nil, &OpError{"read which qdiscs were replaced", err}
	}
	return m, nil
}

// Close gives up handles; what is set stays.
func (m *Manager) Close() {
	m.nl.Close()
	if m.pacing != nil {
		m.pacing.Close()
	}
}

// Set shapes those interfaces, and no others any more. What it cannot do on one
// does not keep it from the rest. Errors: *OccupiedError; *NotGivenBackError of one that
// is shaped no more; *OpError, in which ErrNoHTB, ErrNoFQ and *tcfilter.IngressError are.
func (m *Manager) Set(interfaces []Interface) error {
	roots, err := m.roots()
	if err != nil {
		return err
	}
	// paced are those of which the program may have classes.
	wanted, paced := make(map[int]bool), make(map[int]bool)
	var errs []error
	for i := range interfaces {
		wanted[interfaces[i].Index] = true
		paced[interfaces[i].Index] = interfaces[i].EDT
		l, err := m.nl.LinkByIndex(interfaces[i].Index)
		if err != nil {
			errs = append(errs, &OpError{fmt.Sprintf("find interface %d", interfaces[i].Index), err})
			continue
		}
		err = m.shape(l, roots[interfaces[i].Index], &interfaces[i])
		paced[interfaces[i].Index] = interfaces[i].EDT || err != nil // what a process before has set goes on
		errs = append(errs, err)
	}
	maps.DeleteFunc(m.set, func(index int, _ map[uint32]shaped) bool { return !wanted[index] })
	errs = append(errs, m.unpaceOthers(wanted, paced, slices.ContainsFunc(interfaces, func(i Interface) bool { return i.EDT })))
	for index, q := range roots {
		if ours(q) && !wanted[index] {
			errs = append(errs, m.clear(q))
		}
	}
	return errors.Join(errs...)
}

// Cleanup takes what is ours off all interfaces.
func (m *Manager) Cleanup() error {
	errs := []error{m.Set(nil)}
	// Somebody may have taken away the qdisc alone, and left the program.
	links, err := m.nl.LinkList()
	if err != nil {
		return errors.Join(append(errs, &OpError{"list the interfaces", err})...)
	}
	for _, l := range links {
		errs = append(errs, m.unpace(l))
	}
	return errors.Join(errs...)
}

// Egress is the interface of packets from one address to another; local may be the
// zero one. Without remote it is the interface that has local.
func (m *Manager) Egress(local, remote netip.Addr) (index int, err error) {
	if !remote.IsValid() {
		return m.holder(local)
	}
	routes, err := underlay.Routes(m.nl, local, remote)
	if err == nil && len(routes) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return 0, &OpError{fmt.Sprintf("find the way to %s", remote), err}
	}
	return routes[0].LinkIndex, nil
}

func (m *Manager) holder(local netip.Addr) (index int, err error) {
	addrs, err := m.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, &OpError{"list addresses", err}
	}
	for _, a := range addrs {
		if a.IP.Equal(local.AsSlice()) {
			return a.LinkIndex, nil
		}
	}
	return 0, &OpError{fmt.Sprintf("find the interface with %s", local), unix.EADDRNOTAVAIL}
}

// roots are the root qdiscs by interface, without those that the kernel gave them.
func (m *Manager) roots() (map[int]netlink.Qdisc, error) {
	qdiscs, err := m.nl.QdiscList(nil)
	if err != nil {
		return nil, &OpError{"list qdiscs", err}
	}
	roots := make(map[int]netlink.Qdisc)
	for _, q := range qdiscs {
		// Those that the kernel gives have no handle of their own.
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Handle != 0 {
			roots[a.LinkIndex] = q
		}
	}
	return roots, nil
}

func ours(q netlink.Qdisc) bool {
	return q != nil && (q.Attrs().Handle == root && q.Type() == "htb" || q.Attrs().Handle == paced && q.Type() == holder)
}

// clear takes our qdisc off, and gives back what was there before; what waits is lost.
func (m *Manager) clear(q netlink.Qdisc) error {
	index := q.Attrs().LinkIndex
	if q.Attrs().Handle == paced {
		if err := m.unpace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
			return err
		}
	}
	restored, err := m.restore(index)
	if restored || m.replacedAt(index) >= 0 {
		return err
	}
	if err := m.nl.QdiscDel(q); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return &OpError{fmt.Sprintf("remove the qdisc of interface %d", index), err}
	}
	return err
}

// object is what is told of an interface.
func object(l netlink.Link) string { return "interface " + l.Attrs().Name }

func (m *Manager) shape(l netlink.Link, q netlink.Qdisc, i *Interface) error {
	if err := m.follow(l, ours(q)); err != nil {
		return err
	}
	switch {
	case q != nil && !ours(q) && !i.Replace:
		return m.leave(l, &OccupiedError{l.Attrs().Name, q.Type(), ""})
	case ours(q) && !i.Replace && m.replacedAt(i.Index) >= 0:
		// What was there is to be left alone from now on.
		delete(m.set, i.Index)
		kind := m.replaced[m.replacedAt(i.Index)].Qdiscs[0].Kind
		if err := m.clear(q); err != nil {
			return err
		}
		return m.leave(l, &OccupiedError{l.Attrs().Name, kind, ""})
	case !ours(q):
		known := m.set[i.Index] != nil || m.paced[i.Index] != nil
		if known && m.Held(object(l)) {
			return nil
		}
		if q == nil {
			break
		}
		if err := m.replace(l, q.Type()); errors.As(err, new(*OccupiedError)) {
			return m.leave(l, err)
		} else if err != nil {
			return err
		}
		if err := m.put(l, q, i); err != nil {
			return errors.Join(err, m.forgetUnlessOurs(i.Index))
		}
		return nil
	}
	return m.put(l, q, i)
}

// put has an interface, whose root qdisc may be replaced, be shaped.
func (m *Manager) put(l netlink.Link, q netlink.Qdisc, i *Interface) error {
	if i.EDT {
		delete(m.set, i.Index)
		return m.pace(l, q, i)
	}
	if err := m.setHTB(l, q); err != nil {
		return err
	}
	// It may be left from before: from departure times that HTB took the place of, or from
	// a time when this failed.
	if m.set[i.Index] == nil {
		if err := m.unpace(l); err != nil {
			return err
		}
	}
	return m.classes(l, i)
}

// leave is for an interface that is not shaped for that reason: nothing is dropped for the
// ceilings of classes there either.
func (m *Manager) leave(l netlink.Link, why error) error {
	return errors.Join(why, m.unpace(l))
}

// setHTB has an interface have HTB, if it does not have it.
func (m *Manager) setHTB(l netlink.Link, q netlink.Qdisc) error {
	index := l.Attrs().Index
	if q != nil && q.Attrs().Handle == root {
		return nil
	}
	_, known := m.set[index]
	delete(m.set, index)
	htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Handle: root, Parent: netlink.HANDLE_ROOT})
	// What is in no class, on an interface that would queue next to nothing by itself.
	direct := uint32(max(l.Attrs().TxQLen, DefaultQueue))
	htb.DirectQlen = &direct
	err := m.nl.QdiscReplace(htb)
	if known {
		m.Add(object(l), "the qdisc that shapes it was removed", "made again", err)
	}
	if errors.Is(err, unix.ENOENT) {
		return &OpError{"shape " + l.Attrs().Name, ErrNoHTB}
	} else if err != nil {
		return &OpError{"add a qdisc to " + l.Attrs().Name, err}
	}
	return nil
}

// classes makes the classes what they are to be. Those that go leave first: none that
// stays is in them. One that is in another group than it was is made anew, and
// what waits in it is lost.
func (m *Manager) classes(l netlink.Link, i *Interface) error {
	want, order, err := i.tree()
	if err != nil {
		return err
	}
	there, err := m.parents(l)
	if err != nil {
		return err
	}
	set := m.set[i.Index]
	if set == nil {
		set = make(map[uint32]shaped)
		m.set[i.Index] = set
	}
	if err := m.prune(l, there, want, set); err != nil {
		return err
	}
	for _, handle := range order {
		_, is := there[handle]
		if is && set[handle] == want[handle] {
			continue
		}
		missing := !is && set[handle] == want[handle]
		if missing && m.Held(object(l)) {
			continue
		}
		delete(set, handle)
		err := m.setClass(i.Index, handle, want[handle])
		if missing {
			m.Add(object(l), "class "+netlink.HandleStr(handle)+" was removed", "made again", err)
		}
		if err != nil {
			return &OpError{fmt.Sprintf("set class %s of %s", netlink.HandleStr(handle), l.Attrs().Name), err}
		}
		set[handle] = want[handle]
	}
	return nil
}

// prune removes the classes that are not wanted, or not where they are, and what is in them.
func (m *Manager) prune(l netlink.Link, there map[uint32]uint32, want, set map[uint32]shaped) error {
	stays := func(handle uint32) bool {
		for h := handle; h != root; h = there[h] {
			parent, is := there[h]
			if w, wanted := want[h]; !is || !wanted || w.parent != parent {
				return false
			}
		}
		return true
	}
	// The deepest first.
	depth := func(handle uint32) (n int) {
		for h := handle; h != root && n < len(there); h = there[h] {
			n++
		}
		return n
	}
	var goes []uint32
	for handle := range there {
		if !stays(handle) {
			goes = append(goes, handle)
		}
	}
	slices.SortFunc(goes, func(a, b uint32) int { return cmp.Or(depth(b)-depth(a), cmp.Compare(a, b)) })
	for _, handle := range goes {
		c := &netlink.GenericClass{ClassAttrs: netlink.ClassAttrs{LinkIndex: l.Attrs().Index, Handle: handle, Parent: there[handle]}, ClassType: "htb"}
		if err := m.nl.ClassDel(c); err != nil && !errors.Is(err, unix.ENOENT) {
			return &OpError{fmt.Sprintf("remove class %s of %s", netlink.HandleStr(handle), l.Attrs().Name), err}
		}
	}
	for _, handle := range goes {
		delete(set, handle)
		delete(there, handle)
	}
	return nil
}

// setClass makes a class, or changes it in place.
func (m *Manager) setClass(index int, handle uint32, s shaped) error {
	c := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: index, Handle: handle, Parent: s.parent}, netlink.HtbClassAttrs{
		Rate: s.rate, Ceil: s.ceiling, Buffer: burst(s.rate), Cbuffer: burst(s.ceiling), Prio: uint32(s.priority),
		// What classes of one priority take of what is left is in proportion to it.
		Quantum: uint32(min(max(s.rate/8/100, 1600), 60_000)),
	})
	if err := m.nl.ClassReplace(c); err != nil || s.queue == 0 {
		return err
	}
	return m.setQueue(index, handle, s.queue)
}

// setQueue gives a class its queue, or changes how long it is: fq_codel, or a plain
// one where the kernel does not have that. The handle is made of the class's number.
func (m *Manager) setQueue(index int, class, limit uint32) error {
	attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: class << 16, Parent: class}
	q := netlink.NewFqCodel(attrs)
	q.Limit = limit
	// Invalid: there is a queue of the other kind already, which stays what it is.
	if err := m.nl.QdiscReplace(q); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// struct tc_fifo_qopt, which the library does not have.
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: attrs.Handle, Parent: class})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("pfifo")))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(limit)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// burst is how many octets may be sent at once: those of 2 ms, and two full packets at least.
func burst(rate uint64) uint32 { return uint32(min(max(rate/8/500, 3200), 64<<20)) }

// parents are the classes that are there, and what each is in.
func (m *Manager) parents(l netlink.Link) (map[uint32]uint32, error) {
	classes, err := m.nl.ClassList(l, netlink.HANDLE_NONE)
	if err != nil {
		return nil, &OpError{"list the classes of " + l.Attrs().Name, err}
	}
	there := make(map[uint32]uint32)
	for _, c := range classes {
		a := c.Attrs()
		if c.Type() != "htb" || a.Handle>>16 != major {
			continue
		}
		there[a.Handle] = a.Parent
		if a.Parent == netlink.HANDLE_ROOT {
			there[a.Handle] = root
		}
	}
	return there, nil
}
