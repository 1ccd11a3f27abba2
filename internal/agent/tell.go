package agent

import (
	"fmt"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

const (
	// burstEvents is how many events of one object are told in one burstInterval: a peer
	// that comes and goes without end must not push out what happened to the others.
	burstEvents   = 24
	burstInterval = time.Minute
)

// burst counts the events of one object.
type burst struct {
	since time.Time
	n     int
	// more were not told, the last of them is last.
	more int
	last api.Event
}

// event keeps what happened for `pwctl events`, and logs it.
func (a *Agent) event(severity, object, message, reason string) {
	a.tell(api.Event{Severity: severity, Object: object, Message: message, Reason: reason})
}

// tell is event with the cause and what to do. Of what happens to one object too
// often, the rest is counted and told of at the end of the interval.
func (a *Agent) tell(e api.Event) {
	now := time.Now()
	b := a.bursts[e.Object]
	if b == nil {
		b = &burst{since: now}
		a.bursts[e.Object] = b // of objects of the topology, and for an interval only
	}
	if b.n++; b.n > burstEvents {
		b.more, b.last = b.more+1, e
		return
	}
	a.tellNow(now, e)
}

func (a *Agent) tellNow(now time.Time, e api.Event) {
	e.Time = now
	a.events.put(e)
	log := a.log.Info
	switch e.Severity {
	case "warning":
		log = a.log.Warn
	case "error":
		log = a.log.Error
	}
	args := []any{"object", e.Object, "reason", e.Reason}
	if e.Next != "" {
		args = append(args, "next", e.Next)
	}
	log(e.Message, args...)
}

// tellRest tells of what was only counted in intervals that are over.
func (a *Agent) tellRest(now time.Time) {
	for object, b := range a.bursts {
		if now.Sub(b.since) < burstInterval {
			continue
		}
		delete(a.bursts, object)
		if b.more > 0 {
			e := b.last
			e.Message = fmt.Sprintf("%s, the last of %d more changes in %v", e.Message, b.more, now.Sub(b.since).Round(time.Second))
			a.tellNow(now, e)
		}
	}
}
