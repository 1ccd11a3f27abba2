package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

// A limit on what is learned behind the pseudowires of a network keeps one site from filling
// the others' tables: at the limit their ports learn no more, below nine tenths of it again.

// group is what a limit is about: a network, or a pseudowire of none.
func (w *wire) group() string { return nonempty(w.Network, w.Name) }

// limitEvery is how often what has been learned is compared with the limits at most: a
// flood of addresses is not to cost a walk over all pseudowires each.
const limitEvery = 50 * time.Millisecond

// limitLater has the limits looked at, at once if they were not for a while.
func (a *Agent) limitLater(now time.Time) {
	if a.limitAt.IsZero() {
		a.limitAt = a.limited.Add(limitEvery)
	}
	a.limitDue(now)
}

// limitDue looks at them if it is time.
func (a *Agent) limitDue(now time.Time) {
	if a.limitAt.IsZero() || now.Before(a.limitAt) {
		return
	}
	a.limitAt, a.limited = time.Time{}, now
	a.limitMACs()
}

// limitMACs compares what has been learned with the limits.
func (a *Agent) limitMACs() {
	groups := make(map[string][]*wire)
	for _, w := range a.wires {
		if w.MaxMACs > 0 || w.full {
			groups[w.group()] = append(groups[w.group()], w)
		}
	}
	if len(groups) == 0 {
		return
	}
	learned := make(map[string]int)
	for port, n := range a.macs.behind {
		if _, name := a.bridges.Port(port); a.wires[name] != nil {
			learned[a.wires[name].group()] += n
		}
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		a.limitGroup(group, groups[group], learned[group])
	}
}

func (a *Agent) limitGroup(group string, wires []*wire, n int) {
	limit, was := wires[0].MaxMACs, slices.ContainsFunc(wires, func(w *wire) bool { return w.full })
	full := limit > 0 && (n >= limit || was && n > limit*9/10)
	var errs []error
	for _, w := range wires {
		if w.full == full {
			continue
		}
		if w.full = full; a.datapaths[w.kind] != nil && w.fault == nil {
			errs = append(errs, a.attach(w))
		}
	}
	a.faults.set("what is learned behind "+group, errors.Join(errs...))
	switch {
	case full && !was:
		a.tell(api.Event{Severity: "warning", Object: group, Message: "learns no more addresses", Reason: fmt.Sprintf("%d are known behind it, `max-macs` is %d", n, limit),
			Next: "look for who makes them up with `pwctl get macs`, or raise `max-macs`"})
	case was && !full:
		a.event("info", group, "learns addresses again", fmt.Sprintf("%d are known behind it", n))
	}
}

// macProblems are the limits that have been reached.
func (a *Agent) macProblems() (ps []api.Problem) {
	limits := make(map[string]int)
	for _, w := range a.wires {
		if w.full {
			limits[w.group()] = w.MaxMACs
		}
	}
	for _, group := range slices.Sorted(maps.Keys(limits)) {
		ps = append(ps, api.Problem{Object: group, What: fmt.Sprintf("no more addresses are learned behind it: `max-macs` is %d", limits[group]),
			Fix: "look for who makes them up with `pwctl get macs`, or raise `max-macs`"})
	}
	return ps
}
