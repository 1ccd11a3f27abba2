package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/drift"
)

// driftsKept is how many different drifts are remembered.
const driftsKept = 200

// drifts are what others have changed about what is ours, and what was done about it.
type drifts struct {
	// list has the one that was found last at its end.
	list []noted
	// repaired and failed count them all since the daemon started.
	repaired, failed uint64
}

// noted is one of them, and the thing that it is about.
type noted struct {
	api.Drift
	thing string
}

// put notes what was found, and says whether it is news: the same with the same result
// again, within the time that burstInterval is, is only counted.
func (d *drifts) put(now time.Time, r drift.Repair) (told api.Drift, news bool) {
	next := noted{api.Drift{Time: now, First: now, Times: 1, Object: r.Object, Found: r.Found, Done: r.Done, Repaired: r.Err == nil}, r.Thing}
	d.repaired++
	if r.Err != nil {
		d.repaired, d.failed = d.repaired-1, d.failed+1
		next.Error = r.Err.Error()
	}
	news = true
	at := slices.IndexFunc(d.list, func(o noted) bool { return o.Object == r.Object && o.Found == r.Found })
	if at >= 0 {
		o := d.list[at]
		news = o.Error != next.Error || now.Sub(o.Time) > burstInterval
		next.First, next.Times = o.First, o.Times+1
		d.list = slices.Delete(d.list, at, at+1)
	}
	d.list = append(d.list, next)
	if len(d.list) > driftsKept {
		d.list = slices.Delete(d.list, 0, len(d.list)-driftsKept)
	}
	return next.Drift, news
}

// note says in the status that there was some within a day, "" if not.
func (d *drifts) note(now time.Time) string {
	if len(d.list) == 0 {
		return ""
	}
	last := d.list[len(d.list)-1]
	if now.Sub(last.Time) > 24*time.Hour {
		return ""
	}
	return fmt.Sprintf("others have changed what is the daemon's, last at %s: %s: %s; see `pwctl drift`", clock(now, last.Time), last.Object, last.Found)
}

// tellDrift tells of what was found changed by others since the last call.
func (a *Agent) tellDrift(now time.Time) {
	repairs := append(a.bridges.Repairs(), a.shaper.Repairs()...)
	for _, dp := range a.datapaths {
		repairs = append(repairs, dp.Repairs()...)
	}
	for _, r := range repairs {
		d, news := a.drifts.put(now, r)
		switch {
		case !news:
			a.log.Debug("drift", "object", d.Object, "found", d.Found, "done", d.Done, "times", d.Times)
		case d.Repaired:
			a.tell(api.Event{Severity: "warning", Object: d.Object, Message: "drift: " + d.Found, Reason: d.Done,
				Next: "find out who did that, if it was not you: `pwctl drift`"})
		default:
			a.tell(api.Event{Severity: "error", Object: d.Object, Message: "drift: " + d.Found, Reason: "could not be " + d.Done + ", trying again: " + d.Error,
				Next: "put it back by hand, or remove what stands in the way: `pwctl drift`"})
		}
		a.contend(now, r)
	}
}

// Drift implements api.Backend.
func (a *Agent) Drift(ctx context.Context) ([]api.Drift, error) {
	return view(ctx, a, func() []api.Drift {
		var all []api.Drift
		for _, d := range slices.Backward(a.drifts.list) {
			d.WaitSeconds = a.contests.Wait(d.thing).Seconds()
			all = append(all, d.Drift)
		}
		return all
	})
}
