package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// threeSites is a site with tunnel gold to two peers, in no order.
func threeSites() apitest.Answers {
	return apitest.Answers{
		Status: api.Status{Site: "dc1", Health: "healthy", Generation: 4},
		Tunnels: []api.Tunnel{
			{Name: "silver", Peer: "dc2", State: "down"},
			{Name: "gold", Peer: "dc3", State: "connecting"},
			{Name: "gold", Peer: "dc2", State: "established", LocalControlConnectionID: 7},
		},
		Sessions: []api.Session{
			{Tunnel: "silver", Pseudowire: "b", Peer: "dc2", LocalSessionID: 4},
			{Tunnel: "gold", Pseudowire: "a", Peer: "dc2", LocalSessionID: 9},
			{Tunnel: "gold", Pseudowire: "a", Peer: "dc3", LocalSessionID: 8},
		},
		Pseudowires: []api.Pseudowire{{Name: "tenant", Peer: "dc2"}, {Name: "storage/dc3", Peer: "dc3"}, {Name: "storage/dc2", Peer: "dc2"}},
		Attachments: []api.Attachment{{Pseudowire: "tenant"}, {Pseudowire: "a"}},
		Classes:     []api.Class{{Name: "voice"}, {Name: "bulk"}},
		MACs:        []api.MAC{{Address: "b"}, {Address: "a"}},
	}
}

