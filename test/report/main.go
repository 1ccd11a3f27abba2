// Report reads `go test -json` and shows what a person wants of it: the packages,
// what failed and with what words, what was skipped and why. It fails if a
// test failed and, in CI, if one was skipped: there, what cannot be tested is not tested.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout, os.Getenv("CI") != "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
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

// report reads events until their end. It returns false if a test failed or, if strict, was skipped.
func report(r io.Reader, w io.Writer, strict bool) (ok bool, err error) {
	output := map[string]*strings.Builder{} // of tests that have not ended
	skipped := map[string]string{}          // why
	passed, failed := 0, 0
	lines := bufio.NewReader(r)
	for {
		line, readErr := lines.ReadBytes('\n')
		if readErr == io.EOF && len(line) == 0 {
			break
		}
		if readErr != nil && readErr != io.EOF {
			return false, readErr
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
			failed++
		case "output":
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
				failed++
				fmt.Fprintf(w, "FAIL  %s (%.1f s)\n%s", e.name(), e.Elapsed, indent(text))
			case e.Test == "" && e.Action == "pass":
				fmt.Fprintf(w, "ok    %s (%.1f s)\n", e.name(), e.Elapsed)
			case e.Test == "": // a package without tests
			case e.Action == "skip":
				skipped[e.name()] = text
			default:
				passed++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "skip  %s\n%s", name, indent(skipped[name]))
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	if strict && len(skipped) > 0 {
		fmt.Fprintln(w, "In CI a test that is skipped counts as failed.")
	}
	return failed == 0 && passed > 0 && (!strict || len(skipped) == 0), nil
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
