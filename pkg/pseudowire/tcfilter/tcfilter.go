// Package tcfilter puts eBPF programs at the hooks of a device, as filters of its clsact
// qdisc. They stay there when the process ends, and go with the device.
package tcfilter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// handle is every filter's: there is one of a priority.
const handle = 1

// Filter is a program's place: Parent is netlink.HANDLE_MIN_INGRESS or HANDLE_MIN_EGRESS,
// and filters of a lower Priority come first.
type Filter struct {
	Parent   uint32
	Priority uint16
	Name     string
}

// Attach puts a program there, in the place of the one that is, without a moment in which
// there is none. It adds the clsact qdisc, which stops a device that is up for a moment.
func Attach(nl *netlink.Handle, link int, f Filter, program *ebpf.Program) error {
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := nl.QdiscAdd(clsact); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the clsact qdisc to link %d: %w", link, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link, Parent: f.Parent, Handle: handle, Protocol: unix.ETH_P_ALL, Priority: f.Priority},
		Fd:          program.FD(), Name: f.Name, DirectAction: true,
	}
	if err := nl.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach %s to link %d: %w", f.Name, link, err)
	}
	return nil
}

// Attached says whether something is there.
func Attached(nl *netlink.Handle, link netlink.Link, f Filter) (bool, error) {
	own, err := list(nl, link, f)
	return len(own) > 0, err
}

// Detach takes away what is there.
func Detach(nl *netlink.Handle, link netlink.Link, f Filter) error {
	own, err := list(nl, link, f)
	if err != nil {
		return err
	}
	for _, x := range own {
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
		return !ok || b.Priority != f.Priority
	}), nil
}
