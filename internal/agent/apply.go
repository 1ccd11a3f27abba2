package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// patience is how long an apply waits.
type patience struct {
	// fresh is for pseudowires that were not up before: their peer may not know of
	// them yet. old is for those that were, and for all of which that is required.
	fresh, old time.Duration
}

var defaultPatience = patience{fresh: 5 * time.Second, old: 20 * time.Second}

// trial is a topology that is carried out and not final: what was in force before.
type trial struct {
	// confirm is for how long it is to stay without being confirmed, 0 for good.
	confirm    time.Duration
	generation *generation
	local      *topology.Local
	steps      []plan.Step
	// wereUp are the pseudowires that were up, touched those that were changed.
	wereUp, touched map[string]bool
}

// change carries a document out and puts it into force, on trial: commit or
// takeBack is to follow. On an error everything is as it was before, unless that
// says otherwise; it is an *api.Error or errStopping.
func (a *Agent) change(d *document) (*trial, error) {
	t := &trial{
		generation: a.generation, local: a.local, steps: a.difference(d.local),
		wereUp: make(map[string]bool), touched: make(map[string]bool),
	}
	for name, w := range a.wires {
		t.wereUp[name] = w.ready
	}
	for _, s := range t.steps {
		if s.Kind == plan.Pseudowire {
			t.touched[s.Name] = true
		}
	}
	err := a.setOut(t.steps)
	if err == nil {
		err = a.execute(t.steps)
	}
	if err != nil {
		if !errors.Is(err, errStopping) {
			a.arrive()
		}
		return nil, applyError("the topology could not be applied", err)
	}
	for _, w := range d.warnings {
		a.log.Warn("topology", "diagnostic", strings.TrimSpace(w.String()))
	}
	a.local, a.generation, a.trial = d.local, a.newGeneration(d), t
	for i := range a.local.Pseudowires {
		// Those that did not change are the same, and the ones before need not be kept.
		if p := &a.local.Pseudowires[i]; a.wires[p.Name] != nil {
			a.wires[p.Name].Pseudowire = p
		}
	}
	a.setListeners()
	return t, nil
}

// applyError tells of a failed apply whether it was taken back.
func applyError(title string, err error) error {
	if errors.Is(err, errStopping) {
		return err
	}
	if errors.As(err, new(*RollbackError)) {
		return &api.Error{Code: api.CodeRollbackFailed, Title: title + ", nor taken back", Detail: err.Error()}
	}
	return &api.Error{Code: api.CodeApplyFailed, Title: title + ", everything is as it was", Detail: err.Error()}
}

// commit makes the topology on trial final.
func (a *Agent) commit() error {
	t := a.trial
	if t.confirm > 0 {
		by := time.Now().Add(t.confirm)
		a.generation.Confirm, a.generation.Before = &by, t.generation.Number
	}
	if err := a.keep(t); err != nil {
		refused := a.generation
		err = a.takeBack(err)
		a.misfiled = refused
		a.refile()
		return err
	}
	a.misfiled = nil
	a.arrive()
	a.endTrial()
	a.event("info", "topology "+a.local.Topology, fmt.Sprintf("generation %d applied", a.generation.Number), describeSteps(t.steps)+a.toConfirm())
	return nil
}

// refile has the generation's file say what is in force, where one that was taken back may
// be in it: a disk can fail after it has done what it was to do.
func (a *Agent) refile() {
	if a.misfiled == nil {
		return
	}
	g, err := a.store.generation()
	if err == nil && g != nil && g.Number == a.misfiled.Number && a.generation != a.misfiled {
		if a.generation == nil {
			err = a.store.remove("generation.json")
		} else {
			err = a.store.setGeneration(a.generation)
		}
	}
	if err == nil {
		a.misfiled = nil
	}
	a.faults.set("the applied topology's file", err)
}

// takeBack returns to what was in force before the trial. It returns why, or
// what failed.
func (a *Agent) takeBack(cause error) error {
	t := a.trial
	failed := a.local
	a.endTrial()
	// From here on the topology before is the one to be set, whatever fails.
	a.local, a.generation = t.local, t.generation
	err := a.restoreLocal(plan.Between(failed, t.local))
	a.setListeners()
	a.arrive()
	a.event("error", "topology", "taken back", cause.Error())
	if err != nil {
		a.unclean = true
		cause = &RollbackError{cause, err}
	}
	return applyError("the topology failed its verification", cause)
}

