package tcbpf

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// strayed tells what of a pseudowire's devices was not as it had been left. now is what they
// are again.
func (d *Datapath) strayed(old *device, s *pairSpec, now pair) {
	object := "pseudowire " + old.Name
	if now.made {
		d.Add(object, "its device "+s.inner+" was removed", "made again", nil)
		return
	}
	ends := []struct {
		name        string
		mtu         int
		wasUp, isUp bool
		found       endState
	}{
		{s.inner, s.innerMTU, old.pair.innerUp, now.innerUp, now.found[0]},
		{s.outer, s.outerMTU, old.pair.outerUp, now.outerUp, now.found[1]},
	}
	sameMTU := s.innerMTU == old.MTU
	for _, e := range ends {
		if sameMTU && e.found.mtu != e.mtu {
			d.Add(object, fmt.Sprintf("the MTU of %s was changed to %d", e.name, e.found.mtu), fmt.Sprintf("set to %d again", e.mtu), nil)
		}
		if e.found.alias != s.alias {
			d.Add(object, "the alias of "+e.name+" was removed", "set again", nil)
		}
		if e.found.arp {
			d.Add(object, "ARP was turned on at "+e.name, "turned off again", nil)
		}
		if e.wasUp && !e.isUp {
			d.Add(object, e.name+" was taken down", "brought up again", nil)
		}
	}
}

// rename gives a device its name back: the end of a pair that somebody has renamed
// is told by its number and its alias.
func (d *Datapath) rename(index int, name, alias string) error {
	l, err := d.nl.LinkByIndex(index)
	if err != nil || l.Attrs().Name == name || l.Attrs().Alias != alias {
		return nil // it has gone, which is seen to, or is somebody else's
	}
	was := l.Attrs().Name
	// Some kernels rename only what is down.
	if err = d.nl.LinkSetDown(l); err == nil {
		err = d.nl.LinkSetName(l, name)
	}
	if l.Attrs().RawFlags&unix.IFF_UP != 0 {
		err = errors.Join(err, d.nl.LinkSetUp(l))
	}
	d.Add("pseudowire "+alias[len(aliasPrefix):], name+" was renamed "+was, "renamed back", err)
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", was, name, err)
	}
	return nil
}

// halfPair removes what is left of a pair of ours whose other end somebody has taken into
// another namespace, and says whether it did: the other end goes with it.
func (d *Datapath) halfPair(inner, outer netlink.Link, alias string) (bool, error) {
	rest := inner
	if rest == nil {
		rest = outer
	}
	if rest == nil || inner != nil && outer != nil || rest.Attrs().Alias != alias {
		return false, nil
	}
	return true, d.removeLink(rest.Attrs().Index)
}

// keep attaches a program to a link if it is not there. known says that it was.
func (d *Datapath) keep(index int, link string, h hook, object string, known bool) error {
	there, err := d.attached(index)
	if err != nil || there || known && d.Held(object) {
		return err
	}
	err = d.attach(index, h)
	if known && !gone(err) {
		d.Add(object, "the program "+h.name+" was detached from "+link, "attached again", err)
	}
	return err
}

// keepProgram looks whether a pseudowire's program is where it was put. That the devices
// have gone is for SetPseudowire to see.
func (d *Datapath) keepProgram(dev *device) error {
	if !d.active {
		return nil
	}
	err := d.keep(dev.pair.outer, dev.pair.outerName, d.encapHook(), "pseudowire "+dev.Name, true)
	if gone(err) {
		return nil
	}
	return err
}

// keepLane makes the slow lane again, or attaches its program, if somebody took it away.
func (d *Datapath) keepLane() error {
	if !d.active {
		return nil
	}
	const object = "slow lane"
	if _, err := d.nl.LinkByIndex(d.lane.inner); errors.As(err, &netlink.LinkNotFoundError{}) {
		if d.Held(object) {
			return nil
		}
		err = d.unpin(d.lane.outer)
		if err == nil {
			err = d.openLane()
		}
		d.Add(object, "its device "+laneEntry+" was removed", "made again", err)
		if err != nil {
			return err
		}
		return d.moveKeeper()
	}
	return d.keep(d.lane.outer, laneExit, d.laneHook(), object, true)
}

// moveKeeper has the keeper release into the lane as it is now.
func (d *Datapath) moveKeeper() (err error) {
	if d.keeper == nil {
		return nil
	}
	err = d.keeper.stop()
	d.keeper = nil
	if err != nil {
		return err
	}
	d.keeper, err = startKeeper(d.objs, d.lane.inner, d.hold)
	return err
}

// detached tells of a link whose program was taken off, and says whether it is to be left
// so; of one that has gone there is nothing to tell.
func (d *Datapath) detached(index int, object, program string) (leave bool) {
	l, err := d.nl.LinkByIndex(index)
	if err != nil {
		return false
	}
	if program == "" { // that of an underlay
		program = d.inputHook(kindOf(l.Attrs())).name
	}
	if object == "" {
		object = "interface " + l.Attrs().Name
	}
	if d.Held(object) {
		return true
	}
	d.Add(object, "the program "+program+" was detached from "+l.Attrs().Name, "attached again", nil)
	return false
}
