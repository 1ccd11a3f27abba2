package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the other end may take for one message.
const patience = 2 * time.Second

// client speaks with a holder. It belongs to one goroutine.
type client struct {
	path string
	conn *net.UnixConn
}

// connect makes the connection, if there is none.
func (c *client) connect() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: c.path})
	if err != nil {
		return err
	}
	if err := trusted(conn); err != nil {
		conn.Close()
		return err
	}
	c.conn = conn
	return nil
}

// absent says that an error is of a holder that is not there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// ask makes a request and gives each the messages before the last.
func (c *client) ask(text string, each func(name string, fds []int), fds ...int) error {
	if err := c.connect(); err != nil {
		return err
	}
	err := c.talk(text, each, fds...)
	if err != nil && !errors.As(err, new(*refusal)) {
		c.close() // no answer is to be taken for that to another request
	}
	return err
}

func (c *client) talk(text string, each func(name string, fds []int), fds ...int) error {
	if err := send(c.conn, text, fds...); err != nil {
		return err
	}
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		answer, got, err := receive(c.conn)
		switch {
		case err != nil:
			return err
		case answer == "":
			return net.ErrClosed
		case answer == "ok" && len(got) == 0:
			return nil
		case strings.HasPrefix(answer, "error ") && len(got) == 0:
			return &refusal{answer[len("error "):]}
		case each != nil:
			each(answer, got)
		default:
			closeAll(got)
			return fmt.Errorf("answer %.80q to %.80q is not understood", answer, text)
		}
	}
}

// refusal is what a holder does not do.
type refusal struct{ why string }

func (e *refusal) Error() string { return "it refuses: " + e.why }

// lives reports whether the connection is there and the holder has not ended it.
func (c *client) lives() bool {
	if c.conn == nil {
		return false
	}
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	// Between two requests there is nothing to read but the end.
	waiting := false
	failed := raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waiting = err == unix.EAGAIN
	})
	if failed != nil || !waiting {
		c.close()
	}
	return c.conn != nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
