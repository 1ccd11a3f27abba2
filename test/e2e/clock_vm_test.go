//go:build vm

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// A clock that is set, forward or back, under a daemon or while none runs, is nothing to the
// peers: no frame is lost, no session begins anew, and what has lasted is told by time that passed.
func TestClockIsSet(t *testing.T) {
	onOneKernel(t, "6.12") // a clock is the same on both
	w := build(t, network{datapaths: [2]string{"kernel", "ebpf"}})
	w.write(strings.Replace(w.text(""), "gold: {sites: [dc1, dc2]}", "gold: {sites: [dc1, dc2], hello: 1s}", 1))
	if err := w.sites[0].StartHolder(); err != nil {
		t.Fatal(err)
	}
	w.start()
	began := time.Now()
	all := []flows{w.flows(w.a, netlab.FlowOptions{Rate: steady, Size: 200}), w.flows(w.b, netlab.FlowOptions{Rate: steady, Size: 200})}
	sessions, news := w.pairsOfIDs(), w.news()
	var set time.Duration
	t.Cleanup(func() { setClock(t, -set) })
	for _, by := range []time.Duration{24 * time.Hour, -48 * time.Hour, 24 * time.Hour} {
		setClock(t, by)
		set += by
		for _, f := range all {
			f.await(t, 3*steady) // three intervals of HELLO
		}
	}
	if now := w.news(); now != news {
		t.Errorf("the sites' events were\n%s\nand are\n%s", news, now)
	}
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		for _, s := range w.sites {
			if err := s.Daemon.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-s.Daemon.Exited()
		}
		setClock(t, by)
		set += by
		w.start()
		for _, f := range all {
			f.await(t, steady)
		}
	}
	if now := w.pairsOfIDs(); now != sessions {
		t.Errorf("the sessions were %s and are %s", sessions, now)
	}
	w.lasted(time.Since(began))
	for _, f := range all {
		f.stop(t)
	}
}

// setClock sets this machine's.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	tv := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		t.Fatalf("set the clock by %v: %v", by, err)
	}
}

// pairsOfIDs are those of both sites' sessions.
func (w *world) pairsOfIDs() string {
	w.t.Helper()
	var b strings.Builder
	for _, s := range w.sites {
		sessions, err := s.Client().Sessions(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, x := range sessions {
			fmt.Fprintf(&b, "%s %s %s %d-%d; ", s.Name, x.Pseudowire, x.State, x.LocalSessionID, x.RemoteSessionID)
		}
	}
	return b.String()
}

// news are the events of both sites.
func (w *world) news() string {
	w.t.Helper()
	var b strings.Builder
	for _, s := range w.sites {
		if err := s.Client().Events(w.t.Context(), 0, false, func(e api.Event) error {
			_, err := fmt.Fprintf(&b, "%s %s: %s\n", s.Name, e.Object, e.Message)
			return err
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	return b.String()
}

// lasted wants no state to have lasted longer than what is here, nor less than no time.
func (w *world) lasted(most time.Duration) {
	w.t.Helper()
	limit := int64((most + upWithin).Seconds())
	for _, s := range w.sites {
		st, err := s.Client().Status(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, x := range st.Pseudowires {
			if x.SinceSeconds < 0 || x.SinceSeconds > limit {
				w.t.Errorf("%s %s: %s for %d s, of at most %d", s.Name, x.Name, x.State, x.SinceSeconds, limit)
			}
		}
		for _, x := range st.Tunnels {
			if x.SinceSeconds < 0 || x.SinceSeconds > limit {
				w.t.Errorf("%s %s: %s for %d s, of at most %d", s.Name, x.Name, x.State, x.SinceSeconds, limit)
			}
		}
	}
}
