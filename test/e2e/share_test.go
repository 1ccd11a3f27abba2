package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

var (
	sharePlot = flag.String("share-plot", "", "sweep the rates from 1 mbit to 1 gbit, and write the plot into this `file` (SVG)")
	delayRuns = flag.Int("delay-runs", 0, "measure the delay of voice that many times, at 100 mbit, and log it")
)

// lane is one of the three services that share the link: a class, a tunnel, a pseudowire.
type lane struct {
	class, tunnel string
	dscp          uint8
	// rate, ceiling and the expected share are parts of what the link carries, in percent.
	rate, ceiling, want uint64
	priority            int
}

// greedy has voice, whose priority is the first, take all that the others have no
// guarantee for; capped has each end at its ceiling, and the last take the rest.
var (
	greedy = []lane{
		{"voice", "gold", 46, 20, 100, 60, 0},
		{"storage", "silver", 18, 30, 100, 30, 3},
		{"bulk", "bronze", 10, 10, 100, 10, 6},
	}
	capped = []lane{
		{"voice", "gold", 46, 10, 30, 30, 0},
		{"storage", "silver", 18, 30, 50, 50, 3},
		{"bulk", "bronze", 10, 10, 100, 20, 6},
	}
	// paired is where the pair may send 80 % of what the link carries.
	paired = []lane{
		{"voice", "gold", 46, 10, 30, 30, 0},
		{"storage", "silver", 18, 30, 50, 40, 3},
		{"bulk", "bronze", 10, 10, 100, 10, 6},
	}
)

// fitting are ceilings that the link has room for: what departure times can keep.
var fitting = []lane{
	{"voice", "gold", 46, 10, 30, 30, 0},
	{"storage", "silver", 18, 30, 50, 50, 3},
	{"bulk", "bronze", 10, 10, 20, 20, 6},
}

// shared is two sites with three tunnels over one narrow link.
//
//	hosts ─ dc1 ─── router ─── dc2 ─ hosts
//	               (narrow)
type shared struct {
	t        *testing.T
	datapath string
	// shaper is that of both sites, empty for what there is without being told.
	shaper string
	// mixed has voice on the eBPF datapath, whatever datapath is.
	mixed bool
	// frequency is how many datagrams a sender sends in a second in a virtual machine.
	frequency int
	// tcp has it send TCP there all the same.
	tcp      bool
	lab      *netlab.Lab
	sites    [2]*site.Site
	router   *netlab.Namespace
	hosts    [3][2]*netlab.Link
	topology string
	meter    *meter
}

var sharedAddress = [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}

func newShared(t *testing.T, datapath string) *shared {
	t.Helper()
	dir := t.TempDir()
	s := &shared{t: t, datapath: datapath, lab: netlab.New(t), topology: filepath.Join(dir, "topology.yaml")}
	s.router = s.lab.Namespace("router")
	s.router.Sysctl("net.ipv4.ip_forward", "1")
	for i := range s.sites {
		name := fmt.Sprintf("dc%d", i+1)
		s.sites[i] = &site.Site{
			Name: name, NS: s.lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: s.topology,
			Flags: []string{"--datapath", datapath}, Links: []string{"eth0", "eth1", "eth2", "eth3"},
		}
		t.Cleanup(s.sites[i].Close)
		// As on a wire segments are cut where packets leave, and those of the kernel's L2TP have a
		// checksum.
		eth0, wan := s.lab.Veth(s.sites[i].NS, "eth0", s.router, name)
		eth0.Addr(fmt.Sprintf("192.0.%d.1/24", 2+i)).Feature("tx-*-segmentation", false).Up()
		if datapath == "kernel" {
			eth0.Feature("tx-checksum-*", false)
		}
		wan.Addr(fmt.Sprintf("192.0.%d.254/24", 2+i)).Up()
		eth0.Route("default", fmt.Sprintf("192.0.%d.254", 2+i))
		for k := range s.hosts {
			host := s.lab.Namespace(fmt.Sprintf("%s host %d", name, k))
			port, nic := s.lab.Veth(s.sites[i].NS, fmt.Sprintf("eth%d", k+1), host, "eth0")
			port.Silent().Up()
			s.hosts[k][i] = nic.Silent().Addr(sharedAddress[i].String() + "/24").Up()
		}
		if i == 1 {
			s.meter = newMeter(t, eth0)
		}
	}
	return s
}

