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
	if _, err := s.probe(r); err != nil {
		return err
	}
	return plain(w, "ok\n")
}

// readyz says whether a topology is in force at this site. With ?verbose it names
// what is wrong, which a site can be ready in spite of.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	st, err := s.probe(r)
	if err != nil {
		return err
	}
	if st.Generation == 0 {
		return &Error{Code: CodeInternal, Status: http.StatusServiceUnavailable,
			Title: "not ready", Detail: "no topology has been applied: run pwctl apply -f FILE"}
	}
	if !r.URL.Query().Has("verbose") {
		return plain(w, "ok\n")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ok: site %s, generation %d, %s\n", st.Site, st.Generation, st.Health)
	for _, p := range st.Problems {
		fmt.Fprintf(&b, "%s: %s\n", p.Object, p.What)
	}
	return plain(w, b.String())
}

// probe is the status, if the daemon gives one soon.
func (s *Server) probe(r *http.Request) (*Status, error) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	st, err := s.backend.Status(ctx)
	if err != nil {
		return nil, &Error{Code: CodeInternal, Status: http.StatusServiceUnavailable,
			Title: "the daemon does not answer", Detail: err.Error()}
	}
	return st, nil
}

func plain(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", contentPlain)
	_, err := w.Write([]byte(text))
	return ignoreWrite(err)
}
