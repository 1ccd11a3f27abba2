package transport_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// family is a pair of addresses that both ends of a test can have.
type family struct {
	name      string
	zero, one netip.Addr
}

// families runs a test over IPv4 and IPv6, in a network namespace of its own.
func families(t *testing.T, test func(*testing.T, family)) {
	for _, f := range []family{
		{"IPv4", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")},
		{"IPv6", netip.MustParseAddr("::1"), netip.MustParseAddr("fd00::2")},
	} {
		t.Run(f.name, func(t *testing.T) {
			namespace(t)
			test(t, f)
		})
	}
}

// namespace puts the test into a network namespace of its own, with loopback up
// and fd00::2 on it. The thread, and with it the namespace, ends with the test.
func namespace(t *testing.T) {
	t.Helper()
	need := func(err error, what string) {
		t.Helper()
		switch {
		case err == nil:
		case os.Getenv("CI") == "" && errors.Is(err, unix.EPERM):
			t.Skipf("%s: %v; needs root", what, err)
		default:
			t.Fatalf("%s: %v", what, err)
		}
	}
	runtime.LockOSThread()
	need(unix.Unshare(unix.CLONE_NEWNET), "a network namespace of its own")
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	need(err, "a socket")
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	need(err, "lo")
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	need(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up), "lo up")
	six := netip.MustParseAddr("fd00::2")
	need(addAddress6(fd, six), "an IPv6 address on lo")
	// The kernel makes it usable in its own time.
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		err := unix.Bind(fd, &unix.SockaddrInet6{Addr: six.As16()})
		if err != unix.EADDRNOTAVAIL || time.Now().After(deadline) {
			need(err, "an IPv6 address to bind to")
			return
		}
	}
}

// setMTU changes an interface of the namespace.
func setMTU(t *testing.T, name string, mtu uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, request); err != nil {
		t.Fatal(err)
	}
}

// overUDP are listeners on the addresses.
func overUDP(addrs ...netip.Addr) (endpoints []transport.Endpoint) {
	for _, a := range addrs {
		endpoints = append(endpoints, transport.Endpoint{Addr: a, Encapsulation: l2tpv3.UDP})
	}
	return endpoints
}

