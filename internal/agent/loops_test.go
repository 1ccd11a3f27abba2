package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/loop"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// begun is a daemon of the site that does not run.
func (v *virtual) begun(disk func(what string, do func() error) error) *Agent {
	v.t.Helper()
	a := newAgent(v.opt)
	a.host, a.disk = v.openHost, disk
	if _, err := a.begun(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { a.Close() })
	return a
}

// loopy is a daemon with the pseudowire a, which hears what is put into its ears.
func loopy(t *testing.T, disk func(what string, do func() error) error) (*virtual, *Agent) {
	t.Helper()
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	a := v.begun(disk)
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)))); err != nil {
		t.Fatal(err)
	}
	if err := a.store.setGeneration(a.generation); err != nil {
		t.Fatal(err)
	}
	a.arrive()
	none, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := none.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	a.loops.ears = &ears{file: none, raw: raw, done: make(chan struct{}), heard: make(chan earful, 1)}
	close(a.loops.ears.done)
	a.guard("a").sides = []bridge.Side{{Name: "eth1", Index: 3, Tags: []uint16{7}}}
	return v, a
}

// A hold is a moment's: neither a daemon that is stopped within it nor one that is killed leaves a port that
// does not forward. What is blocked for a loop stays so.
func TestHoldDoesNotOutliveTheDaemon(t *testing.T) {
	for _, stopped := range []bool{true, false} {
		v, a := loopy(t, nil)
		a.setBlocked(a.wires["a"], true)
		if stopped {
			if err := a.leave(); err != nil {
				t.Error(err)
			}
		} else {
			a.Close()
			v.begun(nil)
		}
		if blocked, told := v.land.blocked["a"]; blocked || !told {
			t.Errorf("stopped %v: it does not forward", stopped)
		}
	}
	v, a := loopy(t, nil)
	a.blockLoops(time.Now(), map[string]drain{"a": {Kind: kindPseudowire, Name: "a", Joined: "dc2"}})
	a.Close()
	v.begun(nil)
	if !v.land.blocked["a"] {
		t.Error("what a loop has blocked forwards after a restart")
	}
}

// A daemon that takes everything down at its end says in its last probe that it gets through to nobody, when
// it forwards nothing any more.
func TestLastProbe(t *testing.T) {
	v, a := loopy(t, nil)
	now := time.Now()
	a.guard("a").Suspect(now, "it moves", "dc2")
	if a.leaveLoops(now); !v.land.blocked["a"] {
		t.Error("it forwards while it leaves")
	}

	dc1, _ := pair(t, drainedDoc)
	dc1.awaitWires("a up gold, b up gold")
	capture, err := dc1.ns.Link("eth1").Capture(netlab.CaptureOptions{Outgoing: true})
	if err != nil {
		t.Fatal(err)
	}
	defer capture.Stop()
	port := func(name string) int { return dc1.linkBy(name).Attrs().Index }
	dc1.do(func() {
		dc1.a.opt.OnStopTeardown = true
		dc1.a.macs.found = []bridge.Loop{{
			Address: bridge.Address{2, 0, 0, 0, 0, 1}, Bridge: port("br-lan"), Port: port("eth1"), Another: port("pw-b"),
		}}
		dc1.a.closeLoops(now)
		dc1.a.watchLoops(now)
	})
	dc1.shut()
	var reaches []bool
	frames, err := capture.Stop()
	for _, f := range frames {
		const tagged = ethernetHeader + 4
		if len(f.Data) < tagged {
			continue
		}
		if h, err := loop.Parse(f.Data[tagged:]); err == nil {
			p, is := h.In("b", []string{"dc2"})
			if !is || p.Site != "dc1" {
				t.Errorf("a probe of %+v", h)
			}
			reaches = append(reaches, p.Reaches["dc2"])
		}
	}
	if last := len(reaches) - 1; err != nil || last < 1 || slices.Index(reaches, false) != last {
		t.Errorf("probes that say whether it gets through to dc2: %v, %v", reaches, err)
	}
}

