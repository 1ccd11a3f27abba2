package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that TestKilledProcessLeavesNothing kills.
func TestMain(m *testing.M) {
	if os.Getenv("NETLAB_VICTIM") != "" {
		victim()
		return
	}
	os.Exit(m.Run())
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair is two namespaces with a veth pair between them.
//
//	a eth0 ──── eth0 b      192.0.2.1, .2   2001:db8::1, ::2
func pair(t *testing.T) (*Lab, *Link, *Link) {
	lab := New(t)
	a, b := lab.Veth(lab.Namespace("a"), "eth0", lab.Namespace("b"), "eth0")
	a.Addr("192.0.2.1/24", "2001:db8::1/64").Up()
	b.Addr("192.0.2.2/24", "2001:db8::2/64").Up()
	return lab, a, b
}

var farAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}

func TestPing(t *testing.T) {
	_, a, b := pair(t)
	for _, to := range farAddresses {
		for _, o := range []PingOptions{{Count: 3}, {Size: 1472 - 20}, {Size: 60000}, {Size: 1}} {
			r, err := a.NS.Ping(limit(t, 10*time.Second), to, o)
			if err != nil || r.Lost() != 0 || r.Received != max(o.Count, 1) {
				t.Errorf("ping %v %+v: %+v, %v", to, o, r, err)
			}
		}
		if _, err := a.NS.Ping(limit(t, 10*time.Second), to, PingOptions{Size: 1473, DontFragment: true}); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("ping %v with more than the MTU, unfragmented: %v, want EMSGSIZE", to, err)
		}
	}
	b.Down()
	r, err := a.NS.Ping(limit(t, 10*time.Second), farAddresses[0], PingOptions{Timeout: 50 * time.Millisecond})
	if err == nil && r.Lost() != 1 {
		t.Errorf("ping over a link that is down: %+v", r)
	}
}

