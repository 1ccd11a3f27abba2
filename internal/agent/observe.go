package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// observe follows what changed in the kernel: routes and neighbours of the
// underlay, attachment circuits, devices of ours that somebody meddled with. It
// takes no more than its share of the time, whatever happens on the host.
func (a *Agent) observe(n news) {
	begin := time.Now()
	if n.underlay || n.lost {
		a.lookAtUnderlay(n.attached || n.lost || a.circuitsAmong(n.links) || a.deviceAmong(n.gone))
	}
	a.lookAtDevices(n)
	if n.lost || n.ports || a.concerns(n.links) {
		a.refreshBridges()
	}
	if n.lost || len(n.links) > 0 {
		a.loops.moved = true
		a.mend(n)
		a.faults.set("sessions", a.signal())
	}
	now := time.Now()
	a.rest = now.Add(now.Sub(begin) * (share - 1))
}

// settingUp says that sessions are being set up, and that this has not come to a halt.
func (a *Agent) settingUp(now time.Time) bool {
	for _, w := range a.wires {
		for _, r := range w.rides {
			if (r.state == control.SessionWaitReply || r.state == control.SessionWaitConnect) && now.Sub(w.since) < longest {
				return true
			}
		}
	}
	return false
}

// lookAtDevices sets the devices that something happened to again, before they are put
// back into bridges.
func (a *Agent) lookAtDevices(n news) {
	for _, w := range a.wires {
		happened := n.lost || n.links[w.Device] || n.wires[w.Name] || len(n.parts) > 0 && n.parts[pseudowire.Plain(w.Name)]
		if w.fault == nil && happened && !a.held("pseudowire "+w.Name) {
			// What fails is kept in the wire, and tried again.
			_ = a.makeDevice(w)
		}
	}
}

// retry tries again what could not be done, and has stale neighbours asked.
func (a *Agent) retry() {
	a.drops.tick(time.Now())
	a.tellRest(time.Now())
	a.lookAtUnderlay(a.refreshDue(time.Now()))
	a.lookAtContests(time.Now())
	a.lookAtPaths()
	a.keepAgain()
	a.countErrors(time.Now())
	if a.unclean {
		a.clean()
	}
	if _, ill := a.faults.now["bridges"]; ill {
		a.refreshBridges()
	}
	if a.unkept != nil {
		a.remember(a.unkept)
	}
	a.keepBlocks()
	a.refile()
	if a.lacking() {
		a.rereadSecrets()
	}
	a.mend(news{})
	a.faults.set("sessions", a.signal())
}

// lookAtPaths tells of paths whose MTU is another than at the last look: the kernel
// tells nobody of what it hears from routers.
func (a *Agent) lookAtPaths() {
	given := a.mtusGiven()
	changed := false
	for _, c := range a.control.Connections() {
		t := a.tunnels[c.Tunnel.Name]
		if t == nil {
			continue
		}
		if a.longestMTU(given[t.Key], c.LocalID) != t.probe.believed || t.probe.hinted(a.transport.PathMTU(c.LocalID, true)) {
			t.probe.next = time.Time{}
		}
		mtu := a.shortestMTU(given[t.Key], c.LocalID)
		if mtu == 0 || mtu == t.pathMTU {
			continue
		}
		if t.pathMTU != 0 {
			a.event("info", "tunnel "+t.Key, fmt.Sprintf("path MTU is %d", mtu), fmt.Sprintf("it was %d", t.pathMTU))
			changed = true
		}
		t.pathMTU = mtu
	}
	if changed {
		a.refreshDatapaths(true)
	}
}

// lookAtUnderlay looks at the ways to peers; with all, at what is attached to each device, too.
func (a *Agent) lookAtUnderlay(all bool) {
	a.refreshDatapaths(all)
	a.lookAtSockets()
}

// refreshShare is what part of the time may go into looking at all devices where nothing has
// happened: one in refreshShare. What the kernel tells of is looked at anyway; the rest of what
// others can do waits no longer than refreshRest.
const (
	refreshShare = 200
	refreshRest  = 20 * time.Second
)

// refreshDue says whether all devices are to be looked at again with no event: where something
// is wrong with the ways, or somebody else changes what is looked at, each time, else as rarely as a look takes long.
func (a *Agent) refreshDue(now time.Time) bool {
	for kind := range a.datapaths {
		if _, ill := a.faults.now[wayFault(kind)]; ill {
			return true
		}
	}
	if len(a.contests.now) > 0 {
		return true
	}
	// One that had something to mend, or to wait for others, is no measure.
	took := min(a.refreshTook[0], a.refreshTook[1])
	rest := min(max(recheck, refreshShare*took), refreshRest)
	return now.Sub(a.refreshed) >= rest-recheck/2 // a tick comes sooner or later
}

