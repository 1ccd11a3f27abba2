package loop

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var worlds = flag.Int("worlds", 30, "how many worlds the simulations have")

// Who is joined with whom decides which pseudowires forward.
func TestDecide(t *testing.T) {
	to := func(peers ...string) map[string]bool {
		m := map[string]bool{}
		for _, p := range peers {
			m[strings.TrimPrefix(p, "!")] = p[0] != '!'
		}
		return m
	}
	type joined = map[string]map[string]bool
	for name, tt := range map[string]struct {
		site   string
		peers  map[string]bool
		joined joined
		want   string
	}{
		"nobody is":                      {"a", to("b", "c"), nil, "map[]"},
		"the first by name goes on":      {"a", to("b", "c"), joined{"b": to("a", "c")}, "map[b:b]"},
		"the second leaves it to it":     {"b", to("a", "c"), joined{"a": to("b", "c")}, "map[a:a c:a]"},
		"the first gets through to less": {"b", to("a", "c", "d"), joined{"a": to("b", "!c", "d")}, "map[a:a]"},
		"and knows":                      {"a", to("b", "!c", "d"), joined{"b": to("a", "c", "d")}, "map[b:b c:b d:b]"},
		"to the other it does not":       {"a", to("!b", "c"), joined{"b": to("!a", "c")}, "map[b:b]"},
		"the last of three":              {"c", to("a", "b", "d"), joined{"a": to("b", "c", "d"), "b": to("a", "c", "d")}, "map[a:a b:b d:a]"},
		"two with a hub":                 {"b", to("hub"), joined{"a": to("hub")}, "map[hub:a]"},
		"one and the hub":                {"a", to("hub"), joined{"hub": to("a", "b")}, "map[hub:hub]"},
		"the hub and one":                {"hub", to("a", "b"), joined{"a": to("hub")}, "map[a:a]"},
		"the hub, another, and one":      {"hub", to("a", "b", "c"), joined{"a": to("hub"), "b": to("hub")}, "map[a:a b:b]"},
		"nothing is known but that":      {"b", to("a", "c"), joined{"a": nil}, "map[a:a]"},
	} {
		if got := fmt.Sprint(decide(tt.site, tt.peers, tt.joined)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// transcript drives one guard.
type transcript struct {
	t     *testing.T
	g     *Guard
	now   time.Time
	peers map[string]bool
}

// after lets time pass in which the guard was looked at when it was due, stall in which it was not.
func (x *transcript) after(d time.Duration) *transcript {
	x.g.due = time.Time{}
	return x.stall(d)
}

func (x *transcript) stall(d time.Duration) *transcript { x.now = x.now.Add(d); return x }

func (x *transcript) expect(want string) {
	x.t.Helper()
	v := x.g.Advance(x.now, x.peers)
	var words []string
	for _, p := range slices.Sorted(maps.Keys(x.peers)) {
		switch b, is := v.Blocked[p]; {
		case is && b.Joined != "":
			words = append(words, p+" joined "+b.Joined)
		case is:
			words = append(words, p+" blocked "+b.Until.Sub(x.now).String())
		case v.Held[p]:
			words = append(words, p+" held")
		}
	}
	if v.Probe {
		words = append(words, "probe")
	}
	if got := strings.Join(words, ", "); got != want {
		x.t.Errorf("after %v: %q, want %q", x.now.Sub(time.Unix(0, 0)), got, want)
	}
}

func newTranscript(t *testing.T) *transcript {
	half := func(limit time.Duration) time.Duration { return limit / 2 }
	return &transcript{t, New("b", half), time.Unix(0, 0), map[string]bool{"a": true, "c": true}}
}

// What moves stops the pseudowire for a moment and has probes sent; a probe that is heard decides,
// and as soon as none is heard any more all is as before.
func TestJoined(t *testing.T) {
	x := newTranscript(t)
	x.expect("")
	x.g.Suspect(x.now, "it moves", "c")
	x.expect("c held, probe")
	x.after(100 * time.Millisecond).expect("c held")
	x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
	x.expect("a joined a, c joined a, probe")
	x.g.Suspect(x.now, "on its way still", "c")
	x.after(silence - time.Millisecond).expect("a joined a, c joined a, probe")
	x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true}}, "eth1")
	x.expect("a joined a")
	x.after(silence).expect("probe")
	x.after(silence + time.Millisecond).expect("")
	if x.g.Listens(x.now) {
		t.Error("it listens for nothing")
	}
	if x.after(forget).expect(""); !x.g.Idle(x.now) {
		t.Error("it remembers what is long over")
	}
}

