package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// waitsForDC2 makes dc1's end one that does not know where dc2 is.
func waitsForDC2(t *Tunnel) {
	withSecret(t)
	if t.Peer == "dc2" {
		t.Remote = netip.Addr{}
	}
}

// TestDynamic: a peer without a fixed address calls, gets another address, and calls again from there.
func TestDynamic(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", waitsForDC2)
	n.tunnel("silver", waitsForDC2, func(t *Tunnel) { t.Hide = true })
	n.session("gold", "tenant-a")
	n.session("silver", "tenant-b")
	n.start()
	if !n.until(5*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	dc1, dc2 := n.hosts[0], n.hosts[1]
	for i, addr := range []string{"198.51.100.7", "203.0.113.9", "192.0.2.2"} {
		dc2.addr = netip.MustParseAddr(addr)
		there := func() bool {
			for _, c := range dc1.e.Connections() {
				if c.Path.Remote.Addr() != dc2.addr {
					return false
				}
			}
			return n.up()
		}
		if i == 1 { // its daemon is started anew with the address
			dc2.forget()
			dc2.start()
		}
		if !n.until(3*time.Minute, there) {
			t.Fatalf("at %s: %s", addr, n.disagreement())
		}
	}
	// After a restart of the daemon that waits, the connections are as they were.
	ids := func() (all [2]uint32) {
		for i, c := range dc1.e.Connections() {
			all[i] = c.LocalID
		}
		return all
	}
	before := ids()
	dc1.start()
	n.run(2 * time.Minute)
	if !n.up() || ids() != before {
		t.Errorf("after a restart: %s; connections %d, want %d", n.disagreement(), ids(), before)
	}
}

// TestDynamicCallsAgainAtOnce: who begins anew because its own address has changed waits for nobody,
// as nobody knows where to call it.
func TestDynamicCallsAgainAtOnce(t *testing.T) {
	for _, local := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.2")} {
		e := New(Config{Random: rand.NewChaCha8([32]byte{1})})
		cfg := Tunnel{
			Name: "gold/dc1", Local: local, Remote: netip.MustParseAddr("192.0.2.1"), HostName: "gold.dc2", PeerHostName: "gold.dc1",
			Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet},
		}
		now := epoch
		set := func() {
			if err := e.SetTunnel(now, cfg); err != nil {
				t.Fatal(err)
			}
		}
		set()
		now = now.Add(2 * time.Second)
		e.Advance(now)
		e.RemoveTunnel(now, cfg.Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
		requests(e)
		set()
		if n := requests(e); n != 0 == local.IsValid() {
			t.Errorf("with the address %v it has called %d times at once", local, n)
		}
	}
}

// requests is how many SCCRQs are to leave; it takes all outputs.
func requests(e *Endpoint) (n int) {
	for out, ok := e.Next(); ok; out, ok = e.Next() {
		if x, sends := out.(*Transmit); sends {
			m, err := l2tpv3.Parse(x.Payload)
			if err != nil {
				continue
			}
			if kind, _ := m.Type(); kind == l2tpv3.SCCRQ {
				n++
			}
		}
	}
	return n
}

// TestResend: a request that has not left this host leaves again when its owner says so, and waits for no
// timer; a tunnel that asks for nothing has nothing to repeat.
func TestResend(t *testing.T) {
	e := New(Config{Random: rand.NewChaCha8([32]byte{1})})
	cfg := Tunnel{
		Name: "gold/dc1", Remote: netip.MustParseAddr("192.0.2.1"), HostName: "gold.dc2", PeerHostName: "gold.dc1",
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet},
	}
	if err := e.SetTunnel(epoch, cfg); err != nil {
		t.Fatal(err)
	}
	now := epoch
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"before it has called", func() { e.Resend(now, cfg.Name) }, 0},
		{"it calls", func() { now = now.Add(2 * time.Second); e.Advance(now) }, 1},
		{"nothing happens", func() { e.Advance(now) }, 0},
		{"again", func() { e.Resend(now, cfg.Name) }, 1},
		{"one that is not there", func() { e.Resend(now, "silver/dc1") }, 0},
		{"nobody answers until it gives up", func() {
			for e.Attempt(cfg.Name) != 0 {
				now, _ = e.Deadline()
				e.Advance(now)
			}
			requests(e)
		}, 0},
		{"it calls anew", func() { e.Resend(now, cfg.Name) }, 1},
		{"once removed", func() {
			e.RemoveTunnel(now, cfg.Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
			e.Resend(now, cfg.Name)
		}, 0},
	} {
		step.do()
		if n := requests(e); n != step.want {
			t.Errorf("%s: %d requests, want %d", step.what, n, step.want)
		}
	}
}

