package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// connection is one control connection, from the SCCRQ to the end of its lingering.
type connection struct {
	e *Endpoint
	t *tunnel

	state ConnectionState
	// phase divides idle: what a connection does after its end.
	phase phase
	since time.Time

	localID, remoteID uint32
	initiator         bool
	// path is where its packets go; settled means that the peer's port is known
	// and no other is accepted any more (Section 4.1.2.2).
	path    Path
	settled bool
	// request is the SCCRQ that started a responder's connection, mark what was
	// random in it.
	request request
	mark    uint64
	repeats limit // of the request
	// stranger connections only refuse: they have no socket and are not saved.
	stranger bool
	// owing is set while the connection is among the Endpoint's.
	owing bool
	peer  identity
	// numbers are those that the peer speaks, or is to be called with.
	numbers l2tpv3.Numbers
	tie     *l2tpv3.TieBreaker
	auth    auth
	rel     reliable
	probe   probe

	heard       time.Time
	helloAfter  time.Duration
	called      time.Time // when the last message about a session came
	halfOpenEnd time.Time
	lingerEnd   time.Time

	slot alarm
}

type phase uint8

const (
	alive     phase = iota
	closing         // has sent StopCCN, which is not acknowledged
	lingering       // acknowledges what is repeated, until lingerEnd
	ended
)

// identity is what the peer said of itself in SCCRQ or SCCRP (Section 3.3).
type identity struct {
	HostName     string                  `json:"hostName,omitempty"`
	RouterID     uint32                  `json:"routerID,omitempty"`
	VendorName   string                  `json:"vendorName,omitempty"`
	Capabilities []l2tpv3.PseudowireType `json:"capabilities,omitempty"`
	Window       uint16                  `json:"window,omitempty"`
	ECN          bool                    `json:"ecn,omitempty"`
	Language     string                  `json:"language,omitempty"`
	// DiffServ says that its SCCRQ had a Control Connection DS AVP, which is to be answered.
	DiffServ bool `json:"diffServ,omitempty"`
	// ZLB says that it has acknowledged by a message without AVPs since (Section 6.15).
	ZLB bool `json:"zlb,omitempty"`
}

// input is what comes with an event.
type input struct {
	result l2tpv3.ResultCode
	reason string
	cause  Cause // where the event does not say it all
	m      *l2tpv3.Message
	from   Path
}

// newConnection makes a connection in idle, with an ID.
func (t *tunnel) newConnection(p Path) *connection {
	c := &connection{e: t.e, t: t, path: p, rel: newReliable(), since: t.e.now, heard: t.e.now}
	c.localID = t.e.newConnectionID()
	t.e.connections[c.localID] = c
	c.drawHello()
	return c
}

func (c *connection) alarm() *alarm { return &c.slot }

func (c *connection) deadline() time.Time {
	d := earliest(c.rel.expires, c.helloDue())
	d = earliest(d, c.halfOpenLimit())
	return earliest(d, c.lingerEnd)
}

// halfOpenLimit is for a peer that acknowledges and does not go on. What one does
// not acknowledge has its own end, however late its timers are served.
func (c *connection) halfOpenLimit() time.Time {
	if !c.rel.idle() {
		return time.Time{}
	}
	return c.halfOpenEnd
}

func (c *connection) expire(now time.Time) {
	if past(now, c.lingerEnd) {
		c.end()
		return
	}
	if past(now, c.rel.expires) && !c.rel.expire(now, &c.e.timers) {
		if c.state != ConnectionIdle {
			c.t.count(countLost)
		}
		c.handle(peerSilent, c.unheard(now))
		return
	}
	c.doubt(now)
	if past(now, c.halfOpenLimit()) {
		c.halfOpenEnd = time.Time{}
		c.handle(halfOpenTooLong, input{result: l2tpv3.ResultCode{Result: l2tpv3.StopCCNStateMachine}, reason: "not established in time"})
		return
	}
	if past(now, c.helloDue()) {
		c.hello()
	}
}

