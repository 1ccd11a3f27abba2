package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// twoEnds is both ends of a pseudowire of some tunnels: two machines, each of which sees
// what the other signals, and whether a tunnel works in its direction.
type twoEnds struct {
	now  time.Time
	ends [2]*redundancy
	// deaf has what an end does not hear, lost what no longer gets to it: what it saw last stays.
	deaf    [2]map[int]bool
	drained [2]map[int]bool
	// lag is for how many looks what an end signals stays unseen; signalled is what
	// the peer sees of it.
	lag       int
	signalled [2][][]bool
	seen      [2][]bool
}

const third = 3

func newTwoEnds(tunnels int, revertive bool, hold time.Duration) *twoEnds {
	p := &twoEnds{now: time.Unix(1e9, 0)}
	for i := range p.ends {
		p.ends[i] = newRedundancy(p.now, tunnels)
		p.ends[i].leads, p.ends[i].revertive, p.ends[i].hold = i == 0, revertive, hold
		p.deaf[i], p.drained[i] = map[int]bool{}, map[int]bool{}
		p.seen[i] = make([]bool, tunnels)
	}
	return p
}

// run lets time pass, in steps of an eighth of a second, as the agent looks with hello 1s.
// It reports for how long no tunnel was used by both.
func (p *twoEnds) run(d time.Duration) (gap time.Duration) {
	const step = time.Second / 8
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(step) {
		for i, r := range p.ends {
			var sights []sight
			for k := range r.standings {
				works := !p.deaf[i][k]
				sights = append(sights, sight{works: works, why: fmt.Sprintf("%d does not", k), drained: p.drained[i][k], named: p.seen[i][k], hello: time.Second})
			}
			r.look(p.now, sights)
		}
		for i, r := range p.ends {
			bits := make([]bool, len(r.standings))
			for k := range bits {
				bits[k] = !r.standby(k)
			}
			p.signalled[1-i] = append(p.signalled[1-i], bits)
			if n := len(p.signalled[1-i]) - 1 - p.lag; n >= 0 {
				for k, b := range p.signalled[1-i][n] {
					if !p.deaf[1-i][k] { // what is said on it arrives
						p.seen[1-i][k] = b
					}
				}
			}
		}
		if p.used() < 0 {
			gap += step
		}
	}
	return gap
}

// used is the tunnel that both have out of standby and that works both ways.
func (p *twoEnds) used() int {
	for k := range p.ends[0].standings {
		if !p.ends[0].standby(k) && !p.ends[1].standby(k) && !p.deaf[0][k] && !p.deaf[1][k] {
			return k
		}
	}
	return -1
}

func (p *twoEnds) both(k int, deaf bool) { p.deaf[0][k], p.deaf[1][k] = deaf, deaf }

