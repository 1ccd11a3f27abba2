package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// secured is a connection with authentication, which the peer opens with the first of the secrets.
type secured struct {
	*performance
	path   Path
	nonce  []byte // ours
	secret string
}

// secure opens one, with a session "a" that awaits the peer's answer.
func secure(t *testing.T, e l2tpv3.Encapsulation, secrets ...string) *secured {
	t.Helper()
	x := &secured{performance: perform(t, e), path: fromPeer, secret: secrets[0]}
	if e == l2tpv3.IP {
		x.path = Path{Encapsulation: e, Local: addrPort("192.0.2.1:0"), Remote: addrPort("192.0.2.2:0")}
	}
	x.play("tunnel gold/dc2 secret=" + strings.Join(secrets, " secret=") + "\nsession gold/dc2 a cookie=8")
	x.give(signed(t, "SCCRQ host=gold.dc2 router=1 assigned=77 caps=5 tie=1"+peerNonceText, nil, nil, 0, secrets[0]))
	c := x.s.e.connections[11]
	if c == nil {
		t.Fatalf("the SCCRQ is not answered: %v", x.s.e.Counters())
	}
	x.nonce = c.auth.localNonce
	x.sends("SCCRP ccid=77 ns=0 nr=1")
	x.send("SCCCN ccid=11 ns=1 nr=1")
	x.sends("ICRQ ccid=77 ns=1 nr=2 local=13")
	return x
}

func (x *secured) give(b []byte) { x.s.e.Receive(x.s.now, Datagram{Path: x.path, Payload: b}) }

// send is a message of the peer's, with a digest for each secret; the right one if none is given.
func (x *secured) send(words string, secrets ...string) {
	x.t.Helper()
	if len(secrets) == 0 {
		secrets = []string{x.secret}
	}
	x.give(signed(x.t, words, peerNonce, x.nonce, 0, secrets...))
}

// sends expects messages, and no others, with a digest that is right in each: the second AVP, computed
// with our nonce before the peer's (Section 5.4.1).
func (x *secured) sends(messages ...string) {
	x.t.Helper()
	for _, o := range x.s.outputs() {
		o, ok := o.(*Transmit)
		if !ok {
			continue
		}
		x.judge(o)
		m, err := l2tpv3.Parse(o.Payload)
		if err != nil {
			x.t.Fatal(err)
		}
		if _, ok := m.AVPs[1].(l2tpv3.MessageDigest); !ok {
			x.t.Errorf("rule 28: the second AVP of %s is no digest", describe(o.Payload))
		}
		if err := l2tpv3.Verify(o.Payload, x.nonce, peerNonce, l2tpv3.NewSecret([]byte(x.secret))); err != nil {
			x.t.Errorf("rule 28: %s: %v", describe(o.Payload), err)
		}
		x.got = append(x.got, "> "+describe(o.Payload))
	}
	for _, m := range messages {
		x.expect(append([]string{">"}, strings.Fields(m)...))
	}
	x.nothing()
}

// everyMessageHasADigest is rule 28: the SCCRQ's is without nonces, all others' with both.
func everyMessageHasADigest(t *testing.T, e l2tpv3.Encapsulation) {
	x := secure(t, e, "s3cret")
	x.send("ICRP ccid=11 ns=2 nr=2 local=900 remote=13 circuit=A")
	x.sends("ICCN ns=2 nr=3")
	x.send("HELLO ccid=11 ns=3 nr=3")
	x.sends("ACK ns=3 nr=4")
	x.send("CDN ccid=11 ns=4 nr=3 result=3 local=900 remote=13")
	x.sends("ACK ns=3 nr=5")
	x.send("StopCCN ccid=11 ns=5 nr=3 result=6 assigned=77")
	x.sends("ACK ns=3 nr=6")

	p := perform(t, e)
	for _, words := range [][]string{{"tunnel", "gold/dc2", "secret=s3cret"}, {"advance", "0s"}} {
		if err := p.do(words); err != nil {
			t.Fatal(err)
		}
	}
	deadline, _ := p.s.e.Deadline()
	p.s.now = deadline
	p.s.e.Advance(deadline)
	requests := 0
	for _, o := range p.s.outputs() {
		if o, ok := o.(*Transmit); ok {
			requests++
			if err := l2tpv3.Verify(o.Payload, nil, nil, l2tpv3.NewSecret([]byte("s3cret"))); err != nil {
				t.Errorf("%s: %v", describe(o.Payload), err)
			}
		}
	}
	if requests != 1 {
		t.Errorf("%d SCCRQs were sent, not 1", requests)
	}
}

