package netlab

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is short against what is waited for (a daemon's start, a handshake) and long against one look.
const pollEvery = 10 * time.Millisecond

// Poll calls cond until it returns nil, for what gives no event to wait for.
// When the context ends it returns the last error.
func Poll(ctx context.Context, what string, cond func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("netlab: waiting until %s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}