func wayFault(kind pseudowire.Kind) string {
	return "the " + string(kind) + " datapath's way to its peers"
}

// refreshDatapaths has them look at ways to peers; with all, at what is attached to each device, too.
func (a *Agent) refreshDatapaths(all bool) {
	begin := time.Now()
	for kind, dp := range a.datapaths {
		refresh := dp.Refresh
		if ways, can := dp.(interface{ RefreshWays() error }); can && !all {
			refresh = ways.RefreshWays
		}
		err := refresh()
		a.renew(err)
		if errors.As(err, new(*pseudowire.TunnelsGoneError)) {
			err = nil // told as drift
		}
		a.faults.set(wayFault(kind), err)
	}
	if all {
		a.refreshed = time.Now()
		a.refreshTook = [2]time.Duration{a.refreshed.Sub(begin), a.refreshTook[0]}
	}
}

// lookAtSockets opens those again that are missing, and shapes what they send.
func (a *Agent) lookAtSockets() {
	clear(a.carried) // sockets may be opened anew
	failed := a.transport.Refresh()
	a.redial(failed)
	a.lookAtStatics()
	a.faults.set("sockets", failed)
	// What fails is noted there.
	_ = a.shape()
}

// concerns says whether one of the links is named in the topology, or made for it.
func (a *Agent) concerns(links map[string]bool) bool {
	return a.circuitsAmong(links) || a.deviceAmong(links)
}

// deviceAmong says whether one of the links is a pseudowire's device.
func (a *Agent) deviceAmong(links map[string]bool) bool {
	if len(links) == 0 || a.local == nil {
		return false
	}
	for _, w := range a.wires {
		if links[w.Device] {
			return true
		}
	}
	return false
}

// circuitsAmong says whether one of the links is an attachment circuit's.
func (a *Agent) circuitsAmong(links map[string]bool) bool {
	if len(links) == 0 || a.local == nil {
		return false
	}
	for _, b := range a.local.Bridges {
		if links[b.Name] {
			return true
		}
		for _, p := range b.Ports {
			if links[p] {
				return true
			}
		}
	}
	for _, w := range a.wires {
		if w.Attachment.Interface != "" && madeFor(links, &w.Attachment) {
			return true
		}
	}
	return false
}

// madeFor says whether one of the links is an attached interface or a device
// that package bridge makes for it.
func madeFor(links map[string]bool, at *topology.Attachment) bool {
	device := bridge.VLANDevice(at.Interface, at.VLAN)
	return links[at.Interface] || links[bridge.PrivateBridge(at.Interface)] ||
		at.VLAN != 0 && (links[device] || links[bridge.PrivateBridge(device)])
}

// refreshBridges mends bridges and what is in them. Interfaces that are not there
// are noted with the bridge that misses them; those of pseudowires are theirs.
func (a *Agent) refreshBridges() {
	missing, err := absent(a.bridges.Refresh())
	a.faults.set("bridges", err)
	of := make(map[string][]*bridge.NotPresentError)
	for _, m := range missing {
		of[m.For] = append(of[m.For], m)
	}
	if a.local == nil {
		return
	}
	for _, b := range a.local.Bridges {
		a.bridgeFault(b.Name, of["bridge "+b.Name], nil)
	}
}

// mend sets again the bridges that miss something and the pseudowires that lack
// something or whose device has gone.
func (a *Agent) mend(n news) {
	if a.local == nil {
		return
	}
	for i := range a.local.Bridges {
		b := &a.local.Bridges[i]
		if _, ill := a.faults.now["bridge "+b.Name]; ill {
			_ = a.setBridge(b) // noted with the bridge
		}
	}
	for _, w := range a.wires {
		if (w.ill() || n.lost || n.gone[w.Device]) && !a.held("pseudowire "+w.Name) {
			// What fails is kept in the wire.
			_ = a.setPseudowire(w.Pseudowire)
		}
	}
}

// clean removes what could not be removed before: everything that is not wanted.
func (a *Agent) clean() {
	for id, dp := range a.orphans {
		a.dismiss(id, dp)
	}
	err := errors.Join(a.reconcile(), a.prune())
	a.unclean = err != nil || len(a.orphans) > 0
	a.faults.set("leftovers", err)
}

