package control

import (
	"bytes"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// session is a Session with what became of it.
type session struct {
	e   *Endpoint
	t   *tunnel
	cfg Session

	state SessionState
	// initiator has sent the ICRQ, or would.
	initiator bool
	// localID is 0 while nothing is signalled, remoteID while it is not known.
	localID, remoteID         uint32
	localCookie, remoteCookie []byte
	tie                       *l2tpv3.TieBreaker
	// receive is the sublayer that the peer is asked for, wishes what it asks for.
	receive l2tpv3.L2SpecificSublayer
	wishes  wishes
	change  cookieChange
	// succession is its going over to other IDs and cookies.
	succession succession
	// told is the circuit status that the peer knows of us, remote is the peer's.
	told, remote l2tpv3.CircuitStatus
	// installed is what the data plane was last told, nil if it knows nothing.
	installed *dataPlane
	errors    uint64 // WENs received
	// circuitErrors is nil while there are none.
	circuitErrors *circuitErrors

	// failures in a row; retryAt is the next attempt, halfOpenEnd the end of this one.
	failures             int
	retryAt, halfOpenEnd time.Time

	log  transitions
	slot alarm
	// unsaved says that it is among those of the tunnel.
	unsaved bool
}

// wishes is how the peer wants to receive (Section 5.4.4).
type wishes struct {
	Sublayer   l2tpv3.L2SpecificSublayer `json:"sublayer,omitempty"`
	Sequencing l2tpv3.DataSequencing     `json:"sequencing,omitempty"`
	// DSCP is what data packets of both directions are to have (RFC 3308, Section 4); 0
	// if it does not say.
	DSCP uint8 `json:"dscp,omitempty"`
}

// dataPlane is the part of an InstallSession that can change while it is there.
type dataPlane struct {
	wishes
	receive                 l2tpv3.L2SpecificSublayer
	local, previous, remote cookie
	transmit, ecn           bool
}

// cookie is the value of one, to compare.
type cookie struct {
	octets [8]byte
	length int
}

func cookieOf(b []byte) (c cookie) {
	c.length = copy(c.octets[:], b)
	return c
}

// sessionInput is what comes with an event.
type sessionInput struct {
	m *l2tpv3.Message
	// remoteID is the sender's Local Session ID.
	remoteID uint32
	result   l2tpv3.ResultCode
	reason   string
	cause    Cause // where the event does not say it all
}

func (s *session) alarm() *alarm { return &s.slot }

func (s *session) deadline() time.Time {
	return earliest(earliest(earliest(s.retryAt, s.halfOpenEnd), s.change.until), earliest(s.succession.until, s.errorsDue()))
}

func (s *session) expire(now time.Time) {
	if past(now, s.retryAt) {
		s.retryAt = time.Time{}
		s.open()
	}
	if past(now, s.change.until) {
		s.endChange(now)
	}
	if past(now, s.succession.until) {
		s.endSuccession()
	}
	if past(now, s.errorsDue()) {
		s.tellErrors(now)
		s.changed()
	}
	if past(now, s.halfOpenEnd) {
		if s.halfOpenEnd = s.patience(now); !past(now, s.halfOpenEnd) {
			return
		}
		s.halfOpenEnd = time.Time{}
		s.handle(sessionTooLong, sessionInput{result: l2tpv3.ResultCode{Result: l2tpv3.CDNStateMachine}, reason: "not established in time"})
	}
}

// maxPatience is for how many limits a half-open session waits for its turn.
const maxPatience = 16

// patience is the end of a half-open session whose limit has passed: a limit after
// the peer has got everything that it has to answer, and has last said something
// of any session, because what it has to say of many comes one after the other.
func (s *session) patience(now time.Time) time.Time {
	c, limit := s.t.conn, s.limit().Sub(now)
	switch {
	case c == nil || now.Sub(s.log.since) >= maxPatience*limit:
		return now
	case !c.rel.idle():
		return now.Add(limit)
	}
	return c.called.Add(limit)
}

// limit is the end of a half-open session.
func (s *session) limit() time.Time {
	return s.e.now.Add(s.e.timers.cycle() + s.e.timers.RetransmitCap)
}

func (s *session) changed() {
	if !s.unsaved {
		s.unsaved, s.t.unsaved = true, append(s.t.unsaved, s)
	}
	s.e.touch(s)
	s.t.changed()
}

// handle carries out the step that Section 7.3 has for the event.
func (s *session) handle(ev sessionEvent, in sessionInput) {
	step := sessionTable[s.state][ev]
	from := s.state
	s.state = step.next
	switch step.action {
	case ignoreEvent, refuseMessage:
	case takeStatus, takeErrors:
		// That they came changes nothing by itself: the cause of what is stays.
		s.log.of(ev.String(), s.log.cause)
	default:
		s.log.of(ev.String(), ev.cause(step, &in))
	}
	if from == SessionEstablished && s.e.now.Sub(s.log.since) >= s.e.timers.ReopenMax {
		s.failures = 0 // that it came up is no success if it goes at once
	}
	switch step.action {
	case ignoreEvent:
		return
	case waitForControl:
		s.release()
		s.retryAt, s.failures = time.Time{}, 0
	case sendICRQ:
		s.request()
	case sendICRP:
		s.reply(in)
	case switchRole:
		s.release()
		s.reply(in)
	case sendICCN:
		s.connect()
	case prepareData:
		s.install()
	case refuseMessage:
		s.t.refuseSession(in)
		return
	case disconnect:
		s.disconnect(in.result.Explained(l2tpv3.CDN, in.reason))
		s.retry(in)
	case cleanUp:
		s.release()
		s.retry(in)
	case forgetBoth:
		s.t.refuseSession(in)
		s.release()
		s.retry(in)
	case closeBoth:
		s.t.refuseSession(in)
		s.disconnect(in.result.Explained(l2tpv3.CDN, in.reason))
		s.retry(in)
	case takeStatus:
		s.takeStatus(in.m)
		return
	case takeErrors:
		s.takeErrors(in.m)
		return
	}
	s.halfOpenEnd = time.Time{}
	if s.state == SessionWaitReply || s.state == SessionWaitConnect {
		s.halfOpenEnd = s.limit()
	}
	if s.state != from || s.log.reason != in.reason {
		s.moved(from, in.reason)
	}
	s.changed()
}

func (s *session) moved(from SessionState, reason string) {
	s.log.add(s.e.now, from, s.state, reason)
	s.changed()
	emit(&s.e.outputs, &s.e.outputs.session, SessionChanged{Tunnel: s.cfg.Tunnel, Name: s.cfg.Name, From: from, To: s.state, Remote: s.remote, Reason: reason, Cause: s.log.cause})
}

// open begins to signal the session if its connection is established.
func (s *session) open() {
	c := s.t.conn
	if c == nil || c.state != ConnectionEstablished || s.e.stopping || s.localID != 0 {
		return
	}
	s.retryAt = time.Time{}
	// Section 5.4.4, Pseudowire Type: "A peer MUST NOT request" a type that was not
	// advertised to it.
	if !slices.Contains(c.peer.Capabilities, s.cfg.Type) {
		if reason := s.t.peer() + " does not carry pseudowires of type " + s.cfg.Type.String(); s.log.reason != reason {
			s.log.of("control-conn-open", Cause{Kind: CauseType, By: Here, Message: l2tpv3.ICRQ})
			s.moved(s.state, reason)
		}
		s.changed()
		return
	}
	s.handle(connectionOpen, sessionInput{reason: "waiting for " + s.t.peer()})
}

// begin draws what identifies the session to the peer (Sections 5.4.4, 8.2).
func (s *session) begin(initiator bool) {
	s.initiator = initiator
	s.retryAt, s.receive = time.Time{}, s.cfg.Sublayer
	s.localID = s.e.newSessionID()
	s.e.sessions[s.localID] = s
	if s.cfg.CookieLength > 0 {
		s.localCookie = make([]byte, s.cfg.CookieLength)
		s.e.random(s.localCookie)
	}
}

// request sends ICRQ (Section 6.6).
func (s *session) request() {
	s.begin(true)
	s.tie = new(l2tpv3.TieBreaker)
	s.e.random(s.tie[:])
	avps := []l2tpv3.AVP{
		l2tpv3.LocalSessionID(s.localID),
		l2tpv3.RemoteSessionID(0),
		s.e.nextSerial(),
		s.cfg.Type,
		l2tpv3.RemoteEndID(s.cfg.RemoteEndID),
		s.status(),
		*s.tie,
	}
	if len(s.cfg.AGI) > 0 {
		avps = append(avps, l2tpv3.AttachmentGroupID(s.cfg.AGI))
	}
	if s.cfg.LocalEndID != nil {
		avps = append(avps, l2tpv3.LocalEndID(s.cfg.LocalEndID))
	}
	if s.cfg.DSCP != 0 {
		avps = append(avps, sessionDS(s.cfg.DSCP))
	}
	s.send(l2tpv3.ICRQ, append(avps, s.offer()...)...)
}

// offer is how we want to receive: in ICRQ and ICRP alike.
func (s *session) offer() (avps []l2tpv3.AVP) {
	if len(s.localCookie) > 0 {
		avps = append(avps, l2tpv3.AssignedCookie(s.localCookie))
	}
	if s.receive != l2tpv3.SublayerNone {
		avps = append(avps, s.receive)
	}
	if s.cfg.Sequencing != l2tpv3.SequencingNone {
		avps = append(avps, s.cfg.Sequencing)
	}
	if s.cfg.MTU != 0 {
		avps = append(avps, l2tpv3.InterfaceMTU(s.cfg.MTU))
	}
	return avps
}

// reply accepts an ICRQ: the data plane first, then ICRP (Section 6.7).
func (s *session) reply(in sessionInput) {
	s.begin(false)
	s.learn(in)
	s.adaptSublayer()
	s.install()
	avps := []l2tpv3.AVP{l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), s.status()}
	// RFC 3308, Section 4: another value than the initiator's is a counter-offer.
	if s.wishes.DSCP != 0 {
		avps = append(avps, sessionDS(s.dscp()))
	}
	s.send(l2tpv3.ICRP, append(avps, s.offer()...)...)
}

