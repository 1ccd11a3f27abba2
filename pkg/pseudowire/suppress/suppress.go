// Package suppress keeps requests of address resolution (ARP, RFC 826; neighbour solicitations,
// RFC 4861) from crossing the pseudowires of a network, for any datapath: eBPF programs at both
// hooks of the pseudowires' devices answer those for addresses that are known behind one of
// them. They go with the devices.
//
// # What is known
//
// Whose an address is, is learned from what comes out of the pseudowires: ARP, and neighbour
// advertisements, with the router flag that they have. Where that host is, is learned apart from
// it, from every ARP, RARP and neighbour discovery message: a host that has moved is at its new
// place with the first of them. A host that is heard on this side is behind no pseudowire any
// more. Moved takes in what the bridge notices besides.
//
// A request is answered if its address was last told of within Lifetime and the host is behind a
// pseudowire. The answer comes out of that one, as the host's own would, so that bridges
// learn nothing wrong from it. What the maps have no room for is forgotten, the oldest first.
//
// # What is not answered
//
// Requests that tell others something: the first of an address within Lifetime, and the first from another
// MAC address, so that those who knew the host by the old one find it.
//
// Requests that ask the host itself: unicast ones, probes for duplicates (RFC 5227; RFC 4862,
// Section 5.4); solicitations with options besides the link-layer address; frames with a
// service tag or with two tags.
package suppress

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// Lifetime is for how long an address is answered for after its host has last said whose it is.
const Lifetime = 2 * time.Minute

const (
	// What comes into the device passes native service processing and then us, what goes
	// out of it us and then that: to both programs frames are as they are in the pseudowire.
	// The eBPF datapath takes what goes in behind us.
	filterName = "pwd_suppress"
)

// ErrUnsupported is what an error of Wrap matches where the kernel cannot load the programs.
var ErrUnsupported = ebpf.ErrNotSupported

// Options of the suppression. The zero value is usable.
type Options struct {
	// Lifetime is Lifetime if 0; for tests.
	Lifetime time.Duration
}

// Datapath is another one some of whose pseudowires suppress address resolution.
type Datapath struct {
	pseudowire.Above
	strays   drift.Log
	lifetime time.Duration
	nl       *netlink.Handle
	devices  *tcfilter.Devices
	wires    map[string]*wire
	groups   map[string]*bpf.Suppression
}

// wire is a pseudowire and how its device is: device is 0 before that was looked at, group
// empty if nothing is attached. bare says that there was no device: one that comes has no programs
// of an earlier process.
type wire struct {
	pseudowire.Pseudowire
	device uint32
	bare   bool
	group  string
}

// Wrap makes it so for a datapath, in the namespace of the calling thread. On an error the
// datapath is as it was, and the caller's.
func Wrap(dp pseudowire.Datapath, o Options) (*Datapath, error) {
	if o.Lifetime == 0 {
		o.Lifetime = Lifetime
	}
	programs, err := bpf.LoadSuppression(o.Lifetime)
	if err != nil {
		return nil, err
	}
	programs.Close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink for the suppression of address resolution: %w", err)
	}
	devices, err := tcfilter.OpenDevices()
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("suppression of address resolution: %w", err)
	}
	return &Datapath{Above: pseudowire.Above{Datapath: dp}, lifetime: o.Lifetime, nl: nl, devices: devices, wires: map[string]*wire{}, groups: map[string]*bpf.Suppression{}}, nil
}

// Abilities are the datapath's, and suppression.
func (d *Datapath) Abilities() pseudowire.Abilities {
	can := d.Datapath.Abilities()
	can.Suppresses = true
	return can
}

// SetPseudowire is the datapath's, and attaches the programs or takes them off. A device
// that comes with the session gets them then.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	if err := d.Datapath.SetPseudowire(p); err != nil {
		return err
	}
	w := d.wires[p.Name]
	if w != nil && w.Device != p.Device {
		if err := d.leave(w); err != nil {
			return err
		}
		w = nil
	}
	if w == nil {
		w = new(wire)
		d.wires[p.Name] = w
	}
	w.Pseudowire = p
	return d.apply(w)
}

// SetSession is the datapath's; its device may have come with it.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	if err := d.Datapath.SetSession(s); err != nil {
		return err
	}
	if w := d.wires[s.Pseudowire]; w != nil {
		return d.apply(w)
	}
	return nil
}

// RemovePseudowires is the datapath's, whose devices take the programs along.
func (d *Datapath) RemovePseudowires(names ...string) error {
	if err := d.Datapath.RemovePseudowires(names...); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if w := d.wires[name]; w != nil {
			delete(d.wires, name)
			errs = append(errs, d.leave(w))
		}
	}
	return errors.Join(errs...)
}

// Suppressed is how many requests a pseudowire did not carry, since its device was made
// or this process began; false if it suppresses none.
func (d *Datapath) Suppressed(name string) (n uint64, is bool, err error) {
	w := d.wires[name]
	if w == nil || w.group == "" {
		return 0, false, nil
	}
	c, err := d.groups[w.group].Counts.Get(w.device)
	return c.Answered + c.Withheld, true, err
}

// Moved says that a bridge has an address behind a port now, or has forgotten that it was
// there: it is not behind another device any more.
func (d *Datapath) Moved(address [6]byte, vlan uint16, bridge, port int, forgotten bool) error {
	var errs []error
	for name, g := range d.groups {
		for _, vid := range d.tags(name, vlan) {
			device, known, err := g.Station(address, vid)
			if err != nil || !known || (int(device) == port) != forgotten {
				errs = append(errs, err)
				continue
			}
			// Other networks may have the same address.
			l, err := d.nl.LinkByIndex(int(device))
			if err == nil && l.Attrs().MasterIndex != bridge {
				continue
			}
			errs = append(errs, g.Forget(address, vid))
		}
	}
	return errors.Join(errs...)
}