// unheard is why a connection whose peer does not answer ends.
func (c *connection) unheard(now time.Time) input {
	if c.t.conn == c && c.t.distrusts() {
		return input{reason: c.t.suspicion, cause: c.t.log.cause}
	}
	return input{reason: c.silence(now), cause: c.unanswered()}
}

// unanswered is silence for those who decide by it.
func (c *connection) unanswered() Cause {
	return Cause{Kind: CauseSilent, By: Here, Message: c.rel.queue[0].kind, Sent: c.rel.tries + 1}
}

// silence says what the peer did not answer, and since when.
func (c *connection) silence(now time.Time) string {
	asked := fmt.Sprintf("%s was sent %d times", c.rel.queue[0].kind, c.rel.tries+1)
	if c.state != ConnectionEstablished {
		return "no answer: " + asked
	}
	silent, asking := now.Sub(c.heard), c.e.timers.sum(0, c.rel.tries)
	if silent < asking {
		return fmt.Sprintf("%s does not answer, though its data arrives: %s", c.t.peer(), asked)
	}
	return fmt.Sprintf("%s does not answer: it was last heard %v ago, %s", c.t.peer(), silent.Round(time.Second), asked)
}

// doubtAfter is after how many repetitions of a message a peer is said not to answer:
// 7 s with the default timers.
const doubtAfter = 3

// doubt tells of the first sign that a connection may be lost, or not come up. It is
// asked after each expiry of the retransmission timer.
func (c *connection) doubt(now time.Time) {
	t := c.t
	if c.rel.tries != doubtAfter || c.rel.tries >= c.e.timers.MaxRetransmits || c.rel.idle() || c.state == ConnectionIdle || t.conn != c || t.doubted() || t.distrusts() {
		return
	}
	t.log.of("", c.unanswered())
	t.moved(c.state, fmt.Sprintf("%s of %d", c.silence(now), c.e.timers.MaxRetransmits+1))
}

// doubted says that the peer of the established connection was said not to answer.
func (t *tunnel) doubted() bool {
	return t.state() == ConnectionEstablished && t.log.cause.Kind == CauseSilent
}

// changed notes that the connection has to be saved and settled.
func (c *connection) changed() {
	c.e.touch(c)
	if !c.stranger {
		c.e.dirty[c.t.cfg.Name] = struct{}{}
	}
}

// handle carries out the step that Section 7.2 has for the event.
func (c *connection) handle(ev connectionEvent, in input) {
	step := connectionTable[c.state][ev]
	from := c.state
	// What changes nothing is no cause of how things are.
	if (c.t.conn == c || c.t.conn == nil) && step.action != doNothing && step.action != passToSession {
		c.t.log.of(ev.String(), ev.cause(step, &in))
	}
	if c.state = step.next; c.state != from {
		if c.state != ConnectionIdle {
			c.since = c.e.now // for how long it was up is looked at afterwards
		}
		c.halfOpenEnd = time.Time{}
		if c.state == ConnectionWaitReply || c.state == ConnectionWaitConnect {
			c.halfOpenEnd = c.e.now.Add(c.e.timers.cycle() + c.e.timers.RetransmitCap)
		}
	}
	c.changed()
	switch step.action {
	case sendSCCRQ:
		c.announce(l2tpv3.SCCRQ)
		c.t.moved(from, in.reason)
	case sendSCCRP:
		c.announce(l2tpv3.SCCRP)
		if c.t.conn == c {
			c.t.moved(from, in.reason)
		}
	case sendSCCCN:
		c.push(l2tpv3.SCCCN)
		c.established(from, in)
	case openSessions:
		if from != ConnectionEstablished {
			c.established(from, in)
			return
		}
		c.t.openSessions()
	case passToSession:
		c.called = c.e.now
		c.t.receiveSession(c, in.m)
	case refusePeersRequest, doNothing:
	case stop:
		c.stop(in.result, in.reason, from == ConnectionWaitReply)
		c.t.over(c, from, in.reason)
	case refuse:
		if c.phase == alive || c.phase == lingering && c.rel.idle() {
			if in.result.Result == 0 {
				in.result.Result = l2tpv3.StopCCNStateMachine
			}
			c.stop(in.result, in.reason, false)
		}
	case giveWay:
		c.rel.abandon()
		c.linger()
		c.t.over(c, from, in.reason)
	case stopped:
		c.linger()
		c.t.over(c, from, in.reason)
	case lose:
		c.t.over(c, from, in.reason)
		c.end()
	}
}

