package control

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const (
	defaultHello         = 60 * time.Second // Section 4.4
	defaultReceiveWindow = 16
	// maxName bounds what goes into one AVP (Section 5.1: 1023 octets with its header).
	maxName = 1000
	// maxEnded bounds the connections that a tunnel remembers only to
	// acknowledge what the peer repeats.
	maxEnded = 8
	// history is how many transitions are remembered for the user.
	history = 16
)

// What SetTunnel and SetSession refuse; wrapped in a *ConfigError.
var (
	ErrUnknownTunnel = errors.New("no such tunnel")
	ErrAddress       = errors.New("an address of the other family than ours")
	ErrDynamic       = errors.New("a peer whose address is not known is found by its secret, and has none")
	ErrName          = errors.New("empty or longer than an AVP can hold")
	ErrCookie        = errors.New("a cookie has 0, 4 or 8 octets")
	ErrSublayer      = errors.New("an L2-Specific Sublayer that is not known")
	ErrCapabilities  = errors.New("no pseudowire types")
	ErrEncapsulation = errors.New("an encapsulation that is not known")
	ErrSecrets       = errors.New("more than two secrets, or an empty one, which authenticates nobody")
	ErrDigest        = errors.New("a digest algorithm that is not known")
	ErrSequencing    = errors.New("a level of data sequencing that is not known, or that the data plane cannot do")
	ErrDSCP          = errors.New("a DSCP is 63 at most")
	ErrLanguage      = errors.New("a language tag that is too long")
	ErrNumbers       = errors.New("there are standard and Cisco's numbers, and no others")
	ErrHide          = errors.New("nothing can be hidden without a secret")
)

// ConfigError says which field of a Tunnel or a Session cannot be.
type ConfigError struct {
	Object string // "tunnel gold/dc2"
	Field  string
	Err    error
}

func (e *ConfigError) Error() string {
	return "control: " + e.Object + ": " + e.Field + ": " + e.Err.Error()
}
func (e *ConfigError) Unwrap() error { return e.Err }

// tunnel is a Tunnel with what became of it.
type tunnel struct {
	e   *Endpoint
	cfg Tunnel
	// removed tunnels are kept until their last connection has ended.
	removed bool

	// conn is the attempt or the connection in force, nil if there is none.
	conn *connection
	// rival is a responder's connection that is being authenticated beside conn.
	rival *connection
	// ended are closing or lingering, the oldest first.
	ended []*connection
	// held is an SCCRQ that waits until conn has been tested.
	held *heldRequest

	// failures since the last time that it was up for good; openAt is the next attempt.
	failures int
	openAt   time.Time

	sessions map[string]*session
	forwards map[forwarder]*session
	// unsaved sessions have changed since the tunnel was saved; those gone were removed.
	unsaved []*session
	gone    []string

	derived []*l2tpv3.Secret // see keys
	// secretsDue says that the tunnel has secrets, which were not saved and have to
	// be set again.
	secretsDue bool
	requests   limit // see limited
	// answered has the marks of the last SCCRQs that were.
	answered []uint64

	log  transitions
	slot alarm
	// distrusted is when something came from the peer that was not authentic, before
	// there was a connection; suspicion says what.
	distrusted time.Time
	suspicion  string
	// caller is where a peer that calls from anywhere has called from.
	caller netip.Addr
	// tally counts the messages that are the tunnel's.
	tally tally
	// retransmits of the connections that are gone.
	retransmits uint64
}

// forwarder is what an ICRQ names (RFC 4667, Section 5.1).
type forwarder struct {
	kind       l2tpv3.PseudowireType
	group, end string
}

// transitions is the current state of a tunnel or a session, and those before.
type transitions struct {
	reason string
	cause  Cause
	// event is what the next transition comes of.
	event string
	since time.Time
	past  []Transition
	saved bool // since it last changed
}

func (t *transitions) add(now time.Time, from, to fmt.Stringer, reason string) {
	t.saved = false
	if t.reason = reason; from.String() != to.String() {
		t.since = now
	}
	next := Transition{Time: now, From: from.String(), Event: t.event, To: to.String(), Reason: reason, Cause: t.cause}
	t.event = ""
	if n := len(t.past); n >= history {
		t.past = slices.Delete(t.past, 0, n-history+1)
	}
	if n := len(t.past); n == cap(t.past) {
		// Most objects have few, and there are many objects.
		t.past = append(make([]Transition, 0, n+1), t.past...)
	}
	t.past = append(t.past, next)
	// An attempt that fails as the one before did: the last one is enough.
	for period := 2; period <= longestAttempt; period++ {
		if t.fold(period) {
			return
		}
	}
}

