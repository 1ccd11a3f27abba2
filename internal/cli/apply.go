package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

// stdinName is what diagnostics call a topology from standard input.
const stdinName = "<stdin>"

// maxDocument bounds what is read from a file; the topology's own limit is
// lower and has a better message.
const maxDocument = 3 << 20

func (a *app) validateCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var file string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a topology file without a daemon",
		Long: "Check a topology file without a daemon. Every fault is told at once, on standard error\n" +
			"(as JSON or YAML on standard output). The exit code is 0 if the file can be applied,\n" +
			"warnings or not, and 4 if it cannot. Secrets' files are looked at where they can be read.",
		Example: "  pwctl validate -f two-sites.yaml\n  generate-topology | pwctl validate -f -",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, doc, err := a.document(cmd, file)
			if err != nil {
				return err
			}
			return a.validate(name, doc, out.value)
		},
	}
	fileFlag(cmd, &file)
	out.flag(cmd)
	return cmd
}

func (a *app) validate(name string, doc []byte, format string) error {
	ds := a.Validate(name, doc)
	if format != formatText {
		if err := a.write(format, api.List[api.Diagnostic]{Items: append([]api.Diagnostic{}, ds...)}); err != nil {
			return err
		}
	} else {
		a.diagnostics(ds)
	}
	failures, warnings := countDiagnostics(ds)
	if failures > 0 {
		return &exitError{code: ExitInvalid, err: fmt.Errorf("%s is invalid: %s", name, tally(failures, warnings))}
	}
	if format == formatText {
		verdict := "valid"
		if warnings > 0 {
			verdict += ", " + counted(warnings, "warning")
		}
		_, err := fmt.Fprintf(a.Stdout, "%s: %s\n", name, verdict)
		return err
	}
	return nil
}

func (a *app) diffCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var file string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what applying a topology file would change",
		Long: "Show what applying a topology file would change here, as `apply --dry-run` does. The\n" +
			"exit code is 0 if it would change nothing, 1 if something, 2 or higher if that could not\n" +
			"be found out.",
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.diff(cmd, file, out.value)
			// 1 is taken: "there are differences".
			if exitCode(err) == ExitFailed && !errors.Is(err, errDifferent) {
				return &exitError{code: ExitUsage, err: err}
			}
			return err
		},
	}
	fileFlag(cmd, &file)
	out.flag(cmd)
	return cmd
}

// errDifferent is the end of a diff that found differences; it says nothing.
var errDifferent = &exitError{code: ExitFailed}

func (a *app) diff(cmd *cobra.Command, file, format string) error {
	name, doc, err := a.text(cmd, file)
	if err != nil {
		return err
	}
	c := a.client()
	defer c.Close()
	// Disruptive: what is only asked about needs no leave.
	res, err := c.Apply(cmd.Context(), api.ApplyRequest{Name: name, Document: doc, Directory: directory(name), DryRun: true, Disruptive: true})
	if err != nil {
		return fileError(name, err)
	}
	if err := a.showPlan(res, format); err != nil {
		return err
	}
	if len(res.Changes) > 0 {
		return errDifferent
	}
	return nil
}

// applyOptions are the flags of `apply`.
type applyOptions struct {
	file                               string
	format                             string
	yes, dryRun, requirePeers, waiting bool
	confirm                            time.Duration
}

func (a *app) applyCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make this site what a topology file says",
		Long: "Make this site what a topology file says, verify it, and return. If it cannot be done\n" +
			"everything is put back (exit code 5). Changes that interrupt traffic are asked about on a\n" +
			"terminal; without one they need --yes.\n\n" +
			"A new pseudowire whose peer does not know it yet is no failure: it is shown as waiting,\n" +
			"unless --require-peers asks that it comes up.\n\n" +
			"With --confirm the topology before comes back by itself unless pwctl confirm is run in\n" +
			"time: for changes that may cut off whoever makes them. --wait then stays until it is known\n" +
			"which (exit code 7: nobody confirmed).",
		Example: "  pwctl apply -f two-sites.yaml\n  pwctl apply -f two-sites.yaml --confirm 120s\n  pwctl apply -f two-sites.yaml --dry-run\n  pwctl apply -f - -y < two-sites.yaml",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.format = out.value
			if err := checkConfirm(cmd, o.confirm); err != nil {
				return err
			}
			return a.apply(cmd, o)
		},
	}
	fileFlag(cmd, &o.file)
	out.flag(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before changes that interrupt traffic")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change, and change nothing")
	f.BoolVar(&o.requirePeers, "require-peers", false, "fail, and put everything back, unless new pseudowires come up too")
	f.DurationVar(&o.confirm, "confirm", 0, "put the topology before back unless pwctl confirm is run within this time")
	f.BoolVar(&o.waiting, "wait", false, "return when the apply is final: with --confirm when it is confirmed or taken back")
	return cmd
}

