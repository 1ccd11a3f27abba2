package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// soon bounds every wait of the tests.
const soon = 10 * time.Second

// quick are timers with which failures show within the test.
var quick = control.Timers{
	Retransmit: 20 * time.Millisecond, RetransmitCap: 40 * time.Millisecond, MaxRetransmits: 3,
	OpenDelay: 10 * time.Millisecond, ReopenMin: 10 * time.Millisecond, ReopenMax: 40 * time.Millisecond,
	Linger: 100 * time.Millisecond,
}

// place is a site of its own namespace, with LANs at eth1 and eth2, and the
// daemon that runs there.
//
//	   dc1                              dc2
//	eth1  eth0 192.0.2.1 ──── 192.0.2.2 eth0  eth1
//	eth2                                      eth2
type place struct {
	t    testing.TB
	site string
	ns   *netlab.Namespace
	opt  Options
	// kernel and l2tp are what the fake datapaths have in the kernel.
	kernel, l2tp *kernel
	turns        *turns
	file         string
	// can gives the fake datapath that is not as the kernel's abilities.
	can func(*pseudowire.Abilities)
	// removing, if set, is called when a fake datapath is to let a session go.
	removing func()

	a *Agent
	// change, if set, is done to a daemon before it runs.
	change func(*Agent)
	// stop ends the daemon, ended gives its error. A mortal one ends as if killed.
	stop   context.CancelFunc
	mortal bool
	ended  chan error
}

// places builds the two sites of the drawing.
func places(t *testing.T) (dc1, dc2 *place) {
	t.Helper()
	lab := netlab.New(t)
	one, two := lab.Namespace("dc1"), lab.Namespace("dc2")
	hosts := lab.Namespace("hosts")
	left, right := lab.Veth(one, "eth0", two, "eth0")
	left.Addr("192.0.2.1/24").Up()
	right.Addr("192.0.2.2/24").Up()
	for i, ns := range []*netlab.Namespace{one, two} {
		for _, name := range []string{"eth1", "eth2"} {
			lan, host := lab.Veth(ns, name, hosts, fmt.Sprintf("h%d%s", i, name))
			lan.Up()
			host.Up()
		}
	}
	return newPlace(t, "dc1", one), newPlace(t, "dc2", two)
}

// lone builds dc1 alone: nobody answers it.
func lone(t *testing.T) *place {
	t.Helper()
	lab := netlab.New(t)
	one, hosts := lab.Namespace("dc1"), lab.Namespace("hosts")
	for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
		lan, host := lab.Veth(one, name, hosts, "h"+name)
		if name == "eth0" {
			lan.Addr("192.0.2.1/24")
		}
		lan.Up()
		host.Up()
	}
	return newPlace(t, "dc1", one)
}

func newPlace(t testing.TB, site string, ns *netlab.Namespace) *place {
	dir := t.TempDir()
	p := &place{t: t, site: site, ns: ns, file: filepath.Join(dir, "topology.yaml"), kernel: newKernel(), l2tp: newKernel(), turns: new(turns)}
	p.opt = Options{
		Site: site, StateDir: filepath.Join(dir, "state"), Version: "test",
		Timers: quick,
		Datapaths: []Opener{
			{Kind: pseudowire.EBPF, Open: func() (pseudowire.Datapath, error) { return p.open(pseudowire.EBPF, p.kernel), nil }},
			{Kind: pseudowire.Kernel, Open: func() (pseudowire.Datapath, error) { return p.open(pseudowire.Kernel, p.l2tp), nil }},
		},
		Logger: slog.New(slog.NewTextHandler(testWriter{t, site}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(p.shut)
	return p
}

// testWriter logs lines with the test.
type testWriter struct {
	t    testing.TB
	name string
}

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, strings.TrimSpace(string(b)))
	return len(b), nil
}

// open makes a fake datapath; that of the kind kernel is as the kernel's.
func (p *place) open(kind pseudowire.Kind, k *kernel) *fakeDatapath {
	can := p.can
	if kind == pseudowire.Kernel {
		can = nil
	}
	return &fakeDatapath{kind: kind, can: can, ns: p.ns, kernel: k, turns: p.turns, bare: kind == pseudowire.Kernel, removing: p.removing,
		named: map[string]bool{}, carried: map[string]bool{}, live: map[uint32]bool{}}
}

// everything is what the eBPF datapath can.
func everything(a *pseudowire.Abilities) {
	a.IP, a.Sequencing, a.SublayerPerDirection, a.ChangesCookies, a.DSCP, a.ECN, a.Checksum = true, true, true, true, true, true, true
	a.DF = true
}

// write replaces the topology file, which the daemon has from then on.
func (p *place) write(text string) {
	p.t.Helper()
	p.opt.TopologyFile = p.file
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// within runs f on a thread in the namespace.
func (p *place) within(f func() error) {
	p.t.Helper()
	if err := p.ns.Do(f); err != nil {
		p.t.Fatal(err)
	}
}

// make makes an agent that does not run.
func (p *place) make() *Agent {
	p.t.Helper()
	p.within(func() (err error) { p.a, err = New(p.opt); return err })
	return p.a
}

// start starts a daemon and waits until it has carried its topology out.
func (p *place) start() {
	p.t.Helper()
	if err := p.try(); err != nil {
		p.t.Fatalf("%s: start: %v", p.site, err)
	}
}

// try is start with the error.
func (p *place) try() error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p.stop, p.ended = cancel, ended
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- p.ns.Do(func() error {
			a, err := New(p.opt)
			if err != nil {
				failed <- err
				return err
			}
			p.a = a
			if p.change != nil {
				p.change(a)
			}
			err = p.run(ctx, a, func() { close(ready) })
			failed <- err
			return err
		})
	}()
	select {
	case <-ready:
		return nil
	case err := <-failed:
		cancel()
		p.stop = nil
		return err
	}
}

