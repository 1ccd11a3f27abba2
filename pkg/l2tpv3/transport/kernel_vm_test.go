//go:build vm

package transport_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// Commands, attributes and values of the generic netlink family "l2tp" (linux/l2tp.h).
const (
	tunnelCreate  = 1
	sessionCreate = 5

	pwType        = 1
	encapType     = 2
	l2specType    = 5
	protoVersion  = 7
	ifName        = 8
	connID        = 9
	peerConnID    = 10
	sessionID     = 11
	peerSessionID = 12
	socketFD      = 23

	encapIP    = 1
	l2specNone = 0
	pwEthernet = 5
)

// kernelL2TP runs f with the kernel's L2TP of the site, by generic netlink.
func (x *lcce) kernelL2TP(f func(request func(command uint8, attributes func(*netlink.AttributeEncoder)) error) error) {
	x.t.Helper()
	x.do(func() error {
		conn, err := genetlink.Dial(nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		family, err := conn.GetFamily("l2tp")
		if err != nil {
			return err
		}
		return f(func(command uint8, attributes func(*netlink.AttributeEncoder)) error {
			e := netlink.NewAttributeEncoder()
			attributes(e)
			data, err := e.Encode()
			if err != nil {
				return err
			}
			_, err = conn.Execute(genetlink.Message{
				Header: genetlink.Header{Command: command, Version: 1}, Data: data,
			}, family.ID, netlink.Request|netlink.Acknowledge)
			return err
		})
	})
}

// carry has the kernel carry a session of the connection, its number in all IDs,
// and gives its device an address.
func (x *lcce) carry(connection uint32, addr string) {
	x.t.Helper()
	device := fmt.Sprintf("l2tpeth%d", connection)
	x.kernelL2TP(func(request func(uint8, func(*netlink.AttributeEncoder)) error) error {
		fd, err := x.tr.Socket(connection)
		if err != nil {
			return err
		}
		if again, err := x.tr.Socket(connection); again != fd || err != nil {
			return fmt.Errorf("the socket is %d and then %d, %v", fd, again, err)
		}
		err = request(tunnelCreate, func(e *netlink.AttributeEncoder) {
			e.Uint32(connID, connection)
			e.Uint32(peerConnID, connection)
			e.Uint8(protoVersion, 3)
			e.Uint16(encapType, encapIP)
			e.Int32(socketFD, int32(fd))
		})
		if err != nil {
			return fmt.Errorf("tunnel create: %w", err)
		}
		err = request(sessionCreate, func(e *netlink.AttributeEncoder) {
			e.Uint32(connID, connection)
			e.Uint32(sessionID, connection)
			e.Uint32(peerSessionID, connection)
			e.Uint16(pwType, pwEthernet)
			e.Uint8(l2specType, l2specNone)
			e.String(ifName, device)
		})
		if err != nil {
			return fmt.Errorf("session create: %w", err)
		}
		return nil
	})
	// Only what a test sends crosses the session: no router solicitations, no multicast reports.
	x.ns.Sysctl("net.ipv6.conf."+device+".disable_ipv6", "1")
	x.ns.Link(device).Addr(addr).Up()
}

// ping goes from one site through its peer's session.
func ping(t *testing.T, from *lcce, to string, size, count int) {
	t.Helper()
	r, err := from.ns.Ping(t.Context(), netip.MustParseAddr(to), netlab.PingOptions{Size: size, Count: count, Timeout: 10 * time.Second})
	if err != nil || r.Lost() != 0 {
		t.Errorf("ping %s with %d octets: %d of %d lost, %v", to, size, r.Lost(), r.Sent, err)
	}
}

// hello sends a control message each way, which arrives once.
func (x *lcce) hello(peer *lcce, connection uint32, text string) {
	x.t.Helper()
	for _, s := range [][2]*lcce{{x, peer}, {peer, x}} {
		from, to := s[0], s[1]
		before := to.tr.Counters().ReceivedControl
		from.do(func() error {
			return from.tr.Transmit(control.Transmit{
				Connection: connection, Path: pathIP(from.addr, to.addr), Payload: []byte(message(connection, text)),
			})
		})
		expectIP(x.t, to.tr, connection, to.addr, from.addr, message(connection, text), true)
		if n := to.tr.Counters().ReceivedControl - before; n != 1 {
			x.t.Errorf("the message arrived %d times", n)
		}
	}
}

// connected are two sites with established connections, numbered from 1.
func connected(t *testing.T, network string, connections uint32) (a, b *lcce) {
	a, b = twoLCCEs(t, network, 1500)
	for id := range connections {
		a.connect(b, id+1, true)
		b.connect(a, id+1, false)
	}
	return a, b
}

func (x *lcce) connect(peer *lcce, connection uint32, initiator bool) {
	x.t.Helper()
	x.do(func() error {
		return x.tr.Connect(control.Connected{Connection: connection, Initiator: initiator, Path: pathIP(x.addr, peer.addr)})
	})
}

var networks = []string{"192.0.2.0/24", "2001:db8::/64"}

// l2tpTunnels is how many tunnels the kernel has at the site.
func (x *lcce) l2tpTunnels() int {
	x.t.Helper()
	out, err := x.ns.Run(x.t.Context(), "ip", "l2tp", "show", "tunnel")
	if err != nil {
		x.t.Fatal(err)
	}
	return strings.Count(out, "Tunnel ")
}

// TestKernelSocket: the kernel carries the sessions of two connections between
// the same addresses over the sockets of Socket, while control messages go the
// way they always do.
func TestKernelSocket(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			a, b := connected(t, network, 3)
			for _, x := range []*lcce{a, b} {
				x.do(func() error { return x.tr.SetDataSessions(nil) })
			}
			a.hello(b, 1, "before")
			a.carry(1, "10.0.1.1/24")
			b.carry(1, "10.0.1.2/24")
			a.carry(2, "10.0.2.1/24")
			b.carry(2, "10.0.2.2/24")
			ping(t, a, "10.0.1.2", 56, 3)
			ping(t, a, "10.0.2.2", 56, 3)
			ping(t, a, "10.0.1.2", 1400, 3)
			ping(t, b, "10.0.2.1", 4000, 3) // in fragments, inner and outer
			for id := range uint32(3) {
				a.hello(b, id+1, "with sessions") // the third without a socket
			}
			r, err := a.ns.Transfer(t.Context(), b.ns, netip.MustParseAddr("10.0.1.2"), 4<<20)
			if err != nil || !r.Same() {
				t.Errorf("transfer: %+v, %v", r, err)
			}
			a.hello(b, 1, "after much data")
			for _, x := range []*lcce{a, b} {
				want := transport.Counters{ReceivedControl: 5, Transmitted: 5}
				if got := x.tr.Counters(); got != want {
					t.Errorf("%s: counters %+v, want %+v", x.ns.Name, got, want)
				}
				if n := x.l2tpTunnels(); n != 2 {
					t.Errorf("%s: %d tunnels", x.ns.Name, n)
				}
			}

			// The kernel's tunnel ends with the connection.
			a.do(func() error { a.tr.Release(2); return nil })
			waitTunnels(t, a, 1)
			ping(t, a, "10.0.1.2", 56, 1)
		})
	}
}

