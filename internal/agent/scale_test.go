package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// noDatapath takes everything and carries nothing.
type noDatapath struct{}

func (d *noDatapath) Kind() pseudowire.Kind { return pseudowire.EBPF }
func (d *noDatapath) Abilities() pseudowire.Abilities {
	return pseudowire.Abilities{RewritesTags: true, DeviceWithoutSession: true, Several: true}
}
func (d *noDatapath) Repairs() []drift.Repair                           { return nil }
func (d *noDatapath) Heed(func(string) bool)                            {}
func (d *noDatapath) SetPseudowire(pseudowire.Pseudowire) error         { return nil }
func (d *noDatapath) RemovePseudowires(...string) error                 { return nil }
func (d *noDatapath) SetTunnel(pseudowire.Tunnel) error                 { return nil }
func (d *noDatapath) RemoveTunnel(string) error                         { return nil }
func (d *noDatapath) SetSession(pseudowire.Session) error               { return nil }
func (d *noDatapath) RemoveSession(uint32) error                        { return nil }
func (d *noDatapath) Refresh() error                                    { return nil }
func (d *noDatapath) Deliver(netip.AddrPort, []byte) bool               { return false }
func (d *noDatapath) Counters() (map[uint32]pseudowire.Counters, error) { return nil, nil }
func (d *noDatapath) Global() (map[string]uint64, error)                { return nil, nil }
func (d *noDatapath) Prune() error                                      { return nil }
func (d *noDatapath) Close() error                                      { return nil }
func (d *noDatapath) Cleanup() error                                    { return nil }

// noCircuits are attachment circuits that are always up.
type noCircuits map[string]bridge.State

func (noCircuits) Repairs() []drift.Repair         { return nil }
func (noCircuits) Release([]string) error          { return nil }
func (noCircuits) Heed(func(string) bool)          {}
func (c noCircuits) Supports() (bool, bool, error) { return true, true, nil }
func (c noCircuits) SetBridge(bridge.Bridge) error { return nil }
func (c noCircuits) RemoveBridge(string) error     { return nil }
func (c noCircuits) SetAttachment(a bridge.Attachment) error {
	c[a.Pseudowire] = bridge.State{Up: true}
	return nil
}
func (c noCircuits) RemoveAttachment(names ...string) error {
	for _, name := range names {
		delete(c, name)
	}
	return nil
}
func (c noCircuits) AttachmentStates(...string) map[string]bridge.State { return c }
func (c noCircuits) Addressed() (map[string]bool, error)                { return nil, nil }
func (c noCircuits) CircuitErrors(string) (bridge.CircuitErrors, bool) {
	return bridge.CircuitErrors{}, false
}
func (c noCircuits) MACs() ([]bridge.MAC, error)                       { return nil, nil }
func (c noCircuits) Announce(string) (int, error)                      { return 0, nil }
func (c noCircuits) Flush(string) error                                { return nil }
func (c noCircuits) SetBlocked(string, bool) error                     { return nil }
func (c noCircuits) Port(int) (string, string)                         { return "", "" }
func (c noCircuits) Sides(...string) (map[string][]bridge.Side, error) { return nil, nil }
func (c noCircuits) SetKept(string, bridge.Address, bool) error        { return nil }
func (c noCircuits) Refresh() error                                    { return nil }
func (c noCircuits) Prune() error                                      { return nil }
func (c noCircuits) Close() error                                      { return nil }
func (c noCircuits) Cleanup() error                                    { return nil }

// many is a topology of two sites with that many tunnels, and pseudowires on each.
func many(tunnels, each int) string {
	var t, p strings.Builder
	for i := range tunnels {
		fmt.Fprintf(&t, "t%03d: {sites: [dc1, dc2]}\n", i)
		for j := range each {
			fmt.Fprintf(&p, "p%03d-%03d: {tunnel: t%03[1]d, attach: {dc1: {interface: e%[1]d-%d}, dc2: {interface: e%[1]d-%[3]d}}}\n", i, j, j)
		}
	}
	return topo(t.String(), p.String())
}

// scaled builds two sites without a data plane, with two daemons that are not started.
func scaled(t testing.TB, topology string) (both [2]*place) {
	lab := netlab.New(t)
	one, two := lab.Namespace("dc1"), lab.Namespace("dc2")
	left, right := lab.Veth(one, "eth0", two, "eth0")
	left.Addr("192.0.2.1/24").Up()
	right.Addr("192.0.2.2/24").Up()
	for i, ns := range []*netlab.Namespace{one, two} {
		p := newPlace(t, fmt.Sprintf("dc%d", i+1), ns)
		p.opt.Timers = control.Timers{}
		p.opt.Datapaths = []Opener{{Kind: pseudowire.EBPF, Open: func() (pseudowire.Datapath, error) { return &noDatapath{}, nil }}}
		p.opt.Logger = slog.New(slog.DiscardHandler)
		p.change = func(a *Agent) {
			a.bridges.Close()
			a.bridges = noCircuits{}
		}
		p.write(topology)
		both[i] = p
	}
	return both
}

// established counts the sessions that are, in the daemon's loop.
func (p *place) established() (n int) {
	p.do(func() {
		for _, w := range p.a.wires {
			if w.ready {
				n++
			}
		}
	})
	return n
}

// processor is the time that the process has spent on processors.
func processor(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTenThousandSessions brings up 100 control connections with 100 sessions
// each between two daemons over real sockets, their state written to files before
// each message leaves, but without a datapath. s/set-up is from the start of the
// second daemon, its reading of the topology included, until all sessions are up at
// both; s/processor is what both have used by then; B/session is the heap of one daemon.
// docs/performance.md says where it goes.
func BenchmarkTenThousandSessions(b *testing.B) {
	const tunnels, each = 100, 100
	text := many(tunnels, each)
	for range b.N {
		var before, after runtime.MemStats
		both := scaled(b, text)
		runtime.GC()
		runtime.ReadMemStats(&before)
		began, used := time.Now(), processor(b)
		both[0].start()
		read := time.Since(began)
		began = time.Now()
		both[1].start()
		for _, p := range both {
			for p.established() < tunnels*each {
				if time.Since(began) > time.Minute {
					b.Fatalf("%s: %d sessions", p.site, p.established())
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		b.ReportMetric(read.Seconds(), "s/start")
		b.ReportMetric(time.Since(began).Seconds(), "s/set-up")
		b.ReportMetric((processor(b) - used).Seconds(), "s/processor")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(2*tunnels*each), "B/session")
		for _, p := range both {
			p.shut()
		}
	}
}
