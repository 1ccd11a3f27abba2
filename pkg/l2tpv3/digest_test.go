package l2tpv3

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// signedMessages are signed with testSecret; A opens with nonceA, B answers with
// nonceB. They were calculated by another implementation, and another checked them.
var signedMessages = []struct {
	name             string
	sender, receiver []byte
	wire             string
}{
	{"MD5 SCCRQ", nil, nil, "c803006a0000000000000000800800000000000180170000003b00f8b757ab44812e8ed26f0a2b84cbe866801600000049101112131415161718191a1b1c1d1e1f800b000000076c63636541800a0000003cc0000201800a0000003d11111111800a0000003e00040005"},
	{"MD5 SCCRP", nonceB, nonceA, "c803006a1111111100000001800800000000000280170000003b00e9f8fa8e9673431329d9a176f0f82fa5801600000049a0a1a2a3a4a5a6a7a8a9aaabacadaeaf800b000000076c63636542800a0000003cc0000202800a0000003d22222222800a0000003e00040005"},
	{"MD5 SCCCN", nonceA, nonceB, "c803002b2222222200010001800800000000000380170000003b006828ea99bd776381573fac1be1a3f694"},
	{"MD5 ACK", nonceB, nonceA, "c803002b1111111100010002800800000000001480170000003b004bf7825babb9a2e76322c83359bc685c"},
	{"SHA-1 SCCRQ", nil, nil, "c803006e00000000000000008008000000000001801b0000003b01da206d1b2d698f0b5f80ebeb2acd046d1b217566801600000049101112131415161718191a1b1c1d1e1f800b000000076c63636541800a0000003cc0000201800a0000003d11111111800a0000003e00040005"},
	{"SHA-1 SCCRP", nonceB, nonceA, "c803006e11111111000000018008000000000002801b0000003b013418c1758c3808652414382f5399b34368d96d4f801600000049a0a1a2a3a4a5a6a7a8a9aaabacadaeaf800b000000076c63636542800a0000003cc0000202800a0000003d22222222800a0000003e00040005"},
	{"SHA-1 SCCCN", nonceA, nonceB, "c803002f22222222000100018008000000000003801b0000003b0118b7795df3cf47969c993a697455beb36fbebaee"},
	{"SHA-1 ACK", nonceB, nonceA, "c803002f11111111000100028008000000000014801b0000003b01fbfd981fec9db5d5cce7cdebc1006fbc111f2045"},
}

// integritySCCRQ is signed with the empty secret and no nonces (Section 4.3).
const integritySCCRQ = "c80300540000000000000000800800000000000180170000003b0046f9aa34ad275fc0da0b1c4ab1f15b2a800b000000076c63636541800a0000003cc0000201800a0000003d11111111800a0000003e00040005"

// Sections 5.3 and 5.4.1: HMAC_MD5 (shared_secret, 1) and (shared_secret, 2).
func TestKeys(t *testing.T) {
	for _, c := range []struct{ secret, hide, auth string }{
		{"l2tp-secret", "01fe8c1d9e344eb9b6daf6aa00679285", "490be2c411b81d65e398056d887bb495"},
		{"", "b41153dc48510aeee089ee50d9574434", "7b6085fbf45933670abcb07a27fcea5e"},
	} {
		s := NewSecret([]byte(c.secret))
		if !bytes.Equal(s.hideKey[:], octets(c.hide)) || !bytes.Equal(s.authKey[:], octets(c.auth)) {
			t.Errorf("%q gives %x and %x", c.secret, s.hideKey, s.authKey)
		}
	}
}

func TestVerify(t *testing.T) {
	secret, other := NewSecret(testSecret), NewSecret([]byte("other"))
	for _, c := range signedMessages {
		t.Run(c.name, func(t *testing.T) {
			b := octets(c.wire)
			if err := Verify(b, c.sender, c.receiver, secret); err != nil {
				t.Error(err)
			}
			// Section 5.4.1: two secrets, either may be the one.
			if err := Verify(b, c.sender, c.receiver, other, secret); err != nil {
				t.Errorf("with two secrets: %v", err)
			}
			if err := Verify(append(slices.Clone(b), 0, 0), c.sender, c.receiver, secret); err != nil {
				t.Errorf("with octets beyond Length: %v", err)
			}
			for name, err := range map[string]error{
				"wrong secret": Verify(b, c.sender, c.receiver, other),
				"no secret":    Verify(b, c.sender, c.receiver),
				"wrong nonce":  Verify(b, []byte("wrong"), c.receiver, secret),
			} {
				if !errors.Is(err, ErrDigest) {
					t.Errorf("%s: %v", name, err)
				}
			}
			// The order is the sender's nonce, then the receiver's.
			if c.sender != nil {
				if err := Verify(b, c.receiver, c.sender, secret); !errors.Is(err, ErrDigest) {
					t.Errorf("nonces swapped: %v", err)
				}
			}
		})
	}
	if err := Verify(octets(integritySCCRQ), nil, nil, NewSecret(nil)); err != nil {
		t.Errorf("integrity check: %v", err)
	}
}

