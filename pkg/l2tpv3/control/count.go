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
	countHello:             "hello-sent",
	countLost:              "connections-lost",
}

func (e *Endpoint) count(c counter) { e.tally[c]++ }

// Counters counts control messages since the Endpoint was made. Every name is
// always there:
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
//	hello-sent          HELLOs
//	connections-lost    connections that ended because the peer did not answer
func (e *Endpoint) Counters() map[string]uint64 {
	all := make(map[string]uint64, counters)
	for c, name := range counterNames {
		all[name] = e.tally[c]
	}
	return all
}
