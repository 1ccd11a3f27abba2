package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// CaptureRequest says which messages are wanted.
type CaptureRequest struct {
	// Tunnel is the tunnel's name; Peer may be empty, for those to all its peers.
	Tunnel, Peer string
	// Count ends the capture after so many messages, Duration after so long; zero is
	// no end.
	Count    int
	Duration time.Duration
	// Data has data packets in it, too.
	Data bool
}

func (r *CaptureRequest) query() url.Values {
	q := url.Values{"tunnel": {r.Tunnel}}
	if r.Peer != "" {
		q.Set("peer", r.Peer)
	}
	if r.Count > 0 {
		q.Set("count", strconv.Itoa(r.Count))
	}
	if r.Duration > 0 {
		q.Set("duration", r.Duration.String())
	}
	if r.Data {
		q.Set("data", "true")
	}
	return q
}

func captureQuery(q url.Values) (r CaptureRequest, err error) {
	r = CaptureRequest{Tunnel: q.Get("tunnel"), Peer: q.Get("peer")}
	if r.Tunnel == "" {
		return r, badRequest("which tunnel? Say tunnel=NAME")
	}
	if v := q.Get("count"); v != "" {
		if r.Count, err = strconv.Atoi(v); err != nil || r.Count < 1 {
			return r, badRequest("count=" + v + " is not a number of messages")
		}
	}
	if v := q.Get("duration"); v != "" {
		if r.Duration, err = time.ParseDuration(v); err != nil || r.Duration <= 0 {
			return r, badRequest("duration=" + v + " is not a time, as 30s")
		}
	}
	switch v := q.Get("data"); v {
	case "true":
		r.Data = true
	case "", "false":
	default:
		return r, badRequest("data=" + v + " is neither true nor false")
	}
	return r, nil
}

// capture streams a tunnel's control messages as a pcapng file. Cookies are in
// them, so that it is for those who may change things.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) error {
	req, err := captureQuery(r.URL.Query())
	if err != nil {
		return err
	}
	peer, known := PeerFrom(r.Context())
	who := peer.attr()
	if !known || !s.mayChange(peer) {
		s.log.Warn("capture refused", who, "tunnel", req.Tunnel)
		e := s.notPermitted(peer, known)
		e.Detail = "control messages hold the cookies of sessions: " + e.Detail
		return e
	}
	s.log.Info("capture begins", who, "tunnel", req.Tunnel, "peer", req.Peer)
	out := &captureWriter{w: w}
	err = s.backend.Capture(r.Context(), req, out)
	s.log.Info("capture ends", who, "tunnel", req.Tunnel, "peer", req.Peer, "octets", out.octets)
	switch {
	case r.Context().Err() != nil:
		return nil
	case err != nil && out.octets > 0:
		// As with events: the end of the stream has to be told from its breaking off.
		return s.breakOff(w)
	}
	return err
}

// captureWriter sends each piece at once. The answer begins with the first.
type captureWriter struct {
	w      http.ResponseWriter
	octets int
}

func (c *captureWriter) Write(b []byte) (int, error) {
	rc := http.NewResponseController(c.w)
	if c.octets == 0 {
		c.w.Header().Set("Content-Type", contentCapture)
		// Whoever reads may stop and think: what comes meanwhile is missed, and told.
		_ = rc.SetWriteDeadline(time.Time{})
	}
	n, err := c.w.Write(b)
	if c.octets += n; err == nil {
		err = rc.Flush()
	}
	return n, err
}

// Capture writes a pcapng file of a tunnel's control messages to w, until what
// the request says is reached, or ctx ends (nil), w fails (its error) or the
// daemon ends the stream (*UnreachableError).
func (c *Client) Capture(ctx context.Context, req CaptureRequest, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, "/v1/capture?"+req.query().Encode(), nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer res.Body.Close()
	from := &readFailure{r: res.Body}
	_, err = io.Copy(w, from)
	switch {
	case ctx.Err() != nil:
		return nil
	case from.err != nil:
		return c.broken(from.err)
	}
	return err
}

// readFailure keeps what reading failed with, to tell it from a failure to write.
type readFailure struct {
	r   io.Reader
	err error
}

func (f *readFailure) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
