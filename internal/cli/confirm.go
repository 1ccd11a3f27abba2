package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

// shortest is the least time to confirm in that a person can keep.
const shortest = 5 * time.Second

func (a *app) confirmCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Keep what was applied with --confirm",
		Long: "Keep what was applied with `apply --confirm`. Without it the topology before comes back\n" +
			"when the time is over, whether pwctl or the daemon still runs or not.",
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			g, err := c.Confirm(cmd.Context(), "")
			if err != nil {
				return err
			}
			if out.value != formatText {
				return a.write(out.value, g)
			}
			_, err = fmt.Fprintf(a.Stdout, "generation %d stays in force\n", g.Number)
			return err
		},
	}
	out.flag(cmd)
	return cmd
}

func (a *app) rollbackCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd := &cobra.Command{
		Use:   "rollback [GENERATION]",
		Short: "Return to an earlier topology",
		Long: "Return to the topology before the one in force, or to a generation that `history` shows. It\n" +
			"becomes a new generation, so that a second rollback undoes the first. It never asks.",
		Example: "  pwctl rollback\n  pwctl rollback 3",
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.RollbackRequest
			if len(args) > 0 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return &usageError{cmd: cmd.CommandPath(), err: fmt.Errorf("%q is no generation: a number from `pwctl history`", args[0])}
				}
				req.Generation = n
			}
			c := a.client()
			defer c.Close()
			res, err := c.Rollback(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.showApplied(res, out.value, 0)
		},
	}
	out.flag(cmd)
	return cmd
}

func (a *app) historyCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show the topologies that were applied",
		Args:  arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			all, err := c.History(cmd.Context())
			if err != nil {
				return err
			}
			if out.value != formatText {
				return a.write(out.value, api.List[api.Generation]{Items: all})
			}
			t := table{header: []string{"GENERATION", "STATE", "APPLIED", "FILE", "CAUSE", "BY"}, state: 1}
			for _, g := range all {
				t.rows = append(t.rows, []string{strconv.Itoa(g.Number), generationState(a.Now(), g), g.Applied.Format(time.DateTime), g.File, orNone(g.Cause), orNone(g.By)})
			}
			return t.write(a.Stdout, a.colour())
		},
	}
	out.flag(cmd)
	return cmd
}

// generationState is "in force", with how long unless it is confirmed, or nothing.
func generationState(now time.Time, g api.Generation) string {
	switch {
	case g.InForce && g.ConfirmBy != nil:
		return "in force for " + left(now, *g.ConfirmBy)
	case g.InForce:
		return "in force"
	}
	return none
}

// left is how long it is until t.
func left(now, t time.Time) string { return lasted(int64(t.Sub(now).Round(time.Second) / time.Second)) }

// checkConfirm refuses a time to confirm in that makes no sense.
func checkConfirm(cmd *cobra.Command, d time.Duration) error {
	if cmd.Flags().Changed("confirm") && d < shortest {
		return &usageError{cmd: cmd.CommandPath(), err: fmt.Errorf("--confirm %v is too short: give at least %v", d, shortest)}
	}
	return nil
}

// awaitConfirmation waits until an apply is confirmed or taken back.
func (a *app) awaitConfirmation(ctx context.Context, c *api.Client, generation int) error {
	for {
		st, err := c.Status(ctx)
		switch {
		case errors.Is(err, api.ErrUnreachable): // it restarts, perhaps; the time is in its state
		case err != nil:
			return err
		case st.Generation != generation:
			return &exitError{code: ExitNotConfirmed, err: fmt.Errorf("generation %d was not confirmed: it is no longer in force", generation), help: "see `pwctl history`"}
		case st.ConfirmBy == nil:
			fmt.Fprintf(a.Stderr, "generation %d is confirmed\n", generation)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.After(pollInterval):
		}
	}
}
