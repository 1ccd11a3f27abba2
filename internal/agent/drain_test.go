package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/loop"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// drainedDoc has a pseudowire of two tunnels, and one of one.
const drainedDoc = `apiVersion: pwd/v1
kind: Topology
metadata: {name: drained}
sites:
  dc1: {address: 192.0.2.1, bridges: {br-lan: {ports: [eth1]}}}
  dc2: {address: 192.0.2.2, bridges: {br-lan: {ports: [eth1]}}}
tunnels:
  gold: {sites: [dc1, dc2]}
  silver: {sites: [dc1, dc2]}
pseudowires:
  a:
    redundancy: {active: gold, standby: silver, hold: 0s}
    attach: {dc1: {bridge: br-lan, vlan: 7}, dc2: {bridge: br-lan, vlan: 7}}
  b:
    tunnel: gold
    attach: {dc1: {bridge: br-lan, vlan: 8}, dc2: {bridge: br-lan, vlan: 8}}
`

// wires are the states of all pseudowires, with the tunnels that those use that are up.
func (p *place) wires() string {
	var words []string
	for _, w := range p.status().Pseudowires {
		if w.State == "up" {
			w.State += " " + w.Tunnel
		}
		words = append(words, w.Name+" "+w.State)
	}
	return strings.Join(words, ", ")
}

func (p *place) awaitWires(want string) {
	p.t.Helper()
	p.poll("pseudowires are: "+want, func() error {
		if got := p.wires(); got != want {
			return errors.New(got)
		}
		return nil
	})
}

func (p *place) drain(r api.DrainRequest) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	r.By = "uid 0"
	_, err := p.a.Drain(ctx, r)
	return err
}

