package agent

import (
	"errors"
	"io/fs"

	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// Sockets of static tunnels are made of what the topology says, and saved only where
// something keeps them for the next daemon: with the kernel's tunnel that hangs on them.

const staticsFile = "statics.json"

type staticsRecord struct {
	Version int                         `json:"version"`
	Boot    string                      `json:"boot"`
	Sockets []transport.ConnectionState `json:"sockets"`
}

// saveStatics writes which sockets of static tunnels are kept.
func (a *Agent) saveStatics() error {
	r := &staticsRecord{Version: stateVersion, Boot: a.boot}
	for _, t := range a.tunnels {
		if c, ok := a.transport.SaveConnection(t.socket.Connection); ok && t.Static != nil && c.Kept != 0 {
			r.Sockets = append(r.Sockets, c)
		}
	}
	if len(r.Sockets) == 0 {
		return a.store.remove(staticsFile)
	}
	return a.store.write(staticsFile, r)
}

// restoreStatics takes up the sockets of static tunnels that were kept. Without them the
// topology is all that is needed, so that nothing that is wrong here is in the way.
func (a *Agent) restoreStatics() {
	var r staticsRecord
	err := a.store.read(staticsFile, &r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the sockets of static tunnels are opened anew", "err", err)
	}
	if err != nil || r.Boot != a.boot {
		return
	}
	a.statics = make(map[uint32]transport.ConnectionState)
	for _, c := range r.Sockets {
		if a.transport.Inherits(c) && a.transport.Restore(transport.State{Connections: []transport.ConnectionState{c}}) == nil {
			a.statics[c.Connection] = c
		}
	}
}

// leftStatic reports whether a static tunnel's socket is there from an earlier daemon.
func (a *Agent) leftStatic(want transport.ConnectionState) bool {
	have, ok := a.statics[want.Connection]
	delete(a.statics, want.Connection)
	have.Kept = 0
	return ok && have == want
}

// dropStatics closes the sockets that no static tunnel has asked for.
func (a *Agent) dropStatics() {
	for id := range a.statics {
		a.transport.Release(id)
		a.staticsDue = true
	}
	a.statics = nil
}