func TestTransfer(t *testing.T) {
	_, a, b := pair(t)
	for _, to := range farAddresses {
		r, err := a.NS.Transfer(limit(t, 30*time.Second), b.NS, to, 16<<20)
		if err != nil || !r.Same() || r.Received != 16<<20 {
			t.Errorf("transfer to %v: %+v, %v", to, r, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.NS.Transfer(ctx, b.NS, farAddresses[0], 16<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled transfer: %v", err)
	}
}

func TestFlow(t *testing.T) {
	_, a, b := pair(t)
	f, err := a.NS.Flow(b.NS, farAddresses[0], FlowOptions{Rate: 10000, Size: 200})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitReceived(limit(t, 10*time.Second), 2000); err != nil {
		t.Error(err)
	}
	r, err := f.Stop()
	if err != nil || r.Received < 2000 || r.Lost()+r.Duplicated+r.Reordered+r.Damaged != 0 {
		t.Errorf("over a bare veth: %v, %v", r, err)
	}
}

func TestFlowCounts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		numbers []uint64
		want    FlowResult
	}{
		{"in order", []uint64{0, 1, 2, 3}, FlowResult{Received: 4}},
		{"one lost", []uint64{0, 1, 3}, FlowResult{Received: 3}},
		{"one twice", []uint64{0, 1, 1, 2}, FlowResult{Received: 3, Duplicated: 1}},
		{"two exchanged", []uint64{0, 2, 1, 3}, FlowResult{Received: 4, Reordered: 1}},
		{"late and twice", []uint64{0, 200, 100, 100}, FlowResult{Received: 3, Reordered: 1, Duplicated: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &Flow{}
			for _, n := range tt.numbers {
				f.count(n, time.Time{})
			}
			if got := f.result; got.Received != tt.want.Received || got.Duplicated != tt.want.Duplicated || got.Reordered != tt.want.Reordered {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}

// A frame is captured as it was sent, whatever the kernel did with its tags.
func TestCaptureIsWhatWasSent(t *testing.T) {
	_, a, b := pair(t)
	a.Silent()
	b.Silent()
	capture, err := b.Capture(CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	untagged := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 46)...)
	tagged := append([]byte("\x02\x00\x00\x00\x00\x07\x02\x00\x00\x00\x00\x01\x81\x00\x60\x64\x88\xb5"), make([]byte, 1500)...)
	double := append([]byte("\x01\x00\x5e\x00\x00\x05\x02\x00\x00\x00\x00\x01\x88\xa8\x00\x0a\x81\x00\x00\xc8\x88\xb5"), make([]byte, 100)...)
	sent := [][]byte{untagged, tagged, double}
	if err := a.Send(sent...); err != nil {
		t.Fatal(err)
	}
	if _, err := capture.WaitCount(limit(t, 5*time.Second), len(sent)); err != nil {
		t.Error(err)
	}
	frames, err := capture.Stop()
	if err != nil || len(frames) != len(sent) {
		t.Fatalf("%d frames captured of %d: %v", len(frames), len(sent), err)
	}
	for i, f := range frames {
		if string(f.Data) != string(sent[i]) {
			t.Errorf("frame %d\nsent     %x\ncaptured %x", i, sent[i], f.Data)
		}
		if f.Outgoing || f.Time.IsZero() || f.TagInMetadata != (i > 0) {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
	if again, _ := capture.Stop(); len(again) != len(frames) {
		t.Errorf("stopped again: %d frames", len(again))
	}
}

func TestCaptureFilter(t *testing.T) {
	_, a, b := pair(t)
	capture, err := b.Capture(CaptureOptions{Filter: []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x88b5, SkipFalse: 1}, bpf.RetConstant{Val: 1 << 20}, bpf.RetConstant{Val: 0},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ethertype := range []string{"\x88\xb6", "\x88\xb5", "\x88\xb6"} {
		if err := a.Send(append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01"+ethertype), make([]byte, 46)...)); err != nil {
			t.Fatal(err)
		}
	}
	if frames, err := capture.Stop(); err != nil || len(frames) != 1 || frames[0].Data[13] != 0xb5 {
		t.Errorf("captured %v, %v", frames, err)
	}
}

// What was sent before Stop is in the capture, with nobody waiting for it.
func TestCaptureStopTakesWhatHasCome(t *testing.T) {
	_, a, b := pair(t)
	capture, err := b.Capture(CaptureOptions{Keep: func(f *Frame) bool { return f.Data[12] == 0x88 && f.Data[13] == 0xb5 }})
	if err != nil {
		t.Fatal(err)
	}
	frames := make([][]byte, 5000)
	for i := range frames {
		frames[i] = append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 1000)...)
	}
	if err := a.Send(frames...); err != nil {
		t.Fatal(err)
	}
	if got, err := capture.Stop(); err != nil || len(got) != len(frames) {
		t.Errorf("%d frames of %d: %v", len(got), len(frames), err)
	}
}

// Two hosts on one VLAN, without the kernel's VLAN devices: the wire has the tag, the hosts do not.
func TestTagged(t *testing.T) {
	_, a, b := pair(t)
	a.Tagged(100)
	b.Tagged(100)
	capture, err := b.Capture(CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range farAddresses {
		if r, err := a.NS.Ping(limit(t, 5*time.Second), to, PingOptions{Size: 3000}); err != nil || r.Lost() != 0 {
			t.Errorf("ping %v: %+v, %v", to, r, err)
		}
	}
	frames, err := capture.Stop()
	if err != nil || len(frames) == 0 {
		t.Errorf("captured %d frames: %v", len(frames), err)
	}
	for _, f := range frames {
		if string(f.Data[12:16]) != "\x81\x00\x00\x64" {
			t.Errorf("frame not on VLAN 100: % x", f.Data[:18])
		}
	}
	if r, err := a.NS.Transfer(limit(t, 30*time.Second), b.NS, farAddresses[0], 16<<20); err != nil || !r.Same() {
		t.Errorf("transfer: %+v, %v", r, err)
	}
}

func TestTaggedKeepsOtherVLANsOut(t *testing.T) {
	_, a, b := pair(t)
	a.Tagged(100)
	b.Tagged(200)
	if r, err := a.NS.Ping(limit(t, 5*time.Second), farAddresses[0], PingOptions{Timeout: 50 * time.Millisecond}); err != nil || r.Received != 0 {
		t.Errorf("ping from VLAN 100 to VLAN 200: %+v, %v", r, err)
	}
}

func TestFeature(t *testing.T) {
	_, a, _ := pair(t)
	for _, want := range []bool{false, true} {
		a.Feature("tx-tcp*-segmentation", want)
		got, err := a.Features()
		if err != nil || got["tx-tcp-segmentation"] != want || got["tx-tcp6-segmentation"] != want {
			t.Errorf("after setting it to %v: %v, %v", want, got, err)
		}
	}
}

// A bridge of three hosts; and programs of the machine see the namespace they are in.
func TestBridgeAndRun(t *testing.T) {
	lab := New(t)
	sw := lab.Namespace("switch")
	var ports, hosts []*Link
	for i := range 3 {
		p, h := lab.Veth(sw, fmt.Sprintf("port%d", i), lab.Namespace(fmt.Sprintf("host%d", i)), "eth0")
		ports = append(ports, p.Up())
		hosts = append(hosts, h.Addr(fmt.Sprintf("192.0.2.%d/24", i+1)).Up())
	}
	bridge := sw.Bridge("br0", ports...)
	for i := 1; i < 3; i++ {
		to := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		if r, err := hosts[0].NS.Ping(limit(t, 5*time.Second), to, PingOptions{}); err != nil || r.Lost() != 0 {
			t.Errorf("ping %v: %+v, %v", to, r, err)
		}
	}
	out, err := sw.Run(limit(t, 5*time.Second), "/bin/sh", "-c", "ls /sys/class/net; mkdir /sys/fs/bpf/mine && rmdir /sys/fs/bpf/mine && echo writable")
	if want := "br0\nlo\nport0\nport1\nport2\nwritable\n"; err != nil || out != want {
		t.Errorf("a program in the namespace sees %q, want %q (%v)", out, want, err)
	}
	_, err = sw.Run(limit(t, 5*time.Second), "/bin/sh", "-c", "echo why >&2; exit 3")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "why") {
		t.Errorf("a program that failed: %v", err)
	}
	bridge.Delete()
	if links, err := sw.Links(); err != nil || strings.Join(links, " ") != "port0 port1 port2" {
		t.Errorf("links without the bridge: %v, %v", links, err)
	}
}

// A silent bridge is in no group of IPv4 but that of all hosts, which nobody tells others of.
func TestSilentBridge(t *testing.T) {
	ns := New(t).Namespace("a")
	ns.Bridge("loud")
	ns.SilentBridge("silent")
	out, err := ns.Run(limit(t, 5*time.Second), "cat", "/proc/net/igmp")
	if err != nil {
		t.Fatal(err)
	}
	groups, device := map[string]string{}, ""
	for line := range strings.Lines(out) {
		switch f := strings.Fields(line); {
		case line[0] != '\t':
			device = f[1]
		default:
			groups[device] += f[0] + " "
		}
	}
	const hosts, snoopers = "010000E0 ", "6A0000E0 " // 224.0.0.1, and 224.0.0.106 (RFC 4286)
	if groups["silent"] != hosts || !strings.Contains(groups["loud"], snoopers) {
		t.Errorf("groups are %q, of\n%s", groups, out)
	}
}

func TestProcess(t *testing.T) {
	lab := New(t)
	p, err := lab.Namespace("a").Start("sh", exec.Command("/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := p.WaitLine(limit(t, 5*time.Second), "rea"); err != nil || line != "ready" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := p.Wait(limit(t, 5*time.Second)); err != nil || p.Output() != "ready\nbye\n" {
		t.Errorf("%q, %v", p.Output(), err)
	}
	if _, err := p.WaitLine(limit(t, 5*time.Second), "more"); err == nil {
		t.Error("found a line that was never written")
	}
}

func TestWaitLink(t *testing.T) {
	lab := New(t)
	ns := lab.Namespace("a")
	waited := make(chan error, 1)
	go func() {
		waited <- ns.WaitLink(limit(t, 5*time.Second), "br0", "up", func(l netlink.Link) bool { return l != nil && l.Attrs().Flags&net.FlagUp != 0 })
	}()
	ns.Bridge("br0")
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := ns.WaitLink(limit(t, 50*time.Millisecond), "br0", "gone", func(l netlink.Link) bool { return l == nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited for what does not happen: %v", err)
	}
}

func TestSysctl(t *testing.T) {
	_, a, _ := pair(t)
	a.NS.Sysctl("net.ipv6.conf.eth0.accept_dad", "0")
	if out, err := a.NS.Run(limit(t, 5*time.Second), "cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad"); err != nil || out != "0\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// open counts the process's descriptors and goroutines.
func open(t *testing.T) (fds, goroutines int) {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d), runtime.NumGoroutine()
}

func TestCloseLeavesNothing(t *testing.T) {
	use := func() {
		lab, err := Open(Options{})
		if u, ok := errors.AsType[*UnavailableError](err); ok {
			Missing(t, u.Feature, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		a, b := lab.Veth(lab.Namespace("a"), "eth0", lab.Namespace("b"), "eth0")
		a.Addr("192.0.2.1/24").Up()
		b.Addr("192.0.2.2/24").Up()
		if _, err := a.NS.Start("sleep", exec.Command("sleep", "1000")); err != nil {
			t.Error(err)
		}
		if _, err := a.Capture(CaptureOptions{}); err != nil {
			t.Error(err)
		}
		if f, err := a.NS.Flow(b.NS, farAddresses[0], FlowOptions{}); err != nil {
			t.Error(err)
		} else if err := f.WaitReceived(limit(t, 5*time.Second), 10); err != nil {
			t.Error(err)
		}
		if err := errors.Join(lab.Err(), lab.Close(), lab.Close()); err != nil {
			t.Error(err)
		}
		if err := a.NS.Do(func() error { return nil }); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	use() // the runtime's own descriptors are open after this
	fds, goroutines := open(t)
	use()
	if err := Poll(limit(t, 5*time.Second), "all is closed", func() error {
		if f, g := open(t); f > fds || g > goroutines {
			return fmt.Errorf("%d descriptors and %d goroutines, %d and %d before", f, g, fds, goroutines)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// A socket that somebody forgot keeps its namespace alive, and Close says so.
func TestCloseTellsOfLeaks(t *testing.T) {
	lab := New(t) // for the check that this can be done here
	lab.Close()
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	l := &Lab{watch: w, log: func(string) {}}
	ns := l.Namespace("leaky")
	var conn net.PacketConn
	if err := ns.Do(func() (err error) { conn, err = net.ListenPacket("udp", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	ns.release()
	if left := w.wait(100 * time.Millisecond); len(left) != 1 || left[0] != "leaky" {
		t.Errorf("with a socket left: %v", left)
	}
	conn.Close()
	if left := w.wait(goneWithin); len(left) != 0 {
		t.Errorf("with the socket closed: %v", left)
	}
}

func TestErrorsAreKept(t *testing.T) {
	lab := New(t)
	l := &Lab{watch: lab.watch, log: func(string) {}}
	ns := l.Namespace("a")
	ns.Bridge("a-name-that-is-too-long-for-a-link").Up().Addr("192.0.2.1/24")
	if err := l.Err(); err == nil || !strings.Contains(err.Error(), "make bridge") {
		t.Errorf("error kept: %v", err)
	}
	ns.Bridge("br0")
	l.Namespace("b")
	if links, err := ns.Links(); err != nil || len(links) != 0 {
		t.Errorf("links made after an error: %v, %v", links, err)
	}
	ns.release()
}

// victim makes a lab with a program in it, says what it has, and waits to be killed.
func victim() {
	lab, err := Open(Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ns := lab.Namespace("victim")
	ns.Bridge("br0")
	p, err := ns.Start("sleep", exec.Command("sleep", "1000"))
	if err = errors.Join(err, lab.Err()); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ns.tid, p.Cmd.Process.Pid)
	select {}
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	lab := New(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "NETLAB_VICTIM=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) != 2 {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/task/%s/ns/net", cmd.Process.Pid, fields[0]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = lab.watch.add(&Namespace{Name: "victim", fd: fd})
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	if left := lab.watch.wait(50 * time.Millisecond); len(left) == 0 {
		t.Fatal("the victim's namespace is gone before its time")
	}
	cmd.Process.Kill()
	if left := lab.watch.wait(goneWithin); len(left) > 0 {
		t.Errorf("left behind by a killed process: %v", left)
	}
	if err := Poll(limit(t, 5*time.Second), "its program is gone", func() error {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d: %v", pid, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// notedT notes how a test was ended.
type notedT struct {
	TB
	ended string
}

func (n *notedT) Helper()               {}
func (n *notedT) Fatalf(string, ...any) { n.ended = "failed" }
func (n *notedT) Skipf(string, ...any) {
	if n.ended == "" {
		n.ended = "skipped"
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		ci, require string
		err         error
		want        string
	}{
		{"", "", errors.New("none here"), "skipped"},
		{"true", "", errors.New("none here"), "failed"},
		{"", "bpf,netns", errors.New("none here"), "failed"},
		{"", "all", errors.New("none here"), "failed"},
		{"", "vm", errors.New("none here"), "skipped"},
		{"true", "all", nil, ""},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv("PWD_REQUIRE", tt.require)
		n := &notedT{}
		if Missing(n, "netns", tt.err); n.ended != tt.want {
			t.Errorf("CI=%q PWD_REQUIRE=%q, %v: %q, want %q", tt.ci, tt.require, tt.err, n.ended, tt.want)
		}
	}
}