// What is drained is in standby at both ends, and takes another tunnel where there is one;
// it stays so across a restart, and comes back when it is undrained.
func TestDrain(t *testing.T) {
	dc1, dc2 := pair(t, drainedDoc)
	const up = "a up gold, b up gold"
	dc1.awaitWires(up)
	for _, tt := range []struct {
		at         *place
		name, want string
		restart    bool
	}{
		{dc2, "b", "a up gold, b standby", true},
		{dc1, "a", "a standby, b up gold", false},
		{dc2, "a", "a standby, b up gold", true},
		{dc1, "gold", "a up silver, b standby", true},
		{dc1, "dc2", "a standby, b standby", false},
		{dc2, "dc2", "a standby, b standby", false},
	} {
		if err := tt.at.drain(api.DrainRequest{Names: []string{tt.name}, Reason: "new switch"}); err != nil {
			t.Fatalf("%s: drain %s: %v", tt.at.site, tt.name, err)
		}
		dc1.awaitWires(tt.want)
		dc2.awaitWires(tt.want)
		if notes := strings.Join(tt.at.status().Notes, "\n"); !strings.Contains(notes, tt.name+" is drained by uid 0 since ") || !strings.Contains(notes, "new switch") {
			t.Errorf("%s: drained %s: the status notes %q", tt.at.site, tt.name, notes)
		}
		if tt.restart {
			tt.at.restart()
			dc1.awaitWires(tt.want)
			dc2.awaitWires(tt.want)
		}
		if err := tt.at.drain(api.DrainRequest{Names: []string{tt.name}, Undo: true}); err != nil {
			t.Fatalf("%s: undrain %s: %v", tt.at.site, tt.name, err)
		}
		dc1.awaitWires(up)
		dc2.awaitWires(up)
	}
	for _, r := range []api.DrainRequest{
		{Names: []string{"nobody"}}, {Names: []string{"a"}, Undo: true}, {Names: []string{"a"}, Kind: "tunnel"},
	} {
		if err := dc1.drain(r); !errors.As(err, new(*api.Error)) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// heardProbe is a probe of dc2 for a pseudowire, as it comes in at a port.
func heardProbe(t *testing.T, network string, port int, tag uint16) earful {
	t.Helper()
	frame := loop.Probe{Network: network, Site: "dc2", Reaches: map[string]bool{"dc1": true}}.Frame(0)
	p, err := loop.Parse(frame[ethernetHeader:])
	if err != nil {
		t.Fatal(err)
	}
	return earful{port, tag, p}
}

// A loop holds a pseudowire at once. Once the other site is heard behind a port of the LAN it is blocked,
// across a restart as well, and the status tells; when it is heard no more that ends.
func TestLoopBlocks(t *testing.T) {
	dc1, dc2 := pair(t, drainedDoc)
	port := func(name string) int { return dc1.linkBy(name).Attrs().Index }
	dc1.do(func() {
		now := time.Now()
		dc1.a.macs.found = []bridge.Loop{{
			Address: bridge.Address{2, 0, 0, 0, 0, 1}, Bridge: port("br-lan"), Port: port("eth1"), Another: port("pw-b"),
		}}
		dc1.a.closeLoops(now)
		dc1.a.watchLoops(now)
		if g := dc1.a.loops.guards["b"]; g == nil || !g.held["b"] || g.kept != "b" || dc1.a.loops.ears == nil || len(dc1.a.drains) > 0 {
			t.Errorf("what moves is not looked into: %+v, drained %v", g, dc1.a.drains)
		}
		for _, e := range []earful{
			heardProbe(t, "b", port("eth1"), 7), heardProbe(t, "b", port("pw-b"), 8), heardProbe(t, "a", port("eth1"), 8),
		} {
			dc1.a.hearLoops(now, e) // another VLAN, another port, another network
		}
		dc1.a.watchLoops(now)
		if len(dc1.a.drains) > 0 {
			t.Errorf("blocked for nothing: %+v", dc1.a.drains)
		}
		dc1.a.hearLoops(now, heardProbe(t, "b", port("eth1"), 8))
		dc1.a.watchLoops(now)
	})
	const blocked = "a up gold, b standby"
	dc1.awaitWires(blocked)
	dc2.awaitWires(blocked)
	const what = "a loop: something else joins the LANs of dc1 and dc2; dc2 is heard behind eth1"
	// A tunnel that is on its way up may be another problem.
	problems := dc1.status().Problems
	i := slices.IndexFunc(problems, func(p api.Problem) bool { return p.Object == "pseudowire b" })
	if i < 0 || !strings.Contains(problems[i].What, what) || !strings.Contains(problems[i].Fix, "comes back by itself") {
		t.Errorf("problems: %+v", problems)
	}
	if r := dc2.status().Pseudowires[1].Reason; r != "dc1 has put it in standby" {
		t.Errorf("the peer says %q", r)
	}
	dc1.restart()
	if got := dc1.wires(); !strings.HasSuffix(got, "b standby") {
		t.Errorf("after a restart: %s", got)
	}
	dc1.awaitWires("a up gold, b up gold")
	dc2.awaitWires("a up gold, b up gold")
	dc1.poll("nothing of it is left", func() error {
		var err error
		dc1.do(func() {
			if dc1.a.loops.ears != nil || len(dc1.a.drains) > 0 {
				err = fmt.Errorf("%+v, drained %v", dc1.a.loops, dc1.a.drains)
			}
		})
		return err
	})
}

// What goes on moving although no other site is heard has the pseudowire blocked for a time, which
// the status tells of; undraining it ends that.
func TestLoopBlocksForATime(t *testing.T) {
	dc1, dc2 := pair(t, drainedDoc)
	port := func(name string) int { return dc1.linkBy(name).Attrs().Index }
	dc1.do(func() {
		l := bridge.Loop{Address: bridge.Address{2, 0, 0, 0, 0, 1}, Bridge: port("br-lan"), Port: port("eth1"), Another: port("pw-b")}
		now := time.Now()
		for range 50 {
			dc1.a.macs.found = []bridge.Loop{l}
			dc1.a.closeLoops(now)
			dc1.a.watchLoops(now)
			now = now.Add(loop.Listen / 4)
		}
		if d := dc1.a.drains; len(d) != 1 || d[0].Until == nil {
			t.Fatalf("drained: %+v", d)
		}
	})
	dc1.awaitWires("a up gold, b standby")
	dc2.awaitWires("a up gold, b standby")
	const what = "a loop: 02:00:00:00:00:01 moves to and fro between eth1 and pw-b"
	problems := dc1.status().Problems
	i := slices.IndexFunc(problems, func(p api.Problem) bool { return p.Object == "pseudowire b" })
	if i < 0 || !strings.Contains(problems[i].What, what) || !strings.Contains(problems[i].Fix, "pwctl undrain b") {
		t.Errorf("problems: %+v", problems)
	}
	if err := dc1.drain(api.DrainRequest{Names: []string{"b"}, Undo: true}); err != nil {
		t.Error(err)
	}
	dc1.awaitWires("a up gold, b up gold")
}

// What could not be kept is not drained, and nobody is told that it was; what is wrong is over
// as soon as something could be.
func TestDrainIsToldOnceItIsKept(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	a := newAgent(v.opt)
	full := true
	a.host = v.openHost
	a.disk = func(what string, do func() error) error {
		if full && strings.HasPrefix(what, "write drains") {
			return errFate
		}
		return do()
	}
	if _, err := a.begun(); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)))); err != nil {
		t.Fatal(err)
	}
	request := &api.DrainRequest{Names: []string{"a"}, By: "uid 0"}
	told := func() (n int) {
		events, _ := a.events.since(0)
		for _, e := range events {
			if e.Message == "drained" || e.Message == "tried again" {
				n++
			}
		}
		return n
	}
	if _, err := a.drainNames(request); !errors.Is(err, errFate) || told() > 0 || len(a.drains) > 0 {
		t.Errorf("with a full disk: %v, told %d times, drained %v", err, told(), a.drains)
	}
	if got := a.faults.objects(); !slices.Equal(got, []string{"what is drained"}) {
		t.Errorf("with a full disk: faults %v", got)
	}
	full = false
	if _, err := a.drainNames(request); err != nil || told() != 1 || len(a.faults.objects()) > 0 {
		t.Errorf("afterwards: %v, told %d times, faults %v", err, told(), a.faults.objects())
	}
	// So it is with the end of what ends by itself.
	now := time.Now()
	a.drains = []drain{{Kind: kindPseudowire, Name: "a", Since: now, Until: &now}}
	for n, failing := range []bool{true, false} {
		full = failing
		a.endDrains(now.Add(time.Duration(n+1) * time.Hour))
		if got := told(); got != 1+n {
			t.Errorf("ended, with a full disk %v: told %d times", failing, got)
		}
	}
}
