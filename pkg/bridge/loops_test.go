package bridge_test

import (
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/bridge"
)

// A loop is an address that goes to and fro fast; everything else that addresses do is none.
func TestLoops(t *testing.T) {
	const eth1, pwA, pwB = 3, 7, 8
	type step struct {
		after time.Duration
		port  int
	}
	repeat := func(n int, steps ...step) (all []step) {
		for range n {
			all = append(all, steps...)
		}
		return all
	}
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		steps []step
		want  int // the step at which the loop is found, from 1; 0 is never
	}{
		{"learned once", []step{{0, eth1}}, 0},
		{"seen again and again", repeat(50, step{ms, eth1}), 0},
		{"a machine moves", []step{{0, eth1}, {time.Second, pwA}}, 0},
		{"it moves and comes back", []step{{0, eth1}, {time.Second, pwA}, {time.Second, eth1}}, 0},
		{"it moves from site to site", []step{{0, eth1}, {ms, pwA}, {ms, pwB}, {ms, eth1}, {ms, pwA}, {ms, pwB}, {ms, eth1}, {ms, pwA}}, 0},
		{"every second", repeat(30, step{time.Second, eth1}, step{time.Second, pwA}), 0},
		{"a loop", repeat(10, step{ms, eth1}, step{ms, pwA}), 7},
		{"a slow loop", repeat(10, step{200 * ms, eth1}, step{200 * ms, pwA}), 7},
		{"between two pseudowires", repeat(10, step{ms, pwA}, step{ms, pwB}), 7},
		{"after a while of peace", append([]step{{0, eth1}, {ms, pwA}, {time.Hour, eth1}}, repeat(5, step{ms, pwA}, step{ms, eth1})...), 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var loops bridge.Loops
			now := time.Unix(0, 0)
			found := 0
			for i, s := range tt.steps {
				now = now.Add(s.after)
				l, ok := loops.Moved(now, bridge.Move{Address: bridge.Address{2, 0, 0, 0, 0, 1}, VLAN: 10, Bridge: 2, Port: s.port})
				if !ok || found != 0 {
					continue
				}
				found = i + 1
				if l.Port != s.port || l.Another != tt.steps[i-1].port || l.VLAN != 10 || l.Bridge != 2 {
					t.Errorf("the loop is %+v", l)
				}
			}
			if found != tt.want {
				t.Errorf("found at step %d, want %d", found, tt.want)
			}
		})
	}
}

// What is remembered is bounded, and an address that was forgotten begins anew.
func TestLoopsForget(t *testing.T) {
	var loops bridge.Loops
	now := time.Unix(0, 0)
	flap := func(a bridge.Address) (found bool) {
		for i := range 20 {
			now = now.Add(time.Millisecond)
			_, ok := loops.Moved(now, bridge.Move{Address: a, Bridge: 1, Port: i % 2})
			found = found || ok
		}
		return found
	}
	for i := range 100_000 {
		now = now.Add(time.Microsecond)
		loops.Moved(now, bridge.Move{Address: bridge.Address{4, 0, byte(i >> 16), byte(i >> 8), byte(i)}, Bridge: 1, Port: 1})
	}
	now = now.Add(time.Minute)
	if !flap(bridge.Address{6}) {
		t.Error("a loop was not found after many addresses were seen")
	}
	for i := range 50 {
		now = now.Add(time.Millisecond)
		if _, ok := loops.Moved(now, bridge.Move{Address: bridge.Address{8}, Bridge: 1, Port: i % 2, Forgotten: i%4 == 3}); ok {
			t.Fatal("an address that was forgotten in between makes a loop")
		}
	}
}
