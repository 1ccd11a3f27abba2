package control

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var (
	seedFlag = flag.Uint64("seed", 0, "replay the one simulated run with this seed")
	runsFlag = flag.Int("runs", 0, "simulated runs per test; 0 is what fits the normal test")
)

// runs calls run for a number of seeds, or for the one that is to be replayed.
// A run that fails names its seed.
func runs(t *testing.T, normal int, run func(t testing.TB, seed uint64)) {
	if *seedFlag != 0 {
		seededRun(t, *seedFlag, run)
		return
	}
	if *runsFlag != 0 {
		normal = *runsFlag
	} else if testing.Short() {
		normal = max(1, normal/10)
	}
	for seed := uint64(1); seed <= uint64(normal) && !t.Failed(); seed++ {
		seededRun(t, seed, run)
	}
}

// seededRun is one run. It says with every failure how to see it again, a panic included.
func seededRun(t *testing.T, seed uint64, run func(t testing.TB, seed uint64)) {
	s := &seeded{TB: t, seed: seed, name: t.Name()}
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprintf("%v\n%s", r, s.replay()))
		}
	}()
	run(s, seed)
}

// seeded is a test with a seed.
type seeded struct {
	testing.TB
	seed uint64
	name string
}

func (s *seeded) Fatalf(format string, args ...any) {
	s.Helper()
	s.TB.Fatalf("%s\n%s", fmt.Sprintf(format, args...), s.replay())
}

func (s *seeded) replay() string {
	return fmt.Sprintf("replay: go test ./pkg/l2tpv3/control -run '^%s$' -seed %d", s.name, s.seed)
}

func (s *seeded) Fatal(args ...any) {
	s.Helper()
	s.Fatalf("%s", fmt.Sprint(args...))
}

// twoTunnels wants what the normal case is: several tunnels between the same two
// addresses, with sessions on each. A quarter of the runs has IP under them, and
// as many have secrets, two of them in one of the tunnels.
func twoTunnels(n *network, change ...func(*Tunnel)) {
	encapsulation := func(t *Tunnel) {}
	if n.rand.IntN(4) == 0 {
		encapsulation = func(t *Tunnel) { t.Encapsulation = l2tpv3.IP }
	}
	one, two := func(t *Tunnel) {}, func(t *Tunnel) {}
	if n.rand.IntN(4) == 0 {
		one = func(t *Tunnel) { t.Secrets, t.Digest = [][]byte{[]byte("gold's")}, l2tpv3.HMACSHA1 }
		two = func(t *Tunnel) { t.Secrets = [][]byte{[]byte("new"), []byte("old")} }
	}
	n.tunnel("gold", append(change, encapsulation, one)...)
	n.tunnel("silver", append(change, encapsulation, two)...)
	n.session("gold", "tenant-a")
	n.session("gold", "tenant-b")
	n.session("silver", "tenant-c")
}

func TestBothEndsOpenAtOnce(t *testing.T) {
	runs(t, 500, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		n.start()
		if !n.until(3*time.Second, n.up) {
			t.Fatal(n.disagreement())
		}
		n.run(10 * time.Minute)
		if !n.up() {
			t.Fatal(n.disagreement())
		}
	})
}

// TestOneStartsLater: whoever comes later finds the other, who may be between two
// attempts or their repetitions, within its own open delay and little more.
func TestOneStartsLater(t *testing.T) {
	runs(t, 300, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		first := n.rand.IntN(2)
		n.hosts[first].start()
		n.run(time.Duration(n.rand.Int64N(int64(5 * time.Minute))))
		n.hosts[1-first].start()
		if !n.until(1500*time.Millisecond, n.up) {
			t.Fatal(n.disagreement())
		}
	})
}

