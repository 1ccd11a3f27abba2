package tcbpf

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// The layout of these tests: two sites joined by an underlay, a host behind each.
//
//	 host a              site a                     site b              host b
//	┌──────┐    ┌─────────────────────┐    ┌─────────────────────┐    ┌──────┐
//	│ eth0─┼────┼─lan─br0─pw-x   wan ─┼────┼─ wan   pw-x─br0─lan─┼────┼─eth0 │
//	└──────┘    └─────────────────────┘    └─────────────────────┘    └──────┘
//	10.0.0.1     192.0.2.1, 2001:db8::1     192.0.2.2, 2001:db8::2     10.0.0.2

// space is a network namespace with a thread of its own: what do runs, and the
// sockets it makes, are in it.
type space struct {
	t    testing.TB
	name string
	fd   netns.NsHandle
	jobs chan func()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: it makes network namespaces and loads programs")
	}
	t.Skip("needs root: it makes network namespaces and loads programs")
}

func newSpace(t testing.TB, name string) *space {
	t.Helper()
	s := &space{t: t, name: name, jobs: make(chan func())}
	ready := make(chan error)
	go s.work(func() (err error) { s.fd, err = netns.New(); return err }, ready)
	if err := <-ready; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(s.jobs)
		s.fd.Close()
	})
	s.do(func() {
		// The tests wait for no duplicate address detection.
		for _, which := range []string{"all", "default"} {
			must(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0))
		}
		must(t, setUp("lo"))
	})
	return s
}

// work enters the namespace and carries jobs out there.
func (s *space) work(enter func() error, ready chan<- error) {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	ready <- enter()
	all := false
	defer func() {
		if !all { // one ended its goroutine, as a test that fails does: others are to come
			go s.work(func() error { return netns.Set(s.fd) }, make(chan error, 1))
		}
	}()
	for job := range s.jobs {
		job()
	}
	all = true
}

// do runs f in the namespace and waits for it.
func (s *space) do(f func()) {
	s.t.Helper()
	done := make(chan any)
	s.jobs <- func() {
		var r any = "did not return"
		defer func() { done <- r }()
		f()
		r = nil
	}
	if r := <-done; r != nil {
		s.t.FailNow()
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, not %v", err, want)
	}
}

func index(t testing.TB, name string) int {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link.Attrs().Index
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// neighbour gives a link a neighbour.
func neighbour(t testing.TB, link string, addr netip.Addr, hardware [6]byte) {
	t.Helper()
	must(t, netlink.NeighSet(&netlink.Neigh{
		LinkIndex: index(t, link), IP: addr.AsSlice(), HardwareAddr: hardware[:], State: netlink.NUD_PERMANENT,
	}))
}

// wire joins two namespaces by a veth pair.
func wire(t testing.TB, a *space, aName string, b *space, bName string, mtu int) {
	t.Helper()
	a.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = aName, mtu
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU, veth.PeerNamespace = bName, uint32(mtu), netlink.NsFd(b.fd)
		must(t, netlink.LinkAdd(veth))
		must(t, setUp(aName))
	})
	b.do(func() { must(t, setUp(bName)) })
}

func address(t testing.TB, s *space, link, addr string) {
	t.Helper()
	s.do(func() {
		l, err := netlink.LinkByName(link)
		must(t, err)
		a, err := netlink.ParseAddr(addr)
		must(t, err)
		a.Flags |= 0x02 // IFA_F_NODAD
		must(t, netlink.AddrAdd(l, a))
	})
}

// setting is a test's choice of underlay and pseudowire.
type setting struct {
	v6      bool
	ip      bool // protocol 115 instead of UDP
	cookie  int
	mtu     int    // of the underlay, 1500
	lanMTU  int    // of LAN and pseudowire, 1500
	tagRoom int    // what the hosts may send beyond that, for tags
	vlanA   uint16 // Pseudowire.VLAN at each site
	vlanB   uint16
	bpfDir  string
	router  int  // MTU of the far half of an underlay with a router; 0 is none
	crossed bool // the hosts' ports are cross-connected
	tun     bool // an underlay without Ethernet headers
	arphrd  int  // its links' type, 0 is tun's
}

