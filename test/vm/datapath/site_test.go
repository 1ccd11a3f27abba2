//go:build vm

package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/l2tpeth"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcbpf"
)

// family is what differs between an underlay of IPv4 and one of IPv6.
type family struct {
	name   string
	prefix string
	a, b   netip.Addr
}

var families = []family{
	{"ipv4", "/24", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
	{"ipv6", "/64", netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")},
}

// setup says what two sites have in common.
type setup struct {
	kinds  [2]pseudowire.Kind
	family family
	cookie int
	// underlay and pw are MTUs.
	underlay, pw int
	sublayer     l2tpv3.L2SpecificSublayer
}

const (
	pwName   = "lan"
	pwDevice = "pw-lan"
)

// site is an LCCE with a host on its LAN:
//
//	host eth0 ── lan0 ─ br0 ─ pw-lan ── (datapath) ── wan0 ── underlay
type site struct {
	t    *testing.T
	lab  *netlab.Lab
	lcce *netlab.Namespace
	host *netlab.Namespace
	// lan is the host's device, wan the site's.
	lan, wan *netlab.Link
	bridge   *netlab.Link

	addr    netip.Addr
	conn    *net.UDPConn
	session pseudowire.Session
	tunnel  pseudowire.Tunnel

	*shared
}

// shared is the part of a site that goroutines share.
type shared struct {
	mu sync.Mutex // a datapath belongs to one goroutine at a time
	dp pseudowire.Datapath
}

// in is the site in a subtest.
func (s *site) in(t *testing.T) *site {
	c := *s
	c.t = t
	return &c
}

// twoSites builds both, with one session between them, up.
func twoSites(t *testing.T, s setup) (a, b *site) {
	t.Helper()
	lab := netlab.New(t)
	a, b = newSite(t, lab, "a"), newSite(t, lab, "b")
	a.addr, b.addr = s.family.a, s.family.b
	a.wan, b.wan = lab.Veth(a.lcce, "wan0", b.lcce, "wan0")
	for _, x := range []*site{a, b} {
		// As on a wire, nothing leaves with a checksum that is still to be computed:
		// the kernel's L2TP would pass such a frame on as one that is finished.
		x.wan.Feature("tx-checksum-*", false)
		x.wan.Addr(x.addr.String() + s.family.prefix).Up()
	}
	a.wan.Operational()
	b.wan.Operational()
	a.open(s.kinds[0])
	b.open(s.kinds[1])
	a.connect(b)
	a.lan.Addr("10.0.0.1/24").Up()
	b.lan.Addr("10.0.0.2/24").Up()
	a.change(b, s)
	return a, b
}

// change sets everything that a setup says beyond kinds and family.
func (s *site) change(peer *site, x setup) {
	s.t.Helper()
	for _, y := range []*site{s, peer} {
		y.wan.MTU(x.underlay)
		y.lan.MTU(x.pw)
	}
	s.carry(x, 1, 2)
	peer.carry(x, 2, 1)
	s.meet(peer)
	peer.meet(s)
}

// meet makes the stack resolve the peer's link address, as control packets
// would, and has the datapath look again, as the daemon does after a change of neighbours.
func (s *site) meet(peer *site) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if r, err := s.lcce.Ping(ctx, peer.addr, netlab.PingOptions{Timeout: 5 * time.Second}); err != nil || r.Lost() != 0 {
		s.t.Fatalf("the underlay does not carry: %+v, %v", r, err)
	}
	s.must("refresh", func(dp pseudowire.Datapath) error { return dp.Refresh() })
}

func newSite(t *testing.T, lab *netlab.Lab, name string) *site {
	s := &site{t: t, shared: &shared{}, lab: lab, lcce: lab.Namespace(name), host: lab.Namespace("host-" + name)}
	// Frames of a test are all that moves: nothing else than what is sent comes.
	for _, ns := range []*netlab.Namespace{s.lcce, s.host} {
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	s.host.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	var port *netlab.Link
	s.lan, port = lab.Veth(s.host, "eth0", s.lcce, "lan0")
	s.bridge = s.lcce.Bridge("br0", port.Silent().MTU(9000)).Silent()
	port.Up()
	// A bridge that snoops joins a group of its own and says so.
	const snooping = "/sys/class/net/br0/bridge/multicast_snooping"
	if err := os.WriteFile(s.lcce.Root()+snooping, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) open(kind pseudowire.Kind) {
	s.t.Helper()
	var dp pseudowire.Datapath
	err := s.lcce.Do(func() (err error) {
		if kind == pseudowire.Kernel {
			dp, err = l2tpeth.Open(l2tpeth.Options{})
			return err
		}
		dp, err = tcbpf.Open(tcbpf.Options{})
		return err
	})
	if err != nil {
		s.t.Fatalf("open datapath %s: %v", kind, err)
	}
	s.mu.Lock()
	s.dp = dp
	s.mu.Unlock()
	s.t.Cleanup(func() {
		if s.dp != dp {
			return // the test closed it and opened another one
		}
		if err := s.do(func(dp pseudowire.Datapath) error { return dp.Cleanup() }); err != nil {
			s.t.Errorf("clean up: %v", err)
		}
	})
}

// do calls the datapath in its namespace.
func (s *site) do(f func(pseudowire.Datapath) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lcce.Do(func() error { return f(s.dp) })
}

func (s *site) must(what string, f func(pseudowire.Datapath) error) {
	s.t.Helper()
	if err := s.do(f); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// connect makes both ends' sockets.
func (s *site) connect(peer *site) {
	s.t.Helper()
	s.tunnel.LocalID, s.tunnel.RemoteID = 11, 22
	peer.tunnel.LocalID, peer.tunnel.RemoteID = 22, 11
	s.bind(peer)
	peer.bind(s)
}

// bind makes a socket connected to the peer's, and reads what is left on it, as the daemon does.
func (s *site) bind(peer *site) {
	s.t.Helper()
	const port = 1701
	local, remote := netip.AddrPortFrom(s.addr, port), netip.AddrPortFrom(peer.addr, port)
	var conn *net.UDPConn
	err := s.lcce.Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
		return err
	})
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	done := make(chan struct{})
	go s.read(conn, remote, done)
	s.t.Cleanup(func() { conn.Close(); <-done })
	s.conn = conn
	s.tunnel.Name, s.tunnel.Encapsulation = "t/"+peer.lcce.Name, l2tpv3.UDP
	s.tunnel.Local, s.tunnel.Remote, s.tunnel.Socket = local, remote, fd(s.t, conn)
}

// read gives the datapath the data packets that reach the socket.
func (s *site) read(conn *net.UDPConn, remote netip.AddrPort, done chan struct{}) {
	defer close(done)
	b := make([]byte, 65536)
	for {
		n, err := conn.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // an ICMP error of an earlier packet
		case n < 4 || b[0]&0x80 != 0:
			continue // no data packet: RFC 3931, Section 4.1.2.1
		}
		s.mu.Lock()
		dp := s.dp
		if dp != nil {
			s.lcce.Do(func() error { dp.Deliver(remote, b[:n]); return nil })
		}
		s.mu.Unlock()
	}
}

func fd(t *testing.T, c *net.UDPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := -1
	if err := raw.Control(func(fd uintptr) { n = int(fd) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// cookie of length octets that site id's peer has to send.
func cookie(id uint32, length int) []byte {
	c := []byte{0xc0, 0x0c, 0x1e, byte(id), 0xa5, 0x5a, 0x01, 0xfe}
	return c[:length]
}

// carry sets tunnel, pseudowire and session, and puts the device into the bridge.
func (s *site) carry(x setup, local, remote uint32) {
	s.t.Helper()
	s.session = pseudowire.Session{
		Tunnel: s.tunnel.Name, Pseudowire: pwName,
		LocalID: 0x10000 + local, RemoteID: 0x10000 + remote,
		LocalCookie: cookie(local, x.cookie), RemoteCookie: cookie(remote, x.cookie),
		ReceiveSublayer: x.sublayer, TransmitSublayer: x.sublayer,
		Transmit: true,
	}
	s.must("set pseudowire", func(dp pseudowire.Datapath) error {
		return dp.SetPseudowire(pseudowire.Pseudowire{Name: pwName, Device: pwDevice, MTU: x.pw})
	})
	s.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(s.tunnel) })
	s.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(s.session) })
	s.lcce.Link(pwDevice).Master(s.bridge)
}

// lan4 is the address of the site's host.
func (s *site) lan4() netip.Addr {
	if s.lcce.Name == "a" {
		return netip.MustParseAddr("10.0.0.1")
	}
	return netip.MustParseAddr("10.0.0.2")
}
