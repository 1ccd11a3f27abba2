package e2e

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// storm sends n broadcasts into tenant-b at dc1 and says how many came out at dc2, by when.
func (w *world) storm(n int) (passed int, took time.Duration) {
	w.t.Helper()
	c, err := w.b.hosts[1].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		w.t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{byte(n)})
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = frameOf(r, 100, 1, 0)
	}
	// The last one, a unicast frame, shows that the others have had their time.
	last := frameOf(r, 100, 0, 0)
	begin := time.Now()
	if err := w.b.hosts[0].Send(append(frames, last)...); err != nil {
		w.t.Fatal(err)
	}
	came, err := c.Wait(within(w.t, upWithin), "the last frame", func(frames []netlab.Frame) bool {
		return len(frames) > 0 && bytes.Equal(frames[len(frames)-1].Data, last)
	})
	if err != nil {
		w.t.Errorf("%v\n%s", err, w.counters())
	}
	return len(came) - 1, time.Since(begin)
}

// policed is how many broadcasts of tenant-b both sites count as too many.
func (w *world) policed() (n int) {
	w.t.Helper()
	for _, s := range w.sites {
		all, err := s.Client().Pseudowires(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range all {
			if p.Name == w.b.name {
				n += int(p.Drops["policed-broadcast"])
			}
		}
	}
	return n
}

// Of a storm as many frames pass as the limit allows, what does not is counted, and the
// limit can be lifted while frames flow.
func TestStormControl(t *testing.T) {
	beside(t)
	const n, limit = 500, 50
	for _, d := range eachOnOneKernel(datapaths()) {
		t.Run(d[0]+"-"+d[1], func(t *testing.T) {
			w := build(t, network{datapaths: d, raw: true})
			w.write(w.text("storm-control: {broadcast: 50pps}"))
			w.start()
			passed, took := w.storm(n)
			if most := int((took.Seconds()+0.1)*limit) + 2; passed < 1 || passed > most {
				t.Errorf("%d of %d broadcasts passed in %v, want 1 to %d", passed, n, took, most)
			}
			if policed := w.policed(); policed != n-passed {
				t.Errorf("%d broadcasts are counted, %d did not pass", policed, n-passed)
			}
			out, err := w.sites[0].Pwctl(t.Context(), "describe", "pseudowire", w.b.name)
			if err != nil || !strings.Contains(out, "broadcast 50/s") || !strings.Contains(out, "policed-broadcast") {
				t.Errorf("pwctl describe pseudowire: %v\n%s", err, out)
			}
			w.write(w.text(""))
			for _, s := range w.sites {
				if out, err := s.Pwctl(within(t, upWithin), "apply", "-y", "-f", w.topology); err != nil {
					t.Fatalf("pwctl apply: %v\n%s", err, out)
				}
			}
			if passed, _ := w.storm(100); passed != 100 {
				t.Errorf("%d of 100 broadcasts passed without a limit\n%s", passed, w.counters())
			}
		})
	}
}
