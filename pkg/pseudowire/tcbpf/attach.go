package tcbpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// hook is a program and the name of its attachments.
type hook struct {
	name    string
	program *ebpf.Program
	egress  bool // otherwise it is the ingress
	// others says that it is at a device of somebody else's, who may have programs there too.
	others bool
}

// filter is the hook's place where it is one.
func (h hook) filter() tcfilter.Filter {
	if h.egress {
		return tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: tcfilter.PriorityEnter, Name: h.name}
	}
	return tcfilter.Filter{Parent: netlink.HANDLE_MIN_INGRESS, Priority: tcfilter.PriorityDatapath, Name: h.name}
}

func (d *Datapath) encapHook() hook { return hook{name: "pwd_encap", program: d.objs.Encap} }

// inputHook is what decapsulates at a link of that kind.
func (d *Datapath) inputHook(k linkKind) hook {
	if k == withoutEthernet {
		return hook{name: "pwd_decap_ip", program: d.objs.DecapIP, others: true}
	}
	return hook{name: "pwd_decap", program: d.objs.Decap, others: true}
}

func (d *Datapath) laneHook() hook { return hook{name: "pwd_lane", program: d.objs.Lane} }
func (d *Datapath) portHook() hook { return hook{name: "pwd_port", program: d.objs.Port, others: true} }
func (d *Datapath) outHook() hook  { return hook{name: "pwd_out", program: d.objs.Out} }
func (d *Datapath) enterHook() hook {
	return hook{name: "pwd_enter", program: d.objs.Enter, egress: true}
}

func ownHook(name string) bool {
	switch name {
	case "pwd_encap", "pwd_decap", "pwd_decap_ip", "pwd_lane", "pwd_port", "pwd_out", "pwd_enter":
		return true
	}
	return false
}

// attach puts a program at the ingress of a link, in place of the one of its
// kind that is there, without a moment in which there is none. Either way of
// attaching outlives the process.
//
// At devices of others it is tcx, which comes before filters and adds no qdisc: to add or
// remove one stops a device that is up for a moment, and everybody's packets with it. The
// kernel waits for an RCU grace period each time, though. Devices of ours get their program
// before they are up, as a filter: that waits for nothing, and there may be a thousand.
//
// What an earlier process attached the other way stays where it is, with this program, until
// that leaves the link: of a filter behind tcx only the latter runs.
func (d *Datapath) attach(index int, h hook) error {
	pinned, err := d.replaceTCX(index, h)
	if err != nil {
		return err
	}
	if !pinned && h.others && d.pins != "" && !d.withoutTCX {
		err := d.attachTCX(index, h)
		d.withoutTCX = errors.Is(err, ebpf.ErrNotSupported)
		if err != nil && !d.withoutTCX {
			return err
		}
		pinned = err == nil
	}
	if pinned {
		own, err := d.ownFilters(index, h)
		if err != nil || len(own) == 0 {
			return err
		}
	}
	return d.attachFilter(index, h)
}

// attached says whether one of our programs is at the ingress of a link.
func (d *Datapath) attached(index int) (bool, error) {
	if d.pins != "" {
		l, err := link.LoadPinnedLink(d.pin(index), nil)
		if err == nil {
			defer l.Close()
			if onLink(l, index) {
				return true, nil
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("open the pinned attachment to link %d: %w", index, err)
		}
	}
	own, err := d.ownFilters(index, hook{})
	return len(own) > 0, err
}

// detach takes our program off a link.
func (d *Datapath) detach(index int) error {
	if err := d.unpin(index); err != nil {
		return err
	}
	return d.detachFilter(index)
}

// pinned is the directory of pinned attachments.
func (d *Datapath) pinned() string { return filepath.Join(d.pins, "links") }

// pin is where the attachment to a link is pinned.
func (d *Datapath) pin(index int) string { return filepath.Join(d.pinned(), strconv.Itoa(index)) }

// replaceTCX puts a program in the place of one that is attached by tcx, and says whether there
// is one.
func (d *Datapath) replaceTCX(index int, h hook) (bool, error) {
	if d.pins == "" {
		return false, nil
	}
	pin := d.pin(index)
	old, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned attachment %s: %w", pin, err)
	}
	defer old.Close()
	if onLink(old, index) {
		if err := old.Update(h.program); err != nil {
			return false, fmt.Errorf("replace %s at link %d: %w", h.name, index, err)
		}
		return true, nil
	}
	// Of a link that has gone, its number given to another.
	if err := os.Remove(pin); err != nil {
		return false, fmt.Errorf("unpin an attachment that has gone: %w", err)
	}
	return false, nil
}

