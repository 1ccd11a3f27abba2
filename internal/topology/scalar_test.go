package topology

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10s": 10 * time.Second, "500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second, "1h": time.Hour,
		"1h1m1s1ms": time.Hour + time.Minute + time.Second + time.Millisecond, "0s": 0, "90m": 90 * time.Minute, "007s": 7 * time.Second,
	} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s", "10", "-10s", "1.5s", "10 s", "10S", "1s1m", "1s1s", "10d", "1µs", "9999999999s", "999999999h", "٣s"} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestShort(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": 0, "100ms": 100 * time.Millisecond, "1s": time.Second, "1m": time.Minute, "1m30s": 90 * time.Second, "1h": time.Hour, "1h30m": 90 * time.Minute, "10m": 10 * time.Minute} {
		if got := short(d); got != want {
			t.Errorf("%v is shown as %s", d, got)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]any{
		"1bit": uint64(1), "64kbit": uint64(64e3), "10mbit": uint64(10e6), "1gbit": uint64(1e9), "1000tbit": uint64(1e15),
		"": nil, "10": nil, "0mbit": nil, "1.5mbit": nil, "10mbps": nil, "10Mbit": nil, "010mbit": nil, "mbit": nil, "1001tbit": nil, "99999999999999999999mbit": nil, "-1mbit": nil,
	} {
		s, _, _ := newSource("x", []byte(text))
		got := rate.read(s, "", &node{text: text, line: 1, column: 1})
		if got != want || (want == nil) != s.diagnostics.HasErrors() {
			t.Errorf("%q: %v, want %v\n%s", text, got, want, s.diagnostics)
		}
	}
}

func TestAmbiguous(t *testing.T) {
	for _, text := range []string{"yes", "No", "ON", "off", "y", "N", "true", "False", "null", "~", "1:30", "190:20:30"} {
		if _, is := (&node{text: text}).ambiguous(); !is {
			t.Errorf("%s is taken for clear", text)
		}
		if _, is := (&node{text: text, quoted: true}).ambiguous(); is {
			t.Errorf("%s in quotes is not", text)
		}
	}
	for _, text := range []string{"nope", "dc1", "1:99", "a:30", "2001:db8::1", "on-call"} {
		if what, is := (&node{text: text}).ambiguous(); is {
			t.Errorf("%s is taken for %s", text, what)
		}
	}
}

func TestInvalidError(t *testing.T) {
	fault := func(line int, severity Severity) Diagnostic {
		return Diagnostic{Place: Place{File: "f", Line: line, Column: 2}, Severity: severity, Code: CodeName, Path: "p", Message: "m"}
	}
	for _, test := range []struct {
		diagnostics Diagnostics
		want        string
	}{
		{nil, ""},
		{Diagnostics{fault(1, SeverityWarning)}, ""},
		{Diagnostics{fault(1, SeverityWarning), fault(2, SeverityError)}, "f:2:2: p: m"},
		{Diagnostics{fault(2, SeverityError), fault(3, SeverityError)}, "f:2:2: p: m (and 1 more error)"},
		{Diagnostics{fault(2, SeverityError), fault(3, SeverityError), fault(4, SeverityError)}, "f:2:2: p: m (and 2 more errors)"},
	} {
		err := test.diagnostics.Err()
		var invalid *InvalidError
		switch {
		case test.want == "" && err != nil:
			t.Errorf("error %v", err)
		case test.want != "" && (!errors.As(err, &invalid) || err.Error() != test.want):
			t.Errorf("error %v, want %s", err, test.want)
		}
		var b bytes.Buffer
		if err := test.diagnostics.Format(&b); err != nil || b.String() != test.diagnostics.String() {
			t.Errorf("%v, %q", err, b.String())
		}
	}
}
