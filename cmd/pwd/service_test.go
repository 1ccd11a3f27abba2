package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

type answers chan error

func (a answers) Status(ctx context.Context) (*api.Status, error) {
	select {
	case err := <-a:
		return &api.Status{
			Site: "dc1", Health: "degraded",
			Tunnels:     []api.Tunnel{{State: "established"}, {State: "connecting"}},
			Pseudowires: []api.Pseudowire{{State: "up"}, {State: "up"}, {State: "down"}},
		}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The watchdog is fed when the agent answers, and not when it fails or hangs.
func TestWatchdog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "1000")
	m := newManager(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	agent, done := make(answers), make(chan error, 1)
	go func() { done <- m.feed(ctx, agent) }()

	read := func() string {
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	agent <- errors.New("the agent is stuck")
	agent <- nil
	// The answer before the last left nothing: this is all that there is.
	got := []string{read(), read()}
	if want := []string{"WATCHDOG=1", "STATUS=site dc1: degraded; 1 of 2 tunnels established, 2 of 3 pseudowires up"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Without a watchdog nothing is asked of the agent.
func TestNoWatchdog(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := newManager(slog.New(slog.DiscardHandler)).feed(t.Context(), make(answers)); err != nil {
		t.Error(err)
	}
}
