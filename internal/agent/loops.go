package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// A loop that a customer closes behind two sites shows at both: addresses move to and fro
// between the pseudowire and a port of the LAN. The pseudowire is blocked then, for a time
// that doubles as long as the loop is still there.
const (
	loopHold      = time.Minute
	loopDoublings = 4
	loopForgotten = time.Hour
	// loopQuiet is for how long other loops of the bridge are not believed: what is on
	// its way still runs around.
	loopQuiet = time.Second
)

// looped is what is known of the loops of a pseudowire.
type looped struct {
	count int
	last  time.Time
}

// closeLoops blocks a pseudowire of each loop that was found.
func (a *Agent) closeLoops(now time.Time) {
	found := a.macs.found
	a.macs.found = nil
	for _, l := range found {
		if now.Before(a.loopQuiet[l.Bridge]) {
			continue
		}
		port, wire := a.bridges.Port(l.Port)
		another, second := a.bridges.Port(l.Another)
		w, other := a.wires[wire], a.wires[second]
		if w == nil {
			w, other = other, nil
		}
		if w == nil || port == "" || another == "" {
			continue
		}
		if w.withheld != nil || other != nil && other.withheld != nil {
			continue // it is open already: this is old news
		}
		a.loopQuiet[l.Bridge] = now.Add(loopQuiet)
		ends := [2]string{a.opt.Site, w.Peer}
		if other != nil {
			ends[0] = other.Peer // it is closed behind those two, not here
		}
		a.block(now, w, l, [2]string{port, another}, ends)
	}
}

// unblock lets the device forward again. The kernel does so by itself when its carrier
// comes, so that an error matters little.
func (a *Agent) unblock(w *wire) {
	if err := a.bridges.SetBlocked(w.Name, false); err != nil {
		a.log.Debug("cannot unblock the port", "pseudowire", w.Name, "err", err)
	}
}

// block blocks a pseudowire for a loop between two ports, that is closed behind two sites.
func (a *Agent) block(now time.Time, w *wire, l bridge.Loop, ports, sites [2]string) {
	seen := a.looped[w.Name]
	if now.Sub(seen.last) > loopForgotten {
		seen.count = 0
	}
	until := now.Add(loopHold << min(seen.count, loopDoublings))
	seen.count, seen.last = seen.count+1, now
	a.looped[w.Name] = seen
	in := ""
	if l.VLAN > 1 {
		in = fmt.Sprintf(" in VLAN %d", l.VLAN)
	}
	d := drain{
		Kind: kindPseudowire, Name: w.Name, Since: now, Until: &until,
		Reason: fmt.Sprintf("a loop: %v moves to and fro between %s and %s%s", l.Address, ports[0], ports[1], in),
		Fix:    fmt.Sprintf("find what else joins the LANs of %s and %s, and open it; then run pwctl undrain %s", sites[0], sites[1], w.Name),
	}
	// At once: to signal it takes a while.
	if err := a.bridges.SetBlocked(w.Name, true); err != nil {
		a.log.Debug("cannot block the port", "pseudowire", w.Name, "err", err)
	}
	a.tell(api.Event{Severity: "error", Object: "pseudowire " + w.Name, Message: "blocked", Reason: d.Reason, Next: d.Fix})
	all := slices.DeleteFunc(slices.Clone(a.drains), func(o drain) bool { return o.Kind == d.Kind && o.Name == d.Name })
	if err := a.setDrains(append(all, d)); err != nil {
		a.faults.set("what is drained", err)
		a.unblock(w) // nothing would end it
	}
}
