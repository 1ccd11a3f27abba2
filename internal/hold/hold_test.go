package hold

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/systemd"
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
	k := Open(Options{RunDir: runDir, Logger: slog.New(slog.DiscardHandler)})
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
	k.Take(false, func(name string, fd int) {
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
	awaitHolder(t, first)
	if store, _ := first.Places(); store {
		t.Fatal("there is no store")
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

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not so that %s", what)
		}
	}
}

func awaitHolder(t *testing.T, k *Keeper) {
	t.Helper()
	eventually(t, "there is a holder", func() bool { _, holder := k.Places(); return holder })
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
	eventually(t, "there is a holder, and it is new", k.Renewed)
	k.Keep("a", int(file(t, "a").Fd()))
	end()
	k.Forget("a")
	eventually(t, "the holder has ended", func() bool { _, holder := k.Places(); return !holder })
	if _, err := k.Fault(); err != nil || k.Renewed() {
		t.Errorf("that there is no holder is no fault: %v", err)
	}
	if _, err := os.Stat(Path(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
	run(t, dir)
	eventually(t, "there is another holder", k.Renewed)
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

// ask makes a request as a daemon does, and gives the answer.
func ask(t *testing.T, c *net.UnixConn, text string, fds ...int) string {
	t.Helper()
	err := send(c, text, fds...)
	answer := ""
	if err == nil {
		answer, _, err = receive(c)
	}
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	return answer
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// What a holder does not understand it refuses, and goes on. Descriptors that are lost on
// the way are no request with fewer of them.
func TestRefusals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	c := dial(t, Path(dir))
	fd := int(file(t, "").Fd())
	ask(t, c, "hello")
	open := descriptors(t)
	for _, tt := range []struct {
		text string
		fds  []int
		why  string
	}{
		{"keep a", nil, "0 descriptors is not understood"}, {"keep a", []int{fd, fd}, "2 descriptors is not understood"},
		{"keep ", []int{fd}, "not understood"}, {"keep " + strings.Repeat("a", longest+1), []int{fd}, "not understood"},
		{"forget a", []int{fd}, "not understood"}, {"take", []int{fd}, "not understood"}, {"hello", []int{fd}, "not understood"},
		{"nonsense", nil, "not understood"}, {" ", nil, "not understood"},
		// More than there is room for, as where the process may open no more.
		{"keep a", slices.Repeat([]int{fd}, 9), "was lost on the way"}, {"forget " + strings.Repeat("a", 1000), nil, "was lost on the way"},
	} {
		if answer := ask(t, c, tt.text, tt.fds...); !strings.HasPrefix(answer, "error ") || !strings.Contains(answer, tt.why) {
			t.Errorf("%.80q with %d descriptors: %q", tt.text, len(tt.fds), answer)
		}
	}
	for _, text := range []string{"hello", "forget a"} {
		if answer := ask(t, c, text); answer != "ok" {
			t.Errorf("%s: %q", text, answer)
		}
	}
	if now := descriptors(t); now != open {
		t.Errorf("%d descriptors were open, now %d are", open, now)
	}
}

// silent is the socket of a holder that hangs.
func silent(t *testing.T, runDir string) *net.UnixListener {
	t.Helper()
	if err := os.MkdirAll(Dir(runDir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listen(Path(runDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// goesOn has a holder that hung serve, until the function that it gives is called.
func goesOn(t *testing.T, l *net.UnixListener, runDir string, kept map[string]int) (h *Holder, end func()) {
	t.Helper()
	h = &Holder{log: slog.New(slog.DiscardHandler), listener: l, lock: file(t, "lock"), path: Path(runDir), kept: kept}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx) }()
	return h, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// answers is a holder whose every answer is made up; connections are numbered from 0 on.
func answers(l *net.UnixListener, answer func(c *net.UnixConn, number int, text string) string) {
	for number := 0; ; number++ {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		for {
			text, _, err := receive(c)
			if err != nil || text == "" {
				break
			}
			_ = send(c, answer(c, number, text))
		}
		c.Close()
	}
}

// A holder that hangs costs the daemon nothing but what it was to keep, which it gets as
// soon as it goes on; and it is told of.
func TestHangingHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l := silent(t, dir)
	k := keeper(t, dir)
	a, b := file(t, "a"), file(t, "b")
	open := descriptors(t)
	began := time.Now()
	for range 1000 { // far more than what a socket holds
		k.Keep("a", int(a.Fd()))
		k.Forget("a")
		k.Keep("b", int(b.Fd()))
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("3000 requests took %v: something waits for the holder", took)
	}
	if now := descriptors(t); now > open+1 {
		t.Errorf("%d descriptors were open, %d are: of what is void none waits", open, now)
	}
	eventually(t, "it is told", func() bool { _, err := k.Fault(); return errors.As(err, new(*SilentError)) })
	if _, holder := k.Places(); holder {
		t.Error("it is taken for a holder")
	}

	_, end := goesOn(t, l, dir, map[string]int{})
	awaitHolder(t, k)
	eventually(t, "it is well", func() bool { _, err := k.Fault(); return err == nil })
	want(t, k, map[string]string{"b": "b"})
	end()
}

// Nobody waits longer for what a holder keeps than until it is clear that it hangs. Once it goes
// on, it closes that: nobody else can have its addresses and numbers while it is open.
func TestTakeFromAHangingHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l := silent(t, dir)
	k := keeper(t, dir)
	began := time.Now()
	want(t, k, nil)
	if took := time.Since(began); took < patience || took > 5*patience {
		t.Errorf("it took %v", took)
	}
	if _, err := k.Fault(); !errors.As(err, new(*SilentError)) {
		t.Errorf("%v", err)
	}
	k.Keep("b", int(file(t, "b").Fd())) // made anew

	dup := func(text string) int {
		fd, err := unix.Dup(int(file(t, text).Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	h, end := goesOn(t, l, dir, map[string]int{"a": dup("old a"), "b": dup("old b")})
	eventually(t, "a is closed, and the new b kept", func() bool {
		if k.Renewed() {
			k.Keep("b", int(file(t, "b").Fd())) // as the transport keeps again what it has
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		_, a := h.kept["a"]
		b, there := h.kept["b"]
		text := make([]byte, 8)
		n, err := unix.Pread(b, text, 0)
		return !a && there && err == nil && string(text[:n]) == "b"
	})
	end()
}

// What a holder breaks off is not taken for all: the rest is asked for again, and closed.
func TestTakeBrokenOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l := silent(t, dir)
	fd := int(file(t, "x").Fd())
	forgotten := make(chan string, 10)
	go answers(l, func(c *net.UnixConn, number int, text string) string {
		if name, is := strings.CutPrefix(text, "forget "); is {
			forgotten <- name
		}
		if text != "take" {
			return "ok"
		}
		_ = send(c, "a", fd)
		if number == 0 {
			return "error there is no room"
		}
		_ = send(c, "b", fd)
		return "ok"
	})
	k := keeper(t, dir)
	want(t, k, map[string]string{"a": "x"})
	k.Keep("a", fd)
	eventually(t, "the rest is forgotten", func() bool {
		if k.Renewed() {
			k.Keep("a", fd)
		}
		return len(forgotten) > 0
	})
	if name := <-forgotten; name != "b" {
		t.Errorf("%s is forgotten", name)
	}
}

// Of what a holder gives back, what is lost on the way is told, and the rest taken.
func TestTakeLosesADescriptor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l := silent(t, dir)
	fd := int(file(t, "b").Fd())
	go answers(l, func(c *net.UnixConn, _ int, text string) string {
		if text == "take" {
			_ = send(c, "a", slices.Repeat([]int{fd}, 9)...)
			_ = send(c, "b", fd)
		}
		return "ok"
	})
	var logged strings.Builder
	k := Open(Options{RunDir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	defer k.Close()
	awaitHolder(t, k)
	open := descriptors(t)
	want(t, k, map[string]string{"b": "b"})
	if now := descriptors(t); now != open {
		t.Errorf("%d descriptors were open, now %d are", open, now)
	}
	if !strings.Contains(logged.String(), "was lost on the way") {
		t.Errorf("the log says %q", &logged)
	}
	eventually(t, "the holder is told to forget it, and nothing is amiss", func() bool { _, err := k.Fault(); return err == nil })
}

// What is not kept is told until it is kept after all, or is not to be: what becomes of others
// says nothing of it.
func TestWhatIsNotKeptIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	k := keeper(t, dir)
	awaitHolder(t, k)
	fd := int(file(t, "").Fd())
	long := strings.Repeat("a", longest+1)
	told := func(names ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("of %q it is told", names), func() bool {
			k.Keep("another", fd) // has an answer behind those before
			_ = taken(t, k)
			_, err := k.Fault()
			unkept, is := errors.AsType[*systemd.UnkeptError](err)
			return is == (len(names) > 0) && (!is || unkept.Name == names[0] && unkept.Others == len(names)-1)
		})
	}
	told()
	k.Keep(long, fd)
	told(long)
	k.Keep("closed", -1)
	told(long, "closed")
	k.Forget(long)
	told("closed")
	k.Keep("closed", fd)
	told()
}

// A descriptor that the service manager could not be sent is told of until it is stored, and stored
// as soon as that takes anything again.
func TestWhatIsNotStoredIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	manager, err := systemd.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	k := Open(Options{RunDir: filepath.Join(t.TempDir(), "run"), Manager: manager, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(k.Close)
	fd := int(file(t, "").Fd())
	k.Keep("a", fd) // nobody is there
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	k.Keep("b", fd)
	told := func(want bool) {
		t.Helper()
		_, err := k.Fault()
		if unkept, is := errors.AsType[*systemd.UnkeptError](err); is != want || is && unkept.Name != "a" || !is && err != nil {
			t.Errorf("it is told: %v", err)
		}
	}
	if told(true); k.Renewed() {
		t.Error("a socket that was stored says that others may be")
	}
	if err := manager.Alive(); err != nil {
		t.Fatal(err)
	}
	if told(true); !k.Renewed() || k.Renewed() {
		t.Error("all is to be stored again, once")
	}
	k.Keep("a", fd)
	told(false)
	if err := manager.Alive(); err != nil || k.Renewed() {
		t.Errorf("nothing is amiss: %v", err)
	}
}

// What cannot be stored has nothing else stored again, and is tried again in a while, not with every sign of life.
func TestWhatCannotBeStoredCostsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	manager, err := systemd.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	k := Open(Options{RunDir: filepath.Join(t.TempDir(), "run"), Manager: manager, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(k.Close)
	fd := int(file(t, "").Fd())
	const closed = 1 << 20
	for range 2 {
		k.Keep("a", fd)
		k.Keep("b", closed)
	}
	if err := manager.Alive(); err != nil {
		t.Fatal(err)
	}
	if !k.Renewed() {
		t.Error("it is not tried again")
	}
	k.Keep("a", fd)
	k.Keep("b", closed)
	if err := manager.Alive(); err != nil {
		t.Fatal(err)
	}
	if k.Renewed() {
		t.Error("it is tried again at once")
	}
	k.Keep("a", int(file(t, "").Fd())) // another of that name
	for i, want := range []string{"FDSTORE=1\nFDNAME=a\nFDPOLL=0", "WATCHDOG=1", "WATCHDOG=1", "FDSTORE=1\nFDNAME=a\nFDPOLL=0"} {
		b := make([]byte, 512)
		if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := l.ReadFromUnix(b)
		if got := string(b[:n]); err != nil || got != want {
			t.Errorf("message %d is %q, %v; want %q", i, got, err, want)
		}
	}
}

// Root cleans up after a daemon of another user, but gives sockets to no holder but its own.
func TestHolderOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	parent := t.TempDir()
	if err := os.Chmod(filepath.Dir(parent), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "run")
	if err := os.MkdirAll(Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(Dir(dir), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	go func() {
		// Whose a socket is the kernel notes when it begins to listen. The thread ends with this goroutine.
		runtime.LockOSThread()
		defer close(listening)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			t.Error(errno)
			return
		}
		h, err := Listen(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan error, 1)
		go func() { done <- h.Serve(t.Context()) }()
		t.Cleanup(func() { <-done })
	}()
	<-listening
	k := keeper(t, dir)
	if _, err := k.Fault(); err == nil || !strings.Contains(err.Error(), "is of user 65534, not 0") {
		t.Errorf("the daemon's: %v", err)
	}
	cleaner := Open(Options{RunDir: dir, AnyUser: true, Logger: slog.New(slog.DiscardHandler)})
	defer cleaner.Close()
	awaitHolder(t, cleaner)
	root := dial(t, Path(dir)) // which trusts root, whoever it is
	for _, name := range []string{"a", "b"} {
		if answer := ask(t, root, "keep "+name, int(file(t, name).Fd())); answer != "ok" {
			t.Fatal(answer)
		}
	}
	cleaner.Keep("root's", int(file(t, "root's").Fd()))
	want(t, cleaner, map[string]string{"a": "a", "b": "b"})
	cleaner.Forget("b")
	want(t, cleaner, map[string]string{"a": "a"})
}
