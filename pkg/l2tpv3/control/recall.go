package control

import (
	"encoding/binary"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Recalled is a message of the past, put together again from what was agreed on.
type Recalled struct {
	// Sent is one of ours, otherwise it was the peer's.
	Sent    bool
	Payload []byte
}

// Recall gives messages by which the tunnel's established connection and sessions may
// have been set up, for those who read what comes after: with the real IDs, nonces,
// cookies and digests, but neither the sequence numbers nor all that was said, and not
// always by whom. It is empty where there is no established connection.
func (e *Endpoint) Recall(tunnel string) []Recalled {
	t := e.tunnels[tunnel]
	if t == nil || t.state() != ConnectionEstablished {
		return nil
	}
	r := recall{c: t.conn}
	ours := [...]l2tpv3.AVP{l2tpv3.HostName(t.cfg.HostName), l2tpv3.RouterID(t.cfg.RouterID),
		l2tpv3.AssignedControlConnectionID(r.c.localID), l2tpv3.PseudowireCapabilities(t.cfg.Capabilities)}
	p := &r.c.peer
	theirs := [...]l2tpv3.AVP{l2tpv3.HostName(p.HostName), l2tpv3.RouterID(p.RouterID),
		l2tpv3.AssignedControlConnectionID(r.c.remoteID), l2tpv3.PseudowireCapabilities(p.Capabilities)}
	from := r.c.initiator
	asks, answers := ours[:], theirs[:]
	if !from {
		asks, answers = answers, asks
	}
	r.add(from, l2tpv3.SCCRQ, r.nonce(from, asks)...)
	r.add(!from, l2tpv3.SCCRP, r.nonce(!from, answers)...)
	r.add(from, l2tpv3.SCCCN)
	for _, s := range t.sortedSessions() {
		if s.state == SessionEstablished {
			r.session(s)
		}
	}
	return r.messages
}

// recall collects the messages of a connection.
type recall struct {
	c        *connection
	messages []Recalled
	sent     [2]uint16 // by the peer, by us
}

// nonce is what SCCRQ and SCCRP have with authentication.
func (r *recall) nonce(ours bool, avps []l2tpv3.AVP) []l2tpv3.AVP {
	n := r.c.auth.remoteNonce
	if ours {
		n = r.c.auth.localNonce
	}
	if !r.c.auth.on || len(n) == 0 {
		return avps
	}
	return append(avps, l2tpv3.Nonce(n))
}

// session asks from the end that the connection was opened from: tshark looks for the IDs
// of a session there only.
func (r *recall) session(s *session) {
	from := r.c.initiator
	side := func(ours bool) (local, remote uint32, avps []l2tpv3.AVP) {
		local, remote = s.remoteID, s.localID
		cookie, sublayer, circuit := s.remoteCookie, s.wishes.Sublayer, s.remote
		if ours {
			local, remote = s.localID, s.remoteID
			cookie, sublayer, circuit = s.localCookie, s.receive, s.status()
		}
		avps = append(avps, circuit)
		if len(cookie) > 0 {
			avps = append(avps, l2tpv3.AssignedCookie(cookie))
		}
		if sublayer != l2tpv3.SublayerNone {
			avps = append(avps, sublayer)
		}
		return local, remote, avps
	}
	local, remote, avps := side(from)
	end := s.cfg.RemoteEndID
	if !from && s.cfg.LocalEndID != nil {
		end = s.cfg.LocalEndID
	}
	r.add(from, l2tpv3.ICRQ, append([]l2tpv3.AVP{l2tpv3.LocalSessionID(local), l2tpv3.RemoteSessionID(0), l2tpv3.SerialNumber(1),
		s.cfg.Type, l2tpv3.RemoteEndID(end)}, avps...)...)
	_, _, avps = side(!from)
	r.add(!from, l2tpv3.ICRP, append([]l2tpv3.AVP{l2tpv3.LocalSessionID(remote), l2tpv3.RemoteSessionID(local)}, avps...)...)
	r.add(from, l2tpv3.ICCN, l2tpv3.LocalSessionID(local), l2tpv3.RemoteSessionID(remote))
}

// add appends a message, with the sequence numbers that it has where none is lost, and
// digests that verify.
func (r *recall) add(ours bool, t l2tpv3.MessageType, avps ...l2tpv3.AVP) {
	c, own := r.c, 0
	ccid, nonce, other := c.localID, c.auth.remoteNonce, c.auth.localNonce
	if ours {
		own = 1
		ccid, nonce, other = c.remoteID, other, nonce
	}
	if t == l2tpv3.SCCRQ {
		ccid, nonce, other = 0, nil, nil // Section 5.4.1: "The SCCRQ has special treatment"
	}
	var keys []*l2tpv3.Secret
	if c.auth.on {
		keys = c.keys()
	}
	for range keys {
		avps = append([]l2tpv3.AVP{l2tpv3.NewMessageDigest(c.t.cfg.Digest)}, avps...)
	}
	b, err := l2tpv3.NewMessage(t, avps...).Append(nil)
	if err != nil {
		return // what a peer has said of itself cannot be said again
	}
	putHeader(b, ccid, r.sent[own], r.sent[1-own])
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if len(keys) > 0 && l2tpv3.Sign(b, nonce, other, keys...) != nil {
		return
	}
	r.sent[own]++
	r.messages = append(r.messages, Recalled{Sent: ours, Payload: b})
}