// established lets the sessions begin. A rival takes the place of the connection
// that it was carried beside.
func (c *connection) established(from ConnectionState, in input) {
	t := c.t
	if t.rival == c {
		t.rival = nil
		t.yield(c.request, "the peer has opened a new one")
		t.conn = c
	}
	t.openAt, t.log.cause = time.Time{}, Cause{}
	c.drawHello()
	t.called(c.path.Remote.Addr())
	emit(&c.e.outputs, &c.e.outputs.connected, Connected{Connection: c.localID, Initiator: c.initiator, Path: c.path})
	t.moved(from, in.reason)
	t.openSessions()
}

// stop sends StopCCN and keeps delivery going until it is acknowledged (Section
// 4.2). What the peer has not seen is dropped; so is an SCCRQ without an answer,
// which would only make the peer begin. The peer is told why, in words.
func (c *connection) stop(result l2tpv3.ResultCode, why string, unanswered bool) {
	if unanswered && c.remoteID == 0 {
		c.rel.abandon()
	} else {
		c.rel.dropUnsent()
	}
	c.phase, c.lingerEnd = closing, time.Time{}
	// Section 5.4.3: the Assigned Control Connection ID lets a peer that has not
	// told its own find the connection.
	c.push(l2tpv3.StopCCN, result.Explained(l2tpv3.StopCCN, why), l2tpv3.AssignedControlConnectionID(c.localID))
	c.t.bury(c)
	c.changed()
}

// linger keeps the connection for acknowledging what is repeated (Section 3.3.2).
func (c *connection) linger() {
	c.rel.abandon()
	c.rel.early, c.rel.earlyOctets = nil, 0
	c.phase, c.lingerEnd = lingering, c.e.now.Add(c.e.timers.Linger)
	c.t.bury(c)
	c.changed()
}

// end forgets the connection.
func (c *connection) end() {
	if c.phase == ended {
		return
	}
	c.phase = ended
	c.rel.abandon()
	c.lingerEnd, c.halfOpenEnd = time.Time{}, time.Time{}
	delete(c.e.connections, c.localID)
	if c.e.requests[c.request] == c {
		delete(c.e.requests, c.request)
	}
	if i := slices.Index(c.t.ended, c); i >= 0 {
		c.t.ended = slices.Delete(c.t.ended, i, i+1)
	}
	c.t.retransmits += c.rel.retransmits
	if !c.stranger {
		emit(&c.e.outputs, &c.e.outputs.released, Released{Connection: c.localID})
	}
	c.changed()
	c.t.purge()
}

// announce sends SCCRQ or SCCRP: who we are (Sections 6.1 and 6.2).
func (c *connection) announce(t l2tpv3.MessageType) {
	cfg := &c.t.cfg
	avps := []l2tpv3.AVP{
		l2tpv3.HostName(cfg.HostName),
		l2tpv3.RouterID(cfg.RouterID),
		l2tpv3.AssignedControlConnectionID(c.localID),
		l2tpv3.PseudowireCapabilities(cfg.Capabilities),
		l2tpv3.ReceiveWindowSize(cfg.ReceiveWindow),
	}
	if t == l2tpv3.SCCRQ && c.tie != nil {
		avps = append(avps, *c.tie)
	}
	if c.e.cfg.VendorName != "" {
		avps = append(avps, l2tpv3.VendorName(c.e.cfg.VendorName))
	}
	if cfg.Language != "" {
		avps = append(avps, l2tpv3.PreferredLanguage(cfg.Language))
	}
	// RFC 9601, Section 6.1.1.2.1.
	if cfg.ECN {
		avps = append(avps, l2tpv3.ECNCapability{})
	}
	// RFC 3308, Section 3: whatever was asked for, the answer is what we do.
	if c.peer.DiffServ && t == l2tpv3.SCCRP {
		avps = append(avps, l2tpv3.ControlConnectionDS(phb(controlDSCP)))
	}
	if c.numbers == l2tpv3.CiscoNumbers {
		avps = append(avps, l2tpv3.DraftVersion())
	}
	if n := c.startAuth(); n != nil {
		avps = append(avps, l2tpv3.Nonce(n))
	}
	c.push(t, avps...)
}

