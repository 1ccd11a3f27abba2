package drift_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/drift"
)

// Against something that undoes each repair at once, looked at ten times a second, things
// are put back promptly at first and then ever more rarely; what is changed now and then,
// or by hand, is put back at once for ever.
func TestDamper(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name string
		// undone says whether somebody has changed the thing since the last repair, at a time
		// after the beginning.
		undone func(at, since time.Duration) bool
		// repairs are how many there are in each minute; contests is when one begins and ends.
		repairs  []int
		contests string
	}{
		{"a fight", func(_, _ time.Duration) bool { return true }, []int{12, 1, 1, 1}, "begins 900ms"},
		{"one that gives up", func(at, _ time.Duration) bool { return at < 5*s }, []int{11, 0, 0, 0}, "begins 900ms, ends 1m30.9s"},
		{"one that comes back later", func(at, _ time.Duration) bool { return at < 5*s || at >= 180*s }, []int{11, 0, 0, 12}, "begins 900ms, ends 1m30.9s, begins 3m0.9s"},
		{"by hand, every 7 s", func(_, since time.Duration) bool { return since >= 7*s }, []int{9, 9, 8, 9}, ""},
		{"a slow fight, every 5 s", func(_, since time.Duration) bool { return since >= 5*s }, []int{11, 2, 1, 1}, "begins 45s"},
		{"never", func(_, _ time.Duration) bool { return false }, []int{0, 0, 0, 0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d drift.Damper
			begin := time.Unix(0, 0)
			last := -time.Hour
			got, told, wrong := make([]int, 4), "", false
			tell := func(what string, at time.Duration) {
				if told != "" {
					told += ", "
				}
				told += fmt.Sprintf("%s %v", what, at)
			}
			for at := time.Duration(0); at < 4*time.Minute; at += s / 10 {
				now := begin.Add(at)
				for range d.Calm(now) {
					tell("ends", at)
				}
				if wrong = wrong || c.undone(at, at-last); !wrong || d.Held(now, "x") {
					continue
				}
				wrong = false
				got[at/time.Minute]++
				last = at
				for i := range 3 { // several things about it
					if d.Repaired(now, "x") {
						if tell("begins", at); i > 0 {
							t.Error("repairs at one time are counted one by one")
						}
					}
				}
				if d.Held(now, "y") {
					t.Fatal("another thing is held")
				}
			}
			if !slices.Equal(got, c.repairs) || told != c.contests {
				t.Errorf("repairs per minute %v, want %v; %q, want %q", got, c.repairs, told, c.contests)
			}
		})
	}
}

// The waits are those that are told.
func TestDamperWaits(t *testing.T) {
	var d drift.Damper
	now := time.Unix(0, 0)
	var waits []time.Duration
	for range 15 {
		for d.Held(now, "x") {
			now = now.Add(time.Second)
		}
		d.Repaired(now, "x")
		waits = append(waits, d.Wait("x"))
		now = now.Add(time.Millisecond)
	}
	const s = time.Second
	want := append(make([]time.Duration, 9), 10*s, 20*s, 40*s, 60*s, 60*s, 60*s)
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	d.Repaired(now, "calm")
	if over := d.Forget(); !slices.Equal(over, []string{"x"}) || d.Held(now, "x") || d.Wait("x") != 0 {
		t.Errorf("after Forget: %q over, held %v", over, d.Held(now, "x"))
	}
}
