package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is stored is what sd_notify(3) says, with the descriptor beside it.
func TestStore(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	m := manager(t, socket)
	n, err := parse(func(key string) string { return map[string]string{"NOTIFY_SOCKET": socket}[key] }, os.Getpid())
	if err != nil || !n.Stores() {
		t.Fatalf("it stores: %v, %v", n.Stores(), err)
	}
	f, err := os.CreateTemp(t.TempDir(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := n.Store("l2tpv3-7", int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := m.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 512), make([]byte, 512)
	size, rights, _, _, err := m.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b[:size]), "FDSTORE=1\nFDNAME=l2tpv3-7\nFDPOLL=0"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	all, err := unix.ParseSocketControlMessage(oob[:rights])
	if err != nil || len(all) != 1 {
		t.Fatalf("%d messages, %v", len(all), err)
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %d, %v", fds, err)
	}
	kept := os.NewFile(uintptr(fds[0]), "kept")
	defer kept.Close()
	was, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if is, err := kept.Stat(); err != nil || !os.SameFile(was, is) {
		t.Errorf("another file is kept, %v", err)
	}
	if err := n.Unstore("l2tpv3-7"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, m), "FDSTOREREMOVE=1\nFDNAME=l2tpv3-7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStoresNothing(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no service manager": {},
		"it says so":         {"NOTIFY_SOCKET": "/run/notify", "FDSTORE": "0"},
	} {
		if n, err := parse(func(key string) string { return env[key] }, 1); err != nil || n.Stores() {
			t.Errorf("%s: %v, %v", name, n.Stores(), err)
		}
	}
	if (*Notifier)(nil).Stores() {
		t.Error("nobody stores")
	}
}

func TestInherited(t *testing.T) {
	for _, tt := range []struct {
		name            string
		pid, fds, names string
		want            []Descriptor
		fails           bool
	}{
		{"nothing", "", "", "", nil, false},
		{"two", "42", "2", "l2tpv3-1:l2tpv3-2", []Descriptor{{"l2tpv3-1", 3}, {"l2tpv3-2", 4}}, false},
		{"another process's", "43", "2", "l2tpv3-1:l2tpv3-2", nil, false},
		{"no number", "42", "many", "", nil, true},
		{"a negative one", "42", "-1", "", nil, true},
		{"too few names", "42", "2", "l2tpv3-1", nil, true},
	} {
		env := map[string]string{"LISTEN_PID": tt.pid, "LISTEN_FDS": tt.fds, "LISTEN_FDNAMES": tt.names}
		got, err := inherited(func(key string) string { return env[key] }, 42)
		if !slices.Equal(got, tt.want) || (err != nil) != tt.fails {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

// A service manager that takes nothing for a while costs the daemon nothing: what it is told
// waits, in order and with the descriptors, and that is told.
func TestHangingManager(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	m := manager(t, socket)
	n := &Notifier{socket: socket}
	f, err := os.CreateTemp(t.TempDir(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const all = 2000 // more than waits in any socket
	began := time.Now()
	for i := range all {
		if err := n.Store(fmt.Sprint(i), int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		if err := n.Alive(); err != nil { // of no use later
			t.Fatal(err)
		}
	}
	if err := n.Ready(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v: something waits for the service manager", took)
	}
	f.Close()
	for end := time.Now().Add(time.Minute); n.Stuck() == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not told")
		}
	}
	for i := 0; i < all; {
		if err := m.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 512), make([]byte, 512)
		size, rights, _, _, err := m.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if string(b[:size]) == "WATCHDOG=1" {
			continue
		}
		if got, want := string(b[:size]), fmt.Sprintf("FDSTORE=1\nFDNAME=%d\nFDPOLL=0", i); got != want {
			t.Fatalf("message %d: %q, want %q", i, got, want)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:rights])
		if err != nil || len(messages) != 1 {
			t.Fatalf("message %d has no descriptor: %v", i, err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		i++
	}
	if got := read(t, m); got != "READY=1" {
		t.Errorf("at last %q", got)
	}
	for end := time.Now().Add(time.Minute); n.Stuck() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still told")
		}
	}
}