func (a *Agent) sessionChanged(s control.SessionChanged) {
	w := a.wires[s.Name]
	if w == nil || w.on(s.Tunnel) == nil {
		return
	}
	r := w.on(s.Tunnel)
	if s.From != s.To || s.Reason != r.reason {
		w.since = time.Now()
	}
	r.state, r.remote, r.reason, r.cause = s.To, s.Remote, s.Reason, s.Cause
	a.log.Debug("session", "pseudowire", w.Name, "tunnel", s.Tunnel, "from", s.From, "to", s.To, "remote", s.Remote, "reason", s.Reason)
	if w.several() {
		a.undecided[w] = true // what is down may not be by then
		return
	}
	a.judge(w)
}

// judge decides whether a pseudowire is up, and tells when that changed. Where it is not
// any more, nothing is behind it.
func (a *Agent) judge(w *wire) {
	ready, standby := w.condition(time.Now())
	if ready != w.ready || standby != w.standby {
		was := w.ready
		w.ready, w.standby, w.since, w.told = ready, standby, time.Now(), nil
		switch {
		case ready:
			a.event("info", "pseudowire "+w.Name, "up", a.whyUp(w))
		case standby:
			a.event("info", "pseudowire "+w.Name, "standby", a.why(w))
		default:
			a.tell(api.Event{Severity: "warning", Object: "pseudowire " + w.Name, Message: "down", Reason: a.why(w),
				Cause: causeView(w.current().cause), Next: a.remedy(w)})
		}
		if was && !ready {
			a.flush(w)
		}
	}
	if !ready && !standby {
		a.tellObstacle(w)
	}
	a.changed.signal()
}

// tellObstacle tells what keeps a pseudowire from coming up, each kind of thing once.
func (a *Agent) tellObstacle(w *wire) {
	r := w.current()
	kind := r.cause.Kind
	switch kind {
	case control.CauseNone, control.CauseWaiting, control.CauseConnection, control.CauseConfiguration,
		control.CauseDuplicate, control.CauseReplaced, control.CauseCircuit:
		return
	}
	if r.state == control.SessionEstablished || w.told[kind] {
		return
	}
	if w.told == nil {
		w.told = make(map[control.CauseKind]bool)
	}
	w.told[kind] = true
	a.tell(api.Event{Severity: "warning", Object: "pseudowire " + w.Name, Message: "not up", Reason: a.why(w), Cause: causeView(r.cause), Next: a.remedy(w)})
}

// whyUp is what there is to say of a pseudowire that is up.
func (a *Agent) whyUp(w *wire) string {
	if w.Static != nil {
		return staticWords
	}
	return w.whyOther()
}

// why says, in words for the operator, what a pseudowire that is down waits for.
func (a *Agent) why(w *wire) string {
	switch {
	case w.ready:
		return a.whyUp(w)
	case w.fault != nil:
		return w.fault.Error()
	case w.attachFault != nil:
		return w.attachFault.Error()
	}
	return a.whyRide(w, w.current())
}

// whyRide says so of one of its sessions.
func (a *Agent) whyRide(w *wire, r *ride) string {
	switch own := w.status(r); {
	case w.withheld != nil:
		return w.withheld.words(time.Now())
	case r.state == control.SessionEstablished && own&l2tpv3.CircuitActive == 0 && w.circuit&l2tpv3.CircuitActive == 0:
		return nonempty(w.circuitReason, "attachment circuit is down")
	case r.state == control.SessionEstablished && r.remote&l2tpv3.CircuitStandby != 0 && r.remote&l2tpv3.CircuitFaults == 0:
		return w.Peer + " has put it in standby"
	case r.state == control.SessionEstablished && r.remote&l2tpv3.CircuitActive == 0:
		return fmt.Sprintf("%s reports its attachment circuit as %s", w.Peer, r.remote)
	case r.state == control.SessionEstablished && own&l2tpv3.CircuitStandby != 0:
		return "stands by"
	case r.state == control.SessionEstablished:
		return ""
	case r.state == control.SessionWaitReply || r.state == control.SessionWaitConnect:
		return "waiting for " + w.Peer
	}
	t := a.tunnels[r.Tunnel]
	switch {
	case t == nil:
		return fmt.Sprintf("tunnel %s is not there", tunnelName(r.Tunnel))
	case t.state != control.ConnectionEstablished:
		return fmt.Sprintf("waiting for %s: tunnel %s is not established: %s", w.Peer, t.Name, t.why())
	}
	return nonempty(r.reason, "waiting for "+w.Peer)
}

func nonempty(s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}
