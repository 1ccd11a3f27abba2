package topology

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is allowed and probably not meant: warnings, and a topology.
func TestWarnings(t *testing.T) {
	for _, file := range glob(t, "testdata/warnings/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			topology, diagnostics := parseFile(t, file)
			if topology == nil || diagnostics.HasErrors() || diagnostics.Err() != nil {
				t.Errorf("a warning stands in the way:\n%s", diagnostics)
			}
			if len(diagnostics) == 0 {
				t.Error("no warning")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", diagnostics.String())
		})
	}
}

func TestBrokenConfig(t *testing.T) {
	for _, file := range glob(t, "testdata/config/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config, diagnostics := ParseConfig(filepath.Base(file), data)
			if config != (Config{}) || !diagnostics.HasErrors() {
				t.Errorf("%+v in spite of errors", config)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", diagnostics.String())
		})
	}
}

// Each code is said to mean something, once, and there is a file that gets it.
func TestCodes(t *testing.T) {
	var seen bytes.Buffer
	for _, file := range glob(t, "testdata/*/*.txt") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(data)
	}
	meanings := map[Code]bool{}
	last := Code("")
	for _, c := range codes {
		if meanings[c.code] || c.code <= last {
			t.Errorf("%s is there twice, or not in order", c.code)
		}
		meanings[c.code], last = true, c.code
		// TestTooLarge and TestTooManyErrors have those that would be large files.
		if !bytes.Contains(seen.Bytes(), []byte("["+string(c.code)+"]")) && c.code != CodeTooLarge && c.code != CodeTooManyErrors {
			t.Errorf("no file gets %s: %s", c.code, c.meaning)
		}
	}
}

func TestTooLarge(t *testing.T) {
	topology, diagnostics := Parse("big.yaml", bytes.Repeat([]byte("#\n"), maxSize/2+1))
	want := "big.yaml:1:1: error: the file has 1048578 octets; 1 MiB (1048576) is the limit [PW0001]\nhelp: is this the file you meant?\n"
	if topology != nil || diagnostics.String() != want {
		t.Errorf("got %s", diagnostics)
	}
}

func TestTooManyErrors(t *testing.T) {
	topology, diagnostics := Parse("many.yaml", []byte("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: many}\nsites:\n"+strings.Repeat("  dc1:\n", 1000)))
	if topology != nil || len(diagnostics) != maxDiagnostics+1 {
		t.Fatalf("%d diagnostics, want %d", len(diagnostics), maxDiagnostics+1)
	}
	last := diagnostics[maxDiagnostics]
	if last.Code != CodeTooManyErrors || last.Message != "more than 200 faults: no more are shown" {
		t.Errorf("the last one is %s", last)
	}
}
