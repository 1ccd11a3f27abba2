package tcbpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Refresh looks at routes, neighbours and links again.
func (d *Datapath) Refresh() error {
	if _, err := d.refreshWays(); err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.pseudowires)) {
		err := d.keepProgram(d.pseudowires[name])
		if err == nil {
			err = d.apply(d.pseudowires[name])
		}
		if err != nil { // the others' turn comes all the same
			errs = append(errs, &Error{Op: "update pseudowire", Object: name, Err: err})
		}
	}
	return errors.Join(errs...)
}

// RefreshWays is Refresh without a look at each pseudowire's devices: only those are looked at whose
// packets leave another way than before.
func (d *Datapath) RefreshWays() error {
	changed, err := d.refreshWays()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range changed {
		if err := d.applyTunnel(name); err != nil {
			errs = append(errs, &Error{Op: "update the pseudowires of tunnel", Object: name, Err: err})
		}
	}
	return errors.Join(errs...)
}

// refreshWays looks at the underlay, and gives the tunnels whose packets leave another way than before.
func (d *Datapath) refreshWays() (changed []string, err error) {
	ports := len(d.ports)
	if err := errors.Join(d.forgetGone(), d.forgetPorts()); err != nil {
		return nil, &Error{Op: "look at the links of the underlay", Err: err}
	}
	if err := d.keepLane(); err != nil {
		return nil, &Error{Op: "look at the slow lane", Err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(d.tunnels)) {
		t := d.tunnels[name]
		before := t.path
		err := d.findWay(t)
		if err == nil && d.active {
			err = errors.Join(d.writeTunnel(t), d.attachInputs(t))
		}
		if err != nil {
			return nil, &Error{Op: "look at the way of tunnel", Object: name, Err: err}
		}
		// A port that has lost its program is attached again with the pseudowires.
		if len(d.ports) != ports || !before.same(t.path) {
			changed = append(changed, name)
		}
	}
	return changed, nil
}

// findWay looks at how a tunnel's packets leave, and where they may come in:
// where they leave, and where its address is.
func (d *Datapath) findWay(t *tunnel) error {
	p, err := d.findPath(t.Local.Addr(), t.Remote.Addr(), t.path)
	if err != nil {
		return err
	}
	p.mtu = p.mtu.AtMost(t.PathMTU)
	t.path = p
	if p.link != 0 {
		t.inputs[p.link] = true
	}
	owners, err := d.owners(t.Local.Addr())
	if err != nil {
		return err
	}
	for _, link := range owners {
		t.inputs[link] = true
	}
	return nil
}

func (d *Datapath) attachInputs(t *tunnel) error {
	for link := range t.inputs {
		if d.inputs[link] {
			continue
		}
		if err := d.yield(link); err != nil {
			return err
		}
		if err := d.attachInput(link); err != nil {
			if gone(err) {
				delete(t.inputs, link)
				continue
			}
			return err
		}
		d.inputs[link] = true
	}
	return nil
}

func (d *Datapath) attachInput(link int) error {
	l, err := d.nl.LinkByIndex(link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("look up link %d: %w", link, unix.ENODEV)
	}
	if err != nil {
		return fmt.Errorf("look up link %d: %w", link, err)
	}
	return d.attach(link, d.inputHook(kindOf(l.Attrs())))
}

// forgetGone forgets links of the underlay that have gone, or whose program
// somebody has taken off: it will be put there again.
func (d *Datapath) forgetGone() error {
	for link := range d.inputs {
		there, err := d.attached(link)
		if err != nil {
			return err
		}
		if there || d.detached(link, "", "") {
			continue
		}
		delete(d.inputs, link)
		for _, t := range d.tunnels {
			delete(t.inputs, link)
		}
		if err := d.unpin(link); err != nil {
			return err
		}
	}
	return nil
}

// detachUnused takes the program off links over which no tunnel goes any more.
func (d *Datapath) detachUnused() error {
	used := map[int]bool{}
	for _, t := range d.tunnels {
		maps.Copy(used, t.inputs)
	}
	for link := range d.inputs {
		if used[link] {
			continue
		}
		if err := d.detach(link); err != nil {
			return err
		}
		delete(d.inputs, link)
	}
	return nil
}

func (d *Datapath) applyTunnel(name string) error {
	changed := map[string]bool{}
	for _, s := range d.sessions {
		if s.Tunnel == name {
			changed[s.Pseudowire] = true
		}
	}
	for pseudowire := range changed {
		if err := d.applyIfKnown(pseudowire); err != nil {
			return err
		}
	}
	return nil
}

func (d *Datapath) applyIfKnown(pseudowire string) error {
	if dev := d.pseudowires[pseudowire]; dev != nil {
		return d.apply(dev)
	}
	return nil
}