// attachTCX uses a pinned link: the kernel keeps it for as long as the pin.
func (d *Datapath) attachTCX(index int, h hook) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: h.program, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("attach %s to link %d: %w", h.name, index, err)
	}
	defer l.Close()
	if err := os.MkdirAll(d.pinned(), 0o700); err != nil {
		return fmt.Errorf("make a directory for attachments: %w", err)
	}
	if err := l.Pin(d.pin(index)); err != nil {
		return fmt.Errorf("pin the attachment of %s to link %d: %w", h.name, index, err)
	}
	return nil
}

func onLink(l link.Link, index int) bool {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return false
	}
	return info.TCX().Ifindex == uint32(index)
}

// unpin removes a pinned attachment, and with it the attachment: at once, lest the
// same program be there still when it is to come back.
func (d *Datapath) unpin(index int) error {
	if d.pins == "" {
		return nil
	}
	pin := d.pin(index)
	if l, err := link.LoadPinnedLink(pin, nil); err == nil {
		// Where it cannot be done it is because the device has gone.
		_ = l.Detach()
		l.Close()
	}
	err := os.Remove(pin)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin the attachment to link %d: %w", index, err)
	}
	return nil
}

// pinnedLinks are the links that have pinned attachments, or had.
func (d *Datapath) pinnedLinks() ([]int, error) {
	if d.pins == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(d.pinned())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pinned attachments: %w", err)
	}
	var links []int
	for _, e := range entries {
		if index, err := strconv.Atoi(e.Name()); err == nil {
			links = append(links, index)
		}
	}
	return links, nil
}

// attachFilter uses a classifier of the clsact qdisc, which stays until removed.
func (d *Datapath) attachFilter(index int, h hook) error {
	old, err := d.ownFilters(index, h)
	if err != nil {
		return err
	}
	var handle uint32
	if len(old) > 0 {
		handle = old[0].Handle
	} else if handle, err = tcfilter.Claim(d.nl, index, h.filter()); err != nil {
		return err
	}
	return tcfilter.Put(d.nl, index, h.filter(), h.program, handle)
}

// detachFilter removes our filter, and the qdisc with it if we made it and
// nobody else has put anything in.
func (d *Datapath) detachFilter(index int) error {
	own, err := d.ownFilters(index, hook{})
	if err != nil || len(own) == 0 {
		return err
	}
	for _, f := range own {
		if err := d.nl.FilterDel(f); err != nil && !gone(err) {
			return fmt.Errorf("detach %s from link %d: %w", f.Name, index, err)
		}
	}
	return tcfilter.Release(d.nl, index, own[0].Handle)
}

// ownFilters are our filters at a link, at the same side as a hook.
func (d *Datapath) ownFilters(index int, at hook) ([]*netlink.BpfFilter, error) {
	place := at.filter()
	filters, err := d.nl.FilterList(linkOf(index), place.Parent)
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list the filters of link %d: %w", index, err)
	}
	var own []*netlink.BpfFilter
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Priority == place.Priority && ownHook(b.Name) {
			own = append(own, b)
		}
	}
	return own, nil
}

// attachEnter has frames encapsulated as they leave a pseudowire's device, not on the other
// side of it. Without it, as on a device that a version before has made, they take that way:
// to add a qdisc stops a device that is up for a moment.
func (d *Datapath) attachEnter(p pair) {
	if err := d.attachFilter(p.inner, d.enterHook()); err != nil {
		d.log.Warn("frames take the longer way over the veth pair", "device", p.innerName, "err", err)
	}
}

// replaceEnter puts this process's program in the place of an earlier one's.
func (d *Datapath) replaceEnter(p pair) error {
	own, err := d.ownFilters(p.inner, d.enterHook())
	if err != nil || len(own) == 0 {
		return err
	}
	return d.attachFilter(p.inner, d.enterHook())
}

func linkOf(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// gone says that what was to be changed is not there: no device, no qdisc, no filter.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
