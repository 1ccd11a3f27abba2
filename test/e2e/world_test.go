// Package e2e tests the programs as users run them: two daemons, each in a site's
// namespace, and hosts on their LANs.
//
//	 tenant-a        site dc1                       site dc2        tenant-a
//	host 0   ────── eth1       eth0 ──────── eth0       eth1 ────── host 1
//	198.51.100.1     VLAN 100                        VLAN 200      198.51.100.2
//	 tenant-b                                                       tenant-b
//	host 0   ────── eth2                                eth2 ────── host 1
//	203.0.113.1      whole port                    whole port       203.0.113.2
//
// On a host they run on eBPF. In a virtual machine (PWD_VM is set) the same tests
// run on the kernel's L2TP, and with one end on each.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// alone are the tests that bound a time, a rate or a loss, or keep the machine busy. PWD_ALONE=no leaves
// them out, PWD_ALONE=only runs no others: the Makefile has the others run beside those of other packages.
const alone = "^Test(DepartureTimes|DrainLosesNothing|Failover|Flapping|HostMoves|Loop|ManyPseudowires|NothingIsLostWhile|" +
	"OtherControllersAreNotFought|RestartLosesNothing|Shares|TrafficResumes|TrafficResumesAfterNewAddress|VoiceDelay)$"

// bin is the folder of the programs under test.
var bin = os.Getenv("PWD_BIN")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if err := choose(os.Getenv("PWD_ALONE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		if bin == "" {
			dir, err := os.MkdirTemp("", "pwd-e2e-")
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer os.RemoveAll(dir)
			build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/pwd", "../../cmd/pwctl")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
				return 1
			}
			bin = dir
		}
		return m.Run()
	}())
}

// choose has only some of the tests run, unless it was said which.
func choose(which string) error {
	switch run := flag.Lookup("test.run"); {
	case which == "" || run.Value.String() != "":
		return nil
	case which == "no":
		return flag.Set("test.skip", alone)
	case which == "only":
		return run.Value.Set(alone)
	}
	return fmt.Errorf("PWD_ALONE=%s: it is no or only", which)
}

// inVM says that the kernel is one with l2tp, and the machine a slow one.
var inVM = os.Getenv("PWD_VM") != ""

// beside has a test run beside others: one that mostly waits for daemons, sets no bound to a time
// or a rate, and does not make the machine busy. A virtual machine has nothing to spare for a second.
func beside(t *testing.T) {
	if regexp.MustCompile(alone).MatchString(t.Name()) {
		t.Fatal("it is among those that run alone")
	}
	if !inVM {
		t.Parallel()
	}
}

// together has a test that runs alone run beside one other such: one that mostly waits, too, and takes
// little of a processor for what it sends.
func together(t *testing.T) {
	if !regexp.MustCompile(alone).MatchString(t.Name()) {
		t.Fatal("it is not among those that run alone")
	}
	if !inVM {
		t.Parallel()
	}
}

// datapaths are the pairs to test, one for each site.
func datapaths() [][2]string {
	if inVM {
		return [][2]string{{"kernel", "kernel"}, {"ebpf", "kernel"}}
	}
	return [][2]string{{"ebpf", "ebpf"}}
}

// eachOnOneKernel is what falls to this machine's kernel of cases that differ in the datapath, and say the
// same on every kernel otherwise: each runs on one of the two. That both datapaths work on both kernels
// test/vm/datapath shows.
func eachOnOneKernel[T any](all []T) []T {
	var here []T
	for i, x := range all {
		if !inVM || (i%2 == 0) == (os.Getenv("PWD_VM") != "6.1") {
			here = append(here, x)
		}
	}
	return here
}

// onOneKernel leaves a test to that one of the machines where it says the same on every kernel.
func onOneKernel(t *testing.T, series string) {
	if inVM && os.Getenv("PWD_VM") != series {
		t.Skip("it says the same on every kernel; " + series + " has it")
	}
}

