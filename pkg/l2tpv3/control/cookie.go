package control

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// What ChangeCookie refuses.
var (
	ErrNotEstablished = errors.New("control: the session is not established")
	ErrNoCookie       = errors.New("control: the session has no cookie")
	ErrChanging       = errors.New("control: the session's cookie is being changed already")
	ErrCannotChange   = errors.New("control: the data plane cannot change cookies under way")
	ErrPeerCannot     = errors.New("control: the peer is of another implementation, which knows no change of cookies")
)

// cookieChange is a change of the local cookie that is not over.
type cookieChange struct {
	// previous is still accepted, nil if there is no change.
	previous []byte
	// waiting says that the peer has not confirmed yet.
	waiting bool
	// until is when the change is over, one way or the other.
	until time.Time
}

// packetsUnderWay is for how long the previous cookie is accepted after the peer
// has said that it sends the new one.
const packetsUnderWay = 10 * time.Second

// implementation is what Vendor Names of this implementation begin with.
const implementation = "pwd"

// ours reports whether the peer is of this implementation.
func (c *connection) ours() bool {
	return !c.t.cfg.Foreign && strings.HasPrefix(c.peer.VendorName, implementation)
}

// ChangeCookie gives an established session another local cookie, and loses no
// frame: the data plane accepts both until the peer has gone over to the new one.
// Where it cannot change a cookie, the session goes over to other IDs, and other
// cookies in both directions (succession.go).
//
// RFC 3931 assigns a cookie when a session is set up, and has no message for
// another. Between two ends of this implementation it is an Assigned Cookie AVP
// in SLI, which others ignore. The peer's data plane takes it, and its own SLI
// with the same value says so. A peer that does not confirm keeps the old one.
func (e *Endpoint) ChangeCookie(now time.Time, tunnel, name string) error {
	e.now = now
	var s *session
	if t := e.tunnels[tunnel]; t != nil {
		s = t.sessions[name]
	}
	switch {
	case s == nil || s.state != SessionEstablished:
		return ErrNotEstablished
	case len(s.localCookie) == 0:
		return ErrNoCookie
	case !s.cfg.CanChangeCookies && !s.canSucceed():
		return ErrCannotChange
	case !s.t.conn.ours():
		return ErrPeerCannot
	case s.change.previous != nil || s.succession.under() && !s.succession.unanswered():
		return ErrChanging
	}
	defer e.settle()
	if !s.cfg.CanChangeCookies || s.succession.under() {
		s.offerNext()
		return nil
	}
	s.change = cookieChange{previous: s.localCookie, waiting: true, until: s.limit()}
	s.localCookie = make([]byte, len(s.change.previous))
	e.random(s.localCookie)
	s.reinstall()
	s.sendCookie(s.localCookie)
	s.changed()
	return nil
}

// sendCookie tells the peer a cookie. Nothing newer takes the message's place.
func (s *session) sendCookie(cookie []byte) {
	s.t.conn.push(l2tpv3.SLI, l2tpv3.LocalSessionID(s.localID), l2tpv3.RemoteSessionID(s.remoteID), l2tpv3.AssignedCookie(cookie))
}

// takeCookie follows an SLI with a cookie: the confirmation of ours, or a new one
// of the peer's.
func (s *session) takeCookie(cookie []byte) {
	switch {
	case s.state != SessionEstablished || !s.t.conn.ours():
	case s.change.waiting && bytes.Equal(cookie, s.localCookie):
		s.change.waiting, s.change.until = false, s.e.now.Add(packetsUnderWay)
		s.changed()
	case s.cfg.CanChangeCookies && len(cookie) == len(s.remoteCookie):
		s.remoteCookie = slices.Clone(cookie)
		s.reinstall()
		s.sendCookie(s.remoteCookie)
		s.changed()
	case s.canSucceed() && len(cookie) == len(s.remoteCookie) && (s.succession.past == nil || s.succession.over()):
		s.forgetPast()
		s.offerNext() // the peer's data plane can what ours cannot
	}
}

// endChange ends the acceptance of the previous cookie; or of the new one, if the
// peer has heard of it and has not gone over.
func (s *session) endChange(now time.Time) {
	switch {
	case s.change.waiting && !s.t.conn.rel.idle():
		s.change.until = s.limit()
		return
	case s.change.waiting:
		s.localCookie = s.change.previous
		s.change = cookieChange{}
		s.reinstall()
		s.moved(s.state, s.t.peer()+" has not gone over to a new cookie, the old one stays")
	default:
		s.change = cookieChange{}
		s.reinstall()
	}
	s.changed()
}