// What has been heard and waits is taken before anything is decided; and what it turns from held
// into blocked does not forward in between. Bridges are told again with each probe only.
func TestHeardBeforeDecided(t *testing.T) {
	v, a := loopy(t, nil)
	now := time.Now()
	g := a.guard("a")
	g.Suspect(now, "it moves", "dc2")
	a.loops.next = now
	a.watchLoops(now)
	v.land.mu.Lock()
	kept := v.land.kept
	v.land.mu.Unlock()
	if !g.held["a"] || kept != 1 {
		t.Fatalf("held %v, kept %d times", g.held, kept)
	}
	g.sides = []bridge.Side{{Name: "eth1", Index: 3, Tags: []uint16{7}}}
	now = now.Add(time.Millisecond)
	a.loops.next = now
	a.watchLoops(now)
	if v.land.kept != 1 {
		t.Errorf("without a probe to send the bridge was told %d times", v.land.kept)
	}
	a.loops.ears.heard <- heardProbe(t, "a", 3, 7)
	a.loops.next = now
	v.land.blocks = []string{}
	a.watchLoops(now)
	if len(a.drains) != 1 || slices.Contains(v.land.blocks, "a false") || !v.land.blocked["a"] {
		t.Errorf("drained %+v, ports %v", a.drains, v.land.blocks)
	}
}

// Where the LANs are is looked for once for all networks, and again only when links have changed, or, of those
// where that failed, with the next probe.
func TestLANsAreLookedForOnce(t *testing.T) {
	v, a := loopy(t, nil)
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8)+wireTo("c", "gold", 9)))); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, network := range []string{"a", "b", "c"} {
		a.guard(network).Suspect(now, "it moves", "dc2")
	}
	rounds := func(n int) {
		for range n {
			a.loops.next = now
			a.watchLoops(now)
			now = now.Add(200 * time.Millisecond)
		}
	}
	expect := func(what string, kept int, looks ...string) {
		t.Helper()
		if !slices.Equal(v.land.looks, looks) || v.land.kept != kept {
			t.Errorf("%s: looked for %q, bridges told %d times; want %q, %d", what, v.land.looks, v.land.kept, looks, kept)
		}
		v.land.looks, v.land.kept = nil, 0
	}
	rounds(5)
	expect("at first", 3, "a b c")
	a.observe(news{links: map[string]bool{"eth1": true}})
	rounds(5)
	expect("a link has changed", 3, "a b c")
	a.observe(news{lost: true})
	rounds(5)
	expect("who knows what has changed", 3, "a b c")
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 18)+wireTo("c", "gold", 9)))); err != nil {
		t.Fatal(err)
	}
	rounds(1)
	expect("another topology", 3, "a b c")
	a.guard("b").failed = true
	rounds(2)
	expect("of one that is not known", 1, "b")
}

// What somebody drained goes before what is blocked for a loop, whichever came first: the site does
// not get through there, and so another one forwards.
func TestDrainsBeforeLoops(t *testing.T) {
	_, a := loopy(t, nil)
	blocked := drain{Kind: kindPseudowire, Name: "a", Joined: "dc2"}
	for _, asked := range []drain{{Kind: kindSite, Name: "dc1"}, {Kind: kindSite, Name: "dc2"}, {Kind: kindTunnel, Name: "gold"}} {
		for _, all := range [][]drain{{asked, blocked}, {blocked, asked}} {
			if err := a.setDrains(all); err != nil {
				t.Fatal(err)
			}
			if w := a.wires["a"].withheld; w == nil || w.byLoop() {
				t.Errorf("%+v: withheld by %+v", all, w)
			}
		}
	}
}

// A block that cannot be written holds all the same; the fault is told, and over once it is written.
func TestBlockThatCannotBeKept(t *testing.T) {
	full := true
	v, a := loopy(t, func(what string, do func() error) error {
		if full && strings.HasPrefix(what, "write loops") {
			return errFate
		}
		return do()
	})
	a.blockLoops(time.Now(), map[string]drain{"a": {Kind: kindPseudowire, Name: "a", Joined: "dc2"}})
	if len(a.drains) != 1 || a.wires["a"].withheld == nil || !v.land.blocked["a"] || len(a.faults.objects()) != 1 {
		t.Errorf("drained %+v, ports %v, faults %v", a.drains, v.land.blocked, a.faults.objects())
	}
	full = false
	a.keepBlocks()
	if kept, err := a.store.drains(); err != nil || len(kept) != 1 || len(a.faults.objects()) != 0 {
		t.Errorf("afterwards: kept %+v, %v, faults %v", kept, err, a.faults.objects())
	}
}

