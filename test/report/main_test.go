package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		pass = `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}` + "\n"
		fail = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: two is not one\n"}` + "\n" +
			`{"Action":"fail","Package":"p","Test":"TestB","Elapsed":0.2}` + "\n"
		skip = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:1: no root\n"}` + "\n" +
			`{"Action":"skip","Package":"p","Test":"TestC"}` + "\n"
		broken  = `{"ImportPath":"q","Action":"build-output","Output":"q.go:1:1: expected package\n"}` + "\n" + `{"ImportPath":"q","Action":"build-fail"}` + "\n"
		untried = `{"Action":"skip","Package":"q"}` + "\n" // a package without tests
	)
	for _, tt := range []struct {
		name, events string
		strict, ok   bool
		want         []string
	}{
		{"all pass", pass + untried, true, true, []string{"1 passed, 0 failed, 0 skipped"}},
		{"one fails", pass + fail, false, false, []string{"FAIL  p TestB (0.2 s)\n", "b_test.go:1: two is not one", "1 passed, 1 failed"}},
		{"one is skipped", pass + skip, false, true, []string{"skip  p TestC\n", "c_test.go:1: no root", "1 skipped"}},
		{"one is skipped in CI", pass + skip, true, false, []string{"counts as failed"}},
		{"a package does not build", pass + broken, false, false, []string{"q.go:1:1: expected package"}},
		{"nothing ran", "", false, false, []string{"0 passed"}},
		{"go says something", "go: no such module\n" + pass, false, true, []string{"go: no such module\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r, err := report(strings.NewReader(tt.events), &out, tt.strict)
			ok := r.ok(tt.strict)
			if err != nil || ok != tt.ok {
				t.Errorf("report = %v, %v, want %v", ok, err, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("got\n%s\nwithout %q", out.String(), want)
				}
			}
		})
	}
}
