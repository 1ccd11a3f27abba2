package systemd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// between is how long a service manager that takes nothing is left alone.
const between = 50 * time.Millisecond

// longest is how much may wait: the descriptors of as many sockets as a unit may store.
const longest = 8192

// message is one datagram.
type message struct {
	subject, text string
	// stores and drops are the name of what is to be stored, or stored no more; empty for others.
	stores, drops string
	// fd is -1 for none. It is the message's own once that waits in the backlog.
	fd int
}

// send sends it, and does not wait: the error is EAGAIN where it would have to.
func (m *message) send(socket string) error {
	// A name that begins with @ is abstract, for package net as for systemd.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", m.subject, err)
	}
	defer c.Close()
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) {
			err = unix.Sendmsg(int(fd), []byte(m.text), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		})
		err = errors.Join(failed, err)
	}
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", m.subject, err)
	}
	return nil
}

// backlog is what the service manager has not taken yet.
type backlog struct {
	mu      sync.Mutex
	waiting []*message
	since   time.Time
	// failure is what became of the last message, unstored of descriptors.
	failure  error
	unstored Unkept
	// recovered says that something was taken while unstored had any. It says so again after rest.
	recovered bool
	rest      time.Time
}

// pause is how long what could not be stored is left alone, once it was tried again.
const pause = 30 * time.Second

// behind has a message wait behind others, if any wait.
func (b *backlog) behind(m *message) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return false, nil
	}
	return true, b.append(m)
}

// add has a message wait, and what waits sent.
func (b *backlog) add(socket string, m *message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	begin := len(b.waiting) == 0
	if err := b.append(m); err != nil {
		return err
	}
	if begin && len(b.waiting) > 0 {
		b.since = time.Now()
		go b.drain(socket)
	}
	return nil
}

func (b *backlog) append(m *message) error {
	if strings.HasPrefix(m.text, "WATCHDOG=1") || strings.HasPrefix(m.text, "STATUS=") {
		return nil // old news when it gets there; more comes
	}
	if len(b.waiting) >= longest {
		return fmt.Errorf("tell the service manager %s: %d messages wait for it", m.subject, len(b.waiting))
	}
	if m.fd >= 0 {
		own, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("tell the service manager %s: %w", m.subject, err)
		}
		m.fd = own
	}
	b.waiting = append(b.waiting, m)
	return nil
}

// note keeps what became of a message.
func (b *backlog) note(m *message, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteLocked(m, err)
}

func (b *backlog) noteLocked(m *message, err error) {
	b.failure = err
	switch {
	case m.stores != "":
		b.unstored.Note(m.stores, err)
	case m.drops != "":
		b.unstored.Note(m.drops, nil)
	case err == nil && len(b.unstored) > 0 && !time.Now().Before(b.rest):
		b.recovered, b.rest = true, time.Now().Add(pause)
	}
	if len(b.unstored) == 0 {
		b.rest = time.Time{}
	}
}

// drain sends what waits, and ends when nothing does.
func (b *backlog) drain(socket string) {
	for {
		b.mu.Lock()
		m := b.waiting[0]
		b.mu.Unlock()
		err := m.send(socket)
		if errors.Is(err, unix.EAGAIN) {
			time.Sleep(between)
			continue
		}
		b.mu.Lock()
		if m.fd >= 0 {
			unix.Close(m.fd)
		}
		b.noteLocked(m, err)
		b.since = time.Now()
		b.waiting = b.waiting[1:]
		ended := len(b.waiting) == 0
		b.mu.Unlock()
		if ended {
			return
		}
	}
}

// patience is how long the service manager may take before that is told.
const patience = 2 * time.Second

// Stuck says that the service manager takes nothing, or that the last that waited for it
// could not be sent; it is nil while all is well.
func (n *Notifier) Stuck() error {
	if n == nil {
		return nil
	}
	b := &n.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	if since := time.Since(b.since); len(b.waiting) > 0 && since > patience {
		return fmt.Errorf("%d messages wait, and it has taken none for %v", len(b.waiting), since.Round(time.Second))
	}
	return b.failure
}

// Unstored says which descriptors could not be sent to the store, nil if there are none.
func (n *Notifier) Unstored() error {
	if n == nil {
		return nil
	}
	n.backlog.mu.Lock()
	defer n.backlog.mu.Unlock()
	return n.backlog.unstored.Err()
}

// Lacks says that a descriptor could not be sent to the store.
func (n *Notifier) Lacks(name string) bool {
	if n == nil {
		return false
	}
	n.backlog.mu.Lock()
	defer n.backlog.mu.Unlock()
	return n.backlog.unstored[name] != nil
}

// TakeRecovered reports, once, that the service manager has taken something else since descriptors
// could not be sent to the store: they may be stored again. Where that fails as well it waits a while before
// it reports that again.
func (n *Notifier) TakeRecovered() bool {
	if n == nil {
		return false
	}
	n.backlog.mu.Lock()
	defer n.backlog.mu.Unlock()
	was := n.backlog.recovered
	n.backlog.recovered = false
	return was
}
