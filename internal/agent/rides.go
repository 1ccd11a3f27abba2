package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// defaultHello is the control machine's (RFC 3931, Section 4.4).
const defaultHello = time.Minute

// setRides gives the pseudowire the sessions that the topology wants: those on tunnels
// that it has already stay as they are, those on others are closed.
func (a *Agent) setRides(w *wire, p *topology.Pseudowire) {
	now := time.Now()
	var chosen *ride
	if w.redundancy != nil && w.redundancy.chosen >= 0 {
		chosen = w.rides[w.redundancy.chosen]
	} else if len(w.rides) == 1 {
		chosen = w.rides[0]
	}
	for _, r := range w.rides {
		if !p.On(r.Tunnel) || w.Static != nil && p.Static == nil {
			a.closeRide(now, w, r)
		}
	}
	var rides []*ride
	for _, want := range p.Rides() {
		r := w.on(want.Tunnel)
		if r == nil {
			r = &ride{}
			if p.Steered() {
				a.adoptSilence(r, p, want.Tunnel)
			}
		}
		remarked := r.session != nil && r.Marking != want.Marking
		r.Ride, r.signalled = want, false
		rides = append(rides, r)
		if remarked {
			a.faults.set("pseudowire "+p.Name+"'s DSCP", a.setSession(r, r.transmits))
		}
	}
	before, was := w.redundancy, w.Pseudowire
	w.rides, w.redundancy, w.Pseudowire = rides, nil, p
	a.remeasured(w, was)
	a.setRedundant(w, len(p.Standby) > 0)
	if p.Redundancy == nil {
		a.withhold(w)
		if p.Steered() {
			a.undecided[w] = true
			return
		}
		for _, r := range rides { // what one of several was spared for
			r.failed, r.deaf = "", false
		}
		a.faults.set("pseudowire "+w.Name+"'s tunnels", a.forward(w))
		return
	}
	if before != nil && slices.EqualFunc(was.Rides(), p.Rides(), func(x, y topology.Ride) bool { return x.Tunnel == y.Tunnel }) {
		w.redundancy = before
	} else {
		w.redundancy = newRedundancy(now, len(rides))
		if i := slices.Index(rides, chosen); i >= 0 {
			w.redundancy.adopt(i)
		}
	}
	w.redundancy.leads, w.redundancy.revertive, w.redundancy.hold = p.Redundancy.Leads, p.Redundancy.Revertive, p.Redundancy.Hold
	a.adoptChoice(w, p.Name)
	a.withhold(w)
	a.undecided[w] = true
}

// adoptChoice takes up what an earlier daemon signalled, before anything else is.
func (a *Agent) adoptChoice(w *wire, name string) {
	for i, r := range w.rides {
		local, was := a.former[rideName(r.Tunnel, name)]
		if was && local&l2tpv3.CircuitStandby == 0 && w.redundancy.chosen < 0 {
			w.redundancy.adopt(i)
		}
	}
}

// adoptSilence spares a tunnel that was silent to an earlier daemon until something is heard.
func (a *Agent) adoptSilence(r *ride, p *topology.Pseudowire, tunnel string) {
	if a.former[rideName(tunnel, p.Name)]&l2tpv3.CircuitPSNRxFault != 0 {
		r.deaf, r.failed = true, nothingYet(tunnel, p.Peer)
	}
}

func nothingYet(tunnel, peer string) string {
	return fmt.Sprintf("tunnel %s: nothing heard from %s yet", tunnelName(tunnel), peer)
}

// noteFormer keeps how the sessions were signalled that an earlier daemon left. Whether
// their tunnels work is known once something is heard; until then that which is used is
// trusted, for the usual time.
func (a *Agent) noteFormer() {
	a.restored = time.Now()
	a.former = make(map[string]l2tpv3.CircuitStatus)
	for _, s := range a.control.Sessions() {
		if s.State == control.SessionEstablished {
			a.former[rideName(s.Session.Tunnel, s.Session.Name)] = s.Local
		}
	}
}

// order is that in which the sessions are signalled: a peer is to hear first which
// one is used.
func (w *wire) order() []*ride {
	if w.redundancy == nil || w.redundancy.chosen <= 0 {
		return w.rides
	}
	first := w.rides[w.redundancy.chosen]
	return append([]*ride{first}, slices.DeleteFunc(slices.Clone(w.rides), func(r *ride) bool { return r == first })...)
}

