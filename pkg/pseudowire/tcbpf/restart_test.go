package tcbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// bpffs mounts one for a test.
func bpffs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpffs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// stream is a steady flow of numbered datagrams from one host to another.
type stream struct {
	t    *testing.T
	in   net.PacketConn
	out  net.Conn
	sent uint32
	got  atomic.Uint32
	seen []bool
	stop chan struct{}
	done chan struct{}
}

func startStream(t *testing.T, from, to *space, addr string) *stream {
	t.Helper()
	s := &stream{t: t, stop: make(chan struct{}), done: make(chan struct{}), seen: make([]bool, 1<<20)}
	to.do(func() {
		var err error
		s.in, err = net.ListenPacket("udp", addr)
		must(t, err)
		raw, err := s.in.(*net.UDPConn).SyscallConn()
		must(t, err)
		// As much as a busy machine may leave unread for a while.
		must(t, raw.Control(func(fd uintptr) {
			must(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
		}))
	})
	from.do(func() {
		var err error
		s.out, err = net.Dial("udp", addr)
		must(t, err)
	})
	go func() {
		b := make([]byte, 2000)
		for {
			n, _, err := s.in.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= 4 && !s.seen[binary.BigEndian.Uint32(b)] {
				s.seen[binary.BigEndian.Uint32(b)] = true
				s.got.Add(1)
			}
		}
	}()
	// The first brings ARP about; the hosts queue a few meanwhile.
	s.send()
	s.settle()
	go func() {
		defer close(s.done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				for range 10 {
					s.send()
				}
			}
		}
	}()
	return s
}

func (s *stream) send() {
	b := make([]byte, 60)
	binary.BigEndian.PutUint32(b, s.sent)
	if _, err := s.out.Write(b); err != nil {
		s.t.Errorf("send: %v", err)
	}
	s.sent++
}

// settle waits until all that was sent has come, or no more comes.
func (s *stream) settle() {
	last := s.got.Load()
	for quiet := 0; s.got.Load() < s.sent && quiet < 200; quiet++ {
		time.Sleep(5 * time.Millisecond)
		if now := s.got.Load(); now != last {
			last, quiet = now, 0
		}
	}
}

// end stops the stream and wants all of it to have come.
func (s *stream) end() {
	s.t.Helper()
	close(s.stop)
	<-s.done
	s.settle()
	s.in.Close()
	s.out.Close()
	if lost := s.sent - s.got.Load(); lost != 0 {
		s.t.Errorf("%d of %d datagrams were lost; the first was %d", lost, s.sent, slices.Index(s.seen, false))
	}
	s.t.Logf("%d datagrams", s.sent)
}

// restart ends the site's datapath as a crash does and opens it anew.
func (s *site) restart() {
	s.t.Helper()
	s.do(func() {
		must(s.t, s.dp.Close())
		dp, err := Open(s.opts)
		must(s.t, err)
		s.dp = dp
		must(s.t, dp.SetPseudowire(s.pw))
		must(s.t, dp.SetTunnel(s.tunnel))
		must(s.t, dp.SetSession(s.session))
		must(s.t, dp.Prune())
	})
}

// A process ends and another takes over, at each site in turn, while datagrams
// pass both ways: not one is lost.
func TestRestartLosesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  func(*testing.T) string
	}{
		{"pinned", func(t *testing.T) string { return bpffs(t) }},
		{"without bpffs", func(t *testing.T) string { return "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := up(t, setting{cookie: 8, bpfDir: c.dir(t)})
			there := startStream(t, a.host, b.host, "10.0.0.2:9000")
			back := startStream(t, b.host, a.host, "10.0.0.1:9000")
			before := a.counters()
			for range 3 {
				a.restart()
				b.restart()
			}
			there.end()
			back.end()
			after := a.counters()
			if c.name == "pinned" && after.TransmittedFrames < before.TransmittedFrames+1000 {
				t.Errorf("counters did not go on: %+v, then %+v", before, after)
			}
		})
	}
}

