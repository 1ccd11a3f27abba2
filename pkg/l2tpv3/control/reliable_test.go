package control

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var defaults = Timers{}.withDefaults()

// TestRetransmissionTimes are those of Section 4.2 with the recommended values.
// The round-trip time is that of messages that were sent once.
func TestRTT(t *testing.T) {
	timers := Timers{}.withDefaults()
	r, now := newReliable(), epoch
	r.setWindow(8)
	send := func() { r.push(outgoing{}); r.next(now, &timers, true) }
	send()
	send()
	now = now.Add(80 * time.Millisecond)
	r.acknowledge(now, &timers, 1)
	if r.rtt != 80*time.Millisecond {
		t.Errorf("after the first: %v", r.rtt)
	}
	now = now.Add(time.Second)
	r.acknowledge(now, &timers, 2) // not timed: the first was
	send()
	now = now.Add(160 * time.Millisecond)
	r.acknowledge(now, &timers, 3)
	if r.rtt != 90*time.Millisecond {
		t.Errorf("after one of 160 ms: %v, want an eighth of the way", r.rtt)
	}
	send()
	now = now.Add(time.Second)
	r.expire(now, &timers)
	r.next(now, &timers, false)
	r.acknowledge(now.Add(time.Millisecond), &timers, 4)
	if r.rtt != 90*time.Millisecond {
		t.Errorf("after a repeated one: %v, want no change", r.rtt)
	}
}

func TestRetransmissionTimes(t *testing.T) {
	var at []int
	sum := time.Duration(0)
	for n := range defaults.MaxRetransmits + 1 {
		at = append(at, int(sum.Seconds()))
		sum += defaults.wait(n)
	}
	if want := []int{0, 1, 3, 7, 15, 23, 31, 39, 47, 55, 63}; !slices.Equal(at, want) {
		t.Errorf("sent at %v s, not at %v", at, want)
	}
	if sum != 71*time.Second || sum != defaults.cycle() {
		t.Errorf("given up after %v, cycle %v", sum, defaults.cycle())
	}
	// Section 3.3.2: "at least 31 seconds".
	if defaults.Linger < 31*time.Second {
		t.Errorf("lingers for %v", defaults.Linger)
	}
}

// TestSequenceNumbers is the example of Section 4.2: "if the last received
// sequence number was 15, then messages with sequence numbers 0 through 15, as
// well as 32784 through 65535, would be considered less than or equal".
func TestSequenceNumbers(t *testing.T) {
	r := newReliable()
	r.nr = 16
	for ns := range 1 << 16 {
		want := beforeTurn
		switch {
		case ns == 16:
			want = inOrder
		case ns <= 15 || ns >= 32784:
			want = duplicate
		}
		if got := r.classify(uint16(ns)); got != want {
			t.Fatalf("Ns %d: %v, not %v", ns, got, want)
		}
	}
}

// TestCongestionWindow follows Appendix A.
func TestCongestionWindow(t *testing.T) {
	r := newReliable()
	r.setWindow(8)
	for range 100 {
		r.push(outgoing{})
	}
	send := func() (n int) {
		for {
			if _, _, ok := r.next(epoch, &defaults, false); !ok {
				return n
			}
			n++
		}
	}
	// step acknowledges n messages one by one and says how many are sent for each.
	step := func(n int) (sent []int) {
		for range n {
			if !r.acknowledge(epoch, &defaults, r.first+1) {
				t.Fatal("refused")
			}
			sent = append(sent, send())
		}
		return sent
	}
	want := func(what string, got any, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, not %s", what, got, want)
		}
	}
	want("at first", send(), "1")
	want("slow start: one more for each acknowledgment", step(7), "[2 2 2 2 2 2 2]")
	want("the window", r.cwnd, "8")
	want("never more than the window", step(3), "[1 1 1]")
	r.expire(epoch, &defaults)
	want("a repetition halves the threshold and begins with 1", []int{r.threshold, r.cwnd, send()}, "[4 1 1]")
	// The others of the window are sent again as it opens.
	want("slow start to the threshold", step(3), "[2 2 2]")
	want("threshold reached", r.cwnd, "4")
	want("then one more for each window", step(5), "[1 1 1 2 1]")
}