// status is the circuit status to be signalled on a session. A foreign peer may not know
// of standby: one that stands by is not active to it either (RFC 5641, Section 3). Nor is
// what is drained.
func (w *wire) status(r *ride) l2tpv3.CircuitStatus {
	v := w.circuit
	if w.withheld != nil {
		return v&^l2tpv3.CircuitActive | l2tpv3.CircuitStandby
	}
	if w.redundancy != nil && w.redundancy.standby(slices.Index(w.rides, r)) {
		v |= l2tpv3.CircuitStandby
		if w.redundancy.foreign || r.drained != nil {
			v &^= l2tpv3.CircuitActive
		}
	}
	if w.Steered() && r.drained != nil {
		v = v&^l2tpv3.CircuitActive | l2tpv3.CircuitStandby
	}
	// What the peer sends does not arrive: it is to send it over another tunnel.
	if w.Steered() && r.deaf {
		v |= l2tpv3.CircuitPSNRxFault
	}
	return v
}

// current is the session that is used, or is to be.
func (w *wire) current() *ride {
	if w.redundancy != nil {
		switch r := w.redundancy; {
		case r.leaving >= 0 && !r.inUse(r.chosen):
			return w.rides[r.leaving]
		case r.chosen >= 0:
			return w.rides[r.chosen]
		}
	}
	if i := slices.IndexFunc(w.rides, func(r *ride) bool { return r.transmits }); i > 0 && w.Steered() {
		return w.rides[i]
	}
	return w.rides[0]
}

// sendsOn says whether frames are to leave over a session. Of several that could one
// does: that which was chosen, or the one before it until the peer has followed.
func (w *wire) sendsOn(r *ride) bool {
	may := func(i int) bool { return i >= 0 && w.rides[i].session != nil && w.rides[i].session.Transmit }
	if r.session == nil || !r.session.Transmit {
		return false
	}
	switch x := w.redundancy; {
	case x == nil:
		return !w.Steered() || r.failed == ""
	case may(x.chosen):
		return r == w.rides[x.chosen]
	default:
		return may(x.leaving) && r == w.rides[x.leaving]
	}
}

// setSession tells the datapath of the session that carries a ride's frames.
func (a *Agent) setSession(r *ride, transmits bool) error { return a.hand(r, r.session, transmits) }

// hand gives the datapath a session as it was installed.
func (a *Agent) hand(r *ride, s *installed, transmits bool) error {
	dp := s.datapath
	return dp.SetSession(pseudowire.Session{
		Tunnel: s.Tunnel, Pseudowire: s.Name, LocalID: s.LocalID, RemoteID: s.RemoteID,
		LocalCookie: s.LocalCookie, RemoteCookie: s.RemoteCookie,
		PreviousCookie:  s.PreviousCookie,
		ReceiveSublayer: s.ReceiveSublayer, TransmitSublayer: s.TransmitSublayer,
		ReceiveSequencing: s.ReceiveSequencing, TransmitSequencing: s.TransmitSequencing,
		DSCP: s.DSCP, Marking: marking(&r.Marking), Priority: a.priority(s.Tunnel, dp), Transmit: transmits, Beside: s.Beside,
	})
}

// marking is that of a class, as datapaths have it.
func marking(m *topology.Marking) pseudowire.Marking {
	return pseudowire.Marking{Copy: m.Copy, Mapped: m.Mapped, Map: m.Map}
}

// forward has frames leave over the session that they are to: that comes first, so that
// there is none only where there is to be none.
func (a *Agent) forward(w *wire) error {
	for _, on := range []bool{true, false} {
		for _, r := range w.rides {
			if want := w.sendsOn(r); want != on || r.session == nil || r.transmits == want {
				continue
			}
			if err := a.setSession(r, on); err != nil {
				return err
			}
			r.transmits = on
		}
	}
	return nil
}

