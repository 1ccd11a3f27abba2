package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// identity is what must not change where nothing was to be changed.
func identity(t *testing.T, s *site.Site) string {
	t.Helper()
	st, err := s.Client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := s.Client().Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintln(&b, "generation", st.Generation, "hash", st.AppliedHash)
	for _, c := range st.Tunnels {
		fmt.Fprintln(&b, c.Name, c.State, c.LocalControlConnectionID, c.RemoteControlConnectionID)
	}
	for _, x := range sessions {
		fmt.Fprintln(&b, x.Pseudowire, x.State, x.LocalSessionID, x.RemoteSessionID)
	}
	return b.String()
}

// code is the exit status of a program that failed, 0 if it did not.
func code(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

// A broken topology, by whichever way it comes, is refused with its faults, and the running state stays as it was.
func TestBrokenTopologyChangesNothing(t *testing.T) {
	onOneKernel(t, "6.1")
	beside(t)
	w := build(t, network{}).start()
	s := w.sites[0]
	before := identity(t, s)
	f := w.flows(w.a, netlab.FlowOptions{Rate: steady})
	f.await(t, steady/10)
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	good := w.text("")
	for _, tt := range []struct{ name, text, at string }{
		{"not YAML", "sites: [", ":1:"},
		{"a VLAN that is none", strings.Replace(good, "vlan: 100", "vlan: 4095", 1), ":14:"},
		{"an unknown key", strings.Replace(good, "tunnel: gold", "tunel: gold", 1), "tunel"},
		{"a tunnel that is not there", strings.Replace(good, "tunnel: gold", "tunnel: golden", 1), "golden"},
		{"rules for one tunnel", strings.Replace(good, "tunnel: gold", "tunnel: gold\n    steer: [{tunnel: gold}]", 1), "there is one tunnel"},
	} {
		if err := os.WriteFile(broken, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"validate", "-f", broken}, {"apply", "-y", "-f", broken}} {
			_, err := s.Pwctl(within(t, upWithin), args...)
			if code(err) != 4 || !strings.Contains(err.Error(), tt.at) {
				t.Errorf("%s: pwctl %s: exit status %d, %v; want 4 and %q", tt.name, args[0], code(err), err, tt.at)
			}
		}
		// The daemon's own file, at SIGHUP.
		w.write(tt.text)
		if err := s.Daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := s.Await(within(t, upWithin), "the file differs", func(st *api.Status) error {
			if !st.FileDiffers {
				return errors.New("it does not")
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if after := identity(t, s); after != before {
			t.Errorf("%s: the state was\n%sand is\n%s", tt.name, before, after)
		}
	}
	f.await(t, steady/10)
	f.stop(t)
}

// A daemon that starts with a broken file says so, and goes on with what it had.
func TestStartWithBrokenTopology(t *testing.T) {
	beside(t)
	w := build(t, network{})
	w.write("sites: [")
	s := w.sites[0]
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.Daemon.Wait(within(t, upWithin)); code(err) != 4 {
		t.Errorf("the first start with a broken file: %v, want exit status 4", err)
	}
	if err := s.Left(); err != nil {
		t.Errorf("left behind: %v", err)
	}
}

// Garbage from the peer's address and from a stranger's changes nothing but counters.
func TestGarbageChangesNothing(t *testing.T) {
	beside(t)
	w := build(t, network{}).start()
	s, peer := w.sites[0], w.sites[1]
	w.underlay[1].Addr("192.0.2.66/24")
	before := identity(t, s)
	counters := func() map[string]uint64 {
		st, err := s.Client().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Counters
	}
	first := counters()
	f := w.flows(w.a, netlab.FlowOptions{Rate: steady})
	f.await(t, steady/10)
	const each = 2000
	for _, from := range []string{"192.0.2.2", "192.0.2.66"} {
		err := peer.NS.Do(func() error {
			conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.address[0], 1701)))
			if err != nil {
				return err
			}
			defer conn.Close()
			r := rand.NewChaCha8([32]byte{})
			g := rand.New(r)
			for range each {
				b := make([]byte, g.IntN(200))
				r.Read(b)
				if len(b) > 2 && g.IntN(2) == 0 {
					// A control message's flags and version, so that the rest is read, too (RFC 3931, Section 3.2.1).
					b[0], b[1] = 0xc8, 0x03
				}
				conn.Write(b) // a refusal is no matter
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Await(within(t, upWithin), "garbage is counted", func(st *api.Status) error {
		for name, n := range st.Counters {
			if n > first[name] {
				return nil
			}
		}
		return fmt.Errorf("counters are %v", st.Counters)
	}); err != nil {
		t.Error(err)
	}
	f.await(t, steady/10)
	f.stop(t)
	if after := identity(t, s); after != before {
		t.Errorf("the state was\n%sand is\n%s", before, after)
	}
	t.Logf("counters: %v", counters())
}

// Fifty pseudowires over four tunnels come in one apply, and go in one.
func TestFiftyPseudowires(t *testing.T) {
	beside(t)
	const pseudowires, tunnels = 50, 4
	w := build(t, network{})
	text := func(pseudowires int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: many}\nsites:\n")
		for i := range w.sites {
			fmt.Fprintf(&b, "  dc%d: {address: %s, bridges: {br-lan: {ports: [eth1]}}}\n", i+1, w.address[i])
		}
		fmt.Fprintf(&b, "tunnels:\n")
		for i := range tunnels {
			fmt.Fprintf(&b, "  t%d: {sites: [dc1, dc2]}\n", i)
		}
		if pseudowires > 0 {
			fmt.Fprintf(&b, "pseudowires:\n")
		}
		for i := range pseudowires {
			fmt.Fprintf(&b, "  p%d:\n    tunnel: t%d\n    attach: {dc1: {bridge: br-lan, vlan: %d}, dc2: {bridge: br-lan, vlan: %d}}\n", i, i%tunnels, 100+i, 200+i)
		}
		return b.String()
	}
	w.write(text(0))
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, upWithin), tunnels, 0); err != nil {
			t.Fatal(err)
		}
	}
	links := func(s *site.Site) int {
		names, err := s.NS.Links()
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	none := [2]int{links(w.sites[0]), links(w.sites[1])}
	file := filepath.Join(t.TempDir(), "many.yaml")
	apply := func(n int) {
		t.Helper()
		began := time.Now()
		if err := os.WriteFile(file, []byte(text(n)), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.sites {
			if out, err := s.Pwctl(within(t, upWithin), "apply", "-y", "-f", file); err != nil {
				t.Fatalf("%s: %v\n%s", s.Name, err, out)
			}
		}
		for _, s := range w.sites {
			if err := s.AwaitUp(within(t, upWithin), tunnels, n); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d pseudowires after %v", n, time.Since(began).Round(time.Millisecond))
	}
	apply(pseudowires)
	for i, s := range w.sites {
		if n := links(s); n < none[i]+pseudowires {
			t.Errorf("%s has %d links with %d pseudowires, %d without any", s.Name, n, pseudowires, none[i])
		}
	}
	w.ping(w.a, netlab.PingOptions{}) // VLAN 100 and 200: the first of them
	apply(0)
	for i, s := range w.sites {
		if n := links(s); n != none[i] {
			t.Errorf("%s has %d links after the pseudowires, %d before", s.Name, n, none[i])
		}
		if err := s.Stop(within(t, upWithin)); err != nil {
			t.Error(err)
		}
		if err := s.Cleanup(within(t, upWithin)); err != nil {
			t.Error(err)
		}
		if err := s.Left(); err != nil {
			t.Errorf("left behind at %s: %v", s.Name, err)
		}
	}
}
