package agent

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// resume takes up what an earlier daemon left: its topology, connections and
// sessions. Nothing is sent; what the control machine has to say waits for Run.
func (a *Agent) resume() error {
	a.fit(a.local)
	if err := a.clearDatapaths(); err != nil {
		return err
	}
	now := time.Now()
	if err := a.restore(now); err != nil {
		return err
	}
	a.noteFormer()
	a.setListeners()
	if err := a.clearPlaces(); err != nil {
		return fmt.Errorf("clear the places of an apply that was not finished: %w", err)
	}
	if err := a.reconcile(); err != nil {
		a.log.Error("not everything of the applied topology can be set, trying again", "err", err)
	}
	a.former = nil
	a.dropStatics()
	a.adopt()
	if err := a.prune(); err != nil {
		a.unclean = true
		a.log.Error("not everything that was left over can be removed, trying again", "err", err)
	}
	a.releasePorts()
	a.resumed = true
	return nil
}

// prune removes what is in the kernel and was not named.
func (a *Agent) prune() error {
	var errs []error
	for kind, dp := range a.datapaths {
		if err := dp.Prune(); err != nil {
			errs = append(errs, &DatapathError{kind, err})
		}
	}
	// It ends with a look at what is to be there: what is not there yet is told with what wants it.
	_, err := absent(a.bridges.Prune())
	return errors.Join(append(errs, err)...)
}

// restore gives the control machine and the transport back what they knew when
// it was last saved. What makes no sense is void: its peers will be asked anew.
func (a *Agent) restore(now time.Time) error {
	records, err := a.saved()
	if err != nil {
		return err
	}
	a.inherit(records)
	state := control.State{Version: control.StateVersion}
	var sockets transport.State
	for name, r := range records {
		state.Tunnels = append(state.Tunnels, r.Control)
		a.pathCaps[name] = r.PathMTU
		for _, c := range r.Sockets {
			sockets.Connections = append(sockets.Connections, c)
			if c.Initiator {
				a.dials[c.Connection] = name
			}
		}
	}
	err = a.control.Restore(now, state)
	if errors.Is(err, control.ErrStateVersion) {
		return fmt.Errorf("%w: run the version that wrote it, or remove everything with --cleanup", err)
	}
	if err != nil {
		a.log.Error("the saved connections make no sense and are set up anew", "err", err)
		a.control = a.newControl()
		clear(a.dials)
		for name := range records {
			a.unsaved[name] = true
		}
		a.disown()
		return nil
	}
	if err := a.transport.Restore(sockets); err != nil {
		a.log.Warn("cannot open every saved socket again, trying again", "err", err)
	}
	a.restoreStatics()
	a.disown()
	a.transport.KeepAgain() // one place may have what another has not
	return nil
}

// saved reads the tunnels' state, and forgets that of another boot.
func (a *Agent) saved() (map[string]*tunnelRecord, error) {
	records, damaged, err := a.store.tunnels()
	if err != nil {
		return nil, err
	}
	for _, d := range damaged {
		a.log.Warn("the state of a tunnel is damaged, it is set up anew", "err", d)
		if err := os.Remove(d.File); err != nil {
			return nil, fmt.Errorf("remove damaged state: %w", err)
		}
	}
	for name, r := range records {
		if r.Boot == a.boot {
			continue
		}
		delete(records, name)
		if err := a.store.removeTunnel(name); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// adopt takes over how tunnels and sessions are: they have not changed, so
// nothing tells of them.
func (a *Agent) adopt() {
	for _, c := range a.control.Connections() {
		if t := a.tunnels[c.Tunnel.Name]; t != nil {
			t.state, t.reason, t.cause, t.dial = c.State, c.Reason, c.Cause, c.LocalID
			if c.State == control.ConnectionWaitReply && c.Cause.Kind != control.CauseSecret {
				t.silent = c.Since
			}
		}
	}
	for _, s := range a.control.Sessions() {
		w := a.wires[s.Session.Name]
		if w == nil || w.on(s.Session.Tunnel) == nil {
			continue
		}
		r := w.on(s.Session.Tunnel)
		r.state, r.remote, r.reason, r.cause = s.State, s.Remote, s.Reason, s.Cause
		a.judge(w)
		w.since = s.Since
	}
}

// setListeners listens where the tunnels of the topology in force end. An address
// that is not there (yet) is tried again.
func (a *Agent) setListeners() {
	var endpoints []transport.Endpoint
	if a.local != nil {
		for _, t := range a.local.Tunnels {
			if !t.Local.IsValid() || t.Static != nil {
				continue // the site calls, and is not called; or nobody is
			}
			endpoints = append(endpoints, transport.Endpoint{Addr: t.Local, Encapsulation: t.Encapsulation})
		}
	}
	a.faults.set("sockets", a.transport.SetEndpoints(endpoints))
}
