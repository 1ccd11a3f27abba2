package agent

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	plansFlag = flag.Int("plans", 120, "how many random plans have every step fail")
	pairsFlag = flag.Int("pairs", 1, "how many random pairs of topologies have every step fail between two daemons")
	firstFlag = flag.Uint64("first", 1, "the seed of the first of the pairs")
)

// calm is how long everything has to come to rest: longer than all retries.
const calm = 2 * time.Minute

// duo is two virtual sites with daemons, dc1 being that whose steps are counted.
type duo struct{ dc1, dc2 *virtual }

func newDuo(t testing.TB, dir, there string) *duo {
	e := newEther()
	d := &duo{newVirtual(t, e, "dc1", "192.0.2.1", dir), newVirtual(t, e, "dc2", "192.0.2.2", dir)}
	for _, v := range []*virtual{d.dc1, d.dc2} {
		if err := v.start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.dc2.force(there); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *duo) shut() {
	d.dc1.shut()
	d.dc2.shut()
}

// begin puts a topology into force at dc1, and has everything come to rest.
func (d *duo) begin(t *testing.T, text string) (state string) {
	t.Helper()
	if err := d.dc1.force(text); err != nil {
		t.Fatalf("%v, of\n%s", err, text)
	}
	settle(calm)
	return d.dc1.state()
}

// scratch is a folder in memory where there is one: everything is synced a lot.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "pwd-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Every step of an apply, of random topologies, fails once, both before it has been done and after:
// everything is as the answer says then, the topology before or that after. The steps
// are those in the datapath, the bridges, the shaper and the state directory.
func TestEveryStepCanFail(t *testing.T) {
	for i := range *pairsFlag {
		seed := *firstFlag + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			dir := scratch(t)
			synctest.Test(t, func(t *testing.T) { everyStep(t, seed, dir) })
		})
	}
}

// nothing is a topology without tunnels or pseudowires.
const nothing = `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites: {dc1: {address: 192.0.2.1}, dc2: {address: 192.0.2.2}}
tunnels: {last: {sites: [dc1, dc2]}}
`

func everyStep(t *testing.T, seed uint64, dir string) {
	r := rand.New(rand.NewPCG(seed, 0))
	from, to := randomTopology(t, r), randomTopology(t, r)
	d := newDuo(t, dir, complete([]string{from, to}[r.IntN(2)]))
	defer d.shut()
	before := d.begin(t, from)
	after := d.begin(t, to)
	d.begin(t, nothing)
	d.compare(t, after, d.begin(t, to), "coming from nothing")
	d.compare(t, before, d.begin(t, from), "there and back")
	for _, how := range []end{refused, lost, killed, killedIn} {
		for n := 1; ; n++ {
			d.dc1.fate.watch(n, how)
			err := d.dc1.apply(to)
			synctest.Wait()
			steps := d.dc1.fate.seen()
			d.dc1.fate.watch(0, "")
			if len(steps) < n {
				break
			}
			what := fmt.Sprintf("step %d (%s) %s, the apply: %v", n, steps[n-1], how, err)
			want := after
			if err != nil {
				want = before
			}
			if d.dc1.dead() {
				if err := d.dc1.start(); err != nil {
					t.Fatalf("after %s, no start: %v", what, err)
				}
			}
			settle(calm)
			state := d.dc1.state()
			if (how == killed || how == killedIn) && strings.Contains(state, "in force "+hashOf([]byte(to))) {
				want = after
			}
			d.compare(t, want, state, what)
			if want == after {
				d.compare(t, before, d.begin(t, from), "going back")
			}
			if t.Failed() {
				t.Fatalf("%s\nfrom\n%s\nto\n%s", what, from, to)
			}
		}
		d.begin(t, from)
	}
}

// The same of hundreds of plans, one after the other, of a daemon that has nobody to talk to
// and whose clock stands still: every step below the agent fails once.
func TestEveryStepOfManyPlansCanFail(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", scratch(t))
	a := newAgent(v.opt)
	a.host, a.disk = v.openHost, v.fate.step
	if _, err := a.begun(); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	d, steps := &duo{dc1: v}, 0
	// change has what failed tried again, as it would be in some seconds.
	change := func(text string) (seen int, err error) {
		if _, err = a.change(mustParse(t, text)); err == nil {
			err = a.commit()
		}
		seen = len(v.fate.seen())
		v.fate.watch(0, "")
		a.settle(time.Now())
		a.retry()
		return seen, err
	}
	state := func() string {
		all := append(v.inside(a), v.host()...)
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	r := rand.New(rand.NewPCG(*firstFlag, 1))
	do := func(text string) string {
		if _, err := change(text); err != nil {
			t.Fatal(err)
		}
		return state()
	}
	from := randomTopology(t, r)
	before := do(from)
	for range *plansFlag {
		to := randomTopology(t, r)
		after := do(to)
		d.compare(t, before, do(from), "there and back")
		for _, how := range []end{refused, lost} {
			for n, more := 1, true; more && !t.Failed(); n++ {
				v.fate.watch(n, how)
				seen, err := change(to)
				want := before
				if err == nil {
					want = after
				}
				d.compare(t, want, state(), fmt.Sprintf("step %d %s: %v", n, how, err))
				if err == nil {
					d.compare(t, before, do(from), "going back")
				}
				more = n < seen
				steps++
			}
		}
		if t.Failed() {
			t.Fatalf("from\n%s\nto\n%s", from, to)
		}
		from, before = to, do(to)
	}
	t.Logf("%d plans, %d steps failed", *plansFlag, steps)
}

// compare compares states, line by line.
func (d *duo) compare(t *testing.T, want, got, after string) {
	t.Helper()
	if want == got {
		return
	}
	var diff strings.Builder
	in := func(s string) map[string]bool {
		set := map[string]bool{}
		for _, l := range lines(s) {
			set[l] = true
		}
		return set
	}
	wanted, there := in(want), in(got)
	for _, l := range lines(want) {
		if !there[l] {
			diff.WriteString("- " + l + "\n")
		}
	}
	for _, l := range lines(got) {
		if !wanted[l] {
			diff.WriteString("+ " + l + "\n")
		}
	}
	t.Errorf("after %s, not as it is to be:\n%s", after, diff.String())
}