// TestExactlyOnceInOrder carries numbered messages both ways over a channel that
// loses, doubles and reorders up to 50 deep, across the wrap of the sequence
// numbers, with any receive window.
func TestExactlyOnceInOrder(t *testing.T) {
	runs(t, 400, func(t testing.TB, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		type packet struct {
			ack    bool
			ns, nr uint16
			octets []byte
		}
		type end struct {
			reliable
			air     []packet
			window  uint16
			toSend  int
			arrived uint32
		}
		var ends [2]*end
		for i := range ends {
			ends[i] = &end{reliable: newReliable(), window: uint16(1 + rnd.IntN(20)), toSend: 300}
		}
		loss, depth := rnd.Float64()*0.4, 1+rnd.IntN(50)
		for i, e := range ends {
			peer := ends[1-i]
			e.setWindow(peer.window)
			// Not far from the wrap.
			e.first = uint16(1<<16 - rnd.IntN(200))
			peer.nr = e.first
		}
		timers := defaults
		timers.MaxRetransmits = 1 << 30
		now, sent := epoch, [2]uint32{}
		transmit := func(i int, p packet) {
			p.octets = slices.Clone(p.octets)
			for n := rnd.Float64(); n > loss; n -= 0.9 {
				at := max(0, len(ends[1-i].air)-rnd.IntN(depth))
				ends[1-i].air = slices.Insert(ends[1-i].air, at, p)
			}
		}
		flush := func(i int) {
			e := ends[i]
			for {
				m, ns, ok := e.next(now, &timers, false)
				if !ok {
					break
				}
				if e.flying > int(ends[1-i].window) {
					t.Fatalf("%d unacknowledged with a window of %d", e.flying, ends[1-i].window)
				}
				e.owed = false
				transmit(i, packet{ns: ns, nr: e.nr, octets: m.octets})
			}
			if e.owed {
				e.owed = false
				transmit(i, packet{ack: true, ns: e.ns(), nr: e.nr})
			}
		}
		deliver := func(i int, octets []byte) {
			e := ends[i]
			if n := binary.BigEndian.Uint32(octets); n != e.arrived {
				t.Fatalf("message %d in the place of %d", n, e.arrived)
			}
			e.arrived++
			e.accept()
		}
		for step := 0; ends[0].arrived < 300 || ends[1].arrived < 300; step++ {
			if step > 200000 {
				t.Fatalf("no progress: %d and %d arrived", ends[0].arrived, ends[1].arrived)
			}
			i := rnd.IntN(2)
			e := ends[i]
			switch {
			case e.toSend > 0 && rnd.IntN(3) == 0:
				e.toSend--
				e.push(outgoing{kind: l2tpv3.Hello, octets: binary.BigEndian.AppendUint32(nil, sent[i])})
				sent[i]++
			case len(e.air) > 0:
				p := e.air[0]
				e.air = e.air[1:]
				if !e.acknowledge(now, &timers, p.nr) {
					t.Fatalf("Nr %d, sent %d to %d", p.nr, e.first, e.ns())
				}
				if p.ack {
					break
				}
				switch e.classify(p.ns) {
				case duplicate:
					e.owed = true
				case beforeTurn:
					e.keep(p.ns, p.octets, e.window)
					if len(e.early) > int(e.window) {
						t.Fatalf("%d kept with a window of %d", len(e.early), e.window)
					}
				case inOrder:
					deliver(i, p.octets)
					for o, ok := e.due(); ok; o, ok = e.due() {
						deliver(i, o)
					}
				}
			default:
				// Nothing on its way to this end: its timer may run out.
				if len(ends[1-i].air) == 0 && !e.expires.IsZero() {
					if e.expires.After(now) {
						now = e.expires
					}
					e.expire(now, &timers)
				}
			}
			flush(i)
		}
	})
}

// TestPeersWindow: never more is unacknowledged than the peer's receive window, but
// as much as that; 4 where it does not say (Section 5.4.3, rule 23).
func TestPeersWindow(t *testing.T) {
	for option, window := range map[string]int{"": 4, "window=1": 1, "window=7": 7, "window=60000": maxInFlight} {
		s := &stage{now: epoch}
		s.reset()
		if err := s.do([]string{"tunnel", "gold/dc2"}); err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if err := s.do([]string{"session", "gold/dc2", fmt.Sprint("s", i)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, words := range [][]string{
			{"<", "SCCRQ", "host=gold.dc2", "router=1", "assigned=77", "caps=5", "from=192.0.2.2:4321"},
			{"<", "SCCCN", "ccid=401", "ns=1", "nr=1", "from=192.0.2.2:4321"},
		} {
			if option != "" && words[1] == "SCCRQ" {
				words = append(words, option)
			}
			id := s.e.Connections()[0].LocalID
			if words[1] == "SCCCN" {
				words[2] = fmt.Sprint("ccid=", id)
			}
			if err := s.do(words); err != nil {
				t.Fatal(err)
			}
		}
		most := 0
		for c := s.e.Connections()[0]; c.Queued > 0; c = s.e.Connections()[0] {
			most = max(most, c.Unacknowledged)
			if err := s.receive([]string{"ACK", fmt.Sprint("ccid=", c.LocalID), "ns=2", fmt.Sprint("nr=", int(c.Ns)-c.Unacknowledged+1), "from=192.0.2.2:4321"}); err != nil {
				t.Fatal(err)
			}
		}
		if most != window {
			t.Errorf("%q: %d unacknowledged, not %d", option, most, window)
		}
	}
}

// TestWrongNr: what was never sent cannot be acknowledged, what is old says nothing.
func TestWrongNr(t *testing.T) {
	r := newReliable()
	r.first = 65530
	for range 10 {
		r.push(outgoing{})
	}
	for range 4 {
		r.next(epoch, &defaults, true)
	}
	for _, row := range []struct {
		nr    uint16
		valid bool
		left  int
	}{
		{65529, true, 10}, // old
		{65530, true, 10}, // nothing new
		{65535, false, 10},
		{100, false, 10},
		{65530 - 1<<15, true, 10},      // as old as it gets
		{65530 - 1<<15 - 1, false, 10}, // as new as it gets
		{65532, true, 8},
		{65534, true, 6},
		{65535, false, 6},
	} {
		if ok := r.acknowledge(epoch, &defaults, row.nr); ok != row.valid || len(r.queue) != row.left {
			t.Errorf("Nr %d: %v, %d left; want %v, %d", row.nr, ok, len(r.queue), row.valid, row.left)
		}
	}
}
