package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
	"golang.org/x/sys/unix"
)

// What a Backend answers arrives at the other end of a Client as it was.
func TestClientGivesWhatTheBackendGave(t *testing.T) {
	want := threeSites()
	want.Status.Problems = []api.Problem{{Object: "tunnel gold/dc3", What: "no answer", Fix: "look there"}}
	want.Status.Tunnels, want.Status.Pseudowires = []api.Tunnel{}, []api.Pseudowire{}
	want.Apply = func(_ context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
		return &api.ApplyResult{Generation: 5, Changes: []api.Change{}, Waiting: []string{fmt.Sprintf("%+v", req)}}, nil
	}
	socket, _ := apitest.Serve(t, apitest.New(want), api.Options{})
	c := api.Dial(socket)
	defer c.Close()
	ctx := t.Context()

	st, err := c.Status(ctx)
	if diff := cmp.Diff(&want.Status, st); diff != "" || err != nil {
		t.Errorf("status: %v\n%s", err, diff)
	}
	tunnels, err := c.Tunnels(ctx)
	if len(tunnels) != 3 || tunnels[0].LocalControlConnectionID != 7 || err != nil {
		t.Errorf("tunnels: %v %v", tunnels, err)
	}
	sessions, err := c.Sessions(ctx)
	if len(sessions) != 3 || sessions[0].LocalSessionID != 9 || err != nil {
		t.Errorf("sessions: %v %v", sessions, err)
	}
	pws, err := c.Pseudowires(ctx)
	if len(pws) != 3 || pws[0].Name != "storage/dc2" || err != nil {
		t.Errorf("pseudowires: %v %v", pws, err)
	}
	acs, err := c.Attachments(ctx)
	if len(acs) != 2 || acs[0].Pseudowire != "a" || err != nil {
		t.Errorf("attachments: %v %v", acs, err)
	}
	classes, err := c.Classes(ctx)
	if diff := cmp.Diff([]api.Class{{Name: "bulk"}, {Name: "voice"}}, classes); diff != "" || err != nil {
		t.Errorf("classes: %v\n%s", err, diff)
	}
	req := api.ApplyRequest{Name: "f", Document: "a: \"\u2028\"\n", DryRun: true, Disruptive: true, RequirePeers: true}
	res, err := c.Apply(ctx, req)
	if err != nil || res.Generation != 5 || res.Waiting[0] != fmt.Sprintf("%+v", req) {
		t.Errorf("apply: %v %v", res, err)
	}
}

func TestClientGivesTheDaemonsError(t *testing.T) {
	want := &api.Error{Code: api.CodeNeedsConfirmation, Title: "needs confirmation", Status: 409,
		Changes: []api.Change{{Action: "remove", Kind: "pseudowire", Name: "a", Impact: "recreates"}}}
	b := apitest.New(apitest.Answers{Apply: func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) { return nil, want }})
	socket, _ := apitest.Serve(t, b, api.Options{})
	_, err := api.Dial(socket).Apply(t.Context(), api.ApplyRequest{})
	var got *api.Error
	if !errors.As(err, &got) || errors.Is(err, api.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// serveRaw lets handle have every connection to a socket, whose path it returns.
func serveRaw(t *testing.T, handle func(net.Conn)) string {
	path := filepath.Join(apitest.Dir(t), "pwd.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return path
}

// A daemon that cannot be reached: which socket, what that means, what to do.
func TestUnreachable(t *testing.T) {
	dir := apitest.Dir(t)
	missing, stale := filepath.Join(dir, "none.sock"), filepath.Join(dir, "stale.sock")
	leaveStale(t, stale)
	hangs := serveRaw(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	dies := serveRaw(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		c.Close()
	})
	cut := serveRaw(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"site\":")
		c.Close()
	})
	start := "start it with `bin/pwd --site SITE --topology FILE --run-dir " + dir + "`; the socket of another daemon is named by --socket or PWCTL_SOCKET"
	const again = "it stopped or restarts: try again, or look at its log (journalctl -u pwd)"
	for _, tt := range []struct{ name, socket, want, help string }{
		{"never started", missing, "pwd is not running: there is no socket " + missing, start},
		{"killed", stale, "pwd is not running: nobody serves the socket " + stale + " that an earlier one left", start},
		{"hangs", hangs, "pwd is running but does not answer on " + hangs, "look at the daemon's log (journalctl -u pwd)"},
		{"dies", dies, "pwd ended the connection to " + dies, again},
		{"dies while it answers", cut, "pwd ended the connection to " + cut, again},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if tt.name == "hangs" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			_, err := api.Dial(tt.socket).Status(ctx)
			var got *api.UnreachableError
			if !errors.As(err, &got) || !errors.Is(err, api.ErrUnreachable) {
				t.Fatalf("got %v", err)
			}
			if got.Error() != tt.want || got.Help() != tt.help || got.Socket != tt.socket {
				t.Errorf("got  %s\n     %s\nwant %s\n     %s", got, got.Help(), tt.want, tt.help)
			}
		})
	}
	t.Run("default socket", func(t *testing.T) {
		e := &api.UnreachableError{Socket: "/run/pwd/pwd.sock", Err: &net.OpError{Op: "dial", Err: unix.ENOENT}}
		if want := "start it with `systemctl start pwd`, or from a build with `bin/pwd --site SITE --topology FILE`; the socket of another daemon is named by --socket or PWCTL_SOCKET"; e.Help() != want {
			t.Errorf("help %q", e.Help())
		}
	})
	t.Run("permission", func(t *testing.T) {
		e := &api.UnreachableError{Socket: "/run/pwd/pwd.sock", Err: &net.OpError{Op: "dial", Err: unix.EACCES}}
		if !errors.Is(e, fs.ErrPermission) || e.Error() != "may not open the socket /run/pwd/pwd.sock: permission denied" {
			t.Errorf("got %v", e)
		}
	})
}

// Something else on the socket is told apart from a daemon that refuses.
func TestForeignServer(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"a page":           func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"a refusal":        func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) },
		"JSON of no error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, `{"a":1}`) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(apitest.Dir(t), "pwd.sock")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: answer}
			go srv.Serve(ln)
			defer srv.Close()
			_, err = api.Dial(path).Status(t.Context())
			var foreign *api.ForeignError
			if !errors.As(err, &foreign) || foreign.Socket != path || errors.Is(err, api.ErrUnreachable) {
				t.Errorf("got %v, want a ForeignError", err)
			}
			err = api.Dial(path).Events(t.Context(), 0, false, func(api.Event) error { return nil })
			if !errors.As(err, &foreign) {
				t.Errorf("events: %v, want a ForeignError", err)
			}
		})
	}
}
