package control

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// FuzzSignedPeer is FuzzPeer for a peer that knows the secret: whatever it signs,
// what is behind the check of its digest (Section 4.3) holds, hidden AVPs among it.
// The input is messages without digest, each after its length.
func FuzzSignedPeer(f *testing.F) {
	for _, words := range [][]string{
		{"HELLO", "ccid=11"},
		{"ICRQ", "ccid=11", "local=7", "remote=0", "serial=1", "type=5", "end=tenant-a", "circuit=A"},
		{"StopCCN", "ccid=11", "result=1"},
		{"SLI", "ccid=11", "local=900", "remote=13", "circuit=-"},
	} {
		b, err := buildMessage(words)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
	}
	secret := l2tpv3.NewSecret([]byte("s3cret"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, nonce := authenticated(t, "secret=s3cret")
		for n := 0; len(b) > 2 && n < 64; n++ {
			size := min(int(b[0])<<8|int(b[1]), len(b)-2)
			m := withDigest(b[2 : 2+size])
			b = b[2+size:]
			if m == nil {
				continue
			}
			s.fit(m)
			if l2tpv3.Sign(m, peerNonce, nonce, secret) != nil {
				continue
			}
			s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: m})
			s.invariants(t)
			s.now = s.now.Add(300 * time.Millisecond)
			s.e.Advance(s.now)
			s.invariants(t)
		}
		s.survives(t)
	})
}

// TestSignedPeerIsHeard: what FuzzSignedPeer signs gets past the check of the digest.
func TestSignedPeerIsHeard(t *testing.T) {
	s, nonce := authenticated(t, "secret=s3cret")
	b, err := buildMessage([]string{"HELLO", "ccid=11"})
	if err != nil {
		t.Fatal(err)
	}
	m := withDigest(b)
	s.fit(m)
	if err := l2tpv3.Sign(m, peerNonce, nonce, l2tpv3.NewSecret([]byte("s3cret"))); err != nil {
		t.Fatal(err)
	}
	before := s.e.Connections()[0].Nr
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: m})
	if after := s.e.Connections()[0].Nr; after != before+1 {
		t.Errorf("Nr %d, then %d: %v", before, after, s.e.Counters())
	}
}

// withDigest puts an empty Message Digest AVP (Section 5.4.1) behind the Message Type.
func withDigest(m []byte) []byte {
	const behindType, length = 20, 23
	if len(m) < behindType || len(m) > 4096 {
		return nil
	}
	digest := make([]byte, length)
	digest[0], digest[1], digest[5] = 0x80, length, byte(l2tpv3.AVPMessageDigest)
	m = slices.Concat(m[:behindType], digest, m[behindType:])
	m[7] = 11 // the connection there is, whatever the input says
	return m
}

// FuzzMiddle: somebody who sees all that two ends with a secret say, and repeats,
// changes and misdirects it, moves neither of them. Every three octets of the input
// are one thing that is done: to which datagram, where it is changed, and how.
func FuzzMiddle(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 2, 0, 0})
	f.Add([]byte{3, 19, 1, 4, 7, 0x80, 130, 0, 0, 255, 40, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newNetwork(t, 1)
		n.tunnel("gold", withSecret)
		n.session("gold", "tenant-a")
		var seen []Datagram
		n.trace = func(_ *host, d Datagram) {
			if len(seen) < 256 {
				seen = append(seen, Datagram{Path: d.Path, Payload: bytes.Clone(d.Payload)})
			}
		}
		n.start()
		if !n.until(time.Minute, n.up) {
			t.Fatal(n.disagreement())
		}
		type place struct{ local, remote uint32 }
		places := func() (all [2]place) {
			for i, h := range n.hosts {
				for _, c := range h.e.Connections() {
					if c.State == ConnectionEstablished {
						all[i] = place{c.LocalID, c.RemoteID}
					}
				}
			}
			return all
		}
		before := places()
		for ; len(b) >= 3 && n.now.Before(epoch.Add(time.Hour)); b = b[3:] {
			d := seen[int(b[0]&0x7f)%len(seen)]
			payload := bytes.Clone(d.Payload)
			payload[int(b[1])%len(payload)] ^= b[2]
			to, path := n.hosts[0], d.Path
			if to.addr != path.Local.Addr() {
				to = to.peer
			}
			if b[0]&0x80 != 0 { // back to who sent it, as if the other had
				to, path = to.peer, Path{Encapsulation: path.Encapsulation, Local: path.Remote, Remote: path.Local}
			}
			to.e.Receive(n.now, Datagram{Path: path, Payload: payload})
			to.drain()
			n.run(100 * time.Millisecond)
		}
		n.run(5 * time.Minute)
		if !n.up() {
			t.Fatal(n.disagreement())
		}
		if after := places(); after != before {
			t.Errorf("connections were %v and are %v", before, after)
		}
	})
}