// No bit of a signed message can change, Ns and Nr included.
func TestVerifyEveryBit(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, c := range signedMessages {
		b := octets(c.wire)
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			if err := Verify(b, c.sender, c.receiver, secret); err == nil {
				t.Errorf("%s: bit %d of octet %d changed, still valid", c.name, i%8, i/8)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

// What Sign fills in is what the vectors have.
func TestSign(t *testing.T) {
	secret := NewSecret(testSecret)
	for _, c := range signedMessages {
		m, err := Parse(octets(c.wire))
		if err != nil {
			t.Fatal(err)
		}
		d, ok := Find[MessageDigest](m)
		if !ok {
			t.Fatalf("%s: no digest", c.name)
		}
		m.AVPs[1] = NewMessageDigest(d.Algorithm)
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Sign(b, c.sender, c.receiver, secret); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, octets(c.wire)) {
			t.Errorf("%s: signed\n%x, want\n%s", c.name, b, c.wire)
		}
	}
}

// Section 5.4.1: two digests, for a change of the secret or of the algorithm. Both
// are zero while each is calculated; one that is valid suffices.
func TestTwoDigests(t *testing.T) {
	before, after := NewSecret([]byte("before")), NewSecret([]byte("after"))
	for _, algorithms := range [][2]DigestAlgorithm{{HMACMD5, HMACMD5}, {HMACMD5, HMACSHA1}, {HMACSHA1, HMACMD5}} {
		m := NewMessage(Hello, NewMessageDigest(algorithms[0]), NewMessageDigest(algorithms[1]))
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Sign(b, nonceA, nonceB, before, after); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Secret{before, after} {
			if err := Verify(b, nonceA, nonceB, s); err != nil {
				t.Errorf("%v: %v", algorithms, err)
			}
		}
		if err := Verify(b, nonceA, nonceB, NewSecret([]byte("neither"))); !errors.Is(err, ErrDigest) {
			t.Errorf("%v with neither secret: %v", algorithms, err)
		}
		// The digests are no part of what is signed, so each may be broken alone.
		broken := slices.Clone(b)
		broken[27] ^= 1
		if err := Verify(broken, nonceA, nonceB, after); err != nil {
			t.Errorf("%v, first digest broken: %v", algorithms, err)
		}
		if err := Verify(broken, nonceA, nonceB, before); !errors.Is(err, ErrDigest) {
			t.Errorf("%v, first digest broken: %v", algorithms, err)
		}
	}
	// One secret signs both.
	b, err := NewMessage(Hello, NewMessageDigest(HMACMD5), NewMessageDigest(HMACSHA1)).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sign(b, nonceA, nonceB, after); err != nil {
		t.Fatal(err)
	}
	b[27] ^= 1
	if err := Verify(b, nonceA, nonceB, after); err != nil {
		t.Errorf("the second of two: %v", err)
	}
}

// A digest type that is not known is passed over, and zeroed like the other.
func TestUnknownDigestType(t *testing.T) {
	secret := NewSecret(testSecret)
	m := NewMessage(Hello, MessageDigest{Algorithm: 2, Digest: make([]byte, 32)}, NewMessageDigest(HMACMD5))
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sign(b, nil, nil, secret); !errors.Is(err, ErrLength) {
		t.Errorf("signing an unknown type: %v", err)
	}
	// What a peer that knows type 2 sends: the MD5 digest over zeros in both.
	md5 := b[len(b)-16:]
	f, err := findDigests(b)
	if err != nil {
		t.Fatal(err)
	}
	copy(md5, secret.digest(HMACMD5, f, nil, nil))
	for i := range 32 {
		b[27+i] = 0xee
	}
	if err := Verify(b, nil, nil, secret); err != nil {
		t.Error(err)
	}
}

// Section 5.4.1: the digest is directly after the Message Type, or there is none.
func TestNoDigest(t *testing.T) {
	digest := "8017 0000 003b 00 0102030405060708090a0b0c0d0e0f10"
	for _, c := range []struct {
		name string
		wire []byte
		want error
	}{
		{"ZLB", message(), ErrNoDigest},
		{"without", message("8008 0000 0000 0006"), ErrNoDigest},
		{"before the Message Type", message(digest, "8008 0000 0000 0006"), ErrNoDigest},
		{"third", message("8008 0000 0000 0006", "800a 0000 003c 0000 0001", digest), ErrNoDigest},
		{"hidden", message("8008 0000 0000 0006", "c"+digest[1:]), ErrNoDigest},
		{"another vendor's", message("8008 0000 0000 0006", "8017 0009 003b 00 0102030405060708090a0b0c0d0e0f10"), ErrNoDigest},
		{"empty", message("8008 0000 0000 0006", "8006 0000 003b"), ErrNoDigest},
		{"beyond the message", message("8008 0000 0000 0006", "8017 0000 003b 00"), ErrNoDigest},
		{"of a type of the future, without octets", message("8008 0000 0000 0006", "8007 0000 003b 02"), ErrDigest},
		{"of the last type, without octets", message("8008 0000 0000 0006", "8007 0000 003b ff"), ErrDigest},
		{"too short for its type", message("8008 0000 0000 0006", "8008 0000 003b 00 01"), ErrDigest},
		{"not valid", message("8008 0000 0000 0006", digest), ErrDigest},
		{"malformed header", octets("c803 00ff 0000 0000 0000 0000"), ErrLength},
		{"nothing", nil, ErrShort},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Verify(c.wire, nil, nil, NewSecret(testSecret)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want == ErrNoDigest {
				if err := Sign(c.wire, nil, nil, NewSecret(testSecret)); !errors.Is(err, c.want) {
					t.Errorf("signing: %v, want %v", err, c.want)
				}
			}
		})
	}
	if err := Sign(message("8008 0000 0000 0006", digest), nil, nil); !errors.Is(err, ErrDigest) {
		t.Errorf("signing without secret: %v", err)
	}
}
