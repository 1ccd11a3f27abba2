package control

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// flooded is a site, hub, with three peers, and somebody who floods it with SCCRQs from
// addresses that he forges:
//
//	gold/dc2    a known address and a secret
//	silver/dc4  a known address, no secret
//	bronze/dc3  calls from anywhere, with a secret
type flooded struct {
	t    *testing.T
	now  time.Time
	hub  *Endpoint
	at   map[string]netip.Addr
	rand *rand.ChaCha8
	// forged counts, before each message of a peer's come many of them.
	forged uint64
	many   int
	host   func(i int) string
}

var hubAddr = netip.MustParseAddr("192.0.2.1")

func newFlooded(t *testing.T) *flooded {
	f := &flooded{
		t: t, now: epoch, rand: rand.NewChaCha8([32]byte{7}),
		at: map[string]netip.Addr{
			"gold/dc2": netip.MustParseAddr("192.0.2.2"), "silver/dc4": netip.MustParseAddr("192.0.2.4"), "bronze/dc3": netip.MustParseAddr("203.0.113.9"),
		},
	}
	f.hub = New(Config{Random: f.rand})
	for name, addr := range f.at {
		f.set(f.hub, f.tunnel(name, hubAddr, addr, true))
	}
	f.hub.tunnels["gold/dc2"].openAt, f.hub.tunnels["silver/dc4"].openAt = time.Time{}, time.Time{} // the peers call
	return f
}

func (f *flooded) set(e *Endpoint, c Tunnel) {
	f.t.Helper()
	if err := e.SetTunnel(f.now, c); err != nil {
		f.t.Fatal(err)
	}
}

// tunnel is one end's configuration of it.
func (f *flooded) tunnel(name string, local, remote netip.Addr, hub bool) Tunnel {
	short, site := name[:len(name)-4], name[len(name)-3:]
	c := Tunnel{
		Name: name, Local: local, Remote: remote, HostName: short + "." + site, PeerHostName: short + ".hub",
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet},
	}
	if hub {
		c.HostName, c.PeerHostName = c.PeerHostName, c.HostName
		if short == "bronze" {
			c.Remote = netip.Addr{}
		}
	}
	if short != "silver" {
		c.Secrets = [][]byte{[]byte("the secret of " + short)}
	}
	return c
}

// flood is what comes from nowhere, each from another address.
func (f *flooded) flood() {
	for range f.many {
		f.forged++
		i := uint32(f.forged)
		from := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16&1), byte(i >> 8), byte(i)})
		m := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.NewMessageDigest(l2tpv3.HMACMD5), l2tpv3.HostName(f.host(int(i))), l2tpv3.RouterID(i),
			l2tpv3.AssignedControlConnectionID(i), l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet}, l2tpv3.Nonce(binary.BigEndian.AppendUint64(nil, f.forged)))
		b, err := m.Append(nil)
		if err == nil {
			err = l2tpv3.Sign(b, nil, nil, guess)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		f.hub.Receive(f.now, Datagram{Path{Local: netip.AddrPortFrom(hubAddr, 1701), Remote: netip.AddrPortFrom(from, 1701)}, b})
	}
}

var guess = l2tpv3.NewSecret([]byte("a guess"))

// call has a peer open its tunnel anew, from an address, and carries what they say
// to each other until they have nothing more to say. No time passes. Before each
// message of the peer's comes a part of the flood.
func (f *flooded) call(name string, from netip.Addr) {
	f.t.Helper()
	peer := New(Config{Random: f.rand})
	f.set(peer, f.tunnel(name, from, hubAddr, false))
	peer.tunnels[name].open()
	peer.settle()
	port := uint16(1024 + f.rand.Uint64()%60000)
	ends := [2]netip.AddrPort{netip.AddrPortFrom(from, port), netip.AddrPortFrom(hubAddr, 1701)}
	for talk := true; talk; {
		talk = false
		for i, e := range []*Endpoint{peer, f.hub} {
			for o, ok := e.Next(); ok; o, ok = e.Next() {
				m, is := o.(*Transmit)
				if !is || m.Path.Remote.Addr() != ends[1-i].Addr() {
					continue
				}
				talk = true
				d := Datagram{Path{Local: ends[1-i], Remote: ends[i]}, m.Payload}
				if i == 0 {
					f.flood()
					f.hub.Receive(f.now, d)
				} else {
					peer.Receive(f.now, d)
				}
			}
		}
	}
	for _, e := range []*Endpoint{peer, f.hub} {
		for _, c := range e.Connections() {
			if c.Tunnel.Name == name && c.State != ConnectionEstablished {
				f.t.Errorf("%s called from %v under a flood: %v, %s; %v", name, from, c.State, c.Reason, f.hub.Counters())
			}
		}
	}
}

