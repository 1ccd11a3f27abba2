package control

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const (
	// nonceLength is recommended to be at least this (Section 5.4.1).
	nonceLength = 16
	// maxSecrets is how many an LCCE may have, and digests a message (Section 5.4.1).
	maxSecrets = 2
)

// auth is the authentication of one connection's messages (Section 4.3).
type auth struct {
	// on says that every message has a Message Digest, in both directions.
	on bool
	// localNonce is ours, empty until we have told it; remoteNonce is the peer's.
	localNonce, remoteNonce []byte
	// proven is the secret that the peer's last message was verified with.
	proven *l2tpv3.Secret
	// keys, if set, are those of before the tunnel got others: of an ended connection.
	keys []*l2tpv3.Secret
}

// keys are those of the connection's messages, in both directions.
func (c *connection) keys() []*l2tpv3.Secret {
	if c.auth.keys != nil {
		return c.auth.keys
	}
	return c.t.keys()
}

// keepKeys lets the tunnel's ended connections go on with the secrets that they
// had, because it gets others that have nothing to do with them.
func (t *tunnel) keepKeys() {
	for _, c := range t.ended {
		if c.auth.on && c.auth.keys == nil {
			c.auth.keys = t.keys()
		}
	}
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

// digestAVPs are Message Digest AVPs to be filled in, by numbers and algorithm.
var digestAVPs = func() (all [2][2][]byte) {
	for n := range all {
		for a := range all[n] {
			m := l2tpv3.Message{Numbers: l2tpv3.Numbers(n), AVPs: []l2tpv3.AVP{l2tpv3.NewMessageDigest(l2tpv3.DigestAlgorithm(a))}}
			octets, _ := m.Append(nil)
			all[n][a] = octets[12:]
		}
	}
	return all
}()

// seal is the message as it goes out: header and, with authentication, digests,
// one for each secret.
func (c *connection) seal(octets []byte, ns uint16) []byte {
	// Section 5.4.1: directly after the Message Type AVP, which has 8 octets. A ZLB has none, and no digests.
	after := min(headerOctets+8, len(octets))
	var keys []*l2tpv3.Secret
	if c.auth.on {
		keys = c.keys()
	}
	digest := digestAVPs[c.numbers][c.t.cfg.Digest]
	b := c.e.outputs.payload(len(octets) + maxSecrets*len(digest))
	b = append(b, octets[:after]...)
	for range keys {
		b = append(b, digest...)
	}
	b = append(b, octets[after:]...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	putHeader(b, c.remoteID, ns, c.rel.nr)
	if len(keys) == 0 {
		return b
	}
	local, remote := c.auth.localNonce, c.auth.remoteNonce
	if binary.BigEndian.Uint16(octets[after-2:]) == uint16(l2tpv3.SCCRQ) {
		local, remote = nil, nil // Section 5.4.1: "The SCCRQ has special treatment"
	}
	// It cannot fail: there is a secret, and there are digests.
	_ = l2tpv3.Sign(b, local, remote, keys...)
	return b
}

// verify reports whether a message may be used, and reveals what it hides.
func (c *connection) verify(payload []byte, m *l2tpv3.Message) bool {
	t, _ := m.Type()
	nonce, has := l2tpv3.Find[l2tpv3.Nonce](m)
	if !c.auth.on {
		// A peer that authenticates alone is told that it cannot have that (see
		// sccrp): its digest is not for us to judge.
		return c.e.intact(payload) || t == l2tpv3.SCCRP && c.state == ConnectionWaitReply && has
	}
	remote := c.auth.remoteNonce
	if t == l2tpv3.SCCRP && remote == nil {
		// Section 5.4.1: with authentication it MUST be present in the SCCRP.
		if !has {
			return false
		}
		remote = nonce
	}
	if l2tpv3.Verify(payload, remote, c.auth.localNonce, c.keys()...) != nil {
		// The text is silent on a StopCCN whose sender has not got our nonce yet: it
		// is taken as empty, and is so from here on.
		if t != l2tpv3.StopCCN || c.state != ConnectionWaitConnect || l2tpv3.Verify(payload, remote, nil, c.keys()...) != nil {
			return false
		}
		c.auth.localNonce = nil
	}
	c.prove(payload)
	c.reveal(m)
	return true
}

// prove notes which of two secrets the peer has.
func (c *connection) prove(payload []byte) {
	keys := c.keys()
	if !c.t.cfg.Hide || len(keys) < 2 {
		return
	}
	for _, k := range keys {
		if l2tpv3.Verify(payload, c.auth.remoteNonce, c.auth.localNonce, k) == nil {
			c.auth.proven = k
			return
		}
	}
}

// hide hides what may be hidden of a message's AVPs, with a Random Vector before
// them (Section 5.3). While a secret is being replaced the peer may have one of
// the two: what hides is the one that it has shown to have, and before that nothing
// is hidden.
func (c *connection) hide(t l2tpv3.MessageType, avps []l2tpv3.AVP) []l2tpv3.AVP {
	// Section 5.4.3: who has not been told our ID finds the connection by it.
	if t == l2tpv3.StopCCN && c.remoteID == 0 {
		return avps
	}
	keys := c.keys()
	// Which of two numbers of an attribute goes into its hidden form, nobody has said.
	if !c.t.cfg.Hide || !c.auth.on || c.numbers != l2tpv3.StandardNumbers || len(keys) == 0 || !slices.ContainsFunc(avps, mayHide) {
		return avps
	}
	key := keys[0]
	if len(keys) > 1 {
		if key = c.auth.proven; key == nil || !slices.Contains(keys, key) {
			return avps
		}
	}
	vector := make(l2tpv3.RandomVector, vectorLength)
	c.e.random(vector)
	out := append(make([]l2tpv3.AVP, 0, len(avps)+1), vector)
	for _, a := range avps {
		if mayHide(a) {
			// Section 5.3: padding conceals how long the value is.
			padding := make([]byte, paddingTo-1)
			c.e.random(padding)
			if raw, err := key.Hide(a, vector, nil); err == nil {
				if short := len(raw.Value) % paddingTo; short != 0 {
					raw, err = key.Hide(a, vector, padding[:paddingTo-short])
				}
				if err == nil {
					a = raw
				}
			}
		}
		out = append(out, a)
	}
	return out
}

const (
	// vectorLength is recommended to be at least this (Section 5.3).
	vectorLength = 16
	// paddingTo is what the lengths of hidden values are multiples of.
	paddingTo = 16
)

func mayHide(a l2tpv3.AVP) bool {
	info, ok := l2tpv3.LookupAVP(a.AVPType())
	return ok && info.MayHide
}

// reveal replaces what an authenticated message hides (Section 5.3). Without
// authentication nothing may be hidden, and what is cannot be read.
func (c *connection) reveal(m *l2tpv3.Message) {
	if c.auth.on {
		reveal(m, c.keys())
	}
}

// reveal tries one secret after the other: which of two the sender hides with is
// not said. With a wrong one nothing sensible comes out, and the last one's
// nonsense is left, for its M bit to be judged.
func reveal(m *l2tpv3.Message, keys []*l2tpv3.Secret) {
	if !slices.ContainsFunc(m.AVPs, hidden) {
		return
	}
	defer m.Standardize()
	avps, flags := m.AVPs, m.Flags
	for _, k := range keys {
		m.AVPs, m.Flags = slices.Clone(avps), slices.Clone(flags)
		k.Reveal(m)
		good := true
		for i, a := range m.AVPs {
			r, raw := a.(l2tpv3.RawAVP)
			good = good && !(hidden(avps[i]) && raw && r.Malformed != nil)
		}
		if good {
			return
		}
	}
}

func hidden(a l2tpv3.AVP) bool {
	r, ok := a.(l2tpv3.RawAVP)
	return ok && r.Hidden
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
	if t.secretsDue {
		return false // there are secrets, but they have not been set again yet
	}
	if len(t.cfg.Secrets) == 0 {
		// With a nonce the peer wants authentication, and is told that it
		// cannot have it: its digest is not for us to judge.
		return nonce || t.e.intact(payload)
	}
	return nonce && l2tpv3.Verify(payload, nil, nil, t.keys()...) == nil
}
