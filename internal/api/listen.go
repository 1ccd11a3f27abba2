package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the API socket's name in the daemon's run directory.
const SocketName = "pwd.sock"

// DefaultRunDir is where the daemon's socket is unless --run-dir says otherwise.
const DefaultRunDir = "/run/pwd"

// maxSocketPath is the longest path of a unix socket in octets: sun_path has 108
// with its terminating zero (unix(7)).
const maxSocketPath = 107

// pendingSuffix names the socket between bind and rename, when its mode is set.
const pendingSuffix = ".new"

// InUseError says that a living process holds the run directory or its socket.
type InUseError struct {
	// Socket is the path of the socket that stays as it is.
	Socket string
}

// Error says which socket is in use and how to run beside its daemon.
func (e *InUseError) Error() string {
	return fmt.Sprintf("another daemon serves %s: stop it first, or give this one its own --run-dir", e.Socket)
}

// SocketPathError says that a path cannot be a socket of ours.
type SocketPathError struct {
	// Socket is the path.
	Socket string
	// Problem is what is the matter with it.
	Problem string
}

// Error names the path and the problem.
func (e *SocketPathError) Error() string {
	return fmt.Sprintf("cannot listen on %s: %s", e.Socket, e.Problem)
}

// Listen makes the API socket in runDir, which it creates with mode 0755 if need
// be. The socket has mode 0660 from its first moment on. What a dead daemon left
// is replaced; a living one's socket is refused with an *InUseError, a path that
// is too long or no socket with a *SocketPathError.
//
// Until the listener is closed it holds a lock (flock) on runDir, so two daemons
// that start together cannot both take a stale socket over. Closing removes the
// socket.
func Listen(runDir string) (net.Listener, error) { return ListenAs(runDir, KeepOwner) }

// Owner is whose the socket is: the numbers of a user and a group, -1 for the process's.
type Owner struct{ UID, GID int }

// KeepOwner is the process's own user and group.
var KeepOwner = Owner{-1, -1}

// OwnerError says that the socket cannot be given to somebody.
type OwnerError struct {
	Owner Owner
	Err   error
}

// Error says what that takes.
func (e *OwnerError) Error() string {
	return fmt.Sprintf("give the API socket to user %d, group %d (-1 is the daemon's): %v: make the daemon's user a member of that group (SupplementaryGroups= of its service), or change `access:`",
		e.Owner.UID, e.Owner.GID, e.Err)
}

func (e *OwnerError) Unwrap() error { return e.Err }

// ListenAs is Listen with a socket of that owner; the error is an *OwnerError if it cannot
// be theirs.
func ListenAs(runDir string, owner Owner) (net.Listener, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("making the run directory: %w", err)
	}
	path := filepath.Join(runDir, SocketName)
	if n := len(path) + len(pendingSuffix); n > maxSocketPath {
		return nil, &SocketPathError{Socket: path, Problem: fmt.Sprintf(
			"its path is %d octets too long for a unix socket; choose a shorter --run-dir", n-maxSocketPath)}
	}
	lock, err := lockDirectory(runDir)
	if err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &InUseError{Socket: path}
		}
		return nil, fmt.Errorf("locking the run directory %s: %w", runDir, err)
	}
	ln, err := bind(path, owner)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &listener{UnixListener: ln, path: path, lock: lock}, nil
}

// bind makes the socket at path, beside whatever a dead daemon left there.
func bind(path string, owner Owner) (*net.UnixListener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	pending := path + pendingSuffix
	if err := os.Remove(pending); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing a dead daemon's socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: pending})
	if err != nil {
		return nil, fmt.Errorf("making the API socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if owner != KeepOwner {
		if err := os.Lchown(pending, owner.UID, owner.GID); err != nil {
			ln.Close()
			os.Remove(pending)
			return nil, &OwnerError{owner, err}
		}
	}
	if err = os.Chmod(pending, 0o660); err == nil {
		err = os.Rename(pending, path)
	}
	if err != nil {
		ln.Close()
		os.Remove(pending)
		return nil, fmt.Errorf("making the API socket: %w", err)
	}
	return ln, nil
}

// checkStale returns nil if path is free or a socket that nobody serves.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a daemon's socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &SocketPathError{Socket: path, Problem: "something that is no socket is in the way; remove it"}
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	// Any other failure, as a full backlog (EAGAIN), has a process behind it.
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		conn.Close()
	}
	return &InUseError{Socket: path}
}

// lockDirectory locks dir for this process, or fails with EWOULDBLOCK.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// listener is the API socket with the lock that belongs to it.
type listener struct {
	*net.UnixListener
	path string
	lock *os.File
	once sync.Once
}

// Addr is the path that clients connect to.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }

// Close stops listening, removes the socket and lets go of the run directory.
func (l *listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		err = l.UnixListener.Close()
		if e := os.Remove(l.path); err == nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
		l.lock.Close()
	})
	return err
}
