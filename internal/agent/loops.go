package agent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/loop"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// loops are what is known of loops that others close between the LANs of sites.
type loops struct {
	// guards are by network, of those where something was amiss.
	guards map[string]*watched
	// ears are open while a guard listens.
	ears *ears
	// next is when guards are to be looked at, zero for never.
	next time.Time
	// announce are pseudowires that forward again, and when addresses are announced on them: their
	// peers have to be told first that they do.
	announce map[string]time.Time
	// moved says that links, or what is attached to them, may have changed since it was looked where the LANs are.
	moved bool
}

// releasePorts has all pseudowires forward that no loop has blocked: a hold is only a moment's, and is
// not to outlive the daemon.
func (a *Agent) releasePorts() {
	for _, w := range a.wires {
		if w.attachFault == nil && (w.withheld == nil || !w.withheld.byLoop()) {
			a.setBlocked(w, false)
		}
	}
}

// announceAfter is how long it takes until a peer knows that a pseudowire forwards again.
const announceAfter = time.Second

// watched is a network where something was amiss.
type watched struct {
	*loop.Guard
	vlan uint16
	// kept is the pseudowire whose bridge keeps probes, empty for none.
	kept string
	// failed says that the bridge does not, or that it is not known where the LAN is.
	failed bool
	// held are the pseudowires that do not forward for a moment.
	held map[string]bool
	// sides are where probes go and come from.
	sides []bridge.Side
}

func randomBelow(limit time.Duration) time.Duration { return rand.N(limit) }

// guard is that of a network.
func (a *Agent) guard(network string) *watched {
	g := a.loops.guards[network]
	if g == nil {
		g = &watched{Guard: loop.New(a.opt.Site, randomBelow), held: make(map[string]bool)}
		a.loops.guards[network] = g
	}
	return g
}

// closeLoops has the guards know of each loop that was found.
func (a *Agent) closeLoops(now time.Time) {
	found := a.macs.found
	a.macs.found = nil
	for _, l := range found {
		port, first := a.bridges.Port(l.Port)
		another, second := a.bridges.Port(l.Another)
		w, other := a.wires[first], a.wires[second]
		if w == nil {
			w, other = other, nil
		}
		if w == nil || port == "" || another == "" {
			continue
		}
		peers := []string{w.Peer}
		if other != nil && other.group() == w.group() {
			if w.standby || other.standby {
				continue // it is open by now: a busy host hears late of what moved before
			}
			peers = append(peers, other.Peer)
		}
		in := ""
		if l.VLAN > 1 {
			in = fmt.Sprintf(" in VLAN %d", l.VLAN)
		}
		g := a.guard(w.group())
		g.vlan = l.VLAN
		g.Suspect(now, fmt.Sprintf("%v moves to and fro between %s and %s%s", l.Address, port, another, in), peers...)
		a.loops.next = now
	}
}

// hearLoops takes what has been heard.
func (a *Agent) hearLoops(now time.Time, e earful) {
	for network, g := range a.loops.guards {
		for _, s := range g.sides {
			if s.Index != e.port || !slices.Contains(s.Tags, e.tag) || !e.probe.Of(network) {
				continue
			}
			if p, is := e.probe.In(network, slices.Collect(maps.Keys(a.wiresIn(network)))); is {
				if g.Heard(now, p, s.Name) {
					a.loops.next = now
				}
			}
		}
	}
}

// wiresIn are the pseudowires of a network, by peer.
func (a *Agent) wiresIn(network string) map[string]*wire {
	wires := make(map[string]*wire)
	for _, w := range a.wires {
		if w.group() == network {
			wires[w.Peer] = w
		}
	}
	return wires
}

// wiresByNetwork are all of them.
func (a *Agent) wiresByNetwork() map[string]map[string]*wire {
	all := make(map[string]map[string]*wire)
	for _, w := range a.wires {
		network := w.group()
		if all[network] == nil {
			all[network] = make(map[string]*wire)
		}
		all[network][w.Peer] = w
	}
	return all
}

