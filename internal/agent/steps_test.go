package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// The two topologies differ in every way that one can: things come, go, move and
// change places.
var (
	before = `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1, bridges: {br-old: {ports: [eth1]}, br-stay: {ports: []}}}
  dc2: {address: 192.0.2.2, bridges: {br: {}}}
tunnels:
  gold: {sites: [dc1, dc2]}
  iron: {sites: [dc1, dc2]}
  silver: {sites: [dc1, dc2], hello: 30s}
pseudowires:
  goes:     {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 7}, dc2: {bridge: br, vlan: 7}}}
  place-a:  {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 100}, dc2: {bridge: br, vlan: 100}}}
  place-b:  {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 200}, dc2: {bridge: br, vlan: 200}}}
  moves:    {tunnel: iron, attach: {dc1: {bridge: br-old, vlan: 300}, dc2: {bridge: br, vlan: 300}}}
  unplugs:  {tunnel: gold, attach: {dc1: {bridge: br-old, vlan: 400}, dc2: {bridge: br, vlan: 400}}}
  rebuilds: {tunnel: gold, attach: {dc1: {interface: eth3}, dc2: {bridge: br, vlan: 500}}}
`
	after = `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1, bridges: {br-new: {ports: [eth1]}, br-stay: {ports: []}}}
  dc2: {address: 192.0.2.2, bridges: {br: {}}}
tunnels:
  bronze: {sites: [dc1, dc2]}
  gold: {sites: [dc1, dc2]}
  silver: {sites: [dc1, dc2], hello: 10s}
pseudowires:
  comes:    {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 7}, dc2: {bridge: br, vlan: 7}}}
  place-a:  {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 200}, dc2: {bridge: br, vlan: 100}}}
  place-b:  {tunnel: gold, attach: {dc1: {bridge: br-stay, vlan: 100}, dc2: {bridge: br, vlan: 200}}}
  moves:    {tunnel: bronze, cookie: 4, attach: {dc1: {bridge: br-new, vlan: 300}, dc2: {bridge: br, vlan: 300}}}
  unplugs:  {tunnel: gold, mtu: 1400, attach: {dc1: {interface: eth2}, dc2: {bridge: br, vlan: 400}}}
  rebuilds: {tunnel: gold, datapath: kernel, attach: {dc1: {interface: eth3}, dc2: {bridge: br, vlan: 500}}}
`
)

func mustParse(t *testing.T, text string) *document {
	t.Helper()
	d, err := parse("t.yaml", "", text, "dc1")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// applied makes an agent that does not run, with documents applied one after the other.
func (p *place) applied(docs ...*document) *Agent {
	p.t.Helper()
	a := p.make()
	p.t.Cleanup(func() { a.Close() })
	a.bridges = &watchedBridges{circuits: a.bridges, t: p.t, turns: p.turns, now: map[string]bridge.Attachment{}}
	p.within(func() error {
		for _, d := range docs {
			_, err := a.change(d)
			if err == nil {
				err = a.commit()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return a
}

// Whichever call below the agent fails, once: afterwards everything is as it was
// before. When none does, it is as if the topology had been applied to a bare site.
func TestEveryCallCanFail(t *testing.T) {
	p, bare := lone(t), lone(t)
	old, next := mustParse(t, before), mustParse(t, after)
	a := p.applied(old)
	was := p.state(a)
	failed := 0
	for {
		p.turns.reset(failed + 1)
		var err error
		p.within(func() error { _, err = a.change(next); return nil })
		if err == nil {
			break
		}
		call := p.turns.calls[failed]
		failed++
		if failure, ok := errors.AsType[*api.Error](err); !ok || failure.Code != api.CodeApplyFailed {
			t.Errorf("call %d (%s) failed: %v", failed, call, err)
		}
		if diff := cmp.Diff(lines(was), lines(p.state(a))); diff != "" {
			t.Fatalf("call %d (%s) failed; the state before and after:\n%s", failed, call, diff)
		}
	}
	if failed < 15 {
		t.Errorf("the change took %d calls: it shows nothing", failed)
	}
	p.within(a.commit)
	p.turns.reset(0)
	direct := bare.applied(next)
	direct.generation.Number = a.generation.Number
	if diff := cmp.Diff(lines(bare.state(direct)), lines(p.state(a))); diff != "" {
		t.Errorf("the state applied at once, and after the change:\n%s", diff)
	}
}

func lines(s string) []string { return strings.Split(s, "\n") }

// Where a pseudowire of several tunnels has a device of its own the change to it, and back, is told as
// one that makes the device anew; elsewhere, and between several and several, frames go on.
func TestSeveralIsPriced(t *testing.T) {
	const one = "x: {tunnel: gold, attach: {dc1: {bridge: br-lan}, dc2: {bridge: br-lan}}}\n"
	const two = "x: {redundancy: {active: gold, standby: silver}, attach: {dc1: {bridge: br-lan}, dc2: {bridge: br-lan}}}\n"
	const other = "x: {redundancy: {active: silver, standby: gold}, attach: {dc1: {bridge: br-lan}, dc2: {bridge: br-lan}}}\n"
	const tunnels = "gold: {sites: [dc1, dc2]}\nsilver: {sites: [dc1, dc2]}\n"
	for _, anew := range []bool{false, true} {
		v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
		a := newAgent(v.opt)
		a.host = v.openHost
		if _, err := a.begun(); err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for _, dp := range a.datapaths {
			dp.(*fatedDatapath).can = func(can *pseudowire.Abilities) { can.SeveralAnew = anew }
		}
		for _, x := range []struct {
			from, to string
			changes  bool
		}{{one, two, true}, {two, one, true}, {two, other, false}} {
			a.local = mustParse(t, topo(tunnels, x.from)).local
			a.fit(a.local)
			steps := a.difference(mustParse(t, topo(tunnels, x.to)).local)
			want := plan.Live
			if anew && x.changes {
				want = plan.Recreates
			}
			if len(steps) != 1 || steps[0].Impact != want || strings.Contains(steps[0].Detail, "made anew") != (want == plan.Recreates) {
				t.Errorf("anew %v, from %sto %s%+v, want it to be %s", anew, x.from, x.to, steps, want)
			}
		}
	}
}
