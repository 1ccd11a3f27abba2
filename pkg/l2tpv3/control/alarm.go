package control

import (
	"container/heap"
	"time"
)

// timed is what has timers: a tunnel, a connection or a session.
type timed interface {
	// deadline is the earliest of its timers; zero if none runs.
	deadline() time.Time
	// expire handles every timer that has run out by now.
	expire(now time.Time)
	alarm() *alarm
}

// alarm is an object's place among the timers.
type alarm struct {
	at    time.Time
	index int // in the heap, plus 1; 0 is not there
	owner timed
	// touched is set while the object waits to be settled.
	touched bool
}

// alarms is a heap by time.
type alarms []*alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}
func (h *alarms) Push(x any) {
	a := x.(*alarm)
	*h = append(*h, a)
	a.index = len(*h)
}
func (h *alarms) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	a.index = 0
	return a
}

// set puts x where its deadline says.
func (h *alarms) set(x timed) {
	a, at := x.alarm(), x.deadline()
	switch {
	case at.IsZero() && a.index == 0:
	case at.IsZero():
		heap.Remove(h, a.index-1)
	case a.index == 0:
		a.at, a.owner = at, x
		heap.Push(h, a)
	case !at.Equal(a.at):
		a.at = at
		heap.Fix(h, a.index-1)
	}
}

// earliest is the lesser of two times, of which either may be zero: not running.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// past reports whether a timer has run out.
func past(now, at time.Time) bool { return !at.IsZero() && !at.After(now) }