// site is one end.
type site struct {
	*space
	host *space
	dp   *Datapath
	opts Options

	crossed bool

	pw      pseudowire.Pseudowire
	tunnel  pseudowire.Tunnel
	session pseudowire.Session
}

const (
	tunnelName     = "gold/peer"
	pseudowireName = "x"
)

// newSites builds the layout, without datapaths.
func newSites(t testing.TB, set setting) (a, b *site) {
	t.Helper()
	needRoot(t)
	if set.mtu == 0 {
		set.mtu = 1500
	}
	if set.lanMTU == 0 {
		set.lanMTU = 1500
	}
	sites := [2]*site{}
	for i, name := range []string{"a", "b"} {
		s := &site{space: newSpace(t, "site "+name), host: newSpace(t, "host "+name)}
		sites[i] = s
		wire(t, s.space, "lan", s.host, "eth0", set.lanMTU+set.tagRoom)
		s.do(func() {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = "br0", set.lanMTU
			attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0xb0, byte(i)} // else it takes a port's
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
			must(t, setUp("br0"))
			enslave(t, "lan")
		})
		address(t, s.host, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1))
		address(t, s.host, "eth0", fmt.Sprintf("fd00::%d/64", i+1))
		s.pw = pseudowire.Pseudowire{Name: pseudowireName, Device: "pw-x", MTU: set.lanMTU, VLAN: [2]uint16{set.vlanA, set.vlanB}[i]}
		s.opts, s.crossed = Options{BPFDir: set.bpfDir}, set.crossed
		if os.Getenv("TCBPF_LOG") != "" {
			s.opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	a, b = sites[0], sites[1]
	addrs := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1701"), netip.MustParseAddrPort("192.0.2.2:1701")}
	if set.v6 {
		addrs = [2]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:1701"), netip.MustParseAddrPort("[2001:db8::2]:1701")}
	}
	joinSites(t, set, a.space, addrs[0].Addr(), b.space, addrs[1].Addr())
	cookies := [2][]byte{{1, 2, 3, 4, 5, 6, 7, 8}, {0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11}}
	for i, s := range sites {
		s.tunnel = pseudowire.Tunnel{
			Name: tunnelName, LocalID: uint32(100 + i), RemoteID: uint32(101 - i),
			Local: addrs[i], Remote: addrs[1-i], Socket: -1,
		}
		if set.ip {
			s.tunnel.Encapsulation = l2tpv3.IP
			s.tunnel.Local, s.tunnel.Remote = netip.AddrPortFrom(addrs[i].Addr(), 0), netip.AddrPortFrom(addrs[1-i].Addr(), 0)
		}
		s.session = pseudowire.Session{
			Tunnel: tunnelName, Pseudowire: pseudowireName,
			LocalID: uint32(0xa0000001 + i), RemoteID: uint32(0xa0000002 - i),
			LocalCookie: cookies[i][:set.cookie], RemoteCookie: cookies[1-i][:set.cookie],
			Transmit: true,
		}
	}
	return a, b
}

// joinSites joins the sites, by a link or by two with a router between them.
func joinSites(t testing.TB, set setting, a *space, addrA netip.Addr, b *space, addrB netip.Addr) {
	t.Helper()
	if set.router == 0 {
		if set.tun {
			wireTun(t, a, b, set.mtu, set.arphrd)
		} else {
			wire(t, a, "wan", b, "wan", set.mtu)
		}
		prefix := addrA.BitLen() * 3 / 4
		address(t, a, "wan", fmt.Sprintf("%v/%d", addrA, prefix))
		address(t, b, "wan", fmt.Sprintf("%v/%d", addrB, prefix))
		return
	}
	r := newSpace(t, "router")
	wire(t, a, "wan", r, "a", set.mtu)
	wire(t, b, "wan", r, "b", set.router)
	gateway := netip.MustParseAddr("192.0.2.254")
	if addrA.Is6() {
		gateway = netip.MustParseAddr("2001:db8::fe")
	}
	host := func(addr netip.Addr) string { return fmt.Sprintf("%v/%d", addr, addr.BitLen()) }
	onLink := func(s *space, link string, addr netip.Addr) {
		s.do(func() {
			dst, err := netlink.ParseIPNet(host(addr))
			must(t, err)
			must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: index(t, link), Dst: dst, Scope: netlink.SCOPE_LINK}))
		})
	}
	for _, end := range []struct {
		site *space
		link string
		addr netip.Addr
	}{{a, "a", addrA}, {b, "b", addrB}} {
		address(t, r, end.link, host(gateway))
		onLink(r, end.link, end.addr)
		address(t, end.site, "wan", host(end.addr))
		onLink(end.site, "wan", gateway)
		end.site.do(func() {
			_, all, err := net.ParseCIDR(map[bool]string{false: "0.0.0.0/0", true: "::/0"}[addrA.Is6()])
			must(t, err)
			must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: index(t, "wan"), Dst: all, Gw: gateway.AsSlice()}))
		})
	}
	r.do(func() {
		for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			must(t, os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0))
		}
	})
}

