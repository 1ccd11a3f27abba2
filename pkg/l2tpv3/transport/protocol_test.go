package transport_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// message is a control message as far as the transport reads it: flags, version,
// length and Control Connection ID (RFC 3931, Section 3.2.1).
func message(connection uint32, text string) string {
	b := binary.BigEndian.AppendUint16([]byte{0xc8, 0x03}, uint16(12+len(text)))
	b = binary.BigEndian.AppendUint32(b, connection)
	return string(append(b, "\x00\x00\x00\x00"+text...))
}

// dataOf is a data message over IP: Session ID and whatever comes then.
func dataOf(session uint32, text string) string {
	return string(binary.BigEndian.AppendUint32(nil, session)) + text
}

// zeros precede a control message over IP (Section 4.1.1.2).
const zeros = "\x00\x00\x00\x00"

// pathIP is the path between two addresses over IP.
func pathIP(local, remote netip.Addr) control.Path {
	return control.Path{Encapsulation: l2tpv3.IP, Local: at(local, 0), Remote: at(remote, 0)}
}

// openIP is a Transport that listens over IP.
func openIP(t *testing.T, listen ...netip.Addr) *transport.Transport {
	t.Helper()
	x := open(t)
	if err := x.SetEndpoints(overIP(listen...)); err != nil {
		t.Fatal(err)
	}
	return x
}

func overIP(addrs ...netip.Addr) (endpoints []transport.Endpoint) {
	for _, a := range addrs {
		endpoints = append(endpoints, transport.Endpoint{Addr: a, Encapsulation: l2tpv3.IP})
	}
	return endpoints
}

// sameAddress compares addresses by value.
var sameAddress = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// expectIP takes the next packet and compares it.
func expectIP(t *testing.T, x *transport.Transport, connection uint32, local, remote netip.Addr, payload string, isControl bool) {
	t.Helper()
	want := transport.Packet{
		Connection: connection, Path: pathIP(local, remote), Payload: []byte(payload), Control: isControl,
	}
	got := receive(t, x)
	if got.Connection == connection && got.Path == want.Path && got.Control == isControl && string(got.Payload) == payload {
		return // without the search for a difference, which takes its time
	}
	t.Fatalf("packet (-want +got):\n%s", cmp.Diff(want, got, sameAddress))
}

func connectIP(t *testing.T, x *transport.Transport, connection uint32, initiator bool, local, remote netip.Addr) {
	t.Helper()
	err := x.Connect(control.Connected{Connection: connection, Initiator: initiator, Path: pathIP(local, remote)})
	if err != nil {
		t.Fatal(err)
	}
}

// rawSocket is a peer of the tests, with nothing of the package in it.
type rawSocket struct {
	*net.IPConn
	local netip.Addr
}

