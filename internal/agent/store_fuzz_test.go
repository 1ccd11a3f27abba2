package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzTunnelFile: whatever is in a tunnel's file, it is a record that can be written
// and read again, or an error that says which file it is.
func FuzzTunnelFile(f *testing.F) {
	record, err := json.Marshal(&tunnelRecord{Version: stateVersion, Boot: "b"})
	if err != nil {
		f.Fatal(err)
	}
	line, err := json.Marshal(change(3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(record, '\n'))
	f.Add([]byte(string(record) + "\n" + string(line) + "\n" + `{"control": {"vers`))
	f.Add([]byte(string(record) + "\n" + `{"control": {"version": 1, "connections": [{"localID": 1, "kept": 1}]}}` + "\n"))
	f.Add([]byte(`{"version": 99}`))
	s := &store{dir: f.TempDir(), logs: make(map[string]*tunnelLog)}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(s.dir, "a.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := s.readTunnel("a.json")
		if err != nil {
			_, damaged := errors.AsType[*DamagedError](err)
			_, version := errors.AsType[*VersionError](err)
			if !damaged && !version {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if err := s.write("b.json", r); err != nil {
			t.Fatal(err)
		}
		if _, err := s.readTunnel("b.json"); err != nil {
			t.Fatalf("written and not to be read: %v", err)
		}
	})
}
