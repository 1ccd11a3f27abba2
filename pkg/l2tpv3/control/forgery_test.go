package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// TestForgeries: with authentication, what an attacker can send on a connection has no
// effect but on the counter that is its own, exactly (Section 4.3).
func TestForgeries(t *testing.T) {
	s, nonce := authenticated(t, "secret=s3cret")
	forged := func(words string, secrets ...string) []byte {
		if len(secrets) > 0 {
			return signed(t, words, peerNonce, nonce, 0, secrets...)
		}
		b, err := buildMessage(strings.Fields(words))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	genuine := forged("HELLO ccid=11 ns=2 nr=1", "s3cret")
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: genuine})
	s.outputs()
	flipped := slices.Clone(genuine)
	flipped[len(flipped)-1] ^= 1
	short, long := slices.Clone(genuine), slices.Clone(genuine)
	binary.BigEndian.PutUint16(short[2:], 3)
	binary.BigEndian.PutUint16(long[2:], uint16(len(long)+1))
	avp := slices.Clone(genuine)
	avp[12], avp[13] = avp[12]|3, 0xff // the first AVP is longer than the message
	bomb := l2tpv3.NewMessage(l2tpv3.Hello)
	bomb.ControlConnectionID, bomb.Ns, bomb.Nr = 11, 3, 1
	for range 5000 {
		bomb.AVPs = append(bomb.AVPs, l2tpv3.RouterID(1<<20))
	}
	bombOctets, err := bomb.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	hidden := l2tpv3.NewMessage(l2tpv3.StopCCN, l2tpv3.RandomVector("0123456789abcdef"),
		l2tpv3.RawAVP{Type: l2tpv3.AVPAssignedControlConnectionID, Mandatory: true, Hidden: true, Value: bytes.Repeat([]byte{0xff}, 1000)})
	hidden.ControlConnectionID, hidden.Ns, hidden.Nr = 11, 3, 1
	hiddenOctets, err := hidden.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, port := fromPeer, fromPeer
	elsewhere.Remote, port.Remote = addrPort("198.51.100.66:4321"), addrPort("192.0.2.2:4322")
	const times = 50
	before := s.e.Connections()[0]
	for _, row := range []struct {
		name    string
		path    Path
		payload func(i int) []byte
		counter string
	}{
		{"StopCCN, no digest", fromPeer, func(int) []byte { return forged("StopCCN ccid=11 ns=3 nr=1 result=6") }, "unauthenticated"},
		{"StopCCN, another secret", fromPeer, func(int) []byte { return forged("StopCCN ccid=11 ns=3 nr=1 result=6", "guess") }, "unauthenticated"},
		{"CDN, no digest", fromPeer, func(int) []byte { return forged("CDN ccid=11 ns=3 nr=1 result=3 local=900 remote=12") }, "unauthenticated"},
		{"CDN, another secret", fromPeer, func(int) []byte { return forged("CDN ccid=11 ns=3 nr=1 result=3 local=900 remote=12", "guess") }, "unauthenticated"},
		{"a changed octet", fromPeer, func(int) []byte { return flipped }, "unauthenticated"},
		{"an AVP bomb", fromPeer, func(int) []byte { return bombOctets }, "unauthenticated"},
		{"a huge hidden AVP", fromPeer, func(int) []byte { return hiddenOctets }, "unauthenticated"},
		{"a replay", fromPeer, func(int) []byte { return genuine }, "duplicate"},
		{"a Length that is too short", fromPeer, func(int) []byte { return short }, "malformed"},
		{"a Length that is too long", fromPeer, func(int) []byte { return long }, "malformed"},
		{"an AVP that is too long", fromPeer, func(int) []byte { return avp }, "malformed"},
		{"guessed IDs, off the path", elsewhere, func(i int) []byte { return forged(fmt.Sprintf("StopCCN ccid=%d ns=3 nr=1 result=6", 1000+i)) }, "unknown-connection"},
		{"the ID, off the path", elsewhere, func(int) []byte { return forged("StopCCN ccid=11 ns=3 nr=1 result=6", "s3cret") }, "wrong-peer"},
		{"the ID, another port", port, func(int) []byte { return forged("StopCCN ccid=11 ns=3 nr=1 result=6", "s3cret") }, "wrong-port"},
	} {
		was := s.e.Counters()
		for i := range times {
			s.e.Receive(s.now, Datagram{Path: row.path, Payload: row.payload(i)})
		}
		sent := uint64(len(s.sent()))
		for name, n := range s.e.Counters() {
			var want uint64
			switch name {
			case "received", row.counter:
				want = times
			case "transmitted":
				// Who repeats gets an acknowledgment again; nobody else gets anything.
				if want = 0; row.counter == "duplicate" {
					want = times
				}
				if sent != want {
					t.Errorf("%s: %d messages sent, not %d", row.name, sent, want)
				}
			}
			if n-was[name] != want {
				t.Errorf("%s: %s counted %d, not %d", row.name, name, n-was[name], want)
			}
		}
		c := s.e.Connections()[0]
		if c.State != ConnectionEstablished || c.LocalID != before.LocalID || c.Ns != before.Ns || c.Nr != before.Nr {
			t.Fatalf("%s: %v, Ns %d, Nr %d: %s", row.name, c.State, c.Ns, c.Nr, c.Reason)
		}
	}
}
