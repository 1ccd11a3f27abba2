package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/nsp"
	"github.com/pwd-project/pwd/pkg/pseudowire/spread"
	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/pkg/vlan"
	"github.com/pwd-project/pwd/test/steermodel"
)

var threeTunnels = []string{"gold", "silver", "lead"}

// rules has frames leave by them.
func (b *bench) rules(rules ...steer.Rule) {
	b.t.Helper()
	b.do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x", Several: true, Steer: &pseudowire.Steer{Tunnels: threeTunnels, Rules: rules}})
	})
}

// steered has sessions 1, 2 and 3 in three tunnels, and then rules.
func steered(t *testing.T, rules ...steer.Rule) *bench {
	t.Helper()
	b := newBench(t)
	b.pseudowire(true)
	b.attach()
	for i, tunnel := range threeTunnels {
		b.session(uint32(i+1), tunnel, true)
	}
	b.rules(rules...)
	b.carrier(true)
	return b
}

// captured are captures of the test's frames behind all sessions: the bridge speaks, too.
func (b *bench) captured() map[uint32]*netlab.Capture {
	b.t.Helper()
	all := map[uint32]*netlab.Capture{}
	for id, far := range b.far {
		c, err := far.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
			return len(f.Data) > 9 && f.Data[6] == 2 && (f.Data[8] == 0x5e || f.Data[8] == 0)
		}})
		b.must(err)
		all[id] = c
	}
	return all
}

func toTunnel(tunnel string, m steer.Match) steer.Rule {
	return steer.Rule{Tunnels: []string{tunnel}, Match: m}
}

// What the program makes of frames, asked and on the wire, is what the rules say.
func TestSteerByRules(t *testing.T) {
	b := steered(t, toTunnel("gold", steer.Match{}))
	r := rand.New(rand.NewPCG(3, 4))
	hits, taken := map[int]int{}, map[string]int{}
	device := b.ns.Link("pw-x")
	for range 30 {
		rules := steermodel.MakeRules(r, threeTunnels)
		b.rules(rules...)
		captures, want := b.captured(), map[uint32][][]byte{}
		for range 40 {
			f := steermodel.MakeFrame(r, 0, false)
			rule, tunnels := slices.IndexFunc(rules, func(r steer.Rule) bool { return f.Matches(&r.Match) }), threeTunnels[2:]
			if rule >= 0 {
				tunnels = rules[rule].Tunnels
			}
			got, err := b.d.Classify("x", pseudowire.Frame{Octets: f.Octets})
			b.must(err)
			if got.Rule != rule || !slices.Contains(tunnels, got.Tunnel) || got.Dropped != "" || threeTunnels[got.Session-1] != got.Tunnel {
				t.Errorf("frame %x: %+v\nit is %+v\nrule %d (tunnels %v) of %v", f.Octets, got, f, rule, tunnels, rules)
			}
			hits[rule]++
			taken[got.Tunnel]++
			b.must(device.Send(f.Octets))
			want[got.Session] = append(want[got.Session], f.Octets)
		}
		for id, c := range captures {
			if _, err := c.WaitCount(b.within(), len(want[id])); err != nil {
				t.Error(err)
			}
			frames, err := c.Stop()
			b.must(err)
			if len(frames) != len(want[id]) {
				t.Errorf("over session %d went %d frames, not %d", id, len(frames), len(want[id]))
			}
			for i, w := range want[id] {
				if i < len(frames) && !bytes.Equal(frames[i].Data, w) {
					t.Errorf("over session %d went %x, not %x", id, frames[i].Data, w)
				}
			}
		}
	}
	if hits[-1] == 0 || hits[0] == 0 || len(hits) < 5 || len(taken) != 3 {
		t.Errorf("how often each rule: %v, each tunnel: %v", hits, taken)
	}
}

