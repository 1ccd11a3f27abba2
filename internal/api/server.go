package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Limits of the server. A topology of 1 MiB, the most that is parsed, fits into
// a request even if a quarter of it needs escapes.
const (
	maxRequestOctets = 4 << 20
	maxHeaderOctets  = 16 << 10
	headerTimeout    = 5 * time.Second
	bodyTimeout      = 30 * time.Second
	answerTimeout    = 10 * time.Second // for the Backend to answer a GET
	writeTimeout     = 10 * time.Second // for the client to take one answer or event
	idleTimeout      = 2 * time.Minute
	shutdownGrace    = time.Second
	healthTimeout    = 2 * time.Second
	contentJSON      = "application/json"
	contentProblem   = "application/problem+json" // RFC 9457, section 3
	contentNDJSON    = "application/x-ndjson"
	contentCapture   = "application/x-pcapng"
	contentPlain     = "text/plain; charset=utf-8"
)

// Options are a server's settings; the zero value works.
type Options struct {
	// Logger gets who changed what and what failed; nil discards.
	Logger *slog.Logger
	// Version is the daemon's, for the Server header.
	Version string
	// MayChange says who may change things; nil is OwnerMayChange.
	MayChange func(Peer) bool
	// Changers says in words who may besides root and the daemon's user, for those who
	// may not.
	Changers string
	// Metrics answers /metrics; nil is no such resource.
	Metrics http.Handler
}

// Server answers requests from a Backend. It is an http.Handler; Serve runs it
// with the limits and timeouts that belong to it.
type Server struct {
	backend   Backend
	log       *slog.Logger
	version   string
	mayChange func(Peer) bool
	changers  string
	// mux has all of the API, probes what may be shown to a network.
	mux, probes *http.ServeMux
	// probing has a token for each probe that is being answered.
	probing chan struct{}
}

// NewServer returns a server of b.
func NewServer(b Backend, o Options) *Server {
	s := &Server{
		backend: b, log: o.Logger, version: o.Version, mayChange: o.MayChange, changers: o.Changers,
		mux: http.NewServeMux(), probes: http.NewServeMux(), probing: make(chan struct{}, probesAtOnce),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.mayChange == nil {
		s.mayChange = OwnerMayChange
	}
	for _, r := range s.routes() {
		s.mux.Handle(r.path, r)
	}
	for _, mux := range []*http.ServeMux{s.mux, s.probes} {
		for _, r := range s.probeRoutes(o.Metrics) {
			mux.Handle(r.path, r)
		}
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			s.fail(w, r, &Error{Code: CodeNotFound, Title: "no such resource", Detail: r.URL.Path + " is not part of the API"})
		})
	}
	return s
}

// Serve answers connections of ln until ctx ends, then ends the event streams,
// gives answers under way a second, closes ln and returns nil. An error is one
// of the listener's.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.mux)
}

// ServeProbes is Serve of /metrics, /healthz and /readyz alone, which change nothing
// and name no secret: for a listener that others than this host's users can reach.
func (s *Server) ServeProbes(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.probes)
}

func (s *Server) serve(ctx context.Context, ln net.Listener, mux *http.ServeMux) error {
	srv := &http.Server{
		Handler:           s.signed(mux),
		ConnContext:       ConnContext,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderOctets,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close()
	}
	<-done
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.signed(s.mux).ServeHTTP(w, r)
}

// signed says in every answer whose it is, and that it is of this moment.
func (s *Server) signed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.version != "" {
			w.Header().Set("Server", "pwd/"+s.version)
		}
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// route is one path of the API: its only method and the queries that it knows.
type route struct {
	s       *Server
	method  string
	path    string
	queries []string
	handle  func(http.ResponseWriter, *http.Request) error
}

