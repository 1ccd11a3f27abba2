package control

// Cause is what kind of thing a reason tells of, for those who decide by it.
type Cause uint8

const (
	// CauseNone is the regular course of things, or our own decision.
	CauseNone Cause = iota
	// CauseSilent is a peer that does not answer.
	CauseSilent
	// CauseSecret is a peer whose messages do not fit the secrets here.
	CauseSecret
	// CauseStopped is a StopCCN or CDN of the peer's.
	CauseStopped
	// CauseUnknown is a CDN of a peer that does not have the session (yet).
	CauseUnknown
	// CauseRefused is something of the peer's that is refused here.
	CauseRefused
	// CauseTie is a lost tie: the peer's own attempt goes on.
	CauseTie
	// CauseReplaced is a connection that made room for a newer one of the peer's.
	CauseReplaced
	// CauseDataPlane is a session that the data plane refused.
	CauseDataPlane
	// CauseConnection is a session whose control connection is gone.
	CauseConnection
)

func (e connectionEvent) cause() Cause {
	switch e {
	case peerSilent:
		return CauseSilent
	case receiveStopCCN:
		return CauseStopped
	case tieLost, tieEqual:
		return CauseTie
	case requestUnacceptable, receiveSCCRPUnacceptable, receiveSCCCNUnacceptable, receiveInvalid:
		return CauseRefused
	}
	return CauseNone
}

func (e sessionEvent) cause() Cause {
	switch e {
	case receiveCDN:
		return CauseStopped
	case receiveICRQUnacceptable, receiveICRPUnacceptable, receiveICCNUnacceptable, receiveInvalidSession:
		return CauseRefused
	case icrqTieLost, icrqTieEqual, icrqNoTieBreaker:
		return CauseTie
	case installFailed:
		return CauseDataPlane
	case connectionGone:
		return CauseConnection
	}
	return CauseNone
}
