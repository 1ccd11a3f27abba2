package control

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// maxRequests is how many SCCRQs of a peer that has not shown to be there a tunnel
// answers within one retransmission interval (Section 4.3: "MAY rate-limit [...] SCCRQ messages").
const maxRequests = 8

// request identifies an SCCRQ: a repetition has the same.
type request struct {
	encapsulation l2tpv3.Encapsulation
	local         netip.Addr
	remote        netip.AddrPort
	id            uint32 // Assigned Control Connection ID
}

// receiveUnassigned handles a message with Control Connection ID 0: an SCCRQ,
// or a StopCCN of somebody who has not been told our ID (Section 5.4.3).
func (e *Endpoint) receiveUnassigned(d Datagram, m *l2tpv3.Message) {
	t, _ := m.Type()
	if t == l2tpv3.SCCRQ {
		e.revealRequest(d, m)
	}
	id, ok := l2tpv3.Find[l2tpv3.AssignedControlConnectionID](m)
	if t != l2tpv3.SCCRQ && t != l2tpv3.StopCCN || !ok && t == l2tpv3.StopCCN {
		e.count(countUnexpected)
		return
	}
	if !ok {
		// Without the ID there is nobody to answer.
		e.count(countMalformed)
		return
	}
	r := request{d.Encapsulation, d.Local.Addr(), d.Remote, uint32(id)}
	switch c := e.requests[r]; {
	case t == l2tpv3.StopCCN && c != nil:
		// The sender has not been told our ID: it has sent an SCCRQ and nothing else.
		// Of who has been, and could be known by an ID that is easily guessed, this
		// is a forgery.
		if c.state == ConnectionEstablished || c.rel.classify(m.Ns) == beforeTurn {
			e.count(countUnexpected)
			return
		}
		e.concerns(c.t)
		c.receive(d, m)
	case t == l2tpv3.StopCCN:
		e.cancelHeld(r)
	case c != nil && c.mark == markOf(m):
		c.repeatedRequest(d, m)
	default:
		e.receiveRequest(d, m, r)
	}
}

// revealRequest replaces what an SCCRQ hides by means of the secret that verifies it.
func (e *Endpoint) revealRequest(d Datagram, m *l2tpv3.Message) {
	if !slices.ContainsFunc(m.AVPs, hidden) {
		return
	}
	for _, t := range e.sortedTunnels() {
		if t.mayBeFor(d) && len(t.cfg.Secrets) > 0 && t.verifyRequest(d.Payload, m) {
			reveal(m, t.keys())
			return
		}
	}
}

// markOf tells an SCCRQ from another one with the same ID from the same port, of
// a peer that was restarted: it is made of what the peer draws at random. It is
// the same for all that have no such AVPs.
func markOf(m *l2tpv3.Message) uint64 {
	h := fnv.New64a()
	if tie := tieBreaker(m); tie != nil {
		h.Write(tie[:])
	}
	if nonce, ok := l2tpv3.Find[l2tpv3.Nonce](m); ok {
		h.Write(nonce)
	}
	return h.Sum64()
}

// knows reports whether an address is a peer's.
func (e *Endpoint) knows(a netip.Addr) bool {
	_, ok := e.known().addresses[a]
	return ok
}

// ours reports whether a Host Name is one that we call ourselves, and no peer is
// to: a message with it was sent by us, and somebody has sent it back.
func (e *Endpoint) ours(host string) bool {
	for _, t := range e.tunnels {
		if t.cfg.HostName == host {
			return e.tunnelNamed(host) == nil
		}
	}
	return false
}

// mayBeFor reports whether the tunnel's peer may have sent a datagram from where it came.
func (t *tunnel) mayBeFor(d Datagram) bool {
	if !t.dynamic() {
		return t.cfg.Remote == d.Remote.Addr()
	}
	o := &t.e.occasion
	return o.anybody && (o.host == "" || o.host == t.cfg.PeerHostName)
}

// repeatedRequest handles an SCCRQ that this connection was started by, again.
func (c *connection) repeatedRequest(d Datagram, m *l2tpv3.Message) {
	c.e.concerns(c.t)
	if !c.t.verifyRequest(d.Payload, m) {
		c.e.count(countUnauthenticated)
		return
	}
	c.e.count(countDuplicate)
	// Not counted with the new ones: those would have to wait for old ones' copies.
	if !c.repeats.over(c.e) {
		c.again()
	}
}

