package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Output formats.
const (
	formatText = "text"
	formatWide = "wide"
	formatJSON = "json"
	formatYAML = "yaml"

	formatMermaid = "mermaid"
	formatDot     = "dot"
	formatSVG     = "svg"
)

// format is the value of -o: one of those that a command knows, its first by
// default.
type format struct {
	value string
	known []string
}

func newFormat(known ...string) *format { return &format{value: known[0], known: known} }

// String, Set and Type make a format a pflag.Value.
func (f *format) String() string { return f.value }
func (f *format) Type() string   { return strings.Join(f.known, "|") }
func (f *format) Set(s string) error {
	if !slices.Contains(f.known, s) {
		return fmt.Errorf("there are %s", strings.Join(f.known, ", "))
	}
	f.value = s
	return nil
}

func (f *format) flag(cmd *cobra.Command) {
	cmd.Flags().VarP(f, "output", "o", "how to show it")
	// The only error is that of a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("output",
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return f.known, cobra.ShellCompDirectiveNoFileComp
		})
}

// write prints v for programs.
func (a *app) write(format string, v any) error {
	if format == formatYAML {
		return writeYAML(a.Stdout, v)
	}
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// line prints v as one line of JSON.
func (a *app) line(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