// bounded looks at what the hub remembers of strangers.
func (f *flooded) bounded() {
	f.t.Helper()
	e := f.hub
	if n := len(e.connections); n > len(f.at)*(2+maxEnded) {
		f.t.Errorf("%d connections", n)
	}
	if n := len(e.requests); n > len(e.connections) {
		f.t.Errorf("%d requests", n)
	}
	if n := len(e.callers.sources); n > strangers+namedStrangers+len(f.at) {
		f.t.Errorf("%d sources", n)
	}
	if n := len(e.alarms); n > len(e.connections)+len(e.tunnels) {
		f.t.Errorf("%d alarms", n)
	}
}

// TestForgedSources: ten thousand SCCRQs from as many addresses between any two
// messages of a peer do not keep it out for a moment, whether its address is known or
// not; what they cost is bounded, and each is counted.
func TestForgedSources(t *testing.T) {
	f := newFlooded(t)
	f.many = 10_000
	f.host = func(i int) string { return fmt.Sprintf("gold.dc%d", i) }
	f.flood()
	want := map[string]uint64{"received": 10_000, "unauthenticated": strangers, "limited-stranger": 10_000 - strangers, "limited-source": 0, "unknown-peer": 0}
	for name, n := range want {
		if got := f.hub.Counters()[name]; got != n {
			t.Errorf("%s: %d, want %d", name, got, n)
		}
	}
	for _, name := range []string{"silver/dc4", "gold/dc2", "bronze/dc3"} {
		f.call(name, f.at[name])
	}
	f.bounded()

	// Who knows the names can use up what is tried by name. Peers of known addresses do
	// not mind, nor does one that calls from where it has called before.
	f.host = func(int) string { return "bronze.dc3" }
	f.now = f.now.Add(2 * time.Second)
	before := f.hub.Counters()
	f.flood()
	after := f.hub.Counters()
	if got := after["unauthenticated"] - before["unauthenticated"]; got != namedStrangers {
		t.Errorf("%d were tried by name, want %d", got, namedStrangers)
	}
	if got := after["limited-stranger"] - before["limited-stranger"]; got != 10_000-namedStrangers {
		t.Errorf("%d were not tried, want %d", got, 10_000-namedStrangers)
	}
	for _, name := range []string{"gold/dc2", "bronze/dc3"} {
		f.call(name, f.at[name])
	}
	f.bounded()
	c := f.hub.Counters()
	if sum := c["unauthenticated"] + c["limited-stranger"] + c["limited-source"] + c["unknown-peer"]; sum != f.forged {
		t.Errorf("%d of %d forged requests are counted: %v", sum, f.forged, c)
	}
	if c["limited-source"]+c["refused-request"]+c["limited-request"] != 0 {
		t.Errorf("%v", c)
	}

	// What is over a budget leaves no garbage.
	b := Datagram{Path{Local: netip.AddrPortFrom(hubAddr, 1701), Remote: addrPort("198.51.100.1:1701")}, nil}
	m, err := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.HostName("bronze.dc3"), l2tpv3.AssignedControlConnectionID(1)).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Payload = m
	if n := testing.AllocsPerRun(100, func() { f.hub.Receive(f.now, b) }); n != 0 {
		t.Errorf("%v allocations for one that is not looked at", n)
	}
}

// TestPeekHostName: it finds what the parser finds, in what may be anything.
func TestPeekHostName(t *testing.T) {
	m := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.RouterID(1), l2tpv3.HostName("gold.dc2"), l2tpv3.AssignedControlConnectionID(1))
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(peekHostName(b)); got != "gold.dc2" {
		t.Errorf("%q", got)
	}
	for n := range b {
		_ = peekHostName(b[:n])
	}
	far := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.VendorName(make([]byte, 1000)), l2tpv3.HostName("gold.dc2"))
	if b, err = far.Append(nil); err != nil {
		t.Fatal(err)
	}
	if got := peekHostName(b); got != nil {
		t.Errorf("%q is found out of reach", got)
	}
	for n := range 64 { // lengths that lie
		bad := append([]byte(nil), b[:40]...)
		bad[12], bad[13] = byte(n>>2), byte(n*37)
		_ = peekHostName(bad)
	}
}