func (s *Server) routes() []*route {
	get := func(path string, h func(http.ResponseWriter, *http.Request) error, queries ...string) *route {
		return &route{s: s, method: http.MethodGet, path: path, queries: queries, handle: h}
	}
	return []*route{
		get("/v1/status", s.status),
		get("/v1/tunnels", collection(s, Backend.Tunnels, compareTunnels, matchTunnel), "peer"),
		get("/v1/tunnels/{name...}", s.tunnel, "peer"),
		get("/v1/sessions", collection(s, Backend.Sessions, compareSessions, matchSession), "tunnel", "pseudowire", "peer"),
		get("/v1/pseudowires", collection(s, Backend.Pseudowires, comparePseudowires, matchPseudowire), "peer"),
		get("/v1/pseudowires/{name...}", s.pseudowire),
		get("/v1/attachments", collection(s, Backend.Attachments, compareAttachments, matchAttachment), "pseudowire"),
		get("/v1/classes", collection(s, Backend.Classes, compareClasses, nil)),
		get("/v1/macs", collection(s, Backend.MACs, compareMACs, nil)),
		get("/v1/events", s.events, "since", "follow"),
		get("/v1/capture", s.capture, "tunnel", "peer", "count", "duration", "data"),
		{s: s, method: http.MethodPost, path: "/v1/apply", handle: s.apply},
		{s: s, method: http.MethodPost, path: "/v1/rotate-cookies", handle: s.rotateCookies},
		{s: s, method: http.MethodPost, path: "/v1/announce", handle: s.announce},
		{s: s, method: http.MethodPost, path: "/v1/classify", handle: s.classify},
		{s: s, method: http.MethodPost, path: "/v1/drain", handle: s.drain},
		get("/v1/drift", s.drifts),
		get("/v1/history", s.history),
		{s: s, method: http.MethodPost, path: "/v1/confirm", handle: s.confirm},
		{s: s, method: http.MethodPost, path: "/v1/rollback", handle: s.rollback},
	}
}

// ServeHTTP refuses other methods and unknown queries, which would otherwise be
// ignored in silence, and shows the handler's error.
func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != r.method && !(req.Method == http.MethodHead && r.method == http.MethodGet) {
		w.Header().Set("Allow", r.method)
		r.s.fail(w, req, &Error{Code: CodeBadRequest, Status: http.StatusMethodNotAllowed,
			Title: "method not allowed", Detail: req.URL.Path + " takes " + r.method})
		return
	}
	if err := r.checkQuery(req.URL); err != nil {
		r.s.fail(w, req, err)
		return
	}
	if err := r.handle(w, req); err != nil {
		r.s.fail(w, req, err)
	}
}

func (r *route) checkQuery(u *url.URL) error {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return badRequest("the query cannot be read: " + err.Error())
	}
	for key := range q {
		if slices.Contains(r.queries, key) {
			continue
		}
		known := "takes no query"
		if len(r.queries) > 0 {
			known = "knows " + strings.Join(r.queries, ", ")
		}
		return badRequest("unknown query " + key + ": " + u.Path + " " + known)
	}
	return nil
}

// collection answers with the items of list that match the query, sorted.
func collection[T any](s *Server, list func(Backend, context.Context) ([]T, error),
	compare func(a, b T) int, match func(T, url.Values) bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		all, err := list(s.backend, ctx)
		if err != nil {
			return err
		}
		items := make([]T, 0, len(all))
		for _, item := range all {
			if match == nil || match(item, r.URL.Query()) {
				items = append(items, item)
			}
		}
		slices.SortStableFunc(items, compare)
		return s.answer(w, List[T]{Items: items})
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	st, err := s.backend.Status(ctx)
	if err != nil {
		return err
	}
	out := *st
	out.Problems = append([]Problem{}, st.Problems...)
	out.Tunnels = append([]Tunnel{}, st.Tunnels...)
	out.Pseudowires = append([]Pseudowire{}, st.Pseudowires...)
	slices.SortStableFunc(out.Tunnels, compareTunnels)
	slices.SortStableFunc(out.Pseudowires, comparePseudowires)
	return s.answer(w, out)
}

