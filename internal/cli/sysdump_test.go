package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// unpack is the content of a sysdump by name.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

func TestSysdump(t *testing.T) {
	b := apitest.New(site())
	b.Add(api.Event{Object: "tunnel gold/dc2", Message: "established"})
	socket, _ := apitest.Serve(t, b, api.Options{})
	file := filepath.Join(apitest.Dir(t), "dump.tar.gz")
	check(t, socket, command{args: "sysdump -w " + file}, want{stderr: file + " written, without 1 thing (see INDEX in it)\n"})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive)
	for name, part := range map[string]string{
		"daemon/status.json":   `"site": "dc1"`,
		"daemon/sessions.json": `"localSessionID": 1001`,
		"daemon/events.ndjson": `"established"`,
		"host/links.txt":       "said by ip -d -s link",
		"INDEX":                "host/nftables.txt: missing: nft list ruleset: not installed",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("%s has no %q:\n%s", name, part, files[name])
		}
	}
}

// Without a daemon the host's part is all the more needed.
func TestSysdumpWithoutADaemon(t *testing.T) {
	_, stdout, _ := run(t, "/nonexistent/pwd.sock", command{args: "sysdump -w -"})
	files := unpack(t, []byte(stdout))
	if !strings.Contains(files["INDEX"], "daemon/status.json: missing: pwd is not running") || files["host/links.txt"] == "" {
		t.Errorf("INDEX:\n%s", files["INDEX"])
	}
}