// network is the layout without daemons.
type network struct {
	datapaths [2]string
	ipv6      bool // the underlay's addresses
	underlay  int  // its MTU; 0 is 1500
	lan       int  // the MTU of the LANs; 0 is 1500
	// hole is the MTU of the far half of an underlay with a router that says nothing of
	// what does not fit; 0 is no router.
	hole int
	// raw leaves tags to the tests: hosts of tenant-a speak untagged.
	raw bool
}

// lan is a network that a pseudowire joins, with a host at each site.
type lan struct {
	name  string
	addr  [2]netip.Addr
	hosts [2]*netlab.Link
}

// world is a network with two sites.
type world struct {
	t        *testing.T
	network  network
	lab      *netlab.Lab
	sites    [2]*site.Site
	underlay [2]*netlab.Link
	address  [2]netip.Addr
	a, b     *lan
	topology string // the file, of both sites
	requests *requests
}

func within(t *testing.T, d time.Duration) context.Context {
	if inVM {
		d *= 5
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// upWithin bounds the time from the start of daemons to all being up.
const upWithin = 20 * time.Second

// build draws the network, and writes the topology that start uses.
func build(t *testing.T, n network) *world {
	t.Helper()
	if n.underlay == 0 {
		n.underlay = 1500
	}
	if n.lan == 0 {
		n.lan = 1500
	}
	if n.datapaths == [2]string{} {
		n.datapaths = datapaths()[0]
	}
	dir := t.TempDir() // removed after the lab, and with it the daemons, is gone
	w := &world{t: t, network: n, lab: netlab.New(t), topology: filepath.Join(dir, "topology.yaml")}
	w.a = &lan{name: "tenant-a", addr: [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}}
	w.b = &lan{name: "tenant-b", addr: [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}}
	prefix := "/24"
	for i := range w.sites {
		w.address[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		if n.ipv6 {
			w.address[i] = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))
			prefix = "/64"
		}
		name := fmt.Sprintf("dc%d", i+1)
		w.sites[i] = &site.Site{
			Name: name, NS: w.lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: w.topology,
			Flags: []string{"--datapath", n.datapaths[i]}, Links: []string{"eth0", "eth1", "eth2"},
		}
		t.Cleanup(w.sites[i].Close)
	}
	if n.hole == 0 {
		w.underlay[0], w.underlay[1] = w.lab.Veth(w.sites[0].NS, "eth0", w.sites[1].NS, "eth0")
	} else {
		prefix = w.throughHole()
	}
	for i := range w.sites {
		if slices.Contains(n.datapaths[:], "kernel") {
			// As on a wire, nothing leaves with a checksum that is still to be computed:
			// the kernel's L2TP would pass such a frame on as one that is finished.
			w.underlay[i].Feature("tx-checksum-*", false)
		}
		w.underlay[i].MTU(n.underlay).Addr(w.address[i].String() + prefix).Up()
		for k, l := range []*lan{w.a, w.b} {
			host := w.lab.Namespace(fmt.Sprintf("%s host %d", l.name, i))
			port, nic := w.lab.Veth(w.sites[i].NS, fmt.Sprintf("eth%d", k+1), host, "eth0")
			port.Silent().MTU(n.lan).Up()
			nic.Silent().MTU(n.lan).Addr(l.addr[i].String() + "/24")
			if l == w.a && !n.raw {
				nic.Tagged(w.vlan(i))
			}
			l.hosts[i] = nic.Up()
		}
	}
	if n.hole != 0 {
		w.routes()
	}
	w.write(w.text(""))
	return w
}

// vlan is tenant-a's at a site.
func (w *world) vlan(site int) uint16 { return uint16(100 * (site + 1)) }

// text is the topology, with further lines for both pseudowires, as "cookie: 4".
func (w *world) text(pseudowire string) string {
	lines := ""
	for line := range strings.SplitSeq(pseudowire, "\n") {
		if line != "" {
			lines += "    " + line + "\n"
		}
	}
	return fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: two-sites}
sites:
  dc1: {address: %q, bridges: {br-lan: {ports: [eth1]}}}
  dc2: {address: %q, bridges: {br-lan: {ports: [eth1]}}}
tunnels:
  gold: {sites: [dc1, dc2]}
  silver: {sites: [dc1, dc2]}
pseudowires:
  tenant-a:
    tunnel: gold
%[3]s    attach:
      dc1: {bridge: br-lan, vlan: 100}
      dc2: {bridge: br-lan, vlan: 200}
  tenant-b:
    tunnel: silver
%[3]s    attach:
      dc1: {interface: eth2}
      dc2: {interface: eth2}
`, w.address[0], w.address[1], lines)
}

// write replaces the topology file.
func (w *world) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.topology, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// start starts both daemons and waits until all is up.
func (w *world) start() *world {
	w.t.Helper()
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.awaitUp()
	return w
}

func (w *world) awaitUp() {
	w.t.Helper()
	ctx := within(w.t, upWithin)
	for _, s := range w.sites {
		if err := s.AwaitUp(ctx, 2, 2); err != nil {
			w.t.Fatal(err)
		}
	}
}

// ping wants every echo answered.
func (w *world) ping(l *lan, o netlab.PingOptions) {
	w.t.Helper()
	if inVM {
		o.Timeout = 5 * time.Second
	}
	for i := range l.hosts {
		r, err := l.hosts[i].NS.Ping(within(w.t, 30*time.Second), l.addr[1-i], o)
		if err != nil || r.Lost() > 0 {
			w.t.Errorf("%s: ping from host %d, %+v: %d of %d lost, %v\n%s", l.name, i, o, r.Lost(), r.Sent, err, w.counters())
		}
	}
}

// counters are what both sites counted, for a test that failed.
func (w *world) counters() string {
	var b strings.Builder
	for _, s := range w.sites {
		sessions, err := s.Client().Sessions(w.t.Context())
		if err != nil {
			fmt.Fprintln(&b, s.Name, err)
		}
		for _, x := range sessions {
			fmt.Fprintf(&b, "%s %s: %s, %d frames received, %d sent, drops %v\n", s.Name, x.Pseudowire, x.State, x.ReceivedFrames, x.TransmittedFrames, x.Drops)
		}
	}
	return b.String()
}

// transfer sends octets from the host of one site to that of the other.
func (w *world) transfer(l *lan, from int, octets int64) netlab.TransferResult {
	w.t.Helper()
	r, err := l.hosts[from].NS.Transfer(within(w.t, 2*time.Minute), l.hosts[1-from].NS, l.addr[1-from], octets)
	switch {
	case err != nil:
		w.t.Errorf("%s: %v", l.name, err)
	case !r.Same():
		w.t.Errorf("%s: sent %d octets, SHA-256 %x; received %d, %x", l.name, r.Sent, r.SentSum, r.Received, r.ReceivedSum)
	default:
		w.t.Logf("%s: %d octets from host %d at %.2f Gbit/s", l.name, octets, from, r.Rate()/1e9)
	}
	return r
}

// steady is a rate of datagrams that every machine carries: a virtual one is so slow that it loses of more.
var steady = func() int {
	if inVM {
		return 50
	}
	return 1000
}()

// flows are steady streams of datagrams in both directions.
type flows [2]*netlab.Flow

func (w *world) flows(l *lan, o netlab.FlowOptions) flows {
	w.t.Helper()
	var f flows
	for i := range f {
		var err error
		if f[i], err = l.hosts[i].NS.Flow(l.hosts[1-i].NS, l.addr[1-i], o); err != nil {
			w.t.Fatal(err)
		}
	}
	return f
}

// await waits until n more datagrams have come, in each direction.
func (f flows) await(t *testing.T, n int) {
	t.Helper()
	for i := range f {
		if err := f[i].WaitReceived(within(t, 30*time.Second), uint64(n)); err != nil {
			t.Fatalf("flow from host %d: %v", i, err)
		}
	}
}

// stop wants that every datagram came, once and undamaged, and in order but for one in
// ten thousand, as happens on busy machines.
func (f flows) stop(t *testing.T) {
	t.Helper()
	for i := range f {
		r, err := f[i].Stop()
		if err != nil || r.Lost()+r.Duplicated+r.Damaged > 0 || r.Reordered > 1+r.Sent/10_000 {
			t.Errorf("flow from host %d: %v, %v", i, r, err)
		} else {
			t.Logf("flow from host %d: %v", i, r)
		}
	}
}