// TestManySessionsOnASlowPath: sessions whose requests wait for long until the peer
// has room for them are not given up (a window of 1, 200 sessions, 2 s to and fro).
func TestManySessionsOnASlowPath(t *testing.T) {
	n := newNetwork(t, 1)
	n.delay = func() time.Duration { return time.Second }
	slow := Timers{Retransmit: 3 * time.Second}
	n.hosts[0].timers, n.hosts[1].timers = slow, slow
	n.tunnel("gold", func(t *Tunnel) { t.ReceiveWindow = 1 })
	for i := range 200 {
		n.session("gold", fmt.Sprint("s", i))
	}
	for _, h := range n.hosts {
		h.check = func(o Output) {
			if o, ok := o.(*SessionChanged); ok && o.Reason == "not established in time" {
				t.Fatalf("%s: %s", h.name, outputText(o))
			}
		}
	}
	n.start()
	if !n.until(time.Hour, n.up) {
		t.Fatal(n.disagreement())
	}
}

// bad makes the network as bad as it gets, a little different in each run:
// up to 40 % loss, a tenth doubled, delays to 10 s that let packets overtake each other.
func (n *network) bad() {
	r := n.rand
	n.loss, n.duplication = r.Float64()*0.4, r.Float64()*0.1
	longest := []time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second}[r.IntN(3)]
	n.delay = func() time.Duration {
		if r.IntN(4) > 0 {
			return time.Duration(r.Int64N(int64(longest/20) + 1))
		}
		return time.Duration(r.Int64N(int64(longest)))
	}
}

// good makes it like a LAN again. What is under way stays so.
func (n *network) good() {
	n.loss, n.duplication = 0, 0
	n.delay = func() time.Duration { return time.Millisecond }
}

// settleTime is how long the two ends may take from any state to agreement, once
// the network is good and both are alive: the longest that either waits for
// anything (a retransmission cycle of 71 s, attempts that run into each other).
const settleTime = 4 * time.Minute

// agree fails unless both ends agree in time, and stay so.
func (n *network) agree() {
	n.t.Helper()
	if !n.until(settleTime, n.up) {
		n.t.Fatalf("no agreement: %s", n.disagreement())
	}
	// What lingers must not disturb.
	n.run(3 * time.Minute)
	if !n.up() {
		n.t.Fatalf("agreed, and then not: %s", n.disagreement())
	}
}

func TestBadNetwork(t *testing.T) {
	runs(t, 600, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		n.bad()
		n.start()
		n.run(time.Duration(n.rand.Int64N(int64(3 * time.Minute))))
		n.good()
		n.agree()
	})
}

// TestBadNetworkComesUp needs no good network: 40 % loss is enough to come up.
func TestBadNetworkComesUp(t *testing.T) {
	runs(t, 200, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		n.bad()
		n.start()
		if !n.until(30*time.Minute, n.up) {
			t.Fatalf("not up with %.0f %% loss: %s", 100*n.loss, n.disagreement())
		}
	})
}

// TestKilledAtAnyMoment kills one of the daemons, or the other, at each step of
// coming up, and starts it again with what it had written.
func TestKilledAtAnyMoment(t *testing.T) { killAtAnyMoment(t, false) }

// TestKilledAndForgotten does so with a daemon that has lost its state.
func TestKilledAndForgotten(t *testing.T) { killAtAnyMoment(t, true) }

func killAtAnyMoment(t *testing.T, lost bool) {
	runs(t, 2, func(t testing.TB, seed uint64) {
		for who := range 2 {
			for moment := 0; ; moment++ {
				n := newNetwork(t, seed)
				twoTunnels(n)
				victim := n.hosts[who]
				n.start()
				victim.crashAfter = victim.steps + moment
				n.run(10 * time.Second)
				if !victim.down {
					if moment < 50 {
						t.Fatalf("only %d moments", moment)
					}
					break
				}
				// The data plane outlives the daemon.
				n.run(time.Duration(n.rand.Int64N(int64(2 * time.Minute))))
				if lost {
					victim.forget()
				}
				victim.start()
				if !n.until(settleTime, n.up) {
					t.Fatalf("%s killed at moment %d: %s", victim.name, moment, n.disagreement())
				}
				n.run(3 * time.Minute)
				if !n.up() {
					t.Fatalf("%s killed at moment %d: up, and then %s", victim.name, moment, n.disagreement())
				}
			}
		}
	})
}

