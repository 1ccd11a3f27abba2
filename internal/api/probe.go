package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// probeRoutes are what monitoring asks for.
func (s *Server) probeRoutes(metrics http.Handler) []*route {
	routes := []*route{
		{s: s, method: http.MethodGet, path: "/healthz", handle: s.healthz},
		{s: s, method: http.MethodGet, path: "/readyz", queries: []string{"verbose"}, handle: s.readyz},
	}
	if metrics != nil {
		routes = append(routes, &route{s: s, method: http.MethodGet, path: "/metrics",
			handle: func(w http.ResponseWriter, r *http.Request) error { metrics.ServeHTTP(w, r); return nil }})
	}
	for _, r := range routes {
		handle := r.handle
		r.handle = func(w http.ResponseWriter, req *http.Request) error {
			// Who asks and does not read keeps no place of others.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
			return handle(w, req)
		}
	}
	return routes
}

// healthz says whether the daemon lives: its loop answers. Whether what it does
// succeeds is for /readyz and the metrics to say: a daemon is not made better by
// being started anew because a peer is away.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) error {
	_, err := probe(s, r, s.backend.Pulse)
	if err != nil {
		return err
	}
	return plain(w, "ok\n")
}

// readyz says whether a topology is in force at this site. With ?verbose it names
// what is wrong, which a site can be ready in spite of.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	p, err := probe(s, r, s.backend.Pulse)
	if err != nil {
		return err
	}
	if p.Generation == 0 {
		return &Error{Code: CodeInternal, Status: http.StatusServiceUnavailable,
			Title: "not ready", Detail: "no topology has been applied: run pwctl apply -f FILE"}
	}
	if !r.URL.Query().Has("verbose") {
		return plain(w, "ok\n")
	}
	st, err := probe(s, r, s.backend.Status)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ok: site %s, generation %d, %s\n", st.Site, st.Generation, st.Health)
	for _, p := range st.Problems {
		fmt.Fprintf(&b, "%s: %s\n", p.Object, p.What)
	}
	return plain(w, b.String())
}

// probesAtOnce is how many of these requests the daemon answers at once, whoever asks;
// the rest wait their turn.
const probesAtOnce = 4

// probe is what the daemon says, if it does soon.
func probe[T any](s *Server, r *http.Request, ask func(context.Context) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	select {
	case s.probing <- struct{}{}:
		defer func() { <-s.probing }()
		answer, err = ask(ctx)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return answer, &Error{Code: CodeInternal, Status: http.StatusServiceUnavailable,
			Title: "the daemon does not answer", Detail: err.Error()}
	}
	return answer, nil
}

func plain(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", contentPlain)
	_, err := w.Write([]byte(text))
	return ignoreWrite(err)
}