// tags are those that frames of a bridge's VLAN can have in the pseudowires of a network.
func (d *Datapath) tags(group string, vlan uint16) []uint16 {
	all := map[uint16]bool{0: true, vlan: true}
	for _, w := range d.wires {
		if w.group != group {
			continue
		}
		all[w.VLAN] = true
		if r := w.Service.VLANs.Ranges(); len(r) == 1 && r[0].First == r[0].Last {
			all[r[0].First] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}

// ForgetAll has no address behind any pseudowire: it was missed where they went.
func (d *Datapath) ForgetAll() error {
	var errs []error
	for _, g := range d.groups {
		errs = append(errs, g.ForgetAll(0))
	}
	return errors.Join(errs...)
}

// Close gives up handles; what is attached stays.
func (d *Datapath) Close() error { return errors.Join(d.Datapath.Close(), d.close()) }

// Cleanup is the datapath's: the programs go with the devices.
func (d *Datapath) Cleanup() error { return errors.Join(d.Datapath.Cleanup(), d.close()) }

func (d *Datapath) close() error {
	d.nl.Close()
	errs := []error{d.devices.Close()}
	for _, g := range d.groups {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}

// apply makes a pseudowire's device as it is to be.
func (d *Datapath) apply(w *wire) error {
	if w.Suppress == "" && w.group == "" && (w.bare || w.device != 0) {
		return nil // whatever device there is by now has had no programs
	}
	index, err := d.devices.Index(w.Device)
	if err != nil {
		return err
	}
	if index == 0 { // not yet, or not any more
		w.bare = true
		return nil
	}
	device, link := uint32(index), tcfilter.Numbered(index, w.Device)
	if device == w.device && w.Suppress == w.group {
		return d.keep(w, link)
	}
	had := w.device == 0 && !w.bare || w.group != "" && w.device == device
	w.bare = false
	if w.Suppress == "" {
		if had { // by an earlier process, too
			err = d.detach(link)
		}
		err = errors.Join(err, d.leave(w))
		w.device = device
		return err
	}
	if err := d.leave(w); err != nil {
		return err
	}
	w.device = device
	g := d.groups[w.Suppress]
	if g == nil {
		if g, err = bpf.LoadSuppression(d.lifetime); err != nil {
			return err
		}
		d.groups[w.Suppress] = g
	}
	w.group = w.Suppress
	if err := g.Counts.Put(device, &bpf.Suppressions{}); err != nil {
		return errors.Join(err, d.leave(w))
	}
	return d.attach(link, g)
}

// keep attaches the programs again if somebody has taken one off.
func (d *Datapath) keep(w *wire, link netlink.Link) error {
	if w.group == "" {
		return nil
	}
	for _, f := range []tcfilter.Filter{into, out} {
		there, err := tcfilter.Attached(d.nl, link, f)
		if err != nil {
			return err
		}
		if !there && !d.strays.Held("pseudowire "+w.Name) {
			err := d.attach(link, d.groups[w.group])
			d.strays.Add("pseudowire "+w.Name, "the program "+filterName+" was detached from "+w.Device, "attached again", err)
			return err
		}
	}
	return nil
}

// Refresh is the datapath's, and looks at the programs.
func (d *Datapath) Refresh() error {
	errs := []error{d.Datapath.Refresh()}
	for _, name := range slices.Sorted(maps.Keys(d.wires)) {
		if w := d.wires[name]; w.Suppress != "" {
			errs = append(errs, d.apply(w))
		}
	}
	return errors.Join(errs...)
}

// Repairs are the datapath's, and those of programs.
func (d *Datapath) Repairs() []drift.Repair {
	return append(d.Datapath.Repairs(), d.strays.Repairs()...)
}

// Heed is the datapath's, and of programs.
func (d *Datapath) Heed(held func(thing string) bool) {
	d.Datapath.Heed(held)
	d.strays.Heed(held)
}

// leave takes a pseudowire's device out of its group, and ends one that has no others.
func (d *Datapath) leave(w *wire) error {
	if w.group == "" {
		return nil
	}
	name, g := w.group, d.groups[w.group]
	w.group = ""
	for _, o := range d.wires {
		if o != w && o.group == name {
			return errors.Join(g.Counts.Delete(w.device), g.ForgetAll(w.device))
		}
	}
	delete(d.groups, name)
	return g.Close()
}

var (
	into = tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: tcfilter.PrioritySuppressInto, Name: filterName}
	out  = tcfilter.Filter{Parent: netlink.HANDLE_MIN_INGRESS, Priority: tcfilter.PrioritySuppressOut, Name: filterName}
)

// attach puts the programs at both hooks; those of an earlier process, or group, give way.
func (d *Datapath) attach(link netlink.Link, g *bpf.Suppression) error {
	err := tcfilter.Attach(d.nl, link.Attrs().Index, into, g.Into)
	if err == nil {
		err = tcfilter.Attach(d.nl, link.Attrs().Index, out, g.Out)
	}
	if err != nil {
		return fmt.Errorf("suppression of address resolution: %w", err)
	}
	return nil
}

func (d *Datapath) detach(link netlink.Link) error {
	if err := errors.Join(tcfilter.Detach(d.nl, link, into), tcfilter.Detach(d.nl, link, out)); err != nil {
		return fmt.Errorf("suppression of address resolution: %w", err)
	}
	return nil
}