// A site that forwards for others and gets through to nobody any more says so, and another one does with the
// next look: it does not wait until the first is not heard.
func TestLeaving(t *testing.T) {
	x := newTranscript(t)
	x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
	x.expect("a joined a, c joined a, probe")
	x.after(settles)
	x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
	x.expect("a joined a, c joined a, probe")
	x.g.Heard(x.now, Probe{Network: "n", Site: "a"}, "eth1")
	x.expect("a joined a")
}

// Where nobody answers what goes on moving is blocked for a time, longer each time; but not
// if it stops moving in time.
func TestUnheard(t *testing.T) {
	x := newTranscript(t)
	moves := func() { x.g.Suspect(x.now, "it moves", "c") }
	strike := func() {
		moves()
		x.after(Listen)
		moves() // it waits half of maxWait
		x.after(maxWait/2 - time.Millisecond)
		moves()
	}
	strike()
	x.expect("probe")
	x.after(time.Millisecond)
	moves()
	x.expect("c blocked 1m0s")
	x.after(hold).expect("")
	x.after(settles)
	strike()
	x.after(time.Millisecond)
	moves()
	x.expect("c blocked 2m0s, probe")
	x.g.Release("c")
	x.expect("")
	x.after(patience + settles)
	strike()
	x.after(time.Millisecond + calm + 1)
	moves() // too late: somebody else had done something
	x.after(time.Millisecond)
	moves()
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked)+len(v.Held) > 0 {
		t.Errorf("after a calm: %+v", v)
	}
}

// A site that was stopped has heard nothing meanwhile, which is not silence: nothing opens for that.
func TestStalled(t *testing.T) {
	x := newTranscript(t)
	x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
	x.expect("a joined a, c joined a, probe")
	x.stall(time.Hour).expect("a joined a, c joined a, probe")
	x.after(silence).expect("probe")
}

// Only a site that was not heard before is looked at at once; and what probes say changes what is
// blocked at once only to more of it.
func TestProbesDoNotFlap(t *testing.T) {
	x := newTranscript(t)
	hears := func(at bool, port string, reaches ...string) {
		t.Helper()
		p := Probe{Network: "n", Site: "a", Reaches: map[string]bool{}}
		for _, r := range reaches {
			p.Reaches[r] = true
		}
		if got := x.g.Heard(x.now, p, port); got != at {
			t.Errorf("after %v: at once %v, want %v", x.now.Sub(time.Unix(0, 0)), got, at)
		}
	}
	hears(true, "eth1")
	x.expect("a joined a, probe")
	hears(false, "eth1", "b", "c")
	x.expect("a joined a, c joined a")
	for range 3 {
		hears(false, "eth2")
		x.after(settles / 4).expect("a joined a, c joined a, probe")
		hears(false, "eth1", "b", "c")
		x.expect("a joined a, c joined a")
	}
	hears(false, "eth2")
	x.after(settles / 4).expect("a joined a, probe")
	if g := x.g.Heard(x.now, Probe{Network: "n", Site: "b"}, "eth1"); g {
		t.Error("its own probe is news")
	}
}