// longestAttempt is how many transitions an attempt that fails may have: to begin, the
// peer does not answer, what it sends is not authentic, to end.
const longestAttempt = 4

// fold makes one of the last transitions and as many before them, if they are the same.
func (t *transitions) fold(n int) bool {
	first := len(t.past) - 2*n
	if first < 0 {
		return false
	}
	before, last := t.past[first:first+n], t.past[first+n:]
	if !slices.EqualFunc(before, last, Transition.same) {
		return false
	}
	for i := range last {
		last[i].repeats(before[i])
	}
	t.past = slices.Delete(t.past, first, first+n)
	return true
}

// of says what the next transition comes of.
func (t *transitions) of(event string, cause Cause) { t.event, t.cause = event, cause }

// repeats notes that the transition is another one like that before.
func (t *Transition) repeats(before Transition) {
	t.Times = max(t.Times, 1) + max(before.Times, 1)
	t.First = before.Time
	if !before.First.IsZero() {
		t.First = before.First
	}
}

func (t Transition) same(o Transition) bool {
	return t.From == o.From && t.To == o.To && t.Reason == o.Reason
}

func (t *tunnel) alarm() *alarm { return &t.slot }

func (t *tunnel) deadline() time.Time {
	d := t.openAt
	if t.held != nil {
		d = earliest(d, t.held.until)
	}
	return d
}

func (t *tunnel) expire(now time.Time) {
	if t.held != nil && past(now, t.held.until) {
		t.held.unanswered(t)
	}
	if past(now, t.openAt) {
		t.attempt()
	}
	t.changed()
}

// attempt is the next one, where one can be.
func (t *tunnel) attempt() {
	t.openAt = time.Time{}
	switch {
	case t.conn != nil || t.removed || t.e.stopping:
	case t.secretsDue:
		t.openAfter(t.e.timers.ReopenMin) // not without them
	default:
		t.open()
	}
}

// changed notes that the tunnel has to be saved and its timers set.
func (t *tunnel) changed() {
	t.e.dirty[t.cfg.Name] = struct{}{}
	t.e.touch(t)
}

// state is that of the connection in force.
func (t *tunnel) state() ConnectionState {
	if t.conn == nil {
		return ConnectionIdle
	}
	return t.conn.state
}

// peer is what the peer is called in reasons.
func (t *tunnel) peer() string {
	if t.cfg.Peer != "" {
		return t.cfg.Peer
	}
	return t.cfg.PeerHostName
}

// moved tells of a new state of the connection in force.
func (t *tunnel) moved(from ConnectionState, reason string) { t.note(from, t.state(), reason) }

func (t *tunnel) note(from, to ConnectionState, reason string) {
	t.log.add(t.e.now, from, to, reason)
	emit(&t.e.outputs, &t.e.outputs.connection, ConnectionChanged{Tunnel: t.cfg.Name, From: from, To: to, Reason: reason, Cause: t.log.cause})
	t.changed()
}

// SetTunnel makes the tunnel be as said. Doing it again changes nothing; another
// Hello, Peer name, Digest or Hide and other Secrets are changes to a living connection,
// as long as there are some before and after; any other change closes the connection and opens it anew. The error is a *ConfigError.
func (e *Endpoint) SetTunnel(now time.Time, cfg Tunnel) error {
	e.now = now
	cfg, err := cfg.checked()
	if err != nil {
		return err
	}
	defer e.settle()
	e.peers, e.sorted = nil, nil
	t := e.tunnels[cfg.Name]
	switch {
	case t == nil:
		t = &tunnel{e: e, cfg: cfg, sessions: map[string]*session{}, forwards: map[forwarder]*session{}}
		t.log.since, t.log.reason = now, "not opened yet"
		e.tunnels[cfg.Name] = t
		t.openAfter(e.jitter(e.timers.OpenDelay))
	case t.removed:
		t.keepKeys()
		t.forgetRefusals(cfg)
		t.cfg, t.derived, t.secretsDue, t.removed, t.failures = cfg, nil, false, false, 0
		if t.openAfter(t.courtesy()); past(now, t.openAt) {
			t.attempt()
		}
	case !t.live(cfg):
		t.close(l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral}, "configuration changed")
		t.keepKeys()
		t.forgetRefusals(cfg)
		t.cfg, t.derived, t.secretsDue, t.failures = cfg, nil, false, 0
		t.openAfter(e.jitter(e.timers.OpenDelay))
	case !t.cfg.equal(cfg):
		t.cfg, t.derived, t.secretsDue, t.failures = cfg, nil, false, 0
		// What failed may have failed for want of just this: neither the next attempt
		// nor the next repetition of a request waits for the end of a long pause.
		switch t.state() {
		case ConnectionIdle:
			t.openAfter(e.jitter(e.timers.OpenDelay))
		case ConnectionWaitReply:
			t.conn.rel.repeat()
		}
		for _, c := range t.ended {
			e.touch(c) // it may have been waiting for the secrets
		}
		if t.conn != nil {
			t.conn.drawHello()
			e.touch(t.conn)
		}
		t.changed()
	}
	return nil
}

