package tcbpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Filters of ours are told from others' by priority and name. The handle says
// who made the qdisc that they are in.
const (
	filterPriority    = 0x7064
	handleForeign     = 1 // the qdisc was there
	handleOwn         = 2 // we made the qdisc
	filterNameEncap   = "pwd_encap"
	filterNameDecap   = "pwd_decap"
	filterNameLane    = "pwd_lane"
	clsactMajor       = 0xffff
	ingressMinor      = 0xfff2
	egressMinor       = 0xfff3
	filterProtocolAll = unix.ETH_P_ALL
)

// hook is an attachment: a program at the ingress of a link.
type hook struct {
	program *ebpf.Program
	name    string
}

// attach puts a program at the ingress of a link, in place of the one of its
// kind that is there, without a moment in which there is none.
func (d *Datapath) attach(index int, h hook) error {
	return d.attachFilter(index, h)
}

func (d *Datapath) detach(index int) error {
	return d.detachFilter(index)
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(clsactMajor, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// attachFilter uses a classifier of the clsact qdisc. It stays when the process
// ends.
func (d *Datapath) attachFilter(index int, h hook) error {
	handle := uint32(handleForeign)
	old, err := d.ownFilters(index)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		handle = old[0].Handle
	} else if err := d.nl.QdiscAdd(clsact(index)); err == nil {
		handle = handleOwn
	} else if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the clsact qdisc to link %d: %w", index, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index,
			Parent:    netlink.MakeHandle(clsactMajor, ingressMinor),
			Handle:    handle,
			Protocol:  filterProtocolAll,
			Priority:  filterPriority,
		},
		Fd:           h.program.FD(),
		Name:         h.name,
		DirectAction: true,
	}
	if err := d.nl.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach %s to link %d: %w", h.name, index, err)
	}
	return nil
}

// detachFilter removes our filter, and the qdisc with it if we made it and
// nobody else has put anything in.
func (d *Datapath) detachFilter(index int) error {
	own, err := d.ownFilters(index)
	if err != nil || len(own) == 0 {
		return err
	}
	for _, f := range own {
		if err := d.nl.FilterDel(f); err != nil && !gone(err) {
			return fmt.Errorf("detach %s from link %d: %w", f.Name, index, err)
		}
	}
	if own[0].Handle != handleOwn {
		return nil
	}
	for _, minor := range []uint16{ingressMinor, egressMinor} {
		rest, err := d.nl.FilterList(linkOf(index), netlink.MakeHandle(clsactMajor, minor))
		if err != nil || len(rest) > 0 {
			return err
		}
	}
	if err := d.nl.QdiscDel(clsact(index)); err != nil && !gone(err) {
		return fmt.Errorf("remove the clsact qdisc of link %d: %w", index, err)
	}
	return nil
}

// ownFilters are our filters at a link's ingress.
func (d *Datapath) ownFilters(index int) ([]*netlink.BpfFilter, error) {
	filters, err := d.nl.FilterList(linkOf(index), netlink.MakeHandle(clsactMajor, ingressMinor))
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list the filters of link %d: %w", index, err)
	}
	var own []*netlink.BpfFilter
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Priority == filterPriority && ownFilterName(b.Name) {
			own = append(own, b)
		}
	}
	return own, nil
}

func ownFilterName(name string) bool {
	return name == filterNameEncap || name == filterNameDecap || name == filterNameLane
}

func linkOf(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// gone says that what was to be changed is not there: no device, no qdisc, no filter.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
