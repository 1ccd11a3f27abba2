package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// rate of the flows that must lose nothing.
const rate = 10000

// Without its daemon an established site goes on: whichever way the daemon ended, and while it starts again, no frame is lost.
func TestRestartLosesNothing(t *testing.T) {
	for _, how := range []struct {
		name   string
		signal syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"stopped", syscall.SIGTERM}, {"interrupted", syscall.SIGINT}} {
		t.Run(how.name, func(t *testing.T) {
			w := build(t, network{}).start()
			before, err := w.sites[0].Client().Sessions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f := w.flows(w.a, netlab.FlowOptions{Rate: rate, Size: 200})
			g := w.flows(w.b, netlab.FlowOptions{Rate: 100, Size: 1200})
			f.await(t, rate/2)
			for _, s := range w.sites {
				if err := s.Daemon.Signal(how.signal); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				<-s.Daemon.Exited()
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("%s ended after %v", s.Name, took)
				}
				f.await(t, rate) // a second without
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				w.awaitUp()
				f.await(t, rate/2)
			}
			f.stop(t)
			g.stop(t)
			after, err := w.sites[0].Client().Sessions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range before {
				if before[i].LocalSessionID != after[i].LocalSessionID || before[i].RemoteSessionID != after[i].RemoteSessionID {
					t.Errorf("session of %s: %d/%d before, %d/%d after", before[i].Pseudowire, before[i].LocalSessionID, before[i].RemoteSessionID, after[i].LocalSessionID, after[i].RemoteSessionID)
				}
			}
		})
	}
}

// A daemon killed in the middle of the set-up, after any of its control packets, converges after its restart.
func TestKilledDuringSetUp(t *testing.T) {
	beside(t)
	for _, victim := range []int{0, 1} {
		for _, packets := range []int{1, 2, 3, 5, 8} {
			t.Run(fmt.Sprintf("dc%d after %d packets", victim+1, packets), func(t *testing.T) {
				w := build(t, network{})
				// All that comes from the victim to its peer.
				c, err := w.underlay[1-victim].Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return isControl(f.Data) }})
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range w.sites {
					if err := s.Start(); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := c.WaitCount(within(t, upWithin), packets); err != nil {
					t.Fatal(err)
				}
				w.sites[victim].Daemon.Kill()
				if err := w.sites[victim].Start(); err != nil {
					t.Fatal(err)
				}
				w.awaitUp()
				w.ping(w.a, netlab.PingOptions{})
				w.ping(w.b, netlab.PingOptions{})
			})
		}
	}
}

// isControl says whether a frame is an L2TPv3 control message over UDP and IPv4 (RFC 3931, Section 4.1.2.1).
func isControl(frame []byte) bool {
	const ip, udp, l2tp = 14, 14 + 20, 14 + 20 + 8
	return len(frame) >= l2tp+12 && frame[12] == 8 && frame[13] == 0 && frame[ip] == 0x45 && frame[ip+9] == 17 &&
		(frame[udp] == 0x06 && frame[udp+1] == 0xa5 || frame[udp+2] == 0x06 && frame[udp+3] == 0xa5) && frame[l2tp]&0x80 != 0
}

// A machine that loses its daemon and everything that the daemon knew comes back as a stranger, and is taken in again.
func TestRebootedPeer(t *testing.T) {
	onOneKernel(t, "6.12")
	beside(t)
	w := build(t, network{}).start()
	s := w.sites[0]
	s.Daemon.Kill()
	if err := s.Cleanup(within(t, upWithin)); err != nil {
		t.Fatal(err)
	}
	if err := s.Left(); err != nil {
		t.Errorf("left behind: %v", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitUp()
	w.ping(w.a, netlab.PingOptions{})
	w.ping(w.b, netlab.PingOptions{})
}

// reboot ends a site as a power failure does: nothing is left but its files, and the
// machine that comes back is another to the kernel.
func (w *world) reboot(i int, boot string) {
	w.t.Helper()
	s := w.sites[i]
	s.Daemon.Kill()
	if out, err := s.NS.Run(within(w.t, upWithin), "sh", "-c", `
		for link in $(ls /sys/class/net); do
			case " lo $0 " in *" $link "*) tc qdisc del dev "$link" clsact 2>/dev/null || true ;; *) ip link del "$link" 2>/dev/null || true ;; esac
		done
		rm -rf /sys/fs/bpf/pwd`, strings.Join(s.Links, " ")); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	if err := netlab.Poll(within(w.t, upWithin), "nothing is left by a reboot", s.Left); err != nil { // the kernel detaches what is not pinned soon after
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	script := "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"' " + dir + "/boot_id " + bin + "/pwd \"$@\"\n"
	for name, content := range map[string]string{"boot_id": boot + "\n", "pwd": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	s.Bin = dir
}

// After a reboot of one site, or of both, its connections are set up anew by themselves,
// also where nobody says which topology: none of what was saved is of any use.
func TestReboot(t *testing.T) {
	beside(t)
	w := build(t, network{}).start()
	connection := func() uint32 {
		list, err := w.sites[0].Client().Tunnels(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list[0].LocalControlConnectionID
	}
	was := connection()
	for _, which := range [][]int{{0}, {0, 1}} {
		boot := fmt.Sprintf("boot of %d", len(which))
		for _, i := range which {
			w.reboot(i, boot)
		}
		for _, i := range which {
			w.sites[i].Topology = ""
			if err := w.sites[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		w.awaitUp()
		w.ping(w.a, netlab.PingOptions{})
		w.ping(w.b, netlab.PingOptions{})
		is := connection()
		if is == was {
			t.Errorf("sites %d rebooted: the connection has the ID %d as before", which, is)
		}
		was = is
	}
}

// Nothing is left of a daemon that cleaned up, and its peer waits for it.
func TestCleanup(t *testing.T) {
	beside(t)
	for _, d := range eachOnOneKernel(datapaths()) {
		t.Run(d[0]+"-"+d[1], func(t *testing.T) {
			w := build(t, network{datapaths: d}).start()
			w.ping(w.a, netlab.PingOptions{})
			stop := func(s *site.Site) {
				if err := s.Stop(within(t, 5*time.Second)); err != nil {
					t.Error(err)
				}
				if err := s.Left(); err == nil {
					t.Errorf("%s: SIGTERM left nothing, but the datapath was to stay", s.Name)
				}
			}
			clean := func(s *site.Site) {
				if err := s.Cleanup(within(t, upWithin)); err != nil {
					t.Error(err)
				}
				if err := s.Left(); err != nil {
					t.Errorf("left behind at %s: %v", s.Name, err)
				}
			}
			if inVM { // a kernel has no part in how long one waits for a peer that is gone
				for _, s := range w.sites {
					stop(s)
					clean(s)
				}
				return
			}
			for _, s := range w.sites {
				stop(s)
			}
			for _, s := range w.sites {
				clean(s)
			}
		})
	}
}
