package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

// healthy is the Health of a daemon that has nothing to complain about.
const healthy = "healthy"

// silent is the cause of a tunnel that is established and whose peer does not answer.
const silent = "peer-silent"

// pseudowiresShown is how many pseudowires that are up fit on the screen per
// tunnel; those that are not are all shown.
const pseudowiresShown = 8

// statusOptions are the flags of `status`.
type statusOptions struct {
	format  string
	wait    bool
	timeout time.Duration
}

func (a *app) statusCommand() *cobra.Command {
	out := newFormat(formatText, formatWide, formatJSON, formatYAML)
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the site on one screen, and what to do about its problems",
		Long: "Show the site on one screen: what is in force, what is wrong and what to do about it,\n" +
			"the tunnels and the pseudowires on them. The exit code is 0 if the site is healthy and\n" +
			"9 if it is degraded. With --wait it asks until the site is healthy, a daemon that has\n" +
			"yet to start included, and ends with 8 if that takes longer than --timeout.",
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.format = out.value
			return a.status(cmd.Context(), o)
		},
	}
	out.flag(cmd)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the site is healthy")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

func (a *app) status(ctx context.Context, o statusOptions) error {
	c := a.client()
	defer c.Close()
	st, err := a.awaitHealth(ctx, c, o)
	if st == nil {
		return err
	}
	if shown := a.showStatus(st, o.format); shown != nil {
		return shown
	}
	if err != nil {
		return err
	}
	if st.Health != healthy {
		return &exitError{code: ExitDegraded}
	}
	return nil
}

// awaitHealth asks once or, to wait, until the site is healthy. A status that
// comes with an error is the last one before the time was over.
func (a *app) awaitHealth(ctx context.Context, c *api.Client, o statusOptions) (*api.Status, error) {
	deadline := a.Now().Add(o.timeout)
	for {
		st, err := c.Status(ctx)
		if err != nil {
			st = nil
		}
		if !o.wait || st != nil && st.Health == healthy || err != nil && !errors.Is(err, api.ErrUnreachable) {
			return st, err
		}
		if !a.Now().Before(deadline) {
			late := fmt.Errorf("not healthy after %s", o.timeout)
			if err != nil {
				late = fmt.Errorf("%w: %w", late, err)
			}
			return st, &exitError{code: ExitTimeout, err: late}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.After(min(pollInterval, max(deadline.Sub(a.Now()), 0))):
		}
	}
}

func (a *app) showStatus(st *api.Status, format string) error {
	if format == formatJSON || format == formatYAML {
		return a.write(format, st)
	}
	var b strings.Builder
	a.statusHead(&b, st)
	statusProblems(&b, st)
	if err := a.statusTunnels(&b, st, format == formatWide); err != nil {
		return err
	}
	if format == formatWide && len(st.Strangers) > 0 {
		if err := a.statusStrangers(&b, st); err != nil {
			return err
		}
	}
	if format == formatWide && len(st.Counters) > 0 {
		b.WriteString("\nCounters\n")
		t := table{state: -1}
		for _, name := range slices.Sorted(maps.Keys(st.Counters)) {
			t.rows = append(t.rows, []string{"  " + name, strconv.FormatUint(st.Counters[name], 10)})
		}
		if err := t.write(&b, false); err != nil {
			return err
		}
	}
	_, err := a.Stdout.Write([]byte(b.String()))
	return err
}

// statusStrangers are who sent control messages that no tunnel is for.
func (a *app) statusStrangers(b *strings.Builder, st *api.Status) error {
	b.WriteString("\nControl messages of strangers, dropped\n")
	t := table{header: []string{"  FROM", "LAST", "AGO", "COUNTED"}, state: -1}
	for _, s := range st.Strangers {
		from := s.Prefix
		if from == "" {
			from = "elsewhere"
		}
		t.rows = append(t.rows, []string{"  " + from, orNone(s.Last), ago(a.Now(), s.Seen), drops(s.Reasons)})
	}
	return t.write(b, false)
}

