package control

import (
	"bytes"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// tie is how a tie ends: of two connections (Section 5.4.3) or of two sessions
// (Section 5.4.4). The rules are the same but for noBreaker.
type tie uint8

const (
	wins tie = iota
	loses
	// equal: both are discarded and begin again with new values.
	equal
	// noBreaker: neither wants to break it. Two connections are opened; of two
	// sessions both are torn down.
	noBreaker
)

func (t tie) String() string {
	return name([]string{"win", "lose", "equal", "no tie breaker"}, uint8(t))
}

// breakTie compares our value with the peer's; nil is absent. "The lower value
// wins"; as everything on the wire they are unsigned and in network byte order
// (Section 3.2). If only one is there, its sender wins.
func breakTie(ours, peers *l2tpv3.TieBreaker) tie {
	switch {
	case ours == nil && peers == nil:
		return noBreaker
	case peers == nil:
		return wins
	case ours == nil:
		return loses
	}
	switch bytes.Compare(ours[:], peers[:]) {
	case -1:
		return wins
	case 1:
		return loses
	}
	return equal
}

// tieBreaker is the value in a request; nil if there is none.
func tieBreaker(m *l2tpv3.Message) *l2tpv3.TieBreaker {
	if v, ok := l2tpv3.Find[l2tpv3.TieBreaker](m); ok {
		return &v
	}
	return nil
}