// Rules see the priority bits of a tag that native service processing takes off before.
func TestSteerByPoppedPriority(t *testing.T) {
	b := steered(t)
	var served *nsp.Datapath
	b.do(func() (err error) {
		served, err = nsp.Wrap(b.d, nsp.Options{})
		if err != nil {
			return err
		}
		t.Cleanup(func() { served.Close() })
		return served.SetPseudowire(pseudowire.Pseudowire{
			Name: "x", Device: "pw-x", Several: true, Service: pseudowire.Service{Filter: true, VLANs: vlan.Of(vlan.Range{First: 100, Last: 100}), Push: true},
			Steer: &pseudowire.Steer{Tunnels: threeTunnels, Rules: []steer.Rule{toTunnel("gold", steer.Match{PCP: []uint8{5}}), toTunnel("silver", steer.Match{PCP: []uint8{0}})}},
		})
	})
	plain := typed(0x88b5, 0)
	for _, tt := range []struct {
		name    string
		tags    []byte
		rest    []byte
		session uint32
	}{
		{"priority 5", []byte{0x81, 0, 0xa0, 100}, nil, 1},
		{"priority 0", []byte{0x81, 0, 0, 100}, nil, 2},
		{"priority 7", []byte{0x81, 0, 0xe0, 100}, nil, 3},
		{"priority 5, and 0 of a second tag", []byte{0x81, 0, 0xa0, 100}, []byte{0x81, 0, 0, 7}, 1},
	} {
		frame := slices.Concat(plain[:12], tt.tags, tt.rest, plain[12:])
		if got, err := served.Classify("x", pseudowire.Frame{Octets: frame}); err != nil || got.Session != tt.session {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		captures := b.captured()
		b.must(b.ns.Link("pw-x").Send(frame))
		frames, err := captures[tt.session].WaitCount(b.within(), 1)
		if err != nil || !bytes.Equal(frames[0].Data, slices.Concat(plain[:12], tt.rest, plain[12:])) {
			t.Errorf("%s: %+v, %v", tt.name, frames, err)
		}
		for _, c := range captures {
			if _, err := c.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A frame whose way has gone is counted.
func TestSteerCounts(t *testing.T) {
	b := steered(t, toTunnel("gold", steer.Match{EtherTypes: []uint16{0x88b5}}))
	b.must(b.d.programs.Exits.Delete(spread.Pair{Outer: b.d.wires["x"].outer}.Key(0)))
	b.must(b.lan.Send(typed(0x88b5, 0)))
	b.goes("another one", 0x88b6, 3)
	if got, err := b.d.Global(); err != nil || got[pseudowire.DropNotTransmit] != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

// typed is a frame of an EtherType with a number.
func typed(ethertype uint16, serial int) []byte {
	b := slices.Concat(bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 1})
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, ethertype), uint32(serial))
	return append(b, make([]byte, 46)...)
}

// goes wants a frame of an EtherType to leave over one session and no other.
func (b *bench) goes(what string, ethertype uint16, session uint32) {
	b.t.Helper()
	captures := b.captured()
	b.must(b.lan.Send(typed(ethertype, 0)))
	if _, err := captures[session].WaitCount(b.within(), 1); err != nil {
		b.t.Errorf("%s: %v", what, err)
	}
	for id, c := range captures {
		frames, err := c.Stop()
		b.must(err)
		if id != session && len(frames) > 0 {
			b.t.Errorf("%s: session %d sent % x", what, id, frames[0].Data)
		}
	}
}

// flowPause is FLOW_PAUSE of steer.h.
const flowPause = 200 * time.Millisecond

// A tunnel that goes down, or goes, is stood in for by the next at once; what comes back is
// taken by a flow in its first pause. All receive. One tunnel with rules is redundancy, and back.
func TestSteerStandsIn(t *testing.T) {
	first, second := toTunnel("gold", steer.Match{EtherTypes: []uint16{0x88b5}}), toTunnel("silver", steer.Match{EtherTypes: []uint16{0x88b6}})
	b := steered(t, first, second)
	index := b.ns.Link("pw-x").Index
	b.goes("rule 1", 0x88b5, 1)
	b.goes("rule 2", 0x88b6, 2)
	b.goes("no rule", 0x88b7, 3)

	b.session(2, "silver", false)
	b.goes("rule 2, silver being down", 0x88b6, 3)
	b.do(func() error { return b.d.RemoveTunnel("lead") })
	b.goes("rule 2, silver and lead being down", 0x88b6, 1)
	b.goes("no rule, lead having gone", 0x88b7, 1)
	b.session(2, "silver", true)
	b.goes("a flow under way", 0x88b6, 1)
	time.Sleep(2 * flowPause)
	b.goes("a flow that begins to pause", 0x88b6, 2)
	b.session(4, "lead", true)
	time.Sleep(2 * flowPause)
	b.goes("a flow of which nothing came since", 0x88b7, 1)
	time.Sleep(2 * flowPause)
	b.goes("a flow after a pause", 0x88b7, 4)

	// A flow that has gone over, and is to go over once more before the others have: to where it
	// has gone in the meantime, first.
	b.session(1, "gold", false)
	b.session(2, "silver", false)
	b.goes("rule 1, lead alone being up", 0x88b5, 4)
	b.session(2, "silver", true)
	b.goes("a flow under way", 0x88b5, 4)
	time.Sleep(2 * flowPause)
	b.goes("a flow after a pause", 0x88b5, 2)
	b.session(1, "gold", true)
	b.goes("a flow under way once more", 0x88b5, 2)
	time.Sleep(2 * flowPause)
	b.goes("a flow after another pause", 0x88b5, 1)

	b.pseudowire(true) // one sends
	b.session(1, "gold", true)
	b.passes(1)
	if got, err := b.d.Classify("x", pseudowire.Frame{Octets: typed(0x88b6, 0)}); err != nil || got.Rule != -1 || got.Session != 1 {
		t.Errorf("without rules: %+v, %v", got, err)
	}
	b.rules(first, second)
	b.goes("rule 2, rules being back", 0x88b6, 2)
	for id, far := range b.far {
		c, err := b.lan.Capture(netlab.CaptureOptions{Keep: ours})
		b.must(err)
		in := b.frame()
		b.must(far.Send(in))
		if _, err := c.WaitCount(b.within(), 1); err != nil {
			t.Errorf("from session %d: %v", id, err)
		}
		if frames, err := c.Stop(); err != nil || len(frames) != 1 || !bytes.Equal(frames[0].Data, in) {
			t.Errorf("from session %d came %d frames, %v", id, len(frames), err)
		}
	}
	for _, id := range []uint32{1, 2, 4} {
		b.do(func() error { return b.d.RemoveSession(id) })
	}
	b.carrier(false)
	if now := b.ns.Link("pw-x").Index; now != index {
		t.Errorf("the device was made anew: %d, it was %d", now, index)
	}
	b.do(func() error { return b.d.RemovePseudowires("x") })
	b.nothing()
	for name, table := range map[string]interface{ Keys() ([]uint32, error) }{"exits": b.d.programs.Exits, "steers": b.d.programs.Steers} {
		if keys, err := table.Keys(); err != nil || len(keys) > 0 {
			t.Errorf("map %s has %x, %v", name, keys, err)
		}
	}
}

// After a restart frames leave as before until all sessions are known.
func TestSteerRestart(t *testing.T) {
	rule := toTunnel("silver", steer.Match{EtherTypes: []uint16{0x88b6}})
	b := steered(t, rule)
	b.restart()
	b.rules(rule)
	for i, tunnel := range threeTunnels {
		b.goes("rule 1", 0x88b6, 2)
		b.goes("no rule", 0x88b7, 3)
		b.session(uint32(i+1), tunnel, true)
	}
	b.goes("rule 1, all being known", 0x88b6, 2)
	b.goes("no rule, all being known", 0x88b7, 3)
	b.do(b.d.Prune)
	b.goes("no rule, all being settled", 0x88b7, 3)

	b.restart()
	b.rules(rule)
	b.session(1, "gold", true)
	b.do(b.d.Prune)
	b.goes("rule 1, one session being left", 0x88b6, 1)
}

// While rules change, and tunnels go down and come back, no frame is lost or doubled.
func TestSteerWithoutLoss(t *testing.T) {
	b := steered(t)
	b.hosts.Bridge("peer", b.far[1], b.far[2], b.far[3]).Silent().Up()
	const count = 2000
	c, err := b.hosts.Link("peer").Capture(netlab.CaptureOptions{Keep: ours})
	b.must(err)
	done := make(chan error, 1)
	go func() {
		var err error
		for i := range count {
			err = errors.Join(err, b.lan.Send(typed(0x88b5, i)))
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		done <- err
	}()
	for i := range 10 {
		b.rules(toTunnel(threeTunnels[i%3], steer.Match{EtherTypes: []uint16{0x88b5}}))
		b.session(uint32(i%3+1), threeTunnels[i%3], false)
		b.session(uint32(i%3+1), threeTunnels[i%3], true)
		b.rules()
	}
	b.must(<-done)
	if _, err := c.WaitCount(b.within(), count); err != nil {
		t.Error(err)
	}
	frames, err := c.Stop()
	b.must(err)
	seen := map[string]bool{}
	for _, f := range frames {
		seen[string(f.Data)] = true
	}
	if len(frames) != count || len(seen) != count {
		t.Errorf("%d frames sent, %d came, %d different ones", count, len(frames), len(seen))
	}
}

// What the program has no room for is refused; a pseudowire with one session has no program to ask.
func TestSteerRefusals(t *testing.T) {
	b := newBench(t)
	err := b.ns.Do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x", Several: true, Steer: &pseudowire.Steer{Tunnels: threeTunnels, Rules: []steer.Rule{toTunnel("tin", steer.Match{})}}})
	})
	if e := new(Error); !errors.As(err, &e) || e.Pseudowire != "x" {
		t.Errorf("a rule for another tunnel: %v", err)
	}
	b.nothing()
	b.pseudowire(false)
	b.session(1, "gold", true)
	if _, err := b.d.Classify("x", pseudowire.Frame{Octets: typed(0x88b5, 0)}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("classify without rules: %v", err)
	}
}
