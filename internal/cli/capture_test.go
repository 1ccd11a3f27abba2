package cli_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
	"github.com/pwd-project/pwd/internal/pcapng"
)

// recorded is a capture of n messages, before the last of which some were missed.
func recorded(t *testing.T, n int, missed uint64) func(context.Context, api.CaptureRequest, io.Writer) error {
	return func(_ context.Context, req api.CaptureRequest, w io.Writer) error {
		out, err := pcapng.NewWriter(w, req.Tunnel)
		if err != nil {
			return err
		}
		at := netip.MustParseAddrPort("192.0.2.1:1701")
		for i := range n {
			m := pcapng.Message{Time: now, Source: at, Destination: at, Payload: []byte{0xc8, 3, 0, 12}}
			if i == n-1 {
				m.Missed = missed
			}
			if err := out.Write(&m); err != nil {
				return err
			}
		}
		return out.Close(now, 0)
	}
}

func TestCapture(t *testing.T) {
	a := site()
	a.Capture = recorded(t, 2, 0)
	socket, b := serve(t, a)
	var whole bytes.Buffer
	if err := a.Capture(t.Context(), api.CaptureRequest{Tunnel: "gold"}, &whole); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"capture gold", "capture gold -w -"} {
		check(t, socket, command{args: args}, want{stdout: "\n" + whole.String(), stderr: "2 messages\n"})
		check(t, socket, command{args: args, terminal: true}, want{code: 2, stderr: `
pwctl: a capture is not for a terminal
  help: ` + "`pwctl capture gold | tshark -r -` decodes it, `-w FILE` keeps it\n"})
	}
	file := filepath.Join(t.TempDir(), "gold.pcapng")
	b.Set(func(a *apitest.Answers) { a.Capture = recorded(t, 1, 3) })
	check(t, socket, command{args: "capture gold -w " + file, terminal: true},
		want{stderr: "1 message, 3 more came faster than they were taken and are missing, in " + file + "\n"})
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || info.Size() == 0 {
		t.Errorf("%v, %v; want a file that nobody else reads", info, err)
	}
}

func TestCaptureAsks(t *testing.T) {
	a := site()
	var asked []api.CaptureRequest
	a.Capture = func(_ context.Context, req api.CaptureRequest, w io.Writer) error {
		asked = append(asked, req)
		return recorded(t, 0, 0)(t.Context(), req, w)
	}
	socket, _ := serve(t, a)
	run(t, socket, command{args: "capture gold/dc2 -c 5 --duration 30s"})
	if len(asked) != 1 || asked[0].Tunnel != "gold" || asked[0].Peer != "dc2" || asked[0].Count != 5 || asked[0].Duration.String() != "30s" {
		t.Errorf("asked for %+v", asked)
	}
}

// A capture that is refused leaves no file behind, one that breaks off what there was.
func TestCaptureFails(t *testing.T) {
	a := site()
	a.Capture = func(context.Context, api.CaptureRequest, io.Writer) error {
		return &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no tunnel lead"}
	}
	socket, b := serve(t, a)
	file := filepath.Join(t.TempDir(), "lead.pcapng")
	check(t, socket, command{args: "capture lead -w " + file}, want{code: 1, stderr: "pwctl: not found: this site has no tunnel lead\n"})
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
	b.Set(func(a *apitest.Answers) {
		a.Capture = func(ctx context.Context, req api.CaptureRequest, w io.Writer) error {
			return errors.Join(recorded(t, 1, 0)(ctx, req, w), errors.New("the daemon is stopping"))
		}
	})
	code, _, stderr := run(t, socket, command{args: "capture gold -w " + file})
	if code != 3 || !strings.HasPrefix(stderr, "1 message, in "+file+"\npwctl: pwd ended the connection") {
		t.Errorf("broken off: %d %s", code, stderr)
	}
	refused := apitest.New(site())
	socket, _ = apitest.Serve(t, refused, api.Options{MayChange: func(api.Peer) bool { return false }})
	check(t, socket, command{args: "capture gold"}, want{code: 10, stderr: "pwctl: not permitted: control messages hold the cookies of sessions: only root and the daemon's own user may change this site; you are " + me() +
		"\n  help: run pwctl as root, or have yourself named under `access:` of the daemon's configuration\n"})
}
