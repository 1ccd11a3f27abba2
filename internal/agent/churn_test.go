package agent

import (
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

var churnFlag = flag.Duration("churn", 8*time.Hour, "for how long TestChurn has things come and go, in virtual time")

// TestChurn: for hours everything comes and goes: topologies at both sites, the path between
// them, daemons that end and that are killed, watchers of the API, drains, cookies, reloads.
// Back where it was, nothing has grown: memory, goroutines, descriptors, what the daemon
// remembers, what it has made, the files of its state.
func TestChurn(t *testing.T) {
	cryptotest.SetGlobalRandom(t, *firstFlag)
	dir := scratch(t)
	var before, after usage
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(*firstFlag, 2))
		base := randomTopology(t, r)
		d := newDuo(t, dir, complete(base))
		defer d.shut()
		c := &churn{t: t, duo: d, r: r}
		begin := time.Now()
		c.until(begin.Add(*churnFlag / 2))
		state := c.rest(base)
		before = c.usage()
		c.until(begin.Add(*churnFlag))
		d.compare(t, state, c.rest(base), "hours of churn")
		after = c.usage()
		t.Logf("%d turns in %v", c.turns, time.Since(begin).Round(time.Minute))
	})
	t.Logf("before %+v", before)
	t.Logf("after  %+v", after)
	for name, n := range after.counts {
		limit := before.counts[name] + 3 // a few come and go all the time
		if strings.HasSuffix(name, "history") {
			limit = keptGenerations
		}
		if site, ok := strings.CutSuffix(name, ".dials"); ok {
			// Which end of a tunnel has dialled is chance.
			limit = after.counts[site+".tunnels"] + 3
		}
		if n > limit {
			t.Errorf("%s: %d, before %d", name, n, before.counts[name])
		}
	}
	if grown := int64(after.heap) - int64(before.heap); grown > 2<<20 {
		t.Errorf("the heap has grown by %d octets", grown)
	}
}

// usage is what a site uses.
type usage struct {
	heap   uint64
	counts map[string]int
}

// churn has things come and go at two sites.
type churn struct {
	*duo
	t     *testing.T
	r     *rand.Rand
	turns int
}

func (c *churn) site() *virtual { return []*virtual{c.dc1, c.dc2}[c.r.IntN(2)] }

func (c *churn) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *churn) until(end time.Time) {
	for time.Now().Before(end) {
		c.turn()
		c.turns++
		settle(time.Duration(c.r.IntN(180)) * time.Second)
	}
}

// turn is one thing that happens.
func (c *churn) turn() {
	v := c.site()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch c.r.IntN(9) {
	case 0, 1:
		c.must(v.force(randomTopology(c.t, c.r)))
	case 2:
		_ = v.apply(randomTopology(c.t, c.r)) // what does not come up is taken back
	case 3:
		c.ether(true)
		settle(time.Duration(c.r.IntN(600)) * time.Second)
		c.ether(false)
	case 4:
		v.shut()
		settle(time.Duration(c.r.IntN(300)) * time.Second)
		c.must(v.start())
	case 5:
		v.fate.watch(1+c.r.IntN(10), killed)
		_ = v.apply(randomTopology(c.t, c.r))
		synctest.Wait()
		v.fate.watch(0, "")
		if v.dead() {
			c.must(v.start())
		}
	case 6:
		go v.a.Events(ctx, 0, true, func(api.Event) error { return nil })
		_, _ = v.a.Status(ctx)
		_, _ = v.a.History(ctx)
		settle(10 * time.Second)
	case 7:
		_, _ = v.a.RotateCookies(ctx, api.RotateRequest{})
	case 8:
		names := v.wires()
		if len(names) == 0 {
			return
		}
		request := api.DrainRequest{Names: names[:1], Kind: kindPseudowire, By: "test"}
		_, _ = v.a.Drain(ctx, request)
		request.Undo = true
		_, _ = v.a.Drain(ctx, request)
	}
}

func (c *churn) ether(cut bool) {
	e := c.dc1.ether
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut = cut
}

func (v *virtual) wires() (names []string) {
	_ = v.a.do(context.Background(), func() { names = slices.Sorted(maps.Keys(v.a.wires)) })
	return names
}

// rest brings both sites to where they began.
func (c *churn) rest(base string) string {
	c.must(c.dc2.force(complete(base)))
	c.must(c.dc1.force(base))
	settle(2 * time.Hour) // longer than all that is remembered for a while
	return c.dc1.state()
}

func (c *churn) usage() usage {
	u := usage{counts: map[string]int{"goroutines": runtime.NumGoroutine()}}
	for _, v := range []*virtual{c.dc1, c.dc2} {
		c.must(v.a.do(context.Background(), func() { count(u.counts, v.site, reflect.ValueOf(v.a).Elem()) }))
		count(u.counts, v.site+" land", reflect.ValueOf(v.land).Elem())
		count(u.counts, v.site+" ebpf", reflect.ValueOf(v.ebpf).Elem())
		count(u.counts, v.site+" kernel", reflect.ValueOf(v.kernel).Elem())
		filepath.WalkDir(v.opt.StateDir, func(path string, e os.DirEntry, err error) error {
			u.counts[v.site+" files in "+filepath.Base(filepath.Dir(path))]++
			return err
		})
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.counts["descriptors"] = len(fds)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap = m.HeapAlloc
	return u
}

// count notes how much there is in the maps and slices of a struct and of the structs in it.
func count(into map[string]int, name string, v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), name+"."+v.Type().Field(i).Name
		switch f.Kind() {
		case reflect.Map, reflect.Slice:
			into[name] = f.Len()
		case reflect.Struct:
			if !strings.HasPrefix(f.Type().PkgPath(), "time") && !strings.HasPrefix(f.Type().PkgPath(), "sync") {
				count(into, name, f)
			}
		}
	}
}
