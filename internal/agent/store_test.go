package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
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

// change is one that says how many retransmissions there were.
func change(n uint64) *tunnelChange {
	return &tunnelChange{Control: control.TunnelChange{TunnelState: control.TunnelState{Version: control.StateVersion, Retransmits: n}}}
}

// TestTunnelChangesAreAppended: a change that was not written whole, because the
// process was killed, is none; one that makes no sense is damage.
func TestTunnelChangesAreAppended(t *testing.T) {
	for _, row := range []struct {
		name, behind string
		damaged      bool
	}{
		{"as written", "", false},
		{"killed while writing", `{"control": {"vers`, false},
		{"garbage", "{\n", true},
		{"of what is not there", `{"control": {"version": 1, "connections": [{"localID": 1, "kept": 1}]}}` + "\n", true},
	} {
		s := openTestStore(t)
		if s.appendable("gold/dc2") {
			t.Fatal("a change of nothing")
		}
		if err := s.setTunnel("gold/dc2", &tunnelRecord{Boot: "b"}); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if err := s.changeTunnel("gold/dc2", change(uint64(n))); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(filepath.Join(s.dir, tunnelFile("gold/dc2")), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(row.behind); err != nil {
			t.Fatal(err)
		}
		f.Close()
		records, damaged, err := s.tunnels()
		if err != nil {
			t.Fatal(err)
		}
		if (len(damaged) == 1) != row.damaged {
			t.Errorf("%s: damaged: %v", row.name, damaged)
		}
		if r := records["gold/dc2"]; !row.damaged && (r == nil || r.Boot != "b" || r.Control.Retransmits != 2) {
			t.Errorf("%s: %+v", row.name, r)
		}
	}
}

// TestTunnelIsWrittenAnew when changes make up most of its file.
func TestTunnelIsWrittenAnew(t *testing.T) {
	s := openTestStore(t)
	if err := s.setTunnel("gold/dc2", &tunnelRecord{Boot: "b"}); err != nil {
		t.Fatal(err)
	}
	for s.appendable("gold/dc2") {
		if err := s.changeTunnel("gold/dc2", change(1)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(s.dir, tunnelFile("gold/dc2"))
	if st, err := os.Stat(path); err != nil || st.Size() < slack || st.Size() > slack+4096 {
		t.Errorf("%v octets, %v", st.Size(), err)
	}
	if err := s.setTunnel("gold/dc2", &tunnelRecord{Boot: "c"}); err != nil {
		t.Fatal(err)
	}
	records, _, err := s.tunnels()
	if r := records["gold/dc2"]; err != nil || r.Boot != "c" || r.Control.Retransmits != 0 || !s.appendable("gold/dc2") {
		t.Errorf("%+v, %v", r, err)
	}
}