// write writes the topology for a link that carries rate bits a second; 0 is one that is
// not known, where nothing is shaped.
func (s *shared) write(rate uint64, lanes []lane, more ...string) {
	s.t.Helper()
	var b strings.Builder
	limit := ""
	if rate != 0 {
		limit = fmt.Sprintf(", rate: %dbit, qdisc: replace", rate)
		if s.shaper != "" {
			limit += ", shaper: " + s.shaper
		}
	}
	fmt.Fprintf(&b, "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: share}\nsites:\n  dc1: {address: 192.0.2.1%[1]s}\n  dc2: {address: 192.0.3.1%[1]s}\nclasses:\n", limit)
	for _, l := range lanes {
		dscp := fmt.Sprint(l.dscp)
		if l.class == "bulk" && s.datapath == "ebpf" {
			dscp = fmt.Sprintf("[%d, 1, 1, 1, 1, 1, 1, 1]", l.dscp) // untagged frames count as PCP 0
		}
		if rate == 0 {
			fmt.Fprintf(&b, "  %s: {dscp: %s}\n", l.class, dscp)
			continue
		}
		fmt.Fprintf(&b, "  %s: {dscp: %s, priority: %d, rate: %dbit, ceiling: %dbit}\n", l.class, dscp, l.priority, rate*l.rate/100, rate*l.ceiling/100)
	}
	b.WriteString("tunnels:\n")
	for _, l := range lanes {
		fmt.Fprintf(&b, "  %s: {sites: [dc1, dc2], class: %s, hello: 1s}\n", l.tunnel, l.class)
	}
	b.WriteString("pseudowires:\n")
	for k, l := range lanes {
		on := ""
		if s.mixed && l.class == "voice" {
			on = "    datapath: ebpf\n"
		}
		fmt.Fprintf(&b, "  %[1]s:\n    tunnel: %[2]s\n%[4]s    attach:\n      dc1: {interface: eth%[3]d}\n      dc2: {interface: eth%[3]d}\n", l.class, l.tunnel, k+1, on)
	}
	for _, m := range more {
		b.WriteString(m)
	}
	if err := os.WriteFile(s.topology, []byte(b.String()), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the daemons, and waits until hosts have found each other.
func (s *shared) start() {
	s.t.Helper()
	for _, d := range s.sites {
		if err := d.Start(); err != nil {
			s.t.Fatal(err)
		}
	}
	ctx := within(s.t, 3*upWithin)
	for _, d := range s.sites {
		if err := d.AwaitUp(ctx, 3, 3); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, h := range s.hosts {
		if _, err := h[0].NS.Ping(ctx, sharedAddress[1], netlab.PingOptions{Count: 1}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// apply puts what was written in force while traffic flows.
func (s *shared) apply() {
	s.t.Helper()
	for _, d := range s.sites {
		if _, err := d.Pwctl(within(s.t, upWithin), "apply", "-f", s.topology, "-y"); err != nil {
			s.t.Fatal(err)
		}
	}
}

// narrow has the router carry rate bits a second towards the second site, and keep
// limit octets waiting.
func (s *shared) narrow(rate uint64, limit int) {
	s.t.Helper()
	burst := max(rate/8/500, 4000)
	if _, err := s.router.Run(within(s.t, upWithin), "tc", "qdisc", "replace", "dev", "dc2", "root", "tbf",
		"rate", fmt.Sprintf("%dbit", rate), "burst", fmt.Sprint(burst), "limit", fmt.Sprint(limit)); err != nil {
		netlab.Missing(s.t, "tc tbf", err)
	}
}

// theirQdisc sets one at the first site that is not the daemon's.
func (s *shared) theirQdisc() string {
	s.t.Helper()
	if _, err := s.sites[0].NS.Run(within(s.t, upWithin), "tc", "qdisc", "replace", "dev", "eth0", "root", "handle", "8:", "pfifo", "limit", "77"); err != nil {
		s.t.Fatal(err)
	}
	return s.qdisc()
}

func (s *shared) qdisc() string {
	s.t.Helper()
	text, err := s.sites[0].NS.Run(within(s.t, upWithin), "tc", "qdisc", "show", "dev", "eth0", "root")
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// sender sends from one host to the other as fast as the link takes it. What waits is bounded
// by the socket: nothing is lost on the way to the queue.
type sender struct {
	conns []net.Conn
	flow  *netlab.Flow // instead of them in a virtual machine
	done  sync.WaitGroup
}

// send sends datagrams, or from 1 gbit on TCP: the machine does not carry so many packets
// that are made one by one.
func (s *shared) send(k int, rate uint64, buffer int) *sender {
	s.t.Helper()
	x := &sender{}
	if inVM && !s.tcp {
		// More than the link carries, and not more than that: it would have time for nothing else.
		var err error
		if x.flow, err = s.hosts[k][0].NS.Flow(s.hosts[k][1].NS, sharedAddress[1], netlab.FlowOptions{Rate: cmp.Or(s.frequency, 150), Size: size(rate)}); err != nil {
			s.t.Fatal(err)
		}
		return x
	}
	streams := 1
	if rate >= 1e9 {
		streams = 3
	}
	for range streams {
		var to net.Addr
		if rate >= 1e9 {
			to = s.accept(k)
		} else {
			to = s.listen(k).LocalAddr()
		}
		if err := s.hosts[k][0].NS.Do(func() error {
			conn, err := net.Dial(to.Network(), to.String())
			if err == nil {
				x.conns = append(x.conns, conn)
			}
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, conn := range x.conns {
		if udp, ok := conn.(*net.UDPConn); ok {
			control(s.t, udp, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) })
		}
		x.done.Go(func() {
			data := make([]byte, size(rate))
			for {
				if _, err := conn.Write(data); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		})
	}
	s.t.Cleanup(x.stop)
	return x
}

func (x *sender) stop() {
	if x.flow != nil {
		x.flow.Stop()
	}
	for _, conn := range x.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0) // what waits is not sent any more, and the other end is told
		}
		conn.Close()
	}
	x.done.Wait()
}

// accept takes one TCP connection at the far host, and reads all that comes.
func (s *shared) accept(k int) net.Addr {
	s.t.Helper()
	var l net.Listener
	if err := s.hosts[k][1].NS.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(sharedAddress[1], 0).String())
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		// Whether the other end gets to say that it has ended is up to the link.
		stop := context.AfterFunc(s.t.Context(), func() { conn.Close() })
		defer stop()
		io.Copy(io.Discard, conn)
	}()
	return l.Addr()
}

// listen opens a socket at the far host, which need not be read from.
func (s *shared) listen(k int) *net.UDPConn {
	s.t.Helper()
	var conn *net.UDPConn
	if err := s.hosts[k][1].NS.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(sharedAddress[1], 0)))
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func control(t *testing.T, conn *net.UDPConn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// awaitBacklog waits until frames of every class wait.
func (s *shared) awaitBacklog(lanes []lane) {
	s.t.Helper()
	ctx := within(s.t, 2*upWithin)
	if err := netlab.Poll(ctx, "frames of every class to wait", func() error {
		classes, err := s.sites[0].Client().Classes(ctx)
		for _, c := range classes {
			if c.BacklogOctets < 1000 {
				return fmt.Errorf("of %s %d octets wait", c.Name, c.BacklogOctets)
			}
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}

// rates are what came over the link in a time, in bits a second, by lane, and in sum.
func (s *shared) rates(ctx context.Context, lanes []lane, window time.Duration) (each []float64, sum float64) {
	before, began := s.meter.read(s.t), time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
	}
	after, took := s.meter.read(s.t), time.Since(began)
	for _, l := range lanes {
		each = append(each, float64(after[l.dscp]-before[l.dscp])*8/took.Seconds())
	}
	for i := range after {
		sum += float64(after[i]-before[i]) * 8 / took.Seconds()
	}
	return each, sum
}

// tolerated is how far a share may be off, in percent.
var tolerated = func() float64 {
	if inVM {
		return 10
	}
	return 5
}()

// judge measures until each lane has its share within what is tolerated: on a busy machine the senders may
// not get to keep the link full.
func (s *shared) judge(rate uint64, lanes []lane, window time.Duration) {
	s.t.Helper()
	s.awaitBacklog(lanes)
	// What idle classes had saved is spent first.
	s.rates(s.t.Context(), lanes, window/2)
	var wrong []string
	for range 5 {
		each, sum := s.rates(s.t.Context(), lanes, window)
		wrong = nil
		for k, l := range lanes {
			want := float64(rate*l.want) / 100
			off := 100 * (each[k]/want - 1)
			s.t.Logf("%s: %s got %.3f mbit/s of %.3f: %+.1f %%", bits(rate), l.class, each[k]/1e6, want/1e6, off)
			if math.Abs(off) > tolerated {
				wrong = append(wrong, fmt.Sprintf("%s got %.3f mbit/s, want %.3f: %+.1f %%", l.class, each[k]/1e6, want/1e6, off))
			}
		}
		if sum > 1.05*float64(rate) {
			wrong = append(wrong, fmt.Sprintf("in sum %.3f mbit/s", sum/1e6))
		}
		if wrong == nil {
			return
		}
	}
	s.t.Errorf("over a link of %s: %s", bits(rate), strings.Join(wrong, "; "))
}

func bits(rate uint64) string {
	if rate >= 1e9 {
		return fmt.Sprintf("%g gbit", float64(rate)/1e9)
	}
	return fmt.Sprintf("%g mbit", float64(rate)/1e6)
}

// size is that of datagrams, or what is written at once: at low rates they are short, for there to be enough of them.
func size(rate uint64) int {
	if rate < 1e6 {
		return 100
	}
	if rate < 10e6 {
		return 400
	}
	if rate >= 1e9 {
		return 64 << 10
	}
	return 1400
}

// seen looks whether users see what happens.
// rotates has all pseudowires' cookies change, on the kernel's datapath by other sessions: their packets are in the same classes.
func (s *shared) rotates() {
	s.t.Helper()
	all, err := s.sites[0].Client().RotateCookies(within(s.t, patience), api.RotateRequest{})
	if err != nil || len(all) == 0 {
		s.t.Fatalf("%+v, %v", all, err)
	}
	for _, r := range all {
		if r.Result != "done" {
			s.t.Errorf("%+v", r)
		}
	}
}

func (s *shared) seen(lanes []lane) {
	s.t.Helper()
	top, err := s.sites[0].Pwctl(within(s.t, upWithin), "top", "-i", "200ms")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Log(top)
	classes, err := s.sites[0].Client().Classes(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for k, l := range lanes {
		if want := l.tunnel + "/dc2"; !strings.Contains(top, want) {
			s.t.Errorf("pwctl top does not show %s", want)
		}
		i := slices.IndexFunc(classes, func(c api.Class) bool { return c.Name == l.class })
		if i < 0 || len(classes[i].Tunnels) != 1 {
			s.t.Errorf("class %s: %+v", l.class, classes)
			continue
		}
		c := classes[i].Tunnels[0]
		if c.Tunnel != l.tunnel || c.Peer != "dc2" || c.Interface != "eth0" || !slices.Equal(c.Pseudowires, []string{lanes[k].class}) ||
			c.Octets == 0 || c.BacklogOctets == 0 || c.Achieved == 0 || c.DelayMicroseconds == 0 {
			s.t.Errorf("class %s: %+v", l.class, c)
		}
	}
}

// buffer is how much of a sender waits: less than a class's queue holds, more than is sent
// while a busy machine lets the sender wait.
func buffer(rate uint64) int {
	if rate < 10e6 {
		return 64 << 10
	}
	return 1000 << 10
}

// Three tunnels of one pair of sites share a link: each class has what it is guaranteed,
// and what is left goes by priority, up to the ceilings. Octets of outer packets are
// counted beyond the link. What is guaranteed, and what the pair of sites may send, changes
// while the link is full.
func TestShares(t *testing.T) {
	type run struct {
		rate     uint64
		datapath string
	}
	runs := []run{{1e6, "ebpf"}, {20e6, "ebpf"}}
	if inVM {
		runs = eachOnOneKernel([]run{{200e3, "kernel"}, {200e3, "ebpf"}}) // of more its timers are too late
	}
	for _, r := range runs {
		t.Run(bits(r.rate)+", "+r.datapath, func(t *testing.T) {
			if !inVM {
				t.Parallel()
			}
			rate := r.rate
			s := newShared(t, r.datapath)
			s.narrow(rate*21/20, 64<<10)
			theirs := s.theirQdisc()
			s.write(rate, capped)
			s.start()
			for k := range capped {
				s.send(k, rate, buffer(rate))
			}
			window := 2 * time.Second
			if inVM {
				window *= 2
			}
			s.judge(rate, capped, window)
			s.seen(capped)
			if inVM { // the rest takes its time there
				s.rotates()
				s.judge(rate, capped, window)
				s.seen(capped)
				return
			}
			s.write(rate, greedy)
			s.apply()
			s.judge(rate, greedy, window)
			s.write(rate, paired, fmt.Sprintf("pairs:\n  west: {sites: [dc1, dc2], rate: %dbit}\n", rate*80/100))
			s.apply()
			s.judge(rate, paired, window)
			// What else the host sends is in no class, and not held up.
			r, err := s.sites[0].NS.Transfer(within(t, 2*time.Minute), s.router, netip.MustParseAddr("192.0.2.254"), 4<<20)
			if err != nil || rate < 10e6 && r.Rate() < 2*float64(rate) {
				t.Errorf("other traffic has %.1f mbit/s: %v", r.Rate()/1e6, err)
			}
			// Control messages are in no class: the connections live.
			ctx := within(t, 3*upWithin)
			if err := s.sites[0].AwaitUp(ctx, 3, 3); err != nil {
				t.Error(err)
			}
			// In the end there is what was there before.
			if err := errors.Join(s.sites[0].Stop(ctx), s.sites[0].Cleanup(ctx)); err != nil {
				t.Fatal(err)
			}
			if now := s.qdisc(); now != theirs {
				t.Errorf("the qdisc was\n%sand is\n%s", theirs, now)
			}
		})
	}
}

// Departure times and fq keep the ceilings of three tunnels of one pair, on both datapaths,
// within 5 %, and hold up nothing else: neither control messages, nor what else the host sends.
func TestDepartureTimes(t *testing.T) {
	const rate = 1e6
	datapath := "ebpf"
	if inVM {
		datapath = "kernel"
	}
	s := newShared(t, datapath)
	theirs := s.theirQdisc()
	if err := s.asksFQ(); err != nil {
		if inVM {
			netlab.Missing(t, "fq", err)
		}
		s.noFQ(rate)
		return
	}
	s.shaper, s.mixed, s.frequency = "edt", true, 60
	s.write(rate, fitting)
	s.start()
	for k := range fitting {
		s.send(k, 10e6, buffer(rate)) // long datagrams: the machine does not make many
	}
	s.awaitBacklog(fitting)
	s.keeps(rate, fitting, 2*time.Second)
	ctx := within(t, 3*upWithin)
	// Half a second of packets waits in the slowest tunnel.
	ping, err := s.sites[0].NS.Ping(ctx, netip.MustParseAddr("192.0.2.254"), netlab.PingOptions{Count: 9})
	if err != nil || ping.Received < 9 || ping.Median() > 150*time.Millisecond {
		t.Errorf("other traffic: %+v, %v", ping, err)
	}
	t.Logf("other traffic: %v", ping.Median())
	text, err := s.sites[0].NS.Run(ctx, "tc", "-s", "qdisc", "show", "dev", "eth0", "root")
	var first int
	if m := regexp.MustCompile(`highprio (\d+)`).FindStringSubmatch(text); m != nil {
		first, _ = strconv.Atoi(m[1])
	}
	// Later kernels do not count them any more.
	if err != nil || os.Getenv("PWD_VM") == "6.1" && first == 0 {
		t.Errorf("control messages are not sent before all else: %v\n%s", err, text)
	}
	s.seen(fitting)
	if err := s.sites[0].AwaitUp(ctx, 3, 3); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.sites[0].Stop(ctx), s.sites[0].Cleanup(ctx)); err != nil {
		t.Fatal(err)
	}
	if now := s.qdisc(); now != theirs {
		t.Errorf("the qdisc was\n%sand is\n%s", theirs, now)
	}
}

// Shapers keep a ceiling, with TCP, whose segments leave as one. Not run unless asked for:
// -share-plot FILE.
func TestCeilings(t *testing.T) {
	if *sharePlot == "" {
		return
	}
	shapers, datapaths, rates := []string{"htb"}, []string{"ebpf"}, []uint64{2e6, 20e6, 200e6, 2e9}
	if inVM {
		shapers, datapaths = []string{"edt", "htb"}, []string{"ebpf", "kernel"}
	}
	for _, shaper := range shapers {
		for _, datapath := range datapaths {
			t.Run(shaper+", "+datapath, func(t *testing.T) {
				s := newShared(t, datapath)
				s.shaper, s.tcp = shaper, true
				s.write(1e6, fitting)
				s.start()
				for _, rate := range rates {
					s.write(rate, fitting)
					s.apply()
					s.keepsCeiling(1, rate)
				}
			})
		}
	}
}

// keepsCeiling has a lane send as much TCP as it can. How much comes over the link is also up to
// the machine; that the class counts as many octets, by which it is held back, is not. Some of
// those may get lost behind it where the machine is busy.
func (s *shared) keepsCeiling(k int, rate uint64) {
	s.t.Helper()
	counted, came := s.settled(k)
	x := s.send(k, 1e9, 0)
	s.rates(s.t.Context(), fitting, 2*time.Second)
	each, _ := s.rates(s.t.Context(), fitting, 3*time.Second)
	x.stop()
	countedAfter, cameAfter := s.settled(k)
	if cameAfter-came < 1e5 {
		s.t.Fatalf("only %d octets came over the link", cameAfter-came)
	}
	off := 100 * (float64(countedAfter-counted)/float64(cameAfter-came) - 1)
	want := float64(rate*fitting[k].want) / 100
	s.t.Logf("%s, %s: a ceiling of %.0f mbit/s has %.3f: %+.1f %%; its class counts %+.2f %% more than the %d octets that come", s.shaper, s.datapath, want/1e6, each[k]/1e6, 100*(each[k]/want-1), off, cameAfter-came)
	least := -1.0
	if inVM && s.shaper == "htb" && s.datapath == "ebpf" {
		least = -7 // these kernels do not look into a tunnel for what HTB counts
	}
	if off < least || off > 5 || each[k] > (1.02-least/100)*want {
		s.t.Errorf("%.3f mbit/s come of %.0f, and the class counts %+.2f %%", each[k]/1e6, want/1e6, off)
	}
}

// settled is how many octets the class of a lane has counted, and how many came over the link, once
// nothing is on its way.
func (s *shared) settled(k int) (counted, came uint64) {
	s.t.Helper()
	ctx := within(s.t, 2*upWithin)
	if err := netlab.Poll(ctx, "what was sent to arrive", func() error {
		classes, err := s.sites[0].Client().Classes(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(classes, func(c api.Class) bool { return c.Name == fitting[k].class })
		if i < 0 || len(classes[i].Tunnels) != 1 {
			return fmt.Errorf("classes %+v", classes)
		}
		before := [2]uint64{counted, came}
		c := classes[i].Tunnels[0]
		counted, came = c.Octets, s.meter.read(s.t)[fitting[k].dscp]
		if c.BacklogOctets != 0 || before != [2]uint64{counted, came} {
			return fmt.Errorf("%d octets wait; %d were counted, and %d came", c.BacklogOctets, counted, came)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return counted, came
}

// asksFQ asks the kernel for fq; the error says that it has none.
func (s *shared) asksFQ() error {
	s.t.Helper()
	_, err := s.lab.Namespace("fq").Run(within(s.t, upWithin), "tc", "qdisc", "replace", "dev", "lo", "root", "fq")
	if err != nil && !strings.Contains(err.Error(), "kind is unknown") {
		s.t.Fatal(err)
	}
	return err
}

// noFQ has a site that shapes with HTB apply departure times, which its kernel cannot keep.
func (s *shared) noFQ(rate uint64) {
	s.t.Helper()
	s.write(rate, fitting)
	if err := s.sites[0].Start(); err != nil {
		s.t.Fatal(err)
	}
	ctx := within(s.t, upWithin)
	shaped := func() error {
		if now := s.qdisc(); !strings.HasPrefix(now, "qdisc htb 7064: root") {
			return fmt.Errorf("the qdisc is %s", now)
		}
		return nil
	}
	if err := netlab.Poll(ctx, "HTB", shaped); err != nil {
		s.t.Fatal(err)
	}
	s.shaper = "edt"
	s.write(rate, fitting)
	if _, err := s.sites[0].Pwctl(ctx, "apply", "-f", s.topology, "-y"); err == nil || !strings.Contains(err.Error(), "the kernel has no fq") {
		s.t.Errorf("applied: %v", err)
	}
	if err := shaped(); err != nil {
		s.t.Error(err)
	}
}

// keeps measures until each lane is within 5 % of its share.
func (s *shared) keeps(rate uint64, lanes []lane, window time.Duration) {
	s.t.Helper()
	var wrong []string
	for range 5 {
		each, _ := s.rates(s.t.Context(), lanes, window)
		wrong = nil
		for k, l := range lanes {
			want := float64(rate*l.want) / 100
			off := 100 * (each[k]/want - 1)
			s.t.Logf("%s, %s: %s got %.3f mbit/s of %.3f: %+.1f %%", bits(rate), s.datapath, l.class, each[k]/1e6, want/1e6, off)
			if math.Abs(off) > 5 {
				wrong = append(wrong, fmt.Sprintf("%s got %.3f mbit/s, want %.3f: %+.1f %%", l.class, each[k]/1e6, want/1e6, off))
			}
		}
		if wrong == nil {
			return
		}
	}
	s.t.Errorf("over a link of %s: %s", bits(rate), strings.Join(wrong, "; "))
}

// delayed is where the delay of voice is measured.
type delayed struct {
	datapath, shaper string
	// link is what the narrow link carries, shaped what the daemons are told of it, 0 for nothing.
	link, shaped uint64
	lanes        []lane
	// queue is how many octets wait where the link is narrow, sent for whose rate bulk's datagrams
	// are, and full how many octets of it have to have come.
	queue        int
	sent         uint64
	full, probes int
}

// measure is what voice takes alone, and while bulk fills the link.
func (d *delayed) measure(t *testing.T) (idle, full delays) {
	t.Helper()
	s := newShared(t, d.datapath)
	s.shaper = d.shaper
	s.narrow(d.link, d.queue)
	s.write(d.shaped, d.lanes)
	s.start()
	idle = s.probe(0, d.probes)
	// More than the queue where the link is narrow can hold.
	s.send(2, d.sent, 4<<20)
	before := s.meter.read(t)[d.lanes[2].dscp]
	if err := netlab.Poll(within(t, upWithin), "the link to be full", func() error {
		if got := s.meter.read(t)[d.lanes[2].dscp] - before; got < uint64(d.full) {
			return fmt.Errorf("%d octets came", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return idle, s.probe(0, d.probes)
}

// added is by how much bulk delays voice at the 99th percentile.
func (d *delayed) added(t *testing.T) time.Duration {
	t.Helper()
	idle, full := d.measure(t)
	added := full.at(99) - idle.at(99)
	how := "without classes"
	if d.shaped != 0 {
		how = "with classes"
		if d.shaper != "" {
			how += ", " + d.shaper
		}
	}
	t.Logf("%s, %s, %s: p50 %v, p99 %v; of an idle link: p50 %v, p99 %v; added at p99: %v",
		bits(d.link), d.datapath, how, full.at(50), full.at(99), idle.at(50), idle.at(99), added)
	return added
}

// While bulk fills the link, voice hardly notices; without classes both wait in
// one queue where the link is narrow.
func TestVoiceDelay(t *testing.T) {
	if inVM {
		t.Skip("needs more than the virtual machine carries")
	}
	const rate = 100e6
	with := delayed{datapath: "ebpf", link: rate, shaped: rate * 95 / 100, lanes: capped, queue: 256 << 10, sent: rate, full: 1 << 20, probes: 200}
	if *delayRuns > 0 {
		with.probes = 2000
	}
	without := with
	without.shaped = 0
	for range max(*delayRuns, 1) {
		var added time.Duration
		for range 3 {
			if added = with.added(t); added < 25*time.Millisecond || *delayRuns > 0 {
				break
			}
		}
		// Five times what is wanted, and the queue of 256 KiB is 21 ms.
		if added >= 25*time.Millisecond {
			t.Errorf("voice has %v more delay at p99 while bulk fills the link", added)
		}
		if added := without.added(t); added < 10*time.Millisecond {
			t.Errorf("without classes the delay is only %v: nothing was compared", added)
		}
	}
}

// The same in a virtual machine, on both datapaths and with departure times too, at a rate
// that it carries. Not run unless asked for: -delay-runs N.
func TestVoiceDelayInVM(t *testing.T) {
	if !inVM || *delayRuns == 0 {
		return
	}
	const rate = 1.5e6
	fits := []lane{{"voice", "gold", 46, 20, 40, 40, 0}, {"storage", "silver", 18, 10, 10, 10, 3}, {"bulk", "bronze", 10, 10, 50, 50, 6}}
	for range *delayRuns {
		for _, datapath := range []string{"ebpf", "kernel"} {
			d := delayed{datapath: datapath, shaper: "htb", link: rate, shaped: rate * 95 / 100, lanes: greedy, queue: 32 << 10, sent: 10e6, full: 128 << 10, probes: 400}
			d.added(t)
			d.shaper, d.lanes = "edt", fits
			d.added(t)
			d.shaped = 0
			if added := d.added(t); added < 50*time.Millisecond {
				t.Errorf("without classes the delay is only %v: nothing was compared", added)
			}
		}
	}
}
