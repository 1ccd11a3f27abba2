package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// A daemon that dies over an apply leaves pseudowires where the next one, to which the topology
// before is in force, puts others: at no time two are in one place (fatedCircuits looks).
func TestPlacesAreClearedAfterACrash(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDuo(t, dir, before)
		defer d.shut()
		was := d.begin(t, before)
		crashes := 0
		for _, how := range []end{killed, killedIn} {
			for n := 1; ; n++ {
				d.dc1.fate.watch(n, how)
				_ = d.dc1.apply(after)
				synctest.Wait()
				seen := len(d.dc1.fate.seen())
				d.dc1.fate.watch(0, "")
				if seen < n {
					break
				}
				if !d.dc1.dead() {
					t.Fatalf("step %d: not dead", n)
				}
				crashes++
				if err := d.dc1.start(); err != nil {
					t.Fatal(err)
				}
				settle(time.Second)
				if t.Failed() {
					t.Fatalf("%s step %d", how, n)
				}
				if err := d.dc1.force(before); err != nil {
					t.Fatal(err)
				}
			}
			settle(calm)
			d.compare(t, was, d.begin(t, before), "all of them")
		}
		if crashes < 100 {
			t.Errorf("%d crashes: it shows nothing", crashes)
		}
	})
}

// A loss of power leaves a note that is empty, which keeps no daemon from starting.
func TestDamagedNote(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	if err := os.MkdirAll(v.opt.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(v.opt.StateDir, underwayFile)
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v.begun(nil)
	if _, err := os.Stat(note); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note: %v", err)
	}
}

// A device that stays where it is is not in the note: a daemon that dies costs it nothing.
func TestOnlyWhatMovesIsNoted(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	a := v.begun(nil)
	if _, err := a.change(mustParse(t, topo(gold, wireTo("stays", "gold", 7)+wireTo("moves", "gold", 8)+wireTo("goes", "gold", 9)))); err != nil {
		t.Fatal(err)
	}
	to := mustParse(t, topo(gold, strings.Replace(wireTo("stays", "gold", 7), "tunnel: gold,", "tunnel: gold, mtu: 1400,", 1)+wireTo("moves", "gold", 9)+wireTo("comes", "gold", 8)))
	steps := a.difference(to.local)
	if len(steps) != 4 {
		t.Fatalf("steps: %+v", steps)
	}
	if err := a.setOut(steps); err != nil {
		t.Fatal(err)
	}
	var u underway
	if err := a.store.read(underwayFile, &u); err != nil || !slices.Equal(u.Devices, []string{"pw-comes", "pw-moves"}) {
		t.Errorf("%q, %v", u.Devices, err)
	}
}

// The note is on the disk before the first device moves.
func TestNoteIsDurable(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	synced := false
	a := v.begun(func(what string, do func() error) error {
		synced = synced || what == "sync "+underwayFile
		return do()
	})
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)))); err != nil || !synced {
		t.Errorf("synced %v, %v", synced, err)
	}
}
