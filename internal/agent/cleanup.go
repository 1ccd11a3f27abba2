package agent

import (
	"context"
	"errors"
)

// Cleanup closes the connections that a stopped daemon left established, in
// view of their peers, and removes everything that it owns: devices, programs,
// pins, bridges and state. A daemon that still runs is not disturbed: BusyError.
func Cleanup(ctx context.Context, opt Options) error {
	a, err := New(opt)
	if err != nil {
		return err
	}
	// Both datapaths may have left something, whichever is the default now.
	for _, o := range opt.Datapaths {
		if a.datapaths[o.Kind] != nil {
			continue
		}
		if dp, err := o.Open(); err == nil {
			a.datapaths[o.Kind] = dp
		}
	}
	return errors.Join(a.teardown(ctx), a.Close())
}