func open(t *testing.T, listen ...netip.Addr) *transport.Transport {
	t.Helper()
	x, err := transport.Open(transport.Options{Listen: overUDP(listen...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// receive takes the next packet.
func receive(t testing.TB, x *transport.Transport) transport.Packet {
	t.Helper()
	p, ok := next(x, patience)
	if !ok {
		t.Fatal("nothing was received")
	}
	return p
}

// next takes the next packet, if one comes in time.
func next(x *transport.Transport, wait time.Duration) (transport.Packet, bool) {
	late := time.After(wait)
	for {
		if p, ok := x.Take(); ok {
			return p, true
		}
		select {
		case _, ok := <-x.Ready():
			if !ok {
				return transport.Packet{}, false
			}
		case <-late:
			return transport.Packet{}, false
		}
	}
}

// expect takes the next packet and compares it.
func expect(t *testing.T, x *transport.Transport, connection uint32, local, remote netip.AddrPort, payload string) {
	t.Helper()
	want := transport.Packet{
		Connection: connection, Path: control.Path{Local: local, Remote: remote},
		Payload: []byte(payload), Control: payload[0]&0x80 != 0,
	}
	got := receive(t, x)
	if got.Connection == connection && got.Path == want.Path && got.Control == want.Control && string(got.Payload) == payload {
		return // without the search for a difference, which takes its time
	}
	t.Fatalf("packet (-want +got):\n%s", cmp.Diff(want, got, sameAddress))
}

func path(local, remote netip.AddrPort) control.Path {
	return control.Path{Local: local, Remote: remote}
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func transmit(t *testing.T, x *transport.Transport, connection uint32, initiator bool, p control.Path, payload string) {
	t.Helper()
	err := x.Transmit(control.Transmit{Connection: connection, Initiator: initiator, Path: p, Payload: []byte(payload)})
	if err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, x *transport.Transport, connection uint32, initiator bool, local, remote netip.AddrPort) {
	t.Helper()
	err := x.Connect(control.Connected{Connection: connection, Initiator: initiator, Path: path(local, remote)})
	if err != nil {
		t.Fatal(err)
	}
}

// Control and data messages of the tests: the T bit is all that the transport reads.
const (
	sccrq = "\xc8\x03 SCCRQ"
	sccrp = "\xc8\x03 SCCRP"
	scccn = "\xc8\x03 SCCCN"
	hello = "\xc8\x03 HELLO"
	data  = "\x00\x03 data"
)

// TestConnection goes through a control connection's life, RFC 3931, Section 4.1.2.2.
func TestConnection(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, b := open(t, f.zero), open(t, f.one)
		toB := path(at(f.zero, 0), at(f.one, 1701))

		transmit(t, a, 1, true, toB, sccrq)
		local, remote, ok := a.Path(1)
		if !ok || local.Addr() != f.zero || local.Port() == 0 || local.Port() == 1701 || remote != at(f.one, 1701) {
			t.Fatalf("the initiator's path is %v %v %v", local, remote, ok)
		}
		initiator, responder := local, at(f.one, 1701)
		expect(t, b, 0, responder, initiator, sccrq)

		transmit(t, b, 2, false, path(responder, initiator), sccrp)
		if _, _, ok := b.Path(2); ok {
			t.Error("the responder has a socket before its peer is settled")
		}
		expect(t, a, 1, initiator, responder, sccrp)

		if _, err := a.Socket(1); !errors.Is(err, transport.ErrNotConnected) {
			t.Errorf("a descriptor before the socket is connected: %v", err)
		}
		connect(t, a, 1, true, initiator, responder)
		transmit(t, a, 1, true, path(initiator, responder), scccn)
		expect(t, b, 0, responder, initiator, scccn)
		connect(t, b, 2, false, responder, initiator)

		for range 3 {
			transmit(t, a, 1, true, path(initiator, responder), hello)
			expect(t, b, 2, responder, initiator, hello)
			transmit(t, b, 2, false, path(responder, initiator), hello)
			expect(t, a, 1, initiator, responder, hello)
			transmit(t, a, 1, true, path(initiator, responder), data)
			expect(t, b, 2, responder, initiator, data)
		}
		if fd, err := b.Socket(2); err != nil || fd < 0 {
			t.Errorf("descriptor %d, %v", fd, err)
		}
		if _, err := b.Socket(3); !errors.Is(err, transport.ErrUnknownConnection) {
			t.Errorf("a descriptor for nobody: %v", err)
		}

		// Without its socket the listener has the packets again.
		b.Release(2)
		b.Release(2)
		transmit(t, a, 1, true, path(initiator, responder), hello)
		expect(t, b, 0, responder, initiator, hello)
	})
}

// TestPortFloats: the SCCRP comes from another port than 1701 and is heard; then
// the connection uses that port (RFC 3931, Section 4.1.2.2), and nobody else's
// datagrams pass for the peer's.
func TestPortFloats(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		asked, floated := udp(t, at(f.one, 1701)), udp(t, at(f.one, 0))

		transmit(t, a, 1, true, path(at(f.zero, 0), asked.local), sccrq)
		from := asked.expect(t, sccrq)
		floated.send(t, from, sccrp)
		expect(t, a, 1, from, floated.local, sccrp)

		connect(t, a, 1, true, from, floated.local)
		transmit(t, a, 1, true, path(from, floated.local), scccn)
		if got := floated.expect(t, scccn); got != from {
			t.Errorf("SCCCN came from %v, SCCRQ from %v", got, from)
		}
		asked.send(t, from, "\xc8\x03 not the peer any more")
		floated.send(t, from, hello)
		expect(t, a, 1, from, floated.local, hello)
	})
}

// TestAnswerStranger: Connection 0 is answered from where the packet came in.
func TestAnswerStranger(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		stranger := udp(t, at(f.one, 0))
		stranger.send(t, at(f.zero, 1701), sccrq)
		p := receive(t, a)
		transmit(t, a, 0, false, p.Path, "\xc8\x03 StopCCN")
		if from := stranger.expect(t, "\xc8\x03 StopCCN"); from != at(f.zero, 1701) {
			t.Errorf("answered from %v", from)
		}

		// The same for one that comes to an initiator's open port.
		transmit(t, a, 1, true, path(at(f.zero, 0), at(f.one, 1701)), sccrq)
		local, _, _ := a.Path(1)
		other := udp(t, at(f.zero, 0))
		other.send(t, local, hello)
		expect(t, a, 0, local, other.local, hello)
		transmit(t, a, 0, false, path(local, other.local), "\xc8\x03 StopCCN")
		if from := other.expect(t, "\xc8\x03 StopCCN"); from != local {
			t.Errorf("answered from %v", from)
		}
	})
}

