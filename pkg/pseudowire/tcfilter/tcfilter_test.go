package tcfilter

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
)

// A filter of somebody else's at the priority of ours is not ours: it is neither there for us,
// nor detached.
func TestOthersAtOurPriority(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.Namespace("one")
	device, _ := lab.Veth(ns, "wan", lab.Namespace("two"), "far")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	must(err)
	defer program.Close()
	nl, link := ns.Netlink(), numbered(device.Index)
	ours := Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7066, Name: "pwd_x"}
	theirs := ours
	theirs.Name = "count"
	there := func() (names []string) {
		t.Helper()
		all, err := nl.FilterList(link, ours.Parent)
		must(err)
		for _, f := range all {
			names = append(names, f.(*netlink.BpfFilter).Name)
		}
		return names
	}

	_, err = addClsact(nl, device.Index)
	must(err)
	must(Put(nl, device.Index, theirs, program, 1)) // as the kernel numbers the first
	if is, err := Attached(nl, link, ours); is || err != nil {
		t.Errorf("it is ours: %v (%v)", is, err)
	}
	brought, err := AttachToOthers(nl, link, ours, program, false)
	if must(err); brought {
		t.Error("the clsact qdisc is told to be ours")
	}
	if is, err := Attached(nl, link, ours); !is || err != nil {
		t.Errorf("ours is there: %v (%v)", is, err)
	}
	must(DetachFromOthers(nl, link, ours))
	if names := there(); len(names) != 1 || names[0] != theirs.Name {
		t.Errorf("there are the filters %q, want %s", names, theirs.Name)
	}
}

// A program that cannot be put there leaves no qdisc behind.
func TestQdiscGoesWithAFailure(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.Namespace("one")
	device, _ := lab.Veth(ns, "wan", lab.Namespace("two"), "far")
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, License: "GPL", // which is for no qdisc
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	nl, link := ns.Netlink(), numbered(device.Index)
	if brought, err := AttachToOthers(nl, link, Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7066, Name: "pwd_x"}, program, false); err == nil || brought {
		t.Errorf("attached: brought %v, %v", brought, err)
	}
	all, err := nl.QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if q.Type() == "clsact" {
			t.Errorf("there is %v", q)
		}
	}
}

// A device is found by its name in the namespace that was asked for; one that is not there is not.
func TestDevices(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.Namespace("one")
	near, far := lab.Veth(ns, "near", lab.Namespace("two"), "far")
	if err := ns.Do(func() error {
		d, err := OpenDevices()
		if err != nil {
			return err
		}
		defer d.Close()
		for name, want := range map[string]int{near.Name: near.Index, far.Name: 0, "lo": 1, "none": 0} {
			if index, err := d.Index(name); index != want || err != nil {
				t.Errorf("%s is %d, %v; want %d", name, index, err, want)
			}
		}
		if index, err := d.Index("a name that no device can have"); index != 0 || err == nil {
			t.Errorf("a name that is too long: %d, %v", index, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
