package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Without events datapaths are looked at every few seconds, but more rarely where that takes long, and
// always where a way is missing.
func TestLooksAtRest(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name               string
		took, before, rest time.Duration
		missing, contested bool
		want               bool
	}{
		{"a look that takes nothing", time.Millisecond, time.Millisecond, recheck, false, false, true},
		{"a tick that comes soon after an event", time.Millisecond, time.Millisecond, recheck / 4, false, false, false},
		{"long looks", 100 * time.Millisecond, 90 * time.Millisecond, recheck, false, false, false},
		{"long looks, long ago", 100 * time.Millisecond, 90 * time.Millisecond, 20 * time.Second, false, false, true},
		{"one long look", 10 * time.Second, time.Millisecond, recheck, false, false, true},
		{"very long looks", 10 * time.Second, 10 * time.Second, refreshRest - recheck, false, false, false},
		{"very long looks, long ago", 10 * time.Second, 10 * time.Second, refreshRest, false, false, true},
		{"a way that is missing", 10 * time.Second, 10 * time.Second, 0, true, false, true},
		{"something else that changes what is looked at", 10 * time.Second, 10 * time.Second, 0, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAgent(Options{})
			a.datapaths[pseudowire.EBPF] = &noDatapath{}
			a.refreshed, a.refreshTook = now.Add(-c.rest), [2]time.Duration{c.took, c.before}
			if c.missing {
				a.faults.set(wayFault(pseudowire.EBPF), errors.New("no route"))
			}
			if c.contested {
				a.contests.now = map[string]*contest{"bridge br-lan": {}}
			}
			if due := a.refreshDue(now); due != c.want {
				t.Errorf("to be looked at: %v", due)
			}
		})
	}
}
