package transport_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// lcce is a site: a control machine with its transport, in a namespace.
type lcce struct {
	t    *testing.T
	ns   *netlab.Namespace
	link *netlab.Link
	addr netip.Addr
	tr   *transport.Transport
	e    *control.Endpoint
}

// twoLCCEs are connected by a wire, with the addresses of a network.
func twoLCCEs(t *testing.T, network string, mtu int) (a, b *lcce) {
	lab := netlab.New(t)
	a, b = &lcce{t: t, ns: lab.Namespace("dc1")}, &lcce{t: t, ns: lab.Namespace("dc2")}
	for _, x := range []*lcce{a, b} {
		x.ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	a.link, b.link = lab.Veth(a.ns, "wan0", b.ns, "wan0")
	prefix := netip.MustParsePrefix(network)
	a.addr = prefix.Addr().Next()
	b.addr = a.addr.Next()
	for _, x := range []*lcce{a, b} {
		x.link.MTU(mtu).Addr(netip.PrefixFrom(x.addr, prefix.Bits()).String()).Up()
	}
	a.link.Operational()
	b.link.Operational()
	for _, x := range []*lcce{a, b} {
		if x.addr.IsLinkLocalUnicast() {
			x.addr = x.addr.WithZone("wan0")
		}
		x.open()
	}
	return a, b
}

// open starts the site, or starts it again.
func (x *lcce) open() {
	x.t.Helper()
	x.do(func() (err error) { x.tr, err = transport.Open(transport.Options{}); return err })
	tr := x.tr
	x.t.Cleanup(func() { tr.Close() })
	x.do(func() error { return x.tr.SetEndpoints(overIP(x.addr)) })
	x.e = control.New(control.Config{Random: rand.Reader, Timers: control.Timers{
		OpenDelay: 20 * time.Millisecond, Retransmit: 500 * time.Millisecond,
	}})
}

func (x *lcce) do(f func() error) {
	x.t.Helper()
	if err := x.ns.Do(f); err != nil {
		x.t.Fatalf("%s: %v", x.ns.Name, err)
	}
}

// settle carries out what the control machine asks for.
func (x *lcce) settle() {
	x.t.Helper()
	x.do(func() error {
		for {
			out, ok := x.e.Next()
			if !ok {
				return nil
			}
			var err error
			switch out := out.(type) {
			case *control.Transmit:
				err = x.tr.Transmit(*out)
				x.e.Recycle(out.Payload)
			case *control.Connected:
				err = x.tr.Connect(*out)
			case *control.Released:
				x.tr.Release(out.Connection)
			}
			if err != nil {
				return err
			}
		}
	})
}

// until lets the sites run, for as long as done gives what is missing.
func until(t *testing.T, missing func() string, sites ...*lcce) {
	t.Helper()
	deadline := time.Now().Add(3 * patience)
	for {
		for _, x := range sites {
			x.e.Advance(time.Now())
			x.settle()
		}
		what := missing()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		wait := 50 * time.Millisecond
		for _, x := range sites {
			if d, ok := x.e.Deadline(); ok {
				wait = min(wait, max(0, time.Until(d)))
			}
		}
		var x *lcce
		select {
		case <-sites[0].tr.Ready():
			x = sites[0]
		case <-sites[len(sites)-1].tr.Ready():
			x = sites[len(sites)-1]
		case <-time.After(wait):
			continue
		}
		p, ok := x.tr.Take()
		if !ok {
			continue
		}
		if !p.Control {
			t.Fatalf("data of %v", p.Path.Remote)
		}
		x.e.Receive(time.Now(), control.Datagram{Path: p.Path, Payload: p.Payload})
		x.settle()
	}
}

// up says which session of a site's is not.
func (x *lcce) up() string {
	for _, s := range x.e.Sessions() {
		if !s.Up() {
			return fmt.Sprintf("session %s of %s at %s: %v, %s", s.Session.Name, s.Session.Tunnel, x.ns.Name, s.State, s.Reason)
		}
	}
	return ""
}

var tunnels = []string{"gold", "silver", "tin", "lead"}

const (
	sessionsEach  = 3
	authenticated = "gold"
	secret        = "correct horse"
)

// configure gives the site tunnels to the peer, with sessions.
func (x *lcce) configure(peer *lcce, names ...string) {
	x.t.Helper()
	now := time.Now()
	for _, name := range names {
		c := control.Tunnel{
			Name: name, Encapsulation: l2tpv3.IP, Local: x.addr, Remote: peer.addr,
			HostName: name + "." + x.ns.Name, RouterID: uint32(slices.Index(tunnels, name) + 1), PeerHostName: name + "." + peer.ns.Name,
			Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet}, Hello: 300 * time.Millisecond,
		}
		if name == authenticated {
			c.Secrets = [][]byte{[]byte(secret)}
		}
		if err := x.e.SetTunnel(now, c); err != nil {
			x.t.Fatal(err)
		}
		for n := range sessionsEach {
			end := fmt.Sprintf("pw%d", n)
			err := x.e.SetSession(now, control.Session{
				Tunnel: name, Name: end, Type: l2tpv3.Ethernet, RemoteEndID: []byte(end),
				CookieLength: 8, Circuit: l2tpv3.CircuitActive,
			})
			if err != nil {
				x.t.Fatal(err)
			}
		}
	}
}

