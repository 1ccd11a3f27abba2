// Package qos shapes what tunnels send, on the interfaces of the underlay, with a class for
// each tunnel: by HTB, in groups that have a limit together, or by departure times, which the
// qdisc fq keeps (Interface.EDT).
//
// # Classes
//
// A packet is in the class whose Handle is its skb->priority, which the datapath
// sets. All else, the host's other traffic and control messages among it, is in no
// class, and sent at once, before what waits in classes. HTB has a tree of them:
//
//	7064:             HTB; what is in no class is not delayed
//	└ 7064:11         an underlay: group 1
//	  └ 7064:21       a pair of sites: group 2, in group 1
//	    ├ 7064:10     a tunnel, with a queue of its own
//	    └ 7064:20     another
//
// A group has no guarantee of its own, so that what its classes leave goes by priority
// over all of the underlay.
//
// With departure times a program at the egress of the interface (bpf/pacing.c) has a clock for
// each class, at the rate of its ceiling, and no class knows of another:
//
//	7065:             fq; a flow for each class, and those of the host
//
// # Ownership
//
// A root qdisc of ours has the handle 7064: or 7065:, and outlives the process, as the program
// of departure times does. Those that the kernel gives to an interface by itself are replaced,
// and it gives them back when ours goes.
// Others are replaced where that is asked for (Interface.Replace); they are noted before, and
// set again when ours goes.
//
// A Manager belongs to one goroutine. Its setters take the whole desired state of
// an interface and change only what differs: classes are changed in place, and
// nothing that waits in them is lost.
package qos

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	major = 0x7064
	root  = major << 16
)

// Handle is the skb->priority of packets of a class, by number: 1 to MaxNumber.
// Its last four bits are 0, so that a qdisc that takes them for a priority band
// (pfifo_fast) has them in the one of ordinary traffic.
func Handle(number uint16) uint32 { return root | uint32(number)<<4 }

// groupHandle is a group's.
func groupHandle(number uint16) uint32 { return Handle(number) | 1 }

// MaxNumber is the highest number of a class, and of a group.
const MaxNumber = 0xfff

// Interface is how an interface of the underlay is to be shaped.
type Interface struct {
	Index int
	// Replace says that a root qdisc that somebody else set gives way, and comes back in the
	// end, if the kernel takes it back.
	Replace bool
	// EDT says that classes keep their ceilings by earliest departure times and fq, instead of
	// HTB. Each has to have a ceiling then; guarantees, priorities and groups are nothing there.
	EDT bool
	// Groups come after those that they are in.
	Groups  []Group
	Classes []Class
}

// Group is classes, and groups, that have a limit together.
type Group struct {
	// Number is 1 to MaxNumber, unique among the interface's groups. In is the group that
	// it is in, 0 for none.
	Number, In uint16
	// Rate is what all in it together may send, in bits a second; 0 is no limit.
	Rate uint64
}

// Class is one class: octets of packets with the link's header count.
type Class struct {
	// Number is 1 to MaxNumber, and unique in the interface. In is the group that it is in.
	Number, In uint16
	// Rate is guaranteed, Ceiling the most, in bits a second; 0 is no guarantee, and
	// all that the group may.
	Rate, Ceiling uint64
	// Priority is who takes first of what is left, 0 to 7.
	Priority uint8
	// Queue is how many packets wait at most; 0 is DefaultQueue.
	Queue uint32
}

// DefaultQueue is how many packets wait in a class at most.
const DefaultQueue = 1000

// OccupiedError says that an interface has a root qdisc that somebody else set, and which
// is left alone. Why says what keeps it from being replaced, empty if nobody asked for that.
type OccupiedError struct{ Interface, Kind, Why string }

func (e *OccupiedError) Error() string {
	if e.Why != "" {
		return fmt.Sprintf("%s has a root qdisc already, %s, which is not replaced, because %s: remove it (tc qdisc del dev %s root), or take rate and ceiling out of the classes",
			e.Interface, e.Kind, e.Why, e.Interface)
	}
	return fmt.Sprintf("%s has a root qdisc already, %s, which is left alone: remove it (tc qdisc del dev %s root), have it replaced (qdisc: replace), or take rate and ceiling out of the classes",
		e.Interface, e.Kind, e.Interface)
}

// NotGivenBackError says that the kernel does not take back a qdisc that ours replaced: the
// interface, or the queue of it that is Parent, keeps what the kernel gives it by itself.
type NotGivenBackError struct {
	Interface, Kind string
	Parent          uint32
	Err             error
}

func (e *NotGivenBackError) Error() string {
	return fmt.Sprintf("%s does not get its qdisc %s (parent %s) back: %v; set it by hand if it is needed", e.Interface, e.Kind, netlink.HandleStr(e.Parent), e.Err)
}

func (e *NotGivenBackError) Unwrap() error { return e.Err }

// OpError says what could not be done.
type OpError struct {
	Op  string
	Err error
}

func (e *OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *OpError) Unwrap() error { return e.Err }

// ErrNoHTB says that the kernel has no HTB.
var ErrNoHTB = errors.New("the kernel has no HTB (sch_htb)")

// unlimited stands for no limit: 1 Tbit/s.
const unlimited = 1e12

// least is the guarantee of classes without one: HTB has to have one.
const least = 8000

// shaped is a class, or a group, as HTB wants it, rates in bits a second.
type shaped struct {
	parent        uint32
	rate, ceiling uint64
	priority      uint8
	queue         uint32 // 0 for a group
}

// tree is what classes the interface is to have, by handle, and the handles in an order in
// which parents come first.
func (i *Interface) tree() (want map[uint32]shaped, order []uint32, err error) {
	want = map[uint32]shaped{root: {ceiling: unlimited}}
	add := func(number, in uint16, handle uint32, s shaped) error {
		s.parent = root
		if in != 0 {
			s.parent = groupHandle(in)
		}
		above, there := want[s.parent]
		if _, twice := want[handle]; number == 0 || number > MaxNumber || !there || twice {
			return &OpError{fmt.Sprintf("make class %d in group %d of interface %d", number, in, i.Index), unix.EINVAL}
		}
		if s.ceiling == 0 || s.ceiling > above.ceiling {
			s.ceiling = above.ceiling
		}
		s.rate = min(max(s.rate, least), s.ceiling)
		want[handle] = s
		order = append(order, handle)
		return nil
	}
	for k := range i.Groups {
		g := &i.Groups[k]
		s := shaped{ceiling: g.Rate}
		if g.In == 0 {
			s.rate = cmp.Or(g.Rate, unlimited)
		}
		if err := add(g.Number, g.In, groupHandle(g.Number), s); err != nil {
			return nil, nil, err
		}
	}
	for k := range i.Classes {
		c := &i.Classes[k]
		s := shaped{rate: c.Rate, ceiling: c.Ceiling, priority: c.Priority, queue: cmp.Or(c.Queue, DefaultQueue)}
		if err := add(c.Number, c.In, Handle(c.Number), s); err != nil {
			return nil, nil, err
		}
	}
	delete(want, root)
	return want, order, nil
}
