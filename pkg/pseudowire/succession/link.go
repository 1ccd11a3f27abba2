package succession

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// redirects is the name of the programs.
const redirects = "pwd_redirect"

var (
	arrival   = tcfilter.Filter{Parent: netlink.HANDLE_MIN_INGRESS, Priority: tcfilter.PrioritySuccession, Name: "pwd_arrive"}
	departure = tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: tcfilter.PrioritySuccession, Name: "pwd_leave"}
)

// join has what sessions beside the holder receive come out of the pseudowire's device, frames
// leave by the session that sends, and then the holder be as it is to be.
func (d *Datapath) join(w *wire) error {
	others := w.others()
	if len(others) == 0 && w.leaves == 0 && (w.looked || d.settled) {
		return d.hold(w)
	}
	l, err := d.nl.LinkByName(w.Device)
	if err != nil {
		return &Error{"find the device of", w.Name, err}
	}
	if w.device = l.Attrs().Index; len(others) == 0 {
		w.device = 0
	}
	for _, id := range others {
		if err := d.receive(w, id, l.Attrs().Index); err != nil {
			return &Error{"receive for", w.Name, err}
		}
	}
	if err := d.steer(w, l); err != nil {
		return &Error{"send for", w.Name, err}
	}
	return d.hold(w)
}

// receive has what a session beside the holder receives come out of a device. Its own is up from then on.
func (d *Datapath) receive(w *wire, id uint32, device int) error {
	own, err := d.attach(deviceOf(id), arrival, device, true)
	if err != nil || up(own) {
		return err
	}
	return d.Datapath.SetSession(w.ownOf(w.members[id]))
}

func up(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_UP != 0 }

// steer has frames leave by the session that sends; where none does, the device is down.
func (d *Datapath) steer(w *wire, device netlink.Link) error {
	to := w.sends
	if to == w.holder.LocalID {
		to = 0
	}
	switch {
	case w.looked && w.leaves == to:
		return nil
	case to != 0:
		beside, err := d.nl.LinkByName(deviceOf(to))
		if err != nil {
			return err
		}
		if _, err := d.attach(w.Device, departure, beside.Attrs().Index, false); err != nil {
			return err
		}
	default:
		if err := tcfilter.Detach(d.nl, device, departure); err != nil {
			return err
		}
	}
	w.leaves, w.looked = to, true
	return nil
}

// attach has frames at a device redirected to another, and returns the device as it was found.
func (d *Datapath) attach(to string, f tcfilter.Filter, device int, received bool) (netlink.Link, error) {
	l, err := d.nl.LinkByName(to)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", to, err)
	}
	p, err := tcfilter.Redirect(redirects, device, received)
	if err != nil {
		return nil, fmt.Errorf("load a program that redirects frames: %w", err)
	}
	defer p.Close() // the filter holds it
	return l, tcfilter.Attach(d.nl, l.Attrs().Index, f, p)
}

// hold tells the datapath how the session is to be that the device is of.
func (d *Datapath) hold(w *wire) error {
	want := d.held(w)
	if want.Deaf == w.holder.Deaf && want.Transmit == w.holder.Transmit {
		return nil
	}
	if err := d.Datapath.SetSession(want); err != nil {
		return err
	}
	w.holder = want
	return nil
}

// keep attaches again what somebody has detached.
func (d *Datapath) keep(w *wire) error {
	if d.strays.Held("pseudowire " + w.Name) {
		return nil
	}
	if l, err := d.nl.LinkByName(w.Device); err == nil && l.Attrs().Index != w.device {
		w.looked = false // the datapath has told of it
		return d.join(w)
	}
	type place struct {
		device string
		filter tcfilter.Filter
	}
	var places []place
	for _, id := range w.others() {
		places = append(places, place{deviceOf(id), arrival})
	}
	if w.leaves != 0 {
		places = append(places, place{w.Device, departure})
	}
	for _, p := range places {
		l, err := d.nl.LinkByName(p.device)
		if err != nil {
			continue // that it has gone is for SetPseudowire to see
		}
		if there, err := tcfilter.Attached(d.nl, l, p.filter); err != nil || there {
			continue
		}
		w.looked = false
		err = d.join(w)
		if p.filter == arrival && !up(l) && err == nil {
			continue // it has been made again, which the datapath has told
		}
		d.strays.Add("pseudowire "+w.Name, "the program "+p.filter.Name+" was detached from "+p.device, "attached again", err)
		if err != nil {
			return err
		}
	}
	return nil
}
