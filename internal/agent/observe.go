package agent

import (
	"fmt"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// observe looks at the kernel again: routes and neighbours of the underlay,
// attachment circuits, and what could not be done before.
func (a *Agent) observe() {
	for kind, dp := range a.datapaths {
		if err := dp.Refresh(); err != nil {
			a.log.Warn("cannot look at the underlay", "datapath", kind, "err", err)
		}
	}
	if err := a.bridges.Refresh(); err != nil {
		a.log.Warn("cannot look at the bridges", "err", err)
	}
	if a.local == nil {
		return
	}
	a.setListeners()
	for i := range a.local.Bridges {
		if err := present(a.setBridge(&a.local.Bridges[i])); err != nil {
			a.log.Warn("cannot set bridge", "bridge", a.local.Bridges[i].Name, "err", err)
		}
	}
	for _, w := range a.wires {
		if err := a.mend(w); err != nil {
			a.log.Warn("cannot mend pseudowire", "pseudowire", w.Name, "err", err)
		}
		circuit, reason := a.circuitOf(w)
		w.circuitReason = reason
		if circuit != w.circuit {
			if err := a.signal(w); err != nil {
				a.log.Error("cannot signal", "pseudowire", w.Name, "err", err)
			}
			a.judge(w, "attachment circuit: "+nonempty(reason, "active"))
		}
	}
}

// mend sets a pseudowire's device and attachment again: that changes nothing
// where nobody meddled with them.
func (a *Agent) mend(w *wire) error {
	if err := a.makeDevice(w); err != nil {
		return err
	}
	return a.attach(w)
}

func (a *Agent) connectionChanged(c control.ConnectionChanged) {
	if c.From == c.To {
		return
	}
	severity := "info"
	if c.From == control.ConnectionEstablished {
		severity = "warning"
	}
	a.event(severity, "tunnel "+c.Tunnel, fmt.Sprintf("%s -> %s", c.From, c.To), c.Reason)
	a.changed.signal()
}

func (a *Agent) sessionChanged(s control.SessionChanged) {
	w := a.wires[s.Name]
	if w == nil || w.Tunnel != s.Tunnel {
		return
	}
	if s.From != s.To || s.Reason != w.reason {
		w.since = time.Now()
	}
	w.state, w.remote, w.reason = s.To, s.Remote, s.Reason
	if s.From != s.To {
		a.log.Info("session", "pseudowire", w.Name, "tunnel", s.Tunnel, "from", s.From, "to", s.To, "reason", s.Reason)
	}
	a.judge(w, s.Reason)
}

// judge decides whether a pseudowire is up, and tells when that changed.
func (a *Agent) judge(w *wire, reason string) {
	ready := w.state == control.SessionEstablished && w.remote&l2tpv3.CircuitActive != 0 && w.circuit&l2tpv3.CircuitActive != 0
	if ready != w.ready {
		w.ready, w.since = ready, time.Now()
		if ready {
			a.event("info", "pseudowire "+w.Name, "up", "")
		} else {
			a.event("warning", "pseudowire "+w.Name, "down", nonempty(reason, a.why(w)))
		}
	}
	a.changed.signal()
}

// why says, in words for the operator, what a pseudowire that is down waits for.
func (a *Agent) why(w *wire) string {
	switch {
	case w.ready:
		return ""
	case w.fault != nil:
		return w.fault.Error()
	case w.attachFault != nil:
		return w.attachFault.Error()
	case w.state == control.SessionEstablished && w.remote&l2tpv3.CircuitActive == 0:
		return fmt.Sprintf("%s reports its attachment circuit as %s", w.Peer, w.remote)
	case w.state == control.SessionEstablished:
		return nonempty(w.circuitReason, "attachment circuit is down")
	case w.state == control.SessionWaitControl || w.reason == "":
		return fmt.Sprintf("waiting for %s: tunnel %s is not established", w.Peer, w.Tunnel)
	default:
		return w.reason
	}
}

func nonempty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// event keeps what happened for `pwctl events`, and logs it.
func (a *Agent) event(severity, object, message, reason string) {
	a.events.add(time.Now(), severity, object, message, reason)
	log := a.log.Info
	switch severity {
	case "warning":
		log = a.log.Warn
	case "error":
		log = a.log.Error
	}
	log(message, "object", object, "reason", reason)
}
