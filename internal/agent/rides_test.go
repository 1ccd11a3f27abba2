package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// ride is how a site has a session: its ID if it is established, else 0.
func (p *place) ride(name, tunnel string) (id uint32) {
	p.do(func() {
		for _, s := range p.a.control.Sessions() {
			if s.Session.Name == name && tunnelName(s.Session.Tunnel) == tunnel && s.State == control.SessionEstablished {
				id = s.LocalID
			}
		}
	})
	return id
}

// A pseudowire gets another tunnel that stands in, and loses it again, without an end: at
// one site first, then at the other.
func TestRedundancyComesAndGoesLive(t *testing.T) {
	const silver = "silver: {sites: [dc1, dc2]}\n"
	one := topo(gold+silver, wireTo("a", "gold", 7))
	two := strings.Replace(one, "tunnel: gold", "redundancy: {active: gold, standby: silver, hold: 0s}", 1)
	swapped := strings.Replace(one, "tunnel: gold", "redundancy: {active: silver, standby: gold, hold: 0s}", 1)
	dc1, dc2 := pair(t, one)
	both := []*place{dc1, dc2}
	ids := [2]uint32{dc1.ride("a", "gold"), dc2.ride("a", "gold")}
	for _, tt := range []struct{ name, text, wires string }{
		{"another stands in", two, "a up gold"},
		{"it is alone again", one, "a up gold"},
		{"the other one is the active one", swapped, "a up silver"},
		{"and no more", two, "a up gold"},
	} {
		for _, p := range both {
			result, err := p.apply(tt.text)
			if err != nil {
				t.Fatalf("%s: %s: %v", tt.name, p.site, err)
			}
			if len(result.Changes) != 1 || result.Changes[0].Impact != "live" {
				t.Errorf("%s: %s: changes %+v", tt.name, p.site, result.Changes)
			}
		}
		for i, p := range both {
			p.awaitWires(tt.wires)
			p.poll(tt.name+": the sessions are as they are to be", func() error {
				if stands := p.ride("a", "silver") != 0; stands != (tt.text != one) {
					return fmt.Errorf("on silver: %v", stands)
				}
				return nil
			})
			if id := p.ride("a", "gold"); id != ids[i] {
				t.Errorf("%s: %s: the session on gold is %d, it was %d", tt.name, p.site, id, ids[i])
			}
			for _, line := range p.told("pseudowire a") {
				if strings.Contains(line, "down") || strings.Contains(line, "standby") {
					t.Errorf("%s: %s: %s", tt.name, p.site, line)
				}
			}
		}
	}
}