// An end that cannot be written is none: what was blocked stays so, and the files say it again as
// soon as they can.
func TestUndrainThatCannotBeKept(t *testing.T) {
	full := false
	_, a := loopy(t, func(what string, do func() error) error {
		if full && strings.HasPrefix(what, "write drains") {
			return errFate
		}
		return do()
	})
	now := time.Now()
	until := now.Add(time.Hour)
	a.guard("a").Keep(now, "dc2", loop.Block{Joined: "dc2", Port: "eth1"})
	a.blockLoops(now, map[string]drain{"a": {Kind: kindPseudowire, Name: "a", Until: &until}})
	full = true
	if _, err := a.drainNames(&api.DrainRequest{Names: []string{"a"}, Undo: true}); !errors.Is(err, errFate) {
		t.Errorf("%v", err)
	}
	if v := a.guard("a").Advance(now, a.reached(a.wiresIn("a"))); len(v.Blocked) != 1 || len(a.drains) != 1 {
		t.Errorf("blocked %+v, drained %+v", v.Blocked, a.drains)
	}
	full = false
	a.keepBlocks()
	if kept, err := a.store.drains(); err != nil || len(kept) != 1 || len(a.faults.objects()) != 0 {
		t.Errorf("afterwards: kept %+v, %v, faults %v", kept, err, a.faults.objects())
	}
}

// What is blocked for loops is in a file of its own, which a daemon that does not know of it does not read.
func TestBlocksAreKeptApart(t *testing.T) {
	_, a := loopy(t, nil)
	all := []drain{{Kind: kindPseudowire, Name: "b"}, {Kind: kindPseudowire, Name: "a", Joined: "dc2", Behind: "eth1"}}
	if err := a.store.setDrains(all); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(a.opt.StateDir, "drains.json")
	if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), "joined") || !strings.Contains(string(b), `"b"`) {
		t.Errorf("drains: %s, %v", b, err)
	}
	if got, err := a.store.drains(); err != nil || !slices.Equal(got, all) {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := a.store.setDrains(all[:1]); err != nil {
		t.Fatal(err)
	}
	if got, err := a.store.drains(); err != nil || !slices.Equal(got, all[:1]) {
		t.Errorf("read %+v, %v", got, err)
	}
}

// ports is a bridge's: links 1 and 2 are the devices of two pseudowires.
type ports struct{ noCircuits }

func (ports) Port(index int) (name, pseudowire string) {
	return []string{"", "pw-b", "pw-c"}[index], []string{"", "office/dc2", "office/dc3"}[index]
}

// What moves between two pseudowires goes through both of them. What is told of it once one is in standby was before
// that: a host that a loop keeps busy hears of it late.
func TestMovesBeforeStandbyAreNoLoop(t *testing.T) {
	for _, standby := range []string{"", "office/dc2", "office/dc3"} {
		a := newAgent(Options{Site: "dc1"})
		a.bridges, a.macs = ports{}, &macWatch{}
		for name, peer := range map[string]string{"office/dc2": "dc2", "office/dc3": "dc3"} {
			a.wires[name] = &wire{Pseudowire: &topology.Pseudowire{Name: name, Network: "office", Peer: peer}, standby: name == standby}
		}
		peers := map[string]bool{"dc2": true, "dc3": true}
		blocked := false
		begin := time.Now()
		for now := begin; !blocked && now.Sub(begin) < time.Minute; now = now.Add(100 * time.Millisecond) {
			a.macs.found = []bridge.Loop{{Address: bridge.Address{2, 0, 0, 0, 0, 7}, Bridge: 9, Port: 1, Another: 2}}
			a.closeLoops(now)
			blocked = len(a.guard("office").Advance(now, peers).Blocked) > 0
		}
		if blocked != (standby == "") {
			t.Errorf("in standby %q: blocked %v", standby, blocked)
		}
	}
}
