// Package cli is pwctl: commands that ask a daemon over its API socket and show
// the answers to people (tables) and programs (JSON, YAML, exit codes).
//
// Data goes to standard output, everything else to standard error. An exit code
// means the same for every command: see the Exit constants.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/doctor"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// SocketVariable is the environment variable that names the daemon's socket
// where --socket does not.
const SocketVariable = "PWCTL_SOCKET"

// Env is the world around a command.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// StdinTerminal, StdoutTerminal and StderrTerminal say what is a terminal: somebody who
	// can be asked, something that shows colours, somebody who waits.
	StdinTerminal, StdoutTerminal, StderrTerminal bool
	// Getenv reads an environment variable; "" where it is not set.
	Getenv func(string) string
	// Now and After are the clock.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Location is the time zone of what people read.
	Location *time.Location
	// Version is pwctl's own.
	Version string
	// Validate gives the diagnostics of a topology file.
	Validate func(name string, document []byte) []api.Diagnostic
	// Command runs a program of the host and returns what it said.
	Command func(ctx context.Context, args ...string) ([]byte, error)
	// Host is what the doctor examines.
	Host doctor.Host
}

// System is the process's own Env.
func System(version string) Env {
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdinTerminal: isTerminal(os.Stdin), StdoutTerminal: isTerminal(os.Stdout), StderrTerminal: isTerminal(os.Stderr),
		Getenv: os.Getenv, Now: time.Now, After: time.After, Location: time.Local,
		Version: version, Validate: validateTopology, Command: runCommand, Host: thisHost(),
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// app is one run of pwctl.
type app struct {
	Env
	socket string
}

// Run carries out the command line args (without the program's name) and returns
// the exit code. Errors are on e.Stderr then.
func Run(ctx context.Context, e Env, args []string) int {
	a := &app{Env: e}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	err := root.ExecuteContext(ctx)
	a.report(err)
	return exitCode(err)
}

// Commands is the command tree, for those who document it. Its commands are not to be run.
func Commands(e Env) *cobra.Command { return (&app{Env: e}).root() }

// root is the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pwctl",
		Short: "Look at and change the L2TPv3 pseudowires of this site",
		Long: "pwctl talks to the pwd of this site: it shows tunnels, sessions and pseudowires,\n" +
			"and applies topology files. Without a command it shows the status.\n\n" +
			"Exit codes: 0 ok, 1 failed, 2 usage, 3 no daemon answers, 4 invalid topology, 5 apply\n" +
			"failed and rolled back, 6 rolling back failed too, 7 not confirmed, 8 not in time, 9 degraded (status),\n" +
			"10 not permitted.",
		Args:              knownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), statusOptions{}) },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd: cmd.CommandPath(), err: err} })
	root.SuggestionsMinimumDistance = 2
	def := a.Getenv(SocketVariable)
	if def == "" {
		def = defaultSocket()
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", def, "the daemon's socket, also $"+SocketVariable)
	root.AddCommand(a.statusCommand(), a.getCommand(), a.describeCommand(), a.validateCommand(), a.schemaCommand(), a.explainCommand(), a.importCommand(), a.graphCommand(), a.diffCommand(), a.applyCommand(), a.confirmCommand(), a.rollbackCommand(), a.historyCommand(), a.rotateCommand(), a.announceCommand(), a.drainCommand(), a.undrainCommand(), a.driftCommand(), a.eventsCommand(), a.topCommand(), a.classifyCommand(), a.captureCommand(), a.doctorCommand(), a.sysdumpCommand(), a.completionCommand(), a.versionCommand())
	root.SetHelpCommand(helpCommand())
	return root
}

// defaultSocket is the socket of a daemon that is not told otherwise.
func defaultSocket() string { return filepath.Join(api.DefaultRunDir, api.SocketName) }

// knownCommand refuses a first word that is no command, with the list of those
// that are.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	msg := fmt.Sprintf("unknown command %q; there are %s", args[0], strings.Join(names, ", "))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += fmt.Sprintf("; did you mean %s?", near[0])
	}
	return &usageError{cmd: cmd.CommandPath(), err: errors.New(msg)}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = knownCommand(target, rest)
			}
			if err != nil {
				return err
			}
			return target.Help()
		},
	}
}

// arguments makes a failed check of positional arguments a usage error.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{cmd: cmd.CommandPath(), err: err}
		}
		return nil
	}
}

// client connects to the daemon.
func (a *app) client() *api.Client { return api.Dial(a.socket) }

// colour says whether standard output gets colours: on a terminal that has them
// and whose user did not object (https://no-color.org).
func (a *app) colour() bool {
	return a.StdoutTerminal && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb"
}

func (a *app) versionCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of pwctl",
		Args:  arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if out.value == formatText {
				_, err := fmt.Fprintln(a.Stdout, "pwctl", a.Version)
				return err
			}
			return a.write(out.value, struct {
				Version string `json:"version"`
			}{a.Version})
		},
	}
	out.flag(cmd)
	return cmd
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Write a completion script for a shell",
		Long: "Write a completion script for a shell to standard output. It completes the names of\n" +
			"tunnels and pseudowires from the running daemon.\n\n" +
			"  bash:  source <(pwctl completion bash)\n" +
			"  zsh:   pwctl completion zsh > \"${fpath[1]}/_pwctl\"\n" +
			"  fish:  pwctl completion fish | source",
		ValidArgs: shells,
		Args:      arguments(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.Stdout)
			}
			return cmd.Root().GenFishCompletion(a.Stdout, true)
		},
	}
}
