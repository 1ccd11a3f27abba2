package netlab

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is short against what is waited for (a daemon's start, a handshake) and long against one look.
const pollEvery = 10 * time.Millisecond

// Looks that take long, on a slow machine, are not to take the time of what is waited for: they
// have one part in pollShare of it, but some that only wait themselves are not put off by more
// than pollRest.
const (
	pollShare = 4
	pollRest  = 500 * time.Millisecond
)

// Poll calls cond until it returns nil, for what gives no event to wait for.
// When the context ends it returns the last error.
func Poll(ctx context.Context, what string, cond func() error) error {
	rest := time.NewTimer(pollEvery)
	defer rest.Stop()
	for {
		begin := time.Now()
		err := cond()
		if err == nil {
			return nil
		}
		rest.Reset(min(max(pollEvery, (pollShare-1)*time.Since(begin)), pollRest))
		select {
		case <-rest.C:
		case <-ctx.Done():
			return fmt.Errorf("netlab: waiting until %s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}
