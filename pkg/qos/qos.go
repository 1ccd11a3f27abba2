// Package qos shapes what tunnels send: HTB on the interfaces of the underlay, a
// class for each tunnel.
//
// # Classes
//
// A packet is in the class whose Handle is its skb->priority, which the datapath
// sets. All else, the host's other traffic and control messages among it, is in no
// class: HTB sends it at once, before what waits in classes.
//
//	7064:           HTB; what is in no class is not delayed
//	└ 7064:1        the link
//	  ├ 7064:10     a tunnel, with a queue of its own
//	  └ 7064:20     another
//
// # Ownership
//
// A root qdisc of ours has the handle 7064:, and outlives the process. Others are never
// replaced, but for those that the kernel gives to an interface by itself; it
// gives them back when ours goes.
//
// A Manager belongs to one goroutine. Its setters take the whole desired state of
// an interface and change only what differs: classes are changed in place, and
// nothing that waits in them is lost.
package qos

import (
	"errors"
	"fmt"
)

const (
	major = 0x7064
	root  = major << 16
	link  = root | 1
)

// Handle is the skb->priority of packets of a class, by number: 1 to MaxNumber.
// Its last four bits are 0, so that a qdisc that takes them for a priority band
// (pfifo_fast) has them in the one of ordinary traffic.
func Handle(number uint16) uint32 { return root | uint32(number)<<4 }

// MaxNumber is the highest number of a class.
const MaxNumber = 0xfff

// Interface is how an interface of the underlay is to be shaped.
type Interface struct {
	Index int
	// Rate is what all classes together may send, in bits a second; 0 is no limit.
	Rate    uint64
	Classes []Class
}

// Class is one class: octets of packets with the link's header count.
type Class struct {
	// Number is 1 to MaxNumber, and unique in the interface.
	Number uint16
	// Rate is guaranteed, Ceiling the most, in bits a second; 0 is no guarantee, and
	// all that the interface may.
	Rate, Ceiling uint64
	// Priority is who takes first of what is left, 0 to 7.
	Priority uint8
	// Queue is how many packets wait at most; 0 is DefaultQueue.
	Queue uint32
}

// DefaultQueue is how many packets wait in a class at most.
const DefaultQueue = 1000

// Counters of a class since it was made.
type Counters struct {
	Octets, Frames, Drops uint64
	// BacklogOctets and BacklogFrames wait.
	BacklogOctets, BacklogFrames uint64
}

// OccupiedError says that an interface has a root qdisc that somebody else set.
type OccupiedError struct{ Interface, Kind string }

func (e *OccupiedError) Error() string {
	return fmt.Sprintf("%s has a root qdisc already, %s, which is left alone: remove it (tc qdisc del dev %s root), or take rate and ceiling out of the classes",
		e.Interface, e.Kind, e.Interface)
}

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

// shaped is a class as HTB wants it, rates in bits a second.
type shaped struct {
	rate, ceiling uint64
	priority      uint8
	queue         uint32
}

func (i *Interface) most() uint64 {
	if i.Rate == 0 {
		return unlimited
	}
	return min(i.Rate, unlimited)
}

// shape resolves defaults.
func (i *Interface) shape(c *Class) shaped {
	s := shaped{rate: max(c.Rate, least), ceiling: c.Ceiling, priority: c.Priority, queue: c.Queue}
	if s.ceiling == 0 || s.ceiling > i.most() {
		s.ceiling = i.most()
	}
	s.rate = min(s.rate, s.ceiling)
	if s.queue == 0 {
		s.queue = DefaultQueue
	}
	return s
}
