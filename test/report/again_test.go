package main

import (
	"io"
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
