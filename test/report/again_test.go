package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRetry(t *testing.T) {
	const (
		pass    = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		failB   = `{"Action":"fail","Package":"p","Test":"TestB/one"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestB"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n"
		failQ   = `{"Action":"fail","Package":"q","Test":"TestQ"}` + "\n" + `{"Action":"fail","Package":"q"}` + "\n"
		crash   = `{"Action":"output","Package":"p","Test":"TestB","Output":"panic: no\n"}` + "\n" + failB
		outside = `{"Action":"fail","Package":"p"}` + "\n"
		skip    = `{"Action":"skip","Package":"p","Test":"TestC"}` + "\n"
		broken  = `{"ImportPath":"q","Action":"build-fail"}` + "\n"
		nothing = ""
	)
	for _, tt := range []struct {
		name, first, second string
		limit               int
		ok                  bool
		ran                 []string
	}{
		{"one passes alone", pass + failB, pass, 3, true, []string{"p ^(TestB)$"}},
		{"one fails again", pass + failB, failB, 3, false, []string{"p ^(TestB)$"}},
		{"nothing runs the second time", pass + failB, nothing, 3, false, []string{"p ^(TestB)$"}},
		{"it is skipped the second time", pass + failB, pass + skip, 3, false, []string{"p ^(TestB)$"}},
		{"two packages", pass + failB + failQ, pass, 3, true, []string{"p ^(TestB)$", "q ^(TestQ)$"}},
		{"too many", pass + failB + failQ, pass, 1, false, nil},
		{"not asked for", pass + failB, pass, 0, false, nil},
		{"a crash hides the tests behind it", pass + crash, pass, 3, true, []string{"p "}},
		{"failed outside of its tests", pass + outside, pass, 3, true, []string{"p "}},
		{"something does not build", pass + failB + broken, pass, 3, false, nil},
		{"something was skipped", pass + failB + skip, pass, 3, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := report(strings.NewReader(tt.first), io.Discard, true)
			if err != nil || r.ok(true) {
				t.Fatalf("the first run: ok %v, %v", r.ok(true), err)
			}
			var ran []string
			var out strings.Builder
			ok, err := retry(r, &out, tt.limit, true, func(pkg, pattern string, events func(io.Reader) error) error {
				ran = append(ran, pkg+" "+pattern)
				return events(strings.NewReader(tt.second))
			})
			if err != nil || ok != tt.ok || !slices.Equal(ran, tt.ran) {
				t.Errorf("retry = %v, %v after %q; want %v after %q", ok, err, ran, tt.ok, tt.ran)
			}
			if got := strings.Contains(out.String(), "UNSTEADY"); got != tt.ok {
				t.Errorf("named as unsteady: %v, want %v\n%s", got, tt.ok, &out)
			}
		})
	}
}

// What fails beside others is left to a run that has the machine to itself, and runs once more there.
func TestLater(t *testing.T) {
	events := func(lines ...string) []string { return append([]string{"printf", `%s\n`}, lines...) }
	const (
		pass    = `{"Action":"pass","Package":"p","Test":"TestA"}`
		failB   = `{"Action":"fail","Package":"p","Test":"TestB"}`
		failC   = `{"Action":"fail","Package":"p","Test":"TestC"}`
		failQ   = `{"Action":"fail","Package":"q"}`
		passing = `{"Action":"pass","Package":"r","Test":"TestR"}`
	)
	for _, tt := range []struct {
		name          string
		first, second []string
		again         string
		ok            [2]bool // of the first run, and of the second
		ran           []string
	}{
		{"nothing failed", events(pass), events(passing), pass, [2]bool{true, true}, nil},
		{"one passes then", events(pass, failB), events(passing), pass, [2]bool{true, true}, []string{"p ^(TestB)$"}},
		{"one fails then, too", events(pass, failB), events(passing), failB, [2]bool{true, false}, []string{"p ^(TestB)$"}},
		{"others fail then", events(pass, failB), events(passing, failC, failQ), pass, [2]bool{true, true}, []string{"p ^(TestB|TestC)$", "q "}},
		{"all of a package", events(pass, failQ), events(passing), pass, [2]bool{true, true}, []string{"q "}},
		{"too many", events(pass, failB, failC, failQ, `{"Action":"fail","Package":"s"}`), events(passing), pass, [2]bool{false, true}, nil},
		{"too many of both", events(pass, failB, failC), events(passing, failQ, `{"Action":"fail","Package":"s"}`), pass, [2]bool{true, false}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "failed")
			if err := os.WriteFile(file, []byte("of a run that was stopped"), 0o644); err != nil {
				t.Fatal(err)
			}
			var ran []string
			run := func(pkg, pattern string, events func(io.Reader) error) error {
				ran = append(ran, pkg+" "+pattern)
				return events(strings.NewReader(tt.again + "\n"))
			}
			first, err1 := options{again: 3, later: file}.all(tt.first, io.Discard, run)
			if len(ran) > 0 {
				t.Errorf("%q ran beside the others", ran)
			}
			second, err2 := options{again: 3, earlier: file}.all(tt.second, io.Discard, run)
			if got := [2]bool{first, second}; got != tt.ok || err1 != nil || err2 != nil {
				t.Errorf("ok %v, %v, %v; want %v", got, err1, err2, tt.ok)
			}
			if !slices.Equal(ran, tt.ran) {
				t.Errorf("%q ran once more, want %q", ran, tt.ran)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("it is left to a third run, too")
			}
		})
	}
}
