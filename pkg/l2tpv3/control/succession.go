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
//	ready  an end that has heard both halves receives by the new label, too, and says so once its
//	       data plane does (Installed): an SLI from the new to the new Session ID
//	gone   an end that is ready and hears that the peer is sends by the new label, and says so once
//	       its data plane does with another SLI. One that hears it forgets the old one when
//	       nothing is under way any more
//	stay   an end that cannot go on sends by the old label again, or still, and says so: an SLI from the
//	       old ID with the old cookie. The peer follows. Both receive by the new one until nothing
//	       is under way any more
//
// All have an Assigned Cookie AVP, which others ignore in an SLI. Each wait has an end: after an offer
// nothing else has changed, before its "gone" an end says that it stays. After it there is no way back: the
// peer may have forgotten the old label. An end that hears no more then has the session begin anew.
type succession struct {
	// next is what the session goes over to, past what it has gone over from: nil is none.
	next, past *label
	// said says that the peer has been told all that there is to tell: of next that it is received by,
	// of past that nothing is sent by it any more. Both wait for the data plane.
	said bool
	// heard says that the peer is ready.
	heard bool
	// followed says that the peer has gone over, too.
	followed bool
	// returned says that past is what the session has come back from, not what it was before.
	returned bool
	// until is for how long the peer is waited for, or what is under way.
	until time.Time
	// longer counts how often that was made longer because the peer may still have something to say.
	longer int
	// end is the Ns behind what the peer was told last. Before that is acknowledged, it may send by past.
	end uint16
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

// over says that only packets under way are waited for.
func (x *succession) over() bool { return x.past != nil && x.said && x.followed }

// answer is until when the peer's next word is waited for at first: it is sent again several times until then.
func (s *session) answer() time.Time { return s.e.now.Add(s.e.timers.sum(0, 6)) }

// waits makes a wait that is over longer: as long as the peer has not got what it has to answer, and for a
// while after it has last said something of any session, because what it has to say of many comes one after the other.
func (s *session) waits() bool {
	x, c, until := &s.succession, s.t.conn, s.answer()
	if c.rel.idle() {
		until = c.called.Add(until.Sub(s.e.now))
	}
	if x.longer >= maxPatience || !until.After(s.e.now) {
		return false
	}
	x.longer++
	x.until = until
	return true
}

// mark notes what the peer has to have got before past is over.
func (s *session) mark() {
	if c := s.t.conn; c != nil {
		s.succession.end = c.rel.first + uint16(len(c.rel.queue))
	}
}

// marked says that it has.
func (s *session) marked() bool { return int16(s.succession.end-s.t.conn.rel.first) <= 0 }

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
	s.mark()
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
			x.heard = true
			s.goOver()
		}
	case x.past != nil && local == x.past.LocalID:
		if !x.returned { // of that one nothing is news
			s.goBack(s.peerStays())
		}
	case remote != s.remoteID:
		s.takeOffer(remote, cookie)
	case x.past != nil && !x.followed && bytes.Equal(cookie, s.remoteCookie):
		if x.followed = true; x.said {
			x.until = s.e.now.Add(packetsUnderWay)
		}
	case bytes.Equal(cookie, s.remoteCookie) && !s.change.waiting:
		if x.next != nil {
			s.leaveNext()
			s.moved(s.state, s.peerStays())
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

func (s *session) peerStays() string {
	return s.t.peer() + " cannot go over to a new cookie, the old one stays"
}

// takeOffer takes the peer's half of the next label. An end that was not about to go over
// makes its own offer; one that cannot says that it stays.
func (s *session) takeOffer(remote uint32, cookie []byte) {
	x := &s.succession
	switch {
	case !s.canSucceed() || len(cookie) != len(s.remoteCookie) || x.past != nil && !x.over():
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
	x.next = &label{x.next.LocalID, remote, x.next.LocalCookie, slices.Clone(cookie)} // what was saved is not changed
	x.until, x.longer = s.answer(), 0
	s.installBeside(x.next)
}

// installBeside has the data plane receive by another label, too.
func (s *session) installBeside(l *label) {
	out := s.dataPlane(*l)
	out.Beside = s.localID
	emit(&s.e.outputs, &s.e.outputs.install, out)
}

// Installed says that the data plane has carried out an InstallSession: the peer is told then what
// it may rely on. Of InstallSessions that nothing waits for it changes nothing.
func (e *Endpoint) Installed(now time.Time, out *InstallSession) {
	s := e.sessions[out.LocalID]
	if s == nil || !s.succession.under() || s.succession.said {
		return
	}
	e.now = now
	defer e.settle()
	switch x := &s.succession; {
	case x.next != nil && out.LocalID == x.next.LocalID && out.Beside != 0:
		x.said = true
		s.say(x.next.LocalID, x.next.RemoteID, x.next.LocalCookie)
		s.goOver()
	case x.past != nil && out.LocalID == s.localID && out.Beside == 0:
		x.said, x.until = true, s.answer()
		if x.followed {
			x.until = e.now.Add(packetsUnderWay)
		}
		s.installBeside(x.past)
		s.say(s.localID, s.remoteID, s.localCookie)
	}
	s.changed()
}

// goOver has the session be the next one if both ends are ready; what the peer still sends by the label that it has
// had is received.
func (s *session) goOver() {
	x, was := &s.succession, s.label()
	if !x.said || !x.heard {
		return
	}
	next := x.next
	// Its own data plane is waited for half as long as the peer: that is to hear in time that this end stays.
	*x = succession{past: &was, until: s.e.now.Add(s.answer().Sub(s.e.now) / 2)}
	s.setLabel(next)
}

// goBack has the session be what it was before it went over. What the peer has sent meanwhile
// by the other label is received.
func (s *session) goBack(reason string) {
	x, failed := &s.succession, s.label()
	was := x.past
	*x = succession{}
	s.setLabel(was)
	s.leave(&failed)
	// What was told of the circuit meanwhile the peer may not have understood.
	s.send(l2tpv3.SLI, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), s.status())
	s.moved(s.state, reason)
}

// leave has a label be received by until nothing by it is under way any more.
func (s *session) leave(l *label) {
	s.succession = succession{past: l, said: true, followed: true, returned: true, until: s.e.now.Add(packetsUnderWay)}
	s.mark()
	s.installBeside(l)
}

// leaveNext ends what the session was about to go over to.
func (s *session) leaveNext() {
	x := &s.succession
	if next := x.next; x.said {
		s.leave(next)
	} else {
		s.forgetNext()
	}
}

// stay has the session be, and stay, what it was, and tells the peer.
func (s *session) stay(reason string) {
	x := &s.succession
	if x.past != nil {
		s.goBack(reason)
	} else {
		s.leaveNext()
		s.moved(s.state, reason)
	}
	s.say(s.localID, s.remoteID, s.localCookie)
}

// succeedFailed follows a data plane that cannot do its part. It is false if the session cannot
// be without that.
func (s *session) succeedFailed(localID uint32, err error) bool {
	const words = "the data plane refused a new cookie, the old one stays: "
	x := &s.succession
	switch {
	case x.next != nil && x.next.LocalID == localID:
		s.forgetNext()
		s.stay(words + err.Error())
	case localID != s.localID: // nothing more is sent by that of before
	case x.past != nil && !x.said:
		s.stay(words + err.Error())
	default:
		return false
	}
	return true
}

// endSuccession follows the end of a wait.
func (s *session) endSuccession() {
	x := &s.succession
	x.until = time.Time{}
	silent := s.t.peer() + " has not gone over to a new cookie, the old one stays"
	switch offered := x.next != nil && x.next.RemoteID == 0; {
	case x.over() && !s.marked():
		x.until = s.e.now.Add(packetsUnderWay)
	case x.over():
		s.forgetPast()
	case x.past != nil && !x.said:
		s.stay("the data plane has not gone over to a new cookie in time, the old one stays")
	case s.waits():
	case offered:
		s.moved(s.state, silent)
	case x.past != nil:
		s.beginAnew()
		return
	default:
		s.stay(silent)
	}
	s.changed()
}

// beginAnew ends a session that the peer may have under either label, or under none.
func (s *session) beginAnew() {
	result := l2tpv3.ResultCode{Result: l2tpv3.CDNStateMachine}
	reason := s.t.peer() + " has not said that it has gone over to a new cookie"
	past := s.succession.past
	s.t.conn.push(l2tpv3.CDN, result.Explained(l2tpv3.CDN, reason), l2tpv3.LocalSessionID(past.LocalID), l2tpv3.RemoteSessionID(past.RemoteID))
	cause := resultCause(l2tpv3.CDN, result, Here)
	cause.Kind = CauseTimeout
	s.handle(closeSession, sessionInput{result: result, reason: reason, cause: cause})
}

func (s *session) forgetNext() {
	if x := &s.succession; x.next != nil {
		s.forgetLabel(x.next)
		*x = succession{past: x.past}
	}
}

func (s *session) forgetPast() {
	if x := &s.succession; x.past != nil {
		s.forgetLabel(x.past)
		*x = succession{}
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
	whole := s.Past != nil || s.Next != nil && s.Next.RemoteID != 0
	return (s.Next == nil || s.Past == nil) && (s.Past == nil || s.Past.RemoteID != 0) && (s.Past != nil || !s.Followed && !s.Returned) &&
		(whole || !s.Said && !s.Heard) && (!s.Returned || s.Said && s.Followed)
}

// restoreSuccession takes up what was saved.
func (s *session) restoreSuccession(from *sessionState) {
	x := &s.succession
	*x = succession{next: from.Next, past: from.Past, said: from.Said, heard: from.Heard, followed: from.Followed, returned: from.Returned}
	s.mark()
	for _, l := range []*label{x.next, x.past} {
		if l == nil {
			continue
		}
		s.e.sessions[l.LocalID] = s
		if l.RemoteID != 0 {
			s.installBeside(l)
		}
	}
	if half := x.next != nil && x.next.RemoteID == 0; x.under() && (from.Succession > 0 || !half) {
		x.until = s.e.resume(from.Succession, s.limit().Sub(s.e.now))
	}
}