// run is Agent.Run, but that a daemon that is killed does nothing in the end.
func (p *place) run(ctx context.Context, a *Agent, ready func()) error {
	if !p.mortal {
		return a.Run(ctx, ready)
	}
	defer close(a.stopped)
	err := a.live(ctx, ready)
	return errors.Join(err, a.Close())
}

// shut ends the daemon as SIGTERM does.
func (p *place) shut() {
	if p.stop == nil {
		return
	}
	p.stop()
	p.stop = nil
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("%s: %v", p.site, err)
		}
	case <-time.After(5 * time.Second):
		p.t.Errorf("%s: not ended after 5 s", p.site)
	}
}

// await waits until cond is nil in the daemon's loop.
func (p *place) await(what string, cond func(a *Agent) error) {
	p.t.Helper()
	limit := time.After(soon)
	for {
		changed := p.a.changed.wait()
		var err error
		p.do(func() { err = cond(p.a) })
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-limit:
			p.t.Fatalf("%s: not so after %v: %s: %v", p.site, soon, what, err)
		}
	}
}

// do runs f in the daemon's loop.
func (p *place) do(f func()) {
	p.t.Helper()
	if err := p.a.do(p.t.Context(), f); err != nil {
		p.t.Fatalf("%s: %v", p.site, err)
	}
}

// awaitUp waits until all pseudowires are up.
func (p *place) awaitUp() {
	p.t.Helper()
	p.await("all pseudowires are up", func(a *Agent) error {
		for _, v := range a.pseudowireViews(a.counters()) {
			if v.State != "up" {
				return fmt.Errorf("%s is %s: %s", v.Name, v.State, v.Reason)
			}
		}
		return nil
	})
}

// apply is pwctl apply -y.
func (p *place) apply(text string) (*api.ApplyResult, error) {
	p.t.Helper()
	return p.a.Apply(p.t.Context(), api.ApplyRequest{Name: "applied.yaml", Document: text, Disruptive: true})
}

func (p *place) status() *api.Status {
	p.t.Helper()
	st, err := p.a.Status(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

// told lists the events about an object, as "SEVERITY MESSAGE: REASON".
func (p *place) told(object string) []string {
	var lines []string
	events, _ := p.a.events.since(0)
	for _, e := range events {
		if e.Object == object {
			lines = append(lines, strings.TrimSuffix(e.Severity+" "+e.Message+": "+e.Reason, ": "))
		}
	}
	return lines
}

// sessionIDs are those of the sessions that are up.
func (p *place) sessionIDs() map[string]uint32 {
	ids := make(map[string]uint32)
	p.do(func() {
		for _, s := range p.a.control.Sessions() {
			if s.State == control.SessionEstablished {
				ids[s.Session.Name] = s.LocalID
			}
		}
	})
	return ids
}

// links are the namespace's, as "pw-a in br-lan, up".
func (p *place) links() string {
	p.t.Helper()
	all, err := p.ns.Netlink().LinkList()
	if err != nil {
		p.t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range all {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines []string
	for _, l := range all {
		at := l.Attrs()
		line := at.Name
		if at.MasterIndex != 0 {
			line += " in " + names[at.MasterIndex]
		}
		if at.Flags&1 != 0 {
			line += ", up"
		}
		if strings.HasPrefix(at.Alias, "pwd:") {
			line += ", ours"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// state is everything that the site has: kernel, datapath, control machine.
func (p *place) state(a *Agent) string {
	p.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "links\n%s\nebpf\n%s\nkernel\n%s\n", p.links(), p.kernel.text(), p.l2tp.text())
	for _, c := range a.control.Connections() {
		fmt.Fprintf(&b, "tunnel %s to %s hello %v, %v\n", c.Tunnel.Name, c.Tunnel.Remote, c.Tunnel.Hello, c.State)
	}
	for _, s := range a.control.Sessions() {
		fmt.Fprintf(&b, "session of %s on %s, cookie %d, circuit %v, %v\n", s.Session.Name, s.Session.Tunnel, s.Session.CookieLength, s.Session.Circuit, s.State)
	}
	for _, w := range a.wires {
		if w.ill() || !w.rides[0].signalled {
			fmt.Fprintf(&b, "pseudowire %s: %v %v vacated %v signalled %v\n", w.Name, w.fault, w.attachFault, w.vacated, w.rides[0].signalled)
		}
	}
	fmt.Fprintf(&b, "faults %v\ngeneration %d\n", a.faults.objects(), a.number())
	return b.String()
}

// linkBy finds a link of the namespace.
func (p *place) linkBy(name string) netlink.Link {
	p.t.Helper()
	l, err := p.ns.Netlink().LinkByName(name)
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.site, name, err)
	}
	return l
}

// topo is a topology: sites, then what is given.
func topo(tunnels, pseudowires string) string {
	return `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1, bridges: {br-lan: {ports: [eth1]}}}
  dc2: {address: 192.0.2.2, bridges: {br-lan: {ports: [eth1]}}}
tunnels:
` + indent(tunnels) + "pseudowires:\n" + indent(pseudowires)
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("  " + strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// wireTo is a pseudowire's line: on br-lan with that VLAN at both sites.
func wireTo(name, tunnel string, vlan int) string {
	return fmt.Sprintf("%s: {tunnel: %s, attach: {dc1: {bridge: br-lan, vlan: %d}, dc2: {bridge: br-lan, vlan: %[3]d}}}\n", name, tunnel, vlan)
}

const gold = "gold: {sites: [dc1, dc2]}\n"
