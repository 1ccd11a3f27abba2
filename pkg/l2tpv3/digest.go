package l2tpv3

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"log/slog"
)

var (
	// ErrNoDigest says that a message has no Message Digest AVP where it has to be,
	// directly after the Message Type (Section 5.4.1).
	ErrNoDigest = errors.New("l2tpv3: no Message Digest AVP after the Message Type")
	// ErrDigest says that none of a message's digests is valid under any of the
	// secrets: the message is to be dropped without an answer (Section 5.4.1).
	ErrDigest = errors.New("l2tpv3: the message digest is not valid under any configured secret")
)

// Secret is what is derived from a secret that two LCCEs share: the keys for
// message digests (Section 5.4.1) and for hiding (Section 5.3). The secret itself
// is not in it. One goroutine at a time may use it.
type Secret struct {
	hideKey [md5.Size]byte
	authKey [md5.Size]byte
	mac     [2]hash.Hash // by DigestAlgorithm, made at first use
	sum     [sha1.Size]byte
}

// zeros stand for digests while one is calculated.
var zeros [maxValue]byte

// NewSecret derives the keys of a shared secret. The empty secret is the one of
// the integrity check without authentication (Section 4.3).
func NewSecret(shared []byte) *Secret {
	s := new(Secret)
	s.hideKey = derive(shared, 1)
	s.authKey = derive(shared, 2)
	return s
}

// derive is HMAC_MD5 (shared_secret, n) of Sections 5.3 (n is 1) and 5.4.1 (2).
func derive(shared []byte, n byte) (key [md5.Size]byte) {
	h := hmac.New(md5.New, shared)
	h.Write([]byte{n})
	h.Sum(key[:0])
	return key
}

// String hides the keys.
func (*Secret) String() string { return "secret" }

// GoString hides the keys.
func (*Secret) GoString() string { return "l2tpv3.Secret" }

// LogValue hides the keys.
func (*Secret) LogValue() slog.Value { return slog.StringValue("secret") }

// NewMessageDigest is the AVP with room for a digest, for Sign to fill in.
func NewMessageDigest(a DigestAlgorithm) MessageDigest {
	return MessageDigest{Algorithm: a, Digest: make([]byte, a.size())}
}

func (a DigestAlgorithm) String() string {
	switch a {
	case HMACMD5:
		return "HMAC-MD5"
	case HMACSHA1:
		return "HMAC-SHA-1"
	}
	return fmt.Sprintf("digest type %d", uint8(a))
}

// size is the number of octets of a digest, 0 for an algorithm not known here.
func (a DigestAlgorithm) size() int {
	switch a {
	case HMACMD5:
		return md5.Size
	case HMACSHA1:
		return sha1.Size
	}
	return 0
}

// Sign fills in the one or two Message Digest AVPs of an encoded message, in
// place: the first with the first secret, the second with the second, or with the
// same if there is one secret only. Sender and receiver are their nonces; both
// are empty for an SCCRQ, and for the integrity check with the empty secret
// (Sections 4.3 and 5.4.1). It has to be done again when the header changes: a
// retransmission has a new Nr.
func Sign(message, sender, receiver []byte, secrets ...*Secret) error {
	f, err := findDigests(message)
	if err != nil {
		return err
	}
	if len(secrets) == 0 {
		return ErrDigest
	}
	for i := range f.n {
		d := f.at[i]
		if !d.usable() {
			return fmt.Errorf("l2tpv3: cannot sign with %v, %d octets: %w", d.algorithm, d.end-d.start, ErrLength)
		}
		s := secrets[min(i, len(secrets)-1)]
		copy(message[d.start:d.end], s.digest(d.algorithm, f, sender, receiver))
	}
	return nil
}

// Verify reports whether a message is what somebody with one of the secrets sent:
// ErrNoDigest if it has no digest, ErrDigest if no digest is valid with any secret.
// One that is suffices (Section 5.4.1). Sender and receiver are as for Sign. It
// comes before anything in the message is used, Nr included.
func Verify(message, sender, receiver []byte, secrets ...*Secret) error {
	f, err := findDigests(message)
	if err != nil {
		return err
	}
	for _, d := range f.at[:f.n] {
		if !d.usable() {
			continue
		}
		for _, s := range secrets {
			if hmac.Equal(message[d.start:d.end], s.digest(d.algorithm, f, sender, receiver)) {
				return nil
			}
		}
	}
	return ErrDigest
}

// foundDigests is where the digests of a message are.
type foundDigests struct {
	message []byte
	n       int
	at      [2]foundDigest
}

type foundDigest struct {
	algorithm  DigestAlgorithm
	start, end int // the octets of the digest
}

// usable is false for an algorithm that is not known, or a length that is not its own.
func (d foundDigest) usable() bool {
	n := d.algorithm.size()
	return n != 0 && n == d.end-d.start
}

// findDigests looks where digests have to be: directly after the Message Type,
// and the second directly after the first (Section 5.4.1).
func findDigests(b []byte) (f foundDigests, err error) {
	var m Message
	n, err := m.parseHeader(b)
	if err != nil {
		return f, err
	}
	f.message = b[:n]
	off := headerLength
	for i := range 3 {
		if n-off < avpHeaderLength {
			break
		}
		word, vendor, number := be.Uint16(b[off:]), be.Uint16(b[off+2:]), AVPType(be.Uint16(b[off+4:]))
		end := off + int(word&avpLengthMask)
		if end > n {
			break
		}
		if i == 0 {
			if number != AVPMessageType || end < off+avpHeaderLength {
				break
			}
		} else {
			// Section 5.4.1: MUST NOT be hidden.
			ours := vendor == 0 && number == AVPMessageDigest || vendor == VendorCisco && number == ciscoMessageDigest
			if !ours || word&avpHidden != 0 || end <= off+avpHeaderLength {
				break
			}
			v := off + avpHeaderLength
			f.at[f.n] = foundDigest{algorithm: DigestAlgorithm(b[v]), start: v + 1, end: end}
			f.n++
		}
		off = end
	}
	if f.n == 0 {
		return f, ErrNoDigest
	}
	return f, nil
}

// digest is HMAC_Hash (shared_key, sender + receiver + control_message), the
// message with the value of every digest set to zeros (Section 5.4.1). The local
// nonce of the formula is the sender's. It is valid until the next call.
func (s *Secret) digest(a DigestAlgorithm, f foundDigests, sender, receiver []byte) []byte {
	h := s.mac[a]
	if h == nil {
		if a == HMACMD5 {
			h = hmac.New(md5.New, s.authKey[:])
		} else {
			h = hmac.New(sha1.New, s.authKey[:])
		}
		s.mac[a] = h
	}
	h.Reset()
	h.Write(sender)
	h.Write(receiver)
	pos := 0
	for _, d := range f.at[:f.n] {
		h.Write(f.message[pos:d.start])
		h.Write(zeros[:d.end-d.start])
		pos = d.end
	}
	h.Write(f.message[pos:])
	return h.Sum(s.sum[:0])
}