// forgetRefusals lets requests be looked at again, as their sender repeats them, that
// were refused because they were authenticated and the tunnel had no secret: now it
// gets one. No request has been authenticated before, so that none is a replay.
func (t *tunnel) forgetRefusals(next Tunnel) {
	if len(t.cfg.Secrets) > 0 || t.secretsDue || len(next.Secrets) == 0 {
		return
	}
	t.answered = nil
	for _, c := range t.ended {
		if c.stranger && t.e.requests[c.request] == c {
			delete(t.e.requests, c.request)
		}
	}
}

// RemoveTunnel closes the tunnel's connection with StopCCN and ends its sessions
// (Section 3.3.2: no CDN for each). Unknown names are no matter.
func (e *Endpoint) RemoveTunnel(now time.Time, name string, result l2tpv3.ResultCode) {
	e.now = now
	t := e.tunnels[name]
	if t == nil || t.removed {
		return
	}
	defer e.settle()
	for _, s := range t.sortedSessions() {
		s.handle(connectionGone, sessionInput{reason: "tunnel removed"})
		s.remove(l2tpv3.ResultCode{}, "tunnel removed")
	}
	t.removed, e.peers = true, nil
	t.close(result, "tunnel removed")
	t.openAt = time.Time{}
	t.purge()
}

// Resend has the request of a tunnel's attempt leave again at once, which has not left this host: there was
// no way to the peer, or no address to send it from. Where that has been so until the attempt came to nothing,
// the next one begins.
func (e *Endpoint) Resend(now time.Time, name string) {
	e.now = now
	t := e.tunnels[name]
	if t == nil {
		return
	}
	defer e.settle()
	switch {
	case t.conn == nil && t.failures > 0 && !t.openAt.IsZero():
		t.failures = 0 // the peer has had no part in them
		t.attempt()
		t.changed()
	case t.state() == ConnectionWaitReply:
		t.conn.rel.repeat()
		e.touch(t.conn)
	}
}

// Attempt is the local ID of the tunnel's connection that waits for the answer to its request, 0 for none.
func (e *Endpoint) Attempt(name string) uint32 {
	if t := e.tunnels[name]; t != nil && t.state() == ConnectionWaitReply {
		return t.conn.localID
	}
	return 0
}

// HalfOpenClose closes, with StopCCN and CDN, what is not established, and opens
// and accepts nothing more. What is established stays as it is: for a process
// that ends and will be started again.
func (e *Endpoint) HalfOpenClose(now time.Time) {
	e.now = now
	defer e.settle()
	e.stopping = true
	for _, t := range e.sortedTunnels() {
		t.openAt, t.held = time.Time{}, nil
		t.dropRival("shutting down")
		if t.state() != ConnectionEstablished {
			t.close(l2tpv3.ResultCode{Result: l2tpv3.StopCCNShutdown}, "shutting down")
		} else {
			for _, s := range t.sortedSessions() {
				s.closeHalfOpen()
			}
		}
		t.openAt = time.Time{}
		t.changed()
	}
}

// checked fills in defaults and refuses what cannot be sent.
func (cfg Tunnel) checked() (Tunnel, error) { return cfg.checkedWith(len(cfg.Secrets) > 0) }

