package agent

import (
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// installed is a session in a datapath.
type installed struct {
	control.InstallSession
	wire     *wire
	datapath pseudowire.Datapath
}

// install puts a session into its pseudowire's datapath, and its device into
// the attachment circuit where the device comes with the session.
func (a *Agent) install(s control.InstallSession) error {
	a.letGo() // it may take the place of one
	w := a.wires[s.Name]
	if w == nil || w.on(s.Tunnel) == nil {
		return fmt.Errorf("pseudowire %s is not in the topology", s.Name)
	}
	if w.fault != nil {
		return w.fault
	}
	dp, err := a.datapath(w.kind)
	if err != nil {
		return err
	}
	if err := a.carry(dp, s); err != nil {
		return err
	}
	r := w.on(s.Tunnel)
	if s.Beside != 0 {
		return a.installBeside(r, &installed{s, w, dp})
	}
	before := r.session
	r.session = &installed{s, w, dp}
	transmits := w.sendsOn(r)
	if err := a.setSession(r, transmits); err != nil {
		r.session = before
		if a.sessions[s.LocalID] == nil {
			a.dismiss(s.LocalID, dp) // it may have part of it
		}
		return err
	}
	r.transmits = transmits
	a.haveSession(r.session)
	if err := a.forward(w); err != nil {
		return err
	}
	if !dp.Abilities().DeviceWithoutSession {
		// What fails here is the attachment circuit's fault, and told as that.
		_ = a.attach(w)
		a.attached[w.Name] = true
	}
	return nil
}

// installBeside puts a session into its pseudowire's datapath that only receives, beside
// the one that carries frames.
func (a *Agent) installBeside(r *ride, s *installed) error {
	if err := a.hand(r, s, false); err != nil {
		if a.sessions[s.LocalID] == nil {
			a.dismiss(s.LocalID, s.datapath) // it may have part of it
		}
		return err
	}
	a.haveSession(s)
	return nil
}

// haveSession notes a session that a datapath has.
func (a *Agent) haveSession(s *installed) {
	delete(a.orphans, s.LocalID)
	a.sessions[s.LocalID], a.lanesDue = s, true
	a.dataDue = a.dataDue || a.overIP(s.Tunnel)
	if _, known := a.heard[s.LocalID]; a.resumed && !known {
		a.heard[s.LocalID] = 0 // its counters are new, too
	}
}

func (a *Agent) uninstall(out control.RemoveSession) {
	a.uninstallLater(out)
	a.letGo()
}

// uninstallLater has a session go from its datapath (see later), and forgets it.
func (a *Agent) uninstallLater(out control.RemoveSession) {
	s := a.sessions[out.LocalID]
	if s == nil {
		return
	}
	delete(a.sessions, out.LocalID)
	a.lanesDue = true
	a.dataDue = a.dataDue || a.overIP(out.Tunnel)
	delete(a.heard, out.LocalID)
	if r := s.wire.on(out.Tunnel); r != nil && r.session == s {
		r.session, r.transmits = nil, false
	}
	a.later(func() { a.dismiss(out.LocalID, s.datapath) })
}
