package cli

import (
	"errors"
	"fmt"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace cookies of living sessions",
		Args:  arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{cmd: cmd.CommandPath(), err: errors.New("rotate what? There is `rotate cookies`; secrets are replaced in their files")}
		},
	}
	cmd.AddCommand(a.rotateCookiesCommand())
	return cmd
}

func (a *app) rotateCookiesCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var all bool
	cmd := &cobra.Command{
		Use:   "cookies [PSEUDOWIRE…|--all]",
		Short: "Give pseudowires other cookies, without losing a frame",
		Long: "Give pseudowires other cookies: the ones that this site assigned and its peers send. For the\n" +
			"other direction run it at the other site; on the kernel's datapath it is done with it. No frame is\n" +
			"lost: for a while both are accepted.\n" +
			"The exit code is 1 if one could not be changed, or not in time.",
		Example: "  pwctl rotate cookies tenant-a\n  pwctl rotate cookies --all",
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &usageError{cmd: cmd.CommandPath(), err: errors.New("of which pseudowires? Name them, or give --all")}
			}
			c := a.client()
			defer c.Close()
			list, err := c.RotateCookies(cmd.Context(), api.RotateRequest{Pseudowires: names})
			if err != nil {
				return err
			}
			return a.showRotations(list, out.value)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "of all pseudowires of this site")
	out.flag(cmd)
	return cmd
}

// showRotations shows what became of each, and fails if one is not done.
func (a *app) showRotations(list []api.Rotation, format string) error {
	t := table{header: []string{"PSEUDOWIRE", "PEER", "RESULT", "REASON"}, state: -1}
	undone := 0
	for _, r := range list {
		t.rows = append(t.rows, []string{r.Pseudowire, r.Peer, r.Result, orNone(r.Reason)})
		if r.Result != "done" {
			undone++
		}
	}
	var err error
	if format == formatText {
		err = t.write(a.Stdout, a.colour())
	} else {
		err = a.write(format, api.List[api.Rotation]{Items: list})
	}
	if err == nil && undone > 0 {
		err = &exitError{code: ExitFailed, err: fmt.Errorf("%s of %d not changed", counted(undone, "cookie"), len(list))}
	}
	return err
}
