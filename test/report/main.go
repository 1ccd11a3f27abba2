// Report runs `go test -json` and shows what a person wants of it: the packages,
// what failed and with what words, what was skipped and why. It fails if a
// test failed and, in CI, if one was skipped: there, what cannot be tested is not tested.
//
// With -again N, up to N tests that failed are run once more, alone. One that passes then
// depends on the machine's load or on time: it is named as unsteady, and does not fail the rest. With -later FILE
// that is left to the run with -earlier FILE: of the first others run beside, of the second none.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	var o options
	flag.IntVar(&o.again, "again", 0, "run up to so many failed tests once more, alone")
	flag.StringVar(&o.later, "later", "", "leave that to the run with -earlier, by this `file`")
	flag.StringVar(&o.earlier, "earlier", "", "do so with those, too, that the run with -later has left in this `file`")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: report [-again N [-later FILE | -earlier FILE]] go test -json ...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	o.strict = os.Getenv("CI") != ""
	ok, err := o.all(flag.Args(), os.Stdout, goTest)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

type options struct {
	strict         bool // what is skipped has failed
	again          int
	later, earlier string
}

// all runs the tests with command, and those that failed once more.
func (o options) all(command []string, w io.Writer, run tester) (bool, error) {
	if o.later != "" {
		if err := os.Remove(o.later); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	var r results
	status, err := read(command, func(events io.Reader) (err error) {
		r, err = report(events, w, o.strict)
		return err
	})
	if err == nil && r.ok(o.strict) && status != 0 { // what failed is not among the events
		err = fmt.Errorf("%s: exit status %d", strings.Join(command, " "), status)
	}
	if err == nil && o.earlier != "" {
		err = r.recall(o.earlier)
	}
	switch {
	case err != nil:
		return false, err
	case r.ok(o.strict):
		return true, nil
	case o.later != "":
		return r.postpone(o.later, w, o.again, o.strict)
	}
	return retry(r, w, o.again, o.strict, run)
}

// read runs a command, hands over its output, and returns its exit status.
func read(command []string, output func(io.Reader) error) (int, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	readErr := output(out)
	waitErr := cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](waitErr); waitErr != nil && !exited {
		return 0, waitErr
	}
	return cmd.ProcessState.ExitCode(), readErr
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// name is the test as `go test -run` has it, or the package.
func (e event) name() string {
	if e.Test == "" {
		return e.Package
	}
	return e.Package + " " + e.Test
}

// results is what became of the tests.
type results struct {
	passed, failed, skipped int
	broken                  bool                       // something did not build
	failures                map[string]map[string]bool // by package, top-level tests; none if all of it has to run again
}

func (r results) ok(strict bool) bool {
	return r.failed == 0 && !r.broken && r.passed > 0 && (!strict || r.skipped == 0)
}

func (r *results) fail(e event) {
	r.failed++
	tests := r.failures[e.Package]
	if tests == nil {
		tests = map[string]bool{}
		r.failures[e.Package] = tests
	}
	if e.Test != "" {
		top, _, _ := strings.Cut(e.Test, "/")
		tests[top] = true
	}
}

// report reads events until their end.
func report(r io.Reader, w io.Writer, strict bool) (results, error) {
	output := map[string]*strings.Builder{} // of tests that have not ended
	skipped := map[string]string{}          // why
	crashed := map[string]bool{}            // packages: not all of their tests have run
	out := results{failures: map[string]map[string]bool{}}
	lines := bufio.NewReader(r)
	for {
		line, readErr := lines.ReadBytes('\n')
		if readErr == io.EOF && len(line) == 0 {
			break
		}
		if readErr != nil && readErr != io.EOF {
			return out, readErr
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // go's own words, about the build for one
			w.Write(line)
			continue
		}
		switch e.Action {
		case "build-output":
			io.WriteString(w, e.Output)
		case "build-fail":
			out.broken = true
		case "output":
			if strings.HasPrefix(e.Output, "panic: ") || strings.HasPrefix(e.Output, "fatal error: ") {
				crashed[e.Package] = true
			}
			if output[e.name()] == nil {
				output[e.name()] = &strings.Builder{}
			}
			output[e.name()].WriteString(e.Output)
		case "pass", "fail", "skip":
			text := ""
			if b := output[e.name()]; b != nil {
				text = b.String()
			}
			delete(output, e.name())
			switch {
			case e.Action == "fail":
				out.fail(e)
				fmt.Fprintf(w, "FAIL  %s (%.1f s)\n%s", e.name(), e.Elapsed, indent(text))
			case e.Test == "" && e.Action == "pass":
				fmt.Fprintf(w, "ok    %s (%.1f s)\n", e.name(), e.Elapsed)
			case e.Test == "": // a package without tests
			case e.Action == "skip":
				skipped[e.name()] = text
			default:
				out.passed++
			}
		}
	}
	for p := range crashed {
		if out.failures[p] != nil {
			out.failures[p] = nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "skip  %s\n%s", name, indent(skipped[name]))
	}
	out.skipped = len(skipped)
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", out.passed, out.failed, out.skipped)
	if strict && out.skipped > 0 {
		fmt.Fprintln(w, "In CI a test that is skipped counts as failed.")
	}
	return out, nil
}

// indent leaves out the marks of the tests' beginning and end.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "=== ") || strings.HasPrefix(trimmed, "--- ") {
			continue
		}
		b.WriteString("        " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}
