package control

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// nonceLength is recommended to be at least this (Section 5.4.1).
const nonceLength = 16

// auth is the authentication of one connection's messages (Section 4.3).
type auth struct {
	// on says that every message has a Message Digest, in both directions.
	on bool
	// localNonce is ours, empty until we have told it; remoteNonce is the peer's.
	localNonce, remoteNonce []byte
}

// keys are the tunnel's secrets, two at most (Section 5.4.1).
func (t *tunnel) keys() []*l2tpv3.Secret {
	if t.derived == nil {
		for _, s := range t.cfg.Secrets {
			t.derived = append(t.derived, l2tpv3.NewSecret(s))
		}
	}
	return t.derived
}

// startAuth turns authentication on where there is a secret. It returns the
// nonce that SCCRQ and SCCRP then carry.
func (c *connection) startAuth() []byte {
	if len(c.t.cfg.Secrets) == 0 {
		return nil
	}
	c.auth.on = true
	c.auth.localNonce = make([]byte, nonceLength)
	c.e.random(c.auth.localNonce)
	return c.auth.localNonce
}

// seal is the message as it goes out: header and, with authentication, digests,
// one for each secret.
func (c *connection) seal(octets []byte, ns uint16) []byte {
	if !c.auth.on {
		b := slices.Clone(octets)
		putHeader(b, c.remoteID, ns, c.rel.nr)
		return b
	}
	// Section 5.4.1: directly after the Message Type AVP, which has 8 octets.
	const after = 12 + 8
	keys := c.t.keys()
	digest := l2tpv3.NewMessageDigest(l2tpv3.HMACMD5)
	one, _ := (&l2tpv3.Message{AVPs: []l2tpv3.AVP{digest}}).Append(nil)
	b := slices.Clone(octets[:after])
	for range min(len(keys), 2) {
		b = append(b, one[12:]...)
	}
	b = append(b, octets[after:]...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	putHeader(b, c.remoteID, ns, c.rel.nr)
	local, remote := c.auth.localNonce, c.auth.remoteNonce
	if binary.BigEndian.Uint16(octets[after-2:]) == uint16(l2tpv3.SCCRQ) {
		local, remote = nil, nil // Section 5.4.1: "The SCCRQ has special treatment"
	}
	// It cannot fail: there is a secret, and there are digests.
	_ = l2tpv3.Sign(b, local, remote, keys...)
	return b
}

// verify reports whether a message may be used.
func (c *connection) verify(payload []byte, m *l2tpv3.Message) bool {
	if !c.auth.on {
		return c.e.intact(payload)
	}
	keys := c.t.keys()
	remote := c.auth.remoteNonce
	t, _ := m.Type()
	if t == l2tpv3.SCCRP && remote == nil {
		nonce, ok := l2tpv3.Find[l2tpv3.Nonce](m)
		// Section 5.4.1: with authentication it MUST be present in the SCCRP.
		if !ok {
			return false
		}
		remote = nonce
	}
	if l2tpv3.Verify(payload, remote, c.auth.localNonce, keys...) == nil {
		return true
	}
	// The text is silent on a StopCCN whose sender has not got our nonce yet: it
	// is taken as empty.
	return t == l2tpv3.StopCCN && c.state == ConnectionWaitConnect &&
		l2tpv3.Verify(payload, remote, nil, keys...) == nil
}

// intact is the integrity check of a message without authentication: "If an
// invalid Message Digest is received, [...] the message dropped" (Section 4.3).
func (e *Endpoint) intact(payload []byte) bool {
	err := l2tpv3.Verify(payload, nil, nil, e.integrity)
	return err == nil || errors.Is(err, l2tpv3.ErrNoDigest)
}

// verifyRequest reports whether an SCCRQ is from somebody with one of the
// tunnel's secrets, or may come from anybody because it has none.
func (t *tunnel) verifyRequest(payload []byte, m *l2tpv3.Message) bool {
	_, nonce := l2tpv3.Find[l2tpv3.Nonce](m)
	if len(t.cfg.Secrets) == 0 {
		// With a nonce the peer wants authentication, and is told that it
		// cannot have it: its digest is not for us to judge.
		return nonce || t.e.intact(payload)
	}
	return nonce && l2tpv3.Verify(payload, nil, nil, t.keys()...) == nil
}
