package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// Something that keeps changing what is the daemon's, as another controller does, is given
// up on after some repairs, told as a problem, and looked at now and then; what happens to
// other objects is put back as ever, and they carry traffic.
func TestOtherControllersAreNotFought(t *testing.T) {
	w := build(t, network{}).start()
	s := w.sites[0]
	script := "i=0; while sleep 0.02; do ip link set pw-tenant-a mtu 14$((i = i % 50 + 10)); ip link set eth1 nomaster; done"
	if _, err := s.NS.Start("controller", exec.Command("sh", "-c", script)); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 30*time.Second)
	err := netlab.Poll(ctx, "both are contested", func() error {
		st, err := s.Client().Status(ctx)
		if err == nil && st.Drift.Contested < 2 {
			err = fmt.Errorf("%+v", st.Drift)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for i := range 3 {
		if out, err := s.NS.Run(ctx, "ip", "link", "set", "pw-tenant-b", "mtu", fmt.Sprint(1400+i)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		at := time.Now()
		w.repaired(t, "pseudowire tenant-b", fmt.Sprintf("the MTU of pw-tenant-b was changed to %d", 1400+i))
		if took := time.Since(at); took > 3*time.Second && !inVM {
			t.Errorf("another object was put back after %v", took)
		}
	}
	w.echoes(t, w.b)
	time.Sleep(max(0, 4*time.Second-time.Since(begin))) // in which there would be many repairs
	all, err := s.Client().Drift(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mtu, port := 0, 0
	for _, d := range all {
		switch {
		case d.Object == "pseudowire tenant-a":
			mtu += d.Times
		case d.Object == "bridge br-lan":
			port += d.Times
		}
	}
	// Ten, and one for each ten seconds.
	most := 11 + int(time.Since(begin)/(10*time.Second))
	if mtu < 10 || mtu > most || port < 10 || port > most {
		t.Errorf("the MTU was put back %d times, the port %d times, want 10 to %d", mtu, port, most)
	}
	status, err := s.Pwctl(ctx, "status")
	for _, want := range []string{"something else keeps changing it: last change at", "eth1 was taken out of br-lan", "the MTU of pw-tenant-a was changed to 14", "stop what does that"} {
		if err == nil || !strings.Contains(status, want) {
			t.Errorf("status lacks %q: %v\n%s", want, err, status)
		}
	}
	table, err := s.Pwctl(ctx, "drift")
	if err != nil || !strings.Contains(table, "contested") || !strings.Contains(table, "put back, at most every ") {
		t.Errorf("pwctl drift: %v\n%s", err, table)
	}
	events, err := s.Pwctl(ctx, "events")
	if err != nil || strings.Count(events, "something else keeps changing it") != 2 {
		t.Errorf("pwctl events: %v\n%s", err, events)
	}
}