// checkedWith is checked for a tunnel that has secrets, or has none, whether they
// are in the configuration or not.
func (cfg Tunnel) checkedWith(secrets bool) (Tunnel, error) {
	fail := func(field string, err error) (Tunnel, error) {
		return cfg, &ConfigError{Object: "tunnel " + cfg.Name, Field: field, Err: err}
	}
	cfg.Local, cfg.Remote = cfg.Local.Unmap(), cfg.Remote.Unmap()
	switch {
	case cfg.Remote.IsValid() && cfg.Local.IsValid() && cfg.Local.Is4() != cfg.Remote.Is4():
		return fail("Remote", ErrAddress)
	case !cfg.Remote.IsValid() && !secrets:
		return fail("Secrets", ErrDynamic)
	case cfg.Name == "":
		return fail("Name", ErrName)
	// Section 5.4.3: "MUST be at least 1 octet".
	case cfg.HostName == "" || len(cfg.HostName) > maxName:
		return fail("HostName", ErrName)
	case len(cfg.Capabilities) == 0 || len(cfg.Capabilities) > maxName/2:
		return fail("Capabilities", ErrCapabilities)
	case cfg.Encapsulation > l2tpv3.IP:
		return fail("Encapsulation", ErrEncapsulation)
	case len(cfg.Secrets) > maxSecrets || slices.ContainsFunc(cfg.Secrets, func(s []byte) bool { return len(s) == 0 }):
		return fail("Secrets", ErrSecrets)
	case cfg.Digest > l2tpv3.HMACSHA1:
		return fail("Digest", ErrDigest)
	case len(cfg.Language) > maxName:
		return fail("Language", ErrLanguage)
	case cfg.Numbers > l2tpv3.CiscoNumbers:
		return fail("Numbers", ErrNumbers)
	case cfg.Hide && !secrets:
		return fail("Hide", ErrHide)
	}
	if cfg.Hello <= 0 {
		cfg.Hello = defaultHello
	}
	if cfg.ReceiveWindow == 0 {
		cfg.ReceiveWindow = defaultReceiveWindow
	}
	cfg.Capabilities = slices.Clone(cfg.Capabilities)
	cfg.Secrets = slices.Clone(cfg.Secrets)
	return cfg, nil
}

// live reports whether a living connection can go over to the configuration next.
func (t *tunnel) live(next Tunnel) bool {
	next.Hello, next.Peer, next.Digest, next.Hide, next.Numbers = t.cfg.Hello, t.cfg.Peer, t.cfg.Digest, t.cfg.Hide, t.cfg.Numbers
	if (len(t.cfg.Secrets) > 0 || t.secretsDue) == (len(next.Secrets) > 0) {
		next.Secrets = t.cfg.Secrets
	}
	return t.cfg.equal(next)
}

func (cfg Tunnel) equal(o Tunnel) bool {
	return cfg.Name == o.Name && cfg.Encapsulation == o.Encapsulation && cfg.Local == o.Local && cfg.Remote == o.Remote &&
		cfg.HostName == o.HostName && cfg.RouterID == o.RouterID && cfg.PeerHostName == o.PeerHostName && cfg.Peer == o.Peer &&
		cfg.Hello == o.Hello && cfg.Digest == o.Digest && cfg.Hide == o.Hide && cfg.ECN == o.ECN && cfg.Language == o.Language && cfg.Foreign == o.Foreign && cfg.Numbers == o.Numbers && cfg.ReceiveWindow == o.ReceiveWindow &&
		slices.Equal(cfg.Capabilities, o.Capabilities) &&
		slices.EqualFunc(cfg.Secrets, o.Secrets, func(a, b []byte) bool { return string(a) == string(b) })
}

// dynamic says that the peer's address is not known before it calls.
func (t *tunnel) dynamic() bool { return !t.cfg.Remote.IsValid() }

// courtesy is how long a call that begins anew waits for the peer's: not at all where the peer does
// not know where we are, which has got another address.
func (t *tunnel) courtesy() time.Duration {
	if !t.cfg.Local.IsValid() {
		return 0
	}
	return t.e.jitter(t.e.timers.OpenDelay)
}

// openAfter sets the timer of the next attempt. Who has no address is waited for.
func (t *tunnel) openAfter(d time.Duration) {
	if t.dynamic() {
		if reason := "waiting for " + t.peer() + " to call"; t.conn == nil && t.log.reason != reason {
			t.log.of("local open request", Cause{Kind: CauseWaiting})
			t.note(ConnectionIdle, ConnectionIdle, reason)
		}
	} else if !t.removed && !t.e.stopping {
		t.openAt = t.e.now.Add(d)
	}
	t.changed()
}

// open starts an attempt: "Local open request".
func (t *tunnel) open() {
	c := t.newConnection(Path{
		Encapsulation: t.cfg.Encapsulation,
		Local:         netip.AddrPortFrom(t.cfg.Local, 0),
		Remote:        netip.AddrPortFrom(t.cfg.Remote, t.cfg.port()),
	})
	c.initiator, c.numbers = true, t.cfg.Numbers
	c.tie = new(l2tpv3.TieBreaker)
	t.e.random(c.tie[:])
	t.conn = c
	in := input{reason: "waiting for " + t.peer()}
	if t.distrusts() {
		in = input{reason: t.suspicion, cause: t.log.cause}
	}
	c.handle(openConnection, in)
}