// A site counts of itself what its probe has room for: two that get through to the same many peers agree.
func TestDecideInALargeNetwork(t *testing.T) {
	all := map[string]bool{}
	for i := range maxReaches + 50 {
		all[fmt.Sprintf("s%03d", i)] = true
	}
	heard := map[string]bool{}
	for _, peer := range told(all) {
		heard[peer] = true
	}
	a := decide("a", all, map[string]map[string]bool{"b": heard})
	b := decide("b", all, map[string]map[string]bool{"a": heard})
	if len(a) != 0 || len(b) != len(all) {
		t.Errorf("a blocks %d, b %d; want 0 and %d", len(a), len(b), len(all))
	}
}

// A loop behind two other sites is theirs to see to: here nothing is held for it, and something is blocked
// only when they had time to.
func TestBystander(t *testing.T) {
	x := newTranscript(t)
	moves := func() { x.g.Suspect(x.now, "it moves", "a", "c") }
	for range int(aside / Listen) {
		moves()
		x.after(Listen)
	}
	moves()
	x.after(Listen - time.Millisecond)
	moves()
	x.after(time.Millisecond)
	moves() // it waits half of maxWait
	x.after(maxWait/2 - time.Millisecond)
	moves()
	x.expect("probe")
	x.after(time.Millisecond)
	moves()
	x.expect("c blocked 1m0s")
}

// What a site sees as a bystander keeps it from nothing that it has to do where a loop is closed behind it.
func TestBystanderAndNot(t *testing.T) {
	x := newTranscript(t)
	x.g.Suspect(x.now, "it moves", "a", "c")
	x.g.Suspect(x.now, "it moves", "c")
	x.expect("c held, probe")
}

// A loop that others have opened, and that is closed again, gives them the same time again.
func TestBystanderOfTwo(t *testing.T) {
	x := newTranscript(t)
	moves := func() { x.g.Suspect(x.now, "it moves", "a", "c") }
	moves()
	x.after(Listen)
	moves()
	x.after(quiet + time.Millisecond)
	for range 4 {
		moves()
		x.after((Listen + aside) / 4)
	}
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
		t.Errorf("%+v", v)
	}
}

// A loop that shows in bursts is seen to in the end, though between them there is more time than those that it is
// closed behind are given.
func TestBurstsOfABystander(t *testing.T) {
	x := newTranscript(t)
	burst := func() {
		for range 3 {
			x.g.Suspect(x.now, "it moves", "a", "c")
			x.after(50 * time.Millisecond)
		}
	}
	for range bursts + 1 {
		burst()
		if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
			t.Fatalf("after %v it is blocked already: %v", x.now.Sub(time.Unix(0, 0)), v.Blocked)
		}
		x.after(5 * time.Second)
	}
	burst()
	if v := x.g.Advance(x.now, x.peers); v.Blocked["c"].What == "" {
		t.Errorf("it goes on: %+v", v)
	}

	x = newTranscript(t)
	for range 10 {
		burst()
		x.after(sparse + time.Second)
	}
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
		t.Errorf("what moves once in a while is blocked: %v", v.Blocked)
	}
}

// Probes that come now and then, because most are lost, have a pseudowire opened once more or twice, and not for ever.
func TestIntermittentProbes(t *testing.T) {
	x := newTranscript(t)
	hear := func() {
		x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
		x.g.Advance(x.now, x.peers)
	}
	opened := 0
	for range 20 {
		hear()
		for range 70 {
			x.after(100 * time.Millisecond)
			if v := x.g.Advance(x.now, x.peers); len(v.Blocked) == 0 {
				opened++
				for range 2 { // it was open for a moment; the next is heard
					x.after(100 * time.Millisecond)
				}
				break
			}
		}
	}
	if opened != 1 {
		t.Errorf("it was opened %d times", opened)
	}
	x.after(2*silence - time.Millisecond)
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
		t.Errorf("it stays: %v", v.Blocked)
	}
	x.after(2 * silence)
	x.g.Advance(x.now, x.peers)
	hear()
	x.after(silence)
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
		t.Errorf("what was joined before is remembered: %v", v.Blocked)
	}
}

