package topology

import (
	"fmt"
	"testing"
)

// What classes say of the DSCP, and what their tunnels' pseudowires have of it.
func TestMarking(t *testing.T) {
	for _, test := range []struct {
		text string
		dscp uint8
		want Marking
	}{
		{"ef", 46, Marking{}},
		{"[ef]", 0, Marking{}}, // refused: not eight
		{"copy", 0, Marking{Copy: true}},
		{"[0, 8, le, af21, 32, ef, cs6, 63]", 0, Marking{Mapped: true, Map: [8]uint8{0, 8, 1, 18, 32, 46, 48, 63}}},
	} {
		text := fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: test}
sites:
  a: {address: 192.0.2.1}
  b: {address: 192.0.2.2}
classes:
  voice: {dscp: %s}
tunnels:
  gold: {sites: [a, b], class: voice}
pseudowires:
  one: {tunnel: gold, attach: {a: {interface: eth1}, b: {interface: eth1}}}
`, test.text)
		topology, diagnostics := Parse("test.yaml", []byte(text))
		if topology == nil {
			if test.text != "[ef]" {
				t.Errorf("dscp: %s: %s", test.text, diagnostics)
			}
			continue
		}
		local, _ := topology.Local("a")
		if p, c := local.Pseudowires[0], local.Classes[0]; p.DSCP != test.dscp || p.Marking != test.want || c.DSCP != test.dscp || c.Marking != test.want {
			t.Errorf("dscp: %s: %d, %v; of the class %d, %v", test.text, p.DSCP, p.Marking, c.DSCP, c.Marking)
		}
	}
}
