package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func openTestStore(t *testing.T) *store {
	t.Helper()
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func TestTwoDaemonsDoNotShareAStateDirectory(t *testing.T) {
	s := openTestStore(t)
	var busy *BusyError
	if _, err := openStore(s.dir); !errors.As(err, &busy) {
		t.Fatalf("second open: %v, want a BusyError", err)
	}
	s.close()
	again, err := openStore(s.dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again.close()
}

func TestGenerationIsKept(t *testing.T) {
	s := openTestStore(t)
	if g, err := s.generation(); g != nil || err != nil {
		t.Fatalf("nothing applied yet: %v, %v", g, err)
	}
	want := generation{Site: "dc1", Number: 7, Hash: "ab", FileHash: "cd", Name: "t.yaml", Document: "x: y\n"}
	if err := s.setGeneration(&want); err != nil {
		t.Fatal(err)
	}
	got, err := s.generation()
	if err != nil {
		t.Fatal(err)
	}
	if *got != want {
		t.Errorf("read %+v, want %+v", *got, want)
	}
}

func TestStateThatCannotBeTrustedIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		version       bool
	}{
		{"another version", `{"version": 2, "site": "dc1"}`, true},
		{"no version", `{"site": "dc1"}`, true},
		{"cut off", `{"version": 1, "site": "d`, false},
		{"a field of a later version", `{"version": 1, "shape": "round"}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openTestStore(t)
			if err := os.WriteFile(filepath.Join(s.dir, "generation.json"), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.generation()
			if err == nil {
				t.Fatal("no error")
			}
			if got := errors.As(err, new(*VersionError)); got != tt.version {
				t.Errorf("%v: VersionError is %v, want %v", err, got, tt.version)
			}
		})
	}
}

func TestTunnelRecordsHaveTheirTunnelsNames(t *testing.T) {
	s := openTestStore(t)
	names := []string{"gold/dc2", "gold/dc3", "silver/dc2"}
	for _, n := range names {
		if err := s.setTunnel(n, &tunnelRecord{Boot: n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.removeTunnel("gold/dc3"); err != nil {
		t.Fatal(err)
	}
	// What a crash in the middle of a write leaves is no record.
	if err := os.WriteFile(filepath.Join(s.dir, "tunnels", "gold%2Fdc9.json.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	records, damaged, err := s.tunnels()
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	if len(records) != 2 || records["gold/dc2"].Boot != "gold/dc2" || records["silver/dc2"].Boot != "silver/dc2" {
		t.Errorf("records: %v", records)
	}
}

func TestClearLeavesTheLock(t *testing.T) {
	s := openTestStore(t)
	s.setGeneration(&generation{Site: "dc1"})
	s.setTunnel("gold/dc2", &tunnelRecord{})
	if err := s.clear(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("left: %v", entries)
	}
}