// Once they come steadily again, a silence has to be no longer than before.
func TestSteadyProbesAfterIntermittentOnes(t *testing.T) {
	x := newTranscript(t)
	hear := func(after time.Duration) Verdict {
		x.after(after)
		x.g.Heard(x.now, Probe{Network: "n", Site: "a", Reaches: map[string]bool{"b": true, "c": true}}, "eth1")
		return x.g.Advance(x.now, x.peers)
	}
	for range 10 {
		hear(2 * silence)
		x.g.Advance(x.now.Add(silence), x.peers)
	}
	for range 10 * longestSilence / time.Second {
		hear(time.Second)
	}
	x.after(silence)
	if v := x.g.Advance(x.now, x.peers); len(v.Blocked) > 0 {
		t.Errorf("after %v of silence %v is blocked", silence, v.Blocked)
	}
}

// Here nothing is held for a loop behind two other sites.
func TestBehindOthers(t *testing.T) {
	x := newTranscript(t)
	x.g.Suspect(x.now, "it moves", "a", "c")
	x.expect("probe")
	x.after(silence + time.Millisecond).expect("")
}

// What an earlier daemon had blocked stays blocked while there may be probes to hear.
func TestKept(t *testing.T) {
	x := newTranscript(t)
	x.g.Keep(x.now, "c", Block{Joined: "a"})
	x.expect("c joined a, probe")
	x.after(silence - time.Millisecond).expect("c joined a, probe")
	x.after(2 * time.Millisecond).expect("")

	x = newTranscript(t)
	x.g.Keep(x.now, "c", Block{Joined: "a"})
	x.g.Heard(x.now, Probe{Network: "n", Site: "a"}, "eth1")
	x.expect("a joined a, c joined a, probe")
	x.after(Listen + time.Millisecond).expect("a joined a, probe")
}

// world is sites with a network between them, LANs that are joined now and then, and probes that
// are lost and late.
type world struct {
	rng   *rand.Rand
	now   time.Time
	names []string
	hub   string
	lan   map[string]int // joined sites have the same
	down  map[[2]string]bool
	guard map[string]*Guard
	at    map[string]Verdict
	air   []flying
	loss  float64
	// flaps counts, by site, how many looks found addresses that move.
	flaps int
}

type flying struct {
	at    time.Time
	to    string
	probe Probe
}

const tick = 50 * time.Millisecond

func newWorld(rng *rand.Rand, sites int, hub bool) *world {
	w := &world{rng: rng, now: time.Unix(0, 0), lan: map[string]int{}, down: map[[2]string]bool{}, guard: map[string]*Guard{}, at: map[string]Verdict{}}
	for i := range sites {
		name := fmt.Sprintf("s%02d", i)
		w.names, w.lan[name] = append(w.names, name), i
		w.guard[name] = New(name, func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) })
	}
	if hub {
		w.hub = w.names[rng.IntN(sites)]
	}
	return w
}

func (w *world) peers(site string) map[string]bool {
	all := map[string]bool{}
	for _, o := range w.names {
		if w.wired(site, o) {
			all[o] = !w.broken(site, o)
		}
	}
	return all
}

func (w *world) wired(a, b string) bool {
	return a != b && (w.hub == "" || w.hub == a || w.hub == b)
}

func (w *world) broken(a, b string) bool { return w.down[[2]string{min(a, b), max(a, b)}] }

// opens says whether a pseudowire forwards.
func (w *world) opens(a, b string) bool {
	if !w.wired(a, b) || w.broken(a, b) {
		return false
	}
	for _, end := range [2][2]string{{a, b}, {b, a}} {
		if _, is := w.at[end[0]].Blocked[end[1]]; is || w.at[end[0]].Held[end[1]] {
			return false
		}
	}
	return true
}

