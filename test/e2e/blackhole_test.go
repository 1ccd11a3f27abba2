package e2e

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// big has files of 1 GiB go through black holes.
var big = flag.Bool("big", false, "send files of 1 GiB through routers that swallow ICMP")

// throughHole joins the sites by a router: what is too long for its far link vanishes in it.
func (w *world) throughHole() (prefix string) {
	router := w.lab.Namespace("router")
	var ends [2]*netlab.Link
	for i, s := range w.sites {
		w.underlay[i], ends[i] = w.lab.Veth(s.NS, "eth0", router, fmt.Sprintf("r%d", i))
		ends[i].Up()
	}
	ends[1].MTU(w.network.hole)
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		router.Sysctl(name, "1")
	}
	for i, end := range ends {
		end.Addr(w.gateway().String() + w.bits())
		w.run(router, "route", "add", w.address[i].String()+w.bits(), "dev", fmt.Sprintf("r%d", i))
	}
	// What the router itself has to say goes nowhere.
	w.run(router, "rule", "add", "iif", "lo", "prio", "10", "blackhole")
	return w.bits()
}

// routes are the sites' to each other.
func (w *world) routes() {
	for _, s := range w.sites {
		w.run(s.NS, "route", "add", w.gateway().String()+w.bits(), "dev", "eth0")
		w.run(s.NS, "route", "add", "default", "via", w.gateway().String(), "dev", "eth0")
	}
}

func (w *world) gateway() netip.Addr {
	if w.network.ipv6 {
		return netip.MustParseAddr("2001:db8::ff")
	}
	return netip.MustParseAddr("192.0.2.254")
}

func (w *world) bits() string { return fmt.Sprintf("/%d", w.gateway().BitLen()) }

func (w *world) run(ns *netlab.Namespace, args ...string) {
	w.t.Helper()
	if w.network.ipv6 {
		args = append([]string{"-6"}, args...)
	}
	if out, err := ns.Run(w.t.Context(), "ip", args...); err != nil {
		w.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// knowsPath waits until the first site knows how long packets may be; the far one knows its link.
func (w *world) knowsPath(mtu int) {
	w.t.Helper()
	if err := netlab.Poll(within(w.t, 3*upWithin), "the path is known", func() error {
		tunnels, err := w.sites[0].Client().Tunnels(w.t.Context())
		for _, v := range tunnels {
			if v.PathMTU != mtu || !v.BlackHole {
				return fmt.Errorf("tunnel %s: path MTU %d, black hole %v", v.Name, v.PathMTU, v.BlackHole)
			}
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// A router that forwards no packet of more than 1400 octets, and does not say so: the
// daemons find out, tell, and frames of all lengths go through, TCP's and others. Where
// `mtu` says what fits nothing has to be found out.
func TestBlackHole(t *testing.T) {
	beside(t)
	const hole = 1400
	size := int64(32 << 20)
	if *big {
		size = 1 << 30
	}
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", ipv6), func(t *testing.T) {
			t.Parallel() // most of the time is waiting for answers that do not come
			w := build(t, network{ipv6: ipv6, hole: hole})
			w.start()
			w.knowsPath(hole)
			if got := w.warnings(w.sites[0].Client(), "tunnel gold/dc2"); got != "packets of more than 1400 octets are lost on the way" {
				t.Errorf("warned of %q", got)
			}
			for _, l := range []*lan{w.a, w.b} {
				w.ping(l, netlab.PingOptions{Count: 3, Size: 1472, DontFragment: true})
				w.ping(l, netlab.PingOptions{Count: 2, Size: 8000})
				f := w.flows(l, netlab.FlowOptions{Rate: steady, Size: 1472})
				f.await(t, steady/5)
				f.stop(t)
			}
			w.transfer(w.a, 0, size)
			w.transfer(w.b, 0, size)
			w.transfer(w.b, 1, size)
		})
		t.Run(fmt.Sprintf("MTU set, IPv6 %v", ipv6), func(t *testing.T) {
			t.Parallel()
			mtu := hole - 20 - 8 - 16 - 14
			if ipv6 {
				mtu -= 20
			}
			w := build(t, network{ipv6: ipv6, hole: hole, lan: mtu})
			w.write(w.text(fmt.Sprintf("mtu: %d", mtu)))
			w.start()
			if fragments := w.watchFragments(func() {
				w.ping(w.a, netlab.PingOptions{Count: 3, Size: mtu - 28, DontFragment: true})
				w.transfer(w.a, 0, size)
				w.transfer(w.b, 1, size)
			}); fragments != 0 {
				t.Errorf("%d fragments", fragments)
			}
		})
	}
}
