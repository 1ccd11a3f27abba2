package cli

import (
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/spf13/cobra"
)

func (a *app) schemaCommand() *cobra.Command {
	files := map[string]func() []byte{"topology": topology.JSONSchema, "config": topology.ConfigJSONSchema}
	return &cobra.Command{
		Use:   "schema [topology|config]",
		Short: "Write the JSON Schema of a file, for editors",
		Long: "Write the JSON Schema (draft 7) of the topology file, or of the daemon's configuration. It says\n" +
			"which keys there are and what form a value has; what values mean together is for `validate`.",
		Example:   "  pwctl schema > topology.schema.json",
		ValidArgs: []string{"topology", "config"},
		Args:      arguments(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)),
		RunE: func(_ *cobra.Command, args []string) error {
			which := "topology"
			if len(args) > 0 {
				which = args[0]
			}
			_, err := a.Stdout.Write(files[which]())
			return err
		},
	}
}
