package secretfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/topology"
)

func TestIn(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(path("short"), []byte("shared\n"), 0o640),
		os.WriteFile(path("long"), []byte(strings.Repeat("x", 1<<20)), 0o600),
		os.Mkdir(path("folder"), 0o700),
		os.Symlink("short", path("link")),
		unix.Mkfifo(path("pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, dir string
		path      string
		text      string
		mode      fs.FileMode
		err       error
	}{
		{name: "short", dir: dir, path: path("short"), text: "shared\n", mode: 0o640},
		{name: "link", dir: dir, path: path("link"), text: "shared\n", mode: 0o640},
		{name: path("short"), path: path("short"), text: "shared\n", mode: 0o640},
		{name: "../" + filepath.Base(dir) + "/short", dir: dir, path: path("short"), text: "shared\n", mode: 0o640},
		{name: "long", dir: dir, path: path("long"), text: strings.Repeat("x", topology.MaxSecret+2), mode: 0o600},
		{name: "none", dir: dir, path: path("none"), err: fs.ErrNotExist},
		{name: "folder", dir: dir, path: path("folder"), err: errNotRegular},
		{name: "pipe", dir: dir, path: path("pipe"), err: errNotRegular},
		{name: "/dev/null", dir: dir, path: "/dev/null", err: errNotRegular},
		{name: "short", path: "short", err: errRelative},
	} {
		got, err := In(tt.dir)(tt.name)
		if got.Path != tt.path || string(got.Text) != tt.text || got.Mode != tt.mode || !errors.Is(err, tt.err) {
			t.Errorf("%s in %q: %s, %d octets, mode %v, %v", tt.name, tt.dir, got.Path, len(got.Text), got.Mode, err)
		}
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("the path is said twice: %v", err)
		}
	}
}