func raw(t *testing.T, local netip.Addr) *rawSocket {
	t.Helper()
	network := "ip4:115"
	if local.Is6() {
		network = "ip6:115"
	}
	c, err := net.ListenPacket(network, local.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawSocket{c.(*net.IPConn), local}
}

func (s *rawSocket) send(t *testing.T, to netip.Addr, payload string) {
	t.Helper()
	if _, err := s.WriteTo([]byte(payload), &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		t.Fatal(err)
	}
}

// expect reads the next packet, which has to have the payload.
func (s *rawSocket) expect(t *testing.T, payload string) (from netip.Addr) {
	t.Helper()
	b := make([]byte, 1<<16)
	s.SetReadDeadline(time.Now().Add(patience))
	n, sender, err := s.ReadFromIP(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != payload {
		t.Fatalf("received %q, want %q", b[:n], payload)
	}
	addr, _ := netip.AddrFromSlice(sender.IP)
	return addr.Unmap()
}

// TestConnectionIP goes through a control connection's life over IP, RFC 3931,
// Section 4.1.1.
func TestConnectionIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, b := open(t), openIP(t, f.one)
		toB, toA := pathIP(f.zero, f.one), pathIP(f.one, f.zero)

		transmit(t, a, 1, true, toB, message(0, "SCCRQ"))
		if local, remote, ok := a.Path(1); !ok || local != at(f.zero, 0) || remote != at(f.one, 0) {
			t.Fatalf("the initiator's path is %v %v %v", local, remote, ok)
		}
		expectIP(t, b, 0, f.one, f.zero, message(0, "SCCRQ"), true)
		transmit(t, b, 2, false, toA, message(1, "SCCRP"))
		if _, _, ok := b.Path(2); ok {
			t.Error("the responder has a path of its own before its peer is settled")
		}
		expectIP(t, a, 1, f.zero, f.one, message(1, "SCCRP"), true)
		if _, err := a.Socket(1); !errors.Is(err, transport.ErrNotConnected) {
			t.Errorf("a descriptor before the peer is settled: %v", err)
		}
		connectIP(t, a, 1, true, f.zero, f.one)
		transmit(t, a, 1, true, toB, message(2, "SCCCN"))
		expectIP(t, b, 0, f.one, f.zero, message(2, "SCCCN"), true)
		connectIP(t, b, 2, false, f.one, f.zero)

		for range 3 {
			transmit(t, a, 1, true, toB, message(2, "HELLO"))
			expectIP(t, b, 2, f.one, f.zero, message(2, "HELLO"), true)
			transmit(t, b, 2, false, toA, message(1, "HELLO"))
			expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
		}

		// Without the connection its packets are a stranger's again.
		b.Release(2)
		b.Release(2)
		transmit(t, a, 1, true, toB, message(2, "HELLO"))
		expectIP(t, b, 0, f.one, f.zero, message(2, "HELLO"), true)

		// An initiator without listener has no socket once its connections are gone.
		a.Release(1)
		err := a.Transmit(control.Transmit{Path: toB, Payload: []byte(message(0, "StopCCN"))})
		if !errors.Is(err, transport.ErrNoListener) {
			t.Errorf("sent without a socket: %v", err)
		}
	})
}

// TestWireIP: what is on the wire, RFC 3931, Sections 4.1.1.1 and 4.1.1.2.
func TestWireIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := openIP(t, f.zero), raw(t, f.one)
		transmit(t, a, 1, true, pathIP(f.zero, f.one), message(0, "SCCRQ"))
		if from := peer.expect(t, zeros+message(0, "SCCRQ")); from != f.zero {
			t.Errorf("sent from %v", from)
		}
		peer.send(t, f.zero, zeros+message(1, "SCCRP"))
		expectIP(t, a, 1, f.zero, f.one, message(1, "SCCRP"), true)
		peer.send(t, f.zero, dataOf(7, "a frame"))
		expectIP(t, a, 0, f.zero, f.one, dataOf(7, "a frame"), false)

		// A stranger is answered from where it came in.
		peer.send(t, f.zero, zeros+message(0, "SCCRQ"))
		p := receive(t, a)
		transmit(t, a, 0, false, p.Path, message(9, "StopCCN"))
		if from := peer.expect(t, zeros+message(9, "StopCCN")); from != f.zero {
			t.Errorf("answered from %v", from)
		}

		if got, want := a.Counters(), (transport.Counters{ReceivedControl: 2, ReceivedData: 1, Transmitted: 2}); got != want {
			t.Errorf("counters %+v, want %+v", got, want)
		}
	})
}

// TestHeaderOptionsIP: what follows the IP header is found behind options, too.
func TestHeaderOptionsIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := openIP(t, f.zero), raw(t, f.one)
		level, option, value := unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01\x01\x01\x01\x00"
		if f.zero.Is6() { // a destination options header of eight octets, all padding
			level, option, value = unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00"
		}
		sc, err := peer.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		if err := errors.Join(sc.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), level, option, value)
		}), failed); err != nil {
			t.Fatal(err)
		}
		peer.send(t, f.zero, zeros+message(0, "SCCRQ"))
		expectIP(t, a, 0, f.zero, f.one, message(0, "SCCRQ"), true)
		peer.send(t, f.zero, dataOf(7, "a frame"))
		expectIP(t, a, 0, f.zero, f.one, dataOf(7, "a frame"), false)
	})
}