// What happens to a pseudowire of the tunnels 0, 1 and 2: an event, and which one is
// used some time after it. A gap is for how long at most there may be none, in looks.
func TestRedundancy(t *testing.T) {
	type event struct {
		what string
		do   func(p *twoEnds)
		then time.Duration
		used int
		gap  int
	}
	fail := func(k int) func(*twoEnds) { return func(p *twoEnds) { p.both(k, true) } }
	heal := func(k int) func(*twoEnds) { return func(p *twoEnds) { p.both(k, false) } }
	nothing := func(*twoEnds) {}
	for name, c := range map[string]struct {
		sticks bool // not revertive
		events []event
	}{
		"the first one is used when all come up together": {events: []event{{"start", nothing, 2 * time.Second, 0, 3}}},
		"the first one is waited for at the beginning": {events: []event{
			{"start without it", fail(0), startGrace - time.Second, -1, 999},
			{"a little longer", nothing, 3 * time.Second, 1, 999},
		}},
		"failover and return": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"0 fails", fail(0), time.Second, 1, 3},
			{"0 works again", heal(0), 9 * time.Second, 1, 0},
			{"for the time of hold", nothing, 3 * time.Second, 0, 0},
		}},
		"no return where it is not wanted": {sticks: true, events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"0 fails", fail(0), time.Second, 1, 3},
			{"0 works again", heal(0), time.Hour, 1, 0},
			{"1 fails", fail(1), time.Second, 0, 3},
		}},
		"the next one, and the next": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"0 fails", fail(0), time.Second, 1, 3},
			{"1 fails", fail(1), time.Second, 2, 3},
			{"1 works again", heal(1), 15 * time.Second, 1, 0},
			{"0 works again", heal(0), 15 * time.Second, 0, 0},
		}},
		"all fail, and the last one returns": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"all fail", func(p *twoEnds) { p.both(0, true); p.both(1, true); p.both(2, true) }, time.Minute, -1, 999},
			{"2 works again", heal(2), time.Second, 2, 3},
		}},
		"one that fails again soon after has to work longer each time": {events: []event{
			{"start", nothing, time.Hour, 0, 3},
			{"0 fails", fail(0), time.Second, 1, 3},
			{"works", heal(0), 11 * time.Second, 0, 0},
			{"fails", fail(0), time.Second, 1, 3},
			{"works", heal(0), 19 * time.Second, 1, 0},
			{"longer", nothing, 2 * time.Second, 0, 0},
			{"fails", fail(0), time.Second, 1, 3},
			{"works", heal(0), 39 * time.Second, 1, 0},
			{"longer", nothing, 2 * time.Second, 0, 0},
			{"is steady", nothing, 10 * time.Minute, 0, 0},
			{"fails", fail(0), time.Second, 1, 3},
			{"works as if it had never failed", heal(0), 11 * time.Second, 0, 0},
		}},
		"what the leader alone does not hear": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"0 is deaf", func(p *twoEnds) { p.deaf[0][0] = true }, time.Second, 1, 3},
		}},
		"what the follower alone does not hear it has changed": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"0 is deaf", func(p *twoEnds) { p.deaf[1][0] = true }, time.Second, 1, 6},
			{"and stays so: no return disturbs", nothing, time.Hour, 1, 0},
			{"works", func(p *twoEnds) { p.deaf[1][0] = false }, 10 * time.Minute, 0, 0},
		}},
		"drained at the leader": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"drain 0", func(p *twoEnds) { p.drained[0][0] = true }, time.Second, 1, 0},
			{"for long", nothing, time.Hour, 1, 0},
			{"undrain 0", func(p *twoEnds) { p.drained[0][0] = false }, time.Second, 0, 0},
		}},
		"drained at the follower": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"drain 0", func(p *twoEnds) { p.drained[1][0] = true }, time.Second, 1, 0},
			{"for long", nothing, time.Hour, 1, 0},
		}},
		"all drained, at either end, is standby": {events: []event{
			{"start", nothing, time.Minute, 0, 3},
			{"drain", func(p *twoEnds) { p.drained[1] = map[int]bool{0: true, 1: true, 2: true} }, time.Minute, -1, 999},
			{"undrain", func(p *twoEnds) { p.drained[1] = map[int]bool{} }, time.Minute, 0, 3},
			{"drain", func(p *twoEnds) { p.drained[0] = map[int]bool{0: true, 1: true, 2: true} }, time.Minute, -1, 999},
			{"undrain", func(p *twoEnds) { p.drained[0] = map[int]bool{} }, time.Second, 0, 3},
		}},
	} {
		for lag := range 3 {
			t.Run(fmt.Sprintf("%s, lag %d", name, lag), func(t *testing.T) {
				p := newTwoEnds(third, !c.sticks, 10*time.Second)
				p.lag = lag
				for _, e := range c.events {
					e.do(p)
					gap := p.run(e.then)
					if got := p.used(); got != e.used {
						t.Fatalf("%s: tunnel %d is used, not %d\nleader %+v\nfollower %+v", e.what, got, e.used, *p.ends[0], *p.ends[1])
					}
					allowed := time.Duration(e.gap) * time.Second / 8
					if allowed > 0 {
						allowed += time.Duration(2*lag) * time.Second / 8
					}
					if gap > allowed {
						t.Errorf("%s: nothing was used for %v, %v at most", e.what, gap, allowed)
					}
				}
			})
		}
	}
}