// TestControlConnectionsIP: two control machines open several control connections
// between the same two addresses at once, over real sockets, keep them with
// HELLO over a restart, and close them; tshark reads what was on the wire.
func TestControlConnectionsIP(t *testing.T) {
	for _, network := range []string{"192.0.2.0/24", "2001:db8::/64", "fe80::/64"} {
		t.Run(network, func(t *testing.T) {
			a, b := twoLCCEs(t, network, 1500)
			wire, err := a.link.Capture(netlab.CaptureOptions{Outgoing: true, Keep: isL2TP})
			if err != nil {
				t.Fatal(err)
			}
			// One after the other, or tshark mistakes the SCCRQ's nonces: it tells
			// those over IP apart by their addresses.
			a.configure(b, authenticated)
			until(t, func() string {
				if b.tr.Counters().ReceivedControl == 0 {
					return "SCCRQ"
				}
				return ""
			}, a)
			b.configure(a, authenticated)
			p := receive(t, b.tr)
			b.e.Receive(time.Now(), control.Datagram{Path: p.Path, Payload: p.Payload})
			until(t, func() string { return a.up() + b.up() }, a, b)
			a.configure(b, tunnels...)
			b.configure(a, tunnels...)
			until(t, func() string { return a.up() + b.up() }, a, b)

			ids := map[uint32]uint32{}
			for _, c := range b.e.Connections() {
				ids[c.LocalID] = c.RemoteID
			}
			for _, c := range a.e.Connections() {
				if c.State != control.ConnectionEstablished || ids[c.RemoteID] != c.LocalID ||
					c.Path != pathIP(a.addr, b.addr) || c.Authenticated != (c.Tunnel.Name == authenticated) {
					t.Errorf("tunnel %s: %+v", c.Tunnel.Name, c)
				}
			}
			if len(ids) != len(tunnels) {
				t.Errorf("%d connections, want %d", len(ids), len(tunnels))
			}

			restart(t, a, b)
			numbers := func() map[string][2]uint16 {
				m := map[string][2]uint16{}
				for _, c := range a.e.Connections() {
					m[c.Tunnel.Name] = [2]uint16{c.Ns, c.Nr}
				}
				return m
			}
			before := numbers()
			until(t, func() string {
				for name, n := range numbers() {
					if n[0] == before[name][0] && n[1] == before[name][1] {
						return "HELLO on " + name
					}
				}
				return ""
			}, a, b)
			for _, c := range a.e.Connections() {
				if c.State != control.ConnectionEstablished || ids[c.RemoteID] != c.LocalID {
					t.Errorf("after the restart, tunnel %s: %v %s", c.Tunnel.Name, c.State, c.Reason)
				}
			}

			for _, name := range tunnels {
				a.e.RemoveTunnel(time.Now(), name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
			}
			until(t, func() string {
				for _, c := range b.e.Connections() {
					if c.State == control.ConnectionEstablished {
						return "StopCCN on " + c.Tunnel.Name
					}
				}
				return ""
			}, a, b)
			for _, x := range []*lcce{a, b} {
				if c := x.tr.Counters(); c.ReceivedData != 0 || c.Malformed != 0 || c.TransmitFailed != 0 || c.DroppedControl != 0 {
					t.Errorf("%s: %+v", x.ns.Name, c)
				}
			}
			frames, err := wire.Stop()
			if err != nil {
				t.Fatal(err)
			}
			readBack(t, frames)
		})
	}
}

// restart ends the site and starts it with the state that it saved.
func restart(t *testing.T, x, peer *lcce) {
	t.Helper()
	machine, err := json.Marshal(x.e.Save())
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := json.Marshal(x.tr.Save())
	if err != nil {
		t.Fatal(err)
	}
	x.tr.Close()
	x.open()
	var state control.State
	var saved transport.State
	if err := errors.Join(json.Unmarshal(machine, &state), json.Unmarshal(sockets, &saved)); err != nil {
		t.Fatal(err)
	}
	x.do(func() error { return x.tr.Restore(saved) })
	if err := x.e.Restore(time.Now(), state); err != nil {
		t.Fatal(err)
	}
	x.configure(peer, tunnels...) // secrets are not saved
	x.settle()
}

// isL2TP selects packets of protocol 115.
func isL2TP(f *netlab.Frame) bool {
	const ethernet = 14
	if len(f.Data) <= ethernet+20 {
		return false
	}
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case unix.ETH_P_IP:
		return f.Data[ethernet+9] == l2tpv3.Protocol
	case unix.ETH_P_IPV6:
		return f.Data[ethernet+6] == l2tpv3.Protocol
	}
	return false // ARP has a MAC address there, which may be anything
}

