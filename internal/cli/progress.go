package cli

import (
	"context"
	"fmt"

	"github.com/pwd-project/pwd/internal/api"
)

// applyShown applies, and on a terminal shows meanwhile on standard error what happens.
func (a *app) applyShown(ctx context.Context, c *api.Client, req api.ApplyRequest, format string) (*api.ApplyResult, error) {
	if !a.StderrTerminal || format != formatText || req.DryRun {
		return c.Apply(ctx, req)
	}
	var last uint64
	if err := c.Events(ctx, 0, false, func(e api.Event) error { last = e.Sequence; return nil }); err != nil {
		return c.Apply(ctx, req) // which tells, if that is wrong, too
	}
	show := func(e api.Event) error {
		last = e.Sequence
		line := fmt.Sprintf("  %s: %s", printable(e.Object), printable(e.Message))
		if e.Reason != "" {
			line += " (" + printable(e.Reason) + ")"
		}
		_, err := fmt.Fprintln(a.Stderr, coloured(a.colour(), e.Severity, line))
		return err
	}
	following, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		events := a.client()
		defer events.Close()
		// What is missed is asked for below.
		_ = events.Events(following, last, true, show)
	}()
	res, err := c.Apply(ctx, req)
	stop()
	<-done
	if ctx.Err() == nil {
		// That nothing more is shown is no reason for the apply to fail.
		_ = c.Events(ctx, last, false, show)
	}
	return res, err
}