// TestRefused: nobody listens, the kernel answers with ICMP; the connection
// stays, every message is sent, and it works as soon as somebody listens.
func TestRefused(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		peer := at(f.one, 1701)
		connect(t, a, 1, true, at(f.zero, 0), peer)
		local, _, _ := a.Path(1)
		for range 10 {
			transmit(t, a, 1, true, path(local, peer), hello)
		}
		back := udp(t, peer)
		transmit(t, a, 1, true, path(local, peer), scccn)
		back.expect(t, scccn)
		back.send(t, local, hello)
		expect(t, a, 1, local, peer, hello)

		c := a.Counters()
		if c.SocketErrors == 0 || c.SocketErrors > 10 {
			t.Errorf("%d socket errors of 10 refused messages", c.SocketErrors)
		}
		if c.Transmitted != 11 || c.TransmitFailed != 0 {
			t.Errorf("transmitted %d, failed %d", c.Transmitted, c.TransmitFailed)
		}
	})
}

// TestRestore: after a restart the sockets have the ports they had.
func TestRestore(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, b := open(t, f.zero), open(t, f.one)
		responder := at(f.one, 1701)
		transmit(t, a, 1, true, path(at(f.zero, 0), responder), sccrq)
		initiator := receive(t, b).Path.Remote
		connect(t, a, 1, true, initiator, responder)
		connect(t, b, 2, false, responder, initiator)
		// One that waits for its answer.
		transmit(t, a, 3, true, path(at(f.zero, 0), at(f.one, 1702)), sccrq)
		waiting, _, _ := a.Path(3)

		restart := func(x *transport.Transport, address netip.Addr) *transport.Transport {
			saved, err := json.Marshal(x.Save())
			if err != nil {
				t.Fatal(err)
			}
			before := x.Save()
			x.Close()
			var state transport.State
			if err := json.Unmarshal(saved, &state); err != nil {
				t.Fatal(err)
			}
			x = open(t, address)
			if err := x.Restore(state); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, x.Save(), sameAddress); diff != "" {
				t.Errorf("state (-before +after):\n%s", diff)
			}
			return x
		}
		a, b = restart(a, f.zero), restart(b, f.one)

		transmit(t, a, 1, true, path(initiator, responder), hello)
		expect(t, b, 2, responder, initiator, hello)
		transmit(t, b, 2, false, path(responder, initiator), hello)
		expect(t, a, 1, initiator, responder, hello)
		floated := udp(t, at(f.one, 0))
		floated.send(t, waiting, sccrp)
		expect(t, a, 3, waiting, floated.local, sccrp)
	})
}

// TestRestorePortTaken: another program took the port meanwhile; the connection
// remains known and comes back with Refresh.
func TestRestorePortTaken(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		thief := udp(t, at(f.zero, 0))
		state := transport.State{Connections: []transport.ConnectionState{
			{Connection: 7, Initiator: true, Local: thief.local, Remote: at(f.one, 1701), Connected: true},
		}}
		a := open(t)
		err := a.Restore(state)
		var failed *transport.Error
		if !errors.Is(err, transport.ErrPortInUse) || !errors.As(err, &failed) || failed.Connection != 7 || failed.Op != "open" {
			t.Fatalf("Restore: %v", err)
		}
		if err := a.Refresh(); !errors.Is(err, transport.ErrPortInUse) {
			t.Errorf("Refresh with the port taken: %v", err)
		}
		err = a.Transmit(control.Transmit{Connection: 7, Initiator: true, Path: path(thief.local, at(f.one, 1701))})
		if !errors.Is(err, transport.ErrPortInUse) {
			t.Errorf("Transmit with the port taken: %v", err)
		}
		thief.Close()
		if err := a.Refresh(); err != nil {
			t.Errorf("Refresh with the port free: %v", err)
		}
		if local, _, ok := a.Path(7); !ok || local != thief.local {
			t.Errorf("path %v %v", local, ok)
		}
	})
}

