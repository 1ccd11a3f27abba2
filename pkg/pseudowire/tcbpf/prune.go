package tcbpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
)

// leftovers says whether an earlier process's objects are there.
func (d *Datapath) leftovers() (bool, error) {
	links, err := d.ownLinks()
	return len(links) > 0, err
}

// ownLinks are the devices of this datapath's, the lane's included.
func (d *Datapath) ownLinks() ([]netlink.Link, error) {
	all, err := d.links()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l netlink.Link) bool {
		alias := l.Attrs().Alias
		return l.Type() != "veth" || (alias != aliasLane && !strings.HasPrefix(alias, aliasPrefix))
	}), nil
}

func (d *Datapath) links() ([]netlink.Link, error) {
	const tries = 5
	for try := 1; ; try++ {
		all, err := d.nl.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < tries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		return all, nil
	}
}

// Prune makes what the setters said take effect, where it did not at once, and
// removes every object of this datapath's that they did not name.
func (d *Datapath) Prune() error {
	if err := d.activate(); err != nil {
		return &Error{Op: "take over", Err: err}
	}
	if err := d.prune(); err != nil {
		return &Error{Op: "remove what is left over", Err: err}
	}
	return nil
}

// activate goes on where something fails, with what that has nothing to do with: one pseudowire
// does not keep others from being taken over. It is done again until nothing fails; what failed
// goes on as an earlier process left it.
func (d *Datapath) activate() error {
	if d.taken {
		return nil
	}
	var errs []error
	failed := map[*device]bool{}
	for _, t := range d.tunnels {
		if err := d.takeTunnel(t); err != nil {
			errs = append(errs, fmt.Errorf("tunnel %s: %w", t.Name, err))
		}
	}
	for _, dev := range d.pseudowires {
		if err := d.takeMaps(dev); err != nil {
			failed[dev] = true
			errs = append(errs, fmt.Errorf("pseudowire %s: %w", dev.Name, err))
		}
	}
	d.active = true
	errs = append(errs, d.attach(d.lane.outer, d.laneHook()))
	for _, t := range d.tunnels {
		errs = append(errs, d.attachInputs(t))
	}
	for _, dev := range d.pseudowires {
		if failed[dev] {
			continue
		}
		if err := d.takeHooks(dev); err != nil {
			errs = append(errs, fmt.Errorf("pseudowire %s: %w", dev.Name, err))
		}
	}
	err := errors.Join(errs...)
	d.taken = err == nil
	return err
}

func (d *Datapath) takeTunnel(t *tunnel) error {
	if err := d.findWay(t); err != nil {
		return err
	}
	return d.writeTunnel(t)
}

// takeMaps says in the maps what was set of a pseudowire.
func (d *Datapath) takeMaps(dev *device) error {
	next, err := d.findCrossing(dev)
	if err != nil {
		return err
	}
	if err := d.setCrossing(dev, next); err != nil && !errors.Is(err, bpf.ErrFull) {
		return err // where the map is full the bridge carries the frames
	}
	return d.write(dev)
}

// takeHooks puts this process's programs in the places of the earlier one's.
func (d *Datapath) takeHooks(dev *device) error {
	if err := d.attach(dev.pair.outer, d.encapHook()); err != nil {
		return err
	}
	if err := d.replaceEnter(dev.pair); err != nil {
		return err
	}
	return d.apply(dev)
}

func (d *Datapath) prune() error {
	if err := d.pruneMaps(); err != nil {
		return err
	}
	if err := d.pruneLinks(); err != nil {
		return err
	}
	if err := d.pruneAttachments(); err != nil {
		return err
	}
	return bpf.RemoveOtherLayouts(d.pins, bpf.PartDatapath)
}

// pruneLinks removes devices of pseudowires that are not known.
func (d *Datapath) pruneLinks() error {
	links, err := d.ownLinks()
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, dev := range d.pseudowires {
		known[dev.pair.inner], known[dev.pair.outer] = true, true
	}
	var unknown []int
	for _, l := range links {
		if a := l.Attrs(); a.Alias != aliasLane && !known[a.Index] {
			unknown = append(unknown, a.Index)
		}
	}
	return d.removeLinks(unknown)
}

// pruneAttachments takes programs off links where none of them belongs.
func (d *Datapath) pruneAttachments() error {
	wanted := maps.Clone(d.inputs)
	wanted[d.lane.outer] = true
	for _, dev := range d.pseudowires {
		wanted[dev.pair.outer] = true
		if dev.crossed.port != 0 {
			wanted[dev.pair.inner], wanted[dev.crossed.port] = true, true
		}
	}
	pinned, err := d.pinnedLinks()
	if err != nil {
		return err
	}
	for _, index := range pinned {
		if !wanted[index] {
			if err := d.unpin(index); err != nil {
				return err
			}
		}
	}
	links, err := d.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if a := l.Attrs(); !wanted[a.Index] && a.RawFlags&unix.IFF_LOOPBACK == 0 {
			if err := d.detachFilter(a.Index); err != nil {
				return err
			}
		}
	}
	return nil
}

// pruneMaps removes entries that nothing known has.
func (d *Datapath) pruneMaps() error {
	written, steered, circuits := map[uint32]bool{}, map[uint32]bool{}, map[bpf.CircuitKey]bool{}
	for _, dev := range d.pseudowires {
		for _, key := range dev.pair.keys() {
			written[key] = dev.written != nil
		}
		for i, way := range dev.steering.ways {
			if way != nil {
				written[key(dev, i)] = true
			}
		}
		steered[uint32(dev.pair.outer)] = !dev.steering.table.Empty()
		for _, c := range dev.crossed.circuits() {
			circuits[c.key] = true
		}
	}
	flows := map[bpf.Flow]bool{}
	for _, t := range d.tunnels {
		flows[t.flow] = true
	}
	return errors.Join(
		pruneTable(d.objs.Pseudowires, func(k uint32) bool { return written[k] }),
		pruneTable(d.objs.Steers, func(k uint32) bool { return steered[k] }),
		pruneTable(d.objs.Circuits, func(k bpf.CircuitKey) bool { return circuits[k] }),
		pruneTable(d.objs.Sessions, func(k uint32) bool {
			s := d.sessions[k]
			return s != nil && s.written != nil
		}),
		pruneTable(d.objs.Tunnels, func(k bpf.Flow) bool { return flows[k] }),
		pruneTable(d.objs.Counts, func(k uint32) bool { return d.sessions[k] != nil }),
		pruneTable(d.objs.Numbers, func(k uint32) bool { return d.sessions[k] != nil }),
		pruneTable(d.objs.Orders, func(k uint32) bool { return d.sessions[k] != nil }),
		pruneTable(d.objs.Held, func(k bpf.TurnKey) bool { return d.sessions[uint32(k.Session)] != nil }),
	)
}

type table[K comparable] interface {
	Keys() ([]K, error)
	Delete(K) error
}

func pruneTable[K comparable](t table[K], keep func(K) bool) error {
	keys, err := t.Keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if keep(k) {
			continue
		}
		if err := t.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Cleanup removes every object of this datapath's, those of earlier processes
// included, then closes.
func (d *Datapath) Cleanup() error {
	d.active, d.taken = true, true
	clear(d.sessions)
	clear(d.members)
	clear(d.tunnels)
	clear(d.pseudowires)
	clear(d.inputs)
	clear(d.ports)
	err := errors.Join(d.prune(), d.detach(d.lane.outer), d.removeLink(d.lane.inner), d.removePins())
	if err = errors.Join(err, d.Close()); err != nil {
		return &Error{Op: "remove everything", Err: err}
	}
	return nil
}
