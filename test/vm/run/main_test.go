package main

import (
	"bytes"
	"sync"
	"testing"
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