// connect follows an ICRP, of which it has learnt: the data plane first, then
// ICCN (Section 6.8).
func (s *session) connect() {
	asked := s.receive
	s.adaptSublayer()
	s.install()
	avps := []l2tpv3.AVP{l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID)}
	if s.receive != asked {
		avps = append(avps, s.receive)
	}
	if s.told != s.status() {
		avps = append(avps, s.status())
	}
	s.send(l2tpv3.ICCN, avps...)
}

// learn takes what ICRQ, ICRP or ICCN say of the peer's side.
func (s *session) learn(in sessionInput) {
	if in.remoteID != 0 {
		s.remoteID = in.remoteID
	}
	if v, ok := l2tpv3.Find[l2tpv3.AssignedCookie](in.m); ok {
		s.remoteCookie = slices.Clone(v)
	}
	if v, ok := l2tpv3.Find[l2tpv3.L2SpecificSublayer](in.m); ok {
		s.wishes.Sublayer = v
	}
	if v, ok := l2tpv3.Find[l2tpv3.DataSequencing](in.m); ok {
		s.wishes.Sequencing = v
	}
	if v, ok := l2tpv3.Find[l2tpv3.SessionDS](in.m); ok {
		s.wishes.DSCP = dscpOf(v)
	}
	if v, ok := l2tpv3.Find[l2tpv3.CircuitStatus](in.m); ok {
		s.remote = v &^ l2tpv3.CircuitNew
	}
}

