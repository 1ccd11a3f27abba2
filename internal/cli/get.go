package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

// pollInterval is how often -w and --wait look.
const pollInterval = time.Second

func (a *app) getCommand() *cobra.Command {
	out := newFormat(formatText, formatWide, formatJSON, formatYAML)
	watch := false
	cmd := &cobra.Command{
		Use:   "get KIND [NAME…]",
		Short: "Show tunnels, sessions, pseudowires, attachments, classes or macs",
		Long: "Show what this site has of a kind: " + strings.Join(kinds(), ", ") + ".\n" +
			"A tunnel of several peers is named NAME/PEER, a network's pseudowire NETWORK/PEER.\n\n" +
			"JSON and YAML are {\"items\": [...]}, however many there are. With --watch it shows them\n" +
			"again whenever a state changes (counters and times alone do not count), as JSON one\n" +
			"line each time.",
		Example:           "  pwctl get tunnels\n  pwctl get pseudowires tenant-a -o json\n  pwctl get sessions -o wide --watch",
		Args:              arguments(knownKind),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _ := findResource(args[0])
			return a.get(cmd.Context(), r, args[1:], out.value, watch)
		},
	}
	out.flag(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show them again when they change")
	return cmd
}

// knownKind wants a kind first.
func knownKind(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("which kind? There are %s", strings.Join(kinds(), ", "))
	}
	if _, ok := findResource(args[0]); !ok {
		return fmt.Errorf("unknown kind %q; there are %s", args[0], strings.Join(kinds(), ", "))
	}
	return nil
}

// get shows the items of a kind. A name that nothing answers to is an error,
// after the others are shown; while watching it may come and go.
func (a *app) get(ctx context.Context, r resource, names []string, format string, watch bool) error {
	c := a.client()
	defer c.Close()
	var last []string
	for first := true; ; first = false {
		all, err := r.list(ctx, c)
		if watch && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		found, missing := find(all, names)
		if now := signature(r, found); first || !slices.Equal(now, last) {
			if err := a.show(r, found, format, watch, first); err != nil {
				return err
			}
			last = now
		}
		if !watch {
			if len(missing) > 0 {
				return notFoundError(r, missing, all)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.After(pollInterval):
		}
	}
}

// signature is what has to differ for -w to show the items again.
func signature(r resource, list []item) []string {
	var out []string
	for _, it := range list {
		for i, col := range r.columns {
			if !col.wide && !col.moving {
				out = append(out, it.cells[i])
			}
		}
	}
	return out
}

// show prints items once.
func (a *app) show(r resource, list []item, format string, watch, first bool) error {
	switch format {
	case formatJSON, formatYAML:
		values := api.List[any]{Items: []any{}}
		for _, it := range list {
			values.Items = append(values.Items, it.value)
		}
		if watch && format == formatJSON {
			return a.line(values)
		}
		if !first {
			if _, err := io.WriteString(a.Stdout, "---\n"); err != nil {
				return err
			}
		}
		return a.write(format, values)
	}
	if !first {
		if _, err := io.WriteString(a.Stdout, "\n"); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		_, err := fmt.Fprintf(a.Stderr, "no %s\n", r.plural)
		return err
	}
	t := table{state: -1}
	for i, col := range r.columns {
		if col.wide && format != formatWide {
			continue
		}
		if col.state {
			t.state = len(t.header)
		}
		t.header = append(t.header, col.title)
		for n, it := range list {
			if len(t.rows) <= n {
				t.rows = append(t.rows, nil)
			}
			t.rows[n] = append(t.rows[n], it.cells[i])
		}
	}
	return t.write(a.Stdout, a.colour())
}

// completeNames completes a kind, then names of that kind from the daemon.
func (a *app) completeNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return kinds(), cobra.ShellCompDirectiveNoFileComp
	}
	r, ok := findResource(args[0])
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), pollInterval)
	defer cancel()
	c := a.client()
	defer c.Close()
	all, err := r.list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, it := range all {
		if !slices.Contains(args[1:], it.names[0]) && !slices.Contains(out, it.names[0]) {
			out = append(out, it.names[0])
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
