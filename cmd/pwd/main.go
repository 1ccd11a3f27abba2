// Pwd is the daemon: it joins the networks of this site to those of others by
// L2TPv3 pseudowires, as a topology file says.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/pwd-project/pwd/internal/agent"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/build"
	"github.com/pwd-project/pwd/internal/hangup"
	"github.com/pwd-project/pwd/internal/hold"
	"github.com/pwd-project/pwd/internal/metrics"
	"github.com/pwd-project/pwd/internal/secretfile"
	"github.com/pwd-project/pwd/internal/systemd"
	"github.com/pwd-project/pwd/internal/topology"
)

// The exit codes, the same as pwctl's.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitInvalid = 4
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	s, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, errHelp):
		return 0
	case errors.As(err, new(*topology.InvalidError)):
		return report(stderr, err)
	case err != nil:
		fmt.Fprintf(stderr, "pwd: %v\n", err)
		return exitUsage
	}
	switch {
	case s.version:
		fmt.Fprintln(stdout, "pwd", build.Version())
		return 0
	case s.check:
		return check(s, stdout, stderr)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: s.level, ReplaceAttr: plainTime}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case s.hold:
		err = holdSockets(ctx, s, log)
	case s.cleanup:
		// Root cleans up after a daemon of whatever user.
		keeper := hold.Open(hold.Options{RunDir: s.runDir, AnyUser: os.Geteuid() == 0, Logger: log})
		defer keeper.Close()
		options := s.agent(log)
		options.Keeper = keeper
		err = agent.Cleanup(ctx, options)
	default:
		err = serve(ctx, s, log)
	}
	return report(stderr, err)
}

// report says why the daemon ended, with every diagnostic of an invalid file.
func report(stderr io.Writer, err error) int {
	invalid, ok := errors.AsType[*topology.InvalidError](err)
	switch {
	case err == nil:
		return 0
	case !ok:
		fmt.Fprintf(stderr, "pwd: %v\n", err)
		return exitFailed
	case err != error(invalid):
		fmt.Fprintf(stderr, "pwd: %v\n", err)
	}
	invalid.Diagnostics.Format(stderr)
	return exitInvalid
}

// serve runs the agent and its API until ctx ends. The socket comes first: a
// second daemon is turned away before it touches anything.
func serve(ctx context.Context, s *settings, log *slog.Logger) error {
	who, err := resolve(s.access)
	if err != nil { // the site is worth more: who cannot be looked up may not
		log.Error("access is not what the configuration says", "err", err)
	}
	listener, err := api.ListenAs(s.runDir, who.owner)
	if err != nil {
		return err
	}
	defer listener.Close()
	service := newManager(log)
	passed, err := systemd.Inherited()
	service.try(err)
	keeper := hold.Open(hold.Options{RunDir: s.runDir, Manager: service.Notifier, Passed: passed, Logger: log})
	defer keeper.Close()
	options := s.agent(log)
	options.Keeper = keeper
	options.Reloaded = func() { service.try(service.Ready()) }
	a, err := agent.New(options)
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { service.try(service.Stopping()) })()
	group.Go(func() error {
		return a.Run(ctx, func() {
			log.Info("running", "site", s.site, "version", build.Version(), "socket", listener.Addr())
			service.try(service.Ready())
			group.Go(func() error { return service.feed(ctx, a) })
		})
	})
	server := api.NewServer(a, api.Options{Logger: log, Version: build.Version(), MayChange: who.mayChange, Changers: who.words, Metrics: metrics.Handler(a, log)})
	group.Go(func() error { return server.Serve(ctx, listener) })
	if s.metrics != "" {
		group.Go(func() error { return serveProbes(ctx, server, s.metrics, log) })
	}
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangup.C:
				service.try(service.Reloading())
				a.Reload()
			}
		}
	})
	return group.Wait()
}

// holdSockets keeps for the daemon what is not to end with it.
func holdSockets(ctx context.Context, s *settings, log *slog.Logger) error {
	service := newManager(log)
	holder, err := hold.Listen(s.runDir, log)
	if err != nil {
		return err
	}
	log.Info("keeping sockets", "socket", hold.Path(s.runDir))
	service.try(service.Ready())
	return holder.Serve(ctx)
}

// check validates the topology and says so. A configuration that names none leaves it to pwctl apply.
func check(s *settings, stdout, stderr io.Writer) int {
	if s.topology == "" && s.config != "" {
		fmt.Fprintf(stdout, "%s: valid; it names no topology\n", s.config)
		return 0
	}
	if s.topology == "" {
		fmt.Fprintln(stderr, "pwd: --check needs --topology FILE")
		return exitUsage
	}
	b, err := os.ReadFile(s.topology)
	if err != nil {
		fmt.Fprintf(stderr, "pwd: read topology: %v\n", err)
		return exitFailed
	}
	t, diags := topology.Parse(s.topology, b)
	if t != nil {
		local, more := t.Local(s.site)
		diags = append(diags, more...)
		if local != nil {
			_, more = local.WithSecrets(secretfile.In(filepath.Dir(s.topology)))
			diags = append(diags, more...)
		}
	}
	diags.Format(stderr)
	if diags.HasErrors() {
		return exitInvalid
	}
	fmt.Fprintf(stdout, "%s: valid for site %s\n", s.topology, s.site)
	return 0
}

// plainTime leaves the time out where the journal adds its own.
func plainTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return a
}