func (a *app) apply(cmd *cobra.Command, o applyOptions) error {
	name, doc, err := a.text(cmd, o.file)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	c := a.client()
	defer c.Close()
	req := api.ApplyRequest{Name: name, Document: doc, Directory: directory(name), DryRun: o.dryRun, Disruptive: o.yes || o.dryRun, RequirePeers: o.requirePeers, ConfirmSeconds: o.confirm.Seconds()}
	res, err := a.applyShown(ctx, c, req, o.format)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeNeedsConfirmation {
		if err := a.ask(ctx, refused); err != nil {
			return err
		}
		req.Disruptive = true
		res, err = a.applyShown(ctx, c, req, o.format)
	}
	if err != nil {
		return fileError(name, err)
	}
	if o.format == formatText {
		a.diagnostics(res.Warnings)
	}
	if o.dryRun {
		return a.showPlan(res, o.format)
	}
	if err := a.showApplied(res, o.format, o.confirm); err != nil || !o.waiting || res.ConfirmBy == nil {
		return err
	}
	return a.awaitConfirmation(ctx, c, res.Generation)
}

// fileError names the file that was refused.
func fileError(name string, err error) error {
	var refused *api.Error
	switch {
	case errors.Is(err, context.Canceled):
		return &exitError{code: ExitFailed, err: errors.New("interrupted; what the daemon has begun it finishes"), help: "see `pwctl status`"}
	case errors.As(err, &refused) && refused.Code == api.CodeInvalidTopology && len(refused.Diagnostics) > 0:
		failures, warnings := countDiagnostics(refused.Diagnostics)
		out := *refused
		out.Title, out.Detail = fmt.Sprintf("%s is invalid: %s; nothing was changed", name, tally(failures, warnings)), ""
		return &out
	}
	return err
}

// ask shows what would be interrupted and returns nil if that is wanted.
func (a *app) ask(ctx context.Context, refused *api.Error) error {
	fmt.Fprintln(a.Stderr, "This interrupts traffic:")
	if err := changeTable(refused.Changes, "  ").write(a.Stderr, false); err != nil {
		return err
	}
	if !a.StdinTerminal {
		return &exitError{code: ExitFailed, err: errors.New("nothing was changed: there is no terminal to ask on"),
			help: "repeat with --yes if the interruption is fine"}
	}
	fmt.Fprint(a.Stderr, "Apply them? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Stderr)
	case s := <-answer:
		if s == "y" || s == "yes" {
			return nil
		}
	}
	return &exitError{code: ExitFailed, err: errors.New("nothing was changed")}
}

// showPlan shows what would change.
func (a *app) showPlan(res *api.ApplyResult, format string) error {
	if format != formatText {
		return a.write(format, res)
	}
	if len(res.Changes) == 0 {
		_, err := fmt.Fprintln(a.Stdout, "no changes")
		return err
	}
	if err := changeTable(res.Changes, "").write(a.Stdout, a.colour()); err != nil {
		return err
	}
	add, change, remove := countChanges(res.Changes)
	_, err := fmt.Fprintf(a.Stdout, "%d to add, %d to change, %d to remove\n%s", add, change, remove, untouched(res.Untouched))
	return err
}