// waitTunnels waits for the kernel, which removes tunnels in its own time.
func waitTunnels(t *testing.T, x *lcce, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); x.l2tpTunnels() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%s has %d tunnels, want %d", x.ns.Name, x.l2tpTunnels(), want)
		}
	}
}

// TestKernelData: of what the kernel takes, the sockets have copies; they are kept
// out unless their session is asked for.
func TestKernelData(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			a, b := connected(t, network, 2)
			admit := func(ids ...uint32) { b.do(func() error { return b.tr.SetDataSessions(ids) }) }
			admit(3)
			for id := range uint32(2) {
				a.carry(id+1, fmt.Sprintf("10.0.%d.1/24", id+1))
				b.carry(id+1, fmt.Sprintf("10.0.%d.2/24", id+1))
			}
			const pings = 3
			traffic := func() {
				ping(t, a, "10.0.1.2", 56, pings)
				ping(t, a, "10.0.2.2", 56, pings)
			}
			traffic()
			admit()
			traffic()
			admit(1)
			if n := b.tr.Counters().ReceivedData; n != 0 {
				t.Errorf("%d copies that nobody asked for", n)
			}
			traffic()
			for range pings {
				p := receive(t, b.tr)
				if id, err := l2tpv3.DataSessionID(p.Payload, p.Path.Encapsulation); p.Control || id != 1 || err != nil {
					t.Errorf("a copy of session %d, %v", id, err)
				}
			}
		})
	}
}