// endTrial lets in who waited for its end.
func (a *Agent) endTrial() {
	a.trial = nil
	a.readLater()
}

// restoreLocal carries out steps that lead to what is in force, and then sets all
// of that.
func (a *Agent) restoreLocal(steps []plan.Step) error {
	a.perform(inOrder(steps), func(_ int, s plan.Step, err error) bool {
		if err != nil {
			a.log.Warn("cannot take back", "kind", s.Kind, "name", s.Name, "err", err)
			a.unclean = true
		}
		return true
	})
	return a.reconcile()
}

func describeSteps(steps []plan.Step) string {
	var n [3]int
	for _, s := range steps {
		n[slices.Index([]plan.Action{plan.Add, plan.Change, plan.Remove}, s.Action)]++
	}
	return fmt.Sprintf("%d added, %d changed, %d removed", n[0], n[1], n[2])
}

// Apply carries a topology out and verifies it. One apply waits for the other.
// It implements api.Backend.
func (a *Agent) Apply(ctx context.Context, r api.ApplyRequest) (*api.ApplyResult, error) {
	begin := time.Now()
	if r.Directory != "" && !filepath.IsAbs(r.Directory) {
		return nil, &api.Error{Code: api.CodeBadRequest, Title: "bad request", Detail: "directory has to be an absolute path"}
	}
	if r.ConfirmSeconds < 0 || r.ConfirmSeconds > longestProbation.Seconds() {
		return nil, &api.Error{Code: api.CodeBadRequest, Title: "bad request", Detail: fmt.Sprintf("the time to confirm in is from 0 to %v", longestProbation)}
	}
	d, err := parse(r.Name, r.Directory, r.Document, a.opt.Site)
	if err == nil && !r.Untrusted {
		err = d.readSecrets()
	}
	if invalid, ok := errors.AsType[*topology.InvalidError](err); ok {
		return nil, &api.Error{Code: api.CodeInvalidTopology, Title: "the topology is invalid, nothing was changed",
			Diagnostics: api.DiagnosticsOf(invalid.Diagnostics)}
	}
	if r.DryRun {
		return view(ctx, a, func() *api.ApplyResult {
			if r.Untrusted {
				keepSecrets(d.local, a.local)
			}
			steps := a.difference(d.local)
			var untouched []api.Object
			for _, s := range plan.Untouched(d.local, steps) {
				untouched = append(untouched, api.Object{Kind: string(s.Kind), Name: s.Name})
			}
			return &api.ApplyResult{Generation: a.number(), Changes: changes(steps), Untouched: untouched,
				Warnings: api.DiagnosticsOf(d.warnings), Seconds: time.Since(begin).Seconds()}
		})
	}
	if err := a.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-a.applying }()
	result, t, err := a.begin(ctx, d, &r)
	if err != nil {
		return nil, err
	}
	switch {
	case t != nil:
		err = a.finish(ctx, t, &r, result)
	case r.RequirePeers:
		if _, err = a.verify(ctx, new(trial), true); err != nil {
			err = applyError("the topology failed its verification", err)
		}
	}
	if err != nil {
		return nil, err
	}
	result.Seconds = time.Since(begin).Seconds()
	return result, nil
}

// turn waits for the apply under way, if there is one, and takes its place.
func (a *Agent) turn(ctx context.Context) error {
	select {
	case a.applying <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.stopping:
		return errStopping
	}
}

// begin puts the document into force on trial. There is no trial, and no new
// generation, if it is the one in force.
func (a *Agent) begin(ctx context.Context, d *document, r *api.ApplyRequest) (result *api.ApplyResult, t *trial, err error) {
	derr := a.do(ctx, func() {
		steps := a.difference(d.local)
		g := a.generation
		confirm := fromSeconds(r.ConfirmSeconds)
		switch {
		case a.unconfirmed():
			err = unconfirmedError(g)
		case confirm > 0 && g == nil:
			err = &api.Error{Code: api.CodeNothingToDo, Title: "there is nothing to return to", Detail: "this is the first topology: apply it without --confirm"}
		case plan.Disruptive(steps) && !r.Disruptive:
			err = &api.Error{Code: api.CodeNeedsConfirmation, Title: "the change interrupts traffic", Detail: "confirm it, or give -y", Changes: changes(steps)}
		case len(steps) == 0 && g != nil && g.Hash == hashOf([]byte(d.text)) && g.Dir == d.dir:
		default:
			if t, err = a.change(d); err == nil {
				t.confirm = confirm
				a.generation.By, a.generation.Cause = r.By, "applied"
			}
		}
		result = &api.ApplyResult{Generation: a.number(), Changes: changes(steps), Warnings: api.DiagnosticsOf(d.warnings)}
	})
	return result, t, errors.Join(derr, err)
}

