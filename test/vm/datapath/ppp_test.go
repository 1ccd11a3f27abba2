//go:build vm

package datapath

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// An underlay of PPP, as pppd makes it over a pair of terminals: no Ethernet headers either.
func TestOverPPP(t *testing.T) {
	lab := netlab.New(t)
	a, b := newSite(t, lab, "a"), newSite(t, lab, "b")
	f := families[0]
	a.addr, b.addr = f.a, f.b
	if out, err := a.lcce.Run(t.Context(), "modprobe", "-a", "ppp_async", "ppp_generic"); err != nil {
		t.Fatalf("modprobe: %v: %s", err, out)
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil { // pppd locks terminals there
		t.Fatal(err)
	}
	ends := pair(t)
	for i, s := range []*site{a, b} {
		s.ppp(ends[i], [2]netip.Addr{f.a, f.b}[i], [2]netip.Addr{f.b, f.a}[i])
	}
	for _, s := range []*site{a, b} {
		s.wan = s.awaitPPP()
	}
	carriesWithoutEthernet(t, a, b, 1492, func() {})
	for _, s := range []*site{a, b} {
		s.awaitTCPEnd()
	}
}

// awaitTCPEnd waits until the host has said all that TCP has to say: a connection without a link
// keeps its namespace for a minute and more.
func (s *site) awaitTCPEnd() {
	s.t.Helper()
	const timeWait = "06"
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if err := netlab.Poll(ctx, "TCP to end at "+s.host.Name, func() error {
		out, err := s.host.Run(ctx, "cat", "/proc/net/tcp")
		for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if fields := strings.Fields(line); i > 0 && len(fields) > 3 && fields[3] != timeWait {
				return fmt.Errorf("%s", line)
			}
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}

// pair is two terminals that are joined, as by a null modem cable.
func pair(t *testing.T) (terminals [2]string) {
	t.Helper()
	var masters [2]*os.File
	for i := range masters {
		fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		masters[i] = os.NewFile(uintptr(fd), "ptmx")
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			t.Fatal(err)
		}
		terminals[i] = fmt.Sprintf("/dev/pts/%d", number)
		// Open all the time, so that it neither echoes nor hangs up.
		slave, err := os.OpenFile(terminals[i], os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B38400}
		if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, &raw); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { slave.Close() })
	}
	for i := range masters {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(masters[1-i], masters[i])
		}()
		t.Cleanup(func() { masters[i].Close(); <-done })
	}
	return terminals
}

// ppp starts the site's end of a link.
func (s *site) ppp(terminal string, local, remote netip.Addr) {
	s.t.Helper()
	const options = "nodetach noauth local nocrtscts noipv6 novj nobsdcomp nodeflate nodefaultroute mtu 1492 mru 1492 lcp-max-configure 60"
	p, err := s.lcce.Start("pppd", exec.Command("pppd", append([]string{terminal, fmt.Sprintf("%s:%s", local, remote)}, strings.Fields(options)...)...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s: pppd: %s", s.lcce.Name, p.Output())
		}
	})
}

func (s *site) awaitPPP() *netlab.Link {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	err := netlab.Poll(ctx, "a PPP link at "+s.lcce.Name, func() error {
		out, err := s.lcce.Run(ctx, "ip", "-4", "address", "show", "dev", "ppp0")
		if err == nil && !strings.Contains(out, s.addr.String()) {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.lcce.Link("ppp0")
}
