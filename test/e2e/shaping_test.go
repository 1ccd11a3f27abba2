package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// shapedText is the topology with three tunnels of a class each over a link of 10 mbit.
// What the guarantees leave goes to voice alone, whose priority is the first, up to its ceiling.
func (w *world) shapedText() string {
	text := strings.Replace(w.text(""), "tunnels:\n  gold: {sites: [dc1, dc2]}\n  silver: {sites: [dc1, dc2]}\n", `classes:
  voice: {dscp: ef, priority: 0, rate: 1mbit, ceiling: 6mbit, queue: 50}
  storage: {dscp: af21, priority: 3, rate: 3mbit, queue: 50}
  idle: {rate: 1mbit}
tunnels:
  gold: {sites: [dc1, dc2], class: voice}
  silver: {sites: [dc1, dc2], class: storage}
  bronze: {sites: [dc1, dc2], class: idle}
`, 1)
	return strings.Replace(text, "dc1: {address:", "dc1: {rate: 10mbit, address:", 1)
}

// classes are the first site's, by name.
func (w *world) classes(ctx context.Context) map[string]api.Class {
	w.t.Helper()
	list, err := w.sites[0].Client().Classes(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]api.Class{}
	for _, c := range list {
		all[c.Name] = c
	}
	return all
}

// While two tunnels have more to send than the link carries, each gets its
// guarantee, and the first in priority the rest, up to its ceiling. What is judged
// is the ratio of what both sent in the same time, which a slow machine leaves.
func TestShapes(t *testing.T) {
	if inVM {
		t.Skip("the kernel's datapath does not shape")
	}
	w := build(t, network{})
	w.write(w.shapedText())
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, 5*upWithin)
	for _, s := range w.sites {
		if err := s.AwaitUp(ctx, 3, 2); err != nil {
			t.Fatal(err)
		}
	}
	// About what the link carries, of each. The queues are shorter than what a socket lets wait: a
	// sender that is held up would go on, to send what is due, when it is to stop.
	for _, l := range []*lan{w.a, w.b} {
		f, err := l.hosts[0].NS.Flow(l.hosts[1].NS, l.addr[1], netlab.FlowOptions{Rate: 1100, Size: 1000})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Stop() })
	}
	poll := func(what string, enough func(map[string]api.Class) bool) map[string]api.Class {
		t.Helper()
		var c map[string]api.Class
		if err := netlab.Poll(within(t, 2*upWithin), what, func() error {
			if c = w.classes(ctx); enough(c) {
				return nil
			}
			return errors.New(fmt.Sprint(c))
		}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := poll("both wait", func(c map[string]api.Class) bool {
		return c["voice"].BacklogFrames > 20 && c["storage"].BacklogFrames > 20
	})
	after := poll("enough sent", func(c map[string]api.Class) bool {
		return c["storage"].Octets-before["storage"].Octets > 1_000_000
	})
	voice, storage := after["voice"].Octets-before["voice"].Octets, after["storage"].Octets-before["storage"].Octets
	if ratio := float64(voice) / float64(storage); ratio < 1.2 || ratio > 1.8 {
		t.Errorf("voice sent %d octets, storage %d: %.2f times as many, want 6/4", voice, storage, ratio)
	} else {
		t.Logf("voice sent %d octets, storage %d: %.2f times as many", voice, storage, ratio)
	}
	if c := w.classes(ctx)["idle"]; c.Octets != 0 {
		t.Errorf("idle sent %d octets: something is in the wrong class", c.Octets)
	}
	// Control messages are in no class: the connections live.
	if err := w.sites[0].AwaitUp(ctx, 3, 2); err != nil {
		t.Error(err)
	}
}
