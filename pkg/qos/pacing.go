package qos

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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
var departs = tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: tcfilter.PriorityDepartures, Name: "pwd_depart"}

const (
	fullPacket = 1514
	// waits is how long packets wait at most where a class does not say it: several of TCP's long
	// segments, which leave, or are dropped, as one. leastWaiting is how many full packets do
	// in any case. longestWait stays below fq's own horizon, ten seconds.
	waits        = 200 * time.Millisecond
	leastWaiting = 10
	longestWait  = 5 * time.Second
	// smallPacket is the least that a tunnel's has, about: octets of outer headers and a frame.
	smallPacket = 100
	// othersLimit is fq's own limit, for packets of no class beside those of classes, and
	// otherFlow its limit of a flow. mostLimit bounds what memory fq may take.
	othersLimit = 10_000
	otherFlow   = 100
	mostLimit   = 1 << 20
)

// holder is the kind of qdisc that keeps times.
var holder = "fq"

// pacing is what an interface with departure times was last set to.
type pacing struct {
	// classes are those of the program, by number.
	classes map[uint16]bpf.Pace
	// limits are those of fq, zero while it is not set.
	limits limits
	// brought says that the clsact qdisc came with the program.
	brought bool
}

// limits are how many packets wait in fq, and in one flow of it, at most.
type limits struct{ all, flow uint32 }

// limitsOf has room in fq for what may wait in those classes, so that it is their times that
// bound it, be it of small packets, and for about as much of others as fq has by itself.
func limitsOf(classes map[uint16]bpf.Pace) limits {
	all, flow := uint64(othersLimit), uint64(otherFlow)
	for _, p := range classes {
		packets := min(p.Rate/8*(p.Horizon/1e3)/1e6/smallPacket+leastWaiting, mostLimit)
		all += packets
		flow = max(flow, packets)
	}
	return limits{uint32(min(all, mostLimit)), uint32(flow)}
}

// paceOf is how the packets of a class get their times.
func paceOf(ceiling uint64, queue uint32) bpf.Pace {
	horizon := uint64(waits)
	packets := uint64(leastWaiting)
	if queue != 0 {
		horizon, packets = 0, uint64(queue)
	}
	horizon = min(max(horizon, packets*fullPacket*8*uint64(time.Second)/ceiling), uint64(longestWait))
	return bpf.Pace{Rate: ceiling, Horizon: horizon, Mark: horizon / 2}
}

// pace has the classes of an interface keep their ceilings by departure times.
func (m *Manager) pace(l netlink.Link, root netlink.Qdisc, i *Interface) error {
	if m.pacing == nil {
		p, err := bpf.LoadPacing(m.pins)
		if err != nil {
			return &OpError{"shape " + l.Attrs().Name + " by departure times", err}
		}
		m.pacing, m.inherited = p, true
		if err := bpf.RemoveOtherLayouts(m.pins, bpf.PartPacing); err != nil {
			return &OpError{"shape " + l.Attrs().Name + " by departure times", err}
		}
	}
	index := l.Attrs().Index
	want := make(map[uint16]bpf.Pace)
	for _, c := range i.Classes {
		if _, twice := want[c.Number]; c.Number == 0 || c.Number > MaxNumber || twice || c.Ceiling == 0 {
			return &OpError{fmt.Sprintf("give departure times to class %d of interface %d", c.Number, index), unix.EINVAL}
		}
		want[c.Number] = paceOf(c.Ceiling, c.Queue)
	}
	known := m.paced[index] != nil
	there := ours(root) && root.Attrs().Handle == paced
	err := m.putClasses(index, want)
	if err == nil {
		err = m.attach(l, known)
	}
	if err == nil {
		err = m.hold(l, limitsOf(want), known, there)
	}
	switch {
	case err == nil || known && there:
		return err
	case there: // what a process before has set goes on
		delete(m.paced, index)
		return err
	}
	return errors.Join(err, m.unpace(l))
}

// putClasses has the program pace those classes of an interface, and no others of it.
func (m *Manager) putClasses(index int, want map[uint16]bpf.Pace) error {
	p := m.paced[index]
	if p != nil && maps.Equal(p.classes, want) {
		return nil
	}
	if err := m.forgetClasses(func(c bpf.PaceKey) bool {
		_, stays := want[uint16(c.Number)]
		return int(c.Ifindex) == index && !stays
	}); err != nil {
		return err
	}
	if p == nil {
		p = &pacing{classes: make(map[uint16]bpf.Pace)}
		m.paced[index] = p
	}
	set := p.classes
	maps.DeleteFunc(set, func(number uint16, _ bpf.Pace) bool { _, stays := want[number]; return !stays })
	for number, p := range want {
		if set[number] == p {
			continue
		}
		if err := m.pacing.Put(classOf(index, number), &p); err != nil {
			return &OpError{fmt.Sprintf("pace class %d of interface %d", number, index), err}
		}
		set[number] = p
	}
	return nil
}

