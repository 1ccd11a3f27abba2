package agent

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

// recheck is how often what could not be done is tried again without an event.
const recheck = 10 * time.Second

// errStopping answers those who come after the end of the loop.
var errStopping error = &api.Error{
	Code: api.CodeInternal, Status: http.StatusServiceUnavailable, Title: "the daemon is stopping",
	Detail: "try again when it runs again",
}

// Run is the daemon's life: until ctx ends, or something fails that it cannot
// go on without. ready is called when the topology has been carried out. Run closes the agent.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	defer close(a.stopped)
	err := a.live(ctx, ready)
	if err != nil && a.generation == nil {
		// Nothing was ever in force: nothing is to stay.
		return errors.Join(err, a.teardown(context.WithoutCancel(ctx)), a.Close())
	}
	return errors.Join(err, a.leave())
}

// live is Run without the end.
func (a *Agent) live(ctx context.Context, ready func()) error {
	defer close(a.stopping)
	a.quit = ctx.Done()
	if err := a.start(); err != nil {
		return err
	}
	a.settle(time.Now())
	a.keepLoops(time.Now())
	if !a.quitting() {
		ready()
	}
	return a.loop(ctx)
}

func (a *Agent) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	again := time.NewTicker(recheck)
	defer again.Stop()
	look, call := newLook(), newLook()
	defer look.Stop()
	defer call.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-a.transport.Ready():
			if !ok {
				return errors.New("the transport ended")
			}
			a.receive(time.Now())
		case <-timer.C:
			a.advance(time.Now())
			a.expire(time.Now())
			a.limitDue(time.Now())
			a.watchLoops(time.Now())
		case <-a.macs.wake():
			a.faults.set("what bridges learn", a.macs.follow(a.bridges))
			a.closeLoops(time.Now())
			a.watchLoops(time.Now())
			a.limitLater(time.Now())
		case e := <-a.loops.ears.ready():
			a.hearLoops(time.Now(), e)
			a.watchLoops(time.Now())
		case <-a.kernel.wake:
			look.after(quiet, a.rest)
			a.planCall(call, a.kernel.takeWays())
		case <-look.C:
			if now := time.Now(); look.begin(now, a.settingUp(now)) {
				a.observe(a.kernel.take())
			}
		case <-call.C:
			call.begin(time.Now(), false)
			a.callAgain()
		case <-again.C:
			a.retry()
		case f := <-a.commands:
			f()
		case <-a.reload:
			a.readAgain()
			if a.opt.Reloaded != nil {
				a.opt.Reloaded()
			}
		}
		now := time.Now()
		a.settle(now)
		a.tellDrift(now)
		if d, ok := a.deadline(); ok {
			timer.Reset(max(0, d.Sub(now)))
		} else {
			timer.Stop()
		}
	}
}

// quitting says whether the daemon has been told to end.
func (a *Agent) quitting() bool {
	select {
	case <-a.quit:
		return true
	default:
		return false
	}
}

// do has f done by Run's goroutine. Once it has returned without error f is done.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.commands <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.stopping:
		return errStopping
	}
	select {
	case <-done:
		return nil
	case <-a.stopped:
	}
	select {
	case <-done:
		return nil
	default:
		return errStopping // it died over it
	}
}

// leave is the regular end: connections and the datapath stay as they are, or go
// if the configuration says so.
func (a *Agent) leave() error {
	if a.opt.OnStopTeardown {
		a.leaveLoops(time.Now())
		return errors.Join(a.teardown(context.Background()), a.Close())
	}
	if a.trial != nil {
		a.event("warning", "topology", "stopped before the new topology was verified", "the one before is in force again at the next start")
	}
	a.releasePorts()
	now := time.Now()
	a.control.HalfOpenClose(now)
	a.settle(now)
	return a.Close()
}