// statusHead is who this is, how it is and what is in force.
func (a *app) statusHead(b *strings.Builder, st *api.Status) {
	now := a.Now()
	fmt.Fprintf(b, "site %s, topology %s: %s\n", printable(orNone(st.Site)), printable(orNone(st.Topology)),
		coloured(a.colour(), st.Health, printable(orNone(st.Health))))
	fmt.Fprintf(b, "pwd %s, up %s, datapath %s, ", printable(orNone(st.Version)), ago(now, st.Started), printable(orNone(st.Datapath)))
	if st.Generation == 0 {
		b.WriteString("no topology applied yet\n")
	} else {
		fmt.Fprintf(b, "generation %d applied %s ago\n", st.Generation, ago(now, st.Applied))
	}
	if st.ConfirmBy != nil {
		fmt.Fprintf(b, "it is taken back in %s unless `pwctl confirm` is run\n", left(now, *st.ConfirmBy))
	}
	if st.FileDiffers {
		fmt.Fprintf(b, "the topology file (%s) differs from what is in force (%s); `pwctl apply -f FILE` applies it\n",
			hash(st.FileHash), hash(st.AppliedHash))
	}
	for _, n := range st.Notes {
		fmt.Fprintf(b, "note: %s\n", printable(n))
	}
}

// hash is enough of a SHA-256 to tell two apart.
func hash(h string) string {
	if len(h) > 12 {
		h = h[:12]
	}
	return printable(orNone(h))
}

func statusProblems(b *strings.Builder, st *api.Status) {
	if len(st.Problems) == 0 {
		return
	}
	b.WriteString("\nProblems\n")
	for _, p := range st.Problems {
		fmt.Fprintf(b, "  %s: %s\n", printable(p.Object), printable(p.What))
		if p.Fix != "" {
			fmt.Fprintf(b, "    do: %s\n", printable(p.Fix))
		}
	}
}

// statusTunnels is each tunnel with its pseudowires below it.
func (a *app) statusTunnels(b *strings.Builder, st *api.Status, wide bool) error {
	if len(st.Tunnels) == 0 && len(st.Pseudowires) == 0 {
		b.WriteString("\nno tunnels and no pseudowires\n")
		return nil
	}
	b.WriteString("\n")
	t := table{header: []string{"TUNNEL / PSEUDOWIRE", "PEER", "STATE", "SINCE", "DETAIL"}, state: 2}
	left := slices.Clone(st.Pseudowires)
	for _, tun := range st.Tunnels {
		detail := tun.Reason
		// The reason of a state that is as it should be is history.
		if detail == "" || tun.State == "established" && (tun.Cause == nil || tun.Cause.Kind != silent) {
			detail = fmt.Sprintf("%s %s to %s", orNone(tun.Encapsulation), orNone(tun.Local), orNone(tun.Remote))
		}
		t.rows = append(t.rows, []string{tun.Name, orNone(tun.Peer), orNone(tun.State), lasted(tun.SinceSeconds), detail})
		var mine []api.Pseudowire
		left = slices.DeleteFunc(left, func(p api.Pseudowire) bool {
			hit := p.Peer == tun.Peer && (p.Tunnel == tun.Name || p.Tunnel == tunnelKey(tun.Name, tun.Peer))
			if hit {
				mine = append(mine, p)
			}
			return hit
		})
		t.rows = append(t.rows, statusPseudowires(mine, "  ", wide)...)
	}
	t.rows = append(t.rows, statusPseudowires(left, "", wide)...)
	return t.write(b, a.colour())
}

// statusPseudowires is one row each, those that are not up first.
func statusPseudowires(list []api.Pseudowire, indent string, wide bool) [][]string {
	up := func(p api.Pseudowire) int {
		if p.State == "up" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b api.Pseudowire) int { return cmp.Compare(up(a), up(b)) })
	var rows [][]string
	shown := 0
	for i, p := range list {
		shown += up(p)
		if rest := len(list) - i; shown > pseudowiresShown && rest > 1 && !wide {
			return append(rows, []string{indent + fmt.Sprintf("and %d more", rest), "", "up", "", "see `pwctl status -o wide`"})
		}
		detail := p.Reason
		if detail == "" || p.State == "up" {
			detail = strings.Join([]string{orNone(p.Device), orNone(p.Datapath), orNone(p.Attachment)}, ", ")
			if p.Reason != "" {
				detail += "; " + p.Reason
			}
		}
		rows = append(rows, []string{indent + p.Name, orNone(p.Peer), orNone(p.State), lasted(p.SinceSeconds), detail})
	}
	return rows
}
