//go:build vm

package datapath

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/l2tpeth"
	"github.com/pwd-project/pwd/pkg/pseudowire/mssclamp"
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
	// encapsulation, sublayer and sequencing are those of both directions.
	encapsulation l2tpv3.Encapsulation
	sublayer      l2tpv3.L2SpecificSublayer
	sequencing    l2tpv3.DataSequencing
	// noChecksum has a static end send UDP datagrams without checksums.
	noChecksum bool
	// checksum has an end of the eBPF datapath send them with checksums.
	checksum bool
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

	addr netip.Addr

	*shared
}

// shared is the part of a site that subtests and goroutines share.
type shared struct {
	kind    pseudowire.Kind
	tr      *transport.Transport
	session pseudowire.Session
	tunnel  pseudowire.Tunnel
	// setups counts sessions: each setup is to have its own.
	setups uint32

	mu sync.Mutex          // a datapath belongs to one goroutine at a time
	dp pseudowire.Datapath // nil at a static end
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
	a.tunnel.LocalID, a.tunnel.RemoteID = 11, 22
	b.tunnel.LocalID, b.tunnel.RemoteID = 22, 11
	a.open(s.kinds[0])
	b.open(s.kinds[1])
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
	for _, end := range [][2]*site{{s, peer}, {peer, s}} {
		if y, other := end[0], end[1]; y.kind == static {
			y.carryStatic(other, x)
		} else {
			if y.tunnel.Name == "" || y.tunnel.Encapsulation != x.encapsulation {
				y.bind(other, x.encapsulation)
			}
			y.carry(x)
		}
	}
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
	if s.kind != static {
		s.must("refresh", func(dp pseudowire.Datapath) error { return dp.Refresh() })
	}
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
	s.bridge = s.lcce.SilentBridge("br0", port.Silent().MTU(9000))
	port.Up()
	return s
}

// open opens the site's datapath, and sockets for its control connections.
func (s *site) open(kind pseudowire.Kind) {
	s.t.Helper()
	s.kind = kind
	if kind == static {
		return
	}
	if s.tr == nil {
		s.openTransport()
	}
	var dp pseudowire.Datapath
	err := s.lcce.Do(func() (err error) {
		if kind == pseudowire.Kernel {
			kernel, err := l2tpeth.Open(l2tpeth.Options{})
			if err != nil {
				return err
			}
			dp, err = mssclamp.Wrap(kernel, mssclamp.Options{})
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

func (s *site) openTransport() {
	s.t.Helper()
	var err error
	if s.tr, err = transport.Open(transport.Options{}); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go s.read(s.tr, done)
	s.t.Cleanup(func() { s.tr.Close(); <-done })
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

// bind gives the control connection a new socket of its own, in place of the one it has.
func (s *site) bind(peer *site, e l2tpv3.Encapsulation) {
	s.t.Helper()
	s.tunnel.Name = "t/" + peer.lcce.Name
	s.connect(&s.tunnel, peer, e, l2tpv3.Port)
}

// connect gives a tunnel a socket that is connected to the peer's, from a port over UDP.
func (s *site) connect(t *pseudowire.Tunnel, peer *site, e l2tpv3.Encapsulation, port uint16) {
	s.t.Helper()
	local, remote := netip.AddrPortFrom(s.addr, 0), netip.AddrPortFrom(peer.addr, 0)
	if e == l2tpv3.UDP {
		local, remote = netip.AddrPortFrom(s.addr, port), netip.AddrPortFrom(peer.addr, l2tpv3.Port)
	}
	s.connectTo(t, e, local, remote)
}

// connectTo gives a tunnel a socket between two addresses.
func (s *site) connectTo(t *pseudowire.Tunnel, e l2tpv3.Encapsulation, local, remote netip.AddrPort) {
	s.t.Helper()
	t.Encapsulation = e
	err := s.lcce.Do(func() (err error) {
		err = s.tr.Restore(transport.State{Connections: []transport.ConnectionState{{
			Connection: t.LocalID, Initiator: true, Encapsulation: e, Local: local, Remote: remote, Connected: true,
		}}})
		if err != nil {
			return err
		}
		t.Local, t.Remote, _ = s.tr.Path(t.LocalID)
		if t.Socket = -1; e == l2tpv3.UDP || s.kind == kernel {
			t.Socket, err = s.tr.Socket(t.LocalID)
		}
		return err
	})
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
}

// read gives the datapath the data packets that reach the sockets, as the daemon does.
func (s *site) read(tr *transport.Transport, done chan struct{}) {
	defer close(done)
	for range tr.Ready() {
		p, ok := tr.Take()
		if !ok || p.Control {
			continue
		}
		s.mu.Lock()
		if dp := s.dp; dp != nil {
			s.lcce.Do(func() error { dp.Deliver(p.Path.Remote, p.Payload); return nil })
		}
		s.mu.Unlock()
	}
}

// cookie of length octets that site id's peer has to send.
func cookie(id uint32, length int) []byte {
	c := []byte{0xc0, 0x0c, 0x1e, byte(id), 0xa5, 0x5a, 0x01, 0xfe}
	return c[:length]
}

// carry sets tunnel, pseudowire and session, and puts the device into the bridge.
func (s *site) carry(x setup) {
	s.t.Helper()
	s.session = s.sessionOf(x)
	var data []uint32
	if s.kind == ebpf {
		data = []uint32{s.session.LocalID}
	}
	if err := s.lcce.Do(func() error { return s.tr.SetDataSessions(data) }); err != nil {
		s.t.Fatal(err)
	}
	s.tunnel.Checksum = x.checksum
	s.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(s.tunnel) })
	s.must("set pseudowire", func(dp pseudowire.Datapath) error {
		return dp.SetPseudowire(pseudowire.Pseudowire{Name: pwName, Device: pwDevice, MTU: x.pw})
	})
	s.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(s.session) })
	s.lcce.Link(pwDevice).Master(s.bridge)
}

// sessionOf is the session of a setup at this site, a new one: its IDs are those of
// the control connection and how many there have been.
func (s *site) sessionOf(x setup) pseudowire.Session {
	local, remote := s.tunnel.LocalID, s.tunnel.RemoteID
	s.setups++
	base := s.setups << 16
	return pseudowire.Session{
		Tunnel: s.tunnel.Name, Pseudowire: pwName,
		LocalID: base + local, RemoteID: base + remote,
		LocalCookie: cookie(local, x.cookie), RemoteCookie: cookie(remote, x.cookie),
		ReceiveSublayer: x.sublayer, TransmitSublayer: x.sublayer,
		ReceiveSequencing: x.sequencing, TransmitSequencing: x.sequencing,
		Transmit: true,
	}
}

// lan4 is the address of the site's host.
func (s *site) lan4() netip.Addr {
	if s.lcce.Name == "a" {
		return netip.MustParseAddr("10.0.0.1")
	}
	return netip.MustParseAddr("10.0.0.2")
}
