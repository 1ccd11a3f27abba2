// Package systemd tells the service manager how the daemon is: sd_notify(3) and
// sd_watchdog_enabled(3), as far as a service of Type=notify needs them, and its file descriptor store. Outside of
// systemd all of it does nothing.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier sends states to the service manager; nil and the zero value send none. Nothing
// of it waits for the service manager: what that does not take at once is sent in the
// background, in order.
type Notifier struct {
	socket   string
	watchdog time.Duration
	stores   bool
	backlog  backlog
}

// FromEnv is the Notifier that the environment asks for, and takes that out of the
// environment, so that no child takes itself for the service.
func FromEnv() (*Notifier, error) {
	n, err := parse(os.Getenv, os.Getpid())
	return n, errors.Join(err, os.Unsetenv("NOTIFY_SOCKET"), os.Unsetenv("WATCHDOG_USEC"), os.Unsetenv("WATCHDOG_PID"))
}

func parse(getenv func(string) string, pid int) (*Notifier, error) {
	n := &Notifier{socket: getenv("NOTIFY_SOCKET"), stores: getenv("FDSTORE") != "0"}
	if n.socket != "" && n.socket[0] != '/' && n.socket[0] != '@' {
		bad := n.socket
		n.socket = ""
		return n, fmt.Errorf("NOTIFY_SOCKET=%q is neither a path nor an abstract socket: the service manager will not be told anything", bad)
	}
	usec := getenv("WATCHDOG_USEC")
	if usec == "" {
		return n, nil
	}
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return n, nil // meant for another process of the unit
	}
	u, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || u <= 0 || u > int64(1<<62)/1000 {
		return n, fmt.Errorf("WATCHDOG_USEC=%q is no number of microseconds: the watchdog is not fed", usec)
	}
	n.watchdog = time.Duration(u) * time.Microsecond
	return n, nil
}

// Watchdog is how often Alive has to be called at least: half of what the service
// manager waits, as sd_watchdog_enabled(3) advises. It is 0 if it does not wait.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil || n.socket == "" {
		return 0
	}
	return n.watchdog / 2
}

// Ready says that the daemon is up, or that a reload has ended.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Reloading says that a reload has begun. It ends with Ready.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
}

// Stopping says that the daemon is on its way out.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Alive feeds the watchdog.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Status is one line for systemctl status.
func (n *Notifier) Status(line string) error {
	return n.send("STATUS=" + strings.NewReplacer("\n", " ", "\r", " ").Replace(line))
}

// send is one datagram of assignments. One that cannot be sent is of no consequence to the traffic.
func (n *Notifier) send(assignments ...string) error {
	return n.deliver(&message{fd: -1}, assignments...)
}

// deliver sends a message, or has it wait.
func (n *Notifier) deliver(m *message, assignments ...string) error {
	if n == nil || n.socket == "" {
		return nil
	}
	m.subject, m.text = assignments[0], strings.Join(assignments, "\n")
	waits, err := n.backlog.behind(m)
	if !waits {
		if err = m.send(n.socket); errors.Is(err, unix.EAGAIN) {
			waits, err = true, n.backlog.add(n.socket, m)
		}
	}
	if !waits || err != nil {
		n.backlog.note(m, err)
	}
	return err
}
