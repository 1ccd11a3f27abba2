package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// wire is what the agent knows of one pseudowire.
type wire struct {
	// Pseudowire is what the topology in force says of it.
	*topology.Pseudowire
	kind pseudowire.Kind
	// fault is why the device could not be made, attachFault why it is not in its
	// attachment circuit; both are tried again.
	fault, attachFault error
	// unfinished says that something else failed on the way to what the topology says, as
	// a crossing can; all of it is made again.
	unfinished bool
	// vacated says that the attachment was taken away for another pseudowire's.
	vacated bool
	// crossed says that the datapath may pass frames by the bridge (see cross).
	crossed bool
	// warnedOf is the interface that was looked at for addresses.
	warnedOf string
	// circuit is the attachment circuit's status, and circuitReason why it is not active.
	circuit       l2tpv3.CircuitStatus
	circuitReason string
	// rides are its sessions, one on each of its tunnels, by preference.
	rides []*ride
	// redundancy chooses among them, nil where there is one.
	redundancy *redundancy
	since      time.Time
	// ready is when both ends' circuits came together, standby when that is all that is
	// missing because one end wants it so.
	ready, standby bool
	// told are the causes of not coming up that were told since that changed.
	told map[control.CauseKind]bool
	// full says that no more addresses are learned behind it.
	full bool
	// withheld is why it is in standby at this end, nil if it is not.
	withheld *drain
	// announceDue says that the addresses here are to be announced once the tunnel
	// that was chosen is used.
	announceDue bool
}

// ride is a pseudowire's session on one tunnel.
type ride struct {
	topology.Ride
	// told is the circuit status that the control machine has; signalled says that it has
	// the session as it is to be.
	told      l2tpv3.CircuitStatus
	signalled bool
	// session is the data plane as installed, nil without one; transmits says that it may send.
	session   *installed
	transmits bool
	// failed is why frames are not spread over it, empty if they are (spread).
	failed string
	// deaf says that this is because nothing is heard over its tunnel: its peer is to know.
	deaf bool
	// drained is why it is not to be used, nil if it is.
	drained *drain
	// state is the session's, remote the peer's circuit status.
	state  control.SessionState
	remote l2tpv3.CircuitStatus
	reason string
	cause  control.Cause
}

// on is the session on a tunnel, nil if the pseudowire has none there.
func (w *wire) on(tunnel string) *ride {
	for _, r := range w.rides {
		if r.Tunnel == tunnel {
			return r
		}
	}
	return nil
}

// ill says that something about the wire could not be done.
func (w *wire) ill() bool { return w.fault != nil || w.attachFault != nil || w.vacated || w.unfinished }

// administrative clears a session that is no longer wanted (RFC 3931, Section 5.4.2).
var administrative = l2tpv3.ResultCode{Result: l2tpv3.CDNAdministrative}

// setPseudowire makes a pseudowire what the topology says: device and
// attachment; the session is for signal. A device or attachment that lacks
// something on this host is no failure: it is shown, and tried again.
func (a *Agent) setPseudowire(p *topology.Pseudowire) error {
	kind := a.kindOf(p.Datapath)
	w := a.wires[p.Name]
	if w != nil && w.kind != "" && w.kind != kind {
		// What a datapath would not let go of before: it has to now.
		if err := a.removePseudowires(p.Name); err != nil {
			return err
		}
		w = nil
	}
	if w == nil {
		w = &wire{Pseudowire: &topology.Pseudowire{}, since: time.Now()}
		a.wires[p.Name] = w
	}
	a.unknowns.have(p)
	was := w.Pseudowire // setRides takes the next
	moves := was.Name != "" && p.Attachment != was.Attachment
	a.place(w, &p.Attachment)
	w.full = w.full && p.MaxMACs == w.MaxMACs // until more is learned
	a.setRides(w, p)
	if kind != w.kind || p.Network != was.Network || moves {
		w.crossed = false
	}
	w.Pseudowire, w.kind = p, kind
	a.resignal, a.loops.moved = true, true
	err := a.vacate(w)
	if err == nil {
		err = a.makeDevice(w)
	}
	if err == nil && w.fault == nil {
		err = a.attach(w)
	}
	if err != nil && moves {
		// It does not get to where it is noted, and may not stay where nobody looks for it.
		err = errors.Join(err, a.bridges.RemoveAttachment(w.Name))
		w.vacated = true
	}
	w.unfinished = err != nil
	a.faults.set("pseudowire "+w.Name, cmp.Or(err, w.attachFault))
	return err
}

// vacate takes the attachments of others away that stand where this one is to
// be. In no topology there are such; on the way from one to another, as when two
// pseudowires change places, the other's turn is yet to come. Two at once would
// join their networks.
func (a *Agent) vacate(w *wire) error {
	for o := range a.places[placeOf(&w.Attachment)] {
		// Those of one network share their attachment circuit.
		together := o.Network != "" && o.Network == w.Network
		if o == w || together || !o.Attachment.Overlaps(&w.Attachment) {
			continue
		}
		err := a.cross(o, false)
		if err == nil {
			err = a.bridges.RemoveAttachment(o.Name)
		}
		if err != nil {
			return fmt.Errorf("detach pseudowire %s: %w", o.Name, err)
		}
		o.vacated = true
	}
	return nil
}

