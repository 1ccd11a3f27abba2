package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// lockName is an abstract unix socket's: those belong to the network namespace,
// like everything that the daemon makes, and go with their process.
const lockName = "@pwd-project.pwd"

// NamespaceBusyError says that the network namespace has a daemon already, with
// whatever state directory. Another one would take its devices for leftovers.
type NamespaceBusyError struct {
	// PID is the other daemon's; 0 if it cannot be seen from here.
	PID int
}

func (e *NamespaceBusyError) Error() string {
	who := "another pwd"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d, another pwd,", e.PID)
	}
	return who + " runs in this network namespace: stop it first, or run this one in a namespace of its own"
}

// namespaceLock is held by the one daemon of a network namespace.
type namespaceLock struct{ fd int }

func (l *namespaceLock) close() { unix.Close(l.fd) }

// lockNamespace takes the lock of the calling thread's network namespace. A
// process of somebody else's that has the name is no daemon, and is passed over.
func lockNamespace(log *slog.Logger) (*namespaceLock, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make the lock of the network namespace: %w", err)
	}
	l := &namespaceLock{fd}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: lockName})
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN) // so that it can be asked who holds it
	}
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		l.close()
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	holder, err := lockHolder()
	if err == nil && holder.Uid != 0 && holder.Uid != uint32(os.Geteuid()) {
		log.Warn("another user's process has the name of this namespace's lock; going on without", "socket", lockName, "pid", holder.Pid, "uid", holder.Uid)
		return l, nil
	}
	l.close()
	if err != nil {
		return nil, &NamespaceBusyError{}
	}
	return nil, &NamespaceBusyError{PID: int(holder.Pid)}
}

// lockHolder is the process that listens on the lock's name.
func lockHolder() (*unix.Ucred, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: lockName}); err != nil {
		return nil, err
	}
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}
