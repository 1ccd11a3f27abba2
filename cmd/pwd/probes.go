package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

// listenAgain is how long an address that cannot be listened on is left alone.
const listenAgain = 10 * time.Second

// serveProbes serves metrics and health on a TCP address until ctx ends. An address
// that is taken, or not there yet, is tried again: that nobody can watch the site is
// no reason to have none.
func serveProbes(ctx context.Context, server *api.Server, address string, log *slog.Logger) error {
	for told := false; ; {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				listener.Close()
			}
			return nil
		case err == nil:
			log.Info("metrics", "address", listener.Addr())
			return server.ServeProbes(ctx, listener)
		case !told:
			log.Error("metrics cannot be served yet", "address", address, "err", err, "again", listenAgain)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}
