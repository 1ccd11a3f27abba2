package control

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// BenchmarkSetUp brings up 100 connections with 100 sessions each between two
// Endpoints, without a data plane. It reports the CPU time of both ends together
// and the heap that a session takes at one end.
func BenchmarkSetUp(b *testing.B) {
	const tunnels, sessions = 100, 100
	for range b.N {
		n := newNetwork(b, 1)
		n.delay = func() time.Duration { return 100 * time.Microsecond }
		for i := range tunnels {
			n.tunnel(fmt.Sprintf("t%03d", i))
		}
		for i := range tunnels {
			for j := range sessions {
				n.session(fmt.Sprintf("t%03d", i), fmt.Sprintf("s%03d-%03d", i, j))
			}
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		at := time.Now()
		for _, h := range n.hosts {
			h.noDisk = true
			h.start()
		}
		established := func(h *host) (count int) {
			for _, t := range h.e.tunnels {
				for _, s := range t.sessions {
					if s.state == SessionEstablished {
						count++
					}
				}
			}
			return count
		}
		for step := 0; established(n.hosts[0]) < tunnels*sessions || established(n.hosts[1]) < tunnels*sessions; step++ {
			if !n.next(epoch.Add(time.Minute)) {
				b.Fatalf("%d and %d sessions", established(n.hosts[0]), established(n.hosts[1]))
			}
			for range 1000 {
				n.next(epoch.Add(time.Minute))
			}
		}
		b.ReportMetric(time.Since(at).Seconds(), "s/set-up")
		for _, h := range n.hosts {
			h.data = nil
		}
		n.air = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(2*tunnels*sessions), "B/session")
		b.ReportMetric(float64(n.sent)/(tunnels*sessions), "packets/session")
		runtime.KeepAlive(n)
	}
}

// living gives what an established connection gets for as long as it lives, one
// message after the other: a HELLO, an ACK, an SLI that says what is known, or one
// that has news.
func living(t testing.TB, secret bool, words string) func() {
	var s *stage
	var nonce []byte
	if secret {
		s, nonce = authenticated(t, "secret=s3cret")
		if err := s.session("gold/dc2", "tenant-a", []string{"cookie=8"}); err != nil {
			t.Fatal(err)
		}
		reply := fmt.Sprintf("ICRP ccid=11 ns=2 nr=2 local=900 remote=%d circuit=A", s.e.Sessions()[0].LocalID)
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, reply, peerNonce, nonce, 0, "s3cret")})
		s.outputs()
	} else {
		s = established(t)
	}
	c := s.e.tunnels["gold/dc2"].conn
	x := s.e.Sessions()[0]
	if x.State != SessionEstablished {
		t.Fatal(x.State)
	}
	words = strings.ReplaceAll(words, "OURS", fmt.Sprint(x.LocalID))
	key := l2tpv3.NewSecret([]byte("s3cret"))
	var messages [][]byte
	for _, circuit := range []string{"A", "-"} {
		words := strings.ReplaceAll(words, "NEWS", circuit)
		m, err := buildMessage(strings.Fields(words))
		if err != nil {
			t.Fatal(err)
		}
		if secret {
			m = signed(t, words, nil, nil, 0, "s3cret") // and again for each Nr
		}
		messages = append(messages, m)
	}
	d := Datagram{Path: c.path}
	n := 0
	return func() {
		m := messages[n%2]
		n++
		putHeader(m, c.localID, c.rel.nr, c.rel.ns())
		if secret {
			if err := l2tpv3.Sign(m, peerNonce, nonce, key); err != nil {
				t.Fatal(err)
			}
		}
		d.Payload = m
		before := s.e.tally[countReceived]
		s.e.Receive(s.now, d)
		for o, ok := s.e.Next(); ok; o, ok = s.e.Next() {
			if o, ok := o.(*Transmit); ok {
				s.e.Recycle(o.Payload)
			}
		}
		s.e.TakeDirty()
		if s.e.tally[countReceived] != before+1 || s.e.tally[countUnauthenticated]+s.e.tally[countMalformed]+s.e.tally[countWrongNr] > 0 {
			t.Fatal("not received")
		}
	}
}

// livingMessages are the kinds of them.
var livingMessages = []struct{ name, words string }{
	{"HELLO", "HELLO"},
	{"ACK", "ACK"},
	{"SLI, nothing new", "SLI local=900 remote=OURS circuit=A"},
	{"SLI, news", "SLI local=900 remote=OURS circuit=NEWS"},
}

// TestLivingAllocatesNothing: an established connection leaves no garbage, with
// and without authentication, for messages that change nothing and for a circuit
// that goes up and down.
func TestLivingAllocatesNothing(t *testing.T) {
	for _, secret := range []bool{false, true} {
		for _, m := range livingMessages {
			step := living(t, secret, m.words)
			for range 2 * history { // of the transitions that are remembered
				step()
			}
			if n := testing.AllocsPerRun(1000, step); n != 0 {
				t.Errorf("%s, secret %v: %v allocations", m.name, secret, n)
			}
		}
	}
}

// BenchmarkReceive is one of them, from the datagram to the answer.
func BenchmarkReceive(b *testing.B) {
	for _, m := range livingMessages {
		b.Run(m.name, func(b *testing.B) {
			step := living(b, false, m.words)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}