// TestConnectionsOfOnePair: connections between the same addresses share one pair
// of sockets, and the Control Connection ID tells them apart.
func TestConnectionsOfOnePair(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		const connections = 20
		a := openIP(t, f.zero)
		peer, other := raw(t, f.one), raw(t, f.zero)
		descriptors := count(t)
		for id := range uint32(connections) {
			connectIP(t, a, id+1, id%2 == 0, f.zero, f.one)
		}
		if now := count(t); now != descriptors {
			t.Errorf("%d descriptors for %d connections", now-descriptors, connections)
		}
		for id := range uint32(connections) {
			peer.send(t, f.zero, zeros+message(id+1, "HELLO"))
			expectIP(t, a, id+1, f.zero, f.one, message(id+1, "HELLO"), true)
		}
		// Nobody has the ID; the ID is right and the sender is not.
		peer.send(t, f.zero, zeros+message(connections+1, "HELLO"))
		expectIP(t, a, 0, f.zero, f.one, message(connections+1, "HELLO"), true)
		other.send(t, f.zero, zeros+message(1, "HELLO"))
		expectIP(t, a, 0, f.zero, f.zero, message(1, "HELLO"), true)

		for id := range uint32(connections / 2) {
			a.Release(id + 1)
		}
		for id := range uint32(connections) {
			want := id + 1
			if id < connections/2 {
				want = 0
			}
			peer.send(t, f.zero, zeros+message(id+1, "HELLO"))
			expectIP(t, a, want, f.zero, f.one, message(id+1, "HELLO"), true)
		}
	})
}

// TestEndpoints: all of them are said, each with its encapsulation.
func TestEndpoints(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		absent := netip.MustParseAddr("192.0.2.1")
		if f.zero.Is6() {
			absent = netip.MustParseAddr("2001:db8::1")
		}
		a := open(t)
		ip, udp := raw(t, f.one), udp(t, at(f.one, 0))
		// heard waits for as many messages as there should be, and a little for more.
		heard := func(want int) (over []l2tpv3.Encapsulation) {
			ip.send(t, f.zero, zeros+message(0, "SCCRQ"))
			udp.drain()
			udp.send(t, at(f.zero, 1701), sccrq)
			for {
				wait := patience
				if len(over) >= want {
					wait = 50 * time.Millisecond
				}
				p, ok := next(a, wait)
				if !ok {
					slices.Sort(over)
					return over
				}
				over = append(over, p.Path.Encapsulation)
			}
		}
		both := append(overIP(f.zero, f.zero), transport.Endpoint{Addr: f.zero, Encapsulation: l2tpv3.UDP})
		for _, step := range []struct {
			what string
			set  func() error
			want []l2tpv3.Encapsulation
		}{
			{"nothing", func() error { return nil }, nil},
			{"IP", func() error { return a.SetEndpoints(overIP(f.zero)) }, []l2tpv3.Encapsulation{l2tpv3.IP}},
			{"both", func() error { return a.SetEndpoints(both) }, []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP}},
			{"both again", func() error { return a.SetEndpoints(both) }, []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP}},
			{"UDP", func() error { return a.SetEndpoints(overUDP(f.zero)) }, []l2tpv3.Encapsulation{l2tpv3.UDP}},
			{"IP once more", func() error { return a.SetEndpoints(overIP(f.zero)) }, []l2tpv3.Encapsulation{l2tpv3.IP}},
			{"nothing any more", func() error { return a.SetEndpoints(nil) }, nil},
		} {
			if err := step.set(); err != nil {
				t.Errorf("%s: %v", step.what, err)
			}
			if got := heard(len(step.want)); !slices.Equal(got, step.want) {
				t.Errorf("%s: heard %v, want %v", step.what, got, step.want)
			}
		}

		err := a.SetEndpoints(overIP(absent, f.zero))
		var failed *transport.Error
		if !errors.Is(err, transport.ErrAddressNotPresent) || !errors.Is(err, unix.EADDRNOTAVAIL) ||
			!errors.As(err, &failed) || failed.Op != "listen" || failed.Local != at(absent, 0) {
			t.Fatalf("an absent address: %v", err)
		}
		if got := heard(1); !slices.Equal(got, []l2tpv3.Encapsulation{l2tpv3.IP}) {
			t.Errorf("beside an absent address: heard %v", got)
		}
		if err := a.Refresh(); !errors.Is(err, transport.ErrAddressNotPresent) {
			t.Errorf("Refresh: %v", err)
		}

		// A connection keeps the sockets that its listener had.
		connectIP(t, a, 1, false, f.zero, f.one)
		if err := a.SetEndpoints(nil); err != nil {
			t.Error(err)
		}
		transmit(t, a, 1, false, pathIP(f.zero, f.one), message(5, "HELLO"))
		ip.expect(t, zeros+message(5, "HELLO"))
		ip.send(t, f.zero, zeros+message(1, "HELLO"))
		expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
	})
}