// decide has the redundancy of pseudowires look at their tunnels, where there may be
// news, and carries out what it decides.
func (a *Agent) decide(now time.Time) {
	// What is signalled can have news for others; that it does so for ever is excluded by
	// the bound, not expected.
	for range 8 {
		if len(a.undecided) == 0 {
			return
		}
		a.letGo() // nothing is chosen beside what has ended
		resignal := false
		for w := range a.undecided {
			delete(a.undecided, w)
			switch {
			case a.wires[w.Name] != w:
			case w.redundancy != nil:
				resignal = a.weigh(now, w) || resignal
			case w.Steered():
				resignal = a.spread(now, w) || resignal
			}
		}
		if resignal {
			a.faults.set("sessions", a.signal())
			a.drain(now)
		}
	}
}

// weigh does so for one pseudowire, and reports whether there is something to signal.
func (a *Agent) weigh(now time.Time, w *wire) (resignal bool) {
	r := w.redundancy
	var sights []sight
	for _, x := range w.rides {
		if t := a.tunnels[x.Tunnel]; t != nil {
			r.foreign = t.Foreign
		}
		sights = append(sights, a.sightOf(now, w, x))
	}
	first := r.chosen < 0
	if r.look(now, sights) {
		a.switched(w, first)
	}
	a.faults.set("pseudowire "+w.Name+"'s tunnels", a.forward(w))
	if r.inUse(r.chosen) && w.announceDue {
		w.announceDue = false
		a.announceFrom(w, "another tunnel is used")
	}
	a.judge(w)
	return slices.ContainsFunc(w.rides, func(x *ride) bool { return x.signalled && x.told != w.status(x) })
}

// switched tells of a choice. What was learned behind the pseudowire is forgotten: the
// bridges on the way may have other ways to it now.
func (a *Agent) switched(w *wire, first bool) {
	r := w.redundancy
	if r.chosen < 0 {
		return // judge tells
	}
	severity, name := "info", tunnelName(w.rides[r.chosen].Tunnel)
	if r.chosen > 0 {
		severity = "warning"
	}
	a.event(severity, "pseudowire "+w.Name, "uses tunnel "+name, r.why)
	w.announceDue = !first
	if !first {
		a.flush(w)
	}
}

// flush forgets the addresses behind a pseudowire. A device that is in no bridge has none.
func (a *Agent) flush(w *wire) {
	if _, rest := absent(a.bridges.Flush(w.Name)); rest != nil {
		a.log.Debug("cannot forget what was learned", "pseudowire", w.Name, "err", rest)
	}
}

// announceFrom tells the peer which addresses are here, and the operator why.
func (a *Agent) announceFrom(w *wire, why string) {
	n, err := a.bridges.Announce(w.Name)
	if err != nil {
		a.event("warning", "pseudowire "+w.Name, "addresses not announced", err.Error())
	} else if n > 0 {
		a.event("info", "pseudowire "+w.Name, fmt.Sprintf("%d addresses announced", n), why)
	}
}

// sightOf looks at one of the pseudowire's tunnels.
func (a *Agent) sightOf(now time.Time, w *wire, r *ride) sight {
	hello := a.helloOf(r.Tunnel)
	name := tunnelName(r.Tunnel)
	s := sight{hello: hello, drained: w.withheld != nil || r.drained != nil, named: r.state == control.SessionEstablished && r.remote&l2tpv3.CircuitStandby == 0}
	heard, up := a.control.LastHeard(r.Tunnel)
	chosen := w.redundancy == nil || w.redundancy.chosen >= 0 && w.rides[w.redundancy.chosen] == r
	switch {
	case r.state != control.SessionEstablished || !up:
		s.why = fmt.Sprintf("tunnel %s: %s", name, a.whyRide(w, r))
	case !chosen && !heard.After(a.restored):
		s.why = nothingYet(r.Tunnel, w.Peer)
	case w.Steered() && r.deaf && !heard.After(a.restored):
		s.deaf, s.why = true, nothingYet(r.Tunnel, w.Peer)
	case silent(now, heard, hello):
		s.deaf = true
		s.why = fmt.Sprintf("tunnel %s: nothing heard from %s for %v", name, w.Peer, now.Sub(heard).Round(time.Second/10))
	case r.remote&(l2tpv3.CircuitPSNRxFault|l2tpv3.CircuitPSNTxFault) != 0:
		s.why = fmt.Sprintf("tunnel %s: %s reports its end as %s", name, w.Peer, r.remote)
	case withdrawn(r.remote) && !a.foreign(r.Tunnel):
		s.why = fmt.Sprintf("tunnel %s: %s has put it in standby", name, w.Peer)
	default:
		s.works = true
		if r.drained != nil {
			s.why = fmt.Sprintf("tunnel %s: %s", name, r.drained.words(now))
		}
	}
	return s
}

