package l2tpeth

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Refresh makes sessions again that somebody has deleted, and looks what MTU routes have; all else of
// routes, and neighbours, the kernel looks up by itself. A tunnel takes another socket: those that have gone are a
// *pseudowire.TunnelsGoneError.
func (d *Datapath) Refresh() error { return errors.Join(d.RefreshWays(), d.keepSessions()) }

// RefreshWays is Refresh without a look at the sessions: that one has gone the kernel tells, as its device
// goes with it.
func (d *Datapath) RefreshWays() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.tunnels)) {
		errs = append(errs, d.ignoreICMP(d.tunnels[name]))
	}
	return errors.Join(errs...)
}

func (d *Datapath) keepSessions() error {
	if len(d.sessions) == 0 {
		return nil
	}
	all, err := d.l2tp.sessions()
	if err != nil {
		return &OpError{"list", "sessions", err}
	}
	type ids struct{ tunnel, session uint32 }
	there := map[ids]bool{}
	for _, k := range all {
		there[ids{k.connID, k.id}] = true
	}
	gone := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(d.sessions)) {
		s := d.sessions[id]
		if there[ids{s.spec.connID, s.spec.id}] || gone[s.Tunnel] || d.Held("pseudowire "+s.Pseudowire) || d.Held("tunnel "+s.Tunnel) {
			continue
		}
		if live, err := d.l2tp.hasTunnel(s.spec.connID); err != nil {
			return &OpError{"look for", d.tunnels[s.Tunnel].String(), err}
		} else if !live {
			gone[s.Tunnel] = true
			continue
		}
		delete(d.sessions, id)
		err := d.SetSession(s.Session)
		// A tunnel that is being deleted is still there, and takes no session: that is told
		// once it has gone.
		if !errors.Is(err, unix.ENODEV) {
			d.Add("pseudowire "+s.Pseudowire, fmt.Sprintf("the kernel's session %d was deleted, and %s with it", id, d.pseudowires[s.Pseudowire].Device), "made again", err)
		}
		if err != nil {
			d.sessions[id] = s // so that it is tried again
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	e := &pseudowire.TunnelsGoneError{Names: slices.Sorted(maps.Keys(gone))}
	for _, name := range e.Names {
		d.Add("tunnel "+name, fmt.Sprintf("the kernel's tunnel %d was deleted", d.tunnels[name].LocalID), "begun anew", nil)
	}
	return e
}

// keepDevice sets again what somebody has changed of a session's device. That it has gone is
// for Refresh to see.
func (d *Datapath) keepDevice(s *session, p pseudowire.Pseudowire) error {
	l, ok, err := d.links.byIndex(s.index)
	if err != nil || !ok {
		return err
	}
	object := "pseudowire " + p.Name
	if err = d.configure(l, s.Session, false); l.mtu != uint32(p.MTU) {
		d.Add(object, fmt.Sprintf("the MTU of %s was changed to %d", p.Device, l.mtu), fmt.Sprintf("set to %d again", p.MTU), err)
	}
	if l.alias != alias(p.Name) {
		d.Add(object, "the alias of "+p.Device+" was changed", "set again", err)
	}
	if s.Transmit && !l.up {
		d.Add(object, p.Device+" was taken down", "brought up again", err)
	}
	return err
}