// TestDynamicStrangers: from unknown addresses only SCCRQs are looked at, so many
// at a time, and only a good digest makes any difference.
func TestDynamicStrangers(t *testing.T) {
	e := New(Config{Random: rand.NewChaCha8([32]byte{1})})
	now := epoch
	if err := e.SetTunnel(now, Tunnel{
		Name: "gold/dc3", Local: netip.MustParseAddr("192.0.2.1"), HostName: "gold.dc1", PeerHostName: "gold.dc3",
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet}, Secrets: [][]byte{[]byte("s3cret")},
	}); err != nil {
		t.Fatal(err)
	}
	sign := func(secret string, nonce byte) []byte {
		m := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.NewMessageDigest(l2tpv3.HMACMD5), l2tpv3.HostName("gold.dc3"), l2tpv3.RouterID(3),
			l2tpv3.AssignedControlConnectionID(77), l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet}, l2tpv3.Nonce(bytes.Repeat([]byte{nonce}, 16)))
		b, err := m.Append(nil)
		if err == nil {
			err = l2tpv3.Sign(b, nil, nil, l2tpv3.NewSecret([]byte(secret)))
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	from := addrPort("198.51.100.7:4321")
	receive := func(b []byte) {
		e.Receive(now, Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: from}, Payload: b})
	}
	answers := func() (n int) {
		for o, ok := e.Next(); ok; o, ok = e.Next() {
			if _, is := o.(*Transmit); is {
				n++
			}
		}
		return n
	}
	answers()
	forged := sign("guess", 1)
	for range 1000 {
		receive(forged)
	}
	if c := e.Counters(); answers() != 0 || c["unauthenticated"] != fromSource || c["limited-source"] != 1000-fromSource ||
		c["limited-stranger"]+c["unknown-peer"]+c["limited-request"] != 0 {
		t.Errorf("after a flood: %v", c)
	}
	// From elsewhere the peer itself gets through at once.
	from = addrPort("203.0.113.9:4321")
	receive(sign("s3cret", 2))
	if answers() != 1 || e.Connections()[0].State != ConnectionWaitConnect {
		t.Errorf("the peer got no answer: %v", e.Counters())
	}
}

