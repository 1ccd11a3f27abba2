package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// cleanup is pwd --cleanup.
func (p *place) cleanup() error {
	return p.ns.Do(func() error { return Cleanup(p.t.Context(), p.opt) })
}

// left is an error that lists what is left of the site's daemons.
func (p *place) left(links string) error {
	var errs []error
	if diff := cmp.Diff(lines(links), lines(p.links())); diff != "" {
		errs = append(errs, fmt.Errorf("links:\n%s", diff))
	}
	if text := p.kernel.text() + p.l2tp.text(); text != "" {
		errs = append(errs, fmt.Errorf("datapaths:\n%s", text))
	}
	entries, err := os.ReadDir(p.opt.StateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, fmt.Errorf("state: %s", e.Name()))
		}
	}
	return errors.Join(errs...)
}

// both has a pseudowire on either datapath.
var both = topo(gold, wireTo("a", "gold", 7)+"k: {tunnel: gold, datapath: kernel, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n")

// Both ways of tearing everything down tell the peer and leave nothing.
func TestNothingIsLeft(t *testing.T) {
	for _, atStop := range []bool{true, false} {
		t.Run(fmt.Sprintf("on-stop: teardown %v", atStop), func(t *testing.T) {
			dc1, dc2 := places(t)
			links := dc1.links()
			dc1.opt.OnStopTeardown = atStop
			for _, p := range []*place{dc1, dc2} {
				p.write(both)
				p.start()
			}
			dc1.awaitUp()
			dc2.awaitUp()
			dc1.shut()
			if !atStop {
				if err := dc1.left(links); err == nil {
					t.Error("the stop left nothing")
				}
				if err := dc1.cleanup(); err != nil {
					t.Errorf("cleanup: %v", err)
				}
			}
			if err := dc1.left(links); err != nil {
				t.Error(err)
			}
			dc2.await("it was told", func(a *Agent) error {
				want := "warning down: the peer sent StopCCN: shutting down"
				if told := dc2.told("tunnel gold/dc1"); !slices.ContainsFunc(told, func(s string) bool { return strings.HasPrefix(s, want) }) {
					return fmt.Errorf("told %q", told)
				}
				return nil
			})
		})
	}
}

// A cleanup beside a daemon changes nothing, whatever state directory it is given.
func TestCleanupLeavesADaemonAlone(t *testing.T) {
	p := lone(t)
	p.write(both)
	p.start()
	was := p.links()
	if err := p.cleanup(); !errors.As(err, new(*BusyError)) {
		t.Errorf("with its state directory: %v", err)
	}
	other := *p
	other.opt.StateDir = filepath.Join(t.TempDir(), "other")
	err := other.cleanup()
	if busy, ok := errors.AsType[*NamespaceBusyError](err); !ok || busy.PID != os.Getpid() {
		t.Errorf("with another: %v", err)
	}
	if err := p.ns.Do(func() error { _, err := New(other.opt); return err }); !errors.As(err, new(*NamespaceBusyError)) {
		t.Errorf("a second daemon: %v", err)
	}
	if diff := cmp.Diff(lines(was), lines(p.links())); diff != "" {
		t.Errorf("links before and after:\n%s", diff)
	}
	p.shut()
	other.opt.StateDir, other.opt.Site = p.opt.StateDir, "dc9"
	if err := other.cleanup(); !errors.As(err, new(*SiteError)) {
		t.Errorf("of another site: %v", err)
	}
}

// State that cannot be read does not keep a cleanup from removing everything.
func TestCleanupWithoutReadableState(t *testing.T) {
	for _, tt := range []struct{ name, file, content string }{
		{"generation of another version", "generation.json", `{"version": 99}`},
		{"damaged generation", "generation.json", `{"vers`},
		{"tunnel of another version", "tunnels/gold%2Fdc2.json", `{"version": 99}`},
		{"damaged tunnel", "tunnels/gold%2Fdc2.json", ``},
		{"datapaths forgotten", "datapaths.json", `{"version": 1}`},
		{"damaged datapaths", "datapaths.json", ``},
		{"all gone", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := lone(t)
			links := p.links()
			p.write(both)
			p.start()
			p.shut()
			var err error
			if tt.file == "" {
				err = os.RemoveAll(p.opt.StateDir)
			} else {
				err = os.WriteFile(filepath.Join(p.opt.StateDir, tt.file), []byte(tt.content), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := p.cleanup(); err != nil {
				t.Errorf("cleanup: %v", err)
			}
			if err := p.left(links); err != nil {
				t.Error(err)
			}
		})
	}
}

// A datapath that cannot be opened is told of, and everything else removed; one
// that the host does not have left nothing.
func TestCleanupWithoutADatapath(t *testing.T) {
	refused := errors.New("operation not permitted")
	for _, tt := range []struct {
		name string
		err  error
		fail bool
	}{{"not permitted", refused, true}, {"not supported", fmt.Errorf("no such module: %w", errors.ErrUnsupported), false}} {
		t.Run(tt.name, func(t *testing.T) {
			p := lone(t)
			links := p.links()
			p.write(both)
			p.start()
			p.shut()
			p.opt.Datapaths[1].Open = func() (pseudowire.Datapath, error) { return nil, tt.err }
			err := p.cleanup()
			if failed, ok := errors.AsType[*DatapathError](err); ok != tt.fail || ok && failed.Kind != pseudowire.Kernel {
				t.Errorf("cleanup: %v", err)
			}
			if got := p.links(); got != links || p.kernel.text() != "" {
				t.Errorf("left:\n%s\n%s", got, p.kernel.text())
			}
			// What could not be removed is still known to be there.
			if _, err := os.Stat(filepath.Join(p.opt.StateDir, "generation.json")); (err == nil) != tt.fail {
				t.Errorf("the state: %v", err)
			}
		})
	}
}

// A daemon that is started with another datapath removes what the one before made.
func TestAnotherDatapathTakesOver(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, "a: {tunnel: gold, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n"))
	p.opt.Datapath = pseudowire.EBPF
	p.start()
	p.shut()
	p.opt.Datapath = pseudowire.Kernel
	p.start()
	if text := p.kernel.text(); text != "" {
		t.Errorf("left in the other datapath:\n%s", text)
	}
	if st := p.status(); st.Datapath != "kernel" || st.Pseudowires[0].Datapath != "kernel" {
		t.Errorf("datapath %s, pseudowire on %s", st.Datapath, st.Pseudowires[0].Datapath)
	}
}

// Without the preferred datapath the next one is used, and the status says why.
func TestNextDatapathIsUsed(t *testing.T) {
	p := lone(t)
	p.opt.Datapaths[0].Open = func() (pseudowire.Datapath, error) { return nil, errors.ErrUnsupported }
	p.start()
	if st := p.status(); st.Datapath != "kernel" || len(st.Notes) != 1 {
		t.Errorf("datapath %s, notes %q", st.Datapath, st.Notes)
	}
	p.shut()
	p.opt.Datapath = pseudowire.EBPF
	if err := p.try(); !errors.As(err, new(*DatapathError)) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("what was asked for is not there: %v", err)
	}
}
