package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// StateVersion is the version of State that is written.
const StateVersion = 1

var (
	// ErrStateVersion says that a State was written by another version.
	ErrStateVersion = errors.New("control: the saved state is of another version")
	// ErrNotEmpty says that Restore was not the first call.
	ErrNotEmpty = errors.New("control: Restore into an Endpoint that is in use")
)

// StateError says what a State has that cannot be.
type StateError struct {
	Tunnel, What string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("control: the saved state of tunnel %s: %s", e.Tunnel, e.What)
}

// State is everything that an Endpoint knows, for JSON. Timers are kept as what
// is left of them, so that a state can be restored at any time, on any clock.
// Secrets are not in it: SetTunnel gives them again.
type State struct {
	Version int           `json:"version"`
	Tunnels []TunnelState `json:"tunnels"`
}

// TunnelState is the part of a State that belongs to one tunnel. Saving all
// tunnels one by one is as good as saving the whole.
type TunnelState struct {
	Version     int          `json:"version"`
	Config      Tunnel       `json:"config"`
	Removed     bool         `json:"removed,omitempty"`
	Secrets     bool         `json:"secrets,omitempty"` // there are some
	Failures    int          `json:"failures,omitempty"`
	Retransmits uint64       `json:"retransmits,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Since       time.Time    `json:"since"`
	History     []Transition `json:"history,omitempty"`
	// Caller is where a peer that calls from anywhere has called from, while no connection says so.
	Caller      netip.Addr        `json:"caller,omitzero"`
	Connections []connectionState `json:"connections,omitempty"`
	Sessions    []sessionState    `json:"sessions,omitempty"`
}

// connectionState is one connection: the one in force, a rival, or an ended one.
type connectionState struct {
	Role      string             `json:"role"` // "", "rival", "ended"
	State     ConnectionState    `json:"state"`
	Phase     phase              `json:"phase,omitempty"`
	Since     time.Time          `json:"since"`
	LocalID   uint32             `json:"localID"`
	RemoteID  uint32             `json:"remoteID,omitempty"`
	Initiator bool               `json:"initiator,omitempty"`
	Path      Path               `json:"path"`
	Settled   bool               `json:"settled,omitempty"`
	Request   *requestState      `json:"request,omitempty"`
	Peer      identity           `json:"peer"`
	Numbers   l2tpv3.Numbers     `json:"numbers,omitempty"`
	Tie       *l2tpv3.TieBreaker `json:"tie,omitempty"`
	Auth      bool               `json:"auth,omitempty"`
	Nonce     []byte             `json:"nonce,omitempty"`
	PeerNonce []byte             `json:"peerNonce,omitempty"`
	// Queue, in a TunnelChange, follows on the Kept first of those that were not
	// acknowledged before. In a TunnelState Kept is 0.
	Queue    []outgoingState `json:"queue,omitempty"`
	Kept     int             `json:"kept,omitempty"`
	Sent     int             `json:"sent,omitempty"`
	First    uint16          `json:"first"`
	Nr       uint16          `json:"nr"`
	Tries    int             `json:"tries,omitempty"`
	Linger   time.Duration   `json:"linger,omitempty"`
	HalfOpen time.Duration   `json:"halfOpen,omitempty"`
}

type requestState struct {
	Local  netip.Addr     `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	ID     uint32         `json:"id"`
	Mark   uint64         `json:"mark,omitempty"`
}

type outgoingState struct {
	Kind    l2tpv3.MessageType `json:"kind"`
	Octets  []byte             `json:"octets"`
	Session uint32             `json:"session,omitempty"`
}

