package control

import (
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Cause is why a control connection or a session is in its state, for those who
// decide by it; the reason beside it is the same in words. The zero Cause is the
// regular course of things.
type Cause struct {
	Kind CauseKind `json:"kind,omitempty"`
	// By is who decided, if anybody did.
	By Party `json:"by,omitempty"`
	// Message is the control message that brought it or, where something is waited
	// for in vain, the one that was not answered; 0 if there is none.
	Message l2tpv3.MessageType `json:"message,omitempty"`
	// Sent is how often that was sent without an answer.
	Sent int `json:"sent,omitempty"`
	// Result is that of the StopCCN or CDN, the peer's or ours, with its Error
	// Message, shortened; zero without one.
	Result l2tpv3.ResultCode `json:"result,omitzero"`
}

// CauseKind is what kind of thing a Cause is. Its text is stable.
type CauseKind uint8

const (
	CauseNone CauseKind = iota
	// CauseWaiting is a request that has not been answered yet.
	CauseWaiting
	// CauseSilent is a peer that does not answer.
	CauseSilent
	// CauseSecret is a peer whose messages do not fit the secrets here, or an end that
	// has none where the other has.
	CauseSecret
	// CauseNotAuthorized is a StopCCN 4 or CDN 25: one end does not want the other.
	CauseNotAuthorized
	// CauseName is a Host Name that belongs to another tunnel.
	CauseName
	// CauseDuplicate is a lost tie, or a connection that there is already.
	CauseDuplicate
	// CauseReplaced is a connection or a session that made room for a newer one of the peer's.
	CauseReplaced
	// CauseClosed is a StopCCN or CDN for no particular reason.
	CauseClosed
	// CauseShutdown is an end that is being shut down.
	CauseShutdown
	// CauseConfiguration is a change of the configuration here.
	CauseConfiguration
	// CauseTimeout is something that was not established in time.
	CauseTimeout
	// CauseProtocol is a message that the protocol does not allow, or not then.
	CauseProtocol
	// CauseType is a pseudowire type that one end does not carry, or has otherwise configured.
	CauseType
	// CauseMismatch is a parameter that both ends have to agree on, and do not: MTU,
	// sublayer, sequencing, DiffServ.
	CauseMismatch
	// CauseUnknown is a session that the other end does not have (yet).
	CauseUnknown
	// CauseDataPlane is a session that a data plane refused.
	CauseDataPlane
	// CauseConnection is a session without a control connection.
	CauseConnection
	// CauseCircuit is an attachment circuit that is not active.
	CauseCircuit
	causeKinds
)

var causeKindNames = []string{
	"", "waiting", "peer-silent", "secret", "not-authorized", "wrong-name", "duplicate", "replaced", "closed", "shutdown",
	"configuration", "timeout", "protocol-error", "wrong-type", "mismatch", "unknown-to-peer", "data-plane", "no-connection",
	"circuit",
}

// String is the kind's name.
func (k CauseKind) String() string { return name(causeKindNames, uint8(k)) }

// MarshalText is String.
func (k CauseKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a name; one of another version is CauseNone.
func (k *CauseKind) UnmarshalText(b []byte) error {
	*k = CauseKind(max(0, slices.Index(causeKindNames, string(b))))
	return nil
}

// Party is an end of a control connection.
type Party uint8

const (
	Nobody Party = iota
	Here
	Peer
)

var partyNames = []string{"", "here", "peer"}

// String is the party's name.
func (p Party) String() string { return name(partyNames, uint8(p)) }

// MarshalText is String.
func (p Party) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name; one of another version is Nobody.
func (p *Party) UnmarshalText(b []byte) error {
	*p = Party(max(0, slices.Index(partyNames, string(b))))
	return nil
}

// stopCCNKinds and cdnKinds are what Result Codes tell of.
var stopCCNKinds = map[uint16]CauseKind{
	l2tpv3.StopCCNError:         CauseProtocol,
	l2tpv3.StopCCNExists:        CauseDuplicate,
	l2tpv3.StopCCNNotAuthorized: CauseNotAuthorized,
	l2tpv3.StopCCNVersion:       CauseProtocol,
	l2tpv3.StopCCNShutdown:      CauseShutdown,
	l2tpv3.StopCCNStateMachine:  CauseProtocol,
	l2tpv3.StopCCNDS:            CauseMismatch,
}

var cdnKinds = map[uint16]CauseKind{
	l2tpv3.CDNCircuitLost:            CauseCircuit,
	l2tpv3.CDNError:                  CauseProtocol,
	l2tpv3.CDNTemporarilyUnavailable: CauseDataPlane,
	l2tpv3.CDNPermanentlyUnavailable: CauseMismatch,
	l2tpv3.CDNTimeout:                CauseTimeout,
	l2tpv3.CDNSessionDS:              CauseMismatch,
	l2tpv3.CDNTieBreakerLost:         CauseDuplicate,
	l2tpv3.CDNPseudowireType:         CauseType,
	l2tpv3.CDNSequencing:             CauseMismatch,
	l2tpv3.CDNStateMachine:           CauseProtocol,
	l2tpv3.CDNMTU:                    CauseMismatch,
	l2tpv3.CDNNoForwarder:            CauseUnknown,
	l2tpv3.CDNForwarderNotAuthorized: CauseNotAuthorized,
	l2tpv3.CDNBoundToOtherPeer:       CauseNotAuthorized,
	l2tpv3.CDNBoundToOtherCircuit:    CauseNotAuthorized,
	l2tpv3.CDNSequencingNotSupported: CauseMismatch,
}

// Error Messages of this implementation that tell more than their Result Code.
const (
	noSecretText  = "no secret is configured here"
	otherNameText = "that host name belongs to another tunnel"
)

// resultCause is what a StopCCN or CDN with a result, of one of the ends, tells of.
func resultCause(t l2tpv3.MessageType, r l2tpv3.ResultCode, by Party) Cause {
	c := Cause{Kind: CauseClosed, By: by, Message: t, Result: r.Shortened()}
	kinds := stopCCNKinds
	if t == l2tpv3.CDN {
		kinds = cdnKinds
	}
	switch {
	case r.Result == 0:
		c.Result = l2tpv3.ResultCode{}
	case r.Message == noSecretText:
		c.Kind = CauseSecret
	case r.Message == otherNameText:
		c.Kind = CauseName
	case kinds[r.Result] != CauseNone:
		c.Kind = kinds[r.Result]
	}
	return c
}

// messageOf is the type of a message, 0 if there is none.
func messageOf(m *l2tpv3.Message) l2tpv3.MessageType {
	if m == nil {
		return 0
	}
	t, _ := m.Type()
	return t
}

// refusal is what is wrong with a message of the peer's that is answered with a result.
func refusal(t l2tpv3.MessageType, in l2tpv3.ResultCode, m *l2tpv3.Message) Cause {
	c := resultCause(t, in, Here)
	if kind := messageOf(m); kind != 0 {
		c.Message = kind
	}
	return c
}

// cause is what an event that leads to a step tells of, where what came with it
// does not say.
func (ev connectionEvent) cause(step connectionStep, in *input) Cause {
	switch {
	case in.cause.Kind != CauseNone:
		return in.cause
	case step.action == sendSCCRQ:
		return Cause{Kind: CauseWaiting, Message: l2tpv3.SCCRQ}
	case step.action == sendSCCRP:
		return Cause{Kind: CauseWaiting, Message: l2tpv3.SCCRP}
	}
	switch ev {
	case peerSilent:
		return Cause{Kind: CauseSilent, By: Here}
	case tieLost, tieEqual:
		return Cause{Kind: CauseDuplicate, Message: l2tpv3.SCCRQ}
	case closeConnection:
		c := resultCause(l2tpv3.StopCCN, in.result, Here)
		if c.Kind == CauseClosed {
			c.Kind = CauseConfiguration
		}
		return c
	case halfOpenTooLong:
		c := resultCause(l2tpv3.StopCCN, in.result, Here)
		c.Kind = CauseTimeout
		return c
	}
	if step.action == stop || step.action == refuse {
		return refusal(l2tpv3.StopCCN, in.result, in.m)
	}
	return Cause{}
}

func (ev sessionEvent) cause(step sessionStep, in *sessionInput) Cause {
	switch {
	case in.cause.Kind != CauseNone:
		return in.cause
	case step.action == sendICRQ:
		return Cause{Kind: CauseWaiting, Message: l2tpv3.ICRQ}
	case step.action == sendICRP || step.action == switchRole:
		return Cause{Kind: CauseWaiting, Message: l2tpv3.ICRP}
	}
	switch ev {
	case receiveCDN:
		return resultCause(l2tpv3.CDN, in.result, Peer)
	case icrqTieLost, icrqTieEqual, icrqNoTieBreaker:
		return Cause{Kind: CauseDuplicate, Message: l2tpv3.ICRQ}
	case installFailed:
		c := resultCause(l2tpv3.CDN, in.result, Here)
		c.Kind = CauseDataPlane
		return c
	case sessionTooLong:
		c := resultCause(l2tpv3.CDN, in.result, Here)
		c.Kind = CauseTimeout
		return c
	case callLocal, connectionGone:
		return Cause{Kind: CauseConnection}
	case closeSession:
		return Cause{Kind: CauseConfiguration, By: Here, Message: l2tpv3.CDN, Result: in.result.Shortened()}
	}
	if step.action == disconnect || step.action == cleanUp {
		return refusal(l2tpv3.CDN, in.result, in.m)
	}
	return Cause{}
}
