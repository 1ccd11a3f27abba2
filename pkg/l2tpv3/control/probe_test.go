package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Padding is of any length from that of an AVP's header on, in AVPs that a reader passes over.
func TestPadding(t *testing.T) {
	for n := avpHeader; n < 3*avpMost+20; n++ {
		b := appendPadding(append([]byte(nil), helloOctets...), n)
		if len(b) != len(helloOctets)+n {
			t.Fatalf("%d octets of padding are %d", n, len(b)-len(helloOctets))
		}
		b[2], b[3] = byte(len(b)>>8), byte(len(b))
		m, err := l2tpv3.Parse(b)
		if err != nil {
			t.Fatalf("%d octets: %v", n, err)
		}
		if kind, ok := m.Type(); !ok || kind != l2tpv3.Hello {
			t.Fatalf("%d octets: read as %v", n, kind)
		}
		if _, unknown := unknownMandatory(m); unknown {
			t.Fatalf("%d octets: the padding is mandatory", n)
		}
	}
}

// A probe is as long as it is to be, digests included, and answered if it arrives. One that
// does not changes nothing: it is not repeated, and what follows it goes on.
func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Tunnel)
	}{
		{"plain", func(*Tunnel) {}},
		{"protocol 115", func(t *Tunnel) { t.Encapsulation = l2tpv3.IP }},
		{"authenticated", withSecret},
		{"two secrets", func(t *Tunnel) { t.Secrets = [][]byte{[]byte("new"), []byte("old")} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, 1)
			n.tunnel("gold", c.change)
			n.session("gold", "tenant-a")
			for _, h := range n.hosts {
				h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
			}
			n.start()
			if !n.until(5*time.Second, n.up) {
				t.Fatal(n.disagreement())
			}
			n.run(time.Second)
			for i, h := range n.hosts {
				id := h.e.Connections()[0].LocalID
				probe := func(octets int) ProbeState {
					t.Helper()
					longest := 0
					n.trace = func(from *host, d Datagram) {
						if from == h {
							longest = max(longest, len(d.Payload))
						}
					}
					if !h.e.Probe(n.now, id, octets) {
						t.Fatalf("host %d: no probe of %d octets", i, octets)
					}
					h.drain()
					n.run(500 * time.Millisecond)
					if longest != octets {
						t.Errorf("host %d: a probe of %d octets, wanted %d", i, longest, octets)
					}
					n.trace = nil
					return h.e.ProbeState(id)
				}
				for octets := 300; octets < 9000; octets += 611 {
					for times := range 3 {
						if got, want := probe(octets), (ProbeState{times + 1, times + 1, true}); got != want {
							t.Errorf("host %d: %d octets: %+v, want %+v", i, octets, got, want)
						}
					}
				}
				n.loss = 1
				if got, want := probe(1400), (ProbeState{1, 0, true}); got != want {
					t.Errorf("host %d: one that was lost: %+v, want %+v", i, got, want)
				}
				n.loss = 0
				if got, want := probe(1400), (ProbeState{2, 1, true}); got != want {
					t.Errorf("host %d: one that was lost, and one that was not: %+v, want %+v", i, got, want)
				}
				before := fmt.Sprint(h.e.Connections()[0].Retransmits)
				n.run(time.Minute) // HELLOs
				if got, want := h.e.ProbeState(id), (ProbeState{2, 1, false}); got != want {
					t.Errorf("host %d: after HELLOs: %+v, want %+v", i, got, want)
				}
				if rtt := h.e.RTT(id); rtt != h.e.Connections()[0].RTT || rtt == 0 {
					t.Errorf("host %d: a round trip of %v", i, rtt)
				}
				if after := fmt.Sprint(h.e.Connections()[0].Retransmits); after != before || !n.up() {
					t.Errorf("host %d: %s retransmissions, before it %s; %s", i, after, before, n.disagreement())
				}
			}
		})
	}
}
