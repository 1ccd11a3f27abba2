package transport

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Keeper keeps descriptors beyond the end of the process, for the one that comes after
// it. What fails is the Keeper's to tell: a connection goes on without.
type Keeper interface {
	// Keep takes a duplicate of a descriptor. The same one again changes nothing.
	Keep(name string, fd int)
	// Forget closes what is kept under a name.
	Forget(name string)
}

// keptName is what a connection's socket is kept under.
func keptName(connection uint32) string {
	return "l2tpv3-" + strconv.FormatUint(uint64(connection), 10)
}

// inherited is a socket of an earlier process.
type inherited struct {
	fd int
	// cookie is the kernel's number of it, which no other socket has had since the machine booted.
	cookie uint64
}

// Inherit takes over a descriptor that an earlier process had its Keeper keep. Restore
// goes on with it where the saved state knows it: with the kernel's L2TP that hangs on
// the socket, too, and without touching it. It is closed otherwise, by Disown.
func (t *Transport) Inherit(name string, fd int) error {
	cookie, err := cookieOf(fd)
	if err == nil {
		err = sameNamespace(fd)
	}
	if known := t.inherited[name]; err == nil && known != nil && known.cookie != cookie {
		err = fmt.Errorf("there are two sockets of that name")
	}
	if err != nil {
		unix.Close(fd)
		t.drop(name)
		return &KeptError{name, err}
	}
	if t.inherited[name] != nil {
		unix.Close(fd) // two keepers had it
		return nil
	}
	unix.CloseOnExec(fd)
	t.inherited[name] = &inherited{fd, cookie}
	return nil
}

// KeptError says why a descriptor cannot be taken over.
type KeptError struct {
	Name string
	Err  error
}

func (e *KeptError) Error() string {
	return fmt.Sprintf("take over the descriptor %s: %v: what hangs on it ends", e.Name, e.Err)
}

func (e *KeptError) Unwrap() error { return e.Err }

// Disown closes the inherited sockets that Restore had no use for, and returns their
// names. The kernel's tunnels that hang on them end.
func (t *Transport) Disown() (names []string) {
	for name, i := range t.inherited {
		names = append(names, name)
		unix.Close(i.fd)
		delete(t.inherited, name)
		t.drop(name)
	}
	return names
}

func (t *Transport) drop(name string) {
	if t.keeper != nil {
		t.keeper.Forget(name)
	}
}

// KeepAgain gives a Keeper that has lost what it had everything once more.
func (t *Transport) KeepAgain() {
	for _, c := range t.sorted() {
		if c.Kept == 0 {
			continue
		}
		c.kept = false
		if _, err := t.Socket(c.Connection); err != nil {
			t.log.Debug("socket not kept", "ccid", c.Connection, "err", err)
		}
	}
}

// keep has the Keeper keep a connection's socket, once.
func (t *Transport) keep(c *connection, fd int) error {
	if c.kept || t.keeper == nil {
		return nil
	}
	cookie, err := cookieOf(fd)
	if err != nil {
		return c.failed("keep", err)
	}
	c.kept, c.Kept = true, cookie
	t.keeper.Keep(keptName(c.Connection), fd)
	return nil
}

// forget ends the keeping of a connection's socket that is about to be closed. At the end
// of the Transport it is kept.
func (t *Transport) forget(c *connection) {
	if !c.kept || t.closed {
		return
	}
	c.kept, c.Kept = false, 0
	t.drop(keptName(c.Connection))
}

// adopt gives a restored connection the socket that it had, as it was: looking up an
// address or setting an option would hold the socket, and cost the frame that the kernel
// sends from it at that moment.
func (t *Transport) adopt(c *connection) {
	if !t.Inherits(c.ConnectionState) || !c.Connected {
		return
	}
	i := t.inherited[keptName(c.Connection)]
	switch {
	case c.Encapsulation == l2tpv3.IP && c.kernel < 0:
		c.kernel = i.fd
	case c.Encapsulation == l2tpv3.UDP && c.socket == nil:
		s, err := resumeSocket(i.fd, c)
		if err != nil {
			t.log.Warn("cannot go on with a socket that was kept", "ccid", c.Connection, "err", err)
			return
		}
		c.socket = s
		t.begin(s)
	default:
		return
	}
	delete(t.inherited, keptName(c.Connection))
	c.kept = true
	t.log.Debug("socket taken over", "encapsulation", c.Encapsulation, "local", c.Local, "remote", c.Remote, "ccid", c.Connection)
}

// voidKept forgets of a restored connection the socket that was not there.
func (c *connection) voidKept() {
	if !c.kept {
		c.Kept = 0
	}
}

// resumeSocket is the connected UDP socket of a connection.
func resumeSocket(fd int, c *connection) (*socket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), keptName(c.Connection))
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{
		encapsulation: l2tpv3.UDP, conn: file, raw: raw, local: c.Local, connection: c.Connection,
		connected: true, hears: c.Initiator, done: make(chan struct{}),
	}
	s.peer.Store(&peer{addr: c.Remote, settled: true})
	return s, nil
}

func cookieOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// sameNamespace says that a socket is one of this network namespace.
func sameNamespace(fd int) error {
	theirs, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return err
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	ours, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == nil && ours != theirs {
		err = fmt.Errorf("it is of another network namespace")
	}
	return err
}

// Inherits reports whether Restore would go on with the socket that a state is of.
func (t *Transport) Inherits(s ConnectionState) bool {
	i := t.inherited[keptName(s.Connection)]
	return i != nil && s.Kept != 0 && i.cookie == s.Kept
}