// Whatever happened before: when the tunnels stay as they are, both ends come to use the
// same one, the first that works, and only that is out of standby.
func FuzzRedundancy(f *testing.F) {
	f.Add([]byte{0x01, 0x12, 0x80, 0x33, 0x04, 0xff, 0x00})
	f.Add([]byte(strings.Repeat("\x01\x40\x02\x10\x04\x20\x00\x30", 4)))
	f.Fuzz(func(t *testing.T, script []byte) {
		p := newTwoEnds(third, true, time.Second)
		for _, b := range script[:min(len(script), 64)] {
			end, k := int(b>>7), int(b>>5&3)
			switch {
			case k == 3:
				p.lag = int(b & 3)
			case b&16 != 0:
				p.drained[end][k] = !p.drained[end][k]
			default:
				p.deaf[end][k] = !p.deaf[end][k]
			}
			p.run(time.Duration(b&15) * 700 * time.Millisecond)
		}
		p.drained = [2]map[int]bool{{}, {}}
		p.both(0, true)
		p.both(1, false)
		p.both(2, false)
		p.run(5 * time.Minute)
		if p.used() != 1 || p.ends[0].chosen != 1 || p.ends[1].chosen != 1 {
			t.Fatalf("tunnel 1 works and %d is used\nleader %+v\nfollower %+v", p.used(), *p.ends[0], *p.ends[1])
		}
		if gap := p.run(10 * time.Minute); gap > 0 {
			t.Fatalf("nothing was used for %v while nothing happened", gap)
		}
		for _, r := range p.ends {
			if !r.standby(2) || r.standby(1) || !r.standby(0) {
				t.Fatalf("%+v", *r)
			}
		}
	})
}

// A foreign peer that knows nothing of standby asks for nothing.
func TestRedundancyForeignPeer(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := newRedundancy(now, 2)
	r.leads, r.foreign, r.revertive, r.hold = true, true, true, time.Second
	all := []sight{{works: true, named: true, hello: time.Second}, {works: true, named: true, hello: time.Second}}
	for range 100 {
		r.look(now, all)
		now = now.Add(time.Second)
		if r.chosen != 0 || !r.inUse(0) || r.standby(0) || !r.standby(1) {
			t.Fatalf("%+v", *r)
		}
	}
}

func TestWithdrawn(t *testing.T) {
	for status, want := range map[l2tpv3.CircuitStatus]bool{
		l2tpv3.CircuitStandby:                                                     true,
		l2tpv3.CircuitStandby | l2tpv3.CircuitActive:                              false, // stands by
		l2tpv3.CircuitStandby | l2tpv3.CircuitACRxFault | l2tpv3.CircuitACTxFault: false, // the circuit's fault is not the tunnel's
		l2tpv3.CircuitActive:                                                      false,
		0:                                                                         false,
	} {
		if withdrawn(status) != want {
			t.Errorf("%v: %v", status, !want)
		}
	}
}

// A HELLO and its first repetition can be lost before a tunnel counts as silent, and frames
// take another one within three intervals.
func TestSilent(t *testing.T) {
	heard := time.Unix(1e9, 0)
	for _, hello := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		if silent(heard.Add(hello+time.Second), heard, hello) {
			t.Errorf("hello %v: silent when its HELLO has just been repeated", hello)
		}
		if !silent(heard.Add(3*hello-hello/4), heard, hello) {
			t.Errorf("hello %v: not silent in time", hello)
		}
	}
}
