package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pwd-project/pwd/internal/importer"
	"github.com/spf13/cobra"
)

// maxImport bounds what is read, in octets.
const maxImport = 8 << 20

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import ip-l2tp|vyos",
		Short: "Make a topology file of static L2TPv3 that other tools have set up",
		Long: "Make a topology file of static L2TPv3 that other tools have set up, with static tunnels and pseudowires.\n" +
			"It goes to standard output, or with --write to a file that only its owner can read; what cannot be\n" +
			"carried over goes to standard error, and into the file as comments. Nothing is applied.",
		Args: knownImport,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{cmd: cmd.CommandPath(), err: errors.New("import what? There are ip-l2tp and vyos")}
		},
	}
	cmd.AddCommand(a.importIPCommand(), a.importVyOSCommand())
	return cmd
}

func knownImport(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{cmd: cmd.CommandPath(), err: fmt.Errorf("%q cannot be imported; there are ip-l2tp and vyos", args[0])}
	}
	return nil
}

func (a *app) importIPCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "ip-l2tp [FILE]",
		Short: "Import what `ip l2tp` of iproute2 has set up",
		Long: "Import what `ip l2tp show tunnel` and `ip l2tp show session` say, one after the other, from a file (- is\n" +
			"standard input) in text or JSON, or without one from this host, by asking `ip` itself.",
		Example: "  pwctl import ip-l2tp > topology.yaml\n  (ip l2tp show tunnel; ip l2tp show session) | pwctl import ip-l2tp -",
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var text, links string
			if len(args) > 0 {
				var err error
				if text, err = a.readInput(args[0]); err != nil {
					return err
				}
			} else {
				for _, of := range []string{"tunnel", "session"} {
					out, err := a.Command(cmd.Context(), "ip", "-j", "l2tp", "show", of)
					if err != nil {
						return fmt.Errorf("ip l2tp show %s: %w: %s", of, err, out)
					}
					text += string(out) + "\n"
				}
				if out, err := a.Command(cmd.Context(), "ip", "-j", "link", "show"); err == nil {
					links = string(out)
				}
			}
			d, err := importer.IPL2TP(text)
			if err != nil {
				return err
			}
			d.Links(links)
			return a.imported(d, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (a *app) importVyOSCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "vyos FILE",
		Short: "Import the l2tpv3 interfaces of a VyOS configuration",
		Long: "Import the l2tpv3 interfaces of a VyOS configuration: `set interfaces l2tpv3 …` commands, as\n" +
			"`show configuration commands` has them, or the form with braces of config.boot. - is standard input.",
		Example: "  pwctl import vyos config.boot > topology.yaml",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			d, err := importer.VyOS(text)
			if err != nil {
				return err
			}
			return a.imported(d, o)
		},
	}
	o.flags(cmd)
	return cmd
}

// importOptions are what both have.
type importOptions struct {
	importer.Options
	write string
}

func (o *importOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.Site, "site", "", "what this host is called in the topology; \"here\" if nothing says")
	cmd.Flags().StringVar(&o.Sublayer, "sublayer", "default", "the sessions' L2-Specific Sublayer, default or none")
	cmd.Flags().StringVarP(&o.write, "write", "w", "", "the file to write, instead of standard output")
}

// imported writes the topology, and tells what it lacks.
func (a *app) imported(d *importer.Definition, o importOptions) error {
	if o.Sublayer != "default" && o.Sublayer != "none" {
		return &exitError{code: ExitUsage, err: fmt.Errorf("--sublayer %q: use default or none", o.Sublayer)}
	}
	text := d.Topology(o.Options)
	for _, n := range d.Notes {
		fmt.Fprintln(a.Stderr, "note: "+printable(n))
	}
	if o.write != "" {
		f, err := os.OpenFile(o.write, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	} else if _, err := io.WriteString(a.Stdout, text); err != nil {
		return err
	}
	name := o.write
	if name == "" {
		name = "topology.yaml"
	}
	if list := a.Validate(name, []byte(text)); len(list) > 0 {
		a.diagnostics(list)
		if failures, _ := countDiagnostics(list); failures > 0 {
			return &exitError{code: ExitInvalid, err: errors.New("what was imported is no valid topology: it has to be corrected by hand")}
		}
	}
	return nil
}

// readInput reads a file, or standard input for -.
func (a *app) readInput(name string) (string, error) {
	in := a.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read %s: %w", name, err)
	case len(b) > maxImport:
		return "", fmt.Errorf("%s has more than %d octets", name, maxImport)
	}
	return string(b), nil
}