// adaptSublayer asks the peer for the sublayer that it asks for, where the data
// plane cannot have another one in each direction (see judge). In ICCN the
// initiator may still say so (Section 6.8).
func (s *session) adaptSublayer() {
	if !s.cfg.CanSublayer && s.wishes.Sublayer == l2tpv3.SublayerDefault {
		s.receive = l2tpv3.SublayerDefault
	}
}

// dscp is that of data packets: our own wish goes before the peer's.
func (s *session) dscp() uint8 {
	if s.cfg.DSCP != 0 {
		return s.cfg.DSCP
	}
	return s.wishes.DSCP
}

// send queues a message about the session, with the circuit status noted as told
// if it has one.
func (s *session) send(t l2tpv3.MessageType, avps ...l2tpv3.AVP) {
	for _, a := range avps {
		if v, ok := a.(l2tpv3.CircuitStatus); ok {
			s.told = v
		}
	}
	var replaces uint32
	if t == l2tpv3.SLI || t == l2tpv3.WEN {
		replaces = s.localID
	}
	s.t.conn.pushFor(replaces, t, avps...)
}

// disconnect sends CDN (Section 6.12) and cleans up.
func (s *session) disconnect(result l2tpv3.ResultCode) {
	// Section 5.4.4: the Remote Session ID is 0 as long as the peer has not told it.
	s.send(l2tpv3.CDN, result, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID))
	s.release()
}

