package control

import (
	"slices"
	"strings"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// from reports whether a datagram came from where the connection's peer is.
func (c *connection) from(p Path) (counter, bool) {
	switch {
	case p.Encapsulation != c.path.Encapsulation || p.Remote.Addr() != c.path.Remote.Addr():
		return countWrongPeer, false
	// Section 4.1.2.2: the ports stay the same for the life of the connection.
	case c.settled && p.Remote.Port() != c.path.Remote.Port():
		return countWrongPort, false
	}
	return 0, true
}

// receive handles a message for the connection, from its peer.
func (c *connection) receive(d Datagram, m *l2tpv3.Message) {
	e := c.e
	// Section 4.7.3: Version 2 is for the first SCCRQ only.
	if m.Version != 3 {
		e.count(countWrongVersion)
		return
	}
	// Section 5.4.1: verified "before utilizing any information contained within
	// the control message", Nr included.
	if !c.verify(d.Payload, m) {
		e.count(countUnauthenticated)
		if c.auth.on && c.state == ConnectionWaitReply {
			c.t.distrust(c.t.mistrust())
		}
		return
	}
	before := c.rel.first
	if !c.rel.acknowledge(e.now, &e.timers, m.Nr) {
		e.count(countWrongNr)
		return
	}
	if c.rel.first != before {
		c.progress()
	}
	e.touch(c)
	c.deliver(d, m)
	c.finish()
}

// deliver brings a message to its turn. Only what is new is a sign of life:
// anybody can repeat what he has heard.
func (c *connection) deliver(d Datagram, m *l2tpv3.Message) {
	e, arrival := c.e, c.rel.classify(m.Ns)
	if arrival != duplicate {
		c.heard = e.now
	}
	t, known := m.Type()
	if m.IsZLB() && !c.peer.ZLB {
		c.peer.ZLB = true
		c.changed()
	}
	if m.IsZLB() || known && t == l2tpv3.ACK {
		c.probe.acknowledged(&c.rel, m.Nr)
		return // Section 6.15: no event
	}
	if len(c.rel.queue) > 1024+4*len(c.t.sessions) {
		// The peer asks faster than it acknowledges the answers. Section 4.2: "MAY drop".
		e.count(countOverload)
		return
	}
	switch arrival {
	case duplicate:
		e.count(countDuplicate)
		c.again()
	case beforeTurn:
		if c.rel.keep(m.Ns, d.Payload, c.t.cfg.ReceiveWindow) {
			e.count(countOutOfOrder)
		} else {
			e.count(countOutOfWindow)
		}
	case inOrder:
		c.accept(m, d.Path)
		for octets, ok := c.rel.due(); ok && c.phase != ended; octets, ok = c.rel.due() {
			// It could be read before.
			if later, err := read(octets); err == nil {
				c.reveal(later)
				c.accept(later, d.Path)
			}
		}
	}
}

// again answers a repeated message: with what it was answered before, if that is
// waiting for an acknowledgment and is the first that the peer would hear of us,
// else with an acknowledgment. Each copy gets one, whoever counts them.
func (c *connection) again() {
	if c.owing && c.rel.owed {
		c.transmit(c.acknowledgment(), c.rel.ns())
	}
	c.rel.owed = true
	c.e.touch(c)
	if !c.initiator && c.rel.first == 0 {
		c.rel.repeat()
	}
}

// finish ends a connection whose StopCCN has arrived. A responder remembers the
// request, so that a late copy of it does not begin anew. A peer that had more to
// say, a StopCCN of its own perhaps, is owed acknowledgments of that.
func (c *connection) finish() {
	switch {
	case c.phase != closing || !c.rel.idle():
	case c.request == request{} && !c.rel.owed:
		c.end()
	default:
		c.phase, c.lingerEnd = lingering, c.e.now.Add(c.e.timers.Linger)
	}
}

// progress follows an acknowledgment of something new.
func (c *connection) progress() {
	c.changed()
	if c.t.conn == c && c.t.doubted() {
		c.t.log.of("", Cause{})
		c.t.moved(c.state, c.t.peer()+" answers again")
	}
	if h := c.t.held; h != nil && c.t.conn == c {
		h.progress(c.t)
	}
}

// accept takes one message in order.
func (c *connection) accept(m *l2tpv3.Message, from Path) {
	c.rel.accept()
	if c.e.accepted != nil {
		c.e.accepted(c, m)
	}
	c.changed()
	ev, in := c.event(m, from)
	if ev < connectionEvents {
		c.handle(ev, in)
	}
}

// event is what a message is to the connection; connectionEvents is nothing.
func (c *connection) event(m *l2tpv3.Message, from Path) (connectionEvent, input) {
	in := input{m: m, from: from, result: l2tpv3.ResultCode{Result: l2tpv3.StopCCNStateMachine}}
	t, ok := m.Type()
	if _, known := l2tpv3.LookupMessage(t); !ok || !known || !implemented(t) {
		// Section 5.4.1: the M bit of the Message Type is about the message.
		if !m.FlagsAt(0).Mandatory {
			c.e.count(countIgnoredType)
			return connectionEvents, in
		}
		in.result = l2tpv3.ResultCode{Result: l2tpv3.StopCCNError, HasError: true, Error: l2tpv3.ErrorUnknownMandatoryAVP, Message: "unknown mandatory message type"}
		in.reason = "the peer sent a mandatory message of a type that is not known"
		return receiveInvalid, in
	}
	if t.IsSession() {
		if c.state != ConnectionEstablished {
			in.reason = "the peer sent " + t.String() + " in state " + c.state.String()
		}
		return receiveSessionMessage, in
	}
	if t == l2tpv3.StopCCN {
		return c.stopCCN(m, in)
	}
	if t == l2tpv3.SCCRP {
		c.learnID(m, in.from)
	}
	// Section 5.2: StopCCN 2, Error Code 8. Section 7.1: so for malformed ones.
	if u, ok := unknownMandatory(m); ok {
		in.result, in.reason = u.ResultCode(), t.String()+" from the peer: "+plain(u)
		switch t {
		case l2tpv3.SCCRP:
			return receiveSCCRPUnacceptable, in
		case l2tpv3.SCCCN:
			return receiveSCCCNUnacceptable, in
		}
		return receiveInvalid, in
	}
	switch t {
	case l2tpv3.SCCRP:
		return c.sccrp(m, in)
	case l2tpv3.SCCCN:
		in.reason = "SCCCN received"
		if c.state != ConnectionWaitConnect {
			in.reason = "the peer sent SCCCN in state " + c.state.String()
		}
		return receiveSCCCN, in
	case l2tpv3.SCCRQ:
		in.reason = "the peer sent SCCRQ in state " + c.state.String()
		return receiveSCCRQ, in
	}
	return receiveHello, in
}

// vendorCableLabs is a vendor whose AVPs are known and mean nothing here, as most
// of Cisco's. Their boxes send them with the M bit to everybody, and by the letter
// of Section 5.2 would never come up.
const vendorCableLabs = 4491

// unknownMandatory finds the first AVP for which Section 5.2 wants the session or
// the connection shut down.
func unknownMandatory(m *l2tpv3.Message) (*l2tpv3.UnknownMandatoryAVPError, bool) {
	rest := l2tpv3.Message{AVPs: m.AVPs}
	for {
		u, ok := l2tpv3.UnknownMandatory(&rest)
		if !ok {
			return nil, false
		}
		skipped := len(m.AVPs) - len(rest.AVPs)
		if u.Vendor != l2tpv3.VendorCisco && u.Vendor != vendorCableLabs {
			u.Index += skipped
			return u, true
		}
		rest.AVPs = rest.AVPs[u.Index+1:]
	}
}

// implemented says which of the known messages have a meaning here. The others,
// of other RFCs, are as good as unknown.
func implemented(t l2tpv3.MessageType) bool {
	switch t {
	case l2tpv3.SCCRQ, l2tpv3.SCCRP, l2tpv3.SCCCN, l2tpv3.StopCCN, l2tpv3.Hello, l2tpv3.OCRQ, l2tpv3.OCRP, l2tpv3.OCCN,
		l2tpv3.ICRQ, l2tpv3.ICRP, l2tpv3.ICCN, l2tpv3.CDN, l2tpv3.WEN, l2tpv3.SLI, l2tpv3.ACK:
		return true
	}
	return false
}

// learnID learns where an answer to SCCRP or StopCCN has to go, if it is the first
// message from the peer.
func (c *connection) learnID(m *l2tpv3.Message, from Path) {
	if id, ok := l2tpv3.Find[l2tpv3.AssignedControlConnectionID](m); ok && c.remoteID == 0 {
		c.remoteID = uint32(id)
	}
	c.fixPeer(from)
}

func (c *connection) stopCCN(m *l2tpv3.Message, in input) (connectionEvent, input) {
	c.learnID(m, in.from)
	in.reason = "the peer sent StopCCN"
	r, ok := l2tpv3.Find[l2tpv3.ResultCode](m)
	if r = r.Shortened(); ok {
		in.reason += ": " + r.Describe(l2tpv3.StopCCN)
	}
	in.cause = resultCause(l2tpv3.StopCCN, r, Peer)
	return receiveStopCCN, in
}

// sccrp judges an SCCRP and takes the peer's identity from it.
func (c *connection) sccrp(m *l2tpv3.Message, in input) (connectionEvent, input) {
	in.reason = "SCCRP received"
	if c.state != ConnectionWaitReply {
		in.reason = "the peer sent SCCRP in state " + c.state.String()
		return receiveSCCRP, in
	}
	if err := l2tpv3.Validate(m); err != nil {
		in.result, in.reason = malformed(err), "the peer sent "+plain(err)
		return receiveSCCRPUnacceptable, in
	}
	if _, nonce := l2tpv3.Find[l2tpv3.Nonce](m); nonce && !c.auth.on {
		in.result, in.reason = noSecret, c.t.peer()+" wants authentication, and there is no secret for it here"
		return receiveSCCRPUnacceptable, in
	}
	c.identify(m)
	if c.e.ours(c.peer.HostName) {
		in.result.Result, in.reason = l2tpv3.StopCCNNotAuthorized, "the answer is our own"
		return receiveSCCRPUnacceptable, in
	}
	// The peer took us for somebody else: it does not know this tunnel (yet).
	if other := c.e.tunnelNamed(c.peer.HostName); other != nil && other != c.t && c.peer.HostName != c.t.cfg.PeerHostName {
		in.result = l2tpv3.ResultCode{Result: l2tpv3.StopCCNNotAuthorized, HasError: true, Message: otherNameText}
		in.reason = "waiting for " + c.t.peer() + ": it answered as " + c.peer.HostName
		return receiveSCCRPUnacceptable, in
	}
	return receiveSCCRP, in
}

// malformed is the answer to a message that lacks something. Section 5.4.2:
// Error Code 6 has text that says what.
func malformed(err error) l2tpv3.ResultCode {
	return l2tpv3.ResultCode{Result: l2tpv3.StopCCNError, HasError: true, Error: l2tpv3.ErrorVendor, Message: plain(err)}
}

// plain is an error of the wire in words for people, without the package's name.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "l2tpv3: ") }

// fixPeer fixes the peer's port: from here on control and data use this pair.
func (c *connection) fixPeer(from Path) {
	if c.settled {
		return
	}
	c.settled = true
	c.path.Remote = from.Remote
	if from.Local.IsValid() {
		c.path.Local = from.Local
	}
}

// identify takes what the peer says of itself in a valid SCCRQ or SCCRP.
func (c *connection) identify(m *l2tpv3.Message) {
	id, _ := l2tpv3.Find[l2tpv3.AssignedControlConnectionID](m)
	host, _ := l2tpv3.Find[l2tpv3.HostName](m)
	router, _ := l2tpv3.Find[l2tpv3.RouterID](m)
	vendor, _ := l2tpv3.Find[l2tpv3.VendorName](m)
	capabilities, _ := l2tpv3.Find[l2tpv3.PseudowireCapabilities](m)
	// Section 5.4.3: "If absent, the peer must assume a Window Size of 4".
	window, ok := l2tpv3.Find[l2tpv3.ReceiveWindowSize](m)
	if !ok {
		window = defaultWindow
	}
	language, _ := l2tpv3.Find[l2tpv3.PreferredLanguage](m)
	_, ecn := l2tpv3.Find[l2tpv3.ECNCapability](m)
	_, diffServ := l2tpv3.Find[l2tpv3.ControlConnectionDS](m)
	c.remoteID, c.numbers = uint32(id), m.Numbers
	c.peer = identity{
		HostName: string(host), RouterID: uint32(router), VendorName: string(vendor),
		Capabilities: slices.Clone(capabilities), Window: uint16(window),
		ECN: ecn, Language: string(language), DiffServ: diffServ,
	}
	c.rel.setWindow(uint16(window))
	if nonce, ok := l2tpv3.Find[l2tpv3.Nonce](m); ok {
		c.auth.remoteNonce = slices.Clone(nonce)
	}
}
