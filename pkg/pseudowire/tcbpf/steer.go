package tcbpf

import (
	"errors"
	"fmt"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/spread"
)

// steering is what the maps have of a pseudowire whose frames take several ways.
type steering struct {
	ways  [bpf.MaxWays]*bpf.Transmit
	table spread.Table
}

// rideOn is the session of a pseudowire on a tunnel, nil if it has none there.
func (d *Datapath) rideOn(dev *device, tunnel string) *session {
	var on *session
	for _, s := range d.members[dev.Name] {
		if s.Tunnel == tunnel && d.tunnels[tunnel] != nil && (on == nil || better(s, on)) {
			on = s
		}
	}
	return on
}

// writeWays brings the maps in line with the ways that frames of a steered pseudowire can
// take. The rules name what is there: ways that come, come before, and those that go, go
// after.
func (d *Datapath) writeWays(dev *device) error {
	up := uint32(0)
	going := map[int]*bpf.Transmit{}
	for i, name := range dev.Steer.Tunnels {
		if _, ok := bpf.SteerWay(dev.pair.outer, i); !ok {
			return fmt.Errorf("rules of a device with the number %d: %w", dev.pair.outer, ErrInvalid)
		}
		s := d.rideOn(dev, name)
		if s == nil {
			continue // deleted when the rules do not name it any more
		}
		tx := d.transmitOf(dev, s)
		if s.Transmit && d.tunnels[name].path.resolved() {
			up |= 1 << i
		}
		if w := dev.steering.ways[i]; w != nil && *w == tx {
			continue
		}
		if dev.steering.ways[i] != nil && up>>i&1 == 0 {
			going[i] = &tx
			continue
		}
		if err := d.putWay(dev, i, &tx); err != nil {
			return err
		}
	}
	if err := dev.steering.table.Write(steerPair(dev), dev.Steer, up, func(s *bpf.Steer) error { return d.objs.Steers.Put(uint32(dev.pair.outer), s) }); err != nil {
		return err
	}
	for i, tx := range going {
		if err := d.putWay(dev, i, tx); err != nil {
			return err
		}
	}
	return d.deleteWays(dev, func(i int) bool { return i < len(dev.Steer.Tunnels) && d.rideOn(dev, dev.Steer.Tunnels[i]) != nil })
}

func (d *Datapath) putWay(dev *device, i int, tx *bpf.Transmit) error {
	if err := d.objs.Pseudowires.Put(key(dev, i), tx); err != nil {
		return err
	}
	dev.steering.ways[i] = tx
	return nil
}

func (d *Datapath) deleteWays(dev *device, keep func(int) bool) error {
	for i := range dev.steering.ways {
		key, ok := bpf.SteerWay(dev.pair.outer, i)
		if !ok || dev.steering.ways[i] == nil || keep(i) {
			continue
		}
		if err := d.objs.Pseudowires.Delete(key); err != nil {
			return err
		}
		dev.steering.ways[i] = nil
	}
	return nil
}

// steerPair is the device as the program knows it.
func steerPair(dev *device) spread.Pair {
	return spread.Pair{Outer: dev.pair.outer, Popped: dev.VLAN != 0 && !dev.KeepTag}
}

func key(dev *device, i int) uint32 { return steerPair(dev).Key(i) }

// deleteSteering takes the rules and ways of a pseudowire out of the maps, once its entry
// does not send frames there any more.
func (d *Datapath) deleteSteering(dev *device) error {
	if dev.steering.table.Empty() && dev.steering.ways == [bpf.MaxWays]*bpf.Transmit{} {
		return nil
	}
	err := errors.Join(d.objs.Steers.Delete(uint32(dev.pair.outer)), d.deleteWays(dev, func(int) bool { return false }))
	if err == nil {
		dev.steering = steering{}
	}
	return err
}

// Classify says what would become of a frame.
func (d *Datapath) Classify(name string, frame pseudowire.Frame) (pseudowire.Classified, error) {
	var out pseudowire.Classified
	fail := func(err error) (pseudowire.Classified, error) {
		return out, &Error{Op: "classify a frame of pseudowire", Object: name, Err: err}
	}
	dev := d.pseudowires[name]
	if dev == nil {
		return fail(ErrUnknown)
	}
	c, err := d.objs.Classify(uint32(dev.pair.outer), bpf.Asked(frame))
	if err != nil {
		return fail(err)
	}
	out = pseudowire.Classified{Rule: dev.steering.table.Rule(c.Rule), Session: c.Session, DSCP: c.TOS >> 2, Priority: c.Priority}
	if s := d.sessions[c.Session]; s != nil {
		out.Tunnel = s.Tunnel
	}
	switch {
	case c.Refused&bpf.LostState != 0:
		out.Dropped = pseudowire.DropNotTransmit
	case c.Refused&bpf.LostVLAN != 0:
		out.Dropped = pseudowire.DropWrongVLAN
	case c.Refused&bpf.LostNeighbour != 0:
		out.Dropped = pseudowire.DropNoNeighbour
	}
	return out, nil
}