// untouched is a line of the objects that stay as they are, some of each kind by name; nothing if
// there are none.
func untouched(objects []api.Object) string {
	const named = 8
	var kinds []string
	for _, kind := range []string{"bridge", "tunnel", "pseudowire"} {
		var names []string
		n := 0
		for _, o := range objects {
			if o.Kind != kind {
				continue
			}
			if n++; n <= named {
				names = append(names, printable(o.Name))
			}
		}
		switch {
		case n == 0:
			continue
		case n > named:
			names = append(names, fmt.Sprintf("%d more", n-named))
		}
		kinds = append(kinds, counted(n, kind)+" ("+strings.Join(names, ", ")+")")
	}
	if len(kinds) == 0 {
		return ""
	}
	return "untouched: " + strings.Join(kinds, ", ") + "\n"
}

// showApplied shows what was changed. asked is the time to confirm it in.
func (a *app) showApplied(res *api.ApplyResult, format string, asked time.Duration) error {
	if format != formatText {
		return a.write(format, res)
	}
	if len(res.Changes) == 0 {
		fmt.Fprintf(a.Stdout, "no changes: generation %d is what the file says\n", res.Generation)
	} else {
		if err := changeTable(res.Changes, "").write(a.Stdout, a.colour()); err != nil {
			return err
		}
		add, change, remove := countChanges(res.Changes)
		fmt.Fprintf(a.Stdout, "applied as generation %d in %.2fs: %d added, %d changed, %d removed\n",
			res.Generation, res.Seconds, add, change, remove)
	}
	for _, w := range res.Waiting {
		fmt.Fprintln(a.Stdout, "not up yet: "+printable(w))
	}
	if res.ConfirmBy != nil {
		fmt.Fprintf(a.Stdout, "run `pwctl confirm` within %s to keep it\n", spoken(asked))
	}
	return nil
}

// changeTable is one row per change: sign, kind, name, impact, detail.
func changeTable(list []api.Change, indent string) table {
	t := table{state: -1}
	for _, c := range list {
		t.rows = append(t.rows, []string{indent + sign(c.Action) + " " + c.Kind, c.Name, impact(c.Impact), c.Detail})
	}
	return t
}

func sign(action string) string {
	switch action {
	case "add":
		return "+"
	case "remove":
		return "-"
	}
	return "~"
}

// impact is what a change does to traffic, in words.
func impact(s string) string {
	switch s {
	case "":
		return ""
	case "resets-session":
		return "resets the session"
	}
	return s
}

func countChanges(list []api.Change) (add, change, remove int) {
	for _, c := range list {
		switch c.Action {
		case "add":
			add++
		case "remove":
			remove++
		default:
			change++
		}
	}
	return add, change, remove
}

// fileFlag adds the flag -f.
func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "the topology file; - is standard input")
}

// document reads the file that -f names, and gives the name that diagnostics
// call it by.
func (a *app) document(cmd *cobra.Command, file string) (name string, doc []byte, err error) {
	if file == "" {
		return "", nil, &usageError{cmd: cmd.CommandPath(), err: errors.New("which file? -f FILE, or -f - for standard input")}
	}
	in := a.Stdin
	name = stdinName
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", nil, fmt.Errorf("reading the topology: %w", err)
		}
		defer f.Close()
		name, in = file, f
	}
	doc, err = io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return "", nil, fmt.Errorf("reading the topology: %w", err)
	}
	return name, doc, nil
}

// directory is what the names of secrets' files in a document are relative to, for the
// daemon, which reads them: the document's own folder, or where pwctl was started.
func directory(name string) string {
	if name == stdinName {
		name = ""
	}
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return ""
	}
	return dir
}

// text is the document as it can be sent. JSON carries no other text than UTF-8;
// what is wrong with this one is for the validation to say.
func (a *app) text(cmd *cobra.Command, file string) (name, doc string, err error) {
	name, octets, err := a.document(cmd, file)
	if err != nil {
		return "", "", err
	}
	if len(octets) > maxDocument || !utf8.Valid(octets) {
		if err := a.validate(name, octets, formatText); err != nil {
			return "", "", err
		}
		return "", "", &exitError{code: ExitInvalid, err: fmt.Errorf("%s is no UTF-8 text of at most 1 MiB", name)}
	}
	return name, string(octets), nil
}
