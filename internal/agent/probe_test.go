package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// A path that does not carry what it is taken for, while nobody says so, is found out; the
// datapath is told, and people are, and again when it is over.
func TestBlackHoleIsFound(t *testing.T) {
	for _, encapsulation := range []string{"udp", "ip"} {
		t.Run(encapsulation, func(t *testing.T) {
			dc1, dc2 := places(t)
			// What is longer than the receiving end's MTU a veth pair drops.
			mtu := func(n int) {
				if err := dc2.ns.Netlink().LinkSetMTU(dc2.linkBy("eth0"), n); err != nil {
					t.Fatal(err)
				}
			}
			mtu(1400)
			text := strings.Replace(docA, "sites: [dc1, dc2]", "sites: [dc1, dc2], encapsulation: "+encapsulation, 1)
			for _, p := range []*place{dc1, dc2} {
				p.can = everything
				p.change = func(a *Agent) { a.probeWait = 100 * time.Millisecond }
				p.write(text)
				p.start()
			}
			dc1.awaitUp()
			told := func() int {
				dc1.kernel.mu.Lock()
				defer dc1.kernel.mu.Unlock()
				return dc1.kernel.tunnels["gold/dc2"].PathMTU
			}
			// A veth pair allows for a tag.
			const least, most = 1400, 1404
			lookAt(dc1, "the path is known", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.told < least || p.told > most {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if got := told(); got < least || got > most {
				t.Errorf("the datapath was told %d", got)
			}
			if st := dc1.status().Tunnels[0]; st.PathMTU != told() || !st.BlackHole {
				t.Errorf("status: path MTU %d, black hole %v", st.PathMTU, st.BlackHole)
			}
			if events := strings.Join(dc1.told("tunnel gold/dc2"), "\n"); !strings.Contains(events, "warning packets of more than 1400 octets are lost on the way") {
				t.Errorf("told %s", events)
			}
			lookAt(dc2, "the other way is as it was taken for", func(a *Agent) error {
				if p := a.tunnels["gold/dc1"].probe; p.cap != 0 || p.carried != p.believed || p.believed != least {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if encapsulation == "ip" {
				return
			}
			// The next process goes on with it, and does not tell it again.
			dc1.shut()
			dc1.start()
			dc1.do(func() {
				if p := dc1.a.tunnels["gold/dc2"].probe; p.cap != told() || p.told != p.cap {
					t.Errorf("after a restart: %+v", p)
				}
			})
			if got := told(); got < least || got > most {
				t.Errorf("after a restart the datapath was told %d", got)
			}
			dc1.awaitUp()
			mtu(1500)
			lookAt(dc1, "all is carried", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.told != 0 || p.cap != 0 {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if got := told(); got != 0 {
				t.Errorf("then the datapath was told %d", got)
			}
		})
	}
}

// Where `mtu` is set of all that a tunnel carries, and the path is taken to carry packets that
// long, nothing is asked, but for what was found out before: that counts until the peer says otherwise.
func TestMTUStopsTheProbes(t *testing.T) {
	dc1, dc2 := places(t)
	link := func(mtu int) {
		t.Helper()
		if err := dc2.ns.Netlink().LinkSetMTU(dc2.linkBy("eth0"), mtu); err != nil {
			t.Fatal(err)
		}
	}
	link(1400)
	set := func(mtu int) string {
		return strings.Replace(docA, "a: {tunnel: gold", fmt.Sprintf("a: {tunnel: gold, mtu: %d", mtu), 1)
	}
	for _, p := range []*place{dc1, dc2} {
		p.can = everything
		p.change = func(a *Agent) { a.probeWait = 100 * time.Millisecond }
		p.write(set(1300))
		p.start()
	}
	dc1.awaitUp()
	given := func(a *Agent) error {
		switch p := a.tunnels["gold/dc2"].probe; {
		case !p.given, p.cap != 0, p.told != 0, p.size != 0:
			return fmt.Errorf("%+v", p)
		}
		return nil
	}
	lookAt(dc1, "nothing is to be found out", given)
	dc1.do(func() {
		if s := dc1.a.control.ProbeState(dc1.a.tunnels["gold/dc2"].probe.connection); s.Sent != 0 {
			t.Errorf("%d were asked", s.Sent)
		}
	})
	apply := func(text string) {
		t.Helper()
		var both sync.WaitGroup // each waits for the other
		for _, p := range []*place{dc1, dc2} {
			both.Go(func() {
				if _, err := p.apply(text); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		dc1.awaitUp()
	}
	for why, text := range map[string]string{
		"no MTU is set": docA, "the MTU is too long for what the path is taken for": set(1500),
	} {
		link(1400)
		apply(text)
		lookAt(dc1, "it is asked", func(a *Agent) error {
			if p := a.tunnels["gold/dc2"].probe; p.given || p.size == 0 {
				return fmt.Errorf("where %s: %+v", why, p)
			}
			return nil
		})
		dc1.do(func() {
			x := dc1.a.tunnels["gold/dc2"]
			x.probe.cap, x.probe.told = 1400, 1400
			if err := dc1.a.recarry(x); err != nil {
				t.Error(err)
			}
		})
		apply(set(1300))
		for range 3 { // the whole of what there is to find out, and again
			lookAt(dc1, "what was found out counts", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.given || p.cap < 1400 || p.cap > 1404 || p.size != 0 {
					return fmt.Errorf("where %s: %+v", why, p)
				}
				return nil
			})
		}
		link(1500)
		lookAt(dc1, "the peer says otherwise", given)
		dc1.kernel.mu.Lock()
		if mtu := dc1.kernel.tunnels["gold/dc2"].PathMTU; mtu != 0 {
			t.Errorf("where %s the datapath has %d still", why, mtu)
		}
		dc1.kernel.mu.Unlock()
	}
}

// What routers say of the path, which anybody can forge, counts for pseudowires whose `mtu` is not set, and not for others:
// then the path is asked about all the same, with packets as long as these send.
func TestForgedICMP(t *testing.T) {
	wire := func(name string, vlan int, more string) string {
		return strings.Replace(wireTo(name, "gold", vlan), "tunnel: gold", "tunnel: gold"+more, 1)
	}
	for _, c := range []struct {
		name, wires  string
		shown, asked int
	}{
		{"set of none", wire("a", 1, ""), 1280, 1280},
		{"set of all", wire("a", 1, ", mtu: 1300") + wire("b", 2, ", mtu: 1400"), 1500, 1500},
		{"set of some", wire("a", 1, ", mtu: 1300") + wire("b", 2, ""), 1280, 1500},
	} {
		t.Run(c.name, func(t *testing.T) {
			dc1, dc2 := places(t)
			for _, p := range []*place{dc1, dc2} {
				p.can = everything
				p.change = func(a *Agent) { a.probeWait = 100 * time.Millisecond }
				p.write(topo(gold, c.wires))
				p.start()
			}
			dc1.awaitUp()
			local, remote := dc1.status().Tunnels[0].Local, dc1.status().Tunnels[0].Remote
			dc1.poll("the kernel believes what was forged", func() error {
				err := dc2.ns.Do(func() error {
					from, to := netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
					return netlab.SendTooBig(to.Addr(), unix.IPPROTO_ICMP, netip.AddrPortFrom(from.Addr(), 0), netip.AddrPortFrom(to.Addr(), 0), 600)
				})
				if err != nil {
					return err
				}
				routes, err := dc1.ns.Netlink().RouteGet(netip.MustParseAddrPort(remote).Addr().AsSlice())
				if err == nil && routes[0].MTU != 600 {
					err = fmt.Errorf("%+v", routes)
				}
				return err
			})
			dc1.do(dc1.a.lookAtPaths)
			if mtu := dc1.status().Tunnels[0].PathMTU; mtu != c.shown {
				t.Errorf("the path's MTU is shown as %d, want %d", mtu, c.shown)
			}
			lookAt(dc1, "it is known what the path carries", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.believed != c.asked || p.cap != 0 || !p.given && p.carried != c.asked {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			dc1.kernel.mu.Lock()
			defer dc1.kernel.mu.Unlock()
			for name, p := range dc1.kernel.pseudowires {
				if ignores := p.MTU != 0; p.IgnoreICMP != ignores {
					t.Errorf("pseudowire %s of MTU %d: not to heed routers: %v", name, p.MTU, p.IgnoreICMP)
				}
			}
		})
	}
}

// What routers say of a path that `mtu` is set for has the peer asked, whose answers count: what was forged changes nothing, a smaller
// link is found and has longer packets leave in fragments, also after a restart, until as long ones are answered again.
func TestRoutersAreChecked(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		text := topo(gold, strings.Replace(wireTo("a", "gold", 1), "tunnel: gold", "tunnel: gold, mtu: 1400", 1))
		d := newDuo(t, dir, text)
		defer d.shut()
		d.begin(t, text)
		// after is what is so after a while, at both ends.
		after := func(what string, wait time.Duration, cap int, given bool) {
			t.Helper()
			settle(wait)
			for v, key := range map[*virtual]string{d.dc1: "gold/dc2", d.dc2: "gold/dc1"} {
				st, err := v.a.Tunnels(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				heard := what == "a smaller link" // until the kernel forgets it
				if cap != 0 && (st[0].PathMTU != cap || st[0].BlackHole == heard) {
					t.Errorf("%s, %s: path MTU %d, black hole %v", v.site, what, st[0].PathMTU, st[0].BlackHole)
				}
				err = v.a.do(t.Context(), func() {
					if p := v.a.tunnels[key].probe; p.cap != cap || p.told != cap || p.given != given {
						t.Errorf("%s, %s: %+v, want a cap of %d", v.site, what, p, cap)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				v.ebpf.mu.Lock()
				if got := v.ebpf.tunnels[key].PathMTU; got != cap {
					t.Errorf("%s, %s: the datapath was told %d, want %d", v.site, what, got, cap)
				}
				v.ebpf.mu.Unlock()
			}
		}
		after("nothing is heard", 0, 0, true)
		d.dc1.ether.path(1500, 1280)
		after("forged", time.Minute, 0, false)
		d.dc1.ether.path(1500, 0)
		after("forged once", 2*probeAgain, 0, true)
		d.dc1.ether.path(1420, 1420)
		after("a smaller link", time.Minute, 1420, false)
		d.dc1.ether.path(1420, 0)
		after("the kernel has forgotten", 3*probeAgain, 1420, false)
		d.dc1.shut()
		if err := d.dc1.start(); err != nil {
			t.Fatal(err)
		}
		after("after a restart", time.Second, 1420, false)
		after("and later", time.Minute, 1420, false)
		d.dc1.ether.path(1500, 0)
		after("the link has gone", 3*probeAgain, 0, true)
	})
}

// lookAt has a daemon look at its paths until cond is nil. Answers that are there count at
// once, and a path that was not answered in time, on a busy machine, is looked at once more.
func lookAt(p *place, what string, cond func(*Agent) error) {
	p.t.Helper()
	p.poll(what, func() (err error) {
		p.do(func() {
			for _, t := range p.a.tunnels {
				if p.a.control.ProbeState(t.probe.connection).Answers > 0 || t.probe.size == 0 {
					t.probe.next = time.Time{}
				}
			}
			p.a.probePaths(time.Now())
			err = cond(p.a)
		})
		return err
	})
}

// A path of any round trip, that loses some packets besides those that are too long for it,
// is taken for what it is, or for nothing new: an answer that comes late counts for no other
// length than its own. A path that a cap was found of takes two answers to be believed again.
func TestProbesOfSlowPaths(t *testing.T) {
	type path struct {
		carries int
		trip    time.Duration
		// one in loss is lost besides, 0 is none.
		loss int
		// stray is an acknowledgment of something else, once.
		stray bool
	}
	random := rand.New(rand.NewPCG(1, 2))
	// run looks at a path as often as it takes, and gives the cap in the end.
	run := func(x path, cap int, wait time.Duration) int {
		p := &pathProbe{believed: 1500, cap: cap}
		var s control.ProbeState
		var answers []time.Time // on their way
		asked, sent := 0, time.Unix(0, 0)
		for now := sent; ; now = now.Add(100 * time.Millisecond) {
			if now.Sub(sent) > 10*time.Minute {
				t.Fatalf("%+v: no end", x)
			}
			for len(answers) > 0 && !now.Before(answers[0]) {
				if answers = answers[1:]; s.Answers < s.Sent {
					s.Answers++
				}
			}
			if now.Before(p.next) {
				continue
			}
			if p.look(now, wait, s) {
				if found, known := p.finds(); known {
					p.cap = found
				}
			}
			if p.size == 0 {
				return p.cap
			}
			if now.Before(p.next) {
				continue
			}
			if p.size != asked {
				asked, s = p.size, control.ProbeState{Valid: true}
			}
			s.Sent++
			p.tries, p.asked, p.next = p.tries+1, now, now.Add(wait)
			if x.stray {
				x.stray = false
				answers = append(answers, now)
			}
			if p.size <= x.carries && (x.loss == 0 || random.IntN(x.loss) > 0) {
				answers = append(answers, now.Add(x.trip))
			}
		}
	}
	const s = time.Second
	if got := run(path{carries: 1400, stray: true}, 1400, s); got != 1400 {
		t.Errorf("one stray acknowledgment, and the cap of 1400 is %d", got)
	}
	for _, trip := range []time.Duration{0, s / 10, s, 3 * s / 2, 19 * s / 10, 3 * s} {
		for _, carries := range []int{1280, 1300, 1400, 1492, 1500} {
			for _, cap := range []int{0, 1280, 1400} {
				for _, loss := range []int{0, 10, 3} {
					x := path{carries: carries, trip: trip, loss: loss}
					// What has been measured of the round trip, and nothing yet.
					for _, wait := range []time.Duration{max(s, probeRounds*trip), s} {
						if trip > 2*s && wait == s {
							continue // HELLOs are repeated then, and nothing is asked
						}
						want := carries
						if carries == 1500 {
							want = 0
						}
						for range 20 {
							got := run(x, cap, wait)
							tooLong := got > carries || got == 0 && want != 0 && cap != 0
							if tooLong && cap <= carries || loss == 0 && got != want {
								t.Fatalf("carries %d, round trip %v, one in %d lost, cap %d before, wait %v: cap %d", carries, trip, loss, cap, wait, got)
							}
						}
					}
				}
			}
		}
	}
}

// A tunnel that is not signalled any more, or to a peer of another make, is not sent fragments
// for what was found out about it before: nobody could be asked whether that still holds.
func TestCapsEndWithTheProbes(t *testing.T) {
	sites := func(foreign string) string {
		return "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: t}\nsites:\n  dc1: {address: 192.0.2.1}\n  dc2: {address: 192.0.2.2" + foreign + "}\n"
	}
	const rest = "pseudowires:\n  a: {tunnel: gold, attach: {dc1: {interface: eth1}, dc2: {interface: eth1}}}\n"
	signalled := sites("") + "tunnels:\n  gold: {sites: [dc1, dc2]}\n" + rest
	for name, text := range map[string]string{
		"static": sites("") + "tunnels:\n  gold: {sites: [dc1, dc2], static: {dc1: {connection-id: 10, port: 5000}, dc2: {connection-id: 20, port: 6000}}}\n" +
			strings.Replace(rest, "attach:", "static: {dc1: {session-id: 100}, dc2: {session-id: 200}}, attach:", 1),
		"foreign": sites(", managed: false") + "tunnels:\n  gold: {sites: [dc1, dc2]}\n" + strings.Replace(rest, "dc2: {interface: eth1}", "dc2: {}", 1),
	} {
		t.Run(name, func(t *testing.T) {
			p := lone(t)
			p.can = everything
			p.write(signalled)
			p.start()
			p.do(func() { p.a.tunnels["gold/dc2"].probe = pathProbe{cap: 1400, told: 1400} })
			if _, err := p.apply(text); err != nil {
				t.Fatal(err)
			}
			p.do(func() {
				if x := p.a.tunnels["gold/dc2"].probe; x != (pathProbe{}) {
					t.Errorf("then: %+v", x)
				}
			})
			p.kernel.mu.Lock()
			defer p.kernel.mu.Unlock()
			if x, ok := p.kernel.tunnels["gold/dc2"]; name == "static" && !ok || x.PathMTU != 0 {
				t.Errorf("the datapath has %+v", x)
			}
		})
	}
}
