package e2e

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/api"
)

// They are for figures: see docs/performance.md.
var (
	manyFlag = flag.Int("pseudowires", 0, "how many pseudowires TestManyPseudowires has; default 40, in a virtual machine 20")
	newFlag  = flag.Int("restarts", -1, "how often TestManyPseudowires starts a daemon anew; default 1, in a virtual machine 0")
	restFlag = flag.Duration("at-rest", 0, "for how long TestManyPseudowires measures what daemons with nothing to do take")
)

// TestManyPseudowires: many pseudowires of one tunnel, on VLANs of a bridge, are applied at
// once, changed one by one, taken up by a new daemon, and removed: nothing of them is left.
func TestManyPseudowires(t *testing.T) {
	n, restarts := cmp.Or(*manyFlag, 40), 1
	// The limits are many times what it takes, on a busy machine.
	limit := max(time.Minute, time.Duration(n)*200*time.Millisecond)
	if inVM {
		n, restarts = cmp.Or(*manyFlag, 20), 0
		limit = max(20*time.Second, time.Duration(n)*time.Second)
	}
	if *newFlag >= 0 {
		restarts = *newFlag
	}
	w := build(t, network{raw: true})
	none, all := w.many(0, 0), w.many(n, 0)
	w.write(none)
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, upWithin), 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	// What a tunnel has in the datapath since its first session stays as long as the tunnel.
	for _, text := range []string{w.many(1, 0), none} {
		if err := w.applyToBoth(text); err != nil {
			t.Fatal(err)
		}
	}
	before := w.objects()
	w.requests = w.countRequests()
	timed := func(what string, limit time.Duration, do func() error) {
		t.Helper()
		begin, busy, asked := time.Now(), w.busy(), w.asked()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		took := time.Since(begin)
		t.Logf("%s: %.3f s, of processors %s, requests %s", what, took.Seconds(), w.busy().since(busy), w.askedSince(asked))
		if took > limit {
			t.Errorf("%s took %v, more than %v", what, took, limit)
		}
	}
	up := func() error {
		for _, s := range w.sites {
			if err := s.AwaitUp(within(t, 2*limit), 1, n); err != nil {
				return err
			}
		}
		return nil
	}
	asked := w.asked()
	timed("applied at both, from nothing", limit, func() error { return w.applyToBoth(all) })
	timed("then, until all are up", limit, up)
	for i, now := range w.asked() {
		if most := uint64(requestsOnce + requestsEach*n); now-asked[i] > most {
			t.Errorf("%s took %d requests to set up %d pseudowires, more than %d", w.sites[i].Name, now-asked[i], n, most)
		}
	}
	timed("no change", limit, func() error { return w.apply(0, all) })
	timed("no change but of a comment", limit, func() error { return w.apply(0, all+"# a comment\n") })
	timed("one changed", limit, func() error { return w.apply(0, w.many(n, 1)) })
	timed("the status", limit, func() error { _, err := w.sites[0].Client().Status(t.Context()); return err })
	for what, change := range map[string]func(nl *netlink.Handle) error{"a neighbour came and went": neighbour, "a link came and went": visitor} {
		// A look that is due anyway may come in between.
		asked := min(w.lookAfter(change), w.lookAfter(change), w.lookAfter(change))
		if asked > lookRequests && w.network.datapaths[0] == "kernel" {
			t.Errorf("%s: %d requests among %d pseudowires, more than %d", what, asked, n, lookRequests)
		} else {
			t.Logf("%s: requests %d", what, asked)
		}
	}
	if *restFlag > 0 {
		timed("at rest", time.Hour, func() error { time.Sleep(*restFlag); return nil })
	}
	for range restarts {
		timed("stopped", limit, func() error { return w.sites[0].Stop(within(t, time.Minute)) })
		timed("started until all are up", limit, func() error {
			if err := w.sites[0].Start(); err != nil {
				return err
			}
			w.asked() // from here on
			return up()
		})
	}
	timed("removed at dc1", limit, func() error { return w.apply(0, none) })
	timed("removed at dc2", limit, func() error { return w.apply(1, none) })
	if after := w.objects(); after != before {
		t.Errorf("of the pseudowires there is left\n%s\nwhere before there was\n%s", after, before)
	}
	for _, s := range w.sites {
		if err := s.Stop(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := s.Cleanup(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := s.Left(); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// busy is the time that processors have spent on each site's daemon: in it, and in the kernel for it.
type busy [2][2]time.Duration

func (w *world) busy() (b busy) {
	const tick = time.Second / 100 // USER_HZ
	for i, s := range w.sites {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Daemon.Cmd.Process.Pid))
		if err != nil {
			continue // it has ended
		}
		// Behind the name, which is in parentheses: the 12th and the 13th field.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for k := range b[i] {
			n, _ := strconv.Atoi(fields[11+k])
			b[i][k] = time.Duration(n) * tick
		}
	}
	return b
}

// since is what has been added in words. A daemon that was started since has spent all of its own.
func (b busy) since(before busy) string {
	var words []string
	for i := range b {
		for k := range b[i] {
			if b[i][k] < before[i][k] {
				before[i] = [2]time.Duration{}
			}
		}
		words = append(words, fmt.Sprintf("dc%d %.2f + %.2f s", i+1, (b[i][0]-before[i][0]).Seconds(), (b[i][1]-before[i][1]).Seconds()))
	}
	return strings.Join(words, ", ")
}

// many is a topology with so many pseudowires, the first few of which have their VLANs
// changed.
func (w *world) many(n, changed int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: many}\nsites:\n"+
		"  dc1: {address: %q, bridges: {br-lan: {ports: [eth1]}}}\n  dc2: {address: %q, bridges: {br-lan: {ports: [eth1]}}}\n"+
		"tunnels:\n  gold: {sites: [dc1, dc2]}\npseudowires:\n", w.address[0], w.address[1])
	for i := range n {
		vlan := 2 + i
		if i < changed {
			vlan += n
		}
		fmt.Fprintf(&b, "  t%04d: {tunnel: gold, attach: {dc1: {bridge: br-lan, vlan: %d}, dc2: {bridge: br-lan, vlan: %d}}}\n", i, vlan, 2+i)
	}
	return b.String()
}

// apply applies a topology at a site.
func (w *world) apply(site int, text string) error {
	_, err := w.sites[site].Client().Apply(w.t.Context(), api.ApplyRequest{Name: "many.yaml", Document: text, Disruptive: true})
	return err
}

// applyToBoth applies a topology at both sites at once: each waits for the other.
func (w *world) applyToBoth(text string) error {
	far := make(chan error, 1)
	go func() { far <- w.apply(1, text) }()
	return errors.Join(w.apply(0, text), <-far)
}

// objects are what the daemons have in the kernel and in their files, by number.
func (w *world) objects() string {
	w.t.Helper()
	var b strings.Builder
	for _, s := range w.sites {
		links, err := s.NS.Netlink().LinkList()
		if err != nil {
			w.t.Fatal(err)
		}
		pins, files := 0, 0
		count := func(n *int) filepath.WalkFunc {
			return func(_ string, info os.FileInfo, err error) error {
				if err == nil && !info.IsDir() {
					*n++
				}
				return nil
			}
		}
		filepath.Walk(s.NS.Root()+"/sys/fs/bpf/pwd", count(&pins))
		filepath.Walk(filepath.Join(s.Dir, "state", "tunnels"), count(&files))
		fmt.Fprintf(&b, "%s: %d links, %d pins, %d files of tunnels\n", s.Name, len(links), pins, files)
	}
	return b.String()
}
