package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrUnreachable is what every *UnreachableError is: no daemon answers.
var ErrUnreachable = errors.New("daemon unreachable")

// UnreachableError says that no daemon answers on a socket. errors.Is finds it
// as ErrUnreachable, and as fs.ErrPermission where the socket is there but may
// not be opened.
type UnreachableError struct {
	// Socket is the path that was tried.
	Socket string
	// Err is what the system said.
	Err error
}

// Error says which socket it is and what that tells about the daemon.
func (e *UnreachableError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("pwd is not running: there is no socket %s", e.Socket)
	case errors.Is(e.Err, unix.ECONNREFUSED):
		return fmt.Sprintf("pwd is not running: nobody serves the socket %s that an earlier one left", e.Socket)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("may not open the socket %s: permission denied", e.Socket)
	case errors.Is(e.Err, context.DeadlineExceeded):
		return fmt.Sprintf("pwd is running but does not answer on %s", e.Socket)
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF),
		errors.Is(e.Err, unix.ECONNRESET), errors.Is(e.Err, unix.EPIPE):
		return fmt.Sprintf("pwd ended the connection to %s", e.Socket)
	}
	return fmt.Sprintf("cannot reach pwd on %s: %v", e.Socket, e.Err)
}

// Help says what to do about it.
func (e *UnreachableError) Help() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return "run as root, or as a member of the socket's group"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "look at the daemon's log (journalctl -u pwd)"
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF),
		errors.Is(e.Err, unix.ECONNRESET), errors.Is(e.Err, unix.EPIPE):
		return "it stopped or restarts: try again, or look at its log (journalctl -u pwd)"
	}
	dir := filepath.Dir(e.Socket)
	start := "start it with `systemctl start pwd`, or from a build with `bin/pwd --site SITE --topology FILE`"
	if dir != DefaultRunDir {
		start = "start it with `bin/pwd --site SITE --topology FILE --run-dir " + dir + "`"
	}
	return start + "; the socket of another daemon is named by --socket or PWCTL_SOCKET"
}

// Unwrap gives what the system said.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Is finds every UnreachableError as ErrUnreachable.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Client talks to a daemon over its unix socket. It is safe for concurrent use.
// Its methods return an *Error where the daemon refused, an *UnreachableError
// where none answered.
type Client struct {
	socket string
	http   *http.Client
}

// A client can stand wherever a Backend can.
var _ Backend = (*Client)(nil)

// Dial returns a client of the daemon at socket. Nothing is sent before its
// first call.
func Dial(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
		IdleConnTimeout:    idleTimeout / 2, // the client gives up an idle connection first
	}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Socket is the path that the client talks to.
func (c *Client) Socket() string { return c.socket }

// Pulse asks whether the daemon answers.
func (c *Client) Pulse(ctx context.Context) (Pulse, error) {
	s, err := c.Status(ctx)
	return Pulse{Site: s.Site, Generation: s.Generation}, err
}

// Status asks for the daemon in one screen.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var out Status
	return &out, c.get(ctx, "/v1/status", &out)
}

// Tunnels asks for the tunnels, sorted by name and peer.
func (c *Client) Tunnels(ctx context.Context) ([]Tunnel, error) {
	return items[Tunnel](ctx, c, "/v1/tunnels")
}

// Sessions asks for the sessions, sorted by pseudowire and tunnel.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return items[Session](ctx, c, "/v1/sessions")
}

// Pseudowires asks for the pseudowires, sorted by name.
func (c *Client) Pseudowires(ctx context.Context) ([]Pseudowire, error) {
	return items[Pseudowire](ctx, c, "/v1/pseudowires")
}

// Attachments asks for the attachment circuits, sorted by pseudowire.
func (c *Client) Attachments(ctx context.Context) ([]Attachment, error) {
	return items[Attachment](ctx, c, "/v1/attachments")
}

// Classes asks for the classes of service, sorted by name.
func (c *Client) Classes(ctx context.Context) ([]Class, error) {
	return items[Class](ctx, c, "/v1/classes")
}

// MACs asks for the addresses that bridges have learned, sorted by bridge, VLAN and address.
func (c *Client) MACs(ctx context.Context) ([]MAC, error) {
	return items[MAC](ctx, c, "/v1/macs")
}

// Announce tells peers which addresses are at this site.
func (c *Client) Announce(ctx context.Context, req AnnounceRequest) ([]Announcement, error) {
	var out List[Announcement]
	return out.Items, c.post(ctx, "/v1/announce", req, &out)
}

// Apply applies a topology and waits for the result, however long it takes. An
// apply that has begun goes on when ctx ends.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) (*ApplyResult, error) {
	var out ApplyResult
	if err := c.post(ctx, "/v1/apply", req, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// RotateCookies gives pseudowires other cookies and waits for the result.
func (c *Client) RotateCookies(ctx context.Context, req RotateRequest) ([]Rotation, error) {
	var out List[Rotation]
	return out.Items, c.post(ctx, "/v1/rotate-cookies", req, &out)
}

// Events calls emit with every event kept that is newer than since and, with
// follow, with new ones until ctx ends (nil), emit fails (its error) or the
// daemon ends the stream (*UnreachableError).
func (c *Client) Events(ctx context.Context, since uint64, follow bool, emit func(Event) error) error {
	q := url.Values{}
	if since > 0 {
		q.Set("since", strconv.FormatUint(since, 10))
	}
	if follow {
		q.Set("follow", "true")
	}
	path := "/v1/events"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var e Event
		err := dec.Decode(&e)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF) && !follow:
			return nil
		case err != nil:
			return c.broken(err)
		}
		if err := emit(e); err != nil {
			return err
		}
	}
}

// items asks for a collection.
func items[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var out List[T]
	err := c.get(ctx, path, &out)
	return out.Items, err
}

// get asks for one answer, within answerTimeout and a little more.
func (c *Client) get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+healthTimeout)
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return c.decode(res, out)
}

// do sends a request and turns every answer that is no success into an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://pwd"+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentJSON)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, context.Canceled
		}
		// The transport's error repeats the method and the made-up address.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, &UnreachableError{Socket: c.socket, Err: err}
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	e := new(Error)
	err = c.decode(res, e)
	if err == nil && e.Code == "" {
		err = &ForeignError{Socket: c.socket, Status: res.StatusCode}
	}
	if err != nil {
		return nil, err
	}
	e.Status = res.StatusCode
	return nil, e
}

// ForeignError says that whatever answers on a socket does not speak as pwd does.
type ForeignError struct {
	// Socket is the path, Status the answer's HTTP status, Err what could not be
	// read.
	Socket string
	Status int
	Err    error
}

// Error says what answered how.
func (e *ForeignError) Error() string {
	s := fmt.Sprintf("what answers on %s does not speak as pwd does: HTTP status %d", e.Socket, e.Status)
	if e.Err != nil {
		s += ", " + e.Err.Error()
	}
	return s
}

// Unwrap gives what could not be read.
func (e *ForeignError) Unwrap() error { return e.Err }

// decode reads the whole body of res into out.
func (c *Client) decode(res *http.Response, out any) error {
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return c.broken(err)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &ForeignError{Socket: c.socket, Status: res.StatusCode, Err: err}
	}
	return nil
}

// broken is the error of a connection that ended within an answer.
func (c *Client) broken(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		return &ForeignError{Socket: c.socket, Status: http.StatusOK, Err: err}
	}
	return &UnreachableError{Socket: c.socket, Err: err}
}