// reached says of each peer in a network whether this site gets through to it.
func (a *Agent) reached(wires map[string]*wire) map[string]bool {
	peers := make(map[string]bool, len(wires))
	for peer, w := range wires {
		peers[peer] = a.getsThrough(w)
	}
	return peers
}

// getsThrough says whether frames would get to the peer if nothing was blocked for a loop.
func (a *Agent) getsThrough(w *wire) bool {
	if w.fault != nil || w.attachFault != nil || w.circuit&l2tpv3.CircuitActive == 0 || w.withheld != nil && !w.withheld.byLoop() {
		return false
	}
	return slices.ContainsFunc(w.rides, func(r *ride) bool {
		return r.state == control.SessionEstablished && r.remote&l2tpv3.CircuitFaults == 0 && r.remote&(l2tpv3.CircuitActive|l2tpv3.CircuitStandby) != 0
	})
}

// hearAll takes what has been heard and waits, and not what comes meanwhile: probes run around in
// loops, too.
func (a *Agent) hearAll(now time.Time) {
	for range cap(a.loops.ears.ready()) {
		select {
		case e := <-a.loops.ears.ready():
			a.hearLoops(now, e)
		default:
			return
		}
	}
}

// watchLoops has the guards decide, if it is time.
func (a *Agent) watchLoops(now time.Time) {
	if a.loops.next.IsZero() || now.Before(a.loops.next) {
		return
	}
	a.hearAll(now)
	a.loops.next = time.Time{}
	wires := a.wiresByNetwork()
	wanted, listening := map[string]drain{}, map[string]*watched{}
	probes := map[*watched]loop.Probe{}
	for _, network := range slices.Sorted(maps.Keys(a.loops.guards)) {
		g, peers := a.loops.guards[network], a.reached(wires[network])
		v := g.Advance(now, peers)
		for peer, b := range v.Blocked {
			if w := wires[network][peer]; w != nil {
				wanted[w.Name] = a.loopDrain(now, w, b)
			}
		}
		a.hold(wires[network], g, v, wanted)
		if v.Probe {
			probes[g] = loop.Probe{Network: network, Site: a.opt.Site, Reaches: peers}
		}
		if !v.Next.IsZero() && (a.loops.next.IsZero() || v.Next.Before(a.loops.next)) {
			a.loops.next = v.Next
		}
		idle := g.Idle(now) || len(peers) == 0
		if idle {
			delete(a.loops.guards, network)
		}
		if g.Listens(now) && !idle {
			listening[network] = g
		} else {
			a.keepProbes(g, nil)
		}
	}
	a.listenForLoops(wires, listening, probes)
	for g, p := range probes {
		a.probeLoop(g, p)
	}
	a.blockLoops(now, wanted)
	a.announceLoops(now)
	if len(listening) == 0 && a.loops.ears != nil {
		a.loops.ears.close()
		a.loops.ears = nil
	}
}

// hold keeps pseudowires of a network from forwarding for a moment, or lets them again, but for those that are to
// be blocked now. The kernel does that by
// itself when a carrier comes, so that an error matters little.
func (a *Agent) hold(wires map[string]*wire, g *watched, v loop.Verdict, blocked map[string]drain) {
	for name := range g.held {
		w := a.wires[name]
		if w != nil && v.Held[w.Peer] {
			continue
		}
		delete(g.held, name)
		if _, is := blocked[name]; w != nil && w.withheld == nil && !is {
			a.setBlocked(w, false)
		}
	}
	for peer := range v.Held {
		if w := wires[peer]; w != nil && !g.held[w.Name] && w.withheld == nil {
			g.held[w.Name] = true
			a.setBlocked(w, true)
		}
	}
}

func (a *Agent) setBlocked(w *wire, blocked bool) {
	if err := a.bridges.SetBlocked(w.Name, blocked); err != nil {
		a.log.Debug("cannot change whether the port forwards", "pseudowire", w.Name, "blocked", blocked, "err", err)
	}
}

