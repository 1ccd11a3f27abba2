package tcbpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// A clsact qdisc that came with a program of the datapath's or of shaping goes with the last of
// them; somebody else's stays.
func TestOwnerOfQdisc(t *testing.T) {
	a, _ := newSites(t, setting{})
	a.open()
	defer a.cleanup()
	a.do(func() {
		pacing, err := bpf.LoadPacing("")
		must(t, err)
		defer pacing.Close()
		wan, err := netlink.LinkByName("wan")
		must(t, err)
		number := wan.Attrs().Index
		there := func() bool {
			all, err := netlink.QdiscList(wan)
			must(t, err)
			for _, q := range all {
				if q.Type() == "clsact" {
					return true
				}
			}
			return false
		}
		departs := tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7066, Name: "pwd_depart"}
		type part struct {
			name           string
			attach, detach func() error
		}
		input := part{"input",
			func() error { return a.dp.attachFilter(number, a.dp.inputHook(onEthernet)) },
			func() error { return a.dp.detachFilter(number) }}
		shaping := part{"shaping",
			func() error {
				_, err := tcfilter.AttachToOthers(a.dp.nl, wan, departs, pacing.Program, false)
				return err
			},
			func() error { return tcfilter.DetachFromOthers(a.dp.nl, wan, departs) }}
		orders := [][2]part{{input, shaping}, {shaping, input}}
		for _, foreign := range []bool{false, true} {
			for _, come := range orders {
				for _, leave := range orders {
					if foreign {
						must(t, netlink.QdiscAdd(clsact(number)))
					}
					must(t, come[0].attach())
					must(t, come[1].attach())
					must(t, leave[0].detach())
					if !there() {
						t.Errorf("%s took the qdisc away from %s", leave[0].name, leave[1].name)
					}
					must(t, leave[1].detach())
					if there() != foreign {
						t.Errorf("%s came first and %s left first: the qdisc is there: %v; it is somebody else's: %v", come[0].name, leave[0].name, there(), foreign)
					}
					if there() {
						must(t, netlink.QdiscDel(clsact(number)))
					}
				}
			}
		}
	})
}

// What native service processing of another datapath has pinned is not the datapath's to unpin.
func TestCleanupLeavesOtherPins(t *testing.T) {
	dir := filepath.Join(bpffs(t), "pwd")
	a, _ := newSites(t, setting{bpfDir: dir})
	a.open()
	pins := a.dp.pins
	served, err := bpf.LoadNSP(pins, "kernel")
	must(t, err)
	defer served.Close()
	pinned := func(what string) int {
		all, err := filepath.Glob(filepath.Join(pins, "maps-*", what))
		must(t, err)
		return len(all)
	}
	before := pinned("nsp-kernel/*")
	if before == 0 || pinned("*") < 2 {
		t.Fatalf("%d maps are pinned beside %d things", before, pinned("*"))
	}
	a.cleanup()
	if n := pinned("nsp-kernel/*"); n != before {
		t.Errorf("%d maps were pinned, %d still are", before, n)
	}
	if n := pinned("*"); n != 1 {
		t.Errorf("%d things are left of one", n)
	}
	must(t, bpf.RemovePins(pins, bpf.PartNSP("kernel")))
	if left, err := os.ReadDir(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is left (%v)", left, err)
	}
}

// Nothing to remove takes nothing of the kernel.
func TestRemoveNoLinks(t *testing.T) {
	must(t, new(Datapath).removeLinks(nil))
}
