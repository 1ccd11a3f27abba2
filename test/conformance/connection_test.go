package conformance

import (
	"slices"
	"time"
)

// connection is the client's end of one control connection.
type connection struct {
	c *client
	// tunnel is the daemon's name for it.
	tunnel string
	// socket and port are the pair that everything has to keep to (Section 4.1.2.2).
	socket *socket
	port   uint16
	// local is the ID that the daemon has to use, peer the daemon's own.
	local, peer uint32
	// ns is of the next message to be sent, nr of the next to be received.
	ns, nr uint16
	// auth is set where the tunnel has a secret (Section 4.3).
	auth *authentication
	// silent connections acknowledge nothing by themselves, and see repetitions.
	silent bool
	// aside are messages that the test has no interest in, whenever they come.
	aside []messageType
}

// tieBreaker is the client's in SCCRQ and ICRQ: the lowest, which wins every tie.
var tieBreaker = octets(avpTieBreaker, make([]byte, 8)...)

// newConnection is one that has not begun.
func (c *client) newConnection(tunnel string, s *socket) *connection {
	n := &connection{c: c, tunnel: tunnel, socket: s, port: port, local: c.newID()}
	if c.secret != "" {
		n.auth = &authentication{secret: c.secret, algorithm: c.algorithm, local: c.nonce()}
	}
	return n
}

// identity is what SCCRQ and SCCRP have to hold (Sections 6.1 and 6.2), and a
// window that holds no test up.
func (n *connection) identity() []avp {
	avps := []avp{
		text(avpHostName, n.tunnel+".dc2"),
		u32(avpRouterID, 0xc0000202),
		u32(avpAssignedCCID, n.local),
		u16(avpCapabilities, 4, 5),
		u16(avpReceiveWindow, 64),
	}
	if n.auth != nil {
		avps = append(avps, octets(avpNonce, n.auth.local...))
	}
	return avps
}

// request is the connection's SCCRQ; it is not sent.
func (n *connection) request() message {
	return newMessage(sccrq, n.identity()...).with(tieBreaker)
}

// open establishes a connection that the client asks for, with further AVPs in
// the SCCRQ or others in place of the usual ones.
func (c *client) open(tunnel string, s *socket, avps ...avp) *connection {
	c.t.Helper()
	n := c.newConnection(tunnel, s)
	n.transmit(n.request().with(avps...))
	n.answered()
	n.send(scccn)
	n.delivered()
	c.forget(tunnel)
	return n
}

// answered takes the SCCRP.
func (n *connection) answered() message {
	n.c.t.Helper()
	n.ns = 1
	return n.expect(sccrp)
}

// accept establishes a connection that the daemon asks for.
func (c *client) accept(tunnel string, s *socket, avps ...avp) *connection {
	c.t.Helper()
	return c.reply(tunnel, s, c.request(tunnel), avps...)
}

// reply answers an SCCRQ.
func (c *client) reply(tunnel string, s *socket, request *packet, avps ...avp) *connection {
	c.t.Helper()
	n := c.begin(tunnel, s, request)
	n.transmit(n.stamp(newMessage(sccrp, n.identity()...)).with(avps...))
	n.expect(scccn)
	return n
}

// begin is a connection after the daemon's SCCRQ and before the answer.
func (c *client) begin(tunnel string, s *socket, request *packet) *connection {
	n := c.newConnection(tunnel, s)
	n.port, n.peer, n.nr = request.remote.Port(), request.m.number(avpAssignedCCID), 1
	n.authentic(request)
	return n
}

// authentic checks the digest of a message of the daemon's, and learns its nonce.
func (n *connection) authentic(p *packet) {
	n.c.t.Helper()
	if n.auth == nil {
		return
	}
	if nonce := p.m.value(avpNonce); nonce != nil && n.auth.remote == nil {
		n.auth.remote = nonce
	}
	if err := n.auth.check(p.payload); err != nil {
		n.c.t.Errorf("%v\n%s", err, describe(p.payload))
	}
}

// stamp numbers a message as the next one.
func (n *connection) stamp(m message) message {
	m.ccid, m.ns, m.nr = n.peer, n.ns, n.nr
	if !m.isACK() {
		n.ns++
	}
	return m
}

// transmit sends a message as it is.
func (n *connection) transmit(m message) {
	n.c.t.Helper()
	n.socket.send(n.port, n.seal(m))
}

// seal is a message as it goes out.
func (n *connection) seal(m message) []byte {
	if n.auth == nil {
		return m.encode()
	}
	if n.auth.also != nil {
		return n.auth.sign(m, n.auth.also...)
	}
	return n.auth.sign(m, n.auth.secret)
}

// send sends the next message.
func (n *connection) send(kind messageType, avps ...avp) message {
	n.c.t.Helper()
	m := n.stamp(newMessage(kind, avps...))
	n.transmit(m)
	return m
}