// loopDrain is a block as it is told and kept. One that goes on is as it was.
func (a *Agent) loopDrain(now time.Time, w *wire, b loop.Block) drain {
	d := drain{Kind: kindPseudowire, Name: w.Name, Since: now, Joined: b.Joined, Behind: b.Port}
	if old := w.withheld; old != nil && old.byLoop() {
		d.Since = old.Since
	}
	switch {
	case b.Joined == "":
		until := b.Until
		d.Until = &until
		d.Reason = "a loop: " + b.What
		d.Fix = fmt.Sprintf("find what else joins the LANs of %s and %s, and open it; then run pwctl undrain %s", a.opt.Site, w.Peer, w.Name)
	case b.Joined == w.Peer:
		d.Reason = fmt.Sprintf("a loop: something else joins the LANs of %s and %s; %[2]s is heard behind %s", a.opt.Site, b.Joined, b.Port)
		d.Fix = fmt.Sprintf("open what joins the LANs of %s and %s; then it comes back by itself", a.opt.Site, b.Joined)
	default:
		d.Reason = fmt.Sprintf("a loop: something else joins the LANs of %s and %s, which forwards for both; it is heard behind %s", a.opt.Site, b.Joined, b.Port)
		d.Fix = fmt.Sprintf("open what joins the LANs of %s and %s; then it comes back by itself", a.opt.Site, b.Joined)
	}
	return d
}

