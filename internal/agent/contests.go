package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/drift"
)

// contests are what something else keeps changing: such things are put back rarely, so
// that the two do not do nothing else.
type contests struct {
	drift.Damper
	now map[string]*contest
}

// contest is one of them, by its thing (drift.Repair).
type contest struct {
	object, found string
	last          time.Time
}

// contestFix is what to do about one.
const contestFix = "stop what does that (NetworkManager, a script, another controller), or take it out of the topology: `pwctl drift` has what was changed"

// held says that a thing is to be left alone for now.
func (a *Agent) held(thing string) bool { return a.contests.Held(time.Now(), thing) }

// contend takes in what was put back.
func (a *Agent) contend(now time.Time, r drift.Repair) {
	begins := a.contests.Repaired(now, r.Thing)
	c := a.contests.now[r.Thing]
	if begins {
		c = &contest{object: r.Object}
		if a.contests.now == nil {
			a.contests.now = make(map[string]*contest)
		}
		a.contests.now[r.Thing] = c
	}
	if c == nil {
		return
	}
	c.found, c.last = r.Found, now
	if begins {
		a.tell(api.Event{Severity: "warning", Object: c.object, Message: "something else keeps changing it",
			Reason: fmt.Sprintf("last change: %s; it is put back at most every %v from now on, later every minute", c.found, a.contests.Wait(r.Thing)), Next: contestFix})
	}
}

// lookAtContests puts back what was left alone for long enough, and ends what is over.
func (a *Agent) lookAtContests(now time.Time) {
	a.tellOver(a.contests.Calm(now), "nothing else changes it any more", "it is put back at once again")
	if len(a.contests.now) == 0 {
		return
	}
	objects := make(map[string]bool)
	for _, c := range a.contests.now {
		objects[c.object] = true
	}
	var n news
	for name := range a.wires {
		if objects["pseudowire "+name] {
			note(&n.wires, name)
		}
	}
	a.lookAtDevices(n)
	a.refreshBridges()
}

// endContests has all put back at once again: somebody asks for it.
func (a *Agent) endContests() {
	a.tellOver(a.contests.Forget(), "it is put back at once again", "a topology is applied")
}

// tellOver ends the contests for things.
func (a *Agent) tellOver(things []string, message, reason string) {
	for _, thing := range things {
		if c := a.contests.now[thing]; c != nil {
			a.event("info", c.object, message, reason)
		}
		delete(a.contests.now, thing)
	}
}

// contestProblems are the contests in words.
func (a *Agent) contestProblems(now time.Time) (ps []api.Problem) {
	for _, thing := range slices.Sorted(maps.Keys(a.contests.now)) {
		c := a.contests.now[thing]
		ps = append(ps, api.Problem{Object: c.object, Fix: contestFix,
			What: fmt.Sprintf("something else keeps changing it: last change at %s: %s; it is put back at most every %v", clock(now, c.last), c.found, a.contests.Wait(thing))})
	}
	return ps
}
