package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// several says that the pseudowire has more than one tunnel: they stand in for each other, or
// frames are spread over them.
func (w *wire) several() bool { return w.redundancy != nil || w.Steered() }

// steerOf is what the datapath is to know of the rules, nil where there are none.
func (w *wire) steerOf() *pseudowire.Steer {
	if !w.Steered() {
		return nil
	}
	s := &pseudowire.Steer{Rules: w.Steer}
	for _, r := range w.Rides() {
		s.Tunnels = append(s.Tunnels, r.Tunnel)
	}
	return s
}

// spread looks at the tunnels of a pseudowire whose frames take several, has frames leave
// over those that work, and reports whether there is something to signal.
func (a *Agent) spread(now time.Time, w *wire) (resignal bool) {
	for _, r := range w.rides {
		s := a.sightOf(now, w, r)
		failed := ""
		if !s.works || s.drained {
			failed = s.why
		}
		if r.session != nil && (failed == "") != (r.failed == "") {
			a.tellSpread(w, r, failed)
		}
		r.failed, r.deaf = failed, s.deaf
	}
	a.faults.set("pseudowire "+w.Name+"'s tunnels", a.forward(w))
	a.judge(w)
	return slices.ContainsFunc(w.rides, func(x *ride) bool { return x.signalled && x.told != w.status(x) })
}

func (a *Agent) tellSpread(w *wire, r *ride, failed string) {
	if name := tunnelName(r.Tunnel); failed == "" {
		a.event("info", "pseudowire "+w.Name, "uses tunnel "+name, "")
	} else {
		a.event("warning", "pseudowire "+w.Name, "spares tunnel "+name, failed)
	}
}

// carrying are the tunnels over which frames leave.
func (w *wire) carrying() (names []string) {
	for _, r := range w.rides {
		if r.transmits {
			names = append(names, tunnelName(r.Tunnel))
		}
	}
	return names
}

// tunnelWords names what carries the pseudowire, or is to.
func (w *wire) tunnelWords() string {
	if names := w.carrying(); w.Steered() && len(names) > 0 {
		return strings.Join(names, ",")
	}
	return tunnelName(w.current().Tunnel)
}

// spared says which tunnels do not carry frames, and why; empty if all do.
func (w *wire) spared() string {
	var words []string
	for _, r := range w.rides {
		if r.failed != "" {
			words = append(words, "others stand in for "+strings.Replace(r.failed, "tunnel ", "", 1))
		}
	}
	return strings.Join(words, "; ")
}

// usesDrained says that frames leave over a tunnel that is drained.
func (w *wire) usesDrained() bool {
	if !w.Steered() {
		return w.current().drained != nil
	}
	return slices.ContainsFunc(w.rides, func(r *ride) bool { return r.drained != nil && r.transmits })
}

// spreadCondition is condition for a pseudowire whose frames take several tunnels: one is
// enough.
func (w *wire) spreadCondition() (ready, standby bool) {
	for _, r := range w.rides {
		own := w.status(r)
		up := r.state == control.SessionEstablished && r.remote&own&l2tpv3.CircuitActive != 0 && (r.remote|own)&l2tpv3.CircuitStandby == 0
		ready = ready || up && r.failed == ""
		standby = standby || r.state == control.SessionEstablished && (r.remote|own)&l2tpv3.CircuitStandby != 0 && (r.remote|own)&l2tpv3.CircuitFaults == 0
	}
	return ready, standby && !ready
}

// steeringView is how the frames of a pseudowire are spread, nil if they take one tunnel.
func (a *Agent) steeringView(w *wire, counters map[uint32]pseudowire.Counters) *api.Steering {
	if !w.Steered() {
		return nil
	}
	v := &api.Steering{}
	for i, rule := range w.Steer {
		v.Rules = append(v.Rules, fmt.Sprintf("%d: %s", i+1, ruleWords(rule.Match.String(), rule.Tunnels)))
	}
	for _, r := range w.rides {
		t := api.SteeredTunnel{Tunnel: tunnelName(r.Tunnel), State: "down", Reason: r.failed}
		switch {
		case r.drained != nil:
			t.State = "drained"
		case r.transmits:
			t.State = "used"
		case r.failed == "":
			t.Reason = a.whyRide(w, r)
		}
		if r.session != nil {
			c := counters[r.session.LocalID]
			t.TransmittedFrames, t.ReceivedFrames = c.TransmittedFrames, c.ReceivedFrames
		}
		v.Tunnels = append(v.Tunnels, t)
	}
	return v
}

func ruleWords(match string, tunnels []string) string {
	var names []string
	for _, t := range tunnels {
		names = append(names, tunnelName(t))
	}
	return match + " -> " + strings.Join(names, " or ")
}