// TestKernelSocketRestart: after a restart the kernel takes the same connection IDs again.
func TestKernelSocketRestart(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			a, b := connected(t, network, 1)
			b.do(func() error { return b.tr.SetDataSessions(nil) })
			a.carry(1, "10.0.1.1/24")
			b.carry(1, "10.0.1.2/24")
			ping(t, a, "10.0.1.2", 56, 1)
			state := a.tr.Save()
			a.tr.Close()
			waitTunnels(t, a, 0)
			a.open()
			a.do(func() error { return errors.Join(a.tr.Restore(state), a.tr.SetDataSessions(nil)) })
			a.carry(1, "10.0.1.1/24")
			ping(t, a, "10.0.1.2", 56, 1)
			a.hello(b, 1, "after the restart")
		})
	}
}

// TestKernelSocketInVRF: an address in a VRF is none for the kernel's sockets of L2TP over IP, and that is told.
func TestKernelSocketInVRF(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			a, _ := connected(t, network, 1)
			bits, second := network[strings.Index(network, "/"):], netip.MustParsePrefix(network).Addr().Next().Next().Next().Next()
			if out, err := a.ns.Run(t.Context(), "sh", "-ec", `
				ip link add red type vrf table 77
				ip link set red up
				ip link set "$0" master red
				ip address replace "$1" dev "$0"
				ip address add "$2" dev "$0"`, a.link.Name, a.addr.String()+bits, second.String()+bits); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var err error
			a.do(func() error { _, err = a.tr.Socket(1); return nil })
			if failed := new(transport.Error); !errors.Is(err, transport.ErrNoKernelVRF) || !errors.As(err, &failed) || failed.Connection != 1 {
				t.Errorf("Socket: %v", err)
			}
			// All others can.
			var all []transport.Endpoint
			for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
				all = append(all, transport.Endpoint{Addr: second, Encapsulation: e})
			}
			a.do(func() error { return a.tr.SetEndpoints(all) })
			// When the host has the address outside, too, it is that which is meant.
			if out, err := a.ns.Run(t.Context(), "sh", "-ec", `
				ip link add outside type veth peer name far
				ip link set outside up
				ip address add "$0" dev outside nodad`, second.String()+bits); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			a.do(func() error { return a.tr.SetEndpoints(all) })
			a.do(func() error {
				conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(second, l2tpv3.Port)))
				if err == nil {
					conn.Close()
					t.Error("nobody listens outside")
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Error(err)
				}
				return nil
			})
		})
	}
}

// TestKernelSocketTaken: another tunnel of the kernel has the connection ID.
func TestKernelSocketTaken(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			a, b := connected(t, network, 1)
			tunnel := []string{"l2tp", "add", "tunnel", "tunnel_id", "1", "peer_tunnel_id", "1", "encap", "ip",
				"local", a.addr.String(), "remote", b.addr.String()}
			if out, err := a.ns.Run(t.Context(), "ip", tunnel...); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var err error
			a.do(func() error { _, err = a.tr.Socket(1); return nil })
			if failed := new(transport.Error); !errors.Is(err, transport.ErrConnectionIDInUse) || !errors.As(err, &failed) || failed.Connection != 1 {
				t.Errorf("Socket: %v", err)
			}
			a.hello(b, 1, "all the same")
			if out, err := a.ns.Run(t.Context(), "ip", "l2tp", "del", "tunnel", "tunnel_id", "1"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			a.do(func() error { _, err = a.tr.Socket(1); return err })
		})
	}
}