// receiveRequest handles an SCCRQ that is new.
func (e *Endpoint) receiveRequest(d Datagram, m *l2tpv3.Message, r request) {
	if e.stopping {
		e.count(countUnexpected)
		return
	}
	// The first message of a connection has Ns 0 (Section 4.2), and nothing to acknowledge.
	if m.Ns != 0 || m.Nr != 0 {
		e.count(countUnexpected)
		return
	}
	host, _ := l2tpv3.Find[l2tpv3.HostName](m)
	if own := e.connections[r.id]; e.ours(string(host)) || own != nil && own.initiator && own.tie != nil && breakTie(own.tie, tieBreaker(m)) == equal {
		e.count(countUnexpected) // one of our own, sent back
		return
	}
	t, refusal := e.tunnelOf(d, m, string(host))
	if t != nil {
		e.concerns(t)
	}
	switch {
	case t == nil:
		e.count(countUnauthenticated)
		return
	case t.replayed(m):
		// The nonce was used before: a late copy, or somebody repeats what he has recorded.
		e.count(countDuplicate)
		return
	case refusal != "":
		t.refuse(d, m, r, l2tpv3.ResultCode{Result: l2tpv3.StopCCNNotAuthorized, HasError: true, Message: refusal})
		return
	}
	if u, ok := unknownMandatory(m); ok {
		t.refuse(d, m, r, u.ResultCode())
		return
	}
	if err := l2tpv3.Validate(m); err != nil {
		t.refuse(d, m, r, malformed(err))
		return
	}
	if _, nonce := l2tpv3.Find[l2tpv3.Nonce](m); nonce && len(t.cfg.Secrets) == 0 {
		// The text is silent on a peer that authenticates alone.
		if t.state() <= ConnectionWaitReply {
			t.distrust(t.peer() + " wants authentication, and there is no secret for it here")
		}
		t.refuse(d, m, r, noSecret)
		return
	}
	t.request(d, m, r)
}

// noSecret is the answer to a peer that authenticates alone.
var noSecret = l2tpv3.ResultCode{Result: l2tpv3.StopCCNNotAuthorized, HasError: true, Message: noSecretText}

// tunnelOf finds the tunnel that an SCCRQ from a known address is for. Its
// candidates are that pair's tunnels of that encapsulation and, with
// authentication, those whose secret verifies. A Host Name that is the peer's end
// of one picks it; that of another of ours is refused; any other gets the first
// candidate, by name, without a live connection.
//
// A tunnel whose peer may call from anywhere is a candidate for every address, and
// has a secret.
//
// No tunnel is silence: a digest is wrong. With a refusal, the tunnel is the one
// to refuse it.
func (e *Endpoint) tunnelOf(d Datagram, m *l2tpv3.Message, host string) (t *tunnel, refusal string) {
	var site, candidates []*tunnel
	for _, t := range e.sortedTunnels() {
		if t.removed {
			continue
		}
		fits := t.mayBeFor(d) && t.cfg.Encapsulation == d.Encapsulation &&
			(!t.cfg.Local.IsValid() || !d.Local.Addr().IsValid() || t.cfg.Local == d.Local.Addr())
		if t.cfg.Remote == d.Remote.Addr() {
			site = append(site, t)
		}
		if fits {
			candidates = append(candidates, t)
		}
	}
	if len(candidates) == 0 {
		if len(site) == 0 || len(site[0].cfg.Secrets) > 0 {
			return nil, ""
		}
		return site[0], "no tunnel between these addresses with this encapsulation"
	}
	verified := candidates[:0]
	for _, t := range candidates {
		if t.verifyRequest(d.Payload, m) {
			verified = append(verified, t)
		}
	}
	if len(verified) == 0 {
		for _, t := range site {
			if t.cfg.PeerHostName != host {
				continue
			}
			e.concerns(t)
			if !t.secretsDue && t.state() <= ConnectionWaitReply {
				t.distrust(t.mistrust())
			}
		}
		return nil, ""
	}
	candidates = verified
	for _, t := range candidates {
		if t.cfg.PeerHostName == host {
			return t, ""
		}
	}
	if e.tunnelNamed(host) != nil {
		return candidates[0], otherNameText
	}
	for _, t := range candidates {
		if s := t.state(); s != ConnectionEstablished && s != ConnectionWaitConnect {
			return t, ""
		}
	}
	// All are taken: perhaps by this very peer, before it was restarted.
	for _, t := range candidates {
		if t.conn.peer.HostName == host {
			return t, ""
		}
	}
	return candidates[0], ""
}

// tunnelNamed is the first tunnel, by name, whose peer's end has that Host Name.
func (e *Endpoint) tunnelNamed(host string) *tunnel {
	for _, t := range e.sortedTunnels() {
		if !t.removed && t.cfg.PeerHostName == host && host != "" {
			return t
		}
	}
	return nil
}

