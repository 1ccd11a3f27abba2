//go:build vm

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// setClock sets the machine's clock ahead of what it was when the test began, or back.
func setClock(t *testing.T, began time.Time, by time.Duration) {
	t.Helper()
	now := unix.NsecToTimeval(began.Round(0).Add(time.Since(began) + by).UnixNano())
	if err := unix.Settimeofday(&now); err != nil {
		t.Fatal(err)
	}
}

// Somebody sets the clock, by a year to and fro: connections and frames do not notice, and what awaits confirmation is
// taken back when it was to be, over a restart of the daemon, too.
func TestClockIsSet(t *testing.T) {
	const year, probation = 365 * 24 * time.Hour, 60 * time.Second
	w := build(t, network{datapaths: [2]string{"ebpf", "ebpf"}}).start()
	s := w.sites[0]
	status := func() *api.Status {
		t.Helper()
		st, err := s.Client().Status(within(t, upWithin))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	connections := func() (ids string) {
		for _, x := range status().Tunnels {
			ids += fmt.Sprintf("%s %s %d %d\n", x.Name, x.State, x.LocalControlConnectionID, x.RemoteControlConnectionID)
		}
		return ids
	}
	before := connections()
	crossing := w.flows(w.b, netlab.FlowOptions{Rate: 100})
	crossing.await(t, 20)

	another := strings.Replace(w.text(""), "{br-lan: {ports: [eth1]}}", "{br-lan: {ports: [eth1]}, br-other: {}}", 1)
	began := time.Now()
	t.Cleanup(func() { setClock(t, began, 0) })
	result, err := s.Client().Apply(within(t, upWithin), api.ApplyRequest{Name: "t.yaml", Document: another, Disruptive: true, ConfirmSeconds: probation.Seconds()})
	if err != nil {
		t.Fatal(err)
	}
	applied := time.Now()
	for i, by := range []time.Duration{year, -year, year} {
		setClock(t, began, by)
		if i == 1 {
			s.Daemon.Kill()
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			w.awaitUp()
		}
		crossing.await(t, 20)
		st := status()
		if st.Generation != result.Generation || st.ConfirmBy == nil {
			t.Fatalf("with the clock set by %v, %v after the apply, generation %d is in force, to be confirmed by %v", by, time.Since(applied), st.Generation, st.ConfirmBy)
		}
		want := probation - time.Since(applied)
		if left := time.Until(st.ConfirmBy.Round(0)); left < want-5*time.Second || left > want+5*time.Second {
			t.Errorf("with the clock set by %v it is taken back in %v, want %v", by, left, want)
		}
	}
	if err := s.Await(within(t, 2*probation), "it is taken back", func(st *api.Status) error {
		if st.Generation == result.Generation {
			return fmt.Errorf("generation %d is in force", st.Generation)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(applied); took < probation-time.Second || took > probation+30*time.Second {
		t.Errorf("it was taken back after %v, asked for %v", took, probation)
	}
	if after := connections(); after != before {
		t.Errorf("connections were\n%s\nand are\n%s", before, after)
	}
	crossing.await(t, 20)
	crossing.stop(t)
}