// TestSecondDaemonIP: raw sockets share an address without a word; the second one
// on it is told, for as long as the first is there.
func TestSecondDaemonIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, b := openIP(t, f.zero), open(t)
		err := b.SetEndpoints(overIP(f.zero))
		if !errors.Is(err, transport.ErrProtocolInUse) || !errors.Is(err, unix.EADDRINUSE) || errors.Is(err, transport.ErrPortInUse) {
			t.Errorf("a second listener: %v", err)
		}
		err = b.Transmit(control.Transmit{Connection: 1, Initiator: true, Path: pathIP(f.zero, f.one)})
		if !errors.Is(err, transport.ErrProtocolInUse) {
			t.Errorf("a second initiator: %v", err)
		}
		if err := b.SetEndpoints(overIP(f.one)); err != nil {
			t.Errorf("another address: %v", err)
		}
		if err := errors.Join(a.SetEndpoints(nil), b.SetEndpoints(overIP(f.zero))); err != nil {
			t.Errorf("after the first has gone: %v", err)
		}
	})
}

// TestNotPermitted: without CAP_NET_RAW the error says so, and UDP goes on.
func TestNotPermitted(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			t.Fatal(err)
		}
		sets[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &sets[0]); err != nil { // of this thread, which ends with the test
			t.Fatal(err)
		}
		a := open(t, f.zero)
		err := a.SetEndpoints(append(overIP(f.zero), transport.Endpoint{Addr: f.zero, Encapsulation: l2tpv3.UDP}))
		if !errors.Is(err, transport.ErrNotPermitted) || !errors.Is(err, unix.EPERM) {
			t.Errorf("SetEndpoints: %v", err)
		}
		udp(t, at(f.one, 0)).send(t, at(f.zero, 1701), sccrq)
		receive(t, a)
	})
}

// TestRestoreIP: after a restart connections are known again.
func TestRestoreIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := open(t), raw(t, f.one)
		connectIP(t, a, 1, true, f.zero, f.one)
		connectIP(t, a, 2, false, f.zero, f.one)
		transmit(t, a, 3, true, pathIP(f.zero, f.one), message(0, "SCCRQ"))
		peer.expect(t, zeros+message(0, "SCCRQ"))

		before := a.Save()
		saved, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		var state transport.State
		if err := json.Unmarshal(saved, &state); err != nil {
			t.Fatal(err)
		}
		a = open(t)
		if err := a.Restore(state); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, a.Save(), sameAddress); diff != "" {
			t.Errorf("state (-before +after):\n%s", diff)
		}
		for id := range uint32(3) {
			peer.send(t, f.zero, zeros+message(id+1, "HELLO"))
			expectIP(t, a, id+1, f.zero, f.one, message(id+1, "HELLO"), true)
			transmit(t, a, id+1, id != 1, pathIP(f.zero, f.one), message(9, "HELLO"))
			peer.expect(t, zeros+message(9, "HELLO"))
		}
	})
}

