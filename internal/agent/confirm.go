package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
)

// A topology may be applied on probation: unless it is confirmed in time, the one
// before is put back into force. The deadline is kept: it holds
// across a restart of the daemon, and one that passes while the daemon is away is
// kept at its start. Nobody moves it by setting the clock (probation.go).

// longestProbation is the longest time to confirm in.
const longestProbation = 7 * 24 * time.Hour

// unconfirmed says that the generation in force is on probation.
func (a *Agent) unconfirmed() bool { return a.generation != nil && a.generation.Confirm != nil }

func unconfirmedError(g *generation) error {
	return &api.Error{Code: api.CodeUnconfirmed, Title: fmt.Sprintf("generation %d awaits confirmation", g.Number),
		Detail: "run pwctl confirm, or pwctl rollback, before the next apply"}
}

// fromSeconds is a number of seconds, as a request has it.
func fromSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// toConfirm is what events add about the probation.
func (a *Agent) toConfirm() string {
	if !a.unconfirmed() {
		return ""
	}
	return fmt.Sprintf("; generation %d returns at %s unless it is confirmed", a.generation.Before, a.generation.confirmBy().Format(time.TimeOnly))
}

// deadline is when advance and expire have to run.
func (a *Agent) deadline() (time.Time, bool) {
	d, ok := a.control.Deadline()
	if end := a.nextDrainEnd(); !end.IsZero() && (!ok || end.Before(d)) {
		d, ok = end, true
	}
	if !a.limitAt.IsZero() && (!ok || a.limitAt.Before(d)) {
		d, ok = a.limitAt, true
	}
	if next := a.loops.next; !next.IsZero() && (!ok || next.Before(d)) {
		d, ok = next, true
	}
	if !a.watchAt.IsZero() && (!ok || a.watchAt.Before(d)) {
		d, ok = a.watchAt, true
	}
	if next, any := a.nextProbe(); any && (!ok || next.Before(d)) {
		d, ok = next, true
	}
	if a.unconfirmed() && a.trial == nil && (!ok || a.generation.Confirm.Before(d)) {
		return *a.generation.Confirm, true
	}
	return d, ok
}

// expire ends a probation whose time has passed. What cannot be put back is tried
// again as other things are.
func (a *Agent) expire(now time.Time) {
	a.endDrains(now)
	if !a.unconfirmed() || a.trial != nil || now.Before(*a.generation.Confirm) {
		return
	}
	g := a.generation
	steps, err := a.returnTo(g.Before, "", fmt.Sprintf("generation %d was not confirmed", g.Number))
	a.faults.set("the return to the topology before", err)
	if err != nil {
		again := now.Add(recheck)
		g.Confirm = &again
		a.event("error", "topology", fmt.Sprintf("generation %d was not confirmed, and generation %d cannot be put back", g.Number, g.Before), err.Error())
		return
	}
	a.event("warning", "topology", fmt.Sprintf("generation %d was not confirmed, generation %d is in force again", g.Number, g.Before), describeSteps(steps))
}

// returnTo puts the topology of an earlier generation into force, as a new generation.
func (a *Agent) returnTo(number int, by, cause string) ([]plan.Step, error) {
	g, err := a.store.kept(number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: fmt.Sprintf("generation %d is not kept: see pwctl history", number)}
	}
	if err != nil {
		return nil, err
	}
	d, err := parse(g.Name, g.Dir, g.Document, a.opt.Site)
	if err == nil {
		err = d.readSecrets()
	}
	if err != nil {
		return nil, fmt.Errorf("generation %d cannot be read: %w", number, err)
	}
	leaving, file := a.generation, a.hashFile()
	t, err := a.change(d)
	if err != nil {
		return nil, err
	}
	a.generation.By, a.generation.Cause = by, cause
	if leaving.Hash == file {
		// The file has what was just left: it counts as read, so that a restart does
		// not bring that back.
		a.generation.FileHash = file
	}
	if err := a.commit(); err != nil {
		return nil, err
	}
	a.file.hash = a.generation.FileHash
	a.readLater()
	return t.steps, nil
}

// readLater reads the file if that had to wait for the end of a probation.
func (a *Agent) readLater() {
	if a.fileDue && a.trial == nil && !a.unconfirmed() {
		a.fileDue = false
		a.Reload()
	}
}

// keep writes the generation in force, and the one before into the history.
func (a *Agent) keep(t *trial) error {
	var missed error
	if t.generation != nil {
		missed = a.store.keepGeneration(t.generation)
	}
	if missed != nil && a.unconfirmed() {
		return missed
	}
	if err := a.keepProbation(t.confirm); err != nil {
		return err
	}
	if err := a.store.setGeneration(a.generation); err != nil {
		return err
	}
	if !a.unconfirmed() {
		a.forgetProbation()
	}
	if t.generation != nil {
		a.remembered(t.generation, missed)
	}
	return nil
}