// hold has an interface have fq with those limits; there says that it has one, known that it had.
func (m *Manager) hold(l netlink.Link, want limits, known, there bool) error {
	index := l.Attrs().Index
	if there && m.paced[index].limits == want {
		return nil
	}
	err := setFQ(index, want)
	if known && !there {
		m.Add(object(l), "the qdisc that shapes it was removed", "made again", err)
	}
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoFQ
	}
	if err != nil {
		return &OpError{"shape " + l.Attrs().Name, err}
	}
	m.paced[index].limits = want
	return nil
}

func classOf(index int, number uint16) bpf.PaceKey {
	return bpf.PaceKey{Ifindex: uint32(index), Number: uint32(number)}
}

// forgetClasses has the program forget classes, those of a process before ours too.
func (m *Manager) forgetClasses(which func(bpf.PaceKey) bool) error {
	if m.pacing == nil {
		return nil
	}
	all, err := m.pacing.Classes()
	if err != nil {
		return &OpError{"list classes with departure times", err}
	}
	for _, c := range all {
		if !which(c) {
			continue
		}
		if err := m.pacing.Delete(c); err != nil {
			return &OpError{fmt.Sprintf("forget class %d of interface %d", c.Number, c.Ifindex), err}
		}
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
	p := m.paced[l.Attrs().Index]
	var err error
	p.brought, err = tcfilter.AttachToOthers(m.nl, l, departs, m.pacing.Program, p.brought)
	if known {
		m.Add(object(l), "the program that shapes it was removed", "attached again", err)
	}
	if err != nil {
		return &OpError{"shape " + l.Attrs().Name, err}
	}
	return nil
}

// unpaceOthers is unpace of all interfaces but those; of a process before only the classes of paced ones stay. Where
// none is to have departure times nothing stays pinned.
func (m *Manager) unpaceOthers(wanted, paced map[int]bool, any bool) error {
	var errs []error
	for _, index := range slices.Sorted(maps.Keys(m.paced)) {
		if !wanted[index] {
			// One that has gone took the program along.
			errs = append(errs, m.unpace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}))
		}
	}
	if m.inherited {
		err := m.forgetClasses(func(c bpf.PaceKey) bool { return !paced[int(c.Ifindex)] })
		m.inherited = err != nil
		errs = append(errs, err)
	}
	if any || len(m.paced) > 0 {
		return errors.Join(errs...)
	}
	errs = append(errs, bpf.RemovePins(m.pins, bpf.PartPacing))
	if m.pacing != nil {
		errs = append(errs, m.pacing.Close())
		m.pacing, m.inherited = nil, false
	}
	return errors.Join(errs...)
}

// unpace takes the program off, if it is there.
func (m *Manager) unpace(l netlink.Link) error {
	index := l.Attrs().Index
	if err := tcfilter.DetachFromOthers(m.nl, l, departs); err != nil {
		return &OpError{"stop shaping " + l.Attrs().Name, err}
	}
	delete(m.paced, index)
	return m.forgetClasses(func(c bpf.PaceKey) bool { return int(c.Ifindex) == index })
}

// setFQ makes fq the root qdisc. It keeps the times that packets have, and nothing else: the
// rates that sockets pace themselves by are theirs to keep, as under any other qdisc.
func setFQ(index int, l limits) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: paced, Parent: netlink.HANDLE_ROOT})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(holder)))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	for _, o := range []struct {
		attribute int
		value     uint32
	}{
		{nl.TCA_FQ_PLIMIT, l.all}, {nl.TCA_FQ_FLOW_PLIMIT, l.flow}, {nl.TCA_FQ_RATE_ENABLE, 0},
		// Packets of no socket are told apart by all of their hash: that of a class is nobody else's.
		{nl.TCA_FQ_ORPHAN_MASK, 1<<32 - 1},
	} {
		options.AddRtAttr(o.attribute, nl.Uint32Attr(o.value))
	}
	req.AddData(options)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// departures are the counters of an interface's classes that have departure times.
func (m *Manager) departures(index int) (map[uint16]Counters, error) {
	now := bpf.Now()
	all := make(map[uint16]Counters)
	for number, p := range m.paced[index].classes {
		d, err := m.pacing.Departures(classOf(index, number))
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