// TestRestoreIPElsewhere: the address is not there yet; the connection remains
// known and comes back with Refresh.
func TestRestoreIPElsewhere(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		thief := openIP(t, f.zero)
		a := open(t)
		err := a.Restore(transport.State{Connections: []transport.ConnectionState{
			{Connection: 7, Encapsulation: l2tpv3.IP, Local: at(f.zero, 0), Remote: at(f.one, 0), Connected: true},
		}})
		var failed *transport.Error
		if !errors.Is(err, transport.ErrProtocolInUse) || !errors.As(err, &failed) || failed.Connection != 7 || failed.Op != "open" {
			t.Fatalf("Restore: %v", err)
		}
		if err := a.Refresh(); !errors.Is(err, transport.ErrProtocolInUse) {
			t.Errorf("Refresh with the address taken: %v", err)
		}
		if _, err := a.Socket(7); !errors.Is(err, transport.ErrUnknownConnection) {
			t.Errorf("Socket with the address taken: %v", err)
		}
		thief.Close()
		if err := a.Refresh(); err != nil {
			t.Errorf("Refresh with the address free: %v", err)
		}
		if local, _, ok := a.Path(7); !ok || local != at(f.zero, 0) {
			t.Errorf("path %v %v", local, ok)
		}
	})
}

// TestDynamicAddressIP: without a local address the routing table chooses it.
func TestDynamicAddressIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := open(t), raw(t, f.one)
		transmit(t, a, 1, true, control.Path{Encapsulation: l2tpv3.IP, Remote: at(f.one, 0)}, message(0, "SCCRQ"))
		local, _, _ := a.Path(1)
		if from := peer.expect(t, zeros+message(0, "SCCRQ")); at(from, 0) != local || from.IsUnspecified() {
			t.Errorf("sent from %v, Path says %v", from, local)
		}
	})
}

// TestUnreachableIP: nobody speaks the protocol at the peer's, and the kernel there
// says so; the connection stays, and works as soon as somebody does.
func TestUnreachableIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t)
		connectIP(t, a, 1, true, f.zero, f.one)
		for range 10 {
			transmit(t, a, 1, true, pathIP(f.zero, f.one), message(2, "HELLO"))
		}
		peer := raw(t, f.one)
		transmit(t, a, 1, true, pathIP(f.zero, f.one), message(2, "HELLO"))
		peer.expect(t, zeros+message(2, "HELLO"))
		peer.send(t, f.zero, zeros+message(1, "HELLO"))
		expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
		if c := a.Counters(); c.Transmitted != 11 || c.TransmitFailed != 0 || f.zero.Is4() != (c.SocketErrors == 0) {
			t.Errorf("counters %+v", c)
		}
	})
}

// TestGarbageIP: what is too short for anything is counted and nothing else.
func TestGarbageIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := openIP(t, f.zero), raw(t, f.one)
		connectIP(t, a, 1, false, f.zero, f.one)
		short := []string{"", "\x00", "\x00\x00\x01", zeros, zeros + "\xc8"}
		for _, b := range short {
			peer.send(t, f.zero, b)
		}
		// Too short for a Control Connection ID is nobody's, and the control machine's to judge.
		peer.send(t, f.zero, zeros+"\xc8\x03\x00\x0c\x00\x00\x01")
		expectIP(t, a, 0, f.zero, f.one, "\xc8\x03\x00\x0c\x00\x00\x01", true)
		big := message(1, strings.Repeat("x", 60000))
		peer.send(t, f.zero, zeros+big)
		expectIP(t, a, 1, f.zero, f.one, big, true)
		if got, want := a.Counters(), (transport.Counters{ReceivedControl: 2, Malformed: uint64(len(short))}); got != want {
			t.Errorf("counters %+v, want %+v", got, want)
		}
	})
}

