package cli

import (
	"fmt"
	"strings"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var config bool
	cmd := &cobra.Command{
		Use:   "explain [KEY.PATH]",
		Short: "Explain a key of the topology file",
		Long: "Explain a key of the topology file, or with --config of the daemon's configuration: what it is, what\n" +
			"its value can be, what holds without it, and an example. Names that the file chooses can be left out of the path.",
		Example: "  pwctl explain\n  pwctl explain pseudowires.attach.vlan\n  pwctl explain --config access",
		Args:    arguments(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nextPaths(topology.Paths(config), word), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(_ *cobra.Command, args []string) error {
			path := strings.Join(args, "")
			e, err := topology.Explain(config, path)
			if err != nil {
				return err
			}
			if out.value != formatText {
				return a.write(out.value, e)
			}
			_, err = fmt.Fprint(a.Stdout, explanation(e))
			return err
		},
	}
	cmd.Flags().BoolVar(&config, "config", false, "of the daemon's configuration instead")
	out.flag(cmd)
	return cmd
}

// nextPaths are the paths that go on from what was typed, to the next dot.
func nextPaths(all []string, word string) []string {
	var next []string
	for _, p := range all {
		rest, ok := strings.CutPrefix(p, word)
		if ok && !strings.Contains(rest, ".") {
			next = append(next, p)
		}
	}
	return next
}

// explanation is it for people.
func explanation(e *topology.Explanation) string {
	var b strings.Builder
	if e.Path != "" {
		fmt.Fprintf(&b, "KEY      %s\n", e.Path)
	}
	fmt.Fprintf(&b, "TYPE     %s\n", e.Type)
	switch {
	case e.Required:
		b.WriteString("DEFAULT  none: it is required\n")
	case e.Default != "":
		fmt.Fprintf(&b, "DEFAULT  %s\n", e.Default)
	}
	fmt.Fprintf(&b, "\n%s\n", wrapped(e.About, "  "))
	if e.Example != "" {
		b.WriteString("\nEXAMPLE\n")
		for line := range strings.Lines(e.Example) {
			b.WriteString("  " + line)
		}
	}
	if len(e.Keys) > 0 {
		b.WriteString("\nKEYS\n")
	}
	for _, k := range e.Keys {
		required := ""
		if k.Required {
			required = " (required)"
		}
		fmt.Fprintf(&b, "  %s%s: %s\n%s\n", k.Key, required, k.Type, wrapped(k.About, "    "))
	}
	return b.String()
}

// wrapped is text in lines of at most 100 characters, each indented.
func wrapped(text, indent string) string {
	var b strings.Builder
	width := 0
	for i, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case i == 0:
			b.WriteString(indent + word)
			width = len(indent) + n
		case width+1+n > 100:
			b.WriteString("\n" + indent + word)
			width = len(indent) + n
		default:
			b.WriteString(" " + word)
			width += 1 + n
		}
	}
	return b.String()
}
