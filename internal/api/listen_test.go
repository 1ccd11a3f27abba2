package api_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// leaveStale makes the socket of a daemon that was killed.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestListenMakesDirectoryAndSocket(t *testing.T) {
	dir := filepath.Join(apitest.Dir(t), "run", "pwd")
	ln, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pwd.sock")
	for _, want := range []struct {
		path string
		mode fs.FileMode
	}{{dir, fs.ModeDir | 0o755}, {path, fs.ModeSocket | 0o660}} {
		info, err := os.Stat(want.path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want.mode {
			t.Errorf("%s has mode %v, want %v", want.path, info.Mode(), want.mode)
		}
	}
	if got := ln.Addr().String(); got != path {
		t.Errorf("address %s, want %s", got, path)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("the run directory holds %v, want the socket alone", names)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket outlived its listener: %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v, want %v", err, net.ErrClosed)
	}
}

func TestListenReplacesWhatADeadDaemonLeft(t *testing.T) {
	dir := apitest.Dir(t)
	leaveStale(t, filepath.Join(dir, "pwd.sock"))
	leaveStale(t, filepath.Join(dir, "pwd.sock.new"))
	ln, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("unix", filepath.Join(dir, "pwd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenRefusesALivingDaemon(t *testing.T) {
	holders := map[string]func(t *testing.T, dir string) net.Listener{
		"one of ours": func(t *testing.T, dir string) net.Listener {
			ln, err := api.Listen(dir)
			if err != nil {
				t.Fatal(err)
			}
			return ln
		},
		"one that takes no lock": func(t *testing.T, dir string) net.Listener {
			ln, err := net.Listen("unix", filepath.Join(dir, "pwd.sock"))
			if err != nil {
				t.Fatal(err)
			}
			return ln
		},
	}
	for name, hold := range holders {
		t.Run(name, func(t *testing.T) {
			dir := apitest.Dir(t)
			path := filepath.Join(dir, "pwd.sock")
			living := hold(t, dir)
			_, err := api.Listen(dir)
			var inUse *api.InUseError
			if !errors.As(err, &inUse) || inUse.Socket != path {
				t.Fatalf("got %v, want an InUseError of %s", err, path)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not name the socket", err)
			}
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("the living daemon lost its socket: %v", err)
			}
			conn.Close()
			living.Close()
			ln, err := api.Listen(dir)
			if err != nil {
				t.Fatalf("after the other's end: %v", err)
			}
			ln.Close()
		})
	}
}

func TestListenLeavesAloneWhatIsNoSocket(t *testing.T) {
	dir := apitest.Dir(t)
	path := filepath.Join(dir, "pwd.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := api.Listen(dir)
	var refused *api.SocketPathError
	if !errors.As(err, &refused) || refused.Socket != path {
		t.Fatalf("got %v, want a SocketPathError of %s", err, path)
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("the file holds %q now", got)
	}
}

func TestListenSaysThatAPathIsTooLong(t *testing.T) {
	base := apitest.Dir(t)
	// A socket's path has 107 octets at most; "/pwd.sock" and ".new" are 13.
	fits := filepath.Join(base, strings.Repeat("d", 107-13-len(base)-1))
	ln, err := api.Listen(fits)
	if err != nil {
		t.Fatalf("the longest path: %v", err)
	}
	ln.Close()
	_, err = api.Listen(fits + "d")
	var refused *api.SocketPathError
	if !errors.As(err, &refused) {
		t.Fatalf("one octet more: %v, want a SocketPathError", err)
	}
	if want := "its path is 1 octets too long for a unix socket; choose a shorter --run-dir"; refused.Problem != want {
		t.Errorf("problem %q, want %q", refused.Problem, want)
	}
}

// A living daemon keeps the run directory even if its socket was removed.
func TestListenRefusesALockedDirectory(t *testing.T) {
	dir := apitest.Dir(t)
	living, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if err := os.Remove(filepath.Join(dir, "pwd.sock")); err != nil {
		t.Fatal(err)
	}
	_, err = api.Listen(dir)
	var inUse *api.InUseError
	if !errors.As(err, &inUse) {
		t.Errorf("got %v, want an InUseError", err)
	}
}

// Two daemons that start at once must not both take over the stale socket.
func TestListenHasOneWinner(t *testing.T) {
	for range 20 {
		dir := apitest.Dir(t)
		leaveStale(t, filepath.Join(dir, "pwd.sock"))
		var won, lost atomic.Int32
		var all sync.WaitGroup
		listeners := make(chan net.Listener, 8)
		for range 8 {
			all.Go(func() {
				ln, err := api.Listen(dir)
				var inUse *api.InUseError
				switch {
				case err == nil:
					won.Add(1)
					listeners <- ln
				case errors.As(err, &inUse):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		close(listeners)
		for ln := range listeners {
			ln.Close()
		}
		if won.Load() != 1 || lost.Load() != 7 {
			t.Fatalf("%d won, %d lost, want 1 and 7", won.Load(), lost.Load())
		}
	}
}
