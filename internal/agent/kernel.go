package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// quiet is how long kernel events are collected before they are looked at: one
// change of a link is a handful of messages.
const quiet = 50 * time.Millisecond

// watchKernel tells, once after each burst, that a link, an address, a route or
// a neighbour changed. It ends with ctx.
func watchKernel(ctx context.Context, log *slog.Logger) (<-chan struct{}, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink for kernel events: %w", err)
	}
	for _, group := range []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	} {
		if err := conn.JoinGroup(group); err != nil {
			conn.Close()
			return nil, fmt.Errorf("subscribe to kernel events: %w", err)
		}
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	out := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			_, err := conn.Receive()
			switch {
			case errors.Is(err, os.ErrClosed) || ctx.Err() != nil:
				return
			case err != nil && !errors.Is(err, unix.ENOBUFS):
				log.Warn("cannot read kernel events", "err", err)
			}
			// Messages lost to a full buffer are events too: everything is looked at anyway.
			select {
			case out <- struct{}{}:
			default:
			}
			pause(ctx, quiet)
		}
	}()
	return out, nil
}

// pause waits, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
