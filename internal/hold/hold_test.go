package hold

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run starts a holder that ends with the function returned, or with the test.
func run(t *testing.T, runDir string) (end func()) {
	t.Helper()
	h, err := Listen(runDir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return end
}

func keeper(t *testing.T, runDir string) *Keeper {
	t.Helper()
	k := Open(runDir, nil, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(k.Close)
	return k
}

// file is an open file with that content, which stands for a socket.
func file(t *testing.T, content string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err == nil {
		_, err = f.WriteString(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// taken is the content of everything that is kept, by name.
func taken(t *testing.T, k *Keeper) map[string]string {
	t.Helper()
	all := map[string]string{}
	k.Take(func(name string, fd int) {
		b := make([]byte, 100)
		n, err := unix.Pread(fd, b, 0)
		if err != nil {
			t.Error(err)
		}
		unix.Close(fd)
		all[name] = string(b[:n])
	})
	return all
}

func want(t *testing.T, k *Keeper, want map[string]string) {
	t.Helper()
	got := taken(t, k)
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s is %q, want %q", name, got[name], content)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("kept beside: %v", got)
	}
}

// What is kept is there for whoever comes after, as often as it asks, until it is forgotten.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	first := keeper(t, dir)
	if store, holder := first.Places(); store || !holder {
		t.Fatalf("store %v, holder %v", store, holder)
	}
	a, b := file(t, "a"), file(t, "b")
	first.Keep("a", int(a.Fd()))
	first.Keep("b", int(b.Fd()))
	first.Keep("b", int(b.Fd()))
	a.Close()
	b.Close()
	first.Close()

	second := keeper(t, dir)
	want(t, second, map[string]string{"a": "a", "b": "b"})
	want(t, second, map[string]string{"a": "a", "b": "b"})
	second.Keep("a", int(file(t, "another").Fd()))
	second.Forget("b")
	second.Forget("what is not there")
	want(t, second, map[string]string{"a": "another"})
	if second.Renewed() {
		t.Error("it is the same holder")
	}
}

// A holder that comes anew has nothing, and the keeper says so.
func TestHolderComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	k := keeper(t, dir)
	k.Keep("nowhere", int(file(t, "").Fd()))
	if _, holder := k.Places(); holder || k.Renewed() {
		t.Fatal("there is no holder")
	}
	end := run(t, dir)
	if !k.Renewed() {
		t.Fatal("there is a holder")
	}
	k.Keep("a", int(file(t, "a").Fd()))
	end()
	k.Forget("a")
	if k.Renewed() {
		t.Fatal("the holder has ended")
	}
	if _, err := os.Stat(Path(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
	run(t, dir)
	if !k.Renewed() {
		t.Fatal("there is another holder")
	}
	want(t, k, nil)
}

// One holder is enough, and nobody else gets near it.
func TestAccess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	if _, err := Listen(dir, slog.New(slog.DiscardHandler)); !errors.As(err, new(*BusyError)) {
		t.Errorf("a second one: %v", err)
	}
	for path, mode := range map[string]fs.FileMode{Dir(dir): 0o700, Path(dir): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// What a holder does not understand it refuses, and goes on.
func TestRefusals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	c := client{path: Path(dir)}
	defer c.close()
	fd := int(file(t, "").Fd())
	for _, tt := range []struct {
		text string
		fds  []int
	}{
		{"keep a", nil}, {"keep a", []int{fd, fd}}, {"keep ", []int{fd}}, {"keep " + string(make([]byte, longest+1)), []int{fd}},
		{"forget a", []int{fd}}, {"take", []int{fd}}, {"nonsense", nil}, {" ", nil},
	} {
		if err := c.ask(tt.text, nil, tt.fds...); !errors.As(err, new(*refusal)) {
			t.Errorf("%q with %d descriptors: %v", tt.text, len(tt.fds), err)
		}
	}
	if err := c.ask("forget a", nil); err != nil {
		t.Error(err)
	}
}

// A holder that does not answer costs a moment, and is given up.
func TestSilentHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.MkdirAll(Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listen(Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k := keeper(t, dir)
	began := time.Now()
	k.Keep("a", int(file(t, "").Fd()))
	if _, holder := k.Places(); holder {
		t.Errorf("it is still taken for a holder after %v", time.Since(began))
	}
}
