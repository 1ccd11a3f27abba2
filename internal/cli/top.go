package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) topCommand() *cobra.Command {
	count, interval := 0, 2*time.Second
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what goes through tunnels and pseudowires at the moment",
		Long: "Show what shaped tunnels and pseudowires carry: rates over the time between two looks. On a\n" +
			"terminal it goes on until it is interrupted; elsewhere one table is printed.\n\n" +
			"Rates of tunnels are of outer packets as they leave, those of pseudowires of the\n" +
			"frames in them, to the peer (TX) and from it (RX). DELAY is how long what waits will wait.",
		Example: "  pwctl top\n  pwctl top -n 5 --interval 10s",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 || interval < 100*time.Millisecond {
				return &usageError{cmd: cmd.CommandPath(), err: errors.New("-n is 0 or more, --interval 100ms or more")}
			}
			if count == 0 && !a.StdoutTerminal {
				count = 1
			}
			return a.top(cmd.Context(), count, interval)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "n", 0, "end after that many tables; 0 is never, or after the first where the output is no terminal")
	cmd.Flags().DurationVarP(&interval, "interval", "i", interval, "the time between two looks")
	return cmd
}

// sample is one look.
type sample struct {
	at      time.Time
	classes []api.Class
	status  *api.Status
}

func (a *app) sample(ctx context.Context, c *api.Client) (sample, error) {
	s := sample{}
	var err error
	if s.classes, err = c.Classes(ctx); err != nil {
		return s, err
	}
	s.status, err = c.Status(ctx)
	s.at = a.Now()
	return s, err
}

// top shows count tables, each of what happened since the look before; 0 is without end.
func (a *app) top(ctx context.Context, count int, interval time.Duration) error {
	c := a.client()
	defer c.Close()
	last, err := a.sample(ctx, c)
	if err != nil {
		return err
	}
	for n := 1; count == 0 || n <= count; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-a.After(interval):
		}
		now, err := a.sample(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var page bytes.Buffer
		switch {
		case a.StdoutTerminal:
			page.WriteString("\x1b[H\x1b[2J")
		case n > 1:
			page.WriteString("\n")
		}
		if err := a.topTables(&page, &last, &now); err != nil {
			return err
		}
		// At once, so that nothing flickers.
		if _, err := a.Stdout.Write(page.Bytes()); err != nil {
			return err
		}
		last = now
	}
	return nil
}

func (a *app) topTables(w io.Writer, last, now *sample) error {
	took := now.at.Sub(last.at).Seconds()
	fmt.Fprintf(w, "site %s, %s, over %.1f s\n\n", printable(now.status.Site), now.at.In(a.Location).Format("15:04:05"), took)
	tunnels := topTunnels(last, now, took)
	if len(tunnels.rows) == 0 {
		io.WriteString(w, "no tunnel is shaped\n")
	} else if err := tunnels.write(w, a.colour()); err != nil {
		return err
	}
	io.WriteString(w, "\n")
	return topPseudowires(last, now, took).write(w, a.colour())
}

// grown is how much a counter grew; one that began anew counts from 0.
func grown(last, now uint64) float64 {
	if now < last {
		return float64(now)
	}
	return float64(now - last)
}

func topTunnels(last, now *sample, took float64) table {
	t := table{state: -1, header: []string{"CLASS", "TUNNEL", "INTERFACE", "RATE", "CEILING", "SENT", "PACKETS/S", "DROPS/S", "BACKLOG", "DELAY"}}
	type key struct{ class, tunnel, peer, link string }
	before := map[key]api.ClassTunnel{}
	for _, c := range last.classes {
		for _, x := range c.Tunnels {
			before[key{c.Name, x.Tunnel, x.Peer, x.Interface}] = x
		}
	}
	for _, c := range now.classes {
		for _, x := range c.Tunnels {
			b := before[key{c.Name, x.Tunnel, x.Peer, x.Interface}]
			sent := grown(b.Octets, x.Octets) * 8 / took
			delay := none
			if sent > 0 {
				delay = time.Duration(float64(x.BacklogOctets) * 8 / sent * 1e9).Round(10 * time.Microsecond).String()
			}
			t.rows = append(t.rows, []string{
				c.Name, x.Tunnel + "/" + x.Peer, orNone(x.Interface), bitRate(c.Rate), bitRate(c.Ceiling), pace(sent),
				perSecond(grown(b.Frames, x.Frames) / took), perSecond(grown(b.Drops, x.Drops) / took), strconv.FormatUint(x.BacklogOctets, 10), delay,
			})
		}
	}
	return t
}

func topPseudowires(last, now *sample, took float64) table {
	t := table{state: 2, header: []string{"PSEUDOWIRE", "PEER", "STATE", "TX", "FRAMES/S", "RX", "FRAMES/S", "DROPS/S"}}
	before := map[string]api.Pseudowire{}
	for _, p := range last.status.Pseudowires {
		before[p.Name] = p
	}
	dropped := func(p *api.Pseudowire) (n uint64) {
		for _, d := range p.Drops {
			n += d
		}
		return n
	}
	for _, p := range now.status.Pseudowires {
		b := before[p.Name]
		t.rows = append(t.rows, []string{
			p.Name, p.Peer, p.State,
			pace(grown(b.TransmittedOctets, p.TransmittedOctets) * 8 / took), perSecond(grown(b.TransmittedFrames, p.TransmittedFrames) / took),
			pace(grown(b.ReceivedOctets, p.ReceivedOctets) * 8 / took), perSecond(grown(b.ReceivedFrames, p.ReceivedFrames) / took),
			perSecond(grown(dropped(&b), dropped(&p)) / took),
		})
	}
	return t
}

// pace is a rate that was measured, in bits a second, to three digits.
func pace(rate float64) string {
	units := []string{"bit", "kbit", "mbit", "gbit", "tbit"}
	for len(units) > 1 && rate >= 999.5 {
		rate, units = rate/1000, units[1:]
	}
	digits := 2
	switch {
	case units[0] == "bit" || rate >= 99.95:
		digits = 0
	case rate >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(rate, 'f', digits, 64) + units[0]
}

// perSecond is a number of things a second.
func perSecond(n float64) string {
	if n > 0 && n < 9.95 {
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return strconv.FormatFloat(n, 'f', 0, 64)
}
