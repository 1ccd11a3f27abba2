package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// patience is how long something that has to come may take on a busy machine.
const patience = 20 * time.Second

// addresses are where the daemon under test and the client are.
type addresses struct {
	dut, client netip.Addr
	prefix      string
}

var (
	ipv4 = addresses{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), "/24"}
	ipv6 = addresses{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), "/64"}
)

// port is that of L2TP (RFC 3931, Section 4.1.2.2).
const port = 1701

// client is the peer's host: sockets, and all that came and went through them. Over IP
// (Section 4.1.1) there is one socket and no ports, all of which are 0 then.
type client struct {
	t  *testing.T
	ns *netlab.Namespace

	mu      sync.Mutex
	log     []packet
	inbox   []*packet // received and not taken yet
	changed chan struct{}
	sockets []*socket
	readers sync.WaitGroup
	lastID  uint32
	// secret is the tunnels', empty for none; algorithm is of the client's digests.
	secret    string
	algorithm algorithm
	nonces    byte
	// frames may come as data, see session.receives.
	frames [][]byte
	// overIP says that L2TP is directly over IP.
	overIP bool
	addresses
}

// packet is one datagram, of the client's own if sent is set. Over IP the payload is as it
// would be over UDP: see onIP.
type packet struct {
	at      time.Time
	sent    bool
	socket  *socket
	remote  netip.AddrPort
	payload []byte
	// m is what a received control message says.
	m message
}

func (p *packet) isControl() bool {
	return len(p.payload) >= 2 && binary.BigEndian.Uint16(p.payload)&controlBit != 0
}

// socket is one of the client's.
type socket struct {
	c     *client
	conn  net.PacketConn
	local netip.AddrPort
}

// newClient makes a client that judges, when the test ends, every control message
// that it got. A test that failed shows what came and went.
func newClient(t *testing.T, ns *netlab.Namespace, at addresses) *client {
	c := &client{t: t, ns: ns, addresses: at, changed: make(chan struct{}), lastID: 0x11000000}
	t.Cleanup(func() {
		for _, s := range c.sockets {
			s.conn.Close()
		}
		c.readers.Wait()
		for _, p := range c.log {
			switch {
			case p.sent:
			case p.isControl():
				for _, fault := range judge(p.payload) {
					t.Errorf("%v\n%s", fault, describe(p.payload))
				}
			case !slices.ContainsFunc(c.frames, func(f []byte) bool { return bytes.HasSuffix(p.payload, f) }):
				t.Errorf("data that was not to come: %x", p.payload)
			}
		}
		if t.Failed() {
			t.Logf("what came (<) and went (>):\n%s", c.transcript())
		}
	})
	return c
}

// transcript lists all packets, with the time since the first. A row of copies is one line.
func (c *client) transcript() string {
	var b strings.Builder
	copies, last := 0, ""
	for _, p := range c.log {
		way := "<"
		if p.sent {
			way = ">"
		}
		line := fmt.Sprintf("%d %s %d %s", p.socket.local.Port(), way, p.remote.Port(), describe(p.payload))
		if line == last {
			copies++
			continue
		}
		if copies > 0 {
			fmt.Fprintf(&b, "%8s and %d copies of it\n", "", copies)
		}
		copies, last = 0, line
		fmt.Fprintf(&b, "%8.3f %s\n", p.at.Sub(c.log[0].at).Seconds(), line)
	}
	if copies > 0 {
		fmt.Fprintf(&b, "%8s and %d copies of it\n", "", copies)
	}
	return b.String()
}

// newID gives identifiers, of control connections and sessions, that nobody had before.
func (c *client) newID() uint32 {
	c.lastID++
	return c.lastID
}

// nonce gives one that nobody had before.
func (c *client) nonce() []byte {
	c.nonces++
	return bytes.Repeat([]byte{c.nonces}, 16)
}

// listen opens a socket on a port, 0 for any that is free.
func (c *client) listen(port uint16) *socket {
	c.t.Helper()
	s := &socket{c: c}
	network, address := "udp", netip.AddrPortFrom(c.addresses.client, port).String()
	if c.overIP {
		network, address = "ip:115", c.addresses.client.String()
	}
	err := c.ns.Do(func() (err error) {
		s.conn, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		c.t.Fatalf("open the client's socket: %v", err)
	}
	if udp, ok := s.conn.(*net.UDPConn); ok && c.dut.Is6() {
		takeWithoutChecksum(c.t, udp)
	}
	s.local = addrPort(s.conn.LocalAddr())
	c.sockets = append(c.sockets, s)
	c.readers.Go(s.read)
	return s
}

// takeWithoutChecksum has a socket over IPv6 take datagrams without checksums, as data
// between two sites may be (RFC 6935, Section 5).
func takeWithoutChecksum(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1)
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Fatalf("have datagrams without checksums taken: %v", err)
	}
}