// remember writes an earlier generation into the history.
func (a *Agent) remember(g *generation) { a.remembered(g, a.store.keepGeneration(g)) }

// remembered notes whether that worked: what did not is tried again.
func (a *Agent) remembered(g *generation, err error) {
	if a.unkept = nil; err != nil {
		a.unkept = g
	}
	a.faults.set("the history of topologies", err)
}

// generationView is a generation as the API has it.
func generationView(g *generation, inForce bool) api.Generation {
	return api.Generation{Number: g.Number, InForce: inForce, Applied: g.Applied, File: g.Name, Hash: g.Hash,
		By: g.By, Cause: g.Cause, ConfirmBy: g.confirmBy(), Before: g.Before}
}

// History implements api.Backend.
func (a *Agent) History(ctx context.Context) ([]api.Generation, error) {
	var all []api.Generation
	var err error
	derr := a.do(ctx, func() {
		if a.generation == nil {
			return
		}
		all = append(all, generationView(a.generation, true))
		var kept []*generation
		kept, err = a.store.history()
		for _, g := range kept {
			if g.Number < a.generation.Number {
				g.Confirm, g.Before = nil, 0
				all = append(all, generationView(g, false))
			}
		}
	})
	return all, errors.Join(derr, err)
}

// Confirm implements api.Backend.
func (a *Agent) Confirm(ctx context.Context, by string) (*api.Generation, error) {
	var out api.Generation
	var err error
	derr := a.do(ctx, func() {
		if !a.unconfirmed() {
			err = &api.Error{Code: api.CodeNothingToDo, Title: "there is nothing to confirm",
				Detail: "what is in force stays; see pwctl history for what became of an apply that was to be confirmed"}
			return
		}
		confirmed := *a.generation
		confirmed.Confirm, confirmed.Before = nil, 0
		if err = a.store.setGeneration(&confirmed); err != nil {
			return
		}
		a.generation = &confirmed
		a.forgetProbation()
		a.faults.set("the return to the topology before", nil)
		a.event("info", "topology", fmt.Sprintf("generation %d confirmed", confirmed.Number), by)
		out = generationView(a.generation, true)
		a.readLater()
	})
	if err = errors.Join(derr, err); err != nil {
		return nil, err
	}
	return &out, nil
}

// Rollback implements api.Backend. What it returns to was in force before: that some of
// it does not come up is told, and keeps nobody from returning.
func (a *Agent) Rollback(ctx context.Context, r api.RollbackRequest) (*api.ApplyResult, error) {
	begin := time.Now()
	if err := a.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-a.applying }()
	result := new(api.ApplyResult)
	t := new(trial)
	var err error
	derr := a.do(ctx, func() {
		number := r.Generation
		if number == 0 {
			number, err = a.before()
		}
		if err != nil {
			return
		}
		t.wereUp, t.touched = make(map[string]bool), make(map[string]bool)
		var steps []plan.Step
		if steps, err = a.returnTo(number, r.By, fmt.Sprintf("rolled back to %d", number)); err != nil {
			return
		}
		for _, s := range steps {
			t.touched[s.Name] = t.touched[s.Name] || s.Kind == plan.Pseudowire
		}
		a.event("warning", "topology", fmt.Sprintf("generation %d is in force again", number), r.By)
		result.Generation, result.Changes = a.number(), changes(steps)
	})
	if err = errors.Join(derr, err); err != nil {
		return nil, err
	}
	waiting, err := a.verify(ctx, t, false)
	if failed, ok := errors.AsType[*VerifyError](err); ok {
		waiting = failed.Down
	} else if err != nil {
		return nil, err
	}
	result.Waiting, result.Seconds = waiting, time.Since(begin).Seconds()
	return result, nil
}

// before is the generation that a rollback without a number returns to: the newest
// that says something else than the one in force.
func (a *Agent) before() (int, error) {
	if a.unconfirmed() {
		return a.generation.Before, nil
	}
	kept, err := a.store.history()
	if err != nil {
		return 0, err
	}
	for _, g := range kept {
		if a.generation != nil && g.Number < a.generation.Number && g.Hash != a.generation.Hash {
			return g.Number, nil
		}
	}
	return 0, &api.Error{Code: api.CodeNothingToDo, Title: "there is no topology before this one", Detail: "see pwctl history"}
}
