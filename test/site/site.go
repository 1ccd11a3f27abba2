// Package site runs a real daemon in a namespace, for the demo and the end-to-end tests.
package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// Site is a site of a topology: a namespace with a daemon in it.
type Site struct {
	Name string
	NS   *netlab.Namespace
	// Bin is the folder of pwd and pwctl, Dir one that is the site's own, for its socket and its state.
	Bin, Dir string
	// Topology is the file that the daemon is started with; none if empty.
	Topology string
	// Flags are further ones, of the daemon.
	Flags []string
	// Links are those that are there without the daemon; Left takes others for its.
	Links []string
	// Daemon is the one started last.
	Daemon *netlab.Process

	client *api.Client
}

// flags keep this daemon apart from every other. The BPF file system under /sys is the namespace's own.
func (s *Site) flags() []string {
	return append([]string{"--site", s.Name, "--run-dir", s.runDir(), "--state-dir", filepath.Join(s.Dir, "state"), "--bpf-dir", "/sys/fs/bpf/pwd"}, s.Flags...)
}

func (s *Site) runDir() string { return filepath.Join(s.Dir, "run") }

// Socket is the path of the daemon's API.
func (s *Site) Socket() string { return filepath.Join(s.runDir(), "pwd.sock") }

// Start starts the daemon; it does not wait for anything.
func (s *Site) Start() (err error) {
	args := s.flags()
	if s.Topology != "" {
		args = append(args, "--topology", s.Topology)
	}
	s.Daemon, err = s.NS.Start("pwd at "+s.Name, exec.Command(filepath.Join(s.Bin, "pwd"), args...))
	return err
}

// StartHolder starts the holder of the daemon's sockets and waits until it is there. It
// ends with the namespace.
func (s *Site) StartHolder() error {
	p, err := s.NS.Start("holder at "+s.Name, exec.Command(filepath.Join(s.Bin, "pwd"), "--hold", "--run-dir", s.runDir()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return netlab.Poll(ctx, "a holder at "+s.Name, func() error {
		select {
		case <-p.Exited():
			return fmt.Errorf("it has ended: %s", p.Output())
		default:
		}
		_, err := os.Stat(s.runDir() + "-hold/hold.sock")
		return err
	})
}

// Client is the daemon's API.
func (s *Site) Client() *api.Client {
	if s.client == nil {
		s.client = api.Dial(s.Socket())
	}
	return s.client
}

// Close gives up the API's connections.
func (s *Site) Close() {
	if s.client != nil {
		s.client.Close()
	}
}

// Pwctl runs pwctl against the daemon and returns its standard output.
func (s *Site) Pwctl(ctx context.Context, args ...string) (string, error) {
	return s.NS.Run(ctx, filepath.Join(s.Bin, "pwctl"), append([]string{"--socket", s.Socket()}, args...)...)
}

// Stop ends the daemon with SIGTERM. An exit status other than 0 is an error.
func (s *Site) Stop(ctx context.Context) error {
	if err := s.Daemon.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.Daemon.Wait(ctx)
}

// Cleanup removes all that is the daemon's; it must not run.
func (s *Site) Cleanup(ctx context.Context) error {
	if _, err := s.NS.Run(ctx, filepath.Join(s.Bin, "pwd"), append(s.flags(), "--cleanup")...); err != nil {
		return fmt.Errorf("clean up %s: %w", s.Name, err)
	}
	return nil
}

// AwaitUp waits until the site has exactly so many tunnels and pseudowires, all of them up. It does not
// go on waiting when the daemon has ended.
func (s *Site) AwaitUp(ctx context.Context, tunnels, pseudowires int) error {
	return s.Await(ctx, fmt.Sprintf("%d tunnels and %d pseudowires are up", tunnels, pseudowires), func(st *api.Status) error {
		if len(st.Tunnels) != tunnels || len(st.Pseudowires) != pseudowires {
			return fmt.Errorf("%d tunnels and %d pseudowires", len(st.Tunnels), len(st.Pseudowires))
		}
		return AllUp(st)
	})
}

// AllUp returns an error that names the first tunnel that is not established or pseudowire that is not up.
func AllUp(st *api.Status) error {
	for _, t := range st.Tunnels {
		if t.State != "established" {
			return fmt.Errorf("tunnel %s to %s is %s (%s)", t.Name, t.Peer, t.State, t.Reason)
		}
	}
	for _, p := range st.Pseudowires {
		if p.State != "up" {
			return fmt.Errorf("pseudowire %s to %s is %s (%s)", p.Name, p.Peer, p.State, p.Reason)
		}
	}
	return nil
}

// Await waits until the daemon's status satisfies cond.
func (s *Site) Await(ctx context.Context, what string, cond func(*api.Status) error) error {
	daemon := s.Daemon
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-daemon.Exited():
			err := daemon.Wait(context.Background())
			if err == nil {
				err = errors.New("exit status 0")
			}
			cancel(fmt.Errorf("the daemon has ended: %w", err))
		case <-ctx.Done():
		}
	}()
	return netlab.Poll(ctx, what+" at "+s.Name, func() error {
		st, err := s.Client().Status(ctx)
		if err != nil {
			return err
		}
		return cond(st)
	})
}
