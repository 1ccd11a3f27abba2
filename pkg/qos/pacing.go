package qos

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// paced is the handle of the root qdisc of an interface whose classes have departure times.
const paced = 0x7065 << 16

// ErrNoFQ says that the kernel has no fq.
var ErrNoFQ = errors.New("the kernel has no fq (sch_fq), which keeps departure times: have HTB (`shaper: htb`)")

// departs is where the program is that gives packets their times.
var departs = tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7066, Name: "pwd_depart"}

const (
	fullPacket = 1514
	// waits is how long packets wait at most where a class does not say it: several of TCP's long
	// segments, which leave, or are dropped, as one. leastWaiting is how many full packets do
	// in any case. longestWait stays below fq's own horizon, ten seconds.
	waits        = 200e6
	leastWaiting = 10
	longestWait  = 5e9
	// fqLimit is how many packets wait in fq: those of classes are bounded by their times.
	fqLimit = 1 << 20
)

// paceOf is how the packets of a class get their times.
func paceOf(ceiling uint64, queue uint32) bpf.Pace {
	horizon := uint64(waits)
	packets := uint64(leastWaiting)
	if queue != 0 {
		horizon, packets = 0, uint64(queue)
	}
	horizon = min(max(horizon, packets*fullPacket*8*1e9/ceiling), longestWait)
	return bpf.Pace{Rate: ceiling, Horizon: horizon, Mark: horizon / 2}
}

// pace has the classes of an interface keep their ceilings by departure times.
func (m *Manager) pace(l netlink.Link, root netlink.Qdisc, i *Interface) error {
	if m.pacing == nil {
		p, err := bpf.LoadPacing()
		if err != nil {
			return &OpError{"shape " + l.Attrs().Name + " by departure times", err}
		}
		m.pacing = p
	}
	index := l.Attrs().Index
	set := m.paced[index]
	if set == nil {
		set = make(map[uint16]bpf.Pace)
	}
	want := make(map[uint16]bpf.Pace)
	for _, c := range i.Classes {
		if _, twice := want[c.Number]; c.Number == 0 || c.Number > MaxNumber || twice || c.Ceiling == 0 {
			return &OpError{fmt.Sprintf("give departure times to class %d of interface %d", c.Number, index), unix.EINVAL}
		}
		want[c.Number] = paceOf(c.Ceiling, c.Queue)
	}
	for number := range set {
		if _, stays := want[number]; !stays {
			if err := m.pacing.Delete(number); err != nil {
				return &OpError{fmt.Sprintf("forget class %d", number), err}
			}
			delete(set, number)
		}
	}
	for number, p := range want {
		if set[number] == p {
			continue
		}
		if err := m.pacing.Put(number, &p); err != nil {
			return &OpError{fmt.Sprintf("pace class %d", number), err}
		}
		set[number] = p
	}
	known := m.paced[index] != nil
	m.paced[index] = set
	if err := m.attach(l, known); err != nil {
		return err
	}
	if root != nil && root.Attrs().Handle == paced {
		return nil
	}
	err := setFQ(index)
	if known {
		m.Add(object(l), "the qdisc that shapes it was removed", "made again", err)
	}
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoFQ
	}
	if err != nil {
		return errors.Join(&OpError{"shape " + l.Attrs().Name, err}, m.unpace(l))
	}
	return nil
}

// attach has the program at the egress of an interface; known says that it was there.
func (m *Manager) attach(l netlink.Link, known bool) error {
	if known {
		there, err := tcfilter.Attached(m.nl, l, departs)
		if err != nil || there || m.Held(object(l)) {
			return err
		}
	}
	brought, err := tcfilter.AttachToOthers(m.nl, l, departs, m.pacing.Program, m.brought[l.Attrs().Index])
	m.brought[l.Attrs().Index] = brought
	if known {
		m.Add(object(l), "the program that shapes it was removed", "attached again", err)
	}
	if err != nil {
		return &OpError{"shape " + l.Attrs().Name, err}
	}
	return nil
}

// unpaceOthers is unpace of all interfaces but those.
func (m *Manager) unpaceOthers(wanted map[int]bool) error {
	var errs []error
	for _, index := range slices.Sorted(maps.Keys(m.paced)) {
		if !wanted[index] {
			// One that has gone took the program along.
			errs = append(errs, m.unpace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}))
		}
	}
	return errors.Join(errs...)
}

// unpace takes the program off, if it is there.
func (m *Manager) unpace(l netlink.Link) error {
	for number := range m.paced[l.Attrs().Index] {
		if err := m.pacing.Delete(number); err != nil {
			return &OpError{fmt.Sprintf("forget class %d", number), err}
		}
	}
	delete(m.paced, l.Attrs().Index)
	delete(m.brought, l.Attrs().Index)
	if err := tcfilter.DetachFromOthers(m.nl, l, departs); err != nil {
		return &OpError{"stop shaping " + l.Attrs().Name, err}
	}
	return nil
}

// setFQ makes fq the root qdisc. It keeps the times that packets have, and nothing else: the
// rates that sockets pace themselves by are theirs to keep, as under any other qdisc.
func setFQ(index int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: paced, Parent: netlink.HANDLE_ROOT})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("fq")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	for _, o := range []struct{ attribute, value int }{
		{nl.TCA_FQ_PLIMIT, fqLimit}, {nl.TCA_FQ_FLOW_PLIMIT, fqLimit}, {nl.TCA_FQ_RATE_ENABLE, 0},
		// Packets of no socket are told apart by all of their hash: that of a class is nobody else's.
		{nl.TCA_FQ_ORPHAN_MASK, -1},
	} {
		options.AddRtAttr(o.attribute, nl.Uint32Attr(uint32(o.value)))
	}
	req.AddData(options)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// departures are the counters of an interface's classes that have departure times.
func (m *Manager) departures(index int) (map[uint16]Counters, error) {
	now := monotonic()
	all := make(map[uint16]Counters)
	for number, p := range m.paced[index] {
		d, err := m.pacing.Departures(number)
		if err != nil {
			return nil, &OpError{"read what classes have sent", err}
		}
		c := Counters{Octets: d.Octets, Frames: d.Frames, Full: d.Full, Marked: d.Marked}
		if d.Next > now {
			c.BacklogOctets = uint64(float64(d.Next-now) * float64(p.Rate) / 8e9)
		}
		all[number] = c
	}
	return all, nil
}

// monotonic is the programs' clock.
func monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return uint64(t.Nano())
}
