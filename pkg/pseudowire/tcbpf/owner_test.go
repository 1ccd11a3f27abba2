package tcbpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// Where an underlay has the qdisc ingress of somebody else's, and a filter in it, ours is beside that one: both see what
// comes in, and theirs stays when ours goes, in the place of an earlier process's too.
func TestBesideOthersIngress(t *testing.T) {
	a, b := newSites(t, setting{cookie: 8})
	seen := 0
	a.do(func() {
		wan := index(t, "wan")
		must(t, netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: wan, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
		}}))
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TC_ACT_UNSPEC
		})
		must(t, err)
		defer program.Close()
		must(t, netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: wan, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          program.FD(), Name: "theirs", DirectAction: true,
		}))
	})
	before := state(t, a)
	for _, s := range []*site{a, b} {
		s.open()
		s.set()
	}
	a.resolve()
	b.resolve()
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	for _, when := range []string{"attached", "after a restart"} {
		if !passes(portB, portA) || !passes(portA, portB) {
			t.Errorf("%s: frames do not pass", when)
		}
		a.do(func() {
			filters, err := netlink.FilterList(linkOf(index(t, "wan")), netlink.HANDLE_MIN_INGRESS)
			must(t, err)
			seen = len(filters)
		})
		if seen != 2 {
			t.Errorf("%s: %d filters are at the underlay, not theirs and ours", when, seen)
		}
		a.restart()
	}
	a.cleanup()
	if after := state(t, a); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
