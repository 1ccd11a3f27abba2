package main

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		args string
		want [][]string
	}{
		{"", nil},
		{"a", [][]string{{"a"}}},
		{"a b -- c", [][]string{{"a", "b"}, {"c"}}},
		{"-- a -- -- b --", [][]string{{"a"}, {"b"}}},
	} {
		if diff := cmp.Diff(tt.want, split(strings.Fields(tt.args))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.args, diff)
		}
	}
}

// said runs scripts and returns what was said, without numbers.
func said(t *testing.T, signals <-chan os.Signal, scripts ...string) (string, error) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var commands [][]string
	for _, s := range scripts {
		commands = append(commands, []string{"sh", "-c", s})
	}
	failed := run(commands, out, signals)
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\d+ s`).ReplaceAllString(string(b), "N s"), failed
}

// Commands that say things by turns are shown one after the other, whichever ends first.
func TestOutputIsWhole(t *testing.T) {
	dir := t.TempDir()
	// Each waits for the other's step: the second ends before the first does.
	first := "cd " + dir + `; mkfifo a b; echo 1; echo go >a; read x <b; echo 2`
	second := "cd " + dir + `; until [ -p b ]; do :; done; read x <a; echo one; echo go >b; echo two >&2`
	got, err := said(t, nil, first, second)
	want := "1\n2\n--- sh -c " + first + ": N s, N s of processors; ok\n" +
		"\n==> sh -c " + second + "\none\ntwo\n--- sh -c " + second + ": N s, N s of processors; ok\n"
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One that fails does not keep the others from their end, and is named.
func TestOneFails(t *testing.T) {
	got, err := said(t, nil, "exit 3", "echo done", "kill -9 $$")
	if err == nil || err.Error() != "sh -c exit 3: exit status 3\nsh -c kill -9 $$: signal: killed" {
		t.Error(err)
	}
	for _, want := range []string{"sh -c exit 3: N s, N s of processors; FAILED: exit status 3\n", "\ndone\n--- sh -c echo done: N s, N s of processors; ok\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwithout %q", got, want)
		}
	}
	if err := run([][]string{{"/nonexistent"}, {"true"}}, os.Stdout, nil); err == nil {
		t.Error("what is not there has run")
	}
}

// A signal gets to all, and to what they have started.
func TestSignals(t *testing.T) {
	dir := t.TempDir()
	fifo := dir + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal)
	go func() {
		f, err := os.Open(fifo) // when the last of them has begun
		if err != nil {
			t.Error(err)
		}
		defer f.Close()
		signals <- syscall.SIGTERM
	}()
	// The shell does not pass signals on: what it has started gets them by itself.
	_, err := said(t, signals, "exec sleep 1000", "(exec 3>"+fifo+"; sleep 1000); sleep 1000")
	if err == nil || strings.Count(err.Error(), "signal: terminated") != 2 {
		t.Error(err)
	}
}