// What cannot be set of some pseudowires keeps no other from being taken over: those go on as
// they were until it can.
func TestTakeOverDespiteFaults(t *testing.T) {
	a, b := up(t, setting{cookie: 8, bpfDir: bpffs(t)})
	there := startStream(t, a.host, b.host, "10.0.0.2:9000")
	more := newPseudowires(5)
	entry := func() bpf.Transmit {
		t.Helper()
		tx, err := a.dp.objs.Pseudowires.Get(uint32(a.dp.pseudowires[pseudowireName].pair.outer))
		must(t, err)
		return tx
	}
	a.do(func() {
		must(t, a.dp.Close())
		dp, err := Open(a.opts)
		must(t, err)
		a.dp = dp
		a.session.Priority = 0x10007
		must(t, dp.SetTunnel(a.tunnel))
		must(t, dp.SetPseudowire(a.pw))
		must(t, dp.SetSession(a.session))
		for _, m := range more {
			must(t, dp.SetPseudowire(m.pw))
			must(t, dp.SetSession(m.session))
		}
		const first = 0x100000
		n := uint32(1)
		for full := error(nil); full == nil; n++ {
			full = dp.objs.Sessions.Put(first+n, &bpf.Receive{})
		}
		if err := dp.Prune(); !errors.Is(err, bpf.ErrFull) || !strings.Contains(err.Error(), "pseudowire x0") {
			t.Errorf("take over: %v", err)
		}
		if tx := entry(); tx.Priority != a.session.Priority {
			t.Errorf("it was not taken over: %+v", tx)
		}
		if _, err := dp.objs.Sessions.Get(first + 1); err != nil {
			t.Errorf("what is not known was removed before all is taken over: %v", err)
		}
		for i := range n - 1 {
			must(t, dp.objs.Sessions.Delete(first+i+1))
		}
		must(t, dp.Prune())
		for _, m := range more {
			if _, err := dp.objs.Sessions.Get(m.session.LocalID); err != nil {
				t.Errorf("with room again: %v", err)
			}
		}
	})
	there.end()
}

// A process whose maps have another layout takes over: nothing is lost, and once it
// forwards the maps of before are gone.
func TestOtherLayoutsGo(t *testing.T) {
	dir := bpffs(t)
	a, b := up(t, setting{cookie: 8, bpfDir: dir})
	s := startStream(t, a.host, b.host, "10.0.0.2:9000")
	of := func(s *site) (all []string) {
		all, err := filepath.Glob(filepath.Join(s.dp.pins, "maps-*"))
		must(t, err)
		return all
	}
	for _, s := range []*site{a, b} {
		was := of(s)
		if len(was) != 1 {
			t.Fatalf("maps in %q", was)
		}
		for _, other := range []string{"maps-1", "maps-1000"} {
			other = filepath.Join(s.dp.pins, other)
			must(t, os.Mkdir(other, 0o700))
			must(t, os.Rename(filepath.Join(was[0], "sessions"), filepath.Join(other, "sessions")))
			s.restart()
		}
		if now := of(s); !slices.Equal(now, was) {
			t.Errorf("maps in %q, before that in %q", now, was)
		}
	}
	s.end()
}

// A restart onto a bpffs from none, and the other way round.
func TestRestartChangesPinning(t *testing.T) {
	dir := bpffs(t)
	a, b := up(t, setting{cookie: 8})
	s := startStream(t, a.host, b.host, "10.0.0.2:9000")
	a.opts.BPFDir, b.opts.BPFDir = dir, dir
	a.restart()
	b.restart()
	s.end()
}