// flood sends a frame from a LAN; it gives at which ports it comes in at each site, "" for the LAN.
func (w *world) flood(lan int) map[string]map[string]bool {
	in := map[string]map[string]bool{}
	for _, s := range w.names {
		in[s] = map[string]bool{}
	}
	var arrive func(site, port string)
	toLAN := func(from string) {
		for _, s := range w.names {
			if s != from && w.lan[s] == w.lan[from] {
				arrive(s, "")
			}
		}
	}
	arrive = func(site, port string) {
		if in[site][port] {
			return
		}
		in[site][port] = true
		if port != "" {
			toLAN(site)
		}
		for _, o := range w.names {
			if o != port && (port == "" || site == w.hub) && w.opens(site, o) {
				arrive(o, site)
			}
		}
	}
	for _, s := range w.names {
		if w.lan[s] == lan {
			arrive(s, "")
		}
	}
	return in
}

// run lets time pass. each is called after each tick, with whether there is a loop.
func (w *world) run(d time.Duration, each func(looped bool)) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(tick)
		var late []flying
		for _, f := range w.air {
			if f.at.After(w.now) {
				late = append(late, f)
			} else {
				w.guard[f.to].Heard(w.now, f.probe, "eth1")
			}
		}
		w.air = late
		looped := false
		for _, lan := range slices.Compact(slices.Sorted(maps.Values(w.lan))) {
			for site, ports := range w.flood(lan) {
				if len(ports) < 2 {
					continue
				}
				looped = true
				w.flaps++
				moved := slices.Sorted(maps.Keys(ports))
				k := w.rng.IntN(len(moved) - 1)
				a, b := moved[k], moved[k+1]
				if a == "" {
					w.guard[site].Suspect(w.now, "it moves", b)
				} else {
					w.guard[site].Suspect(w.now, "it moves", a, b)
				}
			}
		}
		for _, s := range w.names {
			w.at[s] = w.guard[s].Advance(w.now, w.peers(s))
			if w.at[s].Probe {
				w.send(s)
			}
		}
		if each != nil {
			each(looped)
		}
	}
}

func (w *world) send(from string) {
	p := Probe{Network: "n", Site: from, Reaches: w.peers(from)}
	for _, s := range w.names {
		if s != from && w.lan[s] == w.lan[from] && w.rng.Float64() >= w.loss && w.guard[s].Listens(w.now) {
			w.air = append(w.air, flying{w.now.Add(time.Duration(w.rng.Int64N(int64(300 * time.Millisecond)))), s, p})
		}
	}
}

// together says that every two sites hear each other, by one way alone.
func (w *world) together() error {
	for _, lan := range w.lan {
		for site, ports := range w.flood(lan) {
			if len(ports) != 1 {
				return fmt.Errorf("what LAN %d sends comes to %s by %d ports: %v", lan, site, len(ports), w)
			}
		}
	}
	return nil
}

func (w *world) forwarding() (n int) {
	for i, a := range w.names {
		for _, b := range w.names[i+1:] {
			if w.opens(a, b) {
				n++
			}
		}
	}
	return n
}

func (w *world) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %v hub %q LANs %v down %v", w.now.Sub(time.Unix(0, 0)), w.hub, w.lan, w.down)
	for _, s := range w.names {
		fmt.Fprintf(&b, "\n\t%s: blocked %v held %v", s, w.at[s].Blocked, w.at[s].Held)
	}
	return b.String()
}

// join puts sites at random into few LANs, and reports how many LANs there are.
func (w *world) join(lans int) int {
	used := map[int]bool{}
	for i, s := range w.names {
		w.lan[s] = i
		if w.rng.IntN(2) == 0 {
			w.lan[s] = w.rng.IntN(lans)
		}
		used[w.lan[s]] = true
	}
	return len(used)
}

// part takes all that joins them away.
func (w *world) part() {
	for i, s := range w.names {
		w.lan[s] = i
	}
}

