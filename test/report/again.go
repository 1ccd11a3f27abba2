package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// tester runs tests of a package, all of them if the pattern is "", and hands over the events.
type tester func(pkg, pattern string, events func(io.Reader) error) error

// goTest is a tester. That tests fail is not an error of its own: the events say so.
func goTest(pkg, pattern string, events func(io.Reader) error) error {
	args := []string{"test", "-json", "-count=1", "-timeout", "10m"}
	if pattern != "" {
		args = append(args, "-run", pattern)
	}
	_, err := read(append(append([]string{"go"}, args...), pkg), events)
	return err
}

// retry runs what failed once more if that is at most limit tests (a package that
// crashed, or failed outside of its tests, counts as one). It returns whether all of it passed.
func retry(r results, w io.Writer, limit int, strict bool, run tester) (bool, error) {
	count := 0
	for _, tests := range r.failures {
		count += max(1, len(tests))
	}
	if r.broken || count == 0 || count > limit || strict && r.skipped > 0 {
		return false, nil
	}
	for _, pkg := range slices.Sorted(maps.Keys(r.failures)) {
		name, pattern := pkg, ""
		if tests := slices.Sorted(maps.Keys(r.failures[pkg])); len(tests) > 0 {
			name, pattern = pkg+" "+strings.Join(tests, " "), "^("+strings.Join(tests, "|")+")$"
		}
		fmt.Fprintf(w, "again %s\n", name)
		var second results
		err := run(pkg, pattern, func(events io.Reader) (err error) {
			second, err = report(events, w, strict)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("run %s again: %w", name, err)
		}
		if !second.ok(strict) {
			return false, nil
		}
		fmt.Fprintf(w, "UNSTEADY  %s failed, and passed when it ran again alone: it depends on load or time; mend it\n", name)
	}
	return true, nil
}