// where is a place that attachments can share.
type where struct{ bridge, device string }

func placeOf(at *topology.Attachment) where { return where{at.Bridge, at.Interface} }

// place notes where a pseudowire's attachment is to be; nil is nowhere.
func (a *Agent) place(w *wire, at *topology.Attachment) {
	delete(a.places[placeOf(&w.Attachment)], w)
	if len(a.places[placeOf(&w.Attachment)]) == 0 {
		delete(a.places, placeOf(&w.Attachment))
	}
	if at == nil {
		return
	}
	if a.places[placeOf(at)] == nil {
		a.places[placeOf(at)] = make(map[*wire]bool)
	}
	a.places[placeOf(at)][w] = true
}

// makeDevice sets the pseudowire in its datapath. One that the datapath cannot carry
// as the topology wants it is no failure: it is shown.
func (a *Agent) makeDevice(w *wire) error {
	w.fault = a.tryDevice(w)
	if w.unable() {
		return a.withdraw(w)
	}
	return w.fault
}

// withdraw takes away what there is of a pseudowire that its datapath cannot carry any more.
func (a *Agent) withdraw(w *wire) error {
	now := time.Now()
	for _, r := range w.rides {
		if r.session != nil {
			r.signalled = false
			a.closeRide(now, w, r)
		}
	}
	w.attachFault, w.crossed = nil, false
	err := a.bridges.RemoveAttachment(w.Name)
	if dp := a.datapaths[w.kind]; err == nil && dp != nil {
		err = dp.RemovePseudowires(w.Name)
	}
	return err
}

func (a *Agent) tryDevice(w *wire) error {
	dp, err := a.datapath(w.kind)
	if err != nil {
		return err
	}
	if err := a.able(w, dp); err != nil {
		return err
	}
	return dp.SetPseudowire(a.deviceOf(w, dp))
}

// deviceOf is the pseudowire as its datapath is to have it.
func (a *Agent) deviceOf(w *wire, dp pseudowire.Datapath) pseudowire.Pseudowire {
	can := dp.Abilities()
	p := pseudowire.Pseudowire{Name: w.Name, Device: w.Device, MTU: w.MTU, IgnoreICMP: w.MTU != 0, Service: serviceOf(w, can), Several: len(w.Standby) > 0, Steer: w.steerOf()}
	if can.RewritesTags && !servesTags(w, can) {
		if p.KeepTag = w.Type == l2tpv3.EthernetVLAN; a.carriesTags(w, dp) {
			p.VLAN = w.Attachment.VLAN
		}
	}
	if w.Suppress {
		p.Suppress = w.group()
	}
	if w.crossed {
		p.Port, p.PortVLAN = w.Attachment.Interface, w.Attachment.VLAN
	}
	return p
}

// carriesTags says that the device carries the attachment circuit's own tag. That of
// an Ethernet VLAN pseudowire has to, for the tag to get to the peer. Otherwise a
// VLAN device, where the kernel has them, takes it off itself and leaves the rest
// of the interface to the host.
func (a *Agent) carriesTags(w *wire, dp pseudowire.Datapath) bool {
	switch {
	case w.Attachment.VLAN == 0:
		return false
	case w.Type == l2tpv3.EthernetVLAN:
		return true
	case !dp.Abilities().RewritesTags:
		return false
	}
	if w.Attachment.Interface == "" {
		return true
	}
	_, vlanDevices, err := a.bridges.Supports()
	a.faults.set("VLAN devices", err)
	return !vlanDevices
}

// attach puts the device into its attachment circuit. Something that is not
// there (yet) is kept in the wire; any other failure is returned.
func (a *Agent) attach(w *wire) error {
	dp := a.datapaths[w.kind]
	w.vacated = false
	err := a.bridges.SetAttachment(a.attachmentOf(w, dp))
	missing, rest := absent(err)
	if !dp.Abilities().DeviceWithoutSession {
		// The device comes with the session, and is attached then.
		missing = slices.DeleteFunc(missing, func(e *bridge.NotPresentError) bool { return e.Interface == w.Device })
	}
	w.attachFault = rest
	if rest == nil && len(missing) > 0 {
		w.attachFault = missing[0]
	}
	if w.attachFault == nil {
		a.warnOfAddress(w)
	}
	err = errors.Join(rest, a.cross(w, w.attachFault == nil))
	w.unfinished = err != nil
	return err
}