// Whatever joins LANs, with probes lost and late: after a few seconds there is no loop, every site hears
// every other by one way, and no pseudowire is blocked that need not be. When the LANs are parted
// all forward again within a few seconds.
func TestLoopsInWorlds(t *testing.T) {
	const within = 8 * time.Second
	for seed := range uint64(*worlds) {
		rng := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(rng, 2+rng.IntN(7), rng.IntN(3) == 0)
		w.loss = 0.2 * rng.Float64()
		for range 3 {
			lans := w.join(len(w.names))
			short := rng.IntN(3) == 0
			if short {
				w.run(time.Duration(rng.Int64N(int64(4*time.Second))), nil)
			} else {
				w.run(within, nil)
				w.run(10*time.Second, func(looped bool) {
					if looped {
						t.Fatalf("seed %d: a loop is left: %v", seed, w)
					}
				})
				if err := w.together(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				need := lans * (lans - 1) / 2 // one between every two LANs
				if w.hub != "" {
					need = lans - 1
				}
				if n := w.forwarding(); n != need {
					t.Fatalf("seed %d: %d pseudowires forward, %d LANs need %d: %v", seed, n, lans, need, w)
				}
			}
			w.part()
			w.run(within, nil)
			w.run(4*time.Second, func(bool) {
				if err := w.together(); err != nil {
					t.Fatalf("seed %d, parted: %v", seed, err)
				}
			})
		}
	}
}

// With pseudowires that are down as well no loop is left; and while two LANs are joined and no
// more, only those are apart whose pseudowire is down, to the site itself or to the one that forwards for it.
func TestLoopsAmongFailures(t *testing.T) {
	for seed := range uint64(*worlds) {
		rng := rand.New(rand.NewPCG(seed, 6))
		w := newWorld(rng, 3+rng.IntN(4), false)
		w.loss = 0.2 * rng.Float64()
		many := rng.IntN(2) == 0
		if many {
			w.join(2)
		} else {
			w.lan[w.names[1]] = w.lan[w.names[0]]
		}
		for range 1 + rng.IntN(3) {
			i, k := rng.IntN(len(w.names)), rng.IntN(len(w.names))
			w.down[[2]string{w.names[min(i, k)], w.names[max(i, k)]}] = true
		}
		w.run(20*time.Second, nil)
		w.run(10*time.Second, func(looped bool) {
			if looped {
				t.Fatalf("seed %d: a loop is left: %v", seed, w)
			}
		})
		if many {
			continue
		}
		// The one of the two that gets through to more others forwards for both.
		gets := func(site string) (n int) {
			for _, o := range w.names[2:] {
				if !w.broken(site, o) {
					n++
				}
			}
			return n
		}
		forwards := w.names[0]
		if gets(w.names[1]) > gets(w.names[0]) {
			forwards = w.names[1]
		}
		door := func(site string) string {
			if slices.Contains(w.names[:2], site) {
				return forwards
			}
			return site
		}
		for _, from := range w.names {
			for site, ports := range w.flood(w.lan[from]) {
				a, b := door(from), door(site)
				if want := a == b || !w.broken(a, b); want != (len(ports) == 1) {
					t.Fatalf("seed %d: what %s sends comes to %s by %d ports: %v", seed, from, site, len(ports), w)
				}
			}
		}
	}
}

// A loop whose probes are never heard: something is blocked for a minute, and of several sites that see
// it one acts.
func TestLoopsWithoutProbes(t *testing.T) {
	apart := 0
	for seed := range uint64(*worlds) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(rng, 3, false)
		w.loss = 1
		w.lan[w.names[1]] = w.lan[w.names[0]]
		w.run(20*time.Second, nil)
		w.run(10*time.Second, func(looped bool) {
			if looped {
				t.Fatalf("seed %d: a loop is left: %v", seed, w)
			}
		})
		if w.together() != nil {
			apart++
		}
	}
	t.Logf("%d of %d worlds have sites that are apart", apart, *worlds)
	if apart > *worlds/4 {
		t.Errorf("%d of %d worlds have sites that are apart", apart, *worlds)
	}
}
