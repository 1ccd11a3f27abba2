package agent

import (
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// save writes the tunnels that changed since they were last written.
func (a *Agent) save() {
	for _, name := range a.control.TakeDirty() {
		a.unsaved[name] = true
	}
	if len(a.unsaved) == 0 {
		return
	}
	sockets := make(map[uint32]transport.ConnectionState)
	for _, c := range a.transport.Save().Connections {
		sockets[c.Connection] = c
	}
	for name := range a.unsaved {
		err := a.saveTunnel(name, sockets)
		a.faults.set("the state of tunnel "+name, err)
		if err == nil {
			delete(a.unsaved, name)
		}
	}
}

// saveTunnel writes one tunnel's state. State that is older than what the peer
// knows is worse than none: what cannot be replaced is removed.
func (a *Agent) saveTunnel(name string, sockets map[uint32]transport.ConnectionState) error {
	state, ok := a.control.SaveTunnel(name)
	if !ok {
		return a.store.removeTunnel(name)
	}
	r := &tunnelRecord{Boot: a.boot, Control: state}
	for _, c := range state.Connections {
		if s, ok := sockets[c.LocalID]; ok {
			r.Sockets = append(r.Sockets, s)
		}
	}
	err := a.store.setTunnel(name, r)
	if err == nil {
		return nil
	}
	if removed := a.store.removeTunnel(name); removed != nil {
		return fmt.Errorf("%w; and the old state cannot be removed: %w", err, removed)
	}
	return fmt.Errorf("%w (a restart of the daemon will set the tunnel up anew)", err)
}