// port is where an initiator's SCCRQ goes (Section 4.1.2.2).
func (cfg *Tunnel) port() uint16 {
	if cfg.Encapsulation == l2tpv3.IP {
		return 0
	}
	return l2tpv3.Port
}

// close ends the connection in force, if there is one, by our decision.
func (t *tunnel) close(result l2tpv3.ResultCode, reason string) {
	t.held = nil
	t.dropRival(reason)
	if t.conn != nil {
		t.conn.handle(closeConnection, input{result: result, reason: reason})
	}
	t.changed()
}

// over takes a connection that has left its state for idle out of force, and
// plans the next attempt.
func (t *tunnel) over(c *connection, from ConnectionState, reason string) {
	if t.rival == c {
		t.rival = nil
	}
	if t.conn != c {
		return
	}
	t.conn = nil
	t.moved(from, reason)
	for _, s := range t.sortedSessions() {
		s.handle(connectionGone, sessionInput{reason: reason})
	}
	if t.removed {
		return
	}
	if r := t.rival; r != nil {
		t.rival, t.conn = nil, r
		t.log.of("SCCRQ, acceptable", Cause{Kind: CauseWaiting, Message: l2tpv3.SCCRP})
		t.moved(ConnectionIdle, "SCCRQ received")
		return
	}
	if h := t.held; h != nil {
		// It waited for this.
		t.held = nil
		h.accept(t)
		return
	}
	if from == ConnectionEstablished && t.e.now.Sub(c.since) >= t.e.timers.ReopenMax {
		t.failures = 0
	}
	t.openAfter(t.e.backOff(t.failures))
	t.failures++
}

// yield takes the connection in force out for another that r starts, which the
// caller puts in its place at once.
func (t *tunnel) yield(r request, reason string) {
	old, from := t.conn, t.state()
	t.conn, t.held = nil, nil
	if old == nil {
		return
	}
	if old.remoteID == r.id && old.path.Remote == r.remote {
		old.handle(peerSilent, input{}) // the peer would take a StopCCN for the new one's
	} else {
		old.handle(closeConnection, input{result: l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral}.Explained(l2tpv3.StopCCN, reason)})
	}
	t.log.of("SCCRQ, acceptable", Cause{Kind: CauseReplaced, By: Peer, Message: l2tpv3.SCCRQ})
	t.note(from, ConnectionIdle, reason)
	for _, s := range t.sortedSessions() {
		s.handle(connectionGone, sessionInput{reason: reason})
	}
}

// backOff is the time to the next attempt after n failures in a row, with a
// random quarter more or less: two ends that fail together come back apart.
func (e *Endpoint) backOff(n int) time.Duration {
	d := e.timers.ReopenMin
	for ; n > 0 && d < e.timers.ReopenMax; n-- {
		d *= 2
	}
	d = min(d, max(e.timers.ReopenMin, e.timers.ReopenMax))
	return d*3/4 + e.jitter(d/2)
}

// dropRival ends what was being authenticated beside the connection in force.
func (t *tunnel) dropRival(reason string) {
	if r := t.rival; r != nil {
		r.handle(closeConnection, input{result: l2tpv3.ResultCode{Result: l2tpv3.StopCCNExists}, reason: reason})
	}
}

// bury keeps an ended connection for as long as it lingers, or in place of an
// older one.
func (t *tunnel) bury(c *connection) {
	if slices.Contains(t.ended, c) {
		return
	}
	t.ended = append(t.ended, c)
	for len(t.ended) > maxEnded {
		// Who was only refused goes first.
		i := max(0, slices.IndexFunc(t.ended, func(c *connection) bool { return c.stranger }))
		t.ended[i].end()
	}
}

// purge forgets a removed tunnel that has nothing left to say.
func (t *tunnel) purge() {
	if t.removed && t.conn == nil && len(t.ended) == 0 && t.e.tunnels[t.cfg.Name] == t {
		delete(t.e.tunnels, t.cfg.Name)
		t.e.peers, t.e.sorted = nil, nil
		t.openAt = time.Time{}
		t.changed()
	}
}

// openSessions is the control-conn-open event of Section 7.2.
func (t *tunnel) openSessions() {
	for _, s := range t.sortedSessions() {
		s.open()
	}
}

func (t *tunnel) sortedSessions() []*session {
	return slices.SortedFunc(maps.Values(t.sessions), func(a, b *session) int {
		if a.cfg.Name < b.cfg.Name {
			return -1
		}
		return 1
	})
}

// shared reports whether other tunnels have the same peer.
func (t *tunnel) shared() bool {
	for _, o := range t.e.tunnels {
		if o != t && o.cfg.Remote == t.cfg.Remote {
			return true
		}
	}
	return false
}