// finish verifies the trial, and makes it final or takes it back. What was begun
// is ended even if the caller has gone.
func (a *Agent) finish(ctx context.Context, t *trial, r *api.ApplyRequest, result *api.ApplyResult) error {
	waiting, failed := a.verify(ctx, t, r.RequirePeers)
	result.Waiting = waiting
	var err error
	if derr := a.do(context.WithoutCancel(ctx), func() {
		if failed != nil {
			err = a.takeBack(failed)
		} else {
			err = a.commit()
			result.ConfirmBy = a.generation.confirmBy()
		}
	}); derr != nil {
		return &api.Error{Code: api.CodeApplyFailed, Title: "the daemon stopped before the topology was verified",
			Detail: "the one before is in force again when it runs again"}
	}
	return err
}

// number is that of the generation in force, 0 if there is none.
func (a *Agent) number() int {
	if a.generation == nil {
		return 0
	}
	return a.generation.Number
}

// verify waits until what was up before is up again and, for a while, until
// what was changed is up too. It returns what is still awaited, as "NAME: REASON".
func (a *Agent) verify(ctx context.Context, t *trial, requireAll bool) ([]string, error) {
	fresh := time.NewTimer(a.patience.fresh)
	defer fresh.Stop()
	old := time.NewTimer(a.patience.old)
	defer old.Stop()
	impatient, overdue := false, false
	for {
		changed := a.changed.wait()
		var waiting, broken []string
		var done, hopeless bool
		if err := a.do(ctx, func() {
			// Of many each change comes here: words only for the last look.
			late, ill, hope := a.awaited(t, requireAll)
			done, hopeless = len(ill) == 0 && (len(late) == 0 || impatient), !hope
			if done || hopeless || overdue {
				waiting, broken = a.whyEach(late), a.whyEach(ill)
			}
		}); err != nil {
			return nil, err
		}
		switch {
		case hopeless:
			return nil, &VerifyError{Down: broken}
		case done:
			return waiting, nil
		case overdue:
			return nil, &VerifyError{After: a.patience.old, Down: broken}
		}
		select {
		case <-changed:
		case <-fresh.C:
			impatient = true
		case <-old.C:
			overdue = true
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.stopping:
			return nil, errStopping
		}
	}
}

// whyEach says what each pseudowire waits for.
func (a *Agent) whyEach(wires []*wire) (words []string) {
	for _, w := range wires {
		words = append(words, w.Name+": "+a.why(w))
	}
	return words
}

// disagrees says whether one end has refused what the other has been told to be.
func (w *wire) disagrees() bool {
	switch w.current().cause.Kind {
	case control.CauseMismatch, control.CauseType:
		return true
	}
	return false
}

// VerifyError says which pseudowires were not up in time after an apply, or cannot
// be: then After is 0.
type VerifyError struct {
	After time.Duration
	// Down has each as "NAME: REASON".
	Down []string
}

func (e *VerifyError) Error() string {
	if e.After == 0 {
		return fmt.Sprintf("cannot come up: %v", e.Down)
	}
	return fmt.Sprintf("not up after %v: %v", e.After, e.Down)
}

// awaited lists the pseudowires that the trial waits for, and those that have to
// be up for it to be good: that were up before, or all. Not among these is one that
// was changed so that the peer has to be changed, too: one of two sites is the first.
// There is no hope if there is one that the datapath cannot carry.
func (a *Agent) awaited(t *trial, all bool) (waiting, broken []*wire, hope bool) {
	hope = true
	for i := range a.local.Pseudowires {
		name := a.local.Pseudowires[i].Name
		w := a.wires[name]
		if w == nil || w.ready || w.withheld != nil {
			continue
		}
		switch {
		case all, t.wereUp[name] && !(t.touched[name] && w.disagrees()), t.touched[name] && w.fault != nil:
			broken, hope = append(broken, w), hope && !w.unable()
		case t.touched[name]:
			waiting = append(waiting, w)
		}
	}
	return waiting, broken, hope
}