// TestListeners: all of them are said, what is the same stays, what the host
// does not have is told and tried again.
func TestListeners(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		absent := netip.MustParseAddr("192.0.2.1")
		if f.zero.Is6() {
			absent = netip.MustParseAddr("2001:db8::1")
		}
		a, err := transport.Open(transport.Options{Listen: overUDP(absent, f.zero)})
		if a == nil {
			t.Fatal(err)
		}
		defer a.Close()
		var failed *transport.Error
		if !errors.Is(err, transport.ErrAddressNotPresent) || !errors.Is(err, unix.EADDRNOTAVAIL) ||
			!errors.As(err, &failed) || failed.Op != "listen" || failed.Local != at(absent, 1701) {
			t.Fatalf("Open: %v", err)
		}
		if want := at(absent, 1701).String(); !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
		stranger := udp(t, at(f.one, 0))
		heard := func(wait time.Duration) bool {
			stranger.send(t, at(f.zero, 1701), sccrq)
			_, ok := next(a, wait)
			return ok
		}
		const little = 50 * time.Millisecond
		if !heard(patience) {
			t.Error("the address that is there is not listened on")
		}
		if err := a.SetEndpoints(overUDP(f.zero, f.zero)); err != nil || !heard(patience) {
			t.Errorf("the same listener again: %v", err)
		}
		if err := a.SetEndpoints(nil); err != nil || heard(little) {
			t.Errorf("no listener: %v", err)
		}
		stranger.drain()
		if err := a.Refresh(); err != nil || heard(little) {
			t.Errorf("Refresh without listeners: %v", err)
		}
		stranger.drain()
		if err := a.SetEndpoints(overUDP(f.zero)); err != nil || !heard(patience) {
			t.Errorf("the listener back: %v", err)
		}
		err = a.Transmit(control.Transmit{Path: path(at(f.one, 1701), stranger.local), Payload: []byte(hello)})
		if !errors.Is(err, transport.ErrNoListener) {
			t.Errorf("an answer from an address without listener: %v", err)
		}
	})
}

// TestSecondDaemon: two of us on one address would share the port without a
// word, as SO_REUSEADDR has it; the second one is told instead, whatever sockets
// the first has.
func TestSecondDaemon(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		refused := func(when string) {
			t.Helper()
			b, err := transport.Open(transport.Options{Listen: overUDP(f.zero)})
			if !errors.Is(err, transport.ErrPortInUse) {
				t.Errorf("a second listener %s: %v", when, err)
			}
			b.Close()
		}
		refused("beside a listener")
		connect(t, a, 1, false, at(f.zero, 1701), at(f.one, 4000))
		connect(t, a, 2, false, at(f.zero, 1701), at(f.one, 4001))
		refused("beside a listener and connected sockets")

		// Of one's own it is no conflict, in any order.
		if err := errors.Join(a.SetEndpoints(nil), a.SetEndpoints(overUDP(f.zero))); err != nil {
			t.Error(err)
		}
		refused("after the listener came back")
	})
}

// TestConnectionsOfOnePeer: several connections, the peer's ports tell them apart.
func TestConnectionsOfOnePeer(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		local := at(f.zero, 1701)
		var peers []*udpSocket
		for id := range uint32(20) {
			peers = append(peers, udp(t, at(f.one, 0)))
			connect(t, a, id+1, false, local, peers[id].local)
		}
		for id, p := range peers {
			p.send(t, local, hello)
			expect(t, a, uint32(id)+1, local, p.local, hello)
		}
		stranger := udp(t, at(f.one, 0))
		stranger.send(t, local, sccrq)
		expect(t, a, 0, local, stranger.local, sccrq)
		for id := range peers[:10] {
			a.Release(uint32(id) + 1)
		}
		for id, p := range peers {
			want := uint32(id) + 1
			if id < 10 {
				want = 0
			}
			p.send(t, local, hello)
			expect(t, a, want, local, p.local, hello)
		}
	})
}