// TestDataSessions: the filters give on what is wanted, and what is not does not
// even count.
func TestDataSessions(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := openIP(t, f.zero), raw(t, f.one)
		many := make([]uint32, 500)
		for i := range many {
			many[i] = uint32(i) * 0x00800001 // into the upper half, too
		}
		sent := []uint32{1, 2, 0x7fffffff, 0x80000000, 0xffffffff, many[3], many[499], many[499] - 1}
		all := func(uint32) bool { return true }
		of := func(ids []uint32) func(uint32) bool {
			return func(id uint32) bool { return slices.Contains(ids, id) }
		}
		for _, step := range []struct {
			what   string
			ids    []uint32
			wanted func(uint32) bool
		}{
			{"until it is called", nil, all},
			{"one", []uint32{2}, of([]uint32{2})},
			{"none", nil, of(nil)},
			{"some, unordered and doubled", []uint32{0xffffffff, 1, 0x80000000, 1, 0}, of([]uint32{1, 0x80000000, 0xffffffff})},
			{"the same", []uint32{1, 0x80000000, 0xffffffff}, of([]uint32{1, 0x80000000, 0xffffffff})},
			{"many", many, of(many)},
			{"none again", []uint32{}, of(nil)},
		} {
			if step.what != "until it is called" {
				if err := a.SetDataSessions(step.ids); err != nil {
					t.Fatalf("%s: %v", step.what, err)
				}
			}
			before := a.Counters().ReceivedData
			var got, want []uint32
			for _, id := range sent {
				peer.send(t, f.zero, dataOf(id, "a frame"))
				// Control does not care, and shows that the data has been dealt with.
				peer.send(t, f.zero, zeros+message(id, "HELLO"))
				if step.wanted(id) {
					want = append(want, id)
				}
			}
			for controls := 0; controls < len(sent) || len(got) < len(want); {
				p := receive(t, a)
				if p.Control {
					controls++
					continue
				}
				got = append(got, binary.BigEndian.Uint32(p.Payload))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: sessions %v, want %v", step.what, got, want)
			}
			if n := a.Counters().ReceivedData - before; n != uint64(len(want)) {
				t.Errorf("%s: %d data messages counted, want %d", step.what, n, len(want))
			}
		}

		// Too many for the kernel's filters are all, and a listener that is opened
		// afterwards knows what is wanted.
		for i := range uint32(20000) {
			many = append(many, i+100)
		}
		b, other := open(t), raw(t, f.zero)
		if err := errors.Join(a.SetDataSessions(many), b.SetDataSessions([]uint32{8}), b.SetEndpoints(overIP(f.one))); err != nil {
			t.Fatal(err)
		}
		peer.send(t, f.zero, dataOf(8, "not asked for"))
		expectIP(t, a, 0, f.zero, f.one, dataOf(8, "not asked for"), false)
		other.send(t, f.one, dataOf(7, "not asked for"))
		other.send(t, f.one, dataOf(8, "asked for"))
		expectIP(t, b, 0, f.one, f.zero, dataOf(8, "asked for"), false)
	})
}

// TestFloodIP: no amount of data costs a control message its place, not even
// where nobody reads, and everything is bounded.
func TestFloodIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		const flood = 20000
		a, peer, stranger := openIP(t, f.zero), raw(t, f.one), raw(t, f.zero)
		connectIP(t, a, 1, false, f.zero, f.one)
		frame := dataOf(7, strings.Repeat("x", 1400))
		for range flood {
			peer.send(t, f.zero, frame)
			stranger.send(t, f.zero, frame)
		}
		for range 3 {
			peer.send(t, f.zero, zeros+message(1, "HELLO"))
		}
		for deadline := time.Now().Add(patience); a.Counters().ReceivedControl < 3; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%+v, want 3 control messages", a.Counters())
			}
		}
		// From here on there is no more data, and what the socket still had is in the queue.
		if err := a.SetDataSessions(nil); err != nil {
			t.Fatal(err)
		}
		c := a.Counters()
		if c.DroppedControl != 0 || c.DroppedData == 0 || c.ReceivedData > 2*flood {
			t.Errorf("counters %+v", c)
		}
		for range 3 {
			expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
		}
		// What is kept is within the bounds of the classes.
		kept := map[netip.Addr]int{}
		for range c.ReceivedData - c.DroppedData {
			kept[receive(t, a).Path.Remote.Addr()]++
		}
		if kept[f.one] == 0 || kept[f.one] > 4096 || kept[f.zero] == 0 || kept[f.zero] > 256 {
			t.Errorf("kept %d data messages of the peer's and %d of a stranger's", kept[f.one], kept[f.zero])
		}

		for range 1000 {
			peer.send(t, f.zero, frame)
		}
		peer.send(t, f.zero, zeros+message(1, "HELLO"))
		expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
		if now := a.Counters(); now.ReceivedData != c.ReceivedData {
			t.Errorf("data that nobody wants: %+v, before %+v", now, c)
		}
	})
}

