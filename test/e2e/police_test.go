package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// flow starts datagrams from the host at one site.
func (w *world) flow(l *lan, from, rate, size int) *netlab.Flow {
	w.t.Helper()
	f, err := l.hosts[from].NS.Flow(l.hosts[1-from].NS, l.addr[1-from], netlab.FlowOptions{Rate: rate, Size: size})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// drops are how many frames of a pseudowire both sites count as dropped for a reason.
func (w *world) drops(pseudowire, reason string) (n int) {
	w.t.Helper()
	for _, s := range w.sites {
		all, err := s.Client().Pseudowires(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range all {
			if p.Name == pseudowire {
				n += int(p.Drops[reason])
			}
		}
	}
	return n
}

// What comes out of a policed pseudowire is no more than it may be, what does not is counted,
// and the limit can be lifted while frames flow.
func TestPolice(t *testing.T) {
	const rate, size, headers, datagrams = 2e6, 1000, 14 + 20 + 8, 300
	for _, d := range datapaths() {
		t.Run(d[0]+"-"+d[1], func(t *testing.T) {
			w := build(t, network{datapaths: d, raw: true})
			w.write(w.text("police: 2mbit"))
			w.start()
			w.ping(w.b, netlab.PingOptions{Count: 1})
			// Four times as much.
			f, begin := w.flow(w.b, 0, 1000, size), time.Now()
			if err := f.WaitReceived(within(t, upWithin), datagrams); err != nil {
				t.Fatalf("%v\n%s", err, w.counters())
			}
			took := time.Since(begin)
			r, err := f.Stop()
			if err != nil {
				t.Fatal(err)
			}
			// Of a slow machine's sending nothing is known but how long it took.
			if least := time.Duration(float64(datagrams*(size+headers)*8)/rate*float64(time.Second)) - 100*time.Millisecond; took < least*95/100 {
				t.Errorf("%d datagrams came in %v, which takes %v at least", datagrams, took, least)
			}
			// Some of the frames may be others than these, and a slow machine loses some elsewhere.
			lost := int(r.Lost())
			if policed := w.drops(w.b.name, "policed"); policed == 0 || policed < lost*3/4 || policed > lost*5/4+20 {
				t.Errorf("%d frames are counted, %d did not come", policed, lost)
			}
			out, err := w.sites[0].Pwctl(t.Context(), "describe", "pseudowire", w.b.name)
			if err != nil || !strings.Contains(out, "2mbit") {
				t.Errorf("pwctl describe pseudowire: %v\n%s", err, out)
			}
			w.write(w.text(""))
			for _, s := range w.sites {
				if out, err := s.Pwctl(within(t, upWithin), "apply", "-y", "-f", w.topology); err != nil {
					t.Fatalf("pwctl apply: %v\n%s", err, out)
				}
			}
			before := w.drops(w.b.name, "policed")
			f = w.flow(w.b, 0, steady, size)
			if err := f.WaitReceived(within(t, upWithin), uint64(steady)); err != nil {
				t.Fatal(err)
			}
			if after := w.drops(w.b.name, "policed"); after > before {
				t.Errorf("%d frames are policed without a limit", after-before)
			}
		})
	}
}