// Between Open and Prune nothing that forwards is touched, however long it takes
// and whatever the order.
func TestSettersBeforePruneDisturbNothing(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir})
		s := startStream(t, a.host, b.host, "10.0.0.2:9000")
		a.do(func() {
			must(t, a.dp.Close())
			dp, err := Open(a.opts)
			must(t, err)
			a.dp = dp
			must(t, dp.SetPseudowire(a.pw))
			must(t, dp.Refresh())
			must(t, dp.SetTunnel(a.tunnel))
			must(t, dp.Refresh())
			silent := a.session
			silent.Transmit = false
			must(t, dp.SetSession(silent))
			must(t, dp.Refresh())
			must(t, dp.SetSession(a.session))
			must(t, dp.Prune())
		})
		s.end()
	}
}

// state is all that a datapath can leave in a namespace.
func state(t testing.TB, s *site) string {
	t.Helper()
	var lines []string
	s.do(func() {
		links, err := netlink.LinkList()
		must(t, err)
		for _, l := range links {
			a := l.Attrs()
			lines = append(lines, fmt.Sprintf("link %s %s", a.Name, a.Alias))
			qdiscs, err := netlink.QdiscList(l)
			must(t, err)
			for _, q := range qdiscs {
				if q.Type() == "clsact" {
					lines = append(lines, "clsact "+a.Name)
				}
			}
			filters, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
			if err == nil {
				for _, f := range filters {
					lines = append(lines, fmt.Sprintf("filter %s %v", a.Name, f.Attrs().Handle))
				}
			}
		}
	})
	if s.opts.BPFDir != "" {
		must(t, filepath.WalkDir(s.opts.BPFDir, func(path string, _ os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			lines = append(lines, "pin "+path)
			return err
		}))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCleanupLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  func() string
	}{
		{"pinned", func() string { return filepath.Join(bpffs(t), "pwd") }},
		{"without bpffs", func() string { return "" }},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crash %v", c.name, crash), func(t *testing.T) {
				a, _ := newSites(t, setting{cookie: 8, bpfDir: c.dir()})
				before := state(t, a)
				a.open()
				a.set()
				a.do(func() {
					for i := range 3 {
						must(t, a.dp.SetPseudowire(pseudowire.Pseudowire{Name: fmt.Sprint("more-", i), Device: fmt.Sprint("pw-more-", i)}))
					}
				})
				if state(t, a) == before {
					t.Fatal("nothing was made")
				}
				if crash {
					a.do(func() { must(t, a.dp.Close()) })
					a.open()
				}
				a.cleanup()
				if after := state(t, a); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
}

// A qdisc and a filter of somebody else's stay, and so does what they do.
func TestCleanupLeavesOthersAlone(t *testing.T) {
	a, _ := newSites(t, setting{cookie: 8})
	a.do(func() {
		wan := index(t, "wan")
		must(t, netlink.QdiscAdd(clsact(wan)))
	})
	before := state(t, a)
	a.open()
	a.set()
	a.cleanup()
	if after := state(t, a); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// What a crashed process made and the next one does not name goes with Prune.
func TestPruneRemovesWhatIsNotNamed(t *testing.T) {
	for _, dir := range []string{"", bpffs(t)} {
		a, b := up(t, setting{cookie: 8, bpfDir: dir})
		kept := state(t, a)
		a.do(func() {
			other := a.session
			other.Pseudowire, other.LocalID = "y", 77
			must(t, a.dp.SetPseudowire(pseudowire.Pseudowire{Name: "y", Device: "pw-y"}))
			must(t, a.dp.SetSession(other))
		})
		a.restart()
		if after := state(t, a); after != kept {
			t.Errorf("before:\n%s\nafter:\n%s", kept, after)
		}
		a.do(func() {
			keys, err := a.dp.objs.Sessions.Keys()
			must(t, err)
			counts, err := a.dp.objs.Counts.Keys()
			must(t, err)
			if len(keys) != 1 || len(counts) != 1 {
				t.Errorf("sessions %v, counters %v: not just the one", keys, counts)
			}
		})
		s := startStream(t, a.host, b.host, "10.0.0.2:9000")
		s.end()
	}
}
