//go:build vm

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/l2tpeth"
)

// plain is the ordinary pair of sites of these tests.
var plain = setup{kinds: [2]pseudowire.Kind{kernel, kernel}, family: families[0], cookie: 8, underlay: 1500, pw: 1500}

// device returns the pseudowire's device, nil if there is none.
func (s *site) device() *netlink.LinkAttrs {
	l, err := s.lcce.Netlink().LinkByName(pwDevice)
	if err != nil {
		return nil
	}
	return l.Attrs()
}

// l2tp is what `ip l2tp` shows of a kind of object: the first words of each.
func (s *site) l2tp(object string) []string {
	s.t.Helper()
	out, err := s.lcce.Run(s.t.Context(), "ip", "l2tp", "show", object)
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out) {
		if line = strings.TrimRight(line, "\n"); line != "" && line[0] != ' ' {
			lines = append(lines, line)
		}
	}
	return lines
}

// carrySession waits until a frame from one host reaches the other.
func carrySession(t *testing.T, from, to *site) {
	t.Helper()
	ping(t, from, to, 56)
}

func TestKernelDevice(t *testing.T) {
	a, _ := twoSites(t, plain)
	before := a.device()
	if before == nil || before.Alias != "pwd:pseudowire:lan" || before.MTU != 1500 || before.Flags&net.FlagUp == 0 {
		t.Fatalf("device: %+v", before)
	}
	set := func(change func(*pseudowire.Session)) *netlink.LinkAttrs {
		t.Helper()
		change(&a.session)
		a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
		return a.device()
	}
	if d := set(func(*pseudowire.Session) {}); d.Index != before.Index || d.Flags&net.FlagUp == 0 {
		t.Errorf("the same again made device %d of %d", d.Index, before.Index)
	}
	if d := set(func(s *pseudowire.Session) { s.Transmit = false }); d.Index != before.Index || d.Flags&net.FlagUp != 0 {
		t.Errorf("not to transmit: device %d (was %d), flags %v", d.Index, before.Index, d.Flags)
	}
	if d := set(func(s *pseudowire.Session) { s.Transmit = true; s.RemoteCookie = cookie(9, 4) }); d == nil || d.Index == before.Index || d.Flags&net.FlagUp == 0 {
		t.Errorf("another cookie: device %+v", d)
	}
	taken := func(id uint32) (taken bool) {
		a.must("look for a session ID", func(dp pseudowire.Datapath) (err error) {
			taken, err = dp.(interface{ SessionTaken(uint32) (bool, error) }).SessionTaken(id)
			return err
		})
		return taken
	}
	if !taken(a.session.LocalID) || taken(a.session.LocalID+1) {
		t.Error("SessionTaken is wrong")
	}
	a.must("set MTU", func(dp pseudowire.Datapath) error {
		return dp.SetPseudowire(pseudowire.Pseudowire{Name: pwName, Device: pwDevice, MTU: 1400})
	})
	if d := a.device(); d.MTU != 1400 {
		t.Errorf("MTU %d", d.MTU)
	}
	a.must("remove session", func(dp pseudowire.Datapath) error { return dp.RemoveSession(a.session.LocalID) })
	if d := a.device(); d != nil || taken(a.session.LocalID) {
		t.Errorf("after its session is gone: device %+v", d)
	}
	a.must("remove session again", func(dp pseudowire.Datapath) error { return dp.RemoveSession(a.session.LocalID) })
	a.must("remove tunnel", func(dp pseudowire.Datapath) error { return dp.RemoveTunnel(a.tunnel.Name) })
	if left := append(a.l2tp("tunnel"), a.l2tp("session")...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// Whether a socket carries a second tunnel is the kernel's affair; what it says is ours.
	err := a.do(func(dp pseudowire.Datapath) error { return dp.SetTunnel(a.tunnel) })
	if _, ok := errors.AsType[*l2tpeth.ConflictError](err); err != nil && !ok {
		t.Errorf("the same tunnel again on its socket: %v", err)
	}
}

// Frames sent on the devices themselves: no bridge, no host, nothing else that speaks.
func TestKernelCounters(t *testing.T) {
	a, b := twoSites(t, plain)
	for _, s := range []*site{a, b} {
		if err := s.lcce.Netlink().LinkSetNoMaster(s.lcceDevice()); err != nil {
			t.Fatal(err)
		}
	}
	since := func(now, before pseudowire.Counters) pseudowire.Counters {
		now.ReceivedFrames -= before.ReceivedFrames
		now.ReceivedOctets -= before.ReceivedOctets
		now.TransmittedFrames -= before.TransmittedFrames
		now.TransmittedOctets -= before.TransmittedOctets
		for reason := range now.Drops {
			now.Drops[reason] -= before.Drops[reason]
		}
		return now
	}
	none := map[string]uint64{pseudowire.DropWrongCookie: 0, pseudowire.DropOutOfSequence: 0, pseudowire.DropError: 0}
	var frames [][]byte
	for i := range 10 {
		frames = append(frames, frame(uint32(i), 100, 0, false, 0x88b5))
	}
	beforeA, beforeB := a.counters(), b.counters()
	if err := a.lcce.Link(pwDevice).Send(frames...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := netlab.Poll(ctx, "all frames are counted", func() error {
		if n := since(b.counters(), beforeB).ReceivedFrames; n < 10 {
			return errors.New("not all yet")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(pseudowire.Counters{TransmittedFrames: 10, TransmittedOctets: 1000, Drops: none}, since(a.counters(), beforeA)); diff != "" {
		t.Errorf("sender (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pseudowire.Counters{ReceivedFrames: 10, ReceivedOctets: 1000, Drops: none}, since(b.counters(), beforeB)); diff != "" {
		t.Errorf("receiver (-want +got):\n%s", diff)
	}

	// RFC 3931, Section 4.1: packets with another cookie than the one advertised are discarded.
	a.session.RemoteCookie = cookie(9, 8)
	a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
	beforeB = b.counters()
	if err := a.lcce.Link(pwDevice).Send(frames...); err != nil {
		t.Fatal(err)
	}
	if err := netlab.Poll(ctx, "all drops are counted", func() error {
		if n := since(b.counters(), beforeB).Drops[pseudowire.DropWrongCookie]; n < 10 {
			return errors.New("not all yet")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	want := pseudowire.Counters{Drops: map[string]uint64{
		pseudowire.DropWrongCookie: 10, pseudowire.DropOutOfSequence: 0, pseudowire.DropError: 0,
	}}
	if diff := cmp.Diff(want, since(b.counters(), beforeB)); diff != "" {
		t.Errorf("receiver of wrong cookies (-want +got):\n%s", diff)
	}

	// Data of a session that the receiver does not know reaches its socket.
	b.must("remove session", func(dp pseudowire.Datapath) error { return dp.RemoveSession(b.session.LocalID) })
	if err := a.lcce.Link(pwDevice).Send(frames...); err != nil {
		t.Fatal(err)
	}
	if err := netlab.Poll(ctx, "all unknown ones are counted", func() (err error) {
		b.must("count", func(dp pseudowire.Datapath) error {
			g, gerr := dp.Global()
			if g[pseudowire.DropUnknownSession] != 10 {
				err = errors.New("not all yet")
			}
			return gerr
		})
		return err
	}); err != nil {
		t.Error(err)
	}
}

func (s *site) lcceDevice() netlink.Link {
	return &netlink.Device{LinkAttrs: *s.device()}
}

// The daemon ends, its sockets with it; the next one uses the same IDs at once.
func TestKernelRestart(t *testing.T) {
	a, b := twoSites(t, plain)
	carrySession(t, a, b)
	index := a.device().Index
	for range 5 {
		a.mu.Lock()
		a.dp.Close()
		a.dp = nil
		a.mu.Unlock()
		a.tr.Release(a.tunnel.LocalID)
		a.open(kernel)
		a.bind(b, plain.encapsulation)
		a.setups-- // the same session
		a.carry(plain)
		if d := a.device(); d == nil || d.Index == index {
			t.Fatalf("device %+v, want another one than %d", d, index)
		}
		index = a.device().Index
		carrySession(t, a, b)
		carrySession(t, b, a)
	}
	if got := a.l2tp("tunnel"); len(got) != 1 {
		t.Errorf("tunnels: %q", got)
	}
}

// A session that is kept for its device takes nothing any more, even with its cookie; it can
// begin to again.
func TestKernelDeaf(t *testing.T) {
	a, b := twoSites(t, plain)
	carrySession(t, a, b)
	received := func() pseudowire.Counters { return b.counters() }
	frames := [][]byte{frame(1, 100, 0, false, 0x88b5), frame(2, 100, 0, false, 0x88b5)}
	b.session.Deaf = true
	b.must("make the session deaf", func(dp pseudowire.Datapath) error { return dp.SetSession(b.session) })
	before := received()
	if err := a.lcce.Link(pwDevice).Send(frames...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := netlab.Poll(ctx, "all frames are refused", func() error {
		if n := received().Drops[pseudowire.DropOutOfSequence] + received().Drops[pseudowire.DropError] - before.Drops[pseudowire.DropOutOfSequence] - before.Drops[pseudowire.DropError]; n < 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if n := received().ReceivedFrames - before.ReceivedFrames; n > 0 {
		t.Errorf("%d frames were received", n)
	}
	b.session.Deaf = false
	b.must("make the session hear", func(dp pseudowire.Datapath) error { return dp.SetSession(b.session) })
	carrySession(t, a, b)
}

// What an earlier run left, because somebody kept its socket, goes; what others made stays.
func TestKernelPrune(t *testing.T) {
	a, b := twoSites(t, plain)
	ctx := t.Context()
	for _, args := range [][]string{
		{"l2tp", "add", "tunnel", "tunnel_id", "500", "peer_tunnel_id", "501", "encap", "udp",
			"local", a.addr.String(), "remote", b.addr.String(), "udp_sport", "5000", "udp_dport", "5001"},
		{"l2tp", "add", "session", "name", "others0", "tunnel_id", "500", "session_id", "600", "peer_session_id", "601"},
	} {
		if _, err := a.lcce.Run(ctx, "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	// The socket stays open, as if a child of the daemon that was killed had it.
	a.mu.Lock()
	a.dp.Close()
	a.dp = nil
	a.mu.Unlock()
	a.open(kernel)
	a.must("prune", func(dp pseudowire.Datapath) error { return dp.Prune() })
	if d := a.device(); d != nil {
		t.Errorf("device %+v is still there", d)
	}
	others := append(a.l2tp("tunnel"), a.l2tp("session")...)
	if want := []string{"Tunnel 500, encap UDP", "Session 600 in tunnel 500"}; !slices.Equal(others, want) {
		t.Errorf("left: %q, want %q", others, want)
	}
	a.must("set pseudowire", func(dp pseudowire.Datapath) error {
		return dp.SetPseudowire(pseudowire.Pseudowire{Name: pwName, Device: "others0"})
	})
	a.bind(b, l2tpv3.UDP)
	a.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(a.tunnel) })
	err := a.do(func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
	if _, ok := errors.AsType[*l2tpeth.ConflictError](err); !ok {
		t.Errorf("a device of others': %v", err)
	}
	other := a.tunnel
	other.Name, other.LocalID = "other", 500
	err = a.do(func(dp pseudowire.Datapath) error {
		dp.RemoveTunnel(a.tunnel.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.bind(b, l2tpv3.UDP)
	other.Socket = a.tunnel.Socket
	err = a.do(func(dp pseudowire.Datapath) error { return dp.SetTunnel(other) })
	if _, ok := errors.AsType[*l2tpeth.ConflictError](err); !ok {
		t.Errorf("a tunnel of others': %v", err)
	}
}

// 20 pseudowires over 2 tunnels between one pair of addresses come and go without a trace.
func TestKernelMany(t *testing.T) {
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		t.Run(e.String(), func(t *testing.T) { manySessions(t, e) })
	}
}

func manySessions(t *testing.T, e l2tpv3.Encapsulation) {
	x := plain
	x.encapsulation = e
	a, b := twoSites(t, x)
	second := a.tunnel
	second.Name, second.LocalID, second.RemoteID = "t/second", 33, 44
	a.connect(&second, b, e, 0)
	a.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(second) })
	began := time.Now()
	for i := range uint32(20) {
		name := string(rune('a' + i))
		a.must("set", func(dp pseudowire.Datapath) error {
			return errors.Join(
				dp.SetPseudowire(pseudowire.Pseudowire{Name: name, Device: "pw-" + name}),
				dp.SetSession(pseudowire.Session{
					Tunnel: []string{a.tunnel.Name, second.Name}[i%2], Pseudowire: name,
					LocalID: 1000 + i, RemoteID: 2000 + i, Transmit: true,
				}))
		})
	}
	made := time.Now()
	if n := len(a.l2tp("session")); n != 21 {
		t.Errorf("%d sessions", n)
	}
	began2 := time.Now()
	a.must("remove", func(dp pseudowire.Datapath) error {
		return errors.Join(dp.RemoveTunnel(second.Name), dp.RemoveTunnel(a.tunnel.Name))
	})
	t.Logf("20 sessions made in %v, removed in %v", made.Sub(began).Round(time.Millisecond), time.Since(began2).Round(time.Millisecond))
	if left := append(a.l2tp("tunnel"), a.l2tp("session")...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	links, err := a.lcce.Links()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(links)
	if want := []string{"br0", "lan0", "wan0"}; !slices.Equal(links, want) {
		t.Errorf("links %q, want %q", links, want)
	}
}

// A host that routes IPv6 solicits and reports on every device of its own that comes up. Not on this one.
func TestKernelDeviceIsSilent(t *testing.T) {
	a, b := twoSites(t, plain)
	a.must("remove session", func(dp pseudowire.Datapath) error { return dp.RemoveSession(a.session.LocalID) })
	a.lcce.Sysctl("net.ipv6.conf.all.forwarding", "1").
		Sysctl("net.ipv6.conf.default.forwarding", "1").
		Sysctl("net.ipv6.conf.default.disable_ipv6", "0").
		Sysctl("net.ipv6.conf.default.accept_ra", "2")
	far, err := b.lcce.Link(pwDevice).Capture(netlab.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// An ordinary device shows what would be heard, and when all of it has been.
	_, control := netlabPair(a)
	heard, err := control.Capture(netlab.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
	a.lcce.Link("control0").Up()
	control.Up()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	frames, err := heard.Wait(ctx, "an ordinary device to solicit and report", func(frames []netlab.Frame) bool {
		solicits, reports := false, false
		for _, f := range frames {
			if len(f.Data) > 62 && f.Data[12] == 0x86 && f.Data[13] == 0xdd {
				solicits = solicits || f.Data[20] == 58 && f.Data[54] == 133
				reports = reports || f.Data[20] == 0 && f.Data[62] == 143
			}
		}
		return solicits && reports
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := far.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got {
		t.Errorf("heard from the pseudowire: % x", f.Data)
	}
	t.Logf("an ordinary device sent %d frames, the pseudowire's none", len(frames))
}

// netlabPair is an ordinary veth pair in the site's namespace, and its far end.
func netlabPair(s *site) (near, far *netlab.Link) {
	near, far = s.lab.Veth(s.lcce, "control0", s.host, "control1")
	return near, far.Silent()
}
