package drift

import (
	"maps"
	"slices"
	"time"
)

const (
	// prompt is how many repairs of one thing within promptly are made at once. It takes in
	// what somebody does by hand, one change after the other.
	prompt   = 10
	promptly = time.Minute
	// firstWait is for how long the thing is left alone then, twice as long after each
	// repair that does not hold, and longestWait at most.
	firstWait   = 10 * time.Second
	longestWait = time.Minute
	// quiet is for how long nothing is to be repaired, beyond the wait, until the thing is
	// put back at once again.
	quiet = time.Minute
)

// Damper decides what is left alone for a while, as something else keeps changing it:
// two that put one thing back at once would do nothing else any more. The zero value has
// no things. It has no clock of its own.
type Damper struct{ things map[string]*thing }

type thing struct {
	// last is the last repair, recent are those before it within promptly.
	last   time.Time
	recent []time.Time
	// wait is for how long the thing is left alone after a repair, 0 is not at all.
	wait time.Duration
}

// Repaired notes that a thing was put back, or that this was tried. Several repairs at
// the same time are one. It reports whether the thing is contested from now on.
func (d *Damper) Repaired(now time.Time, name string) (begins bool) {
	t := d.things[name]
	switch {
	case t == nil:
		t = &thing{}
		if d.things == nil {
			d.things = make(map[string]*thing)
		}
		d.things[name] = t
	case t.last.Equal(now):
		return false
	}
	t.last = now
	if t.wait > 0 {
		t.wait = min(2*t.wait, longestWait)
		return false
	}
	t.recent = append(slices.DeleteFunc(t.recent, func(at time.Time) bool { return now.Sub(at) >= promptly }), now)
	if len(t.recent) < prompt {
		return false
	}
	t.wait, t.recent = firstWait, nil
	return true
}

// Held says that a thing is to be left as it is for now, whatever that is.
func (d *Damper) Held(now time.Time, name string) bool {
	t := d.things[name]
	return t != nil && t.wait > 0 && now.Sub(t.last) < t.wait
}

// Wait is for how long a contested thing is left alone after each repair, 0 for others.
func (d *Damper) Wait(name string) time.Duration {
	if t := d.things[name]; t != nil {
		return t.wait
	}
	return 0
}

// Calm ends the contests in which nothing had to be repaired for long enough, and names
// the things.
func (d *Damper) Calm(now time.Time) (over []string) {
	for _, name := range slices.Sorted(maps.Keys(d.things)) {
		t := d.things[name]
		if now.Sub(t.last) < t.wait+quiet {
			continue
		}
		delete(d.things, name)
		if t.wait > 0 {
			over = append(over, name)
		}
	}
	return over
}

// Forget ends all contests, and names the things: everything is put back at once again.
func (d *Damper) Forget() (over []string) {
	for _, name := range slices.Sorted(maps.Keys(d.things)) {
		if d.things[name].wait > 0 {
			over = append(over, name)
		}
	}
	d.things = nil
	return over
}
