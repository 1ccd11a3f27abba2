package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"
)

// saved sets up one tunnel with that many sessions, its changes saved after every
// step, and returns how many octets of JSON that was for a session.
func saved(t *testing.T, sessions int) int {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	for i := range sessions {
		n.session("gold", fmt.Sprintf("s%03d", i))
	}
	var octets int
	n.hosts[0].wrote = func(c TunnelChange) {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		octets += len(b)
	}
	n.start()
	n.run(time.Minute)
	if !n.up() {
		t.Fatal(n.disagreement())
	}
	return octets / sessions
}

// TestSavingIsLinear: what is written for a session while its tunnel comes up does
// not depend on how many others the tunnel has.
func TestSavingIsLinear(t *testing.T) {
	few, many := saved(t, 20), saved(t, 200)
	t.Logf("%d octets for each of 20 sessions, %d for each of 200", few, many)
	if many > few*3/2 {
		t.Errorf("%d octets for each of 20 sessions, %d for each of 200", few, many)
	}
}

// TestMergeRefuses changes of a state that it is not given.
func TestMergeRefuses(t *testing.T) {
	s := established(t)
	state, _ := s.e.SaveTunnel("gold/dc2")
	for _, row := range []struct {
		name  string
		first uint16
		kept  int
	}{
		{"more messages than there were", 0, 1},
		{"a number below 0", 0, -1},
		{"acknowledged that were not sent", 5, 1},
	} {
		c := TunnelChange{TunnelState: state}
		c.Connections = []connectionState{state.Connections[0]}
		c.Connections[0].First += row.first
		c.Connections[0].Kept = row.kept
		was := state
		if err := was.Merge(c); !errors.As(err, new(*StateError)) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	c := TunnelChange{TunnelState: TunnelState{Connections: []connectionState{{LocalID: 99, Kept: 1}}}}
	if err := state.Merge(c); !errors.As(err, new(*StateError)) {
		t.Errorf("another connection: %v", err)
	}
}