// TestUnsupported: what this transport does not carry is refused by type.
func TestUnsupported(t *testing.T) {
	a := open(t)
	p := path(netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:0"))
	p.Encapsulation = 2
	if err := a.Transmit(control.Transmit{Connection: 1, Initiator: true, Path: p}); !errors.Is(err, transport.ErrEncapsulation) {
		t.Errorf("Transmit: %v", err)
	}
	if err := a.Connect(control.Connected{Connection: 1, Path: p}); !errors.Is(err, transport.ErrEncapsulation) {
		t.Errorf("Connect: %v", err)
	}
	if err := a.SetEndpoints([]transport.Endpoint{{Addr: netip.MustParseAddr("127.0.0.1"), Encapsulation: 2}}); !errors.Is(err, transport.ErrEncapsulation) {
		t.Errorf("SetEndpoints: %v", err)
	}
	state := transport.State{Connections: []transport.ConnectionState{{Connection: 1, Encapsulation: 2}}}
	if err := a.Restore(state); !errors.Is(err, transport.ErrEncapsulation) {
		t.Errorf("Restore: %v", err)
	}
	a.Close()
	p.Encapsulation = 0
	if err := a.Transmit(control.Transmit{Connection: 1, Initiator: true, Path: p}); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Transmit after Close: %v", err)
	}
	for _, err := range []error{a.Connect(control.Connected{Connection: 1, Path: p}), a.SetEndpoints(nil), a.Refresh(), a.Restore(transport.State{})} {
		if !errors.Is(err, transport.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if _, ok := next(a, patience); ok {
		t.Error("a packet after Close")
	}
}

// TestDynamicAddress: without a local address the routing table chooses it.
func TestDynamicAddress(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t)
		peer := udp(t, at(f.one, 0))
		transmit(t, a, 1, true, path(netip.AddrPort{}, peer.local), sccrq)
		local, _, _ := a.Path(1)
		if from := peer.expect(t, sccrq); from != local || local.Addr().IsUnspecified() {
			t.Errorf("sent from %v, Path says %v", from, local)
		}
	})
}

// TestGarbage: what is no L2TP at all is counted and nothing else.
func TestGarbage(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		s := udp(t, at(f.one, 0))
		s.send(t, at(f.zero, 1701), "")
		s.send(t, at(f.zero, 1701), "\xc8")
		big := sccrq + strings.Repeat("x", 65000-len(sccrq))
		s.send(t, at(f.zero, 1701), big)
		expect(t, a, 0, at(f.zero, 1701), s.local, big)
		if got, want := a.Counters(), (transport.Counters{ReceivedControl: 1, Malformed: 2}); got != want {
			t.Errorf("counters %+v, want %+v", got, want)
		}
	})
}

// TestLargerThanThePath: a control message that does not fit is fragmented, not refused.
func TestLargerThanThePath(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		setMTU(t, "lo", 1280)
		a, b := open(t, f.zero), open(t, f.one)
		big := sccrq + strings.Repeat("x", 10000)
		transmit(t, a, 1, true, path(at(f.zero, 0), at(f.one, 1701)), big)
		local, _, _ := a.Path(1)
		expect(t, b, 0, at(f.one, 1701), local, big)
		connect(t, b, 2, false, at(f.one, 1701), local)
		transmit(t, b, 2, false, path(at(f.one, 1701), local), big)
		expect(t, a, 1, local, at(f.one, 1701), big)
	})
}

// TestZeroChecksum: a connection's peer may leave the checksum of data out over
// IPv6 (RFC 6935, Section 5); a stranger may not.
func TestZeroChecksum(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		if f.zero.Is4() {
			return // RFC 768: always allowed
		}
		a := open(t, f.zero)
		s, stranger := udp(t, at(f.one, 0)), udp(t, at(f.one, 0))
		connect(t, a, 1, false, at(f.zero, 1701), s.local)
		for _, u := range []*udpSocket{s, stranger} {
			raw, err := u.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var failed error
			if err := errors.Join(raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1)
			}), failed); err != nil {
				t.Fatal(err)
			}
		}
		stranger.send(t, at(f.zero, 1701), data)
		s.send(t, at(f.zero, 1701), data)
		expect(t, a, 1, at(f.zero, 1701), s.local, data)
		if got := a.Counters(); got.ReceivedData != 1 {
			t.Errorf("received %d, want the peer's alone", got.ReceivedData)
		}
	})
}