// request handles an acceptable SCCRQ for the tunnel (Section 7.2).
func (t *tunnel) request(d Datagram, m *l2tpv3.Message, r request) {
	switch t.state() {
	case ConnectionIdle:
		t.begin(d, m, r)
	case ConnectionWaitReply:
		t.tie(d, m, r)
	case ConnectionWaitConnect:
		// The peer has given up what it asked for before, or has been restarted.
		if t.limited() {
			return
		}
		t.yield(r, "the peer has begun anew")
		t.begin(d, m, r)
	case ConnectionEstablished:
		// Perhaps somebody else was let in while the tunnel's own peer was away.
		host, _ := l2tpv3.Find[l2tpv3.HostName](m)
		rightful := string(host) == t.cfg.PeerHostName && t.conn.peer.HostName != t.cfg.PeerHostName
		if len(t.cfg.Secrets) == 0 && !rightful {
			t.hold(d, m, r)
			return
		}
		if t.limited() {
			return
		}
		// Carried beside the old one. Its SCCCN will prove that the peer knows the
		// secret now, which a replayed SCCRQ does not; or at least that it is where
		// it says, which a forged one does not.
		t.dropRival("the peer has begun anew")
		t.rival = t.respond(d, m, r)
		t.rival.handle(requestAcceptable, input{reason: "SCCRQ received"})
	}
}

// replays is how many SCCRQs of the past a tunnel knows again.
const replays = 64

// replayed reports whether an authenticated SCCRQ was answered before. A peer
// draws its nonce anew for each.
func (t *tunnel) replayed(m *l2tpv3.Message) bool {
	return len(t.cfg.Secrets) > 0 && slices.Contains(t.answered, markOf(m))
}

// distrust tells the user that one end's secret does not fit the other's.
func (t *tunnel) distrust(reason string) {
	t.distrusted, t.suspicion = t.e.now, reason
	if t.log.reason != reason {
		t.log.of("", Cause{Kind: CauseSecret, By: Here})
		t.note(t.state(), t.state(), reason)
	}
}

func (t *tunnel) mistrust() string {
	return "waiting for " + t.peer() + ": what it sends does not fit the secret here"
}

// distrusts reports whether the user was told that the peer's secret is another one,
// and the peer has gone on since: that it does not answer is no news then.
func (t *tunnel) distrusts() bool {
	return t.log.cause.Kind == CauseSecret && t.log.reason == t.suspicion &&
		t.e.now.Sub(t.distrusted) < t.e.timers.cycle()+2*t.e.timers.ReopenMax
}

// tie breaks the tie between our attempt and the peer's (Section 5.4.3).
func (t *tunnel) tie(d Datagram, m *l2tpv3.Message, r request) {
	ours := t.conn
	if t.limited() {
		return
	}
	switch breakTie(ours.tie, tieBreaker(m)) {
	case wins:
		ours.handle(tieWon, input{})
		// The peer listens now, which it may not have done when ours was sent.
		ours.rel.repeat()
		// "A StopCCN SHOULD be sent by the winner as an explicit rejection".
		t.reject(d, m, r, l2tpv3.ResultCode{Result: l2tpv3.StopCCNExists, HasError: true, Message: "tie breaker lost"})
	case loses:
		t.conn = nil // not over: the peer's attempt takes its place
		ours.handle(tieLost, input{})
		t.log.of("SCCRQ, lose tie breaker", Cause{Kind: CauseDuplicate, Message: l2tpv3.SCCRQ})
		t.note(ConnectionWaitReply, ConnectionIdle, "tie breaker lost")
		t.begin(d, m, r)
	case equal:
		// "both sides MUST discard their control connections and restart [...] with
		// a new, random tie breaker value".
		ours.handle(tieEqual, input{reason: "equal tie breakers"})
		t.reject(d, m, r, l2tpv3.ResultCode{Result: l2tpv3.StopCCNExists, HasError: true, Message: "equal tie breakers"})
	case noBreaker:
		// "two separate control connections are opened". A tunnel is one, and
		// always sends a value, so this is a peer's answer to nothing of ours.
		t.begin(d, m, r)
	}
}

// begin puts a responder's connection in force.
func (t *tunnel) begin(d Datagram, m *l2tpv3.Message, r request) {
	t.openAt = time.Time{}
	t.conn = t.respond(d, m, r)
	t.conn.handle(requestAcceptable, input{reason: "SCCRQ received"})
}

// respond makes the connection that answers an SCCRQ, in idle.
func (t *tunnel) respond(d Datagram, m *l2tpv3.Message, r request) *connection {
	c := t.newConnection(d.Path)
	c.settled = true // Section 4.1.2.2: the answer goes to the initiator's source port
	c.request, c.mark = r, markOf(m)
	t.e.requests[r] = c
	if t.answered = append(t.answered, c.mark); len(t.answered) > replays {
		t.answered = slices.Delete(t.answered, 0, 1)
	}
	c.identify(m)
	c.rel.accept()
	if t.cfg.Hide {
		// Of two secrets, the one that the SCCRQ was verified with, without nonces.
		for _, k := range t.keys() {
			if c.auth.proven == nil && l2tpv3.Verify(d.Payload, nil, nil, k) == nil {
				c.auth.proven = k
			}
		}
	}
	return c
}

