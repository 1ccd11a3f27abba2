package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/systemd"
)

// watched is what the service manager is told of: the agent.
type watched interface {
	Status(context.Context) (*api.Status, error)
}

// manager tells the service manager about the daemon. What cannot be told is logged and changes nothing.
type manager struct {
	*systemd.Notifier
	log *slog.Logger
}

func newManager(log *slog.Logger) *manager {
	n, err := systemd.FromEnv()
	m := &manager{n, log}
	m.try(err)
	return m
}

func (m *manager) try(err error) {
	if err != nil {
		m.log.Warn("service manager", "err", err)
	}
}

// feed feeds the watchdog for as long as the agent answers, and keeps the line of
// systemctl status up to date. An agent that hangs gets no more food: it is killed
// and started again, and traffic goes on meanwhile.
func (m *manager) feed(ctx context.Context, a watched) error {
	every := m.Watchdog()
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s, err := a.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			m.try(err)
		} else {
			m.try(m.Alive())
			m.try(m.Status(summary(s)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// summary is a status on one line.
func summary(s *api.Status) string {
	tunnels, wires := 0, 0
	for _, t := range s.Tunnels {
		if t.State == "established" {
			tunnels++
		}
	}
	for _, p := range s.Pseudowires {
		if p.State == "up" {
			wires++
		}
	}
	return fmt.Sprintf("site %s: %s; %d of %d tunnels established, %d of %d pseudowires up", s.Site, s.Health, tunnels, len(s.Tunnels), wires, len(s.Pseudowires))
}
