package topology

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the tests compare with")

// golden compares got with the file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// A broken topology is one file with one fault, and beside it what is said about it.
func TestBroken(t *testing.T) {
	two := []string{"steer-unknown-key"}
	files := glob(t, "testdata/broken/*.yaml")
	if len(files) < 45 {
		t.Errorf("%d broken topologies, 45 at least", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			topology, diagnostics := parseFile(t, file)
			if topology != nil {
				t.Error("a topology in spite of the error")
			}
			want := 1
			if slices.Contains(two, name) {
				want = 2
			}
			if len(diagnostics) != want {
				t.Errorf("%d diagnostics, want %d:\n%s", len(diagnostics), want, diagnostics)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", diagnostics.String())
		})
	}
}

// Files with many faults: all of them at once, in the order of the file.
func TestCombined(t *testing.T) {
	for _, file := range glob(t, "testdata/combined/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, diagnostics := parseFile(t, file)
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", diagnostics.String())
		})
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

func parseFile(t *testing.T, file string) (*Topology, Diagnostics) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return Parse(filepath.Base(file), data)
}
