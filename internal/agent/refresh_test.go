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
		name       string
		took, rest time.Duration
		missing    bool
		want       bool
	}{
		{"a look that takes nothing", time.Millisecond, recheck, false, true},
		{"a tick that comes soon after an event", time.Millisecond, recheck / 4, false, false},
		{"a long look", 150 * time.Millisecond, 20 * time.Second, false, false},
		{"a long look, long ago", 150 * time.Millisecond, 30 * time.Second, false, true},
		{"a very long look", 10 * time.Second, 50 * time.Second, false, false},
		{"a very long look, a minute ago", 10 * time.Second, refreshRest, false, true},
		{"a way that is missing", 10 * time.Second, 0, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAgent(Options{})
			a.datapaths[pseudowire.EBPF] = &noDatapath{}
			a.refreshed, a.refreshTook = now.Add(-c.rest), c.took
			if c.missing {
				a.faults.set(wayFault(pseudowire.EBPF), errors.New("no route"))
			}
			if due := a.refreshDue(now); due != c.want {
				t.Errorf("to be looked at: %v", due)
			}
		})
	}
}
