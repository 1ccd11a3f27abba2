package spread

import (
	"testing"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/steer"
)

// Ways of three tunnels.
const (
	a = 1 << iota
	spare
	c
)

// While flows go over, the program hears of every tunnel that goes down or comes up, also where
// the rules lead where they did. Flows keep the time that they have.
func TestWriteWhileFlowsGoOver(t *testing.T) {
	s := &pseudowire.Steer{Tunnels: []string{"a", "spare", "c"}, Rules: []steer.Rule{{Tunnels: []string{"a"}}, {Tunnels: []string{"c"}}}}
	var table Table
	var last *bpf.Steer
	write := func(up uint32) (wrote bool) {
		t.Helper()
		if err := table.Write(Pair{Outer: 7}, s, up, func(n *bpf.Steer) error { last, wrote = n, true; return nil }); err != nil {
			t.Fatal(err)
		}
		return wrote
	}
	for _, step := range []struct {
		what          string
		up            uint32
		wrote         bool
		ways, was     uint32 // of the rule for a
		meanwhile     bool
		asUntilBefore bool
	}{
		{"all are up", a | spare | c, true, a, a, false, false},
		{"nothing new", a | spare | c, false, a, a, false, false},
		{"a goes down", spare | c, true, spare, spare, false, false},
		{"a comes back", a | spare | c, true, a, spare, true, false},
		{"nothing new", a | spare | c, false, a, spare, true, true},
		{"c, that no flow of a is over, goes down", a | spare, true, a, spare, true, false},
		{"c comes back", a | spare | c, true, a, spare, true, false},
		{"spare goes down", a | c, true, a, a, true, true},
		{"spare comes back", a | spare | c, true, a, a, true, true},
	} {
		var until, change uint64
		if last != nil {
			until, change = last.Until, last.Change
		}
		if wrote := write(step.up); wrote != step.wrote {
			t.Errorf("%s: wrote %v", step.what, wrote)
		}
		r := last.Rule[0]
		if last.Up != step.up || r.Ways != step.ways || r.Was != step.was {
			t.Errorf("%s: up %03b, ways %03b that were %03b; want %03b, %03b, %03b", step.what, last.Up, r.Ways, r.Was, step.up, step.ways, step.was)
		}
		if meanwhile := last.Until != 0; meanwhile != step.meanwhile {
			t.Errorf("%s: flows go over: %v", step.what, meanwhile)
		}
		if step.asUntilBefore && (last.Until != until || last.Change != change) {
			t.Errorf("%s: until %d, %d before; change %d, %d before", step.what, last.Until, until, last.Change, change)
		}
	}
}

// Where no flow goes over any more nothing is left of a way that has gone.
func TestWriteAfterTheWayBefore(t *testing.T) {
	s := &pseudowire.Steer{Tunnels: []string{"a", "spare"}, Rules: []steer.Rule{{Tunnels: []string{"a"}}}}
	var table Table
	var last *bpf.Steer
	for _, up := range []uint32{a | spare, spare, a | spare, a} {
		if err := table.Write(Pair{Outer: 7}, s, up, func(n *bpf.Steer) error { last = n; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if last.Up != a || last.Rule[0].Ways != a || last.Rule[0].Was != a || last.Until != 0 {
		t.Errorf("with a alone: up %02b, ways %02b that were %02b, until %d", last.Up, last.Rule[0].Ways, last.Rule[0].Was, last.Until)
	}
}
