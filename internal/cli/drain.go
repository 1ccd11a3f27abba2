package cli

import (
	"errors"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) drainCommand() *cobra.Command {
	var req api.DrainRequest
	cmd := a.draining(&req, &cobra.Command{
		Use:   "drain NAME…",
		Short: "Take a site, a tunnel or a pseudowire out of use for planned work",
		Long: "Take something out of use for planned work: a pseudowire, a network, a tunnel, or all pseudowires\n" +
			"to a site; this site's own name is all of them. Pseudowires that have another tunnel take that first,\n" +
			"without a loss; the others are in standby at this end, and the peer is told. It holds, across restarts\n" +
			"and other topologies, until `pwctl undrain`.",
		Example: "  pwctl drain dc2 --reason 'new switch'\n  pwctl drain gold --kind tunnel",
	})
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for whom it concerns: shown by pwctl status")
	return cmd
}

func (a *app) undrainCommand() *cobra.Command {
	return a.draining(&api.DrainRequest{Undo: true}, &cobra.Command{
		Use:   "undrain NAME…",
		Short: "Take into use again what was drained, or blocked for a loop",
		Long: "Take into use again what pwctl drain took out of use, or what the daemon has blocked because of a\n" +
			"loop. That of a loop that is still there is blocked again, for twice as long.",
		Example: "  pwctl undrain dc2\n  pwctl undrain office/dc2",
	})
}

// draining completes a command that sends the request.
func (a *app) draining(req *api.DrainRequest, cmd *cobra.Command) *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if len(names) == 0 {
			return &usageError{cmd: cmd.CommandPath(), err: errors.New("what? Name a pseudowire, a network, a tunnel or a site")}
		}
		c := a.client()
		defer c.Close()
		req.Names = names
		list, err := c.Drain(cmd.Context(), *req)
		if err != nil {
			return err
		}
		if out.value != formatText {
			return a.write(out.value, api.List[api.Drained]{Items: list})
		}
		t := table{header: []string{"PSEUDOWIRE", "PEER", "STATE", "TUNNEL", "REASON"}, state: 2}
		for _, d := range list {
			t.rows = append(t.rows, []string{d.Pseudowire, d.Peer, d.State, d.Tunnel, orNone(d.Reason)})
		}
		return t.write(a.Stdout, a.colour())
	}
	cmd.Flags().StringVar(&req.Kind, "kind", "", "site, tunnel or pseudowire, where the name is that of several")
	out.flag(cmd)
	return cmd
}