// ack acknowledges all that was received, explicitly.
func (n *connection) ack() {
	n.c.t.Helper()
	n.transmit(n.stamp(newMessage(ack)))
}

// isFor says whether a packet is a control message of this connection.
func (n *connection) isFor(p *packet) bool { return p.isControl() && p.m.ccid == n.local }

// placed complains of a message that did not come the way that it has to.
func (n *connection) placed(p *packet) *packet {
	n.c.t.Helper()
	if p != nil && (p.socket != n.socket || n.peer != 0 && p.remote.Port() != n.port) {
		n.c.t.Errorf("Section 4.1.2.2: it came from port %d to port %d, the connection's ports are %d and %d: %s",
			p.remote.Port(), p.socket.local.Port(), n.port, n.socket.local.Port(), describe(p.payload))
	}
	return p
}

// next takes the connection's next control message, whatever it is. Unless the
// connection is silent, repetitions are acknowledged again and left out.
func (n *connection) next(what string) message {
	n.c.t.Helper()
	for {
		p := n.placed(n.c.take(what+" on "+n.tunnel, n.isFor))
		if n.peer == 0 {
			n.port = p.remote.Port()
		}
		n.authentic(p)
		if behind := n.nr - p.m.ns; !n.silent && !p.m.isACK() && behind != 0 && behind < 1<<15 {
			n.ack()
			continue
		}
		return p.m
	}
}

// expect takes the next message that is not an ACK. It has to be of that type and
// in order; it is acknowledged.
func (n *connection) expect(kind messageType) message {
	n.c.t.Helper()
	for {
		m := n.next(kind.String())
		if m.isACK() {
			continue
		}
		n.receive(m)
		if slices.Contains(n.aside, m.kind()) && m.kind() != kind {
			continue
		}
		if m.kind() != kind {
			n.c.t.Fatalf("waited for %v on %s, got %v", kind, n.tunnel, m)
		}
		return m
	}
}

// receive takes note of a message in order.
func (n *connection) receive(m message) {
	n.c.t.Helper()
	if m.ns != n.nr {
		n.c.t.Fatalf("Section 4.2: the Ns is %d, expected %d: %v", m.ns, n.nr, m)
	}
	n.nr++
	if m.kind() == sccrp {
		n.peer = m.number(avpAssignedCCID)
	}
	if !n.silent {
		n.ack()
	}
}

// acked takes the ACK of all that was sent. Nothing else may have come before it.
func (n *connection) acked() {
	n.c.t.Helper()
	for {
		m := n.next("an ACK")
		if slices.Contains(n.aside, m.kind()) {
			n.receive(m)
			if m.nr == n.ns {
				return
			}
			continue
		}
		if !m.isACK() || m.ns != n.nr || m.nr != n.ns {
			n.c.t.Fatalf("waited for an ACK with Ns %d and Nr %d on %s, got %v", n.nr, n.ns, n.tunnel, m)
		}
		return
	}
}

// delivered waits until all that was sent is acknowledged, by whatever message.
// ACKs until then are taken, other messages are left to be expected.
func (n *connection) delivered() {
	n.c.t.Helper()
	p := n.placed(n.c.take("an acknowledgment on "+n.tunnel, func(p *packet) bool {
		return n.isFor(p) && p.m.nr == n.ns
	}))
	n.authentic(p)
	n.c.discard(func(q *packet) bool { return n.isFor(q) && q.m.isACK() && q.at.Before(p.at) })
	if !p.m.isACK() {
		n.c.mu.Lock()
		n.c.inbox = slices.Insert(n.c.inbox, 0, p)
		n.c.mu.Unlock()
	}
}

// alive is a valid exchange. It shows that nothing else came since what was
// acknowledged last, that the daemon is where it has to be in the sequence, and
// that the connection is established: one that only lingers refuses no session.
func (n *connection) alive() {
	n.c.t.Helper()
	n.send(hello)
	n.acked()
	s, call := n.call("nobody")
	n.transmit(n.stamp(call))
	s.disconnected(0, 0)
}

// stopped expects a StopCCN with that result and, unless 0, that error.
func (n *connection) stopped(result, code uint16) message {
	n.c.t.Helper()
	m := n.expect(stopCCN)
	if r, e := m.result(); result != 0 && r != result || code != 0 && e != code {
		n.c.t.Errorf("StopCCN with result %d error %d, want %d and %d", r, e, result, code)
	}
	return m
}

// quiet fails if a control message comes on the connection within d.
func (n *connection) quiet(d time.Duration) {
	n.c.t.Helper()
	if p := n.c.poll(time.Now().Add(d), n.isFor); p != nil {
		n.c.t.Errorf("nothing was to come any more: %s", describe(p.payload))
	}
}
