package control

import (
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// received are reasons, made once.
var received = func() map[l2tpv3.MessageType]string {
	all := map[l2tpv3.MessageType]string{}
	for m := range l2tpv3.KnownMessages() {
		all[m.Type] = m.Type.String() + " received"
	}
	return all
}()

// receiveSession finds the session that a message on an established connection
// is for, judges the message, and lets the session handle it.
func (t *tunnel) receiveSession(c *connection, m *l2tpv3.Message) {
	kind, _ := m.Type()
	local, _ := l2tpv3.Find[l2tpv3.RemoteSessionID](m)
	remote, _ := l2tpv3.Find[l2tpv3.LocalSessionID](m)
	in := sessionInput{m: m, remoteID: uint32(remote), reason: received[kind]}
	if kind == l2tpv3.ICRQ {
		t.receiveICRQ(m, in)
		return
	}
	s := t.sessionOf(uint32(local), uint32(remote))
	if s == nil {
		if kind != l2tpv3.OCRQ {
			t.e.count(countUnknownSession)
		}
		s = &session{e: t.e, t: t} // in idle, and nobody's
	}
	ev, in := s.event(kind, in)
	s.handle(ev, in)
}

// sessionOf finds a session by our ID or, if the peer does not know that yet, by
// the peer's (Section 5.4.4: "reverse lookup").
func (t *tunnel) sessionOf(local, remote uint32) *session {
	if local != 0 {
		if s := t.e.sessions[local]; s != nil && s.t == t {
			return s
		}
		return nil
	}
	if remote == 0 {
		return nil
	}
	for _, s := range t.sessions {
		if s.localID != 0 && s.remoteID == remote {
			return s
		}
	}
	return nil
}

// event is what a message other than ICRQ is to the session.
func (s *session) event(kind l2tpv3.MessageType, in sessionInput) (sessionEvent, sessionInput) {
	in.result = l2tpv3.ResultCode{Result: l2tpv3.CDNStateMachine}
	if s.localID == 0 {
		in.result = l2tpv3.ResultCode{Result: l2tpv3.CDNError, HasError: true, Error: l2tpv3.ErrorSessionID}
	}
	if kind == l2tpv3.CDN {
		return receiveCDN, s.disconnected(in)
	}
	// Section 5.2: CDN 2, Error Code 8. Section 5.4.4: it echoes the peer's Local
	// Session ID, which the ICRP that it refuses may be the first to tell.
	if u, ok := unknownMandatory(in.m); ok {
		if kind == l2tpv3.ICRP && s.state == SessionWaitReply && in.remoteID != 0 {
			s.remoteID = in.remoteID
		}
		in.result, in.reason = u.ResultCode(), kind.String()+" from the peer: "+plain(u)
		return receiveInvalidSession, in
	}
	switch kind {
	case l2tpv3.ICRP:
		return s.icrp(in)
	case l2tpv3.ICCN:
		return s.iccn(in)
	case l2tpv3.OCRQ:
		// RFC 4719, Section 2.2: pseudowires are signalled by incoming calls.
		in.result = l2tpv3.ResultCode{Result: l2tpv3.CDNPermanentlyUnavailable, HasError: true, Message: "no outgoing calls here"}
		return receiveOCRQ, in
	case l2tpv3.OCRP:
		return receiveOCRP, in
	case l2tpv3.OCCN:
		return receiveOCCN, in
	case l2tpv3.WEN:
		return receiveWEN, in
	}
	return receiveSLI, in
}

// disconnected puts a CDN's reason in words.
func (s *session) disconnected(in sessionInput) sessionInput {
	in.reason = s.t.peer() + " sent CDN"
	in.result, _ = l2tpv3.Find[l2tpv3.ResultCode](in.m)
	in.result = in.result.Shortened()
	switch in.result.Result {
	case l2tpv3.CDNNoForwarder: // RFC 4667, Section 5.1
		in.reason = "waiting for " + s.t.peer()
	case 0:
	default:
		in.reason += ": " + in.result.Describe(l2tpv3.CDN)
	}
	return in
}

// icrp judges an ICRP, and learns from it.
func (s *session) icrp(in sessionInput) (sessionEvent, sessionInput) {
	if s.state != SessionWaitReply {
		if s.localID != 0 {
			in.reason = "the peer sent ICRP in state " + s.state.String()
		}
		return receiveICRP, in
	}
	if in.remoteID != 0 {
		s.remoteID = in.remoteID
	}
	if err := l2tpv3.Validate(in.m); err != nil {
		in.result, in.reason = malformed(err), "the peer sent "+plain(err)
		return receiveICRPUnacceptable, in
	}
	if refusal, why := s.judge(in.m); refusal.Result != 0 {
		in.result, in.reason = refusal, why
		return receiveICRPUnacceptable, in
	}
	s.learn(in)
	return receiveICRP, in
}

// iccn judges an ICCN, and learns from it.
func (s *session) iccn(in sessionInput) (sessionEvent, sessionInput) {
	if s.state != SessionWaitConnect {
		in.reason = "the peer sent ICCN in state " + s.state.String()
		return receiveICCN, in
	}
	if refusal, why := s.judge(in.m); refusal.Result != 0 {
		in.result, in.reason = refusal, why
		return receiveICCNUnacceptable, in
	}
	s.learn(sessionInput{m: in.m})
	return receiveICCN, in
}

// judge decides whether the session can be as a message of the peer wants it.
// The Result is 0 if it can; otherwise it is for the CDN, and why is for the user.
func (s *session) judge(m *l2tpv3.Message) (refusal l2tpv3.ResultCode, why string) {
	sublayer, has := l2tpv3.Find[l2tpv3.L2SpecificSublayer](m)
	if !has {
		sublayer = s.wishes.Sublayer
	}
	sequencing, _ := l2tpv3.Find[l2tpv3.DataSequencing](m)
	mtu, hasMTU := l2tpv3.Find[l2tpv3.InterfaceMTU](m)
	forwarder, hasForwarder := l2tpv3.Find[l2tpv3.LocalEndID](m)
	switch {
	// RFC 4667, Section 5.1 and Section 5.4.4: the sublayer asked for MUST be sent.
	case sublayer > l2tpv3.SublayerDefault && sublayer != s.cfg.Specific:
		why = fmt.Sprintf("%s asks for L2-Specific Sublayer %d, which is not supported", s.t.peer(), sublayer)
		return l2tpv3.ResultCode{Result: l2tpv3.CDNPermanentlyUnavailable, HasError: true, Message: "L2-Specific Sublayer not supported"}, why
	// Section 5.4.4, Data Sequencing: "the session MUST be disconnected".
	case sequencing != l2tpv3.SequencingNone && sublayer == l2tpv3.SublayerNone:
		return l2tpv3.ResultCode{Result: l2tpv3.CDNSequencing}, s.t.peer() + " asks for sequencing without an L2-Specific Sublayer"
	case sequencing > l2tpv3.SequencingAll:
		return l2tpv3.ResultCode{Result: l2tpv3.CDNError, HasError: true, Error: l2tpv3.ErrorValue, Message: "Data Sequencing"},
			fmt.Sprintf("%s asks for data sequencing level %d", s.t.peer(), sequencing)
	// RFC 6073, Section 8.
	case sequencing != l2tpv3.SequencingNone && !s.cfg.CanSequence:
		return l2tpv3.ResultCode{Result: l2tpv3.CDNSequencingNotSupported}, s.t.peer() + " asks for sequencing, which the data plane cannot do"
	// The data plane has one sublayer for both directions, and ours is not to be had without.
	case !s.cfg.CanSublayer && s.cfg.Sublayer != l2tpv3.SublayerNone && sublayer == l2tpv3.SublayerNone:
		why = s.t.peer() + " asks for no L2-Specific Sublayer, and the data plane here needs it in both directions or none"
		return l2tpv3.ResultCode{Result: l2tpv3.CDNPermanentlyUnavailable, HasError: true, Message: "the L2-Specific Sublayer has to be the same in both directions"}, why
	// RFC 4667, Section 5.1: our forwarder is for another one of the peer's.
	case hasForwarder && s.cfg.LocalEndID != nil && string(forwarder) != string(s.cfg.RemoteEndID):
		return l2tpv3.ResultCode{Result: l2tpv3.CDNForwarderNotAuthorized}, fmt.Sprintf("%s asks for it from its %q, not from %q", s.t.peer(), forwarder, s.cfg.RemoteEndID)
	// RFC 4667, Section 4.3: if both send it the values MUST match.
	case hasMTU && s.cfg.MTU != 0 && uint16(mtu) != s.cfg.MTU:
		return l2tpv3.ResultCode{Result: l2tpv3.CDNMTU}, fmt.Sprintf("the MTU is %d here and %d at %s", s.cfg.MTU, mtu, s.t.peer())
	}
	return l2tpv3.ResultCode{}, ""
}

// receiveICRQ handles a request for a session: it may be for one that we have
// asked for ourselves (Section 5.4.4, Session Tie Breaker).
func (t *tunnel) receiveICRQ(m *l2tpv3.Message, in sessionInput) {
	kind, _ := l2tpv3.Find[l2tpv3.PseudowireType](m)
	end, _ := l2tpv3.Find[l2tpv3.RemoteEndID](m)
	agi, _ := l2tpv3.Find[l2tpv3.AttachmentGroupID](m)
	s := t.forwards[forwarder{kind, string(agi), string(end)}]
	var ours *l2tpv3.PseudowireType
	if s == nil {
		ours = t.otherType(kind, string(agi), string(end))
		s = &session{e: t.e, t: t} // in idle, and nobody's
	}
	if again := t.sessionOf(0, in.remoteID); again != nil {
		// Section 7.3.2: an ICRQ for an ID that has a session.
		in.result, in.reason = l2tpv3.ResultCode{Result: l2tpv3.CDNStateMachine}, "the peer sent ICRQ in state "+again.state.String()
		again.handle(receiveICRQ, in)
		return
	}
	in.result, in.reason = s.judgeRequest(m, kind)
	if ours != nil && in.result.Result == l2tpv3.CDNNoForwarder {
		// There is one, of another type than the session is to have: 14 says more than that
		// there is none, and the peer's user reads both.
		in.result.Result = l2tpv3.CDNPseudowireType
		in.reason = fmt.Sprintf("it is a pseudowire of type %s here, %s asks for one of type %s", *ours, t.peer(), kind)
	}
	if s.cfg.Name == "" && in.result.Result == l2tpv3.CDNNoForwarder && !t.e.stopping {
		emit(&t.e.outputs, &t.e.outputs.unknown, SessionUnknown{Tunnel: t.cfg.Name, Type: kind, AGI: string(agi), End: string(end)})
	}
	if s.state == SessionWaitConnect || s.state == SessionEstablished {
		// It is over for the peer, or the peer has two of that name.
		s.handle(receiveICRQ, sessionInput{
			result: l2tpv3.ResultCode{Result: l2tpv3.CDNStateMachine}, reason: "the peer has asked for it again",
			cause: Cause{Kind: CauseReplaced, By: Peer, Message: l2tpv3.ICRQ},
		})
	}
	if s.state == SessionWaitReply {
		switch breakTie(s.tie, tieBreaker(m)) {
		case wins:
			in.result, in.reason = l2tpv3.ResultCode{Result: l2tpv3.CDNTieBreakerLost}, ""
			s.handle(icrqTieWon, in)
			return
		case equal:
			in.result, in.reason = l2tpv3.ResultCode{Result: l2tpv3.CDNTieBreakerLost}, "equal tie breakers"
			s.handle(icrqTieEqual, in)
			return
		case noBreaker:
			in.result, in.reason = l2tpv3.ResultCode{Result: l2tpv3.CDNTieBreakerLost}, "no tie breakers"
			s.handle(icrqNoTieBreaker, in)
			return
		case loses:
			if in.result.Result == 0 {
				in.reason = "tie breaker lost, ICRP sent"
				s.handle(icrqTieLost, in)
				return
			}
		}
	}
	if in.result.Result != 0 {
		s.refused(in)
		s.handle(receiveICRQUnacceptable, in)
		return
	}
	in.reason = "ICRP sent"
	s.handle(receiveICRQ, in)
}

// otherType tells the user that the peer asks for a session of ours as one of
// another type, and returns which it has here.
func (t *tunnel) otherType(kind l2tpv3.PseudowireType, agi, end string) (ours *l2tpv3.PseudowireType) {
	for f, s := range t.forwards {
		if f.group == agi && f.end == end {
			ours = &f.kind
			s.refused(sessionInput{
				reason: fmt.Sprintf("%s asks for it as a pseudowire of type %s, here it is of type %s", t.peer(), kind, f.kind),
				cause:  Cause{Kind: CauseType, By: Here, Message: l2tpv3.ICRQ},
			})
		}
	}
	return ours
}

// refused tells the user why a request of the peer's was refused, where that is
// a session's and it waits for nothing better.
func (s *session) refused(in sessionInput) {
	if s.cfg.Name != "" && s.localID == 0 && in.reason != "" && s.log.reason != in.reason {
		if in.cause.Kind == CauseNone {
			in.cause = refusal(l2tpv3.CDN, in.result, in.m)
		}
		s.log.of("ICRQ, not acceptable", in.cause)
		s.moved(s.state, in.reason)
	}
}

// judgeRequest decides whether an ICRQ can be accepted, as judge does.
func (s *session) judgeRequest(m *l2tpv3.Message, kind l2tpv3.PseudowireType) (l2tpv3.ResultCode, string) {
	// Section 5.2: CDN 2, Error Code 8.
	if u, ok := unknownMandatory(m); ok {
		return u.ResultCode(), "ICRQ from the peer: " + plain(u)
	}
	if err := l2tpv3.Validate(m); err != nil {
		return malformed(err), "the peer sent " + plain(err)
	}
	// Section 5.4.4, Pseudowire Type: a type that was not advertised "MUST result
	// in the call being rejected via a CDN with the Result Code set to 14".
	if !slices.Contains(s.t.cfg.Capabilities, kind) {
		return l2tpv3.ResultCode{Result: l2tpv3.CDNPseudowireType},
			fmt.Sprintf("%s asks for a pseudowire of type %s, which this end does not carry", s.t.peer(), kind)
	}
	if s.cfg.Name == "" || s.e.stopping {
		return l2tpv3.ResultCode{Result: l2tpv3.CDNNoForwarder}, ""
	}
	return s.judge(m)
}

// refuseSession sends a CDN for a session that was never one of ours. Its Local
// Session ID has to be there and not zero, and nothing was assigned: it is one
// that nobody has.
func (t *tunnel) refuseSession(in sessionInput) {
	if in.remoteID == 0 {
		return // nobody would know what it is about
	}
	t.conn.push(l2tpv3.CDN, in.result.Explained(l2tpv3.CDN, in.reason), l2tpv3.LocalSessionID(t.e.newSessionID()), l2tpv3.RemoteSessionID(in.remoteID))
}
