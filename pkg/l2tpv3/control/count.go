package control

// counter is one of the reasons under which received messages are counted.
type counter uint8

const (
	countReceived counter = iota
	countTransmitted
	countRetransmitted
	countMalformed
	countUnknownConnection
	countUnknownPeer
	countWrongPeer
	countWrongPort
	countWrongVersion
	countWrongNr
	countUnauthenticated
	countUnexpected
	countDuplicate
	countOutOfOrder
	countOutOfWindow
	countOverload
	countIgnoredType
	countUnknownSession
	countRefusedRequest
	countLimitedRequest
	countLimitedSource
	countLimitedStranger
	countHello
	countLost
	counters
)

var counterNames = [counters]string{
	countReceived:          "received",
	countTransmitted:       "transmitted",
	countRetransmitted:     "retransmitted",
	countMalformed:         "malformed",
	countUnknownConnection: "unknown-connection",
	countUnknownPeer:       "unknown-peer",
	countWrongPeer:         "wrong-peer",
	countWrongPort:         "wrong-port",
	countWrongVersion:      "wrong-version",
	countWrongNr:           "wrong-nr",
	countUnauthenticated:   "unauthenticated",
	countUnexpected:        "unexpected",
	countDuplicate:         "duplicate",
	countOutOfOrder:        "out-of-order",
	countOutOfWindow:       "out-of-window",
	countOverload:          "overload",
	countIgnoredType:       "ignored-type",
	countUnknownSession:    "unknown-session",
	countRefusedRequest:    "refused-request",
	countLimitedRequest:    "limited-request",
	countLimitedSource:     "limited-source",
	countLimitedStranger:   "limited-stranger",
	countHello:             "hello-sent",
	countLost:              "connections-lost",
}

// discarded are the counters of messages that a peer, or who pretends to be one,
// has sent in vain.
const discarded = 1<<countMalformed | 1<<countUnknownConnection | 1<<countUnknownPeer | 1<<countWrongPeer |
	1<<countWrongPort | 1<<countWrongVersion | 1<<countWrongNr | 1<<countUnauthenticated | 1<<countUnexpected |
	1<<countOutOfWindow | 1<<countOverload | 1<<countLimitedRequest |
	1<<countLimitedSource | 1<<countLimitedStranger

// occasion is the datagram that is being received, and the tunnel that it turned
// out to be about.
type occasion struct {
	received bool
	// anybody says that it is tried against the tunnels whose peers call from anywhere.
	anybody bool
	// host, if set, is the only Host Name of theirs that it is tried against.
	host string
	d    Datagram
	t    *tunnel
}

// concerns says which tunnel the datagram being received is about.
func (e *Endpoint) concerns(t *tunnel) {
	if e.occasion.received && e.occasion.t == nil {
		e.occasion.t = t
		t.tally[countReceived]++
	}
}

// count counts the datagram being received.
func (e *Endpoint) count(c counter) {
	e.tally[c]++
	if t := e.occasion.t; t != nil {
		t.tally[c]++
	}
	if e.occasion.received && discarded>>c&1 != 0 {
		e.discard(c, e.occasion.d, e.occasion.t, "")
	}
}

// count counts what the tunnel does by itself.
func (t *tunnel) count(c counter) {
	t.tally[c]++
	t.e.tally[c]++
}

func (e *Endpoint) discard(c counter, d Datagram, t *tunnel, answer string) {
	if e.cfg.Discarded == nil {
		return
	}
	out := Discard{Reason: counterNames[c], Datagram: d, Answer: answer}
	if t != nil {
		out.Tunnel = t.cfg.Name
	}
	e.cfg.Discarded(out)
}

// DiscardReasons are those that a Discard can have.
func DiscardReasons() (all []string) {
	for c, name := range counterNames {
		if discarded>>c&1 != 0 || counter(c) == countRefusedRequest {
			all = append(all, name)
		}
	}
	return all
}

// Discard is a received message that came in vain.
type Discard struct {
	// Reason is its name in Counters.
	Reason string
	// Tunnel is whose message it was, or would have been; empty if that cannot be said.
	Tunnel string
	// Datagram is as it was received: neither its address nor what is in it has
	// been proven. The payload is not to be kept.
	Datagram Datagram
	// Answer is, in words, what a request was refused with; empty where nothing was sent.
	Answer string
}

// tally has the counters.
type tally [counters]uint64

func (t *tally) names() map[string]uint64 {
	all := make(map[string]uint64, counters)
	for c, name := range counterNames {
		all[name] = t[c]
	}
	return all
}

// Counters counts control messages since the Endpoint was made. Every name is
// always there, here and in ConnectionStatus.Counters, which has the part of it
// that belongs to one tunnel:
//
//	received            all, whatever they hold
//	transmitted         all; retransmitted is what part of them are repetitions
//	malformed           no control message: header or AVP lengths are wrong; that
//	                    of a stranger is not looked at, and counts as one of the next three
//	unknown-connection  a control connection ID that is nobody's
//	unknown-peer        a request from an address that no tunnel has
//	wrong-peer          not from the address of the connection's peer
//	wrong-port          from the peer's address, another port than the connection's
//	wrong-version       Version 2, but no SCCRQ
//	wrong-nr            acknowledges what was never sent
//	unauthenticated     without a valid Message Digest where one is needed
//	unexpected          ID 0 and neither SCCRQ nor a StopCCN that belongs to something
//	duplicate           repeated by the peer or the network, acknowledged again
//	out-of-order        kept until those before it came
//	out-of-window       further ahead than the window, or too much of it: dropped
//	overload            dropped because too much waits to be sent to the peer
//	ignored-type        a message type that is not known and not mandatory
//	unknown-session     a session message for no session of ours
//	refused-request     SCCRQ answered by StopCCN
//	limited-request     SCCRQ not answered: too many at once from that peer
//	limited-source      SCCRQ from an address that no tunnel has, not looked at: too
//	                    many at once from there (from its /64, of IPv6)
//	limited-stranger    the same: too many at once from all such addresses
//	hello-sent          HELLOs
//	connections-lost    connections that ended because the peer did not answer
func (e *Endpoint) Counters() map[string]uint64 { return e.tally.names() }
