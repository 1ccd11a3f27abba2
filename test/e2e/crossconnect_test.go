package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// An interface of one pseudowire alone needs no bridge: with that down all goes on, without
// the daemons, too; and afterwards the interface is as it was.
func TestCrossConnected(t *testing.T) {
	beside(t)
	w := build(t, network{datapaths: [2]string{"ebpf", "ebpf"}})
	const addressed = "198.51.100.254/32"
	w.sites[0].NS.Link("eth2").Addr(addressed)
	w.start()
	for _, s := range w.sites {
		for _, name := range []string{"tenant-a", "tenant-b"} {
			if got, want := w.crossConnected(s.Client(), name), name == "tenant-b"; got != want {
				t.Errorf("%s, %s: cross-connected is %v", s.Name, name, got)
			}
		}
		s.NS.Link("pwb-eth2").Down()
	}
	if err := w.lab.Err(); err != nil {
		t.Fatal(err)
	}
	warned := w.warnings(w.sites[0].Client(), "pseudowire tenant-b")
	if want := "interface eth2 has an IP address"; !strings.Contains(warned, want) {
		t.Errorf("warned of %q, not that %s", warned, want)
	}
	w.ping(w.b, netlab.PingOptions{})
	w.transfer(w.b, 0, 16<<20)
	f := w.flows(w.b, netlab.FlowOptions{Rate: steady})
	f.await(t, steady/5)
	for _, s := range w.sites {
		s.Daemon.Kill()
		<-s.Daemon.Exited()
		f.await(t, steady/2)
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		w.awaitUp()
		f.await(t, steady/5)
	}
	f.stop(t)
	for _, s := range w.sites {
		if !w.crossConnected(s.Client(), "tenant-b") {
			t.Errorf("%s: not cross-connected after a restart", s.Name)
		}
		if err := s.Stop(within(t, 5*time.Second)); err != nil {
			t.Error(err)
		}
		if err := s.Cleanup(within(t, upWithin)); err != nil {
			t.Error(err)
		}
		if err := s.Left(); err != nil {
			t.Errorf("left behind at %s: %v", s.Name, err)
		}
	}
}

func (w *world) crossConnected(c *api.Client, pseudowire string) bool {
	w.t.Helper()
	all, err := c.Attachments(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range all {
		if a.Pseudowire == pseudowire {
			return a.CrossConnected
		}
	}
	w.t.Fatalf("no attachment of %s", pseudowire)
	return false
}

// warnings are the messages of warnings about an object.
func (w *world) warnings(c *api.Client, object string) string {
	w.t.Helper()
	var all []string
	err := c.Events(w.t.Context(), 0, false, func(e api.Event) error {
		if e.Object == object && e.Severity == "warning" {
			all = append(all, e.Message)
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		w.t.Fatal(err)
	}
	return strings.Join(all, "; ")
}
