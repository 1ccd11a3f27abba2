package hold

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/systemd"
)

const (
	// patience is how long a holder may take for an answer before that is told.
	patience = 2 * time.Second
	// takePatience is how long a daemon that begins waits for what a holder keeps: without it, what hangs
	// on those sockets ends.
	takePatience = 10 * time.Second
	// redial is how long a holder that is not there is left alone.
	redial = 500 * time.Millisecond
	// window is how many requests may wait for their answers; further ones wait here.
	window = 32
)

// request is one of a daemon to its holder.
type request struct {
	// what is asked for; name is that of a descriptor to keep or to forget.
	what, name string
	// fd is the request's own descriptor, or -1.
	fd int
	// each takes the messages before the last; nil if there are to be none.
	each func(name string, fds []int)
	// done, if set, is closed once it is answered, or has no answer to wait for.
	done chan struct{}
	// then, if set, is called once it is answered to its end.
	then func()
	sent time.Time
}

func (r *request) text() string {
	if r.name == "" {
		return r.what
	}
	return r.what + " " + r.name
}

func (r *request) end() {
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
	if r.done != nil {
		close(r.done)
	}
}

// link speaks with a holder, in the background: its methods never wait for it. What a
// holder that hangs has not taken waits in the one connection that there is, so that it
// never gets an old request after a newer one.
type link struct {
	path string
	// ours says whose holder will do.
	ours func(*net.UnixConn) error

	mu   sync.Mutex
	conn *net.UnixConn
	// ready says that the holder has answered on this connection, renewed that it has
	// nothing yet of what it is to keep.
	ready, renewed bool
	// gone says that there is no holder.
	gone         bool
	queue, asked []*request
	// failure is what went wrong last with the holder; nil once something went right. unkept is of
	// descriptors, each until it is kept after all, or not to be.
	failure error
	unkept  systemd.Unkept
	// lost are the names of what the holder has and could not give.
	lost []string
	// untaken says that a holder which was to give what it keeps has not; late are the names of what it
	// had, once it has told.
	untaken       bool
	late          []string
	once          sync.Once
	ended, tended chan struct{}
}

func newLink(path string, ours func(*net.UnixConn) error) *link {
	l := &link{path: path, ours: ours, ended: make(chan struct{}), tended: make(chan struct{})}
	conn := l.dial()
	go l.tend(conn)
	return l
}

// tend keeps the connection, and has a new one made when it has ended.
func (l *link) tend(conn *net.UnixConn) {
	defer close(l.tended)
	for {
		if conn != nil {
			l.listen(conn)
		}
		select {
		case <-l.ended:
			return
		case <-time.After(redial):
		}
		conn = l.dial()
	}
}

// dial connects, and asks for the first sign of life. Connecting to a local socket does
// not wait: it works, or fails at once.
func (l *link) dial() *net.UnixConn {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: l.path})
	if err == nil {
		if err = l.ours(conn); err != nil {
			conn.Close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ended: // finish has seen no connection to close
		if err == nil {
			conn.Close()
		}
		return nil
	default:
	}
	switch {
	case absent(err):
		l.failure, l.untaken, l.gone = nil, false, true // that there is none is nothing wrong
		l.drop(func(*request) bool { return true })
		return nil
	case err != nil:
		l.failure = err
		return nil
	}
	l.conn, l.ready, l.gone = conn, false, false
	l.queue = slices.Insert(l.queue, 0, &request{what: "hello", fd: -1})
	l.pump()
	return conn
}

// absent says that an error is of a holder that is not there: what it kept is gone.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// ended says that an error is of a connection that has ended, at either end.
func ended(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// listen takes answers until the connection ends.
func (l *link) listen(conn *net.UnixConn) {
	var err error
	for err == nil {
		var text string
		var fds []int
		text, fds, err = receive(conn)
		if err == nil && text == "" {
			err = net.ErrClosed
		}
		l.mu.Lock()
		if err == nil || errors.As(err, new(*TruncatedError)) {
			err = l.answered(text, fds, err)
		}
		l.mu.Unlock()
	}
	conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.ready, l.unkept = nil, false, nil
	if !ended(err) {
		l.failure = err
	}
	// It may live on without what it was not told to forget; what it is to keep it is given anew.
	l.queue = append(l.asked, l.queue...)
	l.asked = nil
	l.drop(func(r *request) bool { return r.what != "forget" })
}

// drop gives up requests that wait.
func (l *link) drop(which func(*request) bool) {
	l.queue = slices.DeleteFunc(l.queue, func(r *request) bool {
		if which(r) {
			r.end()
			return true
		}
		return false
	})
}

// answered takes one message, or the news that its descriptors were lost. An error is a
// reason to give the connection up.
func (l *link) answered(text string, fds []int, lost error) error {
	if len(l.asked) == 0 {
		closeAll(fds)
		return fmt.Errorf("answer %.80q to nothing is not understood", text)
	}
	r := l.asked[0]
	last := true
	switch {
	case lost == nil && text == "ok" && len(fds) == 0:
		l.failure = nil
		if r.name != "" {
			l.unkept.Note(r.name, nil)
		}
	case lost == nil && strings.HasPrefix(text, "error ") && len(fds) == 0:
		refused := &RefusedError{text[len("error "):]}
		switch r.what {
		case "hello": // which holders of earlier versions do not know
		case "keep":
			l.unkept.Note(r.name, refused)
		case "take": // broken off: the rest is asked for on another connection
			return refused
		default:
			l.failure = refused
		}
	case r.each == nil:
		closeAll(fds)
		return fmt.Errorf("answer %.80q to %.80q is not understood", text, r.text())
	case lost != nil:
		l.unkept.Note(text, lost) // it is the name
		l.lost = append(l.lost, text)
		last = false
	default:
		r.each(text, fds)
		last = false
	}
	r.sent = time.Now()
	if last {
		l.asked = l.asked[1:]
		if r.then != nil {
			r.then()
		}
		r.end()
	}
	if !l.ready {
		l.ready, l.renewed = true, true
		if l.untaken && !slices.ContainsFunc(l.queue, func(r *request) bool { return r.what == "take" }) {
			l.takeLate()
		}
	}
	l.pump()
	return nil
}

// pump sends what may be sent.
func (l *link) pump() {
	for l.conn != nil && len(l.queue) > 0 && len(l.asked) < window {
		if !l.ready && len(l.asked) > 0 {
			return
		}
		r := l.queue[0]
		var fds []int
		if r.fd >= 0 {
			fds = []int{r.fd}
		}
		err := sendNow(l.conn, r.text(), fds...)
		if errors.Is(err, unix.EAGAIN) {
			return // the next answer makes room
		}
		if err != nil {
			if !ended(err) {
				l.failure = err
			}
			l.conn.Close() // listen does the rest
			return
		}
		if r.fd >= 0 {
			unix.Close(r.fd)
			r.fd = -1
		}
		r.sent = time.Now()
		l.queue, l.asked = l.queue[1:], append(l.asked, r)
	}
}

// keep has the holder keep a duplicate of a descriptor, if there is a holder.
func (l *link) keep(name string, fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return // once there is one it is renewed
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		l.unkept.Note(name, fmt.Errorf("duplicate the descriptor: %w", err))
		return
	}
	l.put(&request{what: "keep", name: name, fd: own})
}