type sessionState struct {
	Config       Session              `json:"config"`
	State        SessionState         `json:"state"`
	Initiator    bool                 `json:"initiator,omitempty"`
	LocalID      uint32               `json:"localID,omitempty"`
	RemoteID     uint32               `json:"remoteID,omitempty"`
	LocalCookie  []byte               `json:"localCookie,omitempty"`
	RemoteCookie []byte               `json:"remoteCookie,omitempty"`
	Tie          *l2tpv3.TieBreaker   `json:"tie,omitempty"`
	Wishes       wishes               `json:"wishes"`
	Told         l2tpv3.CircuitStatus `json:"told,omitempty"`
	Remote       l2tpv3.CircuitStatus `json:"remote,omitempty"`
	Installed    bool                 `json:"installed,omitempty"`
	Errors       uint64               `json:"errors,omitempty"`
	Circuit      *errorsState         `json:"circuitErrors,omitempty"`
	// Receive is the sublayer asked for. Previous, Waiting and Change are a change of the cookie.
	Receive  l2tpv3.L2SpecificSublayer `json:"receive,omitempty"`
	Previous []byte                    `json:"previousCookie,omitempty"`
	Waiting  bool                      `json:"waiting,omitempty"`
	Change   time.Duration             `json:"change,omitempty"`
	// Next, Past, Said, Heard, Followed, Returned and Succession are its going over to other IDs.
	Next       *label        `json:"next,omitempty"`
	Past       *label        `json:"past,omitempty"`
	Said       bool          `json:"said,omitempty"`
	Heard      bool          `json:"heard,omitempty"`
	Followed   bool          `json:"followed,omitempty"`
	Returned   bool          `json:"returned,omitempty"`
	Succession time.Duration `json:"succession,omitempty"`
	Failures   int           `json:"failures,omitempty"`
	Retry      time.Duration `json:"retry,omitempty"`
	HalfOpen   time.Duration `json:"halfOpen,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	Since      time.Time     `json:"since"`
	History    []Transition  `json:"history,omitempty"`
}

// Save gives the whole state.
func (e *Endpoint) Save() State {
	s := State{Version: StateVersion}
	for _, t := range e.sortedTunnels() {
		s.Tunnels = append(s.Tunnels, t.save())
	}
	return s
}

// SaveTunnel gives the state of one tunnel; false if there is none of that name.
func (e *Endpoint) SaveTunnel(name string) (TunnelState, bool) {
	t := e.tunnels[name]
	if t == nil {
		return TunnelState{}, false
	}
	s := t.save()
	t.wasSaved()
	return s, true
}

// left is what is left of a timer; 0 is not running.
func (e *Endpoint) left(at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(at.Sub(e.now), 1)
}

// resume is left's inverse, for a timer that runs for whole at most.
func (e *Endpoint) resume(d, whole time.Duration) time.Time {
	if d <= 0 || d > whole {
		d = whole
	}
	return e.now.Add(d)
}

func (t *tunnel) save() TunnelState {
	s := t.saveHead()
	for _, x := range t.sortedSessions() {
		s.Sessions = append(s.Sessions, x.save())
	}
	return s
}

// saveOrder are the tunnel's connections as they are saved.
func (t *tunnel) saveOrder() (all []*connection) {
	if t.conn != nil {
		all = append(all, t.conn)
	}
	if t.rival != nil {
		all = append(all, t.rival)
	}
	for _, c := range t.ended {
		if !c.stranger {
			all = append(all, c)
		}
	}
	return all
}

// saveHead is save without the sessions.
func (t *tunnel) saveHead() TunnelState {
	s := TunnelState{
		Version: StateVersion, Config: t.cfg, Removed: t.removed, Failures: t.failures, Retransmits: t.retransmits,
		Reason: t.log.reason, Since: t.log.since.Round(0), History: slices.Clone(t.log.past),
	}
	s.Config.Secrets, s.Secrets = nil, len(t.cfg.Secrets) > 0 || t.secretsDue
	if t.conn == nil || t.conn.state != ConnectionEstablished {
		s.Caller = t.caller
	}
	for _, c := range t.saveOrder() {
		role := "ended"
		switch c {
		case t.conn:
			role = ""
		case t.rival:
			role = "rival"
		}
		s.Connections = append(s.Connections, c.save(role))
	}
	return s
}

func (c *connection) save(role string) connectionState {
	s := connectionState{
		Role: role, State: c.state, Phase: c.phase, Since: c.since.Round(0),
		LocalID: c.localID, RemoteID: c.remoteID, Initiator: c.initiator, Path: c.path, Settled: c.settled,
		Peer: c.peer, Numbers: c.numbers, Tie: c.tie, Auth: c.auth.on, Nonce: c.auth.localNonce, PeerNonce: c.auth.remoteNonce,
		Sent: c.rel.sent, First: c.rel.first, Nr: c.rel.nr, Tries: c.rel.tries,
		Linger: c.e.left(c.lingerEnd), HalfOpen: c.e.left(c.halfOpenEnd),
	}
	if c.request != (request{}) {
		s.Request = &requestState{Local: c.request.local, Remote: c.request.remote, ID: c.request.id, Mark: c.mark}
	}
	for _, m := range c.rel.queue {
		s.Queue = append(s.Queue, outgoingState{Kind: m.kind, Octets: m.octets, Session: m.session})
	}
	return s
}

func (s *session) save() sessionState {
	return sessionState{
		Config: s.cfg, State: s.state, Initiator: s.initiator, LocalID: s.localID, RemoteID: s.remoteID,
		LocalCookie: s.localCookie, RemoteCookie: s.remoteCookie, Tie: s.tie, Wishes: s.wishes,
		Told: s.told, Remote: s.remote, Installed: s.installed != nil, Errors: s.errors, Failures: s.failures,
		Circuit: s.saveErrors(),
		Retry:   s.e.left(s.retryAt), HalfOpen: s.e.left(s.halfOpenEnd),
		Receive: s.receive, Previous: s.change.previous, Waiting: s.change.waiting, Change: s.e.left(s.change.until),
		Next: s.succession.next, Past: s.succession.past, Said: s.succession.said, Heard: s.succession.heard,
		Followed: s.succession.followed, Returned: s.succession.returned, Succession: s.e.left(s.succession.until),
		Reason: s.log.reason, Since: s.log.since.Round(0), History: slices.Clone(s.log.past),
	}
}

// Restore takes up a saved state, exactly where it was: sequence numbers,
// messages that are not acknowledged, attempts half way. It has to be the first
// call. Then SetTunnel and SetSession are called with all that is wanted, which
// changes nothing where it is the same, and RemoveTunnel for what is not.
//
// It gives Connected and InstallSession for what there is, so that the owner can
// make sure of sockets and data planes. Unacknowledged messages are repeated at
// once, and living connections asked for a sign of life within a second, because
// nobody knows how long the state has been asleep. A tunnel without a connection
// is opened as if it were new.
//
// The error is ErrNotEmpty, ErrStateVersion or a *StateError; after it the
// Endpoint must not be used.
func (e *Endpoint) Restore(now time.Time, s State) error {
	if len(e.tunnels) > 0 {
		return ErrNotEmpty
	}
	e.now = now
	if len(s.Tunnels) > 0 && s.Version != StateVersion {
		return fmt.Errorf("%w: %d, not %d", ErrStateVersion, s.Version, StateVersion)
	}
	defer e.settle()
	for _, ts := range slices.SortedFunc(slices.Values(s.Tunnels), func(a, b TunnelState) int { return cmp.Compare(a.Config.Name, b.Config.Name) }) {
		if ts.Version != StateVersion {
			return fmt.Errorf("%w: tunnel %s: %d, not %d", ErrStateVersion, ts.Config.Name, ts.Version, StateVersion)
		}
		if err := e.restoreTunnel(ts); err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) restoreTunnel(s TunnelState) error {
	cfg, err := s.Config.checkedWith(s.Secrets)
	if err != nil {
		return err
	}
	if e.tunnels[cfg.Name] != nil {
		return &StateError{cfg.Name, "it is there twice"}
	}
	t := &tunnel{
		e: e, cfg: cfg, removed: s.Removed, secretsDue: s.Secrets, failures: s.Failures, retransmits: s.Retransmits,
		sessions: map[string]*session{}, forwards: map[forwarder]*session{},
		log: restoredLog(s.Reason, s.Since, s.History),
	}
	e.tunnels[cfg.Name] = t
	e.peers, e.sorted = nil, nil
	if t.dynamic() {
		t.caller = s.Caller.Unmap()
	}
	for _, cs := range s.Connections {
		if err := t.restoreConnection(cs); err != nil {
			return err
		}
	}
	for _, ss := range s.Sessions {
		if err := t.restoreSession(ss); err != nil {
			return err
		}
	}
	if t.conn == nil {
		t.openAfter(e.jitter(e.timers.OpenDelay))
	}
	for _, x := range t.sortedSessions() {
		if x.retryAt.IsZero() {
			x.open() // what was not begun because the process was about to end
		}
	}
	t.purge()
	return nil
}

// restoredLog has the cause of the last transition, if that is the one of the reason.
func restoredLog(reason string, since time.Time, past []Transition) transitions {
	past = past[max(0, len(past)-history):]
	log := transitions{reason: reason, since: since, past: past}
	if n := len(past); n > 0 && past[n-1].Reason == reason {
		log.cause = past[n-1].Cause
	}
	return log
}

func (t *tunnel) restoreConnection(s connectionState) error {
	e := t.e
	if s.LocalID == 0 || e.connections[s.LocalID] != nil || s.Phase > lingering || s.State >= connectionStates ||
		s.Sent < 0 || s.Sent > len(s.Queue) || s.Kept != 0 || s.Tries < 0 || !s.Path.Remote.Addr().IsValid() ||
		(s.State == ConnectionIdle) != (s.Phase != alive) || s.Phase == closing && len(s.Queue) == 0 ||
		s.State == ConnectionEstablished && s.RemoteID == 0 || s.Numbers > l2tpv3.CiscoNumbers {
		return &StateError{t.cfg.Name, fmt.Sprintf("connection %d makes no sense", s.LocalID)}
	}
	// What is in force is as the tunnel is configured; it is another one that is not.
	if s.Phase == alive && (s.Auth != t.secretsDue || s.Path.Encapsulation != t.cfg.Encapsulation || !t.dynamic() && s.Path.Remote.Addr() != t.cfg.Remote) {
		return &StateError{t.cfg.Name, fmt.Sprintf("connection %d is not the tunnel's", s.LocalID)}
	}
	c := &connection{
		e: e, t: t, state: s.State, phase: s.Phase, since: s.Since,
		localID: s.LocalID, remoteID: s.RemoteID, initiator: s.Initiator, path: s.Path, settled: s.Settled,
		peer: s.Peer, numbers: s.Numbers, tie: s.Tie, auth: auth{on: s.Auth, localNonce: s.Nonce, remoteNonce: s.PeerNonce},
		rel: newReliable(), heard: e.now,
	}
	// No timer runs for longer than it would from the beginning.
	switch {
	case s.Phase == lingering:
		c.lingerEnd = e.resume(s.Linger, e.timers.Linger)
	case s.State == ConnectionWaitReply || s.State == ConnectionWaitConnect:
		c.halfOpenEnd = e.resume(s.HalfOpen, e.timers.cycle()+e.timers.RetransmitCap)
	}
	if s.Peer.Window != 0 {
		c.rel.setWindow(s.Peer.Window)
	}
	c.rel.first, c.rel.nr, c.rel.sent, c.rel.tries = s.First, s.Nr, s.Sent, min(s.Tries, e.timers.MaxRetransmits)
	for _, m := range s.Queue {
		parsed, err := l2tpv3.Parse(m.Octets)
		if err != nil {
			return &StateError{t.cfg.Name, fmt.Sprintf("connection %d has a message that cannot be read: %v", s.LocalID, err)}
		}
		if kind, ok := parsed.Type(); !ok || kind != m.Kind {
			return &StateError{t.cfg.Name, fmt.Sprintf("connection %d has a message that is no %v", s.LocalID, m.Kind)}
		}
		c.rel.queue = append(c.rel.queue, outgoing{kind: m.Kind, octets: m.Octets, session: m.Session})
	}
	if c.rel.sent > 0 {
		c.rel.expires = e.now.Add(e.timers.wait(c.rel.tries))
	}
	e.connections[c.localID] = c
	if r := s.Request; r != nil {
		c.request, c.mark = request{s.Path.Encapsulation, r.Local, r.Remote, r.ID}, r.Mark
		e.requests[c.request] = c
	}
	switch {
	case s.Role == "" && t.conn == nil && s.Phase == alive:
		t.conn = c
	case s.Role == "rival" && t.rival == nil && s.Phase == alive:
		t.rival = c
	case s.Role == "ended" && s.Phase != alive && len(t.ended) < maxEnded:
		t.ended = append(t.ended, c)
	default:
		return &StateError{t.cfg.Name, fmt.Sprintf("connection %d has no role", s.LocalID)}
	}
	if c.state == ConnectionEstablished {
		t.called(c.path.Remote.Addr())
		emit(&e.outputs, &e.outputs.connected, Connected{Connection: c.localID, Initiator: c.initiator, Path: c.path})
		c.helloAfter = 1 + e.jitter(min(time.Second, t.cfg.Hello))
	}
	c.changed()
	return nil
}

func (t *tunnel) restoreSession(s sessionState) error {
	e := t.e
	signalled, known := s.State >= SessionWaitReply, s.State >= SessionWaitConnect
	if s.State >= sessionStates || s.Config.Tunnel != t.cfg.Name || t.sessions[s.Config.Name] != nil ||
		signalled != (s.LocalID != 0) || signalled && (e.sessions[s.LocalID] != nil || t.state() != ConnectionEstablished) ||
		known != s.Installed || known && s.RemoteID == 0 || signalled && len(s.LocalCookie) != s.Config.CookieLength ||
		len(s.RemoteCookie) != 0 && len(s.RemoteCookie) != 4 && len(s.RemoteCookie) != 8 ||
		s.Receive > l2tpv3.SublayerDefault || s.Previous != nil && (s.State != SessionEstablished || len(s.Previous) != len(s.LocalCookie)) ||
		s.Waiting && s.Previous == nil || s.Wishes.DSCP > maxDSCP ||
		s.Wishes.Sublayer > l2tpv3.SublayerDefault && s.Wishes.Sublayer != s.Config.Specific || s.Wishes.Sequencing > l2tpv3.SequencingAll {
		return &StateError{t.cfg.Name, fmt.Sprintf("session %s makes no sense", s.Config.Name)}
	}
	if !s.sensibleSuccession(e) {
		return &StateError{t.cfg.Name, fmt.Sprintf("what session %s goes over to makes no sense", s.Config.Name)}
	}
	if err := s.Config.check(t); err != nil {
		return err
	}
	x := &session{
		e: e, t: t, cfg: s.Config, state: s.State, initiator: s.Initiator, localID: s.LocalID, remoteID: s.RemoteID,
		localCookie: s.LocalCookie, remoteCookie: s.RemoteCookie, tie: s.Tie, wishes: s.Wishes, receive: s.Receive,
		told: s.Told, remote: s.Remote, errors: s.Errors, failures: s.Failures,
		log: restoredLog(s.Reason, s.Since, s.History),
	}
	if s.State == SessionEstablished {
		x.circuitErrors = e.restoreErrors(s.Circuit)
	}
	if s.Retry > 0 {
		x.retryAt = e.resume(s.Retry, 2*max(e.timers.ReopenMin, e.timers.ReopenMax))
	}
	if s.State == SessionWaitReply || s.State == SessionWaitConnect {
		x.halfOpenEnd = e.resume(s.HalfOpen, e.timers.cycle()+e.timers.RetransmitCap)
	}
	if s.Previous != nil {
		x.change = cookieChange{s.Previous, s.Waiting, e.resume(s.Change, e.timers.cycle()+e.timers.RetransmitCap)}
	}
	t.sessions[x.cfg.Name] = x
	t.forwards[x.cfg.forwarder()] = x
	if x.localID != 0 {
		e.sessions[x.localID] = x
	}
	if s.Installed {
		x.install()
	}
	x.restoreSuccession(&s)
	x.changed()
	return nil
}
