package conformance

// The pseudowire types of RFC 4719, Section 2.1, and one of RFC 4349.
const (
	ethernetVLAN = 4
	ethernet     = 5
	hdlc         = 6
)

// Circuit Status (Section 5.4.5; RFC 5641, Section 2).
const (
	circuitActive = 0x0001
	circuitFaults = 0x003c
)

// Result codes of StopCCN and CDN and error codes (Section 5.4.2).
const (
	resultError        = 2 // of both: see the error code
	resultTieLost      = 13
	resultType         = 14
	resultSequencing   = 15
	resultNoForwarder  = 24 // RFC 4667, Section 6.2
	resultAdministered = 3  // of CDN
	errorUnknownAVP    = 8
)

// session is the client's end of one session.
type session struct {
	n *connection
	// local is the ID that the daemon has to use, peer the daemon's own.
	local, peer uint32
	// cookie is the client's, which the daemon has to send; peerCookie the daemon's.
	cookie, peerCookie []byte
}

// call is an ICRQ for a pseudowire as RFC 4719, Section 2.2 wants it, with further AVPs
// or others in place of the usual ones.
func (n *connection) call(end string, avps ...avp) (*session, message) {
	s := &session{n: n, local: n.c.newID()}
	m := newMessage(icrq,
		u32(avpLocalSessionID, s.local),
		u32(avpRemoteSessionID, 0),
		u32(avpSerialNumber, s.local),
		u16(avpPseudowireType, ethernet),
		text(avpRemoteEndID, end),
		u16(avpCircuitStatus, circuitActive),
	).with(avps...)
	s.cookie = m.value(avpCookie)
	return s, m
}

// open establishes a session that the client asks for. It wins the tie if the
// daemon has just asked for it, too.
func (n *connection) open(end string, avps ...avp) *session {
	n.c.t.Helper()
	s, m := n.call(end, append(avps, tieBreaker)...)
	n.transmit(n.stamp(m))
	s.connect()
	return s
}

// connect follows an ICRQ.
func (s *session) connect() {
	s.n.c.t.Helper()
	s.learn(s.n.expect(icrp))
	s.send(iccn)
	s.n.delivered()
}

// accept establishes the session that the daemon asks for next.
func (n *connection) accept(avps ...avp) *session {
	n.c.t.Helper()
	s := n.answer(n.expect(icrq), avps...)
	n.expect(iccn)
	return s
}

// answer sends ICRP.
func (n *connection) answer(request message, avps ...avp) *session {
	n.c.t.Helper()
	s := &session{n: n, local: n.c.newID()}
	s.learn(request)
	m := n.stamp(newMessage(icrp, s.ids(u16(avpCircuitStatus, circuitActive))...)).with(avps...)
	s.cookie = m.value(avpCookie)
	n.transmit(m)
	return s
}

// decline takes the daemon's ICRQs for so many pseudowires and says that they are
// not known (yet), so that it does not ask again at once.
func (n *connection) decline(pseudowires int) {
	n.c.t.Helper()
	for range pseudowires {
		s := &session{n: n, local: n.c.newID()}
		s.learn(n.expect(icrq))
		s.send(cdn, u16(avpResultCode, resultNoForwarder))
		n.delivered()
	}
}

// learn takes what ICRQ or ICRP say of the daemon's side.
func (s *session) learn(m message) {
	s.peer, s.peerCookie = m.number(avpLocalSessionID), m.value(avpCookie)
}

// ids begins a session's message: "The Remote Session ID AVP MUST be present in all
// session-level control messages" (Section 5.4.4).
func (s *session) ids(avps ...avp) []avp {
	return append([]avp{u32(avpLocalSessionID, s.local), u32(avpRemoteSessionID, s.peer)}, avps...)
}

// send sends the next message, about the session.
func (s *session) send(kind messageType, avps ...avp) message {
	s.n.c.t.Helper()
	return s.n.send(kind, s.ids(avps...)...)
}

// isFor complains of a message of the daemon that is not about this session.
func (s *session) isFor(m message) {
	s.n.c.t.Helper()
	if got := m.number(avpRemoteSessionID); got != s.local {
		s.n.c.t.Errorf("%v is for session %08x, not %08x", m.kind(), got, s.local)
	}
	if got := m.number(avpLocalSessionID); s.peer != 0 && got != s.peer {
		s.n.c.t.Errorf("%v is of session %08x, not %08x", m.kind(), got, s.peer)
	}
}

// disconnected expects a CDN with that result and, unless 0, that error.
func (s *session) disconnected(result, code uint16) message {
	s.n.c.t.Helper()
	m := s.n.expect(cdn)
	s.isFor(m)
	if r, e := m.result(); result != 0 && r != result || code != 0 && e != code {
		s.n.c.t.Errorf("CDN with result %d error %d, want %d and %d", r, e, result, code)
	}
	return m
}