// TestNoLeaksIP: after Close there are the descriptors and goroutines from before.
func TestNoLeaksIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		raw(t, f.one).Close()
		descriptors, routines := count(t), runtime.NumGoroutine()
		for range 5 {
			a := openIP(t, f.zero, f.one)
			for id := range uint32(30) {
				connectIP(t, a, id+1, id%2 == 0, f.zero, f.one)
			}
			a.Release(3)
			// Where the kernel offers it.
			if _, err := a.Socket(1); err != nil && !errors.Is(err, transport.ErrNoKernelIP) {
				t.Fatal(err)
			}
			err := errors.Join(a.Restore(a.Save()), a.SetDataSessions(nil), a.SetDataSessions([]uint32{1}),
				a.SetEndpoints(nil), a.SetEndpoints(overIP(f.one)), a.Close(), a.Close())
			if err != nil {
				t.Fatal(err)
			}
		}
		if now := count(t); now != descriptors {
			t.Errorf("%d descriptors, %d before", now, descriptors)
		}
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > routines && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		if now := runtime.NumGoroutine(); now > routines {
			t.Errorf("%d goroutines, %d before", now, routines)
		}
	})
}

// TestNoKernelIP: a kernel without L2TP over IP is told by type, and the
// connection goes on.
func TestNoKernelIP(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, peer := open(t), raw(t, f.one)
		connectIP(t, a, 1, true, f.zero, f.one)
		_, err := a.Socket(1)
		if loaded(f) {
			if err != nil {
				t.Errorf("the kernel has L2TP over IP: %v", err)
			}
		} else if failed := new(transport.Error); !errors.Is(err, transport.ErrNoKernelIP) || !errors.As(err, &failed) || failed.Connection != 1 {
			t.Errorf("the kernel has no L2TP over IP: %v", err)
		}
		peer.send(t, f.zero, zeros+message(1, "HELLO"))
		expectIP(t, a, 1, f.zero, f.one, message(1, "HELLO"), true)
	})
}

// loaded reports whether the kernel lists the protocol of L2TP over IP, which it
// does once Socket has loaded the module.
func loaded(f family) bool {
	b, err := os.ReadFile("/proc/net/protocols")
	name := "\nL2TP/IP "
	if f.zero.Is6() {
		name = "\nL2TP/IPv6 "
	}
	return err == nil && strings.Contains(string(b), name)
}

// ExamplePacket shows how a data message is read: what its Payload begins with
// depends on the encapsulation.
func ExamplePacket() {
	for _, p := range []transport.Packet{
		{Path: control.Path{Encapsulation: l2tpv3.UDP}, Payload: []byte("\x00\x03\x00\x00\x00\x00\x00\x07a frame")},
		{Path: control.Path{Encapsulation: l2tpv3.IP}, Payload: []byte("\x00\x00\x00\x07a frame")},
	} {
		header, frame, err := l2tpv3.ParseData(p.Payload, p.Path.Encapsulation, 0, l2tpv3.SublayerNone)
		fmt.Println(p.Path.Encapsulation, header.SessionID, string(frame), err)
	}
	// Output:
	// udp 7 a frame <nil>
	// ip 7 a frame <nil>
}
