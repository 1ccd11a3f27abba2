package conformance

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"testing"
)

const (
	avpMessageDigest = 59
	avpNonce         = 73
)

// algorithm is a Digest Type (Section 5.4.1).
type algorithm byte

const (
	hmacMD5  algorithm = 0
	hmacSHA1 algorithm = 1
)

func (a algorithm) new() func() hash.Hash {
	if a == hmacSHA1 {
		return sha1.New
	}
	return md5.New
}

// authentication is what the client's end of a connection authenticates with
// (Section 4.3).
type authentication struct {
	secret    string
	algorithm algorithm
	// local and remote are the nonces, the daemon's empty until it has told it.
	local, remote []byte
	// also, if set, are the secrets that digests are made with instead.
	also []string
}

// key is one of the two that Sections 4.3 and 5.3 derive from the secret.
func key(secret string, n byte) []byte {
	h := hmac.New(md5.New, []byte(secret))
	h.Write([]byte{n})
	return h.Sum(nil)
}

const (
	hidingKey         = 1 // Section 5.3
	authenticationKey = 2 // Section 5.4.1
)

// digest is that of a message whose own digest AVPs are all 0 (Section 5.4.1:
// "computed over the control message", after the nonces, the sender's first).
func digest(a algorithm, secret string, sender, receiver, octets []byte) []byte {
	h := hmac.New(a.new(), key(secret, authenticationKey))
	for _, b := range [][]byte{sender, receiver, octets} {
		h.Write(b)
	}
	return h.Sum(nil)
}

// sign writes a message with a digest for each secret, directly after the Message Type.
func (a *authentication) sign(m message, secrets ...string) []byte {
	size := a.algorithm.new()().Size()
	avps := []avp{m.avps[0]}
	for range secrets {
		avps = append(avps, octets(avpMessageDigest, append([]byte{byte(a.algorithm)}, make([]byte, size)...)...))
	}
	m.avps = append(avps, m.avps[1:]...)
	b := m.encode()
	local, remote := a.local, a.remote
	if m.kind() == sccrq {
		local, remote = nil, nil // Section 5.4.1: the SCCRQ's is without nonces
	}
	// All digests are computed while all are 0.
	var digests [][]byte
	for _, s := range secrets {
		digests = append(digests, digest(a.algorithm, s, local, remote, b))
	}
	for i, d := range digests {
		copy(b[headerLength+8+i*(7+size)+7:], d)
	}
	return b
}

// check complains of a message of the daemon's whose second AVP is no digest, or
// none of whose digests is right.
func (a *authentication) check(b []byte) error {
	m, err := decode(b)
	if err != nil {
		return err
	}
	if len(m.avps) < 2 || m.avps[1].kind != avpMessageDigest || m.avps[1].hidden {
		return fmt.Errorf("Section 5.4.1: the second AVP of %v is no Message Digest", m.kind())
	}
	zeroed := slices.Clone(b)
	at := headerLength
	for _, v := range m.avps {
		if v.kind == avpMessageDigest && v.vendor == 0 {
			clear(zeroed[at+7 : at+6+len(v.value)])
		}
		at += 6 + len(v.value)
	}
	sender, receiver := a.remote, a.local
	if m.kind() == sccrq {
		sender, receiver = nil, nil
	}
	for _, v := range m.avps {
		if v.kind != avpMessageDigest || len(v.value) == 0 {
			continue
		}
		if hmac.Equal(v.value[1:], digest(algorithm(v.value[0]), a.secret, sender, receiver, zeroed)) {
			return nil
		}
	}
	return fmt.Errorf("Section 5.4.1: no digest of %v is right", m.kind())
}

// hide is an AVP hidden with a random vector (Section 5.3).
func hide(a avp, secret string, vector, padding []byte) avp {
	p := binary.BigEndian.AppendUint16(nil, uint16(len(a.value)))
	p = append(append(p, a.value...), padding...)
	k := key(secret, hidingKey)
	b := md5.Sum(slices.Concat(binary.BigEndian.AppendUint16(nil, a.kind), k, vector))
	for i := 0; i < len(p); i += md5.Size {
		n := min(md5.Size, len(p)-i)
		for j := range n {
			p[i+j] ^= b[j]
		}
		b = md5.Sum(slices.Concat(k, p[i:i+n]))
	}
	a.hidden, a.value = true, p
	return a
}

// The vectors were accepted by an independent decoder.
func TestVectors(t *testing.T) {
	nonce := func(first byte) (b []byte) {
		for i := range byte(16) {
			b = append(b, first+i)
		}
		return b
	}
	peer := &authentication{secret: "l2tp-secret", local: nonce(0xa0), remote: nonce(0x10)}
	initiator := &authentication{secret: "l2tp-secret", local: nonce(0x10), remote: nonce(0xa0)}
	for _, v := range []struct {
		name string
		by   *authentication // who receives it
		hex  string
	}{
		{"SCCRQ", peer, "c803006a0000000000000000800800000000000180170000003b00f8b757ab44812e8ed26f0a2b84cbe866801600000049101112131415161718191a1b1c1d1e1f800b000000076c63636541800a0000003cc0000201800a0000003d11111111800a0000003e00040005"},
		{"SCCRP", initiator, "c803006a1111111100000001800800000000000280170000003b00e9f8fa8e9673431329d9a176f0f82fa5801600000049a0a1a2a3a4a5a6a7a8a9aaabacadaeaf800b000000076c63636542800a0000003cc0000202800a0000003d22222222800a0000003e00040005"},
		{"SCCCN", peer, "c803002b2222222200010001800800000000000380170000003b006828ea99bd776381573fac1be1a3f694"},
		{"ACK", initiator, "c803002b1111111100010002800800000000001480170000003b004bf7825babb9a2e76322c83359bc685c"},
	} {
		b, err := hex.DecodeString(v.hex)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.by.check(b); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		b[len(b)-1] ^= 1
		if v.by.check(b) == nil {
			t.Errorf("%s: right although it was changed", v.name)
		}
	}
	hidden := hide(octets(avpCookie, 1, 2, 3, 4, 5, 6, 7, 8), "l2tp-secret", nonce(0x30), nil)
	if got := hex.EncodeToString(message{avps: []avp{hidden}}.encode()[headerLength:]); got != "c0100000004169eaafe275574f0180f9" {
		t.Errorf("hidden: %s", got)
	}
}
