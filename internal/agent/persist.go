package agent

import (
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// save writes the tunnels that changed since they were last written.
func (a *Agent) save() {
	for _, name := range a.control.TakeDirty() {
		a.unsaved[name] = true
	}
	if a.staticsDue {
		err := a.saveStatics()
		a.faults.set("the sockets of static tunnels", err)
		a.staticsDue = err != nil
	}
	if len(a.unsaved) == 0 {
		return
	}
	for name := range a.unsaved {
		err := a.saveTunnel(name)
		a.faults.set("the state of tunnel "+name, err)
		if err == nil {
			delete(a.unsaved, name)
		}
	}
}

// saveTunnel writes one tunnel's state, or what changed of it.
func (a *Agent) saveTunnel(name string) error {
	if a.store.appendable(name) {
		change, ok := a.control.SaveChange(name)
		if !ok {
			return a.store.removeTunnel(name)
		}
		err := a.store.changeTunnel(name, &tunnelChange{Control: change, Sockets: a.socketsOf(&change.TunnelState), PathMTU: a.pathCap(name)})
		if err == nil {
			return nil
		}
		a.log.Warn("a change cannot be appended to the state of a tunnel, all of it is written", "tunnel", name, "err", err)
	}
	return a.saveWhole(name)
}

// socketsOf are the sockets of a tunnel's connections.
func (a *Agent) socketsOf(s *control.TunnelState) (all []transport.ConnectionState) {
	for _, c := range s.Connections {
		if s, ok := a.transport.SaveConnection(c.LocalID); ok {
			all = append(all, s)
		}
	}
	return all
}

// saveWhole writes all of one tunnel's state. State that is older than what the
// peer knows is worse than none: what cannot be replaced is removed.
func (a *Agent) saveWhole(name string) error {
	state, ok := a.control.SaveTunnel(name)
	if !ok {
		return a.store.removeTunnel(name)
	}
	err := a.store.setTunnel(name, &tunnelRecord{Boot: a.boot, Control: state, Sockets: a.socketsOf(&state), PathMTU: a.pathCap(name)})
	if err == nil {
		return nil
	}
	if removed := a.store.removeTunnel(name); removed != nil {
		return fmt.Errorf("%w; and the old state cannot be removed: %w", err, removed)
	}
	return fmt.Errorf("%w (a restart of the daemon will set the tunnel up anew)", err)
}
