package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// The list of datapaths is on the disk before anything is made in one of them.
func TestDatapathsAreDurable(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	var steps []string
	v.begun(func(what string, do func() error) error {
		steps = append(steps, what)
		return do()
	})
	for _, want := range []string{"sync datapaths.json", "sync the directory of datapaths.json"} {
		if !slices.Contains(steps, want) {
			t.Errorf("%q is not among %q", want, steps)
		}
	}
}

// A damaged list keeps no daemon from starting: that says so, and looks for what any datapath may have left.
func TestDamagedDatapaths(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	if err := os.MkdirAll(v.opt.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.opt.StateDir, "datapaths.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := pseudowire.Pseudowire{Name: "left", Device: "pw-left"}
	v.kernel.pseudowires["left"] = left
	var log strings.Builder
	v.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	a := v.begun(nil)
	if kinds, err := a.store.datapaths(); err != nil || !slices.Equal(kinds, []pseudowire.Kind{pseudowire.EBPF}) {
		t.Errorf("%v, %v", kinds, err)
	}
	if len(v.kernel.pseudowires) > 0 {
		t.Errorf("left in the other datapath: %v", v.kernel.pseudowires)
	}
	if !strings.Contains(log.String(), "list of datapaths") {
		t.Errorf("the log says %q", &log)
	}
}
