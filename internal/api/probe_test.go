package api_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestReadiness(t *testing.T) {
	b := apitest.New(apitest.Answers{Status: api.Status{Site: "dc1"}})
	socket, _ := apitest.Serve(t, b, api.Options{})
	if res, body := ask(t, socket, "GET", "/readyz", ""); res.StatusCode != 503 || !strings.Contains(body, "no topology has been applied") {
		t.Errorf("before the first apply: %s %s", res.Status, body)
	}
	if res, body := ask(t, socket, "GET", "/healthz", ""); res.StatusCode != 200 {
		t.Errorf("it lives nonetheless: %s %s", res.Status, body)
	}
	b.Set(func(a *apitest.Answers) {
		a.Status.Generation, a.Status.Health = 1, "degraded"
		a.Status.Problems = []api.Problem{{Object: "tunnel gold to dc2", What: "connecting: no answer yet"}}
	})
	const want = "ok: site dc1, generation 1, degraded\ntunnel gold to dc2: connecting: no answer yet\n"
	if res, body := ask(t, socket, "GET", "/readyz?verbose", ""); res.StatusCode != 200 || body != want {
		t.Errorf("%s %s, want %s", res.Status, body, want)
	}
}

// A network sees metrics and health, and nothing else of the API.
func TestProbesAreNotTheAPI(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a_metric 1\n") })
	s := api.NewServer(apitest.New(threeSites()), api.Options{Metrics: metrics})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.ServeProbes(ctx, listener) }()
	for path, want := range map[string]string{
		"/metrics": "200 a_metric 1\n", "/healthz": "200 ok\n", "/readyz": "200 ok\n",
		"/v1/status": "404", "/v1/events": "404", "/v1/capture": "404", "/v1/apply": "404", "/": "404", "/metrics?x=1": "400",
	} {
		res, err := http.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if got := res.Status[:3] + " " + string(body); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, %v, want %s", path, got, err, want)
		}
	}
	res, err := http.Post("http://"+listener.Addr().String()+"/v1/apply", "application/json", strings.NewReader("{}"))
	if err != nil || res.StatusCode != 404 {
		t.Errorf("apply: %v, %v", res, err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Without metrics there is no such resource.
func TestNoMetrics(t *testing.T) {
	socket, _ := apitest.Serve(t, apitest.New(threeSites()), api.Options{})
	if res, _ := ask(t, socket, "GET", "/metrics", ""); res.StatusCode != 404 {
		t.Error(res.Status)
	}
}

// busy is a daemon whose status takes for ever.
type busy struct{ *apitest.Backend }

func (busy) Status(ctx context.Context) (*api.Status, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// What asks often whether the daemon is there does not have it look at everything.
func TestHealthIsNoStatus(t *testing.T) {
	socket, _ := apitest.Serve(t, busy{apitest.New(threeSites())}, api.Options{})
	for _, path := range []string{"/healthz", "/readyz"} {
		if res, body := ask(t, socket, "GET", path, ""); res.StatusCode != 200 || body != "ok\n" {
			t.Errorf("%s: %s %s", path, res.Status, body)
		}
	}
}

// wedged is a daemon that does not answer, and notes how many waited at once.
type wedged struct {
	*apitest.Backend
	mu              sync.Mutex
	waiting, atOnce int
}

func (w *wedged) Pulse(ctx context.Context) (api.Pulse, error) {
	w.mu.Lock()
	w.waiting++
	w.atOnce = max(w.atOnce, w.waiting)
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting--
	return api.Pulse{}, ctx.Err()
}

// However many ask, few of them are the daemon's affair at once; all are answered.
func TestProbesAreFewAtOnce(t *testing.T) {
	const many = 20
	w := &wedged{Backend: apitest.New(threeSites())}
	socket, _ := apitest.Serve(t, w, api.Options{})
	codes := make(chan int, many)
	for range many {
		go func() {
			res, _ := ask(t, socket, "GET", "/healthz", "")
			codes <- res.StatusCode
		}()
	}
	for range many {
		if code := <-codes; code != 503 {
			t.Errorf("status %d of a daemon that does not answer", code)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.atOnce > 4 {
		t.Errorf("%d of %d were asked at once", w.atOnce, many)
	}
}
