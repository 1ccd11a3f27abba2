package hold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// most is how many descriptors the holder keeps, longest how long a name may be.
	most, longest = 16384, 64
	socketName    = "hold.sock"
)

// Dir is the holder's folder for a daemon with that run directory.
func Dir(runDir string) string { return filepath.Clean(runDir) + "-hold" }

// Path is the holder's socket for a daemon with that run directory.
func Path(runDir string) string { return filepath.Join(Dir(runDir), socketName) }

// BusyError says that there is a holder already.
type BusyError struct{ Path string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another process keeps sockets at %s: one is enough", e.Path)
}

// Holder keeps descriptors.
type Holder struct {
	log      *slog.Logger
	listener *net.UnixListener
	lock     *os.File
	path     string

	mu   sync.Mutex
	kept map[string]int
}

// Listen makes the holder for a daemon with that run directory. The error is a *BusyError
// if there is one.
func Listen(runDir string, log *slog.Logger) (*Holder, error) {
	dir, path := Dir(runDir), Path(runDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the holder's folder: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the holder's folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &BusyError{path}
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	l, err := listen(path)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &Holder{log: log, listener: l, lock: lock, path: path, kept: map[string]int{}}, nil
}

// listen makes the socket; with the lock, what is in the way is a dead holder's.
func listen(path string) (*net.UnixListener, error) {
	pending := path + ".new"
	if err := os.Remove(pending); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: pending})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(pending, 0o600); err == nil {
		err = os.Rename(pending, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve keeps what it is given until ctx ends; then all of it is closed.
func (h *Holder) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { h.listener.Close() })()
	defer h.close()
	for {
		c, err := h.listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept a connection: %w", err)
		}
		if err != nil { // what is kept is worth more than to hear of it now
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err := trusted(c); err != nil {
			h.log.Warn("a process is refused", "err", err)
			c.Close()
			continue
		}
		go h.talk(ctx, c)
	}
}

func (h *Holder) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, fd := range h.kept {
		unix.Close(fd)
		delete(h.kept, name)
	}
	os.Remove(h.path)
	h.lock.Close()
}

// trusted says that the other end of a connection is of this process's user, or root.
func trusted(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(failed, err); err != nil {
		return fmt.Errorf("look who is at the other end: %w", err)
	}
	if peer.Uid != uint32(os.Geteuid()) && peer.Uid != 0 {
		return fmt.Errorf("process %d is of user %d, not %d", peer.Pid, peer.Uid, os.Geteuid())
	}
	return nil
}

// talk answers one daemon's requests.
func (h *Holder) talk(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for {
		text, fds, err := receive(c)
		lost := errors.As(err, new(*TruncatedError))
		if err != nil && !lost || text == "" {
			return
		}
		if !lost {
			err = h.answer(c, text, fds)
		}
		reply := "ok"
		if err != nil {
			h.log.Warn("a request is refused", "err", err)
			reply = "error " + err.Error()
		}
		if send(c, reply) != nil {
			return
		}
	}
}

// answer carries a request out. The descriptors are its own.
func (h *Holder) answer(c *net.UnixConn, text string, fds []int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	what, name, _ := strings.Cut(text, " ")
	if what == "keep" && len(fds) == 1 && name != "" && len(name) <= longest && (h.known(name) || len(h.kept) < most) {
		h.forget(name)
		h.kept[name] = fds[0]
		return nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	switch {
	case what == "hello" && len(fds) == 0:
		return nil
	case what == "forget" && len(fds) == 0:
		h.forget(name)
		return nil
	case what == "take" && len(fds) == 0:
		for _, name := range slices.Sorted(maps.Keys(h.kept)) {
			if err := send(c, name, h.kept[name]); err != nil {
				return err
			}
		}
		return nil
	case what == "keep" && len(h.kept) >= most:
		return fmt.Errorf("%d descriptors are kept, more is not possible", most)
	}
	return fmt.Errorf("request %.80q with %d descriptors is not understood", text, len(fds))
}

func (h *Holder) known(name string) bool {
	_, ok := h.kept[name]
	return ok
}

func (h *Holder) forget(name string) {
	if fd, ok := h.kept[name]; ok {
		unix.Close(fd)
		delete(h.kept, name)
	}
}

// send sends one message with descriptors, and waits for that.
func send(c *net.UnixConn, text string, fds ...int) error {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, _, err := c.WriteMsgUnix([]byte(text), rights(fds), nil)
	return err
}

// sendNow is send that does not wait: the error is EAGAIN where it would have to.
func sendNow(c *net.UnixConn, text string, fds ...int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = unix.Sendmsg(int(fd), []byte(text), rights(fds), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	return errors.Join(failed, err)
}

func rights(fds []int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return unix.UnixRights(fds...)
}

// TruncatedError says that a message came without all of its descriptors, or its text. It
// happens where a process may open no more of them.
type TruncatedError struct{ Text string }

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("what came with %.80q was lost on the way: more descriptors are open than this process may have (LimitNOFILE=)", e.Text)
}

// receive takes one message with its descriptors; none with text is the end.
func receive(c *net.UnixConn) (text string, fds []int, err error) {
	b, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(4*8))
	n, m, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return "", nil, err
	}
	all, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil {
		return "", nil, err
	}
	for i := range all {
		if rights, err := unix.ParseUnixRights(&all[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	text = string(b[:n])
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		closeAll(fds)
		return text, nil, &TruncatedError{text}
	}
	return text, fds, nil
}