// wrongDigestOrNone is rule 29: such a message does not even acknowledge.
func wrongDigestOrNone(t *testing.T, e l2tpv3.Encapsulation) {
	x := secure(t, e, "s3cret")
	forged := []string{
		"HELLO ccid=11 ns=2 nr=2", "StopCCN ccid=11 ns=2 nr=2 result=6 assigned=77", "ACK ccid=11 ns=2 nr=2",
		"ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A tie=0",
	}
	before := x.s.e.Counters()["unauthenticated"]
	for _, m := range forged {
		x.send(m, "another")
		b, err := buildMessage(strings.Fields(m))
		if err != nil {
			t.Fatal(err)
		}
		x.give(b)
		x.sends()
	}
	if n := x.s.e.Counters()["unauthenticated"] - before; n != uint64(2*len(forged)) {
		t.Errorf("%d messages were counted as not authenticated, of %d", n, 2*len(forged))
	}
	if c := x.s.e.Connections()[0]; c.State != ConnectionEstablished || c.Nr != 2 || c.Unacknowledged != 1 {
		t.Errorf("the connection is %v, Nr %d, %d unacknowledged: a forgery changed it", c.State, c.Nr, c.Unacknowledged)
	}
	// What they acknowledged is sent again all the same.
	x.s.now, _ = x.s.e.Deadline()
	x.s.e.Advance(x.s.now)
	x.sends("ICRQ ns=1 nr=2")
}

// twoDigests is rule 30: one of them being right is enough, with either of two secrets.
func twoDigests(t *testing.T, e l2tpv3.Encapsulation) {
	x := secure(t, e, "s3cret", "new")
	for i, secrets := range [][]string{{"s3cret", "wrong"}, {"wrong", "s3cret"}, {"new"}, {"s3cret"}} {
		x.send(fmt.Sprintf("HELLO ccid=11 ns=%d nr=2", 2+i), secrets...)
		x.sends(fmt.Sprintf("ACK ns=2 nr=%d", 3+i))
	}
	x.send("HELLO ccid=11 ns=6 nr=2", "wrong", "other")
	x.sends()
}

// zlbWithAuthentication is rule 31: a ZLB has no digest, and so acknowledges nothing.
func zlbWithAuthentication(t *testing.T, e l2tpv3.Encapsulation) {
	x := secure(t, e, "s3cret")
	b, err := buildMessage(strings.Fields("ZLB ccid=11 ns=2 nr=2"))
	if err != nil {
		t.Fatal(err)
	}
	x.give(b)
	x.sends()
	x.s.now, _ = x.s.e.Deadline()
	x.s.e.Advance(x.s.now)
	x.sends("ICRQ ns=1 nr=2")
	x.send("ACK ccid=11 ns=2 nr=2")
	if n := x.s.e.Connections()[0].Unacknowledged; n != 0 {
		t.Errorf("%d messages are unacknowledged after an ACK", n)
	}
}

// hiddenAVPs is rule 32: a session is as if nothing were hidden, with any padding, and with the
// Random Vector that came last (Section 5.4.1).
func hiddenAVPs(t *testing.T, e l2tpv3.Encapsulation) {
	key := l2tpv3.NewSecret([]byte("s3cret"))
	for padding := range 41 {
		x := secure(t, e, "s3cret")
		m := l2tpv3.NewMessage(l2tpv3.ICRP)
		m.ControlConnectionID, m.Ns, m.Nr = 11, 2, 2
		for i, a := range []l2tpv3.AVP{l2tpv3.LocalSessionID(900), l2tpv3.RemoteSessionID(13), l2tpv3.AssignedCookie("\x01\x02\x03\x04\x05\x06\x07\x08")} {
			vector := l2tpv3.RandomVector(fmt.Sprintf("0123456789abcde%d", i/2)) // two of them
			if i != 1 {
				m.AVPs = append(m.AVPs, vector)
			}
			h, err := key.Hide(a, vector, make([]byte, padding))
			if err != nil {
				t.Fatal(err)
			}
			m.AVPs = append(m.AVPs, h)
		}
		m.AVPs = append(m.AVPs, l2tpv3.CircuitStatus(1))
		x.give(sign(t, m, peerNonce, x.nonce, 0, "s3cret"))
		x.sends("ICCN local=13 remote=900")
		if s := x.s.e.Sessions()[0]; s.State != SessionEstablished || string(s.RemoteCookie) != "\x01\x02\x03\x04\x05\x06\x07\x08" {
			t.Fatalf("%d octets of padding: the session is %v, its cookie %x", padding, s.State, s.RemoteCookie)
		}
	}
}
