package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// captured is a backend whose captures write pieces and then end with err.
func captured(err error, pieces ...string) (*apitest.Backend, *api.CaptureRequest) {
	asked := new(api.CaptureRequest)
	return apitest.New(apitest.Answers{Capture: func(_ context.Context, req api.CaptureRequest, w io.Writer) error {
		*asked = req
		for _, p := range pieces {
			if _, err := io.WriteString(w, p); err != nil {
				return err
			}
		}
		return err
	}}), asked
}

func TestCapture(t *testing.T) {
	b, asked := captured(nil, "one", "two")
	socket, _ := apitest.Serve(t, b, api.Options{})
	c := api.Dial(socket)
	defer c.Close()
	want := api.CaptureRequest{Tunnel: "gold", Peer: "dc2", Count: 7, Duration: 90 * time.Second}
	var got bytes.Buffer
	if err := c.Capture(t.Context(), want, &got); err != nil || got.String() != "onetwo" {
		t.Errorf("%q, %v", got.String(), err)
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if res, body := ask(t, socket, "GET", "/v1/capture?tunnel=gold", ""); res.Header.Get("Content-Type") != "application/x-pcapng" || body != "onetwo" {
		t.Errorf("%v %q", res.Header, body)
	}
	for query, detail := range map[string]string{
		"":                         "which tunnel? Say tunnel=NAME",
		"?tunnel=gold&count=0":     "count=0 is not a number of messages",
		"?tunnel=gold&duration=5":  "duration=5 is not a time, as 30s",
		"?tunnel=gold&duration=0s": "duration=0s is not a time, as 30s",
	} {
		if res, body := ask(t, socket, "GET", "/v1/capture"+query, ""); res.StatusCode != 400 || !strings.Contains(body, detail) {
			t.Errorf("%s: %s %s", query, res.Status, body)
		}
	}
}

// A capture that fails before its first octet is refused, afterwards it breaks off.
func TestCaptureFails(t *testing.T) {
	refusal := &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no tunnel lead"}
	for _, tt := range []struct {
		pieces []string
		broken bool
	}{{nil, false}, {[]string{"one"}, true}} {
		b, _ := captured(refusal, tt.pieces...)
		socket, _ := apitest.Serve(t, b, api.Options{})
		c := api.Dial(socket)
		defer c.Close()
		err := c.Capture(t.Context(), api.CaptureRequest{Tunnel: "lead"}, io.Discard)
		var e *api.Error
		if refused, broken := errors.As(err, &e), errors.Is(err, api.ErrUnreachable); refused == tt.broken || broken != tt.broken {
			t.Errorf("after %d pieces: %v", len(tt.pieces), err)
		}
	}
	b, _ := captured(nil, "one")
	socket, _ := apitest.Serve(t, b, api.Options{})
	c := api.Dial(socket)
	defer c.Close()
	full := errors.New("the disk is full")
	if err := c.Capture(t.Context(), api.CaptureRequest{Tunnel: "gold"}, failing{full}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Whoever may only look may not capture: cookies are in control messages.
func TestCapturePermission(t *testing.T) {
	b, asked := captured(nil, "one")
	socket, _ := apitest.Serve(t, b, api.Options{MayChange: func(api.Peer) bool { return false }})
	res, body := ask(t, socket, "GET", "/v1/capture?tunnel=gold", "")
	if res.StatusCode != 403 || !strings.Contains(body, `"code":"not-permitted"`) || asked.Tunnel != "" {
		t.Errorf("%s %s", res.Status, body)
	}
}

// An interrupted client is no failure, and the backend is told.
func TestCaptureIsInterrupted(t *testing.T) {
	ended := make(chan struct{})
	b := apitest.New(apitest.Answers{Capture: func(ctx context.Context, _ api.CaptureRequest, w io.Writer) error {
		defer close(ended)
		if _, err := io.WriteString(w, "one"); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}})
	socket, _ := apitest.Serve(t, b, api.Options{})
	c := api.Dial(socket)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Capture(ctx, api.CaptureRequest{Tunnel: "gold"}, cancelling(cancel)); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the backend goes on")
	}
}

type cancelling context.CancelFunc

func (c cancelling) Write(b []byte) (int, error) {
	c()
	return len(b), nil
}
