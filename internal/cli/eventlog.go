package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) eventsCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON)
	var follow bool
	var since string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, and with -f what happens",
		Long: "Show the events that the daemon keeps, and with --follow new ones as they happen.\n" +
			"JSON is one object per line.",
		Example: "  pwctl events --since 10m\n  pwctl events -f -o json",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			after, sequence, err := a.since(since)
			if err != nil {
				return &usageError{cmd: cmd.CommandPath(), err: err}
			}
			c := a.client()
			defer c.Close()
			return c.Events(cmd.Context(), sequence, follow, func(e api.Event) error {
				if e.Time.Before(after) {
					return nil
				}
				return a.event(e, out.value)
			})
		},
	}
	out.flag(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events until interrupted")
	cmd.Flags().StringVar(&since, "since", "", "only events of the last DURATION (10m), or after a SEQUENCE number")
	return cmd
}

// since reads --since: a duration back from now, or a sequence number.
func (a *app) since(s string) (after time.Time, sequence uint64, err error) {
	if s == "" {
		return time.Time{}, 0, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return time.Time{}, n, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, 0, fmt.Errorf("--since %q is neither a duration, as 10m, nor an event's sequence number", s)
	}
	return a.Now().Add(-d), 0, nil
}

// event prints one event on one line, and what to do on another.
func (a *app) event(e api.Event, format string) error {
	if format == formatJSON {
		return a.line(e)
	}
	severity := fmt.Sprintf("%-7s", printable(e.Severity))
	line := fmt.Sprintf("%s  %s  %s: %s", moment(e.Time, a.Location), coloured(a.colour(), e.Severity, severity),
		printable(e.Object), printable(e.Message))
	if e.Reason != "" {
		line += " (" + printable(e.Reason) + ")"
	}
	if e.Next != "" {
		line += "\n" + strings.Repeat(" ", len(moment(e.Time, a.Location))+11) + "do: " + printable(e.Next)
	}
	_, err := fmt.Fprintln(a.Stdout, line)
	return err
}
