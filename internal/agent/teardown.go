package agent

import (
	"context"
	"errors"
	"time"
)

// teardownLimit is how long a stop waits for peers to acknowledge their StopCCN.
const teardownLimit = 3 * time.Second

// Cleanup closes the connections that a stopped daemon left established, in
// view of their peers, and removes everything that daemons of this site have
// made in this network namespace: devices, programs, pins, bridges and state. It
// goes on where something fails, and returns all failures. A daemon that still
// runs is not disturbed: *BusyError or *NamespaceBusyError. The state of another
// site is left: *SiteError.
func Cleanup(ctx context.Context, opt Options) error {
	a := newAgent(opt)
	if err := a.openForCleanup(); err != nil {
		return errors.Join(err, a.Close())
	}
	if err := a.restore(time.Now()); err != nil {
		a.log.Warn("the saved connections cannot be read, their peers will find out by themselves", "err", err)
		a.control = a.newControl()
	}
	a.giveSecrets()
	for _, o := range opt.Datapaths {
		// Whatever the state says: it may be gone.
		if err := a.store.noteDatapath(o.Kind); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	return errors.Join(a.teardown(ctx), a.Close())
}

// openForCleanup takes no more than is needed to remove everything: state that
// cannot be read is to go as well.
func (a *Agent) openForCleanup() error {
	var err error
	if a.store, err = openStore(a.opt.StateDir); err != nil {
		return err
	}
	if a.namespace, err = lockNamespace(a.log); err != nil {
		return err
	}
	g, err := a.store.generation()
	if err != nil {
		a.log.Warn("the applied topology cannot be read, removing it", "err", err)
	}
	if err := a.mendDatapaths(); err != nil {
		return err
	}
	a.generation = g
	if g != nil && g.Site != a.opt.Site {
		return &SiteError{Dir: a.opt.StateDir, Got: g.Site, Want: a.opt.Site}
	}
	return a.openHost()
}

// teardown closes everything in view of the peers, then removes it, whatever of
// it fails. After a failure the state is kept.
func (a *Agent) teardown(ctx context.Context) error {
	a.closing = true
	now := time.Now()
	for _, t := range a.control.Save().Tunnels {
		a.control.RemoveTunnel(now, t.Config.Name, shuttingDown)
	}
	a.hangUp(ctx, now)
	kinds, err := a.store.datapaths()
	errs := []error{err, a.bridges.Cleanup(), a.shaper.Cleanup()}
	for _, kind := range kinds {
		errs = append(errs, a.cleanDatapath(kind))
	}
	// Those that are kept beyond the process hear of it while there is a Transport.
	for _, t := range a.tunnels {
		if t.Static != nil {
			a.closeStaticTunnel(t)
		}
	}
	a.dropStatics()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return a.store.clear()
}

// hangUp waits, for a while, until the peers have acknowledged what closes
// their connections.
func (a *Agent) hangUp(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, teardownLimit)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for a.settle(now); a.unacknowledged(); a.settle(now) {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-a.transport.Ready():
			if !ok {
				return
			}
			now = time.Now()
			a.receive(now)
		case <-timer.C:
			now = time.Now()
			a.control.Advance(now)
		}
		if d, ok := a.control.Deadline(); ok {
			timer.Reset(max(0, d.Sub(now)))
		}
	}
}

// unacknowledged says whether a peer has yet to acknowledge a message.
func (a *Agent) unacknowledged() bool {
	for _, t := range a.control.Save().Tunnels {
		for _, c := range t.Connections {
			if len(c.Queue) > 0 {
				return true
			}
		}
	}
	return false
}