// TestTrafficClass: control messages are CS6; the socket itself is not, because
// the kernel's l2tp would mark users' frames so.
func TestTrafficClass(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		s := udp(t, at(f.one, 0))
		s.receiveClass(t)
		connect(t, a, 1, true, at(f.zero, 0), s.local)
		local, _, _ := a.Path(1)
		transmit(t, a, 1, true, path(local, s.local), hello)
		if got := s.class(t); got != 0xc0 {
			t.Errorf("a connection's message has traffic class %#x, want 0xc0", got)
		}
		transmit(t, a, 0, false, path(at(f.zero, 1701), s.local), hello)
		if got := s.class(t); got != 0xc0 {
			t.Errorf("a listener's message has traffic class %#x, want 0xc0", got)
		}
		fd, err := a.Socket(1)
		if err != nil {
			t.Fatal(err)
		}
		level, option := unix.IPPROTO_IP, unix.IP_TOS
		if f.zero.Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
			if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX); on != 1 || err != nil {
				t.Errorf("zero checksums are refused: %d %v", on, err)
			}
		}
		if class, err := unix.GetsockoptInt(fd, level, option); class != 0 || err != nil {
			t.Errorf("the socket's own traffic class is %#x %v, want 0", class, err)
		}
	})
}

// TestNoLeaks: after Close there are the descriptors and goroutines from before.
func TestNoLeaks(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		// The poller's own descriptors come with the first socket.
		udp(t, at(f.one, 0)).Close()
		descriptors, routines := count(t), runtime.NumGoroutine()
		for range 5 {
			a := open(t, f.zero)
			for id := range uint32(30) {
				connect(t, a, id+1, id%2 == 0, netip.AddrPortFrom(f.zero, 0), at(f.one, uint16(5000+id)))
			}
			a.Release(3)
			if err := a.Restore(a.Save()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(a.SetEndpoints(nil), a.Close(), a.Close()); err != nil && !errors.Is(err, transport.ErrClosed) {
				t.Fatal(err)
			}
		}
		if now := count(t); now != descriptors {
			t.Errorf("%d descriptors, %d before", now, descriptors)
		}
		// A goroutine's end is not quite the moment of its last statement.
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > routines && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		if now := runtime.NumGoroutine(); now > routines {
			stacks := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", now, routines, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// count counts this process's descriptors.
func count(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// udpSocket is a peer of the tests, with nothing of the package in it.
type udpSocket struct {
	*net.UDPConn
	local netip.AddrPort
}

func udp(t *testing.T, local netip.AddrPort) *udpSocket {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &udpSocket{c, c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (s *udpSocket) send(t *testing.T, to netip.AddrPort, payload string) {
	t.Helper()
	// The first try may report what an earlier one met.
	_, err := s.WriteToUDPAddrPort([]byte(payload), to)
	if errors.Is(err, unix.ECONNREFUSED) {
		_, err = s.WriteToUDPAddrPort([]byte(payload), to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// expect reads until the payload comes and gives its sender.
func (s *udpSocket) expect(t *testing.T, payload string) netip.AddrPort {
	t.Helper()
	b := make([]byte, 1<<16)
	s.SetReadDeadline(time.Now().Add(patience))
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != payload {
		t.Fatalf("received %q, want %q", b[:n], payload)
	}
	return from
}

// drain reads off errors of earlier packets.
func (s *udpSocket) drain() {
	s.SetReadDeadline(time.Now())
	for {
		if _, _, err := s.ReadFromUDPAddrPort(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// receiveClass asks for the traffic class of each datagram.
func (s *udpSocket) receiveClass(t *testing.T) {
	t.Helper()
	level, option := unix.IPPROTO_IP, unix.IP_RECVTOS
	if s.local.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS
	}
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), level, option, 1)
	}), failed); err != nil {
		t.Fatal(err)
	}
}

// class reads one datagram and gives its traffic class.
func (s *udpSocket) class(t *testing.T) byte {
	t.Helper()
	b, oob := make([]byte, 1<<16), make([]byte, 128)
	s.SetReadDeadline(time.Now().Add(patience))
	_, n, _, _, err := s.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	return messages[0].Data[0]
}
