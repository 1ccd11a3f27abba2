package agent

import (
	"slices"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Keeper keeps the sockets that the kernel's tunnels hang on while no daemon runs. It is
// called by the agent's goroutine alone.
type Keeper interface {
	transport.Keeper
	// Take gives each all that an earlier process had kept, and the descriptors with it; one
	// name may come more than once, from different places. With wanted something hangs on them, and a place
	// that is slow is waited for.
	Take(wanted bool, each func(name string, fd int))
	// Renewed reports that there is a place that has nothing of what was kept.
	Renewed() bool
	// Places says which there are: one for a restart, and one for a stop and a start.
	Places() (store, holder bool)
	// Fault is what keeps a place that there is from keeping, nil if nothing does, and next
	// what mends it.
	Fault() (next string, err error)
}

// inherit takes what an earlier daemon had kept, for the transport to go on with what is in its records.
func (a *Agent) inherit(records map[string]*tunnelRecord) {
	if a.opt.Keeper == nil {
		return
	}
	wanted := false
	for _, r := range records {
		wanted = wanted || slices.ContainsFunc(r.Sockets, func(c transport.ConnectionState) bool { return c.Kept != 0 })
	}
	a.opt.Keeper.Take(wanted, func(name string, fd int) {
		if err := a.transport.Inherit(name, fd); err != nil {
			a.log.Warn("a socket that was kept is closed", "err", err)
		}
	})
}

// disown closes what no saved connection goes on with.
func (a *Agent) disown() {
	for _, name := range a.transport.Disown() {
		a.log.Warn("a socket that was kept is no saved connection's: it is closed, and the kernel's tunnel on it ends", "name", name)
	}
}

// keepAgain fills a place that has come new.
func (a *Agent) keepAgain() {
	if a.opt.Keeper != nil && a.opt.Keeper.Renewed() {
		a.transport.KeepAgain()
	}
}

// keepProblem is a fault of the keeping, which matters to the kernel's datapath alone.
func (a *Agent) keepProblem() []api.Problem {
	if a.opt.Keeper == nil || a.datapaths[pseudowire.Kernel] == nil {
		return nil
	}
	next, err := a.opt.Keeper.Fault()
	if err == nil {
		return nil
	}
	return []api.Problem{{Object: "restart", What: err.Error(), Fix: next}}
}

// warnOfRestart says what a restart means to a datapath that hangs on the daemon's sockets.
func (a *Agent) warnOfRestart(kind pseudowire.Kind) {
	if kind != pseudowire.Kernel {
		return
	}
	if a.opt.Keeper != nil {
		if store, holder := a.opt.Keeper.Places(); store || holder {
			return
		}
	}
	a.log.Warn("a restart of the daemon interrupts the kernel's datapath: nothing keeps its sockets",
		"next", "run it as the service pwd, or run pwd --hold beside it")
}