// release forgets what was signalled and takes the data plane out.
func (s *session) release() {
	if s.installed != nil {
		emit(&s.e.outputs, &s.e.outputs.remove, RemoveSession{Tunnel: s.cfg.Tunnel, Name: s.cfg.Name, LocalID: s.localID})
	}
	if s.localID != 0 {
		delete(s.e.sessions, s.localID)
	}
	s.forgetOthers()
	s.localID, s.remoteID, s.localCookie, s.remoteCookie = 0, 0, nil, nil
	s.tie, s.installed, s.wishes, s.told, s.remote = nil, nil, wishes{}, 0, 0
	s.receive, s.change = l2tpv3.SublayerNone, cookieChange{}
	s.halfOpenEnd, s.circuitErrors = time.Time{}, nil
}

// retry plans the next attempt. A peer that does not know the session yet will
// ask for it as soon as it does, so it is not pressed.
func (s *session) retry(in sessionInput) {
	if in.result.Result == l2tpv3.CDNNoForwarder && in.m != nil {
		s.failures = max(s.failures, unknownToPeer)
	}
	s.retryAt = s.e.now.Add(s.e.backOff(s.failures))
	s.failures++
}

// unknownToPeer is the number of failures that it counts as if the peer does not
// know the session: some 4 s to the next attempt, with the default timers.
const unknownToPeer = 2

// install tells the data plane what it does not know yet.
func (s *session) install() {
	ecn := s.t.cfg.ECN && s.t.conn.peer.ECN
	now := dataPlane{
		wishes: s.wishes, receive: s.receive, local: cookieOf(s.localCookie), previous: cookieOf(s.change.previous),
		remote: cookieOf(s.remoteCookie), transmit: s.mayTransmit(), ecn: ecn,
	}
	if s.installed != nil && *s.installed == now {
		return
	}
	if s.installed == nil {
		s.installed = new(dataPlane)
	}
	*s.installed = now
	out := s.dataPlane(s.label())
	out.PreviousCookie, out.Transmit = s.change.previous, now.transmit
	emit(&s.e.outputs, &s.e.outputs.install, out)
}

// dataPlane is what a data plane that only receives has to know of one of the session's labels.
func (s *session) dataPlane(l label) InstallSession {
	return InstallSession{
		Tunnel: s.cfg.Tunnel, Name: s.cfg.Name,
		Connection: s.t.conn.localID, RemoteConnection: s.t.conn.remoteID,
		LocalID: l.LocalID, RemoteID: l.RemoteID,
		LocalCookie: l.LocalCookie, RemoteCookie: l.RemoteCookie,
		ReceiveSublayer: s.receive, TransmitSublayer: s.wishes.Sublayer,
		ReceiveSequencing: s.cfg.Sequencing, TransmitSequencing: s.wishes.Sequencing,
		DSCP: s.dscp(), ECN: s.t.cfg.ECN && s.t.conn.peer.ECN,
	}
}

// mayTransmit reports whether user frames may go to the peer. Section 5.4.5: not
// while its circuit is not active. RFC 5641, Section 2: not while we are in
// standby; nor while the peer is, which would drop them.
func (s *session) mayTransmit() bool {
	return s.state == SessionEstablished && s.remote&l2tpv3.CircuitActive != 0 &&
		(s.remote|s.status())&l2tpv3.CircuitStandby == 0
}

// status is the local circuit's status as it is signalled. RFC 5641, Section 3:
// "If any of the fault status bits are set, then the (A) bit MUST be cleared."
// The N bit is of no use any more.
func (s *session) status() l2tpv3.CircuitStatus {
	v := s.cfg.Circuit &^ l2tpv3.CircuitNew
	if v&l2tpv3.CircuitFaults != 0 {
		v &^= l2tpv3.CircuitActive
	}
	return v
}

// takeStatus follows an SLI.
func (s *session) takeStatus(m *l2tpv3.Message) {
	if cookie, ok := l2tpv3.Find[l2tpv3.AssignedCookie](m); ok && !s.takeSuccession(m, cookie) {
		s.takeCookie(cookie)
	}
	v, ok := l2tpv3.Find[l2tpv3.CircuitStatus](m)
	// RFC 5641, Section 2: the N bit SHOULD be ignored.
	if v &^= l2tpv3.CircuitNew; !ok || v == s.remote {
		return
	}
	s.remote, s.log.cause = v, Cause{}
	if v&l2tpv3.CircuitActive == 0 || v&l2tpv3.CircuitStandby != 0 {
		s.log.cause = Cause{Kind: CauseCircuit, By: Peer, Message: l2tpv3.SLI}
	}
	s.reinstall()
	s.moved(s.state, circuitReason(v))
	s.changed()
}

