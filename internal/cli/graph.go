package cli

import (
	"fmt"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/spf13/cobra"
)

func (a *app) graphCommand() *cobra.Command {
	out := newFormat(formatMermaid, formatDot, formatSVG)
	var file string
	cmd := &cobra.Command{
		Use:   "graph -f FILE",
		Short: "Draw a topology file: Mermaid, Graphviz or SVG",
		Long: "Draw a topology file: sites, tunnels, and pseudowires between attachment circuits. Mermaid is\n" +
			"what many Markdown viewers draw; dot is Graphviz's language; svg is a picture. It needs no daemon.",
		Example: "  pwctl graph -f two-sites.yaml\n  pwctl graph -f two-sites.yaml -o svg > two-sites.svg",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, doc, err := a.document(cmd, file)
			if err != nil {
				return err
			}
			t, _ := topology.Parse(name, doc)
			if t == nil {
				return a.validate(name, doc, formatText)
			}
			text := t.Graph().Mermaid()
			switch out.value {
			case formatDot:
				text = t.Graph().Dot()
			case formatSVG:
				text = t.Graph().SVG()
			}
			_, err = fmt.Fprint(a.Stdout, text)
			return err
		},
	}
	fileFlag(cmd, &file)
	out.flag(cmd)
	return cmd
}