// TestCallers: a source has its own limit, beside that of all; what is refused uses
// up neither. No more sources are remembered than all may try.
func TestCallers(t *testing.T) {
	var c callers
	var known, named bool
	now := epoch
	try := func(times int, address func(i int) string) (counts [counters]int, admitted int) {
		for i := range times {
			if limit, ok := c.admit(now, time.Second, caller{netip.MustParseAddr(address(i)), known, named}); ok {
				admitted++
			} else {
				counts[limit]++
			}
		}
		return counts, admitted
	}
	check := func(what string, times int, address func(i int) string, admitted, source, stranger int) {
		t.Helper()
		counts, n := try(times, address)
		if n != admitted || counts[countLimitedSource] != source || counts[countLimitedStranger] != stranger {
			t.Errorf("%s: %d admitted, limited by source %d, by all %d; want %d, %d, %d",
				what, n, counts[countLimitedSource], counts[countLimitedStranger], admitted, source, stranger)
		}
		if len(c.sources) > strangers+namedStrangers+1 {
			t.Errorf("%s: %d sources", what, len(c.sources))
		}
	}
	always := func(a string) func(int) string { return func(int) string { return a } }
	check("one address", 1000, always("198.51.100.7"), fromSource, 1000-fromSource, 0)
	check("a /64", 1000, func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }, fromSource, 1000-fromSource, 0)
	check("another /64", 1, always("2001:db8:0:1::1"), 1, 0, 0)
	check("another address", 1, always("203.0.113.9"), 1, 0, 0)
	left := strangers - 2*fromSource - 2
	check("many addresses", 200, func(i int) string { return fmt.Sprintf("198.18.0.%d", i) }, left, 0, 200-left)
	check("the first again", 1, always("198.51.100.7"), 0, 1, 0)
	known = true
	check("a peer's address", 10, always("192.0.2.2"), fromSource, 10-fromSource, 0)
	known, named = false, true
	check("many with a peer's name", 2000, func(i int) string { return fmt.Sprintf("198.19.%d.%d", i/200, i%200) }, namedStrangers, 0, 2000-namedStrangers)
	named = false
	now = now.Add(time.Second)
	check("the next interval", 10, always("198.51.100.7"), fromSource, 10-fromSource, 0)
	now = now.Add(-time.Hour)
	check("a clock set back", 1, always("198.51.100.7"), 1, 0, 0)
}

// TestDynamicForgedAddress: who forges the address of a known peer gets no more
// digests verified than a stranger, and that peer itself is not kept out.
func TestDynamicForgedAddress(t *testing.T) {
	e := New(Config{Random: rand.NewChaCha8([32]byte{1})})
	now := epoch
	known := addrPort("192.0.2.2:4321")
	for name, x := range map[string]struct {
		remote netip.Addr
		secret string
	}{"gold/dc2": {known.Addr(), "known"}, "gold/dc3": {netip.Addr{}, "s3cret"}} {
		if err := e.SetTunnel(now, Tunnel{
			Name: name, Local: netip.MustParseAddr("192.0.2.1"), Remote: x.remote, HostName: "gold.dc1", PeerHostName: "gold." + name[5:],
			Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet}, Secrets: [][]byte{[]byte(x.secret)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	id := uint32(77)
	receive := func(host, secret string) {
		id++
		m := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.NewMessageDigest(l2tpv3.HMACMD5), l2tpv3.HostName(host), l2tpv3.RouterID(3),
			l2tpv3.AssignedControlConnectionID(id), l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet}, l2tpv3.Nonce(binary.BigEndian.AppendUint32(nil, id)))
		b, err := m.Append(nil)
		if err == nil {
			err = l2tpv3.Sign(b, nil, nil, l2tpv3.NewSecret([]byte(secret)))
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Receive(now, Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: known}, Payload: b})
	}
	states := func() (all [2]ConnectionState) {
		for i, c := range e.Connections() {
			all[i] = c.State
		}
		return all
	}
	for range strangers {
		receive("gold.dc3", "guess")
	}
	receive("gold.dc3", "s3cret") // for now it is too late for
	if got := states(); got != [2]ConnectionState{} {
		t.Fatalf("states %v after a flood", got)
	}
	receive("gold.dc2", "known")
	if got := states(); got != [2]ConnectionState{ConnectionWaitConnect, ConnectionIdle} {
		t.Errorf("states %v, the known peer was kept out", got)
	}
	now = now.Add(time.Second)
	receive("gold.dc3", "s3cret")
	if got := states(); got != [2]ConnectionState{ConnectionWaitConnect, ConnectionWaitConnect} {
		t.Errorf("states %v, the one that calls from anywhere was kept out", got)
	}
}