// tunnel answers for NAME, NAME/PEER or NAME?peer=PEER.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := s.backend.Tunnels(ctx)
	if err != nil {
		return err
	}
	name, peer, inPath := strings.Cut(r.PathValue("name"), "/")
	if !inPath {
		peer = r.URL.Query().Get("peer")
	}
	var found []Tunnel
	var peers []string
	for _, t := range all {
		if t.Name == name && (peer == "" || t.Peer == peer) {
			found = append(found, t)
			peers = append(peers, t.Peer)
		}
	}
	switch len(found) {
	case 0:
		return notFound("tunnel", r.PathValue("name"))
	case 1:
		return s.answer(w, found[0])
	}
	slices.Sort(peers)
	return badRequest("tunnel " + name + " has several peers, " + strings.Join(peers, ", ") +
		": say which one, as /v1/tunnels/" + name + "/" + peers[0])
}

func (s *Server) pseudowire(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := s.backend.Pseudowires(ctx)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	for _, p := range all {
		if p.Name == name {
			return s.answer(w, p)
		}
	}
	return notFound("pseudowire", name)
}

// apply hands a topology to the Backend. Its context outlives the connection: an
// apply is a transaction, and a client that was interrupted leaves no half of it.
func (s *Server) apply(w http.ResponseWriter, r *http.Request) error {
	var req ApplyRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	peer, known := PeerFrom(r.Context())
	who := peer.attr()
	ctx := context.WithoutCancel(r.Context())
	trusted := known && s.mayChange(peer)
	req.Untrusted = !trusted
	if req.DryRun {
		ctx = r.Context() // changes nothing, so whoever may read may ask
	} else if !trusted {
		s.log.Warn("apply refused", who)
		return s.notPermitted(peer, known)
	}
	if !req.DryRun {
		req.By = peerName(peer)
	}
	start := time.Now()
	res, err := s.backend.Apply(ctx, req)
	if err != nil {
		if !req.DryRun {
			s.log.Warn("apply failed", who, "file", req.Name, "err", err)
		}
		return err
	}
	if !req.DryRun {
		s.log.Info("applied", who, "file", req.Name, "generation", res.Generation,
			"changes", len(res.Changes), "took", time.Since(start))
	}
	out := *res
	out.Changes = append([]Change{}, res.Changes...)
	return s.answer(w, out)
}

// rotateCookies goes on when the client has gone, as an apply does.
func (s *Server) rotateCookies(w http.ResponseWriter, r *http.Request) error {
	var req RotateRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	_, who, err := s.changer(r, "rotation of cookies")
	if err != nil {
		return err
	}
	all, err := s.backend.RotateCookies(context.WithoutCancel(r.Context()), req)
	if err != nil {
		return err
	}
	s.log.Info("cookies rotated", who, "pseudowires", len(all))
	return s.answer(w, List[Rotation]{Items: append([]Rotation{}, all...)})
}

// announce sends frames to other sites: only who may change this one may ask for it.
func (s *Server) announce(w http.ResponseWriter, r *http.Request) error {
	var req AnnounceRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	_, who, err := s.changer(r, "announcement")
	if err != nil {
		return err
	}
	all, err := s.backend.Announce(r.Context(), req)
	if err != nil {
		return err
	}
	s.log.Info("announced", who, "pseudowires", len(all))
	return s.answer(w, List[Announcement]{Items: append([]Announcement{}, all...)})
}

// ignoreWrite drops the error of a write: the client went, there is nobody to
// tell.
func ignoreWrite(error) error { return nil }

func badRequest(detail string) *Error {
	return &Error{Code: CodeBadRequest, Title: "bad request", Detail: detail}
}

func notFound(kind, name string) *Error {
	return &Error{Code: CodeNotFound, Title: "not found", Detail: "this site has no " + kind + " " + name}
}

// asError is err as what the client is shown.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		out := *e
		if out.Status == 0 {
			out.Status = statusOf(out.Code)
		}
		if out.Title == "" {
			out.Title = http.StatusText(out.Status)
		}
		return &out
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: CodeTimeout, Status: http.StatusGatewayTimeout,
			Title: "the daemon is busy", Detail: "no answer in time; try again, and look at its log if it stays so"}
	}
	return &Error{Code: CodeInternal, Status: http.StatusInternalServerError, Title: "internal error", Detail: err.Error()}
}