// httpClient speaks plain HTTP on a socket, as curl --unix-socket does.
func httpClient(t *testing.T, socket string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// ask sends one request and returns the answer with its body.
func ask(t *testing.T, socket, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://pwd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := httpClient(t, socket).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(got)
}

// names gives what identifies each item of a collection.
func names(t *testing.T, body string, members ...string) string {
	t.Helper()
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var out []string
	for _, it := range list.Items {
		var key []string
		for _, m := range members {
			key = append(key, fmt.Sprint(it[m]))
		}
		out = append(out, strings.Join(key, "/"))
	}
	return strings.Join(out, " ")
}

func TestCollectionsAreSortedAndFiltered(t *testing.T) {
	socket, _ := apitest.Serve(t, apitest.New(threeSites()), api.Options{Version: "1.2"})
	for _, tt := range []struct{ path, members, want string }{
		{"/v1/tunnels", "name peer", "gold/dc2 gold/dc3 silver/dc2"},
		{"/v1/tunnels?peer=dc2", "name peer", "gold/dc2 silver/dc2"},
		{"/v1/tunnels?peer=nowhere", "name peer", ""},
		{"/v1/sessions", "pseudowire localSessionID", "a/9 a/8 b/4"},
		{"/v1/sessions?tunnel=gold&peer=dc3", "localSessionID", "8"},
		{"/v1/sessions?pseudowire=b", "localSessionID", "4"},
		{"/v1/pseudowires", "name", "storage/dc2 storage/dc3 tenant"},
		{"/v1/pseudowires?peer=dc3", "name", "storage/dc3"},
		{"/v1/attachments", "pseudowire", "a tenant"},
		{"/v1/attachments?pseudowire=tenant", "pseudowire", "tenant"},
		{"/v1/classes", "name", "bulk voice"},
		{"/v1/macs", "address", "a b"},
	} {
		res, body := ask(t, socket, "GET", tt.path, "")
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Server") != "pwd/1.2" {
			t.Errorf("%s: %s, headers %v", tt.path, res.Status, res.Header)
		}
		if got := names(t, body, strings.Fields(tt.members)...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestSingleThings(t *testing.T) {
	socket, _ := apitest.Serve(t, apitest.New(threeSites()), api.Options{})
	for path, want := range map[string]string{
		"/v1/tunnels/silver":          `"name":"silver","peer":"dc2"`,
		"/v1/tunnels/gold/dc3":        `"name":"gold","peer":"dc3"`,
		"/v1/tunnels/gold?peer=dc2":   `"localControlConnectionID":7`,
		"/v1/pseudowires/storage/dc3": `"name":"storage/dc3"`,
		"/v1/pseudowires/tenant":      `"name":"tenant"`,
		"/healthz":                    "ok\n",
		"/readyz":                     "ok\n",
		"/readyz?verbose":             "ok: site dc1, generation 4, healthy\n",
	} {
		res, body := ask(t, socket, "GET", path, "")
		if res.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %s %s, want %s in it", path, res.Status, body, want)
		}
	}
}

func TestNothingIsNull(t *testing.T) {
	b := apitest.New(apitest.Answers{Apply: func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) {
		return &api.ApplyResult{}, nil
	}})
	socket, _ := apitest.Serve(t, b, api.Options{})
	for _, kind := range []string{"tunnels", "sessions", "pseudowires", "attachments", "classes"} {
		if _, body := ask(t, socket, "GET", "/v1/"+kind, ""); body != "{\"items\":[]}\n" {
			t.Errorf("%s: %s", kind, body)
		}
	}
	_, status := ask(t, socket, "GET", "/v1/status", "")
	_, applied := ask(t, socket, "POST", "/v1/apply", `{"name":"f","document":""}`)
	for _, want := range []string{`"problems":[]`, `"tunnels":[]`, `"pseudowires":[]`, `"changes":[]`} {
		if !strings.Contains(status+applied, want) {
			t.Errorf("no %s in %s %s", want, status, applied)
		}
	}
}

// Errors look as RFC 9457, section 3 has it, with the code that programs use.
func TestErrors(t *testing.T) {
	a := threeSites()
	a.Apply = func(_ context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
		switch req.Name {
		case "invalid":
			return nil, &api.Error{Code: api.CodeInvalidTopology, Title: "invalid topology", Diagnostics: []api.Diagnostic{
				{File: "invalid", Line: 3, Column: 5, Severity: "error", Code: "PW0101", Message: "unknown key"}}}
		case "disruptive":
			return nil, fmt.Errorf("planning: %w", &api.Error{Code: api.CodeNeedsConfirmation, Title: "needs confirmation",
				Changes: []api.Change{{Action: "change", Kind: "tunnel", Name: "gold", Impact: "resets-session"}}})
		case "failed":
			return nil, &api.Error{Code: api.CodeApplyFailed}
		case "slow":
			return nil, fmt.Errorf("waiting for the loop: %w", context.DeadlineExceeded)
		}
		return nil, errors.New("making the device: no space left")
	}
	socket, _ := apitest.Serve(t, apitest.New(a), api.Options{})
	large := `{"name":"f","document":"` + strings.Repeat("x", 4<<20) + `"}`
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"no such path", "GET", "/v1/tunnel", "", 404,
			`{"code":"not-found","title":"no such resource","detail":"/v1/tunnel is not part of the API","status":404}`},
		{"no such tunnel", "GET", "/v1/tunnels/lead", "", 404,
			`{"code":"not-found","title":"not found","detail":"this site has no tunnel lead","status":404}`},
		{"no such peer", "GET", "/v1/tunnels/gold?peer=dc9", "", 404,
			`{"code":"not-found","title":"not found","detail":"this site has no tunnel gold","status":404}`},
		{"several peers", "GET", "/v1/tunnels/gold", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"tunnel gold has several peers, dc2, dc3: say which one, as /v1/tunnels/gold/dc2","status":400}`},
		{"no such pseudowire", "GET", "/v1/pseudowires/storage", "", 404,
			`{"code":"not-found","title":"not found","detail":"this site has no pseudowire storage","status":404}`},
		{"a query that would be ignored", "GET", "/v1/sessions?tunel=gold", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"unknown query tunel: /v1/sessions knows tunnel, pseudowire, peer","status":400}`},
		{"a query where none is", "GET", "/v1/status?x", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"unknown query x: /v1/status takes no query","status":400}`},
		{"wrong method", "DELETE", "/v1/tunnels/gold", "", 405,
			`{"code":"bad-request","title":"method not allowed","detail":"/v1/tunnels/gold takes GET","status":405}`},
		{"asking to apply", "GET", "/v1/apply", "", 405,
			`{"code":"bad-request","title":"method not allowed","detail":"/v1/apply takes POST","status":405}`},
		{"no sequence number", "GET", "/v1/events?since=now", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"since=now is not an event's sequence number","status":400}`},
		{"no truth", "GET", "/v1/events?follow=maybe", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"follow=maybe is neither true nor false","status":400}`},
		{"no JSON", "POST", "/v1/apply", "kind: Topology", 400,
			`{"code":"bad-request","title":"bad request","detail":"the body cannot be read: invalid character 'k' looking for beginning of value","status":400}`},
		{"no body", "POST", "/v1/apply", "", 400,
			`{"code":"bad-request","title":"bad request","detail":"the body cannot be read: EOF","status":400}`},
		{"a wish that this version does not know", "POST", "/v1/apply", `{"name":"f","confirm":"10s"}`, 400,
			`{"code":"bad-request","title":"bad request","detail":"the body cannot be read: json: unknown field \"confirm\"","status":400}`},
		{"two values", "POST", "/v1/apply", `{"name":"f"} {}`, 400,
			`{"code":"bad-request","title":"bad request","detail":"the body cannot be read: there is something after the JSON value","status":400}`},
		{"too large", "POST", "/v1/apply", large, 413,
			`{"code":"bad-request","title":"request too large","detail":"a request has at most 4 MiB","status":413}`},
		{"too large behind a value", "POST", "/v1/apply", `{"name":"f"}` + strings.Repeat(" ", 4<<20), 413,
			`{"code":"bad-request","title":"request too large","detail":"a request has at most 4 MiB","status":413}`},
		{"invalid topology", "POST", "/v1/apply", `{"name":"invalid"}`, 422,
			`{"code":"invalid-topology","title":"invalid topology","status":422,"diagnostics":[{"file":"invalid","line":3,"column":5,"severity":"error","code":"PW0101","message":"unknown key"}]}`},
		{"a wrapped error", "POST", "/v1/apply", `{"name":"disruptive"}`, 409,
			`{"code":"needs-confirmation","title":"needs confirmation","status":409,"changes":[{"action":"change","kind":"tunnel","name":"gold","impact":"resets-session"}]}`},
		{"no title", "POST", "/v1/apply", `{"name":"failed"}`, 500,
			`{"code":"apply-failed","title":"Internal Server Error","status":500}`},
		{"too late", "POST", "/v1/apply", `{"name":"slow"}`, 504,
			`{"code":"timeout","title":"the daemon is busy","detail":"no answer in time; try again, and look at its log if it stays so","status":504}`},
		{"an error of no type", "POST", "/v1/apply", `{"name":"other"}`, 500,
			`{"code":"internal","title":"internal error","detail":"making the device: no space left","status":500}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, body := ask(t, socket, tt.method, tt.path, tt.body)
			if res.StatusCode != tt.status || res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s, %s", res.Status, res.Header.Get("Content-Type"))
			}
			if diff := cmp.Diff(tt.want+"\n", body); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if allow := res.Header.Get("Allow"); (tt.status == 405) != (allow != "") {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

func TestHealthzOfADaemonThatHangs(t *testing.T) {
	socket, _ := apitest.Serve(t, apitest.New(apitest.Answers{Err: context.DeadlineExceeded}), api.Options{})
	res, body := ask(t, socket, "GET", "/healthz", "")
	if res.StatusCode != 503 || !strings.Contains(body, "the daemon does not answer") {
		t.Errorf("%s %s", res.Status, body)
	}
}

// Whoever may open the socket may read; only some may change.
func TestPermission(t *testing.T) {
	applied, untrusted := 0, false
	a := threeSites()
	a.Apply = func(_ context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
		if untrusted = req.Untrusted; !req.DryRun {
			applied++
		}
		return &api.ApplyResult{Generation: 3, Changes: []api.Change{{Action: "add", Kind: "tunnel", Name: "gold"}}}, nil
	}
	a.Rotate = func(r api.RotateRequest) ([]api.Rotation, error) {
		return []api.Rotation{{Pseudowire: r.Pseudowires[0], Result: "done"}}, nil
	}
	b := apitest.New(a)
	const apply, dryRun = `{"name":"two.yaml","document":"x"}`, `{"name":"two.yaml","document":"x","dryRun":true}`
	refusal := `{"code":"not-permitted","title":"not permitted","detail":"only root and the daemon's own user may change this site; you are ` +
		(api.Peer{UID: uint32(os.Geteuid())}).String() + `","status":403}` + "\n"

	t.Run("by the predicate", func(t *testing.T) {
		applied = 0
		var log bytes.Buffer
		socket, stop := apitest.Serve(t, b, api.Options{
			Logger:    slog.New(slog.NewTextHandler(&log, nil)),
			MayChange: func(p api.Peer) bool { return p.PID != int32(os.Getpid()) },
		})
		if res, body := ask(t, socket, "POST", "/v1/apply", apply); res.StatusCode != 403 || body != refusal {
			t.Errorf("%s %s", res.Status, body)
		}
		if res, body := ask(t, socket, "POST", "/v1/apply", dryRun); res.StatusCode != 200 || !untrusted {
			t.Errorf("dry run: %s %s, untrusted %v", res.Status, body, untrusted)
		}
		if res, body := ask(t, socket, "POST", "/v1/rotate-cookies", `{}`); res.StatusCode != 403 || body != refusal {
			t.Errorf("%s %s", res.Status, body)
		}
		stop()
		if applied != 0 {
			t.Errorf("%d applied", applied)
		}
		want := fmt.Sprintf(`msg="apply refused" client.pid=%d client.uid=%d client.gid=%d`, os.Getpid(), os.Getuid(), os.Getgid())
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, &log)
		}
	})
	t.Run("the owner", func(t *testing.T) {
		applied = 0
		var log bytes.Buffer
		socket, stop := apitest.Serve(t, b, api.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if res, body := ask(t, socket, "POST", "/v1/apply", apply); res.StatusCode != 200 || untrusted {
			t.Errorf("%s %s, untrusted %v", res.Status, body, untrusted)
		}
		const rotated = `{"items":[{"pseudowire":"tenant-a","peer":"","result":"done"}]}` + "\n"
		if res, body := ask(t, socket, "POST", "/v1/rotate-cookies", `{"pseudowires":["tenant-a"]}`); res.StatusCode != 200 || body != rotated {
			t.Errorf("%s %s", res.Status, body)
		}
		stop()
		name := `""`
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		want := fmt.Sprintf(`msg=applied client.pid=%d client.uid=%d client.gid=%d client.user=%s file=two.yaml generation=3 changes=1`,
			os.Getpid(), os.Getuid(), os.Getgid(), name)
		if applied != 1 || !strings.Contains(log.String(), want) {
			t.Errorf("%d applied, log:\n%s", applied, &log)
		}
	})
	t.Run("nobody known", func(t *testing.T) {
		applied = 0
		w := httptest.NewRecorder()
		api.NewServer(b, api.Options{}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/apply", strings.NewReader(apply)))
		if w.Code != 403 || strings.Contains(w.Body.String(), "you are") || !strings.Contains(w.Body.String(), "not-permitted") || applied != 0 {
			t.Errorf("%d %s, %d applied", w.Code, w.Body, applied)
		}
	})
}

// An apply is a transaction: a client that goes does not cut it short.
func TestApplyOutlivesItsClient(t *testing.T) {
	begun, proceed, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	b := apitest.New(apitest.Answers{Apply: func(ctx context.Context, _ api.ApplyRequest) (*api.ApplyResult, error) {
		close(begun)
		<-proceed
		ended <- ctx.Err()
		return &api.ApplyResult{}, nil
	}})
	socket, stop := apitest.Serve(t, b, api.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() {
		_, err := api.Dial(socket).Apply(ctx, api.ApplyRequest{Name: "f"})
		gone <- err
	}()
	<-begun
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v", err)
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(proceed)
	if err := <-ended; err != nil {
		t.Errorf("the apply's context: %v", err)
	}
	<-stopped
}

// Whatever is asked, the answer is JSON with a status that says the same.
func FuzzServer(f *testing.F) {
	for _, path := range []string{"/", "/healthz", "/v1/tunnels/gold/dc2?peer=x", "/v1/events?since=1&follow=false", "/v1/apply", "//v1/%2e%2e/status"} {
		f.Add("GET", path, "")
		f.Add("POST", path, `{"name":"f","document":"a: b","dryRun":true}`)
	}
	a := threeSites()
	a.Apply = func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) { return &api.ApplyResult{}, nil }
	b := apitest.New(a)
	server := api.NewServer(b, api.Options{})
	f.Fuzz(func(t *testing.T, method, path, body string) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // so that streams end
		req, err := http.NewRequestWithContext(ctx, method, "http://pwd/", strings.NewReader(body))
		if err != nil {
			return
		}
		if req.URL, err = req.URL.Parse(path); err != nil {
			return
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		for len(b.StreamEnded) > 0 {
			<-b.StreamEnded
		}
		if w.Header().Get("Content-Type") != "application/problem+json" {
			return
		}
		var e api.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code == "" || e.Title == "" || e.Status != w.Code {
			t.Errorf("%s %s: %d %s (%v)", method, path, w.Code, w.Body, err)
		}
	})
}
