package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/pwd-project/pwd/test/vm/job"
)

func TestPrefixWriterKeepsLinesWhole(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	a := &prefixWriter{w: &out, mu: &mu, prefix: "6.1 | "}
	b := &prefixWriter{w: &out, mu: &mu, prefix: "6.12| "}
	for _, w := range []struct {
		to   *prefixWriter
		text string
	}{{a, "one "}, {b, "three\nfo"}, {a, "line\ntwo\n"}, {b, "ur"}} {
		if n, err := w.to.Write([]byte(w.text)); n != len(w.text) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	a.flush()
	b.flush()
	if want := "6.12| three\n6.1 | one line\n6.1 | two\n6.12| four\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestReleases(t *testing.T) {
	for _, tt := range []struct {
		options options
		want    string
		err     string
	}{
		{options{suites: true}, "6.1, 6.12", ""},
		{options{}, "6.12", ""},
		{options{kernels: "6.12,6.1"}, "6.12, 6.1", ""},
		{options{kernels: "5.4"}, "", `no kernel "5.4"; there are 6.1, 6.12`},
	} {
		got, err := tt.options.releases()
		if err != nil && err.Error() != tt.err || err == nil && tt.err != "" {
			t.Errorf("%+v: %v, want %q", tt.options, err, tt.err)
		}
		if s := seriesOf(got); s != tt.want {
			t.Errorf("%+v: %q, want %q", tt.options, s, tt.want)
		}
	}
}

func TestNewestAlone(t *testing.T) {
	for _, tt := range []struct {
		options options
		want    map[string]string
	}{
		{options{suites: true}, map[string]string{"6.1": "all", "6.12": "all newest"}},
		{options{suites: true, kernels: "6.1"}, map[string]string{"6.1": "all newest"}},
	} {
		releases, err := tt.options.releases()
		if err != nil || len(releases) != len(tt.want) {
			t.Fatalf("%+v: %v, %v", tt.options, seriesOf(releases), err)
		}
		for _, r := range releases {
			var names []string
			for _, s := range tt.options.share(r, []job.Step{{Name: "all"}}, []job.Step{{Name: "newest"}}) {
				names = append(names, s.Name)
			}
			if got := strings.Join(names, " "); got != tt.want[r.Series] {
				t.Errorf("%+v: %s runs %q, want %q", tt.options, r.Series, got, tt.want[r.Series])
			}
		}
	}
}