func (s *socket) read() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := s.conn.ReadFrom(b)
		if opError, ok := err.(*net.OpError); ok && !opError.Temporary() {
			return
		}
		if err != nil {
			continue // what an earlier datagram met: the daemon's port was closed
		}
		p := &packet{at: time.Now(), socket: s, remote: addrPort(from), payload: slices.Clone(b[:n])}
		if s.c.overIP {
			p.payload = offIP(p.payload)
		}
		if p.isControl() {
			p.m, _ = decode(p.payload) // the faults are judge's
		}
		s.c.mu.Lock()
		s.c.log = append(s.c.log, *p)
		s.c.inbox = append(s.c.inbox, p)
		close(s.c.changed)
		s.c.changed = make(chan struct{})
		s.c.mu.Unlock()
	}
}

// send sends one datagram to the daemon.
func (s *socket) send(port uint16, payload []byte) {
	s.c.t.Helper()
	to := netip.AddrPortFrom(s.c.dut, port)
	wire := payload
	var address net.Addr = net.UDPAddrFromAddrPort(to)
	if s.c.overIP {
		to, address = netip.AddrPortFrom(s.c.dut, 0), &net.IPAddr{IP: s.c.dut.AsSlice()}
		wire = onIP(payload)
	}
	s.c.mu.Lock()
	s.c.log = append(s.c.log, packet{at: time.Now(), sent: true, socket: s, remote: to, payload: slices.Clone(payload)})
	s.c.mu.Unlock()
	// A write can report that an earlier datagram met a closed port, and sends nothing then.
	for range 3 {
		if _, err := s.conn.WriteTo(wire, address); err == nil {
			return
		}
	}
	s.c.t.Fatalf("send to %v failed", to)
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return netip.AddrPortFrom(ip.Unmap(), 0)
	}
	return netip.AddrPort{}
}

// onIP is a packet over UDP as it is over IP: a control message has four zeros before it
// (Section 4.1.1.2), data begins with the session ID (Section 4.1.1.1).
func onIP(payload []byte) []byte {
	switch {
	case len(payload) > 0 && payload[0]&0x80 != 0:
		return append(make([]byte, 4), payload...)
	case bytes.HasPrefix(payload, []byte(dataWord)):
		return payload[4:]
	}
	return payload // too short to be either
}

// offIP is the reverse.
func offIP(payload []byte) []byte {
	if bytes.HasPrefix(payload, make([]byte, 4)) {
		return payload[4:]
	}
	return append([]byte(dataWord), payload...)
}

// poll takes the first packet that matches, waiting for it until the time given;
// nil if none came.
func (c *client) poll(until time.Time, match func(*packet) bool) *packet {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		c.mu.Lock()
		i := slices.IndexFunc(c.inbox, match)
		if i >= 0 {
			p := c.inbox[i]
			c.inbox = slices.Delete(c.inbox, i, i+1)
			c.mu.Unlock()
			return p
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return nil
		}
	}
}

// take is poll for what has to come.
func (c *client) take(what string, match func(*packet) bool) *packet {
	c.t.Helper()
	p := c.poll(time.Now().Add(patience), match)
	if p == nil {
		c.t.Fatalf("waited for %s, in vain", what)
	}
	return p
}

// request takes the daemon's next SCCRQ for a tunnel.
func (c *client) request(tunnel string) *packet {
	c.t.Helper()
	p := c.take("an SCCRQ for "+tunnel, isRequest(tunnel))
	c.discard(func(q *packet) bool {
		return isRequest(tunnel)(q) && q.m.number(avpAssignedCCID) == p.m.number(avpAssignedCCID)
	})
	return p
}

func isRequest(tunnel string) func(*packet) bool {
	return func(p *packet) bool {
		return p.isControl() && p.m.kind() == sccrq && string(p.m.value(avpHostName)) == tunnel+".dc1"
	}
}

// forget discards requests that have come, of attempts that are over.
func (c *client) forget(tunnel string) { c.discard(isRequest(tunnel)) }

func (c *client) discard(which func(*packet) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox = slices.DeleteFunc(c.inbox, which)
}