// push queues a message for reliable delivery.
func (c *connection) push(t l2tpv3.MessageType, avps ...l2tpv3.AVP) { c.pushFor(0, t, avps...) }

// pushFor is push for a message of the session with that local ID, in place of
// one of its kind that has not been sent yet.
func (c *connection) pushFor(session uint32, t l2tpv3.MessageType, avps ...l2tpv3.AVP) {
	message := l2tpv3.NewMessage(t, c.hide(t, avps)...)
	message.Numbers = c.numbers
	octets, err := message.Append(nil)
	if err != nil {
		return // checked when the tunnel and the session were set
	}
	m := outgoing{kind: t, octets: octets, session: session}
	if session == 0 || !c.rel.replaceUnsent(m) {
		c.rel.push(m)
	}
	c.changed()
}

// flush sends what the windows let through. What acknowledgment is owed after that
// waits until all that has come in has been dealt with, see acknowledge.
func (c *connection) flush() {
	if c.auth.on && len(c.keys()) == 0 {
		return // until the secrets are set again
	}
	for {
		again := c.rel.flying < c.rel.sent
		m, ns, ok := c.rel.next(c.e.now, &c.e.timers, c.phase == closing)
		if !ok {
			break
		}
		if again {
			c.t.count(countRetransmitted)
		}
		c.transmit(m.octets, ns)
	}
	if c.rel.owed && !c.owing {
		c.owing = true
		c.e.owing = append(c.e.owing, c)
	}
}

// acknowledge sends an ACK for each connection that owes one which no message has
// carried since: one for all that was received before the owner asked for outputs.
func (e *Endpoint) acknowledge() {
	for _, c := range e.owing {
		if c.owing = false; c.rel.owed && c.phase != ended {
			c.transmit(c.acknowledgment(), c.rel.ns())
		}
	}
	clear(e.owing)
	e.owing = e.owing[:0]
}

// headerOctets is the length of a control message without AVPs (Section 3.2.1).
const headerOctets = 12

// ackOctets and zlbOctets acknowledge, and do nothing else (Section 6.15).
var (
	ackOctets, _ = l2tpv3.NewMessage(l2tpv3.ACK).Append(nil)
	zlbOctets    = ackOctets[:headerOctets:headerOctets]
)

// acknowledgment is a message that acknowledges: an ACK, or, to a peer that sends ZLBs, a ZLB. Some of
// these peers (SoftEther) take an ACK for a message that has the number, and the next for its copy.
func (c *connection) acknowledgment() []byte {
	if c.peer.ZLB && !c.auth.on {
		return zlbOctets
	}
	return ackOctets
}

// transmit sends a message with the header as it has to be now. A repetition has
// a refreshed Nr (Section 4.2).
func (c *connection) transmit(octets []byte, ns uint16) {
	c.rel.owed = false
	payload := c.seal(octets, ns)
	out := Transmit{Tunnel: c.t.cfg.Name, Connection: c.localID, Initiator: c.initiator, Path: c.path, Payload: payload}
	if c.stranger {
		out.Connection = 0
	}
	c.t.count(countTransmitted)
	emit(&c.e.outputs, &c.e.outputs.transmit, out)
}

// putHeader writes CCID, Ns and Nr into an encoded message.
func putHeader(b []byte, ccid uint32, ns, nr uint16) {
	b[4], b[5], b[6], b[7] = byte(ccid>>24), byte(ccid>>16), byte(ccid>>8), byte(ccid)
	b[8], b[9], b[10], b[11] = byte(ns>>8), byte(ns), byte(nr>>8), byte(nr)
}
