package control

import (
	"math"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// errorsEvery is how often a peer is told of errors on a circuit, at most (Section 6.13).
const errorsEvery = time.Minute

// circuitErrors are those of a session's circuits, ours and the peer's, since the
// session was established. Sessions without any have none of it.
type circuitErrors struct {
	Local, Remote l2tpv3.CircuitErrors
	// due says that there are some that the peer has not been told of; it may be told
	// from next on.
	due  bool
	next time.Time
}

// CountErrors adds to the errors that the local circuit of a session has had. The
// peer of an established one is told, by a WEN, which goes "from an LAC to an LNS":
// from an LCCE with a circuit to the other, so that both send it where both are
// LACs (Section 6.13).
func (e *Endpoint) CountErrors(now time.Time, tunnel, name string, more l2tpv3.CircuitErrors) {
	e.now = now
	t := e.tunnels[tunnel]
	if t == nil || t.sessions[name] == nil || more == (l2tpv3.CircuitErrors{}) {
		return
	}
	s := t.sessions[name]
	if s.state != SessionEstablished {
		return // "The counters are reset when a new call is established."
	}
	defer e.settle()
	if s.circuitErrors == nil {
		s.circuitErrors = &circuitErrors{}
	}
	sum := &s.circuitErrors.Local
	for _, c := range []struct {
		sum  *uint32
		more uint32
	}{
		{&sum.CRC, more.CRC}, {&sum.Framing, more.Framing}, {&sum.HardwareOverruns, more.HardwareOverruns},
		{&sum.BufferOverruns, more.BufferOverruns}, {&sum.Timeouts, more.Timeouts}, {&sum.Alignment, more.Alignment},
	} {
		*c.sum += min(c.more, math.MaxUint32-*c.sum)
	}
	s.circuitErrors.due = true
	if !now.Before(s.circuitErrors.next) {
		s.tellErrors(now)
	}
	s.changed()
}

// errorsDue is when the peer is to be told; zero if there is nothing new.
func (s *session) errorsDue() time.Time {
	if s.circuitErrors == nil || !s.circuitErrors.due {
		return time.Time{}
	}
	return s.circuitErrors.next
}

// tellErrors sends WEN. The counters are cumulative, so that one that waits for its
// turn is replaced.
func (s *session) tellErrors(now time.Time) {
	s.circuitErrors.due, s.circuitErrors.next = false, now.Add(errorsEvery)
	s.send(l2tpv3.WEN, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), s.circuitErrors.Local)
}

// takeErrors follows a WEN.
func (s *session) takeErrors(m *l2tpv3.Message) {
	s.errors++
	if v, ok := l2tpv3.Find[l2tpv3.CircuitErrors](m); ok {
		if s.circuitErrors == nil {
			s.circuitErrors = &circuitErrors{}
		}
		v.Reserved, v.Short = 0, false
		s.circuitErrors.Remote = v
	}
	s.changed()
}

// errorsState is what is saved of it. An announcement that is due is made again a
// while after the restart.
type errorsState struct {
	Local  l2tpv3.CircuitErrors `json:"local,omitzero"`
	Remote l2tpv3.CircuitErrors `json:"remote,omitzero"`
	Due    bool                 `json:"due,omitempty"`
	Next   time.Duration        `json:"next,omitempty"`
}

func (s *session) saveErrors() *errorsState {
	c := s.circuitErrors
	if c == nil || s.state != SessionEstablished {
		return nil // those of a session that is over are nobody's
	}
	return &errorsState{Local: c.Local, Remote: c.Remote, Due: c.due, Next: s.e.left(c.next)}
}

func (e *Endpoint) restoreErrors(s *errorsState) *circuitErrors {
	if s == nil {
		return nil
	}
	c := &circuitErrors{Local: s.Local, Remote: s.Remote, due: s.Due}
	if s.Next > 0 {
		c.next = e.resume(s.Next, errorsEvery)
	}
	return c
}
