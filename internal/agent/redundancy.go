package agent

import (
	"fmt"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// redundancy decides which of a pseudowire's tunnels carries its frames. It is a pure
// state machine: look tells it how they are, and when.
//
// One end leads: it chooses a tunnel, and says so by the standby bit (RFC 5641, Section
// 2) on the sessions of all others. The other end follows: it clears the bit on the session
// where the leader has cleared it last. Frames go where neither end has it set.
//
// A follower for which no chosen session works takes another by itself. To the leader
// that is a request: a session without the bit that it has not chosen. It may as well be an
// answer that is still on its way, so it counts only some time after the leader's own choice.
//
// Where there is one that is left neither end sets the bit on it before both
// have gone over, so that nothing is lost.
type redundancy struct {
	leads, foreign, revertive bool
	hold                      time.Duration
	standings                 []standing
	// chosen is the one to be used, leaving the one that was, until both have gone over; -1 is none.
	chosen, leaving int
	// began is when the machine did, switched when it chose, why the reason.
	began, switched time.Time
	why             string
}

// standing is what the machine remembers of a tunnel.
type standing struct {
	sight
	// since is when works became what it is, namedSince when named did.
	since, namedSince time.Time
	// failed says that it has before; failures are those that came soon after it had
	// come back from the one before.
	failed   bool
	failures int
	// seen says that it was looked at before.
	seen bool
}

// sight is how one of the tunnels, with its session, is at the moment.
type sight struct {
	// works says that frames would get through: why not is in why. drained says that
	// somebody wants it not to be used.
	works, drained bool
	why            string
	// named says that the peer has it not in standby.
	named bool
	// deaf says that nothing was heard over it for too long.
	deaf bool
	// hello is the tunnel's interval.
	hello time.Duration
}

const (
	// startGrace is how long the first tunnel is waited for at the beginning.
	startGrace = 3 * time.Second
	// settleTime is how long the peer may take to follow.
	settleTime = 3 * time.Second
	// staleTime is how long what it said before a tunnel failed may be out of date.
	staleTime = 30 * time.Second
	// maxFailures bounds how often the time before a return is doubled; after steady
	// times that a failure is no longer one of a series.
	maxFailures = 5
	steady      = 10
)

func newRedundancy(now time.Time, tunnels int) *redundancy {
	r := &redundancy{standings: make([]standing, tunnels), chosen: -1, leaving: -1, began: now}
	for i := range r.standings {
		r.standings[i].since = now
	}
	return r
}

// silent says that a tunnel whose peer was last heard then has failed: a HELLO is sent
// after one interval (RFC 3931, Section 4.4), and this leaves time to repeat it.
func silent(now, heard time.Time, hello time.Duration) bool {
	return now.Sub(heard) >= 5*hello/2
}

// withdrawn says that the peer does not want a session used, with which nothing is wrong:
// it is in standby, not active, and has no fault.
func withdrawn(remote l2tpv3.CircuitStatus) bool {
	return remote&(l2tpv3.CircuitStandby|l2tpv3.CircuitActive|l2tpv3.CircuitFaults) == l2tpv3.CircuitStandby
}

// standby says whether our end of a session has the standby bit.
func (r *redundancy) standby(i int) bool { return i != r.chosen && i != r.leaving }

// inUse says that neither end has put a session in standby, and it works.
func (r *redundancy) inUse(i int) bool {
	return i >= 0 && !r.standby(i) && r.standings[i].works && r.standings[i].named
}

// settling says that the peer may not have followed the last choice yet.
func (r *redundancy) settling(now time.Time) bool {
	return r.chosen >= 0 && r.standings[r.chosen].works && now.Sub(r.switched) < settleTime
}

// look takes in how the tunnels are and decides; it reports whether another one was chosen.
func (r *redundancy) look(now time.Time, sights []sight) bool {
	for i := range r.standings {
		r.standings[i].see(now, sights[i], r.hold)
	}
	before := r.chosen
	if r.leads {
		r.lead(now)
	} else {
		r.follow(now)
	}
	r.release(now)
	return r.chosen != before
}

func (s *standing) see(now time.Time, v sight, hold time.Duration) {
	if s.works && !v.works {
		if s.failed && now.Sub(s.since) < steady*s.wait(hold) {
			s.failures = min(s.failures+1, maxFailures)
		} else {
			s.failures = 0
		}
		s.failed = true
	}
	if s.works != v.works {
		s.since = now
	}
	if s.named != v.named && s.seen {
		s.namedSince = now
	}
	s.sight, s.seen = v, true
}

// wait is how long the tunnel has to work before it is taken again.
func (s *standing) wait(hold time.Duration) time.Duration {
	if s.failures > 0 {
		hold = max(hold, time.Second)
	}
	return hold << s.failures
}

func (s *standing) usable() bool { return s.works && !s.drained }

// usable says whether a tunnel can be used.
func (r *redundancy) usable(i int) bool { return i >= 0 && r.standings[i].usable() }

// first is the first tunnel that can be used, -1 if none can.
func (r *redundancy) first() int {
	for i := range r.standings {
		if r.usable(i) {
			return i
		}
	}
	return -1
}

// best is the first that has worked for long enough, else the first that works.
func (r *redundancy) best(now time.Time) int {
	for i := range r.standings {
		if s := &r.standings[i]; s.usable() && now.Sub(s.since) >= s.wait(r.hold) {
			return i
		}
	}
	return r.first()
}

func (r *redundancy) lead(now time.Time) {
	if r.chosen < 0 {
		if i := r.first(); i == 0 || i > 0 && now.Sub(r.began) >= startGrace {
			r.choose(now, i, r.insteadOf(0, "it is the active one"))
		}
		return
	}
	if !r.usable(r.chosen) {
		r.fail(now)
		return
	}
	if i := r.requested(now); i >= 0 {
		// What does not work at the peer's end has failed, whatever it looks like here.
		left := &r.standings[r.chosen]
		left.since, left.failures = now, min(left.failures+1, maxFailures)
		r.choose(now, i, "the peer asks for it")
		return
	}
	if !r.revertive {
		return
	}
	for i := range r.chosen {
		if s := &r.standings[i]; s.usable() && now.Sub(s.since) >= s.wait(r.hold) {
			r.choose(now, i, fmt.Sprintf("it has worked for %v again", now.Sub(s.since).Round(time.Second/10)))
			return
		}
	}
}

// fail goes on from a tunnel that can no longer be used. Without another one it is
// left only if that is wanted.
func (r *redundancy) fail(now time.Time) {
	if i := r.best(now); i >= 0 {
		r.choose(now, i, r.standings[r.chosen].why)
	} else if r.standings[r.chosen].drained {
		r.choose(now, -1, r.standings[r.chosen].why)
		r.leaving = -1
	}
}

// insteadOf says why a tunnel was not chosen, or otherwise.
func (r *redundancy) insteadOf(i int, otherwise string) string {
	if r.usable(i) {
		return otherwise
	}
	return r.standings[i].why
}

// requested is a tunnel that a following peer wants to be used, -1 if there is none.
func (r *redundancy) requested(now time.Time) int {
	if r.foreign || now.Sub(r.switched) < settleTime {
		return -1
	}
	for i := range r.standings {
		s := &r.standings[i]
		ask := min(max(s.hello/4, time.Second/10), settleTime)
		// What the peer said before the tunnel failed it may have taken back, and that is on its way.
		if s.namedSince.Before(s.since) {
			ask = staleTime
		}
		if i != r.chosen && s.usable() && s.named && now.Sub(s.since) >= ask && now.Sub(s.namedSince) >= ask {
			return i
		}
	}
	return -1
}

func (r *redundancy) follow(now time.Time) {
	switch i := r.namedLast(); {
	case i >= 0:
		if i != r.chosen {
			r.choose(now, i, "the peer has chosen it")
		}
	case r.usable(r.chosen):
	case r.chosen >= 0:
		r.fail(now)
	case now.Sub(r.began) >= 2*startGrace && r.first() >= 0:
		r.choose(now, r.first(), "the peer has chosen none that works")
	}
}

// namedLast is the usable tunnel that the peer has taken out of standby last, -1 if
// there is none.
func (r *redundancy) namedLast() int {
	last := -1
	for i := range r.standings {
		s := &r.standings[i]
		switch {
		case !s.usable() || !s.named:
		case last < 0, s.namedSince.After(r.standings[last].namedSince),
			i == r.chosen && s.namedSince.Equal(r.standings[last].namedSince):
			last = i
		}
	}
	return last
}

func (r *redundancy) choose(now time.Time, i int, why string) {
	if r.chosen >= 0 {
		r.leaving = r.chosen
	}
	if r.leaving == i {
		r.leaving = -1
	}
	r.chosen, r.switched, r.why = i, now, why
}

// release puts what is left in standby once it is not needed any more: both ends have gone
// over; a follower waits until the leader says so. What does not work is kept so long, too:
// without a session out of standby the device would have no carrier, and bridges take up
// to a second to notice that it has one again. Nor is it left with the choice itself, where the peer has
// gone over already: nothing may be sent over the other one before that is signalled.
func (r *redundancy) release(now time.Time) {
	if r.leaving < 0 || r.switched.Equal(now) {
		return
	}
	s := &r.standings[r.leaving]
	over := r.inUse(r.chosen)
	if over && (r.leads || !s.named || !s.works) || !s.works && now.Sub(r.switched) >= settleTime {
		r.leaving = -1
	}
}

// adopt takes up what was signalled before: the session that is not in standby.
func (r *redundancy) adopt(i int) {
	r.chosen, r.why = i, "it was used before"
}
