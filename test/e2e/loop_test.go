package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// A cable between the LANs of two sites that a network joins is a loop. The pseudowire is
// blocked, the network goes on over the cable, and the status tells. When the cable has
// gone the pseudowire is released.
func TestLoop(t *testing.T) {
	if inVM {
		t.Skip("one machine's processors, and frames that run around as fast as they can")
	}
	m := buildMesh(t, "", [3]int{2, 2, 2})
	ping := func(what string) {
		t.Helper()
		err := netlab.Poll(within(t, 30*time.Second), what, func() error {
			r, err := m.hosts[0].NS.Ping(within(t, 30*time.Second), m.addr[1], netlab.PingOptions{Count: 3})
			if err == nil && r.Lost() > 0 {
				err = fmt.Errorf("%d of %d lost", r.Lost(), r.Sent)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	ping("hosts reach each other")

	one, another := m.lab.Veth(m.sites[0].NS, "cable", m.sites[1].NS, "cable")
	one.Silent().Master(m.sites[0].NS.Link("br-lan")).Up()
	another.Silent().Master(m.sites[1].NS.Link("br-lan")).Up()
	// Somebody speaks, to all.
	begin := time.Now()
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x07\x88\xb5"), make([]byte, 46)...)
	if err := m.hosts[0].Send(frame); err != nil {
		t.Fatal(err)
	}
	blocked := func(st *api.Status) error {
		for _, p := range st.Problems {
			if strings.Contains(p.What, "blocked since ") && strings.Contains(p.What, "02:00:00:00:00:07 moves to and fro between ") && strings.Contains(p.Fix, "pwctl undrain office/dc") {
				return nil
			}
		}
		return fmt.Errorf("problems %+v", st.Problems)
	}
	err := netlab.Poll(within(t, 60*time.Second), "one of the sites blocks its pseudowire", func() error {
		var errs []error
		for _, s := range m.sites[:2] {
			st, err := s.Client().Status(within(t, 30*time.Second))
			if err == nil {
				err = blocked(st)
			}
			if err == nil {
				t.Logf("%s blocked it %v after the first frame", s.Name, time.Since(begin))
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	ping("hosts reach each other by the cable")

	one.Delete()
	for _, s := range m.sites {
		st, err := s.Client().Status(within(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Problems {
			name, is := strings.CutPrefix(p.Object, "pseudowire ")
			if !is || !strings.Contains(p.Fix, "pwctl undrain "+name) {
				continue
			}
			if said, err := s.Pwctl(within(t, 30*time.Second), "undrain", name); err != nil {
				t.Errorf("undrain: %v\n%s", err, said)
			}
		}
	}
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, 30*time.Second), 2, 2); err != nil {
			t.Error(err)
		}
	}
	ping("hosts reach each other by the pseudowire again")
}
