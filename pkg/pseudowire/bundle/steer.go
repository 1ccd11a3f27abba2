package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/spread"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// steer has frames leave through the session that sends, or through those that do by the
// rules, and gives the pseudowire's device a carrier if there is one.
func (d *Datapath) steer(w *wire) error {
	carries := w.carries()
	if !d.settled && !w.attached && !w.complete() {
		return nil // what an earlier process left goes on
	}
	if carries {
		if err := d.direct(w); err != nil {
			return &Error{"steer", w.Name, err}
		}
	} else if !d.settled {
		return nil
	}
	if err := d.setUp(w.outer, carries); err != nil {
		return &Error{"set the carrier of", w.Name, err}
	}
	return nil
}

// carries says that frames can leave.
func (w *wire) carries() bool {
	if w.Steer == nil {
		m := w.members[w.sends]
		return m != nil && m.device != 0
	}
	return slices.ContainsFunc(w.Steer.Tunnels, func(t string) bool {
		m := w.on(t)
		return m != nil && m.Transmit
	})
}

// complete says that all sessions are there that rules name.
func (w *wire) complete() bool {
	if w.Steer == nil {
		return true
	}
	for _, t := range w.Steer.Tunnels {
		if w.on(t) == nil {
			return false
		}
	}
	return true
}

// on is the session in a tunnel, nil if there is none that has a device.
func (w *wire) on(tunnel string) *member {
	for _, m := range w.members {
		if m.Tunnel == tunnel && m.device != 0 {
			return m
		}
	}
	return nil
}

// direct tells the program where frames leave, and puts it in its place.
func (d *Datapath) direct(w *wire) error {
	head := w.members[w.sends]
	flags := uint32(0)
	if w.Steer != nil {
		var err error
		if head, err = d.writeWays(w); err != nil {
			return err
		}
		flags = bpf.ExitSteered
	}
	if err := d.put(uint32(w.outer), &w.exit, bpf.Exit{Device: uint32(head.device), Session: head.LocalID, Flags: flags}); err != nil {
		return err
	}
	if w.Steer == nil {
		if err := d.forgetRules(w); err != nil {
			return err
		}
	}
	if w.attached {
		return nil
	}
	err := tcfilter.Attach(d.nl, w.outer, filter(spreads), d.programs.Program)
	w.attached = err == nil
	return err
}

// put writes an exit unless it is there.
func (d *Datapath) put(key uint32, written **bpf.Exit, x bpf.Exit) error {
	if *written != nil && **written == x {
		return nil
	}
	if err := d.programs.Exits.Put(key, &x); err != nil {
		return err
	}
	*written = &x
	return nil
}

// writeWays tells the program of the sessions that frames can take, and of the rules, which
// name what is there: ways that come, come before, and those that go, go after. It returns the
// first session of those that send.
func (d *Datapath) writeWays(w *wire) (first *member, err error) {
	pair, up := spread.Pair{Outer: w.outer}, uint32(0)
	for i, tunnel := range w.Steer.Tunnels {
		if _, ok := bpf.SteerWay(w.outer, i); !ok {
			return nil, fmt.Errorf("the device has the number %d, which is too large for rules", w.outer)
		}
		m := w.on(tunnel)
		if m == nil {
			continue
		}
		if m.Transmit {
			up |= 1 << i
			if first == nil {
				first = m
			}
		}
		if err := d.put(pair.Key(i), &w.ways[i], bpf.Exit{Device: uint32(m.device), Session: m.LocalID}); err != nil {
			return nil, err
		}
	}
	put := func(s *bpf.Steer) error { return d.programs.Steers.Put(uint32(w.outer), s) }
	if err := w.table.Write(pair, w.Steer, up, put); err != nil {
		return nil, err
	}
	return first, d.forgetWays(w, func(i int) bool { return i < len(w.Steer.Tunnels) && w.on(w.Steer.Tunnels[i]) != nil })
}

func (d *Datapath) forgetWays(w *wire, keep func(int) bool) error {
	for i := range w.ways {
		if w.ways[i] == nil || keep(i) {
			continue
		}
		if err := d.programs.Exits.Delete(spread.Pair{Outer: w.outer}.Key(i)); err != nil {
			return err
		}
		w.ways[i] = nil
	}
	return nil
}

// forgetRules takes rules and ways out of the maps that nothing leaves by any more.
func (d *Datapath) forgetRules(w *wire) error {
	if !w.table.Empty() {
		if err := d.programs.Steers.Delete(uint32(w.outer)); err != nil {
			return err
		}
		w.table = spread.Table{}
	}
	return d.forgetWays(w, func(int) bool { return false })
}

// forget takes a pseudowire out of the maps.
func (d *Datapath) forget(w *wire) error {
	err := errors.Join(d.programs.Exits.Delete(uint32(w.outer)), d.forgetRules(w))
	w.written = written{}
	return err
}

// Classify asks the program that the frames of a pseudowire with several sessions come to; the
// error is the datapath's for others.
func (d *Datapath) Classify(name string, frame pseudowire.Frame) (pseudowire.Classified, error) {
	w := d.wires[name]
	if w == nil || !w.Several {
		return d.Above.Classify(name, frame)
	}
	c, err := d.programs.Classify(uint32(w.outer), bpf.Asked(frame))
	if err != nil {
		return pseudowire.Classified{}, &Error{"classify a frame of", name, err}
	}
	// The datapath below marks all packets of a session alike.
	s := d.sessions[c.Session]
	out := pseudowire.Classified{Rule: w.table.Rule(c.Rule), Tunnel: s.Tunnel, Session: c.Session, DSCP: s.DSCP, Priority: s.Priority}
	if !s.Transmit {
		out.Dropped = pseudowire.DropNotTransmit
	}
	return out, nil
}
