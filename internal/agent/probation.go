package agent

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// The clock of a host may be set, by a day or by years: while the daemon runs nothing that it waits for
// notices, as the times have a monotonic clock's reading. Across a restart that is lost, and so a file beside
// the generation's says the same by the time since the boot. Another boot has the wall clock alone, and never
// takes longer than was asked for. The file is apart because a daemon of an earlier version does not know it.

const probationFile = "probation.json"

// probation is when a generation's ends.
type probation struct {
	Version    int    `json:"version"`
	Generation int    `json:"generation"`
	Boot       string `json:"boot"`
	// End is the time since the boot, Asked how long it was to be.
	End   time.Duration `json:"end"`
	Asked time.Duration `json:"asked"`
}

// uptime is the time since the boot, that in which the host was asleep included.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// keepProbation writes when that of the generation in force ends, if it is on one.
func (a *Agent) keepProbation(asked time.Duration) error {
	if !a.unconfirmed() {
		return nil
	}
	return a.store.replace(probationFile, &probation{
		Version: stateVersion, Generation: a.generation.Number, Boot: a.boot,
		End: uptime() + time.Until(*a.generation.Confirm), Asked: asked,
	}, true)
}

// forgetProbation removes it. One that stays is of a generation that is not on probation, and means nothing.
func (a *Agent) forgetProbation() { _ = a.store.remove(probationFile) }

// resumeProbation has one that an earlier daemon began end when it was to, whatever the clock says now.
func (a *Agent) resumeProbation(now time.Time, up time.Duration) error {
	if !a.unconfirmed() {
		return nil
	}
	var p probation
	if err := a.store.read(probationFile, &p); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*DamagedError)) {
			return nil
		}
		return err
	}
	if p.Generation != a.generation.Number {
		return nil
	}
	left := min(a.generation.Confirm.Sub(now), p.Asked)
	if p.Boot == a.boot {
		left = p.End - up
	}
	by := now.Add(left)
	a.generation.Confirm = &by
	return nil
}

// confirmBy is when a probation ends by the clock as it is now; nil if there is none.
func (g *generation) confirmBy() *time.Time {
	if g == nil || g.Confirm == nil {
		return nil
	}
	now := time.Now()
	by := now.Add(g.Confirm.Sub(now)).Round(0)
	return &by
}
