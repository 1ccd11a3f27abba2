package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/agent"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcbpf"
)

var strideFlag = flag.Int("stride", 4, "TestEveryStepCanFail has one of so many steps fail; 1 is every")

// errInjected is how a step fails that is made to.
var errInjected = errors.New("made to fail by the test")

// fragile is the eBPF datapath, one step of which fails: it is not done, or it is done and
// the daemon is told that it failed.
type fragile struct {
	pseudowire.Datapath
	steps *steps
}

// steps counts those that change something.
type steps struct {
	mu       sync.Mutex
	n, fails int
	done     bool
	what     string
}

// begin begins to count anew, and tells what failed until now.
func (s *steps) begin(fails int, done bool) (what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what = s.what
	s.n, s.fails, s.done, s.what = 0, fails, done, ""
	return what
}

func (s *steps) step(what string, do func() error) error {
	s.mu.Lock()
	s.n++
	fails := s.n == s.fails
	if fails {
		s.what = what
	}
	s.mu.Unlock()
	if !fails {
		return do()
	}
	if s.done {
		return errors.Join(do(), errInjected)
	}
	return errInjected
}

func (d fragile) SetPseudowire(p pseudowire.Pseudowire) error {
	return d.steps.step("set pseudowire "+p.Name, func() error { return d.Datapath.SetPseudowire(p) })
}

func (d fragile) RemovePseudowires(names ...string) error {
	return d.steps.step("remove pseudowires "+strings.Join(names, " "), func() error { return d.Datapath.RemovePseudowires(names...) })
}

func (d fragile) SetTunnel(t pseudowire.Tunnel) error {
	return d.steps.step("set tunnel "+t.Name, func() error { return d.Datapath.SetTunnel(t) })
}

func (d fragile) RemoveTunnel(name string) error {
	return d.steps.step("remove tunnel "+name, func() error { return d.Datapath.RemoveTunnel(name) })
}

// The same as of internal/agent's hosts without a kernel, with the kernel's own objects:
// steps of the eBPF datapath in an apply fail, with -stride 1 every one, and links, pins and what the
// daemon says are as they were before.
func TestEveryStepCanFail(t *testing.T) {
	beside(t)
	if inVM {
		t.Skip("the kernel's version is nothing to it")
	}
	lab := netlab.New(t)
	ns, hosts := lab.Namespace("dc1"), lab.Namespace("hosts")
	for i, name := range []string{"eth0", "eth1", "eth2"} {
		port, host := lab.Veth(ns, name, hosts, "h"+name)
		if i == 0 {
			port.Addr("192.0.2.1/24")
		}
		port.Silent().Up()
		host.Silent().Up()
	}
	pins := ns.Root() + "/sys/fs/bpf/pwd"
	s := new(steps)
	log := slog.New(slog.DiscardHandler)
	opt := agent.Options{
		Site: "dc1", StateDir: t.TempDir(), Version: "test", Logger: log,
		Datapaths: []agent.Opener{{Kind: pseudowire.EBPF, Open: func() (pseudowire.Datapath, error) {
			dp, err := tcbpf.Open(tcbpf.Options{BPFDir: pins, Logger: log})
			return fragile{dp, s}, err
		}}},
	}
	opt.TopologyFile = filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(opt.TopologyFile, []byte(stepped(false)), 0o600); err != nil {
		t.Fatal(err)
	}
	a := runAgent(t, ns, opt)
	// What nothing fails of is taken back, too, as whoever applies it goes away while it
	// waits for its peer.
	apply := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := a.Apply(ctx, api.ApplyRequest{Name: "t.yaml", Document: stepped(true), Disruptive: true})
		return err
	}
	before := observed(t, ns, pins, a)
	failed := 0
	for _, done := range []bool{false, true} {
		for n := 1; ; n += *strideFlag {
			s.begin(n, done)
			err := apply()
			what := s.begin(0, false)
			if err == nil {
				t.Fatalf("step %d: it waits for nobody", n)
			}
			// What could not be taken back at once is tried again in some seconds.
			err = netlab.Poll(within(t, time.Minute), "all is as it was", func() error {
				if now := observed(t, ns, pins, a); now != before {
					return fmt.Errorf("it is\n%s\nand was\n%s", now, before)
				}
				return nil
			})
			if err != nil {
				t.Fatalf("step %d (%s, done %v): %v", n, what, done, err)
			}
			if what == "" {
				break // there are no more
			}
			failed++
		}
	}
	if failed < 4 {
		t.Errorf("%d steps failed: it shows nothing", failed)
	}
	t.Logf("%d steps failed", failed)
}

// stepped are two topologies between which pseudowires come, go, move and change.
func stepped(next bool) string {
	text := `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1, bridges: {br-a: {ports: [eth1]}}}
  dc2: {address: 192.0.2.2, bridges: {br: {}}}
tunnels:
  gold: {sites: [dc1, dc2]}
  silver: {sites: [dc1, dc2]}
pseudowires:
`
	if next {
		text = strings.Replace(text, "silver", "bronze", 1)
		return text + `  comes: {tunnel: bronze, attach: {dc1: {bridge: br-a, vlan: 7}, dc2: {bridge: br, vlan: 7}}}
  moves: {tunnel: gold, mtu: 1400, attach: {dc1: {bridge: br-a, vlan: 9}, dc2: {bridge: br, vlan: 8}}}
`
	}
	return text + `  goes:  {tunnel: silver, attach: {dc1: {interface: eth2}, dc2: {bridge: br, vlan: 7}}}
  moves: {tunnel: gold, attach: {dc1: {bridge: br-a, vlan: 8}, dc2: {bridge: br, vlan: 8}}}
`
}

// runAgent runs a daemon in this process until the test ends.
func runAgent(t *testing.T, ns *netlab.Namespace, opt agent.Options) *agent.Agent {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan *agent.Agent, 1), make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error {
			a, err := agent.New(opt)
			if err != nil {
				return err
			}
			return a.Run(ctx, func() { ready <- a })
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-ready:
		return a
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return nil
}

// observed is what there is in the kernel, and what the daemon says of it.
func observed(t *testing.T, ns *netlab.Namespace, pins string, a *agent.Agent) string {
	t.Helper()
	links, err := ns.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines []string
	for _, l := range links {
		at := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %s in %q, up %v, MTU %d, promiscuity %d, %q", at.Name, names[at.MasterIndex], at.Flags&1 != 0, at.MTU, at.Promisc, at.Alias))
	}
	n := 0
	filepath.WalkDir(pins, func(_ string, _ fs.DirEntry, err error) error { n++; return err })
	lines = append(lines, fmt.Sprintf("%d pins", n))
	st, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Pseudowires {
		lines = append(lines, fmt.Sprintf("pseudowire %s on %v: %s", p.Name, p.Device, p.State))
	}
	for _, x := range st.Tunnels {
		lines = append(lines, "tunnel "+x.Name)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
