package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// twoWays is two sites with two underlays between them, and a host behind each.
//
//	host 0 ── eth1 dc1 ┬─ eth0 ── way 0 ── eth0 ─┬ dc2 eth1 ── host 1
//	                   └─ eth3 ── way 1 ── eth3 ─┘
type twoWays struct {
	t     *testing.T
	lab   *netlab.Lab
	sites [2]*site.Site
	hosts [2]*netlab.Link
	addr  [2]netip.Addr
	// ports are where each way reaches dc2, ways the bridges that they are in, away one
	// that leads nowhere.
	ports, ways [2]*netlab.Link
	away        *netlab.Link
	// topology is the file of both sites, text what is in it.
	topology, text string
}

// hello is the interval of both tunnels: the shortest there is.
const hello = time.Second

// buildTwoWays draws it and starts the daemons; hold is more of the pseudowire's redundancy.
func buildTwoWays(t *testing.T, datapaths [2]string, hold string) *twoWays {
	t.Helper()
	w := drawTwoWays(t, datapaths, "redundancy: {active: gold, standby: silver"+hold+"}")
	w.awaitUsed("gold")
	return w
}

// drawTwoWays does so where the pseudowire has its tunnels for anything.
func drawTwoWays(t *testing.T, datapaths [2]string, tunnels string) *twoWays {
	t.Helper()
	dir := t.TempDir()
	w := &twoWays{t: t, lab: netlab.New(t)}
	file := filepath.Join(dir, "topology.yaml")
	text := fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: two-ways}
sites:
  dc1:
    underlays: {leased: {address: 192.0.2.1}, internet: {address: 203.0.113.1}}
    bridges: {br-lan: {ports: [eth1]}}
  dc2:
    underlays: {leased: {address: 192.0.2.2}, internet: {address: 203.0.113.2}}
    bridges: {br-lan: {ports: [eth1]}}
tunnels:
  gold: {sites: [dc1, dc2], hello: %[1]v, underlay: {dc1: leased, dc2: leased}}
  silver: {sites: [dc1, dc2], hello: %[1]v, underlay: {dc1: internet, dc2: internet}}
pseudowires:
  trunk:
    %s
    attach:
      dc1: {bridge: br-lan}
      dc2: {bridge: br-lan}