// forget has the holder close what it keeps under a name.
func (l *link) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(&request{what: "forget", name: name, fd: -1})
}

// put adds a request that makes those void which wait for the same name.
func (l *link) put(r *request) {
	l.drop(func(old *request) bool { return old.name == r.name })
	l.queue = append(l.queue, r)
	l.pump()
}

// takeLate asks for what the holder kept when it did not answer. Nobody goes on with that any more, and
// while it is open its addresses and numbers are taken.
func (l *link) takeLate() {
	var names []string
	r := &request{what: "take", fd: -1, each: func(name string, fds []int) {
		closeAll(fds)
		names = append(names, name)
	}, then: func() {
		l.untaken, l.late, l.lost = false, append(names, l.lost...), nil
	}}
	// Before all that is to be kept, which it is not to take for that.
	l.queue = slices.Insert(l.queue, 0, r)
}

// takeOld returns, once, the names of what the holder had when it did not answer.
func (l *link) takeOld() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := l.late
	l.late = nil
	return names
}

// take waits, but not longer than it is told, for all that the holder keeps. It returns the names of what was lost on
// the way: the holder has it still.
func (l *link) take(longest time.Duration, each func(name string, fd int)) (lost []string) {
	type kept struct {
		name string
		fd   int
	}
	var all []kept
	over := false
	r := &request{what: "take", fd: -1, done: make(chan struct{}), each: func(name string, fds []int) {
		if over || len(fds) != 1 {
			closeAll(fds)
			return
		}
		all = append(all, kept{name, fds[0]})
	}, then: func() { l.untaken, l.renewed = false, false }}
	l.mu.Lock()
	if l.conn == nil {
		l.untaken = !l.gone
		l.mu.Unlock()
		return nil
	}
	l.untaken = true
	l.queue = append(l.queue, r)
	l.pump()
	l.mu.Unlock()
	select {
	case <-r.done:
	case <-time.After(longest):
		l.giveUp(longest)
	}
	l.mu.Lock()
	over = true
	lost, l.lost = l.lost, nil
	l.mu.Unlock()
	for _, k := range all {
		each(k.name, k.fd)
	}
	return lost
}

// lacks says that the holder was to keep something and does not.
func (l *link) lacks(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unkept[name] != nil
}

// giveUp ends a connection on which the holder has not answered.
func (l *link) giveUp(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.failure = &SilentError{after}
		l.conn.Close()
	}
}

// state reports whether there is a holder that answers, and what is wrong with it.
func (l *link) state(now time.Time) (works bool, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) > 0 {
		if silent := now.Sub(l.asked[0].sent); silent > patience {
			return false, &SilentError{silent}
		}
	}
	if l.failure != nil {
		return l.ready, l.failure
	}
	return l.ready, l.unkept.Err()
}

// takeRenewed reports, once, that there is a holder that has nothing.
func (l *link) takeRenewed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.renewed
	l.renewed = false
	return was
}

// close ends the connection once everything is answered, or patience has ended.
func (l *link) close() { l.once.Do(l.finish) }

func (l *link) finish() {
	l.mu.Lock()
	last := &request{what: "hello", fd: -1, done: make(chan struct{})}
	if l.conn != nil && (len(l.queue) > 0 || len(l.asked) > 0) {
		l.queue = append(l.queue, last)
		l.pump()
	} else {
		last.end()
	}
	l.mu.Unlock()
	select {
	case <-last.done:
	case <-time.After(patience):
	}
	close(l.ended)
	l.mu.Lock()
	if l.conn != nil {
		l.conn.Close()
	}
	l.mu.Unlock()
	<-l.tended
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(func(*request) bool { return true })
}

// RefusedError is what a holder does not do.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "it refuses: " + e.Why }

// SilentError says that a holder does not answer.
type SilentError struct{ For time.Duration }

func (e *SilentError) Error() string {
	return fmt.Sprintf("it has not answered for %v", e.For.Round(time.Second))
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
