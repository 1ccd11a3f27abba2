package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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

// mayRunAgain says whether there are few enough failures, and nothing that running again does not mend.
func (r results) mayRunAgain(limit int, strict bool) bool {
	count := 0
	for _, tests := range r.failures {
		count += max(1, len(tests))
	}
	return !r.broken && count > 0 && count <= limit && (!strict || r.skipped == 0)
}

// postpone leaves what retry would do to a later run, which recalls it. It returns whether that may do it.
func (r results) postpone(file string, w io.Writer, limit int, strict bool) (bool, error) {
	if !r.mayRunAgain(limit, strict) {
		return false, nil
	}
	b, err := json.Marshal(r.failures)
	if err != nil {
		return false, err
	}
	for _, pkg := range slices.Sorted(maps.Keys(r.failures)) {
		fmt.Fprintf(w, "later %s %s: when nothing else runs\n", pkg, strings.Join(slices.Sorted(maps.Keys(r.failures[pkg])), " "))
	}
	return true, os.WriteFile(file, b, 0o644)
}

// recall adds what an earlier run has postponed, once.
func (r *results) recall(file string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var failures map[string]map[string]bool
	if err == nil {
		err = json.Unmarshal(b, &failures)
	}
	if err != nil {
		return fmt.Errorf("read what failed earlier: %w", err)
	}
	for pkg, tests := range failures {
		if there, failed := r.failures[pkg]; failed && there == nil || tests == nil {
			r.failures[pkg] = nil // all of it
		} else {
			if there == nil {
				r.failures[pkg] = map[string]bool{}
			}
			maps.Copy(r.failures[pkg], tests)
		}
		r.failed++
	}
	return os.Remove(file)
}

// retry runs what failed once more if that is at most limit tests (a package that
// crashed, or failed outside of its tests, counts as one). It returns whether all of it passed.
func retry(r results, w io.Writer, limit int, strict bool, run tester) (bool, error) {
	if !r.mayRunAgain(limit, strict) {
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
