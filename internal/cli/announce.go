package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) announceCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var all bool
	cmd := &cobra.Command{
		Use:   "announce [PSEUDOWIRE…|--all]",
		Short: "Tell other sites which MAC addresses are here",
		Long: "Tell other sites which MAC addresses are here: a RARP request from each, as hypervisors send\n" +
			"for a virtual machine that has moved, so that bridges send its traffic here.\n" +
			"The exit code is 1 if it could not be done on one of the pseudowires.",
		Example: "  pwctl announce office/dc2\n  pwctl announce --all",
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &usageError{cmd: cmd.CommandPath(), err: errors.New("on which pseudowires? Name them, or give --all")}
			}
			c := a.client()
			defer c.Close()
			list, err := c.Announce(cmd.Context(), api.AnnounceRequest{Pseudowires: names})
			if err != nil {
				return err
			}
			return a.showAnnouncements(list, out.value)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "on all pseudowires of this site")
	out.flag(cmd)
	return cmd
}

// showAnnouncements shows what was sent, and fails if something was not.
func (a *app) showAnnouncements(list []api.Announcement, format string) error {
	t := table{header: []string{"PSEUDOWIRE", "PEER", "ADDRESSES", "REASON"}, state: -1}
	undone := 0
	for _, r := range list {
		t.rows = append(t.rows, []string{r.Pseudowire, r.Peer, strconv.Itoa(r.Addresses), orNone(r.Reason)})
		if r.Reason != "" {
			undone++
		}
	}
	var err error
	if format == formatText {
		err = t.write(a.Stdout, a.colour())
	} else {
		err = a.write(format, api.List[api.Announcement]{Items: list})
	}
	if err == nil && undone > 0 {
		err = &exitError{code: ExitFailed, err: fmt.Errorf("%s of %d without an announcement", counted(undone, "pseudowire"), len(list))}
	}
	return err
}