// circuitReason says what the peer's circuit is now; the usual ones cost nothing.
func circuitReason(v l2tpv3.CircuitStatus) string {
	switch v {
	case l2tpv3.CircuitActive:
		return "the peer's circuit is active"
	case 0:
		return "the peer's circuit is inactive"
	}
	return "the peer's circuit is " + v.String()
}

// reinstall is install where the data plane knows the session.
func (s *session) reinstall() {
	if s.installed != nil {
		s.install()
	}
}

// setCircuit follows a change of the local circuit: SLI "MUST be sent" (RFC
// 4719, Section 2.3.2). In wait-reply the ICCN will tell it.
func (s *session) setCircuit(v l2tpv3.CircuitStatus) {
	s.cfg.Circuit = v
	s.reinstall()
	if s.state >= SessionWaitConnect && s.told != s.status() {
		s.send(l2tpv3.SLI, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), s.status())
	}
	s.changed()
}

// SetSession makes the session be as said. Doing it again changes nothing; a
// change of Circuit is told to the peer; any other change closes the session and
// opens it anew. The error is a *ConfigError.
func (e *Endpoint) SetSession(now time.Time, cfg Session) error {
	e.now = now
	t := e.tunnels[cfg.Tunnel]
	if err := cfg.check(t); err != nil {
		return err
	}
	defer e.settle()
	cfg.RemoteEndID, cfg.LocalEndID, cfg.AGI = bytes.Clone(cfg.RemoteEndID), bytes.Clone(cfg.LocalEndID), bytes.Clone(cfg.AGI)
	if cfg.Sequencing != l2tpv3.SequencingNone {
		cfg.Sublayer = l2tpv3.SublayerDefault // the numbers are in it (Section 5.4.4)
	}
	s := t.sessions[cfg.Name]
	if s != nil {
		circuit := cfg.Circuit
		cfg.Circuit = s.cfg.Circuit
		if s.cfg.equal(cfg) || s.adopt(cfg) {
			if circuit != s.cfg.Circuit {
				s.setCircuit(circuit)
			}
			return nil
		}
		cfg.Circuit = circuit
		s.remove(l2tpv3.ResultCode{Result: l2tpv3.CDNAdministrative}, "configuration changed")
	}
	s = &session{e: e, t: t, cfg: cfg}
	s.log.since = now
	t.sessions[cfg.Name] = s
	t.forwards[cfg.forwarder()] = s
	s.handle(callLocal, sessionInput{reason: "waiting for the control connection"})
	s.open()
	return nil
}

// adopt takes over other abilities of the data plane, where they are all that differs
// and the session lives: a peer need not hear of what nothing was agreed on about. It
// is false if the session has to begin anew, which one that waits to be tried again
// does better, too.
func (s *session) adopt(cfg Session) bool {
	next := s.cfg
	next.CanSequence, next.CanSublayer, next.CanChangeCookies, next.CanSucceed = cfg.CanSequence, cfg.CanSublayer, cfg.CanChangeCookies, cfg.CanSucceed
	if !next.equal(cfg) || s.localID == 0 {
		return false
	}
	// What the peer wishes is known after its ICRQ or ICRP, which judge has passed by
	// the abilities before. The sublayers are one if there is one for each direction only.
	agreed := s.state == SessionWaitConnect || s.state == SessionEstablished
	switch {
	case agreed && !cfg.CanSequence && s.wishes.Sequencing != l2tpv3.SequencingNone,
		agreed && !cfg.CanSublayer && s.wishes.Sublayer != s.receive,
		!cfg.CanChangeCookies && s.change.previous != nil,
		!cfg.CanSucceed && s.succession.under() && !s.succession.unanswered():
		return false
	case !cfg.CanSucceed:
		s.forgetNext()
	}
	s.cfg = next
	s.changed()
	return true
}

