package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// DatapathError says that a datapath cannot be had on this host.
type DatapathError struct {
	Kind pseudowire.Kind
	Err  error
}

func (e *DatapathError) Error() string { return fmt.Sprintf("%s datapath: %v", e.Kind, e.Err) }

func (e *DatapathError) Unwrap() error { return e.Err }

// openStandard opens the datapath of the pseudowires that do not say: the one
// that was asked for, else the first that this host offers.
func (a *Agent) openStandard() error {
	if a.opt.Datapath != "" {
		a.standard = a.opt.Datapath
		_, err := a.datapath(a.standard)
		return err
	}
	var errs []error
	for _, o := range a.opt.Datapaths {
		if _, err := a.datapath(o.Kind); err != nil {
			errs = append(errs, err)
			continue
		}
		a.standard = o.Kind
		for _, err := range errs {
			a.log.Warn("datapath is not available, using another", "datapath", o.Kind, "err", err)
			a.notes = append(a.notes, err.Error()+"; using the "+string(o.Kind)+" datapath")
		}
		return nil
	}
	return fmt.Errorf("no datapath works on this host: %w", errors.Join(errs...))
}

// datapath returns the one of that kind, opening it if need be. Errors are
// *DatapathError.
func (a *Agent) datapath(kind pseudowire.Kind) (pseudowire.Datapath, error) {
	if dp := a.datapaths[kind]; dp != nil {
		return dp, nil
	}
	i := slices.IndexFunc(a.opt.Datapaths, func(o Opener) bool { return o.Kind == kind })
	if i < 0 {
		return nil, &DatapathError{kind, errors.ErrUnsupported}
	}
	dp, err := a.opt.Datapaths[i].Open()
	if err != nil {
		return nil, &DatapathError{kind, err}
	}
	dp.Heed(a.held)
	err = a.store.noteDatapath(kind)
	if err == nil && a.resumed {
		// Nothing of it is wanted yet: what is there is an earlier daemon's.
		err = dp.Prune()
	}
	if err != nil {
		return nil, errors.Join(&DatapathError{kind, err}, dp.Close())
	}
	a.datapaths[kind] = dp
	a.warnOfRestart(kind)
	return dp, nil
}

// kindOf is the datapath that carries a pseudowire which asks for one, or does not.
func (a *Agent) kindOf(asked string) pseudowire.Kind {
	if asked == "" {
		return a.standard
	}
	return pseudowire.Kind(asked)
}

// mendDatapaths makes of a damaged list of datapaths one of all kinds: each may have left something.
func (a *Agent) mendDatapaths() error {
	_, err := a.store.datapaths()
	if !errors.As(err, new(*DamagedError)) {
		return err
	}
	a.log.Warn("the list of datapaths that were used is damaged: what any of them left is looked for", "err", err)
	var all []pseudowire.Kind
	for _, o := range a.opt.Datapaths {
		all = append(all, o.Kind)
	}
	return a.store.setDatapaths(all)
}

// clearDatapaths removes what an earlier daemon left in datapaths that are not
// used any more.
func (a *Agent) clearDatapaths() error {
	kinds, err := a.store.datapaths()
	if err != nil {
		return err
	}
	used := map[pseudowire.Kind]bool{a.standard: true}
	if a.local != nil {
		for _, p := range a.local.Pseudowires {
			used[a.kindOf(p.Datapath)] = true
		}
	}
	for _, kind := range kinds {
		if used[kind] {
			continue
		}
		a.faults.set("the "+string(kind)+" datapath's leftovers", a.cleanDatapath(kind))
	}
	return nil
}

// cleanDatapath removes everything of one kind. A kind that the host does not
// have has left nothing.
func (a *Agent) cleanDatapath(kind pseudowire.Kind) error {
	dp, err := a.datapath(kind)
	if err == nil {
		delete(a.datapaths, kind)
		err = dp.Cleanup()
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return a.store.forgetDatapath(kind)
}

func (a *Agent) newControl() *control.Endpoint {
	return control.New(control.Config{
		Random:         rand.Reader,
		Timers:         a.opt.Timers,
		VendorName:     "pwd " + a.opt.Version,
		SessionIDTaken: a.sessionIDTaken,
		Discarded:      a.discarded,
	})
}

// sessionIDTaken asks the datapaths for session IDs of others: they are unique in
// a network namespace.
func (a *Agent) sessionIDTaken(id uint32) bool {
	for _, w := range a.wires {
		if w.Static != nil && w.Static.LocalID == id {
			return true
		}
	}
	for kind, dp := range a.datapaths {
		t, ok := dp.(interface{ SessionTaken(uint32) (bool, error) })
		if !ok {
			continue
		}
		taken, err := t.SessionTaken(id)
		a.faults.set("the sessions of others in the "+string(kind)+" datapath", err)
		if taken {
			return true
		}
	}
	return false
}
