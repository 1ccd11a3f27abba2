package control

import (
	"fmt"
	"runtime"
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

// BenchmarkReceive is one message of the kinds that an established connection
// gets for as long as it lives.
func BenchmarkReceive(b *testing.B) {
	for _, words := range [][]string{
		{"HELLO", "ccid=11", "nr=4"},
		{"ACK", "ccid=11", "ns=2", "nr=4"},
		{"SLI", "ccid=11", "nr=4", "local=900", "remote=13", "circuit=A"},
	} {
		b.Run(words[0], func(b *testing.B) {
			s := established(b)
			m, err := buildMessage(words)
			if err != nil {
				b.Fatal(err)
			}
			d := Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: addrPort("192.0.2.2:1701")}, Payload: m}
			ns := uint16(2)
			b.ReportAllocs()
			for b.Loop() {
				putHeader(m, 11, ns, 4)
				if words[0] != "ACK" {
					ns++
				}
				s.e.Receive(s.now, d)
				for _, ok := s.e.Next(); ok; _, ok = s.e.Next() {
				}
				s.e.TakeDirty()
			}
			if s.e.Connections()[0].Nr != ns || s.e.Sessions()[0].Remote != l2tpv3.CircuitActive {
				b.Fatal("not received")
			}
		})
	}
}