// TestHideFromNobody: an attempt that ends before the peer has answered is known to
// the peer by its Assigned Control Connection ID alone, which it has to be able to read.
func TestHideFromNobody(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret, func(t *Tunnel) { t.Hide = true })
	h := n.hosts[0]
	h.start()
	n.run(1500 * time.Millisecond)
	var ended bool
	n.trace = func(_ *host, d Datagram) {
		m, err := l2tpv3.Parse(d.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if kind, _ := m.Type(); kind == l2tpv3.StopCCN {
			id, clear := l2tpv3.Find[l2tpv3.AssignedControlConnectionID](m)
			ended = clear && id != 0
		}
	}
	h.e.RemoveTunnel(n.now, h.tunnels[0].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
	h.drain()
	if !ended {
		t.Error("no StopCCN with a readable Assigned Control Connection ID")
	}
}

// TestHide: with a secret and Hide, nothing that may be hidden leaves in the clear (Section
// 5.3), and the peer reads it; while secrets are replaced on both ends, too, one after the other.
func TestHide(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret, func(t *Tunnel) { t.Hide = true })
	n.session("gold", "tenant-a")
	hidden, clear := 0, 0
	lengths := map[int]bool{}
	n.trace = func(_ *host, d Datagram) {
		m, err := l2tpv3.Parse(d.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range m.AVPs {
			if r, ok := a.(l2tpv3.RawAVP); ok && r.Hidden {
				hidden++
				lengths[len(r.Value)%paddingTo] = true
			} else if mayHide(a) {
				clear++
			}
		}
	}
	n.start()
	if !n.until(3*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	if hidden == 0 || clear != 0 || len(lengths) != 1 {
		t.Errorf("%d hidden, %d in the clear, lengths %v", hidden, clear, lengths)
	}
	before := n.hosts[0].e.Connections()[0].LocalID
	was, is := []byte("s3cret"), []byte("n3w")
	for _, step := range []struct {
		host    int
		secrets [][]byte
	}{
		{0, [][]byte{is, was}}, {1, [][]byte{is, was}}, {0, [][]byte{is}}, {1, [][]byte{is}},
	} {
		h := n.hosts[step.host]
		h.tunnels[0].Secrets = step.secrets
		h.apply()
		h.drain()
		n.run(30 * time.Second) // a HELLO and more
		clear = 0
		for _, h := range n.hosts { // signalled anew, with whatever can be hidden
			h.e.RemoveSession(n.now, h.tunnels[0].Name, "tenant-a", l2tpv3.ResultCode{Result: l2tpv3.CDNAdministrative})
		}
		for _, h := range n.hosts {
			h.apply()
			h.drain()
		}
		if !n.until(time.Minute, n.up) || clear != 0 {
			t.Fatalf("dc%d with %q: %s; %d in the clear", step.host+1, step.secrets, n.disagreement(), clear)
		}
	}
	if now := n.hosts[0].e.Connections()[0].LocalID; now != before {
		t.Errorf("the connection is another one: %d, was %d", now, before)
	}
}

// TestCookiesUnderWay: whatever the network and the daemons do, what one end's data
// plane sends carries a cookie that the other's accepts, now and ten seconds on.
func TestCookiesUnderWay(t *testing.T) {
	for seed := range uint64(20) {
		n := newNetwork(t, seed)
		n.tunnel("gold")
		n.session("gold", "tenant-a", func(s *Session) { s.CanChangeCookies = true })
		for _, h := range n.hosts {
			h.start()
			h.e.cfg.VendorName = "pwd test"
		}
		if !n.until(10*time.Second, n.up) {
			t.Fatal(n.disagreement())
		}
		n.loss, n.duplication = 0.2, 0.1
		n.delay = func() time.Duration { return time.Duration(n.rand.IntN(300)) * time.Millisecond }
		r := rand.New(rand.NewPCG(seed, 5))
		changes := 0
		for range 4000 {
			n.run(50 * time.Millisecond)
			for _, h := range n.hosts {
				checkCookies(t, h)
			}
			h := n.hosts[r.IntN(2)]
			switch {
			case r.IntN(100) == 0:
				err := h.e.ChangeCookie(n.now, h.tunnels[0].Name, "tenant-a")
				switch {
				case err == nil:
					changes++
				case !errors.Is(err, ErrChanging) && !errors.Is(err, ErrNotEstablished):
					t.Fatal(err)
				}
				h.drain()
			case r.IntN(400) == 0:
				h.start() // with what it has saved
				h.e.cfg.VendorName = "pwd test"
			}
		}
		n.loss, n.duplication = 0, 0
		n.run(5 * time.Minute)
		if !n.up() || changes < 5 {
			t.Fatalf("seed %d: %s, %d changes", seed, n.disagreement(), changes)
		}
		for _, h := range n.hosts {
			for _, s := range h.e.Sessions() {
				if s.ChangingCookie {
					t.Errorf("seed %d: %s is still changing its cookie", seed, h.name)
				}
			}
		}
	}
}

func checkCookies(t *testing.T, h *host) {
	t.Helper()
	for _, d := range h.data {
		if p, ok := h.peer.data[d.RemoteID]; ok && d.Transmit && p.RemoteID == d.LocalID &&
			!bytes.Equal(d.RemoteCookie, p.LocalCookie) && !bytes.Equal(d.RemoteCookie, p.PreviousCookie) {
			t.Fatalf("%s sends %x; %s accepts %x and %x", h.name, d.RemoteCookie, h.peer.name, p.LocalCookie, p.PreviousCookie)
		}
	}
}

// TestChangeCookieRefused: what it says where it cannot be.
func TestChangeCookieRefused(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	n.session("gold", "tenant-a")
	n.session("gold", "tenant-b", func(s *Session) { s.CookieLength = 0 })
	n.session("gold", "tenant-c", func(s *Session) { s.CanChangeCookies = true })
	n.start()
	if !n.until(10*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	e, tunnel := n.hosts[0].e, n.hosts[0].tunnels[0].Name
	for name, want := range map[string]error{"tenant-a": ErrCannotChange, "tenant-b": ErrNoCookie, "tenant-c": ErrPeerCannot, "tenant-d": ErrNotEstablished} {
		if err := e.ChangeCookie(n.now, tunnel, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// TestCiscoNumbers: two ends that call each other with the numbers of before RFC 3931
// come up, whoever wins, with digests, and say nothing under a number that was not there.
func TestCiscoNumbers(t *testing.T) {
	for seed := range uint64(20) {
		n := newNetwork(t, seed)
		n.loss = 0.2
		n.tunnel("gold", withSecret, func(t *Tunnel) { t.Numbers, t.Hide = l2tpv3.CiscoNumbers, true })
		n.session("gold", "tenant-a")
		n.trace = func(h *host, d Datagram) {
			m, err := l2tpv3.Parse(d.Payload)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range m.AVPs {
				switch a.AVPType() {
				case l2tpv3.AVPMessageDigest, l2tpv3.AVPNonce, l2tpv3.AVPAssignedControlConnectionID, l2tpv3.AVPPseudowireCapabilities,
					l2tpv3.AVPLocalSessionID, l2tpv3.AVPRemoteSessionID, l2tpv3.AVPRemoteEndID, l2tpv3.AVPPseudowireType, l2tpv3.AVPCircuitStatus:
					t.Errorf("seed %d: %s sent %v under its standard number in %s", seed, h.name, a, describe(d.Payload))
				}
			}
		}
		n.start()
		if !n.until(2*time.Minute, n.up) {
			t.Fatalf("seed %d: %s", seed, n.disagreement())
		}
		for _, h := range n.hosts {
			if c := h.e.Connections()[0]; c.PeerNumbers != l2tpv3.CiscoNumbers || !c.Authenticated {
				t.Errorf("seed %d: %s: numbers %d, authenticated %v", seed, h.name, c.PeerNumbers, c.Authenticated)
			}
		}
	}
}