func enslave(t testing.TB, name string) {
	t.Helper()
	bridge, err := netlink.LinkByName("br0")
	must(t, err)
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetMaster(link, bridge))
	must(t, netlink.LinkSetUp(link))
}

// open opens the site's datapath.
func (s *site) open() {
	s.t.Helper()
	s.do(func() {
		dp, err := Open(s.opts)
		must(s.t, err)
		s.dp = dp
	})
	s.t.Cleanup(func() {
		if s.dp != nil {
			s.cleanup()
		}
	})
}

func (s *site) cleanup() {
	s.t.Helper()
	s.do(func() { must(s.t, s.dp.Cleanup()) })
	s.dp = nil
}

// set makes the site's pseudowire with its session, and a port of the bridge.
func (s *site) set() {
	s.t.Helper()
	s.do(func() {
		must(s.t, s.dp.SetPseudowire(s.pw))
		must(s.t, s.dp.SetTunnel(s.tunnel))
		must(s.t, s.dp.SetSession(s.session))
		enslave(s.t, s.pw.Device)
		if s.crossed {
			s.cross()
		}
	})
}

// cross cross-connects the pseudowire with the host's port. The bridge is down from then
// on: what takes the way over it is lost.
func (s *site) cross() {
	s.pw.Port, s.pw.PortVLAN = "lan", s.pw.VLAN
	must(s.t, s.dp.SetPseudowire(s.pw))
	br0, err := netlink.LinkByName("br0")
	must(s.t, err)
	must(s.t, netlink.LinkSetDown(br0))
}

// resolve refreshes until the site knows its neighbour.
func (s *site) resolve() {
	s.t.Helper()
	s.eventually("the neighbour is not resolved", func() bool {
		must(s.t, s.dp.Refresh())
		return s.dp.tunnels[tunnelName].path.resolved()
	})
}

// eventually polls what only the kernel knows when it happens.
func (s *space) eventually(what string, f func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for ok := false; !ok; {
		s.do(func() { ok = f() })
		if !ok && time.Now().After(deadline) {
			s.t.Fatalf("%s: %s", s.name, what)
		}
		if !ok {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// up brings both sites up.
func up(t testing.TB, set setting) (a, b *site) {
	t.Helper()
	a, b = newSites(t, set)
	a.open()
	b.open()
	a.set()
	b.set()
	a.resolve()
	b.resolve()
	return a, b
}

func (s *site) counters() pseudowire.Counters {
	s.t.Helper()
	var c pseudowire.Counters
	s.do(func() {
		all, err := s.dp.Counters()
		must(s.t, err)
		c = all[s.session.LocalID]
	})
	return c
}

func (s *site) global() map[string]uint64 {
	s.t.Helper()
	var m map[string]uint64
	s.do(func() {
		var err error
		m, err = s.dp.Global()
		must(s.t, err)
	})
	return m
}

// echo answers datapgrams on a host until the test ends.
func echo(t testing.TB, host *space, addr string) {
	t.Helper()
	var conn net.PacketConn
	host.do(func() {
		var err error
		conn, err = net.ListenPacket("udp", addr)
		must(t, err)
	})
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo(b[:n], from)
		}
	}()
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
