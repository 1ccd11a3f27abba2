// Package tcfilter puts eBPF programs at the hooks of a device, as filters of its clsact
// qdisc. They stay there when the process ends, and go with the device.
package tcfilter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// By whether the handle of a filter of ours is even the next process knows whether we have made
// the clsact qdisc. It is the least that no filter of somebody else's has at our priority.
const (
	handleForeign = 1 // it was there
	handleOwn     = 2 // it came with ours
)

func own(handle uint32) bool { return handle%2 == 0 }

// namePrefix is that of the names of all our filters.
const namePrefix = "pwd_"

// Filter is a program's place: Parent is netlink.HANDLE_MIN_INGRESS or HANDLE_MIN_EGRESS,
// and filters of a lower Priority come first. Name begins with pwd_: by it and by Priority ours
// are told from others'.
type Filter struct {
	Parent   uint32
	Priority uint16
	Name     string
}

// Attach puts a program there, in the place of the one of ours that is, without a moment in which
// there is none. It adds the clsact qdisc, which stops a device that is up for a moment.
func Attach(nl *netlink.Handle, link int, f Filter, program *ebpf.Program) error {
	// All but the first of a device's filters find the qdisc there, so it is not asked for before.
	err := Put(nl, link, f, program, handleForeign)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if _, err := addClsact(nl, link); err != nil {
		return err
	}
	return Put(nl, link, f, program, handleForeign)
}

// AttachToOthers is Attach to a device that is not ours. DetachFromOthers takes the clsact
// qdisc away, too, if it came with the program, or with another of ours, and nothing else is
// in it. It came with the program if brought says so, which is the result of the time before.
// Errors: *IngressError.
func AttachToOthers(nl *netlink.Handle, link netlink.Link, f Filter, program *ebpf.Program, brought bool) (bool, error) {
	index := link.Attrs().Index
	with, err := claim(nl, index, f, brought)
	if err == nil && !own(with) && f.Parent == netlink.HANDLE_MIN_EGRESS {
		err = hasEgress(nl, link)
	}
	if err != nil {
		return brought, err
	}
	if err := Put(nl, index, f, program, with); err != nil {
		// A qdisc that came for it goes with it.
		return brought, errors.Join(err, Release(nl, index, with))
	}
	return own(with), nil
}

// IngressError says that a device has the qdisc ingress, of somebody else's: it is where clsact
// would be, and has no egress.
type IngressError struct{ Interface string }

func (e *IngressError) Error() string {
	return fmt.Sprintf("%s has the qdisc ingress, beside which there are no programs at its egress: have its filters in clsact instead (tc qdisc del dev %s ingress; tc qdisc add dev %s clsact)", e.Interface, e.Interface, e.Interface)
}

// hasEgress looks at the qdisc that is where clsact is to be: the kernel would take a filter for
// the egress in that of another kind, and have it at the ingress.
func hasEgress(nl *netlink.Handle, link netlink.Link) error {
	all, err := nl.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list the qdiscs of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Type() == "ingress" {
			return &IngressError{link.Attrs().Name}
		}
	}
	return nil
}

// DetachFromOthers ends AttachToOthers.
func DetachFromOthers(nl *netlink.Handle, link netlink.Link, f Filter) error {
	ours, err := list(nl, link, f)
	if err != nil || len(ours) == 0 {
		return err
	}
	if err := Detach(nl, link, f); err != nil {
		return err
	}
	return Release(nl, link.Attrs().Index, ours[0].Attrs().Handle)
}

// Claim has a device have a clsact qdisc. It returns the handle of a further filter in it: like
// those of ours that are there, by which the qdisc is ours or not.
func Claim(nl *netlink.Handle, link int, f Filter) (handle uint32, err error) {
	return claim(nl, link, f, false)
}

// claim is Claim; brought says that the qdisc is ours.
func claim(nl *netlink.Handle, link int, f Filter, brought bool) (handle uint32, err error) {
	made, err := addClsact(nl, link)
	if err != nil {
		return 0, err
	}
	if made {
		return handleOwn, nil
	}
	taken := map[uint32]bool{}
	for _, parent := range hooks {
		filters, err := nl.FilterList(numbered(link), parent)
		if err != nil {
			return 0, fmt.Errorf("list the filters of link %d: %w", link, err)
		}
		for _, x := range filters {
			b, is := x.(*netlink.BpfFilter)
			switch a := x.Attrs(); {
			case is && strings.HasPrefix(b.Name, namePrefix):
				brought = brought || own(b.Handle)
			case parent == f.Parent && a.Priority == f.Priority:
				taken[a.Handle] = true
			}
		}
	}
	handle = handleForeign
	if brought {
		handle = handleOwn
	}
	for taken[handle] {
		handle += 2
	}
	return handle, nil
}

// Release takes the clsact qdisc away if it is ours by the handle of a filter that has gone, and
// nothing is in it.
func Release(nl *netlink.Handle, link int, handle uint32) error {
	if !own(handle) {
		return nil
	}
	for _, parent := range hooks {
		if rest, err := nl.FilterList(numbered(link), parent); err != nil || len(rest) > 0 {
			return err
		}
	}
	if err := nl.QdiscDel(clsact(link)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the clsact qdisc of link %d: %w", link, err)
	}
	return nil
}

var hooks = []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}

func numbered(link int) netlink.Link { return Numbered(link, "") }

func clsact(link int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// addClsact has a device have a clsact qdisc, and says whether it had none.
func addClsact(nl *netlink.Handle, link int) (made bool, err error) {
	if err := nl.QdiscAdd(clsact(link)); errors.Is(err, unix.EEXIST) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("add the clsact qdisc to link %d: %w", link, err)
	}
	return true, nil
}

// Put puts a program there under a handle from Claim, or the one that the filter in its place has.
func Put(nl *netlink.Handle, link int, f Filter, program *ebpf.Program, handle uint32) error {
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link, Parent: f.Parent, Handle: handle, Protocol: unix.ETH_P_ALL, Priority: f.Priority},
		Fd:          program.FD(), Name: f.Name, DirectAction: true,
	}
	if err := nl.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach %s to link %d: %w", f.Name, link, err)
	}
	return nil
}

// Attached says whether one of ours is there.
func Attached(nl *netlink.Handle, link netlink.Link, f Filter) (bool, error) {
	ours, err := list(nl, link, f)
	return len(ours) > 0, err
}

// Detach takes away the one of ours that is there.
func Detach(nl *netlink.Handle, link netlink.Link, f Filter) error {
	ours, err := list(nl, link, f)
	if err != nil {
		return err
	}
	for _, x := range ours {
		if err := nl.FilterDel(x); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("detach %s from %s: %w", f.Name, link.Attrs().Name, err)
		}
	}
	return nil
}

func list(nl *netlink.Handle, link netlink.Link, f Filter) ([]netlink.Filter, error) {
	filters, err := nl.FilterList(link, f.Parent)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, nil // there is no clsact qdisc, or no device
	}
	if err != nil {
		return nil, fmt.Errorf("list the filters of %s: %w", link.Attrs().Name, err)
	}
	return slices.DeleteFunc(filters, func(x netlink.Filter) bool {
		b, ok := x.(*netlink.BpfFilter)
		return !ok || b.Priority != f.Priority || !strings.HasPrefix(b.Name, namePrefix)
	}), nil
}