func (a *Agent) foreign(tunnel string) bool {
	t := a.tunnels[tunnel]
	return t != nil && t.Foreign
}

func (a *Agent) helloOf(tunnel string) time.Duration {
	if t := a.tunnels[tunnel]; t != nil && t.Hello > 0 {
		return t.Hello
	}
	return defaultHello
}

// watch has the tunnels looked at that stand in for each other, at their time: silence is
// no event. What the sessions have received is life. A daemon that comes late, because
// the machine is busy, takes in first what has come in the meantime.
func (a *Agent) watch(now time.Time) {
	if a.watchAt.IsZero() || now.Before(a.watchAt) {
		return
	}
	// Before anything else, however late it is: what has been received counts as heard now,
	// and each moment later is one more until silence is noticed.
	a.lastLook = now
	a.listen(now)
	if late := now.Sub(a.watchAt); late >= a.watchEvery && !a.watchLate {
		a.watchLate = true
		return
	}
	a.watchLate = false
	for w := range a.redundant {
		a.undecided[w] = true
	}
}

// planWatch sets the time of the next look: an eighth of the shortest interval of those
// tunnels, a second at most, so that silence is noticed within its limit.
func (a *Agent) planWatch(now time.Time) {
	if a.watchChanged {
		a.watchChanged, a.watchEvery = false, 0
		for w := range a.redundant {
			for _, r := range w.rides {
				if x := min(a.helloOf(r.Tunnel)/8, time.Second); a.watchEvery == 0 || x < a.watchEvery {
					a.watchEvery = x
				}
			}
		}
	}
	switch {
	case a.watchEvery == 0:
		a.watchAt = time.Time{}
	case a.watchAt.IsZero() || !now.Before(a.watchAt) || a.watchAt.Sub(now) > a.watchEvery:
		a.watchAt = now.Add(a.watchEvery)
	}
}

// setRedundant notes whether a pseudowire has several tunnels.
func (a *Agent) setRedundant(w *wire, is bool) {
	if delete(a.redundant, w); is {
		a.redundant[w] = true
	}
	a.watchChanged = true
}

// condition is whether a pseudowire is up, or down only because one end has it in standby.
func (w *wire) condition(now time.Time) (ready, standby bool) {
	if w.withheld != nil {
		return false, true
	}
	if w.Steered() {
		return w.spreadCondition()
	}
	r := w.current()
	own := w.status(r)
	established := r.state == control.SessionEstablished
	ready = established && r.remote&own&l2tpv3.CircuitActive != 0 && (r.remote|own)&l2tpv3.CircuitStandby == 0
	standby = established && (r.remote|own)&l2tpv3.CircuitStandby != 0 && (r.remote|own)&l2tpv3.CircuitFaults == 0
	if w.redundancy == nil {
		return ready, standby
	}
	if x := w.redundancy; x.settling(now) && !x.inUse(x.chosen) && w.circuit&l2tpv3.CircuitActive != 0 {
		// The peer is about to follow: until it has, or has not in time, all is as it was.
		return ready || w.ready, w.standby && !ready
	}
	return ready, standby && !ready
}

// whyOther says why another tunnel than the first carries the pseudowire; empty if
// the first does.
func (w *wire) whyOther() string {
	x := w.redundancy
	if x == nil {
		return w.spared()
	}
	i := slices.Index(w.rides, w.current())
	if i <= 0 {
		return ""
	}
	words := fmt.Sprintf("%s stands in for %s", tunnelName(w.rides[i].Tunnel), tunnelName(w.rides[0].Tunnel))
	if s := &x.standings[0]; !s.usable() && s.why != "" {
		return words + ": " + strings.TrimPrefix(s.why, fmt.Sprintf("tunnel %s: ", tunnelName(w.rides[0].Tunnel)))
	} else if x.revertive && x.leads {
		return fmt.Sprintf("%s: that returns when it has worked for %v", words, s.wait(x.hold))
	}
	return words
}