// readBack has another implementation read the wire: each packet is a control
// message over IP, whole, with a right digest where there is one, of class CS6
// and free to be fragmented.
func readBack(t *testing.T, frames []netlab.Frame) {
	t.Helper()
	rows := tshark(t, frames, "l2tp.type", "l2tp.version", "l2tp.avp.message_type", "_ws.malformed", "l2tp.incorrect_digest",
		"ip.dsfield.dscp", "ipv6.tclass.dscp", "ip.flags.df")
	types := map[string]int{}
	for i, r := range rows {
		if r[0] != "1" || r[1] != "3" || r[3] != "" || r[4] != "" || r[5]+r[6] != "48" || r[7] != "0" && r[6] == "" {
			t.Errorf("packet %d: %q", i, r)
		}
		types[r[2]]++
	}
	// Message types of RFC 3931, Section 3.1: SCCRQ, SCCRP, SCCCN, StopCCN, HELLO, ICRQ, ICRP, ICCN.
	for _, kind := range []string{"1", "2", "3", "4", "6", "10", "11", "12"} {
		if types[kind] == 0 {
			t.Errorf("no message of type %s among %v", kind, types)
		}
	}
	t.Logf("%d packets, by message type: %v", len(rows), types)
}

// tshark reads frames and returns the fields asked for of each.
func tshark(t *testing.T, frames []netlab.Frame, fields ...string) (rows [][]string) {
	t.Helper()
	_, err := exec.LookPath("tshark")
	netlab.Missing(t, "tshark", err)
	name := filepath.Join(t.TempDir(), "wire.pcap")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlab.WritePcap(f, frames), f.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"-n", "-r", name, "-o", "l2tp.shared_secret:" + secret, "-T", "fields", "-E", "separator=/t"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.CommandContext(ctx, "tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	if len(rows) != len(frames) || len(rows) == 0 {
		t.Fatalf("tshark read %d packets of %d", len(rows), len(frames))
	}
	return rows
}

// TestFragmentsIP: a control message larger than the path goes in fragments, and a
// data message that came in fragments is given on whole, once.
func TestFragmentsIP(t *testing.T) {
	for _, network := range []string{"192.0.2.0/24", "2001:db8::/64"} {
		t.Run(network, func(t *testing.T) {
			a, b := twoLCCEs(t, network, 1280)
			wire, err := b.link.Capture(netlab.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			big := message(0, strings.Repeat("x", 10000))
			a.do(func() error {
				return a.tr.Transmit(control.Transmit{Connection: 1, Initiator: true, Path: pathIP(a.addr, b.addr), Payload: []byte(big)})
			})
			expectIP(t, b.tr, 0, b.addr, a.addr, big, true)
			frames, err := wire.Stop()
			if err != nil {
				t.Fatal(err)
			}
			large := 0
			for _, f := range frames {
				if len(f.Data) > 14+1280 {
					t.Errorf("a frame of %d octets", len(f.Data))
				}
				if len(f.Data) > 1200 {
					large++
				}
			}
			if large < 8 {
				t.Errorf("%d fragments", large)
			}

			frame := dataOf(7, strings.Repeat("y", 3000))
			a.do(func() error { return sendRaw(a.addr, b.addr, frame) })
			expectIP(t, b.tr, 0, b.addr, a.addr, frame, false)
			if got, want := b.tr.Counters(), (transport.Counters{ReceivedControl: 1, ReceivedData: 1}); got != want {
				t.Errorf("counters %+v, want %+v", got, want)
			}
		})
	}
}

// sendRaw sends one packet of protocol 115.
func sendRaw(from, to netip.Addr, payload string) error {
	network := "ip4:115"
	if from.Is6() {
		network = "ip6:115"
	}
	c, err := net.ListenPacket(network, from.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo([]byte(payload), &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	return err
}

// TestManyAddressesIP: addresses of one host keep to themselves, and each family
// to its own.
func TestManyAddressesIP(t *testing.T) {
	a, b := twoLCCEs(t, "192.0.2.0/24", 1500)
	six := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	for i, x := range []*lcce{a, b} {
		x.link.Addr(six[i].String()+"/64", fmt.Sprintf("192.0.2.%d/24", 11+i))
	}
	second := netip.MustParseAddr("192.0.2.12")
	b.do(func() error { return b.tr.SetEndpoints(overIP(b.addr, second, six[1])) })
	for id, to := range []netip.Addr{b.addr, second, six[1]} {
		from := a.addr
		if to.Is6() {
			from = six[0]
		}
		a.do(func() error {
			return a.tr.Transmit(control.Transmit{
				Connection: uint32(id + 1), Initiator: true, Path: pathIP(from, to), Payload: []byte(message(0, "SCCRQ")),
			})
		})
		expectIP(t, b.tr, 0, to, from, message(0, "SCCRQ"), true)
	}
	if c := b.tr.Counters(); c.ReceivedControl != 3 {
		t.Errorf("counters %+v", c)
	}
}