`, hello, tunnels)
	w.topology, w.text = file, text
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	middle := w.lab.Namespace("middle")
	var ends [2][]*netlab.Link
	for i := range w.sites {
		name := fmt.Sprintf("dc%d", i+1)
		s := &site.Site{
			Name: name, NS: w.lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: file,
			Flags: []string{"--datapath", datapaths[i]}, Links: []string{"eth0", "eth1", "eth3"},
		}
		w.sites[i] = s
		t.Cleanup(s.Close)
		for k, way := range []struct{ nic, prefix string }{{"eth0", "192.0.2.%d/24"}, {"eth3", "203.0.113.%d/24"}} {
			port, nic := w.lab.Veth(middle, fmt.Sprintf("port%d%d", k, i), s.NS, way.nic)
			if inVM {
				nic.Feature("tx-checksum-*", false)
			}
			nic.Addr(fmt.Sprintf(way.prefix, i+1)).Up()
			ends[k] = append(ends[k], port.Silent().Up())
			w.ports[k] = port
		}
		w.addr[i] = netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		lan, host := w.lab.Veth(s.NS, "eth1", w.lab.Namespace(fmt.Sprintf("host %d", i)), "eth0")
		lan.Silent().Up()
		w.hosts[i] = host.Silent().Addr(w.addr[i].String() + "/24").Up()
	}
	for k := range w.ways {
		w.ways[k] = middle.Bridge(fmt.Sprintf("way%d", k), ends[k]...).Silent().Up()
	}
	w.away = middle.Bridge("away").Silent().Up()
	for i, s := range w.sites {
		// The kernel's tunnels hang on the daemon's sockets.
		if datapaths[i] == "kernel" {
			if err := s.StartHolder(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, upWithin), 2, 1); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// cut takes a way away between the sites, where nobody sees it: all carriers stay. mend
// brings it back.
func (w *twoWays) cut(way int)  { w.ports[way].Master(w.away) }
func (w *twoWays) mend(way int) { w.ports[way].Master(w.ways[way]) }

// awaitUsed waits until both sites use a tunnel, and say that the other one stands by
// or has failed.
func (w *twoWays) awaitUsed(tunnel string) {
	w.t.Helper()
	for _, s := range w.sites {
		err := s.Await(within(w.t, 60*time.Second), "tunnel "+tunnel+" is used", func(st *api.Status) error {
			p := st.Pseudowires[0]
			if p.State != "up" || p.Tunnel != tunnel || p.Redundancy == nil {
				return fmt.Errorf("%s over %s: %s, %+v", p.State, p.Tunnel, p.Reason, p.Redundancy)
			}
			for _, x := range p.Redundancy.Tunnels {
				if (x.Tunnel == tunnel) != (x.State == "used") {
					return fmt.Errorf("%+v", p.Redundancy)
				}
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *twoWays) flows() flows {
	w.t.Helper()
	var f flows
	for i := range f {
		var err error
		if f[i], err = w.hosts[i].NS.Flow(w.hosts[1-i].NS, w.addr[1-i], netlab.FlowOptions{Rate: steady}); err != nil {
			w.t.Fatal(err)
		}
	}
	return f
}

// choices is how often the first site has chosen a tunnel.
func (w *twoWays) choices() (n int) {
	w.t.Helper()
	err := w.sites[0].Client().Events(within(w.t, 30*time.Second), 0, false, func(e api.Event) error {
		if strings.HasPrefix(e.Message, "uses tunnel ") {
			n++
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	return n
}

// A way fails in silence under load: frames take the other one, at both ends, and return
// without a loss when it works again.
func TestFailover(t *testing.T) {
	onOneKernel(t, "6.1")
	together(t)
	kinds := datapaths()
	if inVM {
		kinds = kinds[:1] // the kernel's; a peer cannot tell
	}
	for _, d := range kinds {
		t.Run(fmt.Sprintf("%s-%s", d[0], d[1]), func(t *testing.T) { buildTwoWays(t, d, ", hold: 1s").failover() })
	}
}

// attempts is how often a test is repeated that only means something while no daemon is kept from
// running for so long that its silence is taken for a failure.
const attempts = 3

// promised is the longest gap at a failover, in intervals of hello.
const promised = 3

func (w *twoWays) failover() {
	t := w.t
	for n := 1; w.failsOver() > promised*hello && !inVM; n++ { // an emulated machine has other times
		if n == attempts {
			t.Fatalf("a gap of more than %d hello intervals %d times in succession", promised, n)
		}
		t.Logf("again: the machine may have been busy")
		w.mend(0)
		w.awaitUsed("gold")
	}
	// A restart changes nothing about it, and neither that nor the return loses anything.
	for n := 1; ; n++ {
		f := w.flows()
		for _, s := range w.sites {
			if err := s.Stop(within(t, 30*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
		}
		w.awaitUsed("silver")
		w.mend(0)
		w.awaitUsed("gold")
		f.await(t, steady/2)
		if w.choices() == 1 { // since its restart
			f.stop(t)
			break
		}
		for i := range f {
			_, _ = f[i].Stop()
		}
		if n == attempts {
			t.Fatalf("%d times in succession a daemon's silence was taken for a failure", n)
		}
		t.Logf("again: the machine is so busy that a daemon's silence was taken for a failure")
		w.cut(0)
		w.awaitUsed("silver")
	}
	for i, want := range []string{"it has worked for ", "the peer has chosen it"} {
		said, err := w.sites[i].Pwctl(within(t, 30*time.Second), "events")
		if err != nil || !strings.Contains(said, "pseudowire trunk: uses tunnel gold ("+want) || strings.Contains(said, "pseudowire trunk: down") {
			t.Errorf("events at dc%d: %s\n%v", i+1, said, err)
		}
	}
	for _, s := range w.sites {
		if err := s.Stop(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Cleanup(within(t, 30*time.Second)), s.Left()); err != nil {
			t.Error(err)
		}
	}
}

// failsOver cuts the first way under load, and gives the longest gap in either direction.
func (w *twoWays) failsOver() (gap time.Duration) {
	t := w.t
	f := w.flows()
	f.await(t, steady/2)
	w.cut(0)
	w.awaitUsed("silver")
	f.await(t, steady/2)
	for i := range f {
		r, err := f[i].Stop()
		if err != nil || r.Duplicated+r.Damaged > 0 {
			t.Errorf("flow from host %d: %v, %v", i, r, err)
		}
		t.Logf("failover, flow from host %d: gap of %.2f hello intervals, %v", i, float64(r.LongestGap)/float64(hello), r)
		gap = max(gap, r.LongestGap)
	}
	if gap > 15*hello {
		t.Errorf("a gap of %v", gap)
	}
	return gap
}

// A tunnel is drained for planned work, and comes back: nothing is lost by either.
func TestDrainLosesNothing(t *testing.T) {
	together(t)
	kinds := datapaths()
	if inVM {
		kinds = kinds[:1] // the kernel's; a peer cannot tell
	}
	w := buildTwoWays(t, kinds[0], ", hold: 1s")
	f := w.flows()
	f.await(t, steady/2)
	for _, x := range [][2]string{{"drain", "silver"}, {"undrain", "gold"}} {
		if said, err := w.sites[1].Pwctl(within(t, 30*time.Second), x[0], "gold"); err != nil { // the site that follows
			t.Fatalf("%v\n%s", err, said)
		}
		w.awaitUsed(x[1])
		f.await(t, steady/2)
	}
	f.stop(t)
}

// A way comes and goes: each time that it fails soon after it has come back it has to have
// worked twice as long before it is taken again. In the meantime frames stay where they are,
// and none is lost.
func TestFlapping(t *testing.T) {
	together(t)
	if inVM {
		t.Skip("the agent's affair, not the datapath's")
	}
	for n := 1; ; n++ {
		undisturbed := false
		t.Run(fmt.Sprint("attempt ", n), func(t *testing.T) {
			undisturbed = buildTwoWays(t, datapaths()[0], ", hold: 2s").flaps()
		})
		switch {
		case undisturbed || t.Failed():
			return
		case n == attempts:
			t.Fatalf("%d times in succession a daemon's silence was taken for a failure", n)
		}
	}
}

// flaps reports whether nothing but the way failed.
func (w *twoWays) flaps() (undisturbed bool) {
	t := w.t
	before := w.choices()
	w.cut(0)
	w.awaitUsed("silver")
	w.mend(0)
	w.awaitUsed("gold")
	w.cut(0)
	w.awaitUsed("silver")
	f := w.flows()
	for _, wait := range []string{"4s", "8s"} {
		w.mend(0)
		w.awaitGold("works, but not for long enough", func(p *api.Pseudowire, gold *api.RedundantTunnel) bool {
			return gold.State == "standby" && strings.HasSuffix(p.Reason, "that returns when it has worked for "+wait)
		})
		w.cut(0)
		w.awaitGold("has failed again", func(_ *api.Pseudowire, gold *api.RedundantTunnel) bool { return gold.State == "failed" })
	}
	// To the other one, back, and over again.
	said, err := w.sites[0].Pwctl(within(t, 30*time.Second), "events")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said, "(tunnel silver: nothing heard") || strings.Contains(said, "(the peer asks for it") {
		t.Logf("the machine is so busy that a daemon's silence was taken for a failure:\n%s", said)
		for i := range f {
			_, _ = f[i].Stop()
		}
		return false
	}
	if n := w.choices() - before; n != 3 {
		t.Errorf("%d changes of the tunnel, want 3:\n%s", n, said)
	}
	f.stop(t)
	return true
}

// awaitGold waits until the first site has the pseudowire and its first tunnel so.
func (w *twoWays) awaitGold(what string, cond func(*api.Pseudowire, *api.RedundantTunnel) bool) {
	w.t.Helper()
	err := w.sites[0].Await(within(w.t, 60*time.Second), "tunnel gold "+what, func(st *api.Status) error {
		p := &st.Pseudowires[0]
		if p.Redundancy == nil || !cond(p, &p.Redundancy.Tunnels[0]) {
			return fmt.Errorf("%s: %+v", p.Reason, p.Redundancy)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
