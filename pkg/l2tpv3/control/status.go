package control

import (
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Transition is a change of state, and why: a line of the tables of Sections 7.2 to 7.4.
type Transition struct {
	Time     time.Time `json:"time"`
	From, To string
	// Event is the table's, empty where it is not of one.
	Event  string `json:",omitempty"`
	Reason string `json:",omitempty"`
	Cause  Cause  `json:",omitzero"`
	// Times is how often it happened in a row, 0 for once, since First.
	Times int       `json:",omitempty"`
	First time.Time `json:",omitzero"`
}

// ConnectionStatus is a tunnel and the connection that is in force on it.
type ConnectionStatus struct {
	// Tunnel is the configuration, without the secrets, of which there are Secrets.
	Tunnel  Tunnel
	Secrets int
	State   ConnectionState
	// Reason is why the state is what it is, Since when it began.
	Reason string
	Cause  Cause
	Since  time.Time

	// What follows is zero if there is no connection, not even an attempt.
	LocalID, RemoteID uint32 // control connection IDs
	Initiator         bool
	Path              Path
	Authenticated     bool
	// What the peer says of itself.
	PeerHostName     string
	PeerRouterID     uint32
	PeerVendorName   string
	PeerCapabilities []l2tpv3.PseudowireType
	PeerLanguage     string
	PeerNumbers      l2tpv3.Numbers
	// ECN says that both ends have announced RFC 9601's capability.
	ECN bool
	// PeerWindow is the peer's receive window; CongestionWindow is what is used of it now.
	PeerWindow, CongestionWindow int
	// Ns is the number of our next message, Nr of the peer's next one.
	Ns, Nr uint16
	// Unacknowledged messages have been sent, Queued ones have not. The
	// Unacknowledged were repeated Tries times, and will be again at Retransmit.
	Unacknowledged, Queued, Tries int
	Retransmit                    time.Time
	// RTT is the smoothed time from a message to its acknowledgment, 0 while it has
	// not been measured.
	RTT time.Duration
	// Heard is when the peer was last heard, data included. NextHello is when it
	// will be asked, zero while something is unacknowledged.
	Heard, NextHello time.Time

	// Counters has the tunnel's part of Endpoint.Counters.
	Counters map[string]uint64
	// Retransmits are those of all the tunnel's connections so far.
	Retransmits uint64
	// NextAttempt is zero if none is planned.
	NextAttempt time.Time
	// Failures is the number of attempts in a row that came to nothing.
	Failures int
	// Testing says that another SCCRQ waits for the outcome of a HELLO.
	Testing bool
	// Closing is the number of former connections that are not forgotten yet.
	Closing  int
	Sessions int
	// History has the last transitions, the oldest first.
	History []Transition
}

// SessionStatus is a session.
type SessionStatus struct {
	Session Session
	State   SessionState
	Reason  string
	Cause   Cause
	Since   time.Time

	LocalID, RemoteID         uint32 // 0 while there is none
	LocalCookie, RemoteCookie []byte
	Initiator                 bool
	// Local is the circuit status as it is signalled, Remote is the peer's.
	Local, Remote l2tpv3.CircuitStatus
	// TransmitSublayer and TransmitSequencing are what the peer asked for.
	TransmitSublayer   l2tpv3.L2SpecificSublayer
	TransmitSequencing l2tpv3.DataSequencing
	// Installed says that the data plane was told of it; Transmit that it may send.
	Installed, Transmit bool
	// ReceiveSublayer is what the peer was asked for; DSCP is that of data packets.
	ReceiveSublayer l2tpv3.L2SpecificSublayer
	DSCP            uint8
	// ChangingCookie says that two cookies are accepted for a while, under one session ID or
	// two, AwaitingCookie that the peer has not said yet that it sends the new one.
	ChangingCookie, AwaitingCookie bool
	// Errors is the number of WAN-Error-Notify messages from the peer. LocalErrors and
	// RemoteErrors are what circuits have had since the session was established.
	Errors                    uint64
	LocalErrors, RemoteErrors l2tpv3.CircuitErrors
	NextAttempt               time.Time
	Failures                  int
	History                   []Transition
}

// Up reports whether user frames can pass both ways: the session is established
// and both circuits are active.
func (s *SessionStatus) Up() bool {
	return s.State == SessionEstablished && s.Local&s.Remote&l2tpv3.CircuitActive != 0 &&
		(s.Local|s.Remote)&l2tpv3.CircuitStandby == 0
}

// Connections gives all tunnels by name, those being removed excepted.
func (e *Endpoint) Connections() []ConnectionStatus {
	var all []ConnectionStatus
	for _, t := range e.sortedTunnels() {
		if !t.removed {
			all = append(all, t.status())
		}
	}
	return all
}

func (t *tunnel) status() ConnectionStatus {
	s := ConnectionStatus{
		Tunnel: t.cfg, State: t.state(), Reason: t.log.reason, Cause: t.log.cause, Since: t.log.since,
		Retransmits: t.retransmits, NextAttempt: t.openAt, Failures: t.failures,
		Testing: t.held != nil || t.rival != nil, Closing: len(t.ended), Sessions: len(t.sessions),
		History: slices.Clone(t.log.past), Counters: t.tally.names(),
	}
	s.Secrets, s.Tunnel.Secrets = len(t.cfg.Secrets), nil
	for _, c := range t.ended {
		s.Retransmits += c.rel.retransmits
	}
	c := t.conn
	if c == nil {
		return s
	}
	s.LocalID, s.RemoteID, s.Initiator, s.Path = c.localID, c.remoteID, c.initiator, c.path
	s.Authenticated = c.auth.on
	s.PeerHostName, s.PeerRouterID, s.PeerVendorName = c.peer.HostName, c.peer.RouterID, c.peer.VendorName
	s.PeerCapabilities = slices.Clone(c.peer.Capabilities)
	s.PeerNumbers = c.numbers
	s.PeerLanguage, s.ECN = c.peer.Language, t.cfg.ECN && c.peer.ECN
	s.PeerWindow, s.CongestionWindow = int(c.peer.Window), c.rel.cwnd
	s.Ns, s.Nr = c.rel.ns(), c.rel.nr
	s.Unacknowledged, s.Queued = c.rel.sent, len(c.rel.queue)-c.rel.sent
	s.Tries, s.Retransmit, s.RTT = c.rel.tries, c.rel.expires, c.rel.rtt
	s.Heard, s.NextHello = c.heard, c.helloDue()
	s.Retransmits += c.rel.retransmits
	return s
}

// Sessions gives all sessions by tunnel and name.
func (e *Endpoint) Sessions() []SessionStatus {
	var all []SessionStatus
	for _, t := range e.sortedTunnels() {
		for _, s := range t.sortedSessions() {
			all = append(all, s.snapshot())
		}
	}
	return all
}

func (s *session) snapshot() SessionStatus {
	st := SessionStatus{
		Session: s.cfg, State: s.state, Reason: s.log.reason, Cause: s.log.cause, Since: s.log.since,
		LocalID: s.localID, RemoteID: s.remoteID,
		LocalCookie: slices.Clone(s.localCookie), RemoteCookie: slices.Clone(s.remoteCookie),
		Initiator: s.initiator, Local: s.status(), Remote: s.remote,
		TransmitSublayer: s.wishes.Sublayer, TransmitSequencing: s.wishes.Sequencing,
		ReceiveSublayer: s.receive, DSCP: s.dscp(), ChangingCookie: s.change.previous != nil || s.succession.under(), AwaitingCookie: s.change.waiting || s.succession.awaits(),
		Errors: s.errors, NextAttempt: s.retryAt, Failures: s.failures,
		History: slices.Clone(s.log.past),
	}
	if s.circuitErrors != nil {
		st.LocalErrors, st.RemoteErrors = s.circuitErrors.Local, s.circuitErrors.Remote
	}
	if s.installed != nil {
		st.Installed, st.Transmit = true, s.installed.transmit
	}
	return st
}
