package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a notification socket as the service manager has it.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func read(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// What is sent is what sd_notify(3) says, over a path and over an abstract socket.
func TestNotify(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@pwd-systemd-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, socket)
			n := &Notifier{socket: socket}
			for want, send := range map[string]func() error{
				"READY=1":             n.Ready,
				"STOPPING=1":          n.Stopping,
				"WATCHDOG=1":          n.Alive,
				"STATUS=one line two": func() error { return n.Status("one line\ntwo") },
			} {
				if err := send(); err != nil {
					t.Fatal(err)
				}
				if got := read(t, m); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}

// RELOADING=1 comes with the time it began, so that the READY=1 of an earlier start is not taken for its end.
func TestReloading(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	m := manager(t, socket)
	before := monotonic(t)
	if err := (&Notifier{socket: socket}).Reloading(); err != nil {
		t.Fatal(err)
	}
	got := read(t, m)
	found := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=(\d+)$`).FindStringSubmatch(got)
	if found == nil {
		t.Fatalf("%q", got)
	}
	at, err := strconv.ParseInt(found[1], 10, 64)
	if after := monotonic(t); err != nil || at < before || at > after {
		t.Errorf("%d is not from %d to %d: %v", at, before, after, err)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

func TestEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, socket, usec, pid string
		watchdog                time.Duration
		err                     string
	}{
		{name: "none"},
		{name: "no watchdog", socket: "/run/systemd/notify"},
		{name: "half of what is waited", socket: "@n", usec: "120000000", pid: "7", watchdog: time.Minute},
		{name: "for whatever process", socket: "@n", usec: "2000000", watchdog: time.Second},
		{name: "for another process", socket: "@n", usec: "2000000", pid: "8"},
		{name: "nobody to tell", usec: "2000000"},
		{name: "no number", socket: "@n", usec: "soon", err: "WATCHDOG_USEC"},
		{name: "none left", socket: "@n", usec: "0", err: "WATCHDOG_USEC"},
		{name: "too long", socket: "@n", usec: "9223372036854775807", err: "WATCHDOG_USEC"},
		{name: "no socket", socket: "notify", usec: "2000000", err: "NOTIFY_SOCKET"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"NOTIFY_SOCKET": tt.socket, "WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid}
			n, err := parse(func(k string) string { return env[k] }, 7)
			if n.Watchdog() != tt.watchdog {
				t.Errorf("watchdog %v, want %v", n.Watchdog(), tt.watchdog)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// The children of the service are not the service.
func TestEnvironmentIsNotInherited(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n, err := FromEnv()
	if err != nil || n.Watchdog() != time.Second/2 {
		t.Fatalf("%+v, %v", n, err)
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left", name, v)
		}
	}
}

func TestNobodyToTell(t *testing.T) {
	for _, n := range []*Notifier{nil, {}} {
		if err := n.Ready(); err != nil || n.Watchdog() != 0 {
			t.Errorf("%v, %v", err, n.Watchdog())
		}
	}
	gone := &Notifier{socket: filepath.Join(t.TempDir(), "gone")}
	if err := gone.Ready(); err == nil || !strings.Contains(err.Error(), "tell the service manager READY=1") {
		t.Errorf("%v", err)
	}
}
