package transport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// underlays are what paths are tested on: each family, with each encapsulation.
func underlays(t *testing.T, test func(t *testing.T, a, b *lcce, e l2tpv3.Encapsulation)) {
	for _, network := range []string{"192.0.2.0/24", "2001:db8::/64"} {
		for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
			t.Run(network+" over "+e.String(), func(t *testing.T) {
				a, b := twoLCCEs(t, network, 1500)
				b.do(func() error { return b.tr.SetEndpoints([]transport.Endpoint{{Addr: b.addr, Encapsulation: e}}) })
				test(t, a, b, e)
			})
		}
	}
}

// dynamic is the path of an initiator whose address the routing table chooses.
func dynamic(e l2tpv3.Encapsulation, remote netip.Addr) control.Path {
	p := control.Path{Encapsulation: e, Remote: at(remote, 0)}
	if e == l2tpv3.UDP {
		p.Remote = at(remote, l2tpv3.Port)
	}
	return p
}

// TestDynamicAddressChanges: an attempt goes on from another address when its own has
// gone, before and after a restart; an established connection says that it cannot.
func TestDynamicAddressChanges(t *testing.T) {
	underlays(t, func(t *testing.T, a, b *lcce, e l2tpv3.Encapsulation) {
		send := func() error {
			return a.ns.Do(func() error {
				return a.tr.Transmit(control.Transmit{
					Connection: 1, Initiator: true, Path: dynamic(e, b.addr), Payload: []byte(message(0, "SCCRQ")),
				})
			})
		}
		from := func(want netip.Addr) {
			t.Helper()
			if err := send(); err != nil {
				t.Fatal(err)
			}
			if p := receive(t, b.tr); p.Path.Remote.Addr() != want {
				t.Errorf("sent from %v, want %v", p.Path.Remote, want)
			}
			if local, _, ok := a.tr.Path(1); !ok || local.Addr() != want {
				t.Errorf("the path's local address is %v, want %v", local, want)
			}
		}
		bits := map[bool]string{true: "/24", false: "/64"}[a.addr.Is4()]
		move := func(from, to netip.Addr) {
			t.Helper()
			if out, err := a.ns.Run(t.Context(), "ip", "addr", "del", from.String()+bits, "dev", "wan0"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			a.link.Addr(to.String() + bits)
		}
		first, second, third := a.addr, b.addr.Next(), b.addr.Next().Next()
		from(first)
		move(first, second)
		a.do(a.tr.Refresh)
		from(second)
		state, err := json.Marshal(a.tr.Save())
		if err != nil {
			t.Fatal(err)
		}
		a.tr.Close()
		move(second, third)
		a.do(func() (err error) { a.tr, err = transport.Open(transport.Options{}); return err })
		t.Cleanup(func() { a.tr.Close() })
		var saved transport.State
		if err := json.Unmarshal(state, &saved); err != nil {
			t.Fatal(err)
		}
		a.do(func() error { return a.tr.Restore(saved) })
		from(third)

		p := dynamic(e, b.addr)
		p.Local, _, _ = a.tr.Path(1)
		a.do(func() error { return a.tr.Connect(control.Connected{Connection: 1, Initiator: true, Path: p}) })
		a.do(a.tr.Refresh)
		move(third, first)
		if err := a.ns.Do(a.tr.Refresh); !errors.Is(err, transport.ErrAddressNotPresent) {
			t.Errorf("Refresh of an established connection without its address: %v", err)
		}
		if a.addr.Is4() { // IPv6 sends from addresses that it no longer has
			if err := send(); !errors.Is(err, transport.ErrAddressNotPresent) {
				t.Errorf("Transmit of an established connection without its address: %v", err)
			}
		}
		// The next attempt is another connection.
		a.do(func() error { a.tr.Release(1); return nil })
		from(first)
	})
}

// TestDynamicAddressCrossesRouters: a host that has no address yet to call from, as a new one is looked for on
// others first (RFC 4862, Section 5.4), does not call from one that is of the link only.
func TestDynamicAddressCrossesRouters(t *testing.T) {
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		a, b := twoLCCEs(t, "2001:db8::/64", 1500)
		b.do(func() error { return b.tr.SetEndpoints([]transport.Endpoint{{Addr: b.addr, Encapsulation: e}}) })
		if out, err := a.ns.Run(t.Context(), "ip", "addr", "del", a.addr.String()+"/64", "dev", "wan0"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		a.link.Route("2001:db8::/64", "")
		send := func() error {
			return a.ns.Do(func() error {
				return a.tr.Transmit(control.Transmit{
					Connection: 1, Initiator: true, Path: dynamic(e, b.addr), Payload: []byte(message(0, "SCCRQ")),
				})
			})
		}
		if err := send(); !errors.Is(err, transport.ErrAddressNotPresent) {
			local, _, _ := a.tr.Path(1)
			t.Errorf("over %v from %v: %v", e, local, err)
		}
		a.link.Addr(a.addr.String() + "/64")
		if err := send(); err != nil {
			t.Errorf("over %v: %v", e, err)
		} else if p := receive(t, b.tr); p.Path.Remote.Addr() != a.addr {
			t.Errorf("over %v it was sent from %v", e, p.Path.Remote)
		}
	}
}

// TestDynamicAddressOfALink: an IPv4 address of 169.254.0.0/16 is one like others, as providers number links with them.
func TestDynamicAddressOfALink(t *testing.T) {
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		a, b := twoLCCEs(t, "192.0.2.0/24", 1500)
		b.do(func() error { return b.tr.SetEndpoints([]transport.Endpoint{{Addr: b.addr, Encapsulation: e}}) })
		if out, err := a.ns.Run(t.Context(), "ip", "addr", "del", a.addr.String()+"/24", "dev", "wan0"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		a.link.Addr("169.254.10.2/30")
		a.link.Route("192.0.2.0/24", "")
		b.link.Route("169.254.10.0/30", "")
		err := a.ns.Do(func() error {
			return a.tr.Transmit(control.Transmit{
				Connection: 1, Initiator: true, Path: dynamic(e, b.addr), Payload: []byte(message(0, "SCCRQ")),
			})
		})
		if err != nil {
			t.Errorf("over %v: %v", e, err)
		} else if p := receive(t, b.tr); p.Path.Remote.Addr().String() != "169.254.10.2" {
			t.Errorf("over %v it was sent from %v", e, p.Path.Remote)
		}
	}
}

// TestPathMTU: what the link takes, or less if a router says so, but not less than 1280.
func TestPathMTU(t *testing.T) {
	underlays(t, func(t *testing.T, a, b *lcce, e l2tpv3.Encapsulation) {
		mtu := func(heed bool) (n int) {
			a.do(func() error { n = a.tr.PathMTU(1, heed); return nil })
			return n
		}
		if n := mtu(true); n != 0 {
			t.Errorf("%d without a connection", n)
		}
		p := dynamic(e, b.addr)
		p.Local = at(a.addr, 0)
		a.do(func() error { return a.tr.Connect(control.Connected{Connection: 1, Initiator: true, Path: p}) })
		local, remote, _ := a.tr.Path(1)
		for _, step := range []struct {
			what string
			told uint16
			want int
		}{
			{"as the link is", 0, 1500},
			{"a router says 1400", 1400, 1400},
			{"somebody says 600", 600, map[bool]int{true: 1280, false: 1400}[a.addr.Is4()]}, // IPv6 does not hear it
		} {
			if step.told != 0 {
				tooBig(t, b, local, remote, step.told)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := netlab.Poll(ctx, step.what, func() error {
				if n := mtu(true); n != step.want {
					return fmt.Errorf("it is %d", n)
				}
				return nil
			})
			cancel()
			if err != nil {
				t.Error(err)
			}
			if n := mtu(false); n != 1500 {
				t.Errorf("%s: without what routers say it is %d", step.what, n)
			}
		}
		// What the route says is no message of a router's.
		for _, step := range []struct{ route, link, want int }{{1450, 1500, 1450}, {1600, 1500, 1500}, {0, 1490, 1490}, {1280, 1500, 1280}} {
			a.link.MTU(step.link)
			a.route(b.addr, step.route)
			if n := mtu(false); n != step.want {
				t.Errorf("route %d, link %d: without what routers say it is %d", step.route, step.link, n)
			}
		}
		// None of it is in the way of a message.
		p.Local, p.Remote = local, remote
		for range 3 {
			a.do(func() error {
				return a.tr.Transmit(control.Transmit{Connection: 1, Path: p, Payload: []byte(message(0, "HELLO"))})
			})
			receive(t, b.tr)
		}
	})
}

// route has packets to a peer on the link take a route of their own, with an MTU unless that is 0.
func (a *lcce) route(to netip.Addr, mtu int) {
	args := []string{"route", "replace", to.String(), "dev", "wan0"}
	if mtu != 0 {
		args = append(args, "mtu", strconv.Itoa(mtu))
	}
	a.t.Helper()
	if out, err := a.ns.Run(a.t.Context(), "ip", args...); err != nil {
		a.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// tooBig tells a site that one of its packets was too large for a link on the way
// (RFC 792 and RFC 1191, Section 4; RFC 4443, Section 3.2).
func tooBig(t *testing.T, router *lcce, local, remote netip.AddrPort, mtu uint16) {
	t.Helper()
	protocol := byte(17)
	if local.Port() == 0 {
		protocol = l2tpv3.Protocol
	}
	router.do(func() error { return netlab.SendTooBig(router.addr, protocol, local, remote, mtu) })
}
