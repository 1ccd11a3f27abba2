package tcbpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/bpf"
)

// crossing is the attachment circuit that a pseudowire is cross-connected with; the
// zero value is none.
type crossing struct {
	port int // ifindex
	mtu  int // of the port
	vlan uint16
	// device is what of the pseudowire's the circuits' entries were written for.
	inner, outer, deviceMTU int
	untag                   bool
}

// circuit is an entry of the map of circuits.
type circuit struct {
	key   bpf.CircuitKey
	value bpf.Circuit
}

// circuits are a crossing's entries: one for frames that come in at the port, one for
// those that come out of the pseudowire's device.
func (c crossing) circuits() []circuit {
	if c.port == 0 {
		return nil
	}
	in := circuit{
		bpf.CircuitKey{Port: uint32(c.port), Vlan: uint32(c.vlan)},
		bpf.Circuit{Device: uint32(c.outer), Mtu: uint32(c.deviceMTU)},
	}
	out := circuit{bpf.CircuitKey{Port: uint32(c.inner)}, bpf.Circuit{Device: uint32(c.outer), Port: uint32(c.port)}}
	if c.untag {
		in.value.Flags = bpf.CircuitUntag
		out.value.Vlan = uint32(c.vlan)
	}
	return []circuit{in, out}
}

// findCrossing looks up what a pseudowire can be cross-connected with. A port that is
// an underlay as well keeps its program: there the bridge carries the frames.
func (d *Datapath) findCrossing(dev *device) (crossing, error) {
	if dev.Port == "" {
		return crossing{}, nil
	}
	link, err := d.nl.LinkByName(dev.Port)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return crossing{}, nil
	}
	if err != nil {
		return crossing{}, fmt.Errorf("look up %s: %w", dev.Port, err)
	}
	a := link.Attrs()
	if !isEthernet(a) || d.isUnderlay(a.Index) {
		return crossing{}, nil
	}
	if dev.PortVLAN == 0 {
		if all, err := d.hasAll(dev, a); err != nil || !all {
			return crossing{}, err
		}
	}
	return crossing{
		port: a.Index, mtu: a.MTU, vlan: dev.PortVLAN, untag: dev.VLAN == 0 && dev.PortVLAN != 0,
		inner: dev.pair.inner, outer: dev.pair.outer, deviceMTU: dev.MTU,
	}, nil
}

// hasAll says whether all of a port's frames are a pseudowire's, as they would be by its
// bridge: the port is in that, and not in another that somebody has put it into since;
// and it has no VLAN devices, which take theirs before the bridge does, and after a
// program. Those in other namespaces are not seen.
func (d *Datapath) hasAll(dev *device, port *netlink.LinkAttrs) (bool, error) {
	inner, err := d.nl.LinkByIndex(dev.pair.inner)
	if err != nil {
		return false, fmt.Errorf("look up the device: %w", err)
	}
	if port.MasterIndex == 0 || port.MasterIndex != inner.Attrs().MasterIndex {
		return false, nil
	}
	links, err := d.links()
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Type() == "vlan" && l.Attrs().ParentIndex == port.Index
	}), nil
}

func (d *Datapath) isUnderlay(link int) bool {
	for _, t := range d.tunnels {
		if t.inputs[link] {
			return true
		}
	}
	return false
}

// cross makes a pseudowire's cross-connection what it should be. Until the programs
// are there, when they are no more, and where they cannot be, frames take the way over
// the bridge.
func (d *Datapath) cross(dev *device) error {
	next, err := d.findCrossing(dev)
	if err != nil {
		return err
	}
	err = d.setCrossing(dev, next)
	if next.port == 0 || err != nil && !errors.Is(err, bpf.ErrFull) {
		return err
	}
	if err == nil {
		err = d.enter(next.inner, d.outHook())
	}
	if err == nil {
		err = d.enter(next.port, d.portHook())
	}
	if err == nil {
		dev.refused = false
		return nil
	}
	if !dev.refused {
		d.log.Warn("frames take the way over the bridge", "pseudowire", dev.Name, "port", dev.Port, "err", err)
	}
	dev.refused = true
	return d.setCrossing(dev, crossing{})
}

// enter puts a program at a link that a crossing goes over.
func (d *Datapath) enter(link int, h hook) error {
	if d.ports[link] {
		return nil
	}
	if err := d.attach(link, h); err != nil {
		return err
	}
	d.ports[link] = true
	return nil
}

// CrossConnected says whether a pseudowire's frames go past its device to and from the port.
func (d *Datapath) CrossConnected(name string) bool {
	dev := d.pseudowires[name]
	return dev != nil && dev.crossed.port != 0
}

// setCrossing brings the map in line with a crossing, and takes programs off that it
// does not need any more.
func (d *Datapath) setCrossing(dev *device, next crossing) error {
	if dev.crossed == next {
		return nil
	}
	last := dev.crossed
	for _, c := range next.circuits() {
		if err := d.objs.Circuits.Put(c.key, &c.value); err != nil {
			return errors.Join(err, d.dropCircuits(next, last))
		}
	}
	if err := d.dropCircuits(last, next); err != nil {
		return err
	}
	dev.crossed = next // now, so that what failed is done again
	for _, link := range []int{last.port, last.inner} {
		if err := d.leavePort(link); err != nil {
			return err
		}
	}
	return nil
}

// dropCircuits takes the entries of a crossing out of the map but for those of another one.
func (d *Datapath) dropCircuits(x, but crossing) error {
	kept := map[bpf.CircuitKey]bool{}
	for _, c := range but.circuits() {
		kept[c.key] = true
	}
	for _, c := range x.circuits() {
		if !kept[c.key] {
			if err := d.objs.Circuits.Delete(c.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// yield ends the crossings of a port that becomes an underlay.
func (d *Datapath) yield(link int) error {
	if !d.ports[link] {
		return nil
	}
	for _, dev := range d.pseudowires {
		if dev.crossed.port != link {
			continue
		}
		if err := d.setCrossing(dev, crossing{}); err != nil {
			return err
		}
		if err := d.write(dev); err != nil {
			return err
		}
	}
	return nil
}

// leavePort takes the program off a link over which no crossing goes any more.
func (d *Datapath) leavePort(link int) error {
	if !d.ports[link] {
		return nil
	}
	for _, dev := range d.pseudowires {
		if dev.crossed.port == link || dev.crossed.port != 0 && dev.crossed.inner == link {
			return nil
		}
	}
	delete(d.ports, link)
	return d.detach(link)
}

// forgetPorts forgets ports that have gone, or whose program somebody has taken off: it
// will be put there again.
func (d *Datapath) forgetPorts() error {
	for link := range d.ports {
		there, err := d.attached(link)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if object, program := d.crossingAt(link); d.detached(link, object, program) {
			continue
		}
		delete(d.ports, link)
		if err := d.unpin(link); err != nil {
			return err
		}
	}
	return nil
}

// crossingAt says whose crossing goes over a link, and which program that has there.
func (d *Datapath) crossingAt(link int) (object, program string) {
	for _, dev := range d.pseudowires {
		switch x := dev.crossed; {
		case x.port == 0:
		case x.port == link:
			return "pseudowire " + dev.Name, "pwd_port"
		case x.inner == link:
			return "pseudowire " + dev.Name, "pwd_out"
		}
	}
	return "", "pwd_port"
}