// blockLoops makes what is blocked for loops what is wanted, by pseudowire.
func (a *Agent) blockLoops(now time.Time, wanted map[string]drain) {
	var all []drain
	changed := false
	for _, d := range a.drains {
		want, is := wanted[d.Name]
		switch {
		case d.Kind != kindPseudowire || !d.byLoop() && !is, d.Until != nil && !is:
			all = append(all, d)
		case !d.byLoop():
			delete(wanted, d.Name) // somebody has drained it
			all = append(all, d)
		case !is:
			changed = true
			a.loops.announce[d.Name] = now.Add(announceAfter)
			a.event("info", d.object(), "forwards again", "nothing else joins the LANs any more")
		default:
			same := d.Joined == want.Joined && d.Behind == want.Behind && (d.Until != nil) == (want.Until != nil)
			if delete(wanted, d.Name); same {
				all = append(all, d)
				continue
			}
			changed, all = true, append(all, want)
			a.tellLoop(want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		changed, all = true, append(all, wanted[name])
		a.setBlocked(a.wires[name], true) // at once: to signal it takes a while
		a.tellLoop(wanted[name])
	}
	if !changed {
		return
	}
	if err := a.setDrains(all); err != nil { // it is not kept, and holds all the same
		a.enforceDrains(all)
	}
}

// keepBlocks writes what could not be written before.
func (a *Agent) keepBlocks() {
	if _, unkept := a.faults.now[drainsObject]; unkept {
		a.faults.set(drainsObject, a.store.setDrains(a.drains))
	}
}

// announceLoops tells peers which addresses are here: they may have them behind the site that
// forwarded for this one.
func (a *Agent) announceLoops(now time.Time) {
	for name, at := range a.loops.announce {
		if now.Before(at) {
			if a.loops.next.IsZero() || at.Before(a.loops.next) {
				a.loops.next = at
			}
			continue
		}
		delete(a.loops.announce, name)
		if w := a.wires[name]; w != nil && w.ready {
			a.announceFrom(w, "it forwards again")
		}
	}
}

func (a *Agent) tellLoop(d drain) {
	a.tell(api.Event{Severity: "error", Object: d.object(), Message: "blocked", Reason: d.Reason, Next: d.Fix})
}

// listenForLoops has the probes of networks heard, and kept by their bridges: as soon as there is something to
// hear, again when links have changed, as a device that leaves its bridge leaves that behind, and where it
// failed with the next probe.
func (a *Agent) listenForLoops(wires map[string]map[string]*wire, listening map[string]*watched, probes map[*watched]loop.Probe) {
	if len(listening) == 0 {
		return
	}
	if a.loops.ears == nil {
		var err error
		a.loops.ears, err = openEars()
		a.faults.set("listening for loops", err)
	}
	var names []string
	for network, g := range listening {
		_, probing := probes[g]
		at := g.keeper(wires[network])
		if at == nil || at.Name != g.kept || a.loops.moved || g.failed && probing {
			a.keepProbes(g, at)
			if at != nil {
				names = append(names, at.Name)
			}
		}
	}
	a.loops.moved = false
	if len(names) == 0 {
		return
	}
	sides, err := a.bridges.Sides(names...)
	if err != nil {
		a.log.Debug("cannot find the LANs", "err", err)
	}
	for _, g := range listening {
		if found, looked := sides[g.kept]; looked {
			g.sides = found
		} else if slices.Contains(names, g.kept) {
			g.failed = true
		}
	}
}

// keeper is the pseudowire whose bridge is to keep probes: the same as before, if it can.
func (g *watched) keeper(wires map[string]*wire) (at *wire) {
	for _, w := range wires {
		if w.attachFault == nil && (at == nil || w.Name == g.kept || at.Name != g.kept && w.Name < at.Name) {
			at = w
		}
	}
	return at
}

// keepProbes has the bridge of a pseudowire keep probes, and that of the one before not any more; nil is none.
func (a *Agent) keepProbes(g *watched, at *wire) {
	if g.kept != "" && (at == nil || at.Name != g.kept) {
		if a.wires[g.kept] != nil {
			if err := a.bridges.SetKept(g.kept, loop.Destination, false); err != nil {
				a.log.Debug("cannot undo that the bridge keeps probes", "pseudowire", g.kept, "err", err)
			}
		}
		g.kept, g.sides = "", nil
	}
	if at == nil {
		return
	}
	err := a.bridges.SetKept(at.Name, loop.Destination, true)
	if g.kept, g.failed = at.Name, err != nil; g.failed {
		a.log.Debug("the bridge does not keep probes", "pseudowire", at.Name, "err", err)
	}
}

// probeLoop sends a probe into the LAN.
func (a *Agent) probeLoop(g *watched, p loop.Probe) {
	for _, s := range g.sides {
		tag := s.Tags[0]
		if slices.Contains(s.Tags, g.vlan) {
			tag = g.vlan
		}
		if err := a.loops.ears.send(s.Index, p.Frame(tag)); err != nil {
			a.log.Debug("cannot send a probe for loops", "port", s.Name, "err", err)
		}
	}
}

// leaveLoops is the end of what this site forwards for others: another one is to do so now, and not when it has
// heard no more probes for a while.
func (a *Agent) leaveLoops(now time.Time) {
	for network, g := range a.loops.guards {
		if !g.Listens(now) {
			continue
		}
		for _, w := range a.wiresIn(network) {
			a.setBlocked(w, true) // before: two that forward are a loop
		}
		a.probeLoop(g, loop.Probe{Network: network, Site: a.opt.Site})
	}
}

// keepLoops takes up what an earlier daemon had blocked because LANs were joined.
func (a *Agent) keepLoops(now time.Time) {
	for _, d := range a.drains {
		if w := a.wires[d.Name]; w != nil && d.Joined != "" {
			a.guard(w.group()).Keep(now, w.Peer, loop.Block{Joined: d.Joined, Port: d.Behind})
			a.loops.next = now
		}
	}
}

// releaseLoops forgets that something is blocked for a time, as somebody says so.
func (a *Agent) releaseLoops(d drain) {
	for network, g := range a.loops.guards {
		for peer, w := range a.wiresIn(network) {
			if d.Kind == kindPseudowire && d.concerns(w, a.opt.Site) {
				g.Release(peer)
			}
		}
	}
}