// TestRestartDisturbsNothing kills daemons whose tunnels are up, at any moment,
// for a moment or some seconds: neither end's sessions or connections go, and
// the data plane is not touched.
func TestRestartDisturbsNothing(t *testing.T) {
	runs(t, 200, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		n.start()
		if !n.until(settleTime, n.up) {
			t.Fatal(n.disagreement())
		}
		n.run(time.Duration(n.rand.Int64N(int64(time.Minute))))
		for _, h := range n.hosts {
			h.check = func(o Output) {
				switch o := o.(type) {
				case *ConnectionChanged:
					if o.From != o.To || o.Cause.Kind != CauseSilent && o.Cause.Kind != CauseNone {
						t.Fatalf("%s: %s", h.name, outputText(o))
					} // who is away for seconds is said not to answer
				case *SessionChanged, *RemoveSession:
					t.Fatalf("%s: %s", h.name, outputText(o))
				case *InstallSession:
					if was := h.data[o.LocalID]; outputText(&was) != outputText(o) {
						t.Fatalf("%s: %s, not %s", h.name, outputText(o), outputText(&was))
					}
				}
			}
		}
		for range 10 {
			h := n.hosts[n.rand.IntN(2)]
			h.crashAfter = h.steps + n.rand.IntN(4)
			if n.until(30*time.Second, func() bool { return h.down }) {
				n.run(time.Duration(n.rand.Int64N(int64(10 * time.Second))))
				h.start()
			}
			h.crashAfter = -1
			n.run(time.Duration(n.rand.Int64N(int64(20 * time.Second))))
			if n.rand.IntN(4) == 0 {
				n.hosts[0].apply() // changes nothing
				n.hosts[0].drain()
			}
		}
		n.run(2 * time.Minute)
		if !n.up() {
			t.Fatal(n.disagreement())
		}
	})
}

// TestChaos does everything at once: a bad network, both daemons killed and
// started, with and without their state, sessions and circuits that come and go.
func TestChaos(t *testing.T) {
	runs(t, 300, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		n.bad()
		n.start()
		for range 2 + n.rand.IntN(10) {
			n.run(time.Duration(n.rand.Int64N(int64(time.Minute))))
			n.disturb(n.hosts[n.rand.IntN(2)])
			if n.rand.IntN(4) == 0 {
				n.bad()
			}
		}
		for _, h := range n.hosts {
			h.crashAfter = -1
			if h.down {
				h.start()
			}
			h.apply()
			h.drain()
		}
		n.good()
		n.agree()
	})
}

// disturb does one thing to one host.
func (n *network) disturb(h *host) {
	r := n.rand
	if h.down {
		h.start()
		return
	}
	switch r.IntN(8) {
	case 0:
		h.crashAfter = h.steps + r.IntN(20)
	case 1:
		h.down = true
		h.forget()
	case 2:
		h.e.RemoveTunnel(n.now, h.tunnels[r.IntN(len(h.tunnels))].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNShutdown})
	case 3:
		s := h.sessions[r.IntN(len(h.sessions))]
		h.e.RemoveSession(n.now, s.Tunnel, s.Name, l2tpv3.ResultCode{Result: l2tpv3.CDNAdministrative})
	case 4:
		h.apply()
	case 5:
		h.sessions[r.IntN(len(h.sessions))].Circuit ^= l2tpv3.CircuitActive
		h.apply()
	case 6:
		if ids := slices.Sorted(maps.Keys(h.data)); len(ids) > 0 {
			h.e.InstallFailed(n.now, ids[r.IntN(len(ids))], fmt.Errorf("no such device"))
		}
	case 7:
		h.e.HalfOpenClose(n.now)
		h.drain()
		h.down = true
	}
	if !h.down {
		h.drain()
	}
}