// absent takes an error of the bridges apart: interfaces that are not there
// (yet), and the rest.
func absent(err error) (missing []*bridge.NotPresentError, rest error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var others []error
		for _, e := range joined.Unwrap() {
			m, r := absent(e)
			missing, others = append(missing, m...), append(others, r)
		}
		return missing, errors.Join(others...)
	}
	if m, ok := errors.AsType[*bridge.NotPresentError](err); ok {
		return []*bridge.NotPresentError{m}, nil
	}
	return nil, err
}

// signal tells the control machine of the sessions that the pseudowires want
// and of their attachment circuits, where it does not know. The error joins those
// of all that it refuses.
func (a *Agent) signal() error {
	a.resignal = false
	clear(a.attached)
	return a.signalEach(slices.Sorted(maps.Keys(a.wires)), a.bridges.AttachmentStates())
}

// signalAttached does so for those whose devices have come into their attachment circuits since.
func (a *Agent) signalAttached() error {
	names := slices.Sorted(maps.Keys(a.attached))
	clear(a.attached)
	return a.signalEach(names, a.bridges.AttachmentStates(names...))
}

func (a *Agent) signalEach(names []string, states map[string]bridge.State) error {
	var errs []error
	now := time.Now()
	for _, name := range names {
		w := a.wires[name]
		if w == nil {
			continue
		}
		w.circuit, w.circuitReason = circuitOf(w, states)
		for _, r := range w.order() {
			if t := a.tunnels[r.Tunnel]; t != nil && t.fault != nil {
				continue
			}
			circuit := w.status(r)
			if circuit == r.told && r.signalled {
				continue
			}
			r.told = circuit
			var err error
			if w.Static != nil {
				err = a.setStatic(w, r)
			} else {
				err = a.control.SetSession(now, a.sessionOf(w, r))
				r.signalled = err == nil
			}
			errs = append(errs, err)
			a.judge(w)
		}
	}
	return errors.Join(errs...)
}

// sessionOf is what the pseudowire wants to be signalled. Of one that the datapath
// cannot carry only that it is there: its peers are told why it does not come up.
func (a *Agent) sessionOf(w *wire, r *ride) control.Session {
	s := control.Session{
		Tunnel: r.Tunnel, Name: w.Name, Type: w.Type, RemoteEndID: w.EndID, LocalEndID: w.LocalEndID, AGI: w.AGI,
		CookieLength: w.CookieLength, MTU: uint16(w.MTU), DSCP: r.DSCP, Circuit: r.told,
	}
	if dp := a.datapaths[w.kind]; dp != nil && !w.unable() {
		can := dp.Abilities()
		s.Sublayer, s.Sequencing = w.Sublayer, w.Sequencing
		s.CanSequence, s.CanSublayer, s.CanChangeCookies, s.CanSucceed = can.Sequencing, can.SublayerPerDirection, can.ChangesCookies, can.Succeeds
	}
	return s
}

// circuitOf is the attachment circuit's status (RFC 4719, Section 2.3.2;
// RFC 5641, Section 2: a fault bit means that A is clear), and why it is down.
func circuitOf(w *wire, states map[string]bridge.State) (l2tpv3.CircuitStatus, string) {
	const down = l2tpv3.CircuitACRxFault | l2tpv3.CircuitACTxFault
	state, known := states[w.Name]
	switch {
	case w.fault != nil:
		return down, w.fault.Error()
	case w.attachFault != nil:
		return down, w.attachFault.Error()
	case !known || w.vacated:
		return down, "it is not attached"
	case !state.Up:
		return down, state.Reason
	}
	return l2tpv3.CircuitActive, ""
}

// removePseudowires takes everything of pseudowires away, at once. After an error they are
// still known, and can be removed again.
func (a *Agent) removePseudowires(names ...string) error {
	now := time.Now()
	carried := map[pseudowire.Kind][]string{}
	var attached []string
	for _, name := range names {
		w := a.wires[name]
		if w == nil {
			continue
		}
		for _, r := range w.rides {
			a.closeRide(now, w, r)
		}
		if err := a.cross(w, false); err != nil {
			return err
		}
		attached = append(attached, name)
		carried[w.kind] = append(carried[w.kind], name)
	}
	err := a.bridges.RemoveAttachment(attached...)
	for _, name := range attached {
		a.wires[name].vacated = true // whether it failed or not: it is to be attached again
	}
	if err != nil {
		return err
	}
	for kind, names := range carried {
		if dp := a.datapaths[kind]; dp != nil {
			if err := dp.RemovePseudowires(names...); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		if w := a.wires[name]; w != nil {
			a.place(w, nil)
			a.setRedundant(w, false)
			delete(a.wires, name)
			a.faults.forget("pseudowire " + name)
		}
	}
	return nil
}

// dismiss takes a session out of its datapath. One that is not let go is tried again with
// all that is to be cleaned up.
func (a *Agent) dismiss(id uint32, dp pseudowire.Datapath) {
	err := dp.RemoveSession(id)
	if err == nil {
		delete(a.orphans, id)
		return
	}
	a.log.Error("cannot remove session, trying again", "session", id, "err", err)
	a.orphans[id], a.unclean = dp, true
}
