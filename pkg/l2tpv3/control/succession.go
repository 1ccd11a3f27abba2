package control

import (
	"bytes"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// label is what tells a session's packets from others', in both directions (RFC 3931,
// Section 4.1).
type label struct {
	LocalID uint32 `json:"localID"`
	// RemoteID is 0 as long as the peer has not told it.
	RemoteID     uint32 `json:"remoteID,omitempty"`
	LocalCookie  []byte `json:"localCookie"`
	RemoteCookie []byte `json:"remoteCookie,omitempty"`
}

// succession is a session's going over to another label, for data planes that cannot give a
// session another cookie. There are two of the session for a while, and no frame is lost:
//
//	offer  each end tells what it will receive: an SLI to the session as it is, from a Local
//	       Session ID that the peer does not know, with the cookie that goes with it
//	ready  an end that has heard both halves receives by the new label, too, and says so:
//	       an SLI from the new to the new Session ID
//	gone   an end that hears that the peer is ready sends by the new label, and says so with
//	       another SLI. One that hears it forgets the old one when nothing is under way any more
//
// All have an Assigned Cookie AVP, which others ignore in an SLI. After it has said that it is ready
// an end cannot go back by itself: the peer may send by the new label. If the data plane refuses
// it, an SLI with the cookie that the session has had all along says that the end stays, and
// the peer follows.
type succession struct {
	// next is what the session goes over to, past what it has gone over from: nil is none.
	next, past *label
	// followed says that the peer has gone over, too.
	followed bool
	// until is for how long the peer is waited for to make its offer, and what is
	// under way after it has followed.
	until time.Time
}

// under says that the session has another label.
func (x *succession) under() bool { return x.next != nil || x.past != nil }

// unanswered says that the peer has made no offer in time. It may still do so.
func (x *succession) unanswered() bool {
	return x.next != nil && x.next.RemoteID == 0 && x.until.IsZero()
}

// awaits says that the peer has not said yet that it has gone over.
func (x *succession) awaits() bool {
	return x.next != nil && !x.unanswered() || x.past != nil && !x.followed
}

func (s *session) canSucceed() bool {
	return s.cfg.CanSucceed && len(s.localCookie) > 0 &&
		(s.cfg.CanSublayer || s.receive == l2tpv3.SublayerNone && s.wishes.Sublayer == l2tpv3.SublayerNone)
}

func (s *session) label() label { return label{s.localID, s.remoteID, s.localCookie, s.remoteCookie} }

func (s *session) setLabel(l *label) {
	s.localID, s.remoteID, s.localCookie, s.remoteCookie = l.LocalID, l.RemoteID, l.LocalCookie, l.RemoteCookie
	// The data plane knows nothing of it as the one that carries.
	s.installed, s.change = new(dataPlane), cookieChange{}
	s.install()
}

// say sends an SLI of the succession.
func (s *session) say(local, remote uint32, cookie []byte) {
	s.t.conn.push(l2tpv3.SLI, l2tpv3.LocalSessionID(local), l2tpv3.RemoteSessionID(remote), l2tpv3.AssignedCookie(cookie))
}

// offerNext draws our half of the next label, if there is none, and offers it.
func (s *session) offerNext() {
	x := &s.succession
	if x.next == nil {
		x.next = &label{LocalID: s.e.newSessionID(), LocalCookie: make([]byte, len(s.localCookie))}
		s.e.random(x.next.LocalCookie)
		s.e.sessions[x.next.LocalID] = s
	}
	x.until = s.limit()
	s.say(x.next.LocalID, s.remoteID, x.next.LocalCookie)
	s.changed()
}

// takeSuccession follows an SLI with a cookie, if that is about a succession.
func (s *session) takeSuccession(m *l2tpv3.Message, cookie []byte) bool {
	to, _ := l2tpv3.Find[l2tpv3.RemoteSessionID](m)
	from, _ := l2tpv3.Find[l2tpv3.LocalSessionID](m)
	local, remote := uint32(to), uint32(from)
	x := &s.succession
	switch {
	case s.state != SessionEstablished || !s.t.conn.ours():
		return false
	case remote == 0:
		return true // nothing that an end of this implementation says
	case x.next != nil && local == x.next.LocalID:
		if remote == x.next.RemoteID {
			s.goOver()
		}
	case x.past != nil && local == x.past.LocalID:
		s.goBack()
	case remote != s.remoteID:
		s.takeOffer(remote, cookie)
	case x.past != nil && !x.followed:
		x.followed, x.until = true, s.e.now.Add(packetsUnderWay)
	case bytes.Equal(cookie, s.remoteCookie) && !s.change.waiting:
		if x.next != nil {
			s.forgetNext()
			s.moved(s.state, s.t.peer()+" cannot go over to a new cookie, the old one stays")
		}
	case x.next != nil && bytes.Equal(cookie, x.next.LocalCookie):
		// A version that knows no succession took the cookie of our offer for one of the session as it is: it is told to take
		// the session's own again.
		s.forgetNext()
		s.sendCookie(s.localCookie)
		s.moved(s.state, s.t.peer()+" has a version that cannot go over to a new cookie, the old one stays")
	case x.next != nil:
		// A cookie that the peer wanted to change by itself: it gives that up for our offer.
	default:
		return false
	}
	s.changed()
	return true
}

// takeOffer takes the peer's half of the next label. An end that was not about to go over
// makes its own offer; one that cannot says that it stays.
func (s *session) takeOffer(remote uint32, cookie []byte) {
	x := &s.succession
	switch {
	case !s.canSucceed() || len(cookie) != len(s.remoteCookie) || x.past != nil && !x.followed:
		s.say(s.localID, s.remoteID, s.localCookie)
		return
	case x.next != nil && x.next.RemoteID != 0:
		return // one at a time: an end says that it stays before it makes another offer
	}
	if s.change.waiting { // the peer cannot follow that
		s.localCookie, s.change = s.change.previous, cookieChange{}
		s.reinstall()
	}
	s.forgetPast()
	if x.next == nil {
		s.offerNext()
	}
	x.next.RemoteID, x.next.RemoteCookie, x.until = remote, slices.Clone(cookie), time.Time{}
	s.installBeside(x.next)
	s.say(x.next.LocalID, x.next.RemoteID, x.next.LocalCookie)
}

// installBeside has the data plane receive by another label, too.
func (s *session) installBeside(l *label) {
	out := s.dataPlane(*l)
	out.Beside = s.localID
	emit(&s.e.outputs, &s.e.outputs.install, out)
}

// goOver has the session be the next one; what the peer still sends by the label that it has
// had is received.
func (s *session) goOver() {
	x, was := &s.succession, s.label()
	next := x.next
	*x = succession{past: &was}
	s.setLabel(next)
	s.installBeside(x.past)
	s.say(s.localID, s.remoteID, s.localCookie)
}

// goBack follows a peer that stays with the label before.
func (s *session) goBack() {
	x, failed := &s.succession, s.label()
	was := x.past
	*x = succession{}
	s.setLabel(was)
	s.forgetLabel(&failed)
	// What was told of the circuit meanwhile the peer has not understood.
	s.send(l2tpv3.SLI, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), s.status())
	s.moved(s.state, s.t.peer()+" cannot go over to a new cookie, the old one stays")
}