// refuse answers an SCCRQ with StopCCN, unless there have been too many.
func (t *tunnel) refuse(d Datagram, m *l2tpv3.Message, r request, result l2tpv3.ResultCode) {
	if !t.limited() {
		t.reject(d, m, r, result)
		t.e.discard(countRefusedRequest, d, t, result.Describe(l2tpv3.StopCCN))
	}
}

// reject answers an SCCRQ with StopCCN, reliably.
func (t *tunnel) reject(d Datagram, m *l2tpv3.Message, r request, result l2tpv3.ResultCode) {
	t.e.count(countRefusedRequest)
	if reason := "refused the peer's SCCRQ: " + result.Describe(l2tpv3.StopCCN); t.conn == nil && t.log.reason != reason && !t.distrusts() {
		t.log.of("SCCRQ, not acceptable", refusal(l2tpv3.StopCCN, result, m))
		t.note(ConnectionIdle, ConnectionIdle, reason)
	}
	c := t.respond(d, m, r)
	c.stranger = true
	c.auth.on = len(t.cfg.Secrets) > 0
	c.handle(requestUnacceptable, input{result: result})
}

// limited counts a request that makes us send something on the word of an address
// only, or takes the place of another, and reports whether there have been too many
// to answer it.
func (t *tunnel) limited() bool { return t.requests.over(t.e) }

// limit counts what may happen maxRequests times in a retransmission interval.
type limit struct {
	n     int
	since time.Time
}

func (l *limit) over(e *Endpoint) bool {
	if e.now.Sub(l.since) >= e.timers.Retransmit {
		l.n, l.since = 0, e.now
	}
	l.n++
	over := l.n > maxRequests
	if over {
		e.count(countLimitedRequest)
	}
	return over
}

// heldRequest is an SCCRQ for a tunnel whose connection is established: the peer
// may have been restarted, or somebody pretends to be the peer. It waits until
// a HELLO has shown which.
type heldRequest struct {
	request request
	d       Datagram
	// answered is the Nr that shows that the peer still has the old connection.
	answered uint16
	until    time.Time
}

// hold keeps the SCCRQ and begins the test of the connection in force. There is
// one at most; another waits for the outcome as its sender repeats it.
func (t *tunnel) hold(d Datagram, m *l2tpv3.Message, r request) {
	if t.held != nil {
		if t.held.request == r {
			t.e.count(countDuplicate)
		} else {
			t.e.count(countLimitedRequest)
		}
		return
	}
	if t.limited() {
		return
	}
	d.Payload = slices.Clone(d.Payload)
	h := &heldRequest{request: r, d: d}
	t.held = h
	if t.conn.rel.tries >= 2 {
		h.unanswered(t) // it has not been answering for as long already
		return
	}
	h.answered = t.conn.test()
	h.until = t.testEnd()
	t.changed()
}

// testEnd is when two retransmissions will have gone unanswered.
func (t *tunnel) testEnd() time.Time {
	timers := &t.e.timers
	return t.e.now.Add(timers.wait(0) + timers.wait(1) + timers.wait(0))
}

// progress follows an acknowledgment on the connection in force.
func (h *heldRequest) progress(t *tunnel) {
	if int16(t.conn.rel.first-h.answered) < 0 {
		h.until = t.testEnd() // others were before the HELLO
		t.changed()
		return
	}
	t.held = nil
	t.changed()
	m, err := read(h.d.Payload)
	if err != nil || h.request == t.conn.request {
		return // the living peer has that ID: it would take the answer for its own
	}
	result := l2tpv3.ResultCode{Result: l2tpv3.StopCCNExists, HasError: true, Message: "the established one answers"}
	t.reject(h.d, m, h.request, result)
	t.e.discard(countRefusedRequest, h.d, t, result.Describe(l2tpv3.StopCCN))
}

// unanswered ends the test: the old connection yields.
func (h *heldRequest) unanswered(t *tunnel) {
	t.yield(h.request, "the peer does not answer on it and has begun anew")
	h.accept(t)
}

// accept goes on with the SCCRQ.
func (h *heldRequest) accept(t *tunnel) {
	if m, err := read(h.d.Payload); err == nil && !t.e.stopping {
		t.begin(h.d, m, h.request)
	}
}

// cancelHeld handles a StopCCN for no connection: the end of an SCCRQ that is
// held, perhaps.
func (e *Endpoint) cancelHeld(r request) {
	for _, t := range e.tunnels {
		if t.held != nil && t.held.request == r {
			t.held = nil
			t.changed()
			return
		}
	}
	e.count(countUnexpected)
}
