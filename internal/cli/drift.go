package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) driftCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Show what others have changed about what is the daemon's, and what it did about it",
		Long: "Show what others have changed by hand about the links, bridges, VLANs, programs and qdiscs that the\n" +
			"daemon has set, since it started: when that was found, and what was done about it. The last is first.\n" +
			"What the kernel tells of is found at once; a program that was detached by bpf(2) within 10 seconds.\n" +
			"What something else keeps changing is contested: it is put back after 10 seconds, later every minute.",
		Example: "  pwctl drift\n  pwctl drift -o json",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			all, err := c.Drift(cmd.Context())
			if err != nil {
				return err
			}
			if out.value != formatText {
				return a.write(out.value, api.List[api.Drift]{Items: all})
			}
			if len(all) == 0 {
				_, err := fmt.Fprintln(a.Stdout, "nothing was changed by others")
				return err
			}
			t := table{header: []string{"STATE", "FOUND AT", "TIMES", "OBJECT", "WHAT", "DONE"}, state: 0}
			for _, d := range all {
				state, done := "repaired", d.Done
				if !d.Repaired {
					state, done = "failed", d.Done+": "+d.Error
				}
				if d.WaitSeconds > 0 {
					state, done = "contested", fmt.Sprintf("%s, at most every %v", done, time.Duration(d.WaitSeconds*float64(time.Second)))
				}
				t.rows = append(t.rows, []string{state, moment(d.Time, a.Location), strconv.Itoa(d.Times), d.Object, d.Found, done})
			}
			return t.write(a.Stdout, a.colour())
		},
	}
	out.flag(cmd)
	return cmd
}