// otherFailed follows a data plane that cannot receive by another label.
func (s *session) otherFailed(localID uint32, err error) {
	if n := s.succession.next; n == nil || n.LocalID != localID {
		return // nothing more is sent by that of before
	}
	s.forgetNext()
	s.say(s.localID, s.remoteID, s.localCookie)
	s.moved(s.state, "the data plane refused a new cookie, the old one stays: "+err.Error())
}

// endSuccession follows the end of a wait.
func (s *session) endSuccession() {
	x := &s.succession
	x.until = time.Time{}
	switch {
	case x.past != nil:
		s.forgetPast()
	case !s.t.conn.rel.idle():
		x.until = s.limit()
	default:
		s.moved(s.state, s.t.peer()+" has not gone over to a new cookie, the old one stays")
	}
	s.changed()
}

func (s *session) forgetNext() {
	if x := &s.succession; x.next != nil {
		s.forgetLabel(x.next)
		x.next, x.until = nil, time.Time{}
	}
}

func (s *session) forgetPast() {
	if x := &s.succession; x.past != nil {
		s.forgetLabel(x.past)
		*x = succession{next: x.next}
	}
}

// forgetOthers forgets all labels but the one that the session has.
func (s *session) forgetOthers() {
	s.forgetNext()
	s.forgetPast()
	s.succession = succession{}
}

func (s *session) forgetLabel(l *label) {
	if l.RemoteID != 0 {
		emit(&s.e.outputs, &s.e.outputs.remove, RemoveSession{Tunnel: s.cfg.Tunnel, Name: s.cfg.Name, LocalID: l.LocalID})
	}
	delete(s.e.sessions, l.LocalID)
}

// sensibleSuccession says whether saved labels can be those of an established session.
func (s *sessionState) sensibleSuccession(e *Endpoint) bool {
	for _, l := range []*label{s.Next, s.Past} {
		if l == nil {
			continue
		}
		want := len(s.RemoteCookie)
		if l.RemoteID == 0 {
			want = 0
		}
		if s.State != SessionEstablished || l.LocalID == 0 || l.LocalID == s.LocalID || e.sessions[l.LocalID] != nil ||
			len(l.LocalCookie) != len(s.LocalCookie) || len(l.RemoteCookie) != want {
			return false
		}
	}
	return (s.Next == nil || s.Past == nil) && (s.Past == nil || s.Past.RemoteID != 0) && (s.Past != nil || !s.Followed)
}

// restoreSuccession takes up what was saved.
func (s *session) restoreSuccession(from *sessionState) {
	x := &s.succession
	*x = succession{next: from.Next, past: from.Past, followed: from.Followed}
	for _, l := range []*label{x.next, x.past} {
		if l == nil {
			continue
		}
		s.e.sessions[l.LocalID] = s
		if l.RemoteID != 0 {
			s.installBeside(l)
		}
	}
	if from.Succession > 0 && x.under() {
		s.succession.until = s.e.resume(from.Succession, s.limit().Sub(s.e.now))
	}
}