// RemoveSession closes the session with a CDN. Unknown names are no matter.
func (e *Endpoint) RemoveSession(now time.Time, tunnel, name string, result l2tpv3.ResultCode) {
	e.now = now
	if t := e.tunnels[tunnel]; t != nil && t.sessions[name] != nil {
		defer e.settle()
		t.sessions[name].remove(result, "session removed")
	}
}

// InstallFailed says that the data plane could not carry out an InstallSession.
// The peer gets a CDN, and the session is tried again later, unless it can stay what it was
// (Endpoint.ChangeCookie).
func (e *Endpoint) InstallFailed(now time.Time, localSessionID uint32, err error) {
	e.now = now
	if s := e.sessions[localSessionID]; s != nil {
		defer e.settle()
		if s.succeedFailed(localSessionID, err) {
			return
		}
		s.handle(installFailed, sessionInput{
			// What failed in this host's kernel is no matter of the peer's.
			result: l2tpv3.ResultCode{Result: l2tpv3.CDNTemporarilyUnavailable, HasError: true, Message: "the data plane refused it"},
			reason: "the data plane refused it: " + err.Error(),
		})
	}
}

// remove closes a session and forgets it.
func (s *session) remove(result l2tpv3.ResultCode, reason string) {
	s.handle(closeSession, sessionInput{result: result, reason: reason})
	s.retryAt = time.Time{}
	delete(s.t.sessions, s.cfg.Name)
	s.t.gone = append(s.t.gone, s.cfg.Name)
	if s.t.forwards[s.cfg.forwarder()] == s {
		delete(s.t.forwards, s.cfg.forwarder())
	}
	s.changed()
}

// closeHalfOpen closes a session that is neither established nor waiting.
func (s *session) closeHalfOpen() {
	if s.state == SessionWaitReply || s.state == SessionWaitConnect {
		s.handle(closeSession, sessionInput{result: l2tpv3.ResultCode{Result: l2tpv3.CDNAdministrative}, reason: "shutting down"})
	}
}

func (cfg *Session) check(t *tunnel) error {
	fail := func(field string, err error) error {
		return &ConfigError{Object: "session " + cfg.Tunnel + " " + cfg.Name, Field: field, Err: err}
	}
	switch {
	case t == nil || t.removed:
		return fail("Tunnel", ErrUnknownTunnel)
	case cfg.Name == "":
		return fail("Name", ErrName)
	case len(cfg.RemoteEndID) > maxName:
		return fail("RemoteEndID", ErrName)
	case len(cfg.LocalEndID) > maxName:
		return fail("LocalEndID", ErrName)
	case cfg.Sequencing > l2tpv3.SequencingAll || cfg.Sequencing != l2tpv3.SequencingNone && !cfg.CanSequence:
		return fail("Sequencing", ErrSequencing)
	case cfg.DSCP > maxDSCP:
		return fail("DSCP", ErrDSCP)
	case len(cfg.AGI) > maxName:
		return fail("AGI", ErrName)
	case cfg.CookieLength != 0 && cfg.CookieLength != 4 && cfg.CookieLength != 8:
		return fail("CookieLength", ErrCookie)
	case cfg.Sublayer > l2tpv3.SublayerDefault:
		return fail("Sublayer", ErrSublayer)
	}
	return nil
}

func (cfg *Session) equal(o Session) bool {
	return cfg.Tunnel == o.Tunnel && cfg.Name == o.Name && cfg.Type == o.Type &&
		bytes.Equal(cfg.RemoteEndID, o.RemoteEndID) && bytes.Equal(cfg.LocalEndID, o.LocalEndID) && bytes.Equal(cfg.AGI, o.AGI) &&
		cfg.Sequencing == o.Sequencing && cfg.DSCP == o.DSCP && cfg.Specific == o.Specific && cfg.CanSublayer == o.CanSublayer && cfg.CanChangeCookies == o.CanChangeCookies && cfg.CanSucceed == o.CanSucceed &&
		cfg.CookieLength == o.CookieLength && cfg.Sublayer == o.Sublayer && cfg.MTU == o.MTU &&
		cfg.Circuit == o.Circuit && cfg.CanSequence == o.CanSequence
}

// forwarder is what the peer's ICRQ has to name.
func (cfg *Session) forwarder() forwarder {
	own := cfg.RemoteEndID
	if cfg.LocalEndID != nil {
		own = cfg.LocalEndID
	}
	return forwarder{cfg.Type, string(cfg.AGI), string(own)}
}
