package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// StepError says which step of a plan failed. Everything is as it was before.
type StepError struct {
	Step plan.Step
	Err  error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("%s %s %s: %v", e.Step.Action, e.Step.Kind, e.Step.Name, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// RollbackError says that a topology could not be carried out, nor what was in
// force before be set again. That is tried on, after kernel events.
type RollbackError struct {
	// Cause is why the topology failed, Err why the one before cannot be set.
	Cause, Err error
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("%v; and going back failed, trying again: %v", e.Cause, e.Err)
}

func (e *RollbackError) Unwrap() []error { return []error{e.Cause, e.Err} }

// difference lists the steps from the topology in force to another, which is not in
// force yet.
func (a *Agent) difference(to *topology.Local) []plan.Step {
	a.fit(to)
	steps := plan.Between(a.local, to)
	for i := range steps {
		a.priceDevice(&steps[i])
	}
	return steps
}

// priceDevice adds to a step what it costs on the datapath of this host: where a pseudowire of several
// sessions has a device of its own, one that gets to have several, or only one, loses the frames meanwhile.
func (a *Agent) priceDevice(s *plan.Step) {
	was, _ := s.Before.(*topology.Pseudowire)
	is, _ := s.After.(*topology.Pseudowire)
	if s.Action != plan.Change || was == nil || is == nil || (len(was.Standby) > 0) == (len(is.Standby) > 0) {
		return
	}
	if dp := a.datapaths[a.kindOf(is.Datapath)]; dp != nil && dp.Abilities().SeveralAnew {
		s.Impact = plan.Recreates
		s.Detail += ", its device is made anew"
	}
}

// phases is the order of steps: pseudowires that go make room, bridges and
// tunnels are there before pseudowires need them, and tunnels go when nothing uses
// them any more. A bridge that goes frees its ports before they are wanted elsewhere.
var phases = []struct {
	action plan.Action
	kind   plan.Kind
}{
	{plan.Remove, plan.Pseudowire},
	{plan.Remove, plan.Bridge}, {plan.Change, plan.Bridge}, {plan.Add, plan.Bridge},
	{plan.Change, plan.Tunnel}, {plan.Add, plan.Tunnel},
	{plan.Change, plan.Pseudowire}, {plan.Add, plan.Pseudowire},
	{plan.Remove, plan.Tunnel},
}

func inOrder(steps []plan.Step) []plan.Step {
	phase := func(s plan.Step) int {
		for i, p := range phases {
			if p.action == s.Action && p.kind == s.Kind {
				return i
			}
		}
		return len(phases)
	}
	return slices.SortedStableFunc(slices.Values(steps), func(x, y plan.Step) int { return phase(x) - phase(y) })
}

// execute carries steps out. When one fails everything is put back: the error is
// a *StepError, or a *RollbackError if that failed too. It is errStopping if the
// daemon is to end; then nothing is put back, the next start will.
func (a *Agent) execute(steps []plan.Step) error {
	if a.quitting() {
		return errStopping
	}
	steps = inOrder(steps)
	a.endContests()
	var failed error
	a.perform(steps, func(begun int, s plan.Step, err error) bool {
		switch {
		case err != nil:
			failed = a.undo(steps[:begun], &StepError{s, err})
		case a.quitting():
			failed = errStopping
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err := a.shape(); err != nil {
		return a.undo(steps, err)
	}
	if err := a.signal(); err != nil {
		return a.undo(steps, fmt.Errorf("signal sessions: %w", err))
	}
	a.drain(time.Now())
	return nil
}

// perform carries steps out, one after the other, and tells done of each, with how many have begun,
// until that says that it is enough. Pseudowires that go one after the other go at once, as one
// step; if that fails, and done goes on nevertheless, they are tried one by one.
func (a *Agent) perform(steps []plan.Step, done func(begun int, s plan.Step, err error) (goOn bool)) {
	for i := 0; i < len(steps); {
		names := removed(steps[i:])
		if len(names) > 1 {
			err := a.removePseudowires(names...)
			if !done(i+len(names), together(names), err) {
				return
			}
			if err == nil {
				i += len(names)
				continue
			}
		}
		for range max(1, len(names)) {
			s := steps[i]
			i++
			if !done(i, s, a.step(s)) {
				return
			}
		}
	}
}

// together is the step that removes several pseudowires, named for people.
func together(names []string) plan.Step {
	const most = 3
	name := strings.Join(names[:min(most, len(names))], ", ")
	if more := len(names) - most; more > 0 {
		name += fmt.Sprintf(" and %d more", more)
	}
	return plan.Step{Action: plan.Remove, Kind: plan.Pseudowire, Name: name}
}

// removed are the pseudowires that steps remove before they do anything else.
func removed(steps []plan.Step) (names []string) {
	for _, s := range steps {
		if s.Action != plan.Remove || s.Kind != plan.Pseudowire {
			break
		}
		names = append(names, s.Name)
	}
	return names
}

// undo takes steps back, last first, the failed one included, and then sets all
// that is in force: a step can have touched more than its own object.
func (a *Agent) undo(steps []plan.Step, cause error) error {
	var back []plan.Step
	for _, s := range slices.Backward(steps) {
		back = append(back, s.Undo())
	}
	a.perform(back, func(_ int, s plan.Step, err error) bool {
		if err != nil {
			a.log.Warn("step cannot be undone by itself", "kind", s.Kind, "name", s.Name, "err", err)
			a.unclean = true
		}
		return true
	})
	if err := a.reconcile(); err != nil {
		a.unclean = true
		return &RollbackError{cause, err}
	}
	return cause
}

func (a *Agent) step(s plan.Step) error {
	switch s.Kind {
	case plan.Bridge:
		if s.Action == plan.Remove {
			return a.removeBridge(s.Name)
		}
		return a.setBridge(s.After.(*topology.Bridge))
	case plan.Tunnel:
		if s.Action == plan.Remove {
			return a.removeTunnel(s.Name)
		}
		return a.setTunnel(s.After.(*topology.Tunnel))
	case plan.Pseudowire:
		if s.Action == plan.Remove {
			return a.removePseudowires(s.Name)
		}
		if s.Action == plan.Change && s.Impact == plan.Recreates {
			if err := a.removePseudowires(s.Name); err != nil {
				return err
			}
		}
		return a.setPseudowire(s.After.(*topology.Pseudowire))
	}
	return fmt.Errorf("no such kind of object: %s", s.Kind)
}

// reconcile sets all that is in force and removes what else there is. What is
// there already stays untouched. The error joins all failures; after it
// everything that could be set is.
func (a *Agent) reconcile() error {
	local := a.local
	if local == nil {
		local = &topology.Local{}
	}
	now := time.Now()
	// After a restart the control machine's outputs wait for the pseudowires: none
	// may be carried out before they are all set.
	a.removeUnwantedSessions(now, local)
	var errs []error
	for i := range local.Bridges {
		errs = append(errs, a.setBridge(&local.Bridges[i]))
	}
	for i := range local.Tunnels {
		errs = append(errs, a.setTunnel(&local.Tunnels[i]))
	}
	for i := range local.Pseudowires {
		errs = append(errs, a.setPseudowire(&local.Pseudowires[i]))
	}
	errs = append(errs, a.signal())
	a.drain(now)
	return errors.Join(append(errs, a.removeUnwanted(local), a.shape())...)
}

// removeUnwantedSessions closes sessions that no pseudowire of the topology wants.
func (a *Agent) removeUnwantedSessions(now time.Time, local *topology.Local) {
	wanted := make(map[string]*topology.Pseudowire)
	for i := range local.Pseudowires {
		wanted[local.Pseudowires[i].Name] = &local.Pseudowires[i]
	}
	for _, s := range a.control.Sessions() {
		if p := wanted[s.Session.Name]; p == nil || !p.On(s.Session.Tunnel) {
			a.control.RemoveSession(now, s.Session.Tunnel, s.Session.Name, administrative)
		}
	}
}

// removeUnwanted removes pseudowires, tunnels and bridges that are not in the topology.
func (a *Agent) removeUnwanted(local *topology.Local) error {
	wanted := make(map[string]bool)
	for _, p := range local.Pseudowires {
		wanted[p.Name] = true
	}
	var steps []plan.Step
	for name := range a.wires {
		if !wanted[name] {
			steps = append(steps, plan.Step{Action: plan.Remove, Kind: plan.Pseudowire, Name: name})
		}
	}
	var errs []error
	a.perform(steps, func(_ int, _ plan.Step, err error) bool {
		errs = append(errs, err)
		return true
	})
	clear(wanted)
	for _, t := range local.Tunnels {
		wanted[t.Key] = true
	}
	there := make(map[string]bool)
	for _, c := range a.control.Connections() {
		there[c.Tunnel.Name] = true
	}
	for name := range a.tunnels { // of which a datapath would not let go
		there[name] = true
	}
	for name := range there {
		if !wanted[name] {
			errs = append(errs, a.removeTunnel(name))
		}
	}
	clear(wanted)
	for _, b := range local.Bridges {
		wanted[b.Name] = true
	}
	for name := range a.made {
		if !wanted[name] {
			errs = append(errs, a.removeBridge(name))
		}
	}
	return errors.Join(errs...)
}

// setBridge makes a bridge. Ports that are not there (yet) are no failure: they are shown.
func (a *Agent) setBridge(b *topology.Bridge) error {
	a.made[b.Name] = true
	missing, err := absent(a.bridges.SetBridge(bridge.Bridge{
		Name: b.Name, External: b.External, Ports: b.Ports, VLANAware: vlanAware(b.VLANAware), LinkLocal: b.LinkLocal,
	}))
	a.bridgeFault(b.Name, missing, err)
	return err
}

func (a *Agent) removeBridge(name string) error {
	if err := a.bridges.RemoveBridge(name); err != nil {
		return err
	}
	delete(a.made, name)
	a.faults.forget("bridge " + name)
	return nil
}

// bridgeFault notes which interfaces a bridge misses, and what else is wrong with it.
func (a *Agent) bridgeFault(name string, missing []*bridge.NotPresentError, rest error) {
	var errs []error
	for _, m := range missing {
		errs = append(errs, m)
	}
	a.faults.set("bridge "+name, errors.Join(append(errs, rest)...))
}

func vlanAware(v topology.VLANAware) bridge.VLANAware {
	switch v {
	case topology.VLANOn:
		return bridge.On
	case topology.VLANOff:
		return bridge.Off
	default:
		return bridge.Auto
	}
}
