package conformance

import (
	"bytes"
	"testing"
	"time"
)

const secret = "s3cret"

// authenticated is a daemon with a secret and a pseudowire.
func authenticated() options {
	return options{secrets: []string{secret}, pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}, retransmit: "1s"}
}

// Every message of the daemon's is checked as it is taken, see connection.authentic.
func TestRule28_5_4_1_EveryMessageHasADigest(t *testing.T) {
	for name, a := range map[string]algorithm{"HMAC-MD5": hmacMD5, "HMAC-SHA-1": hmacSHA1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := authenticated()
			o.hello = "1s"
			d := start(t, o)
			d.client.algorithm = a
			n := d.client.accept("gold", d.socket) // SCCRQ without nonces, SCCCN with both
			s := n.accept()                        // ICRQ, ICCN, ACK
			n.expect(hello)
			s.send(sli, u16(avpCircuitStatus, 0))
			n.delivered()
			s.send(cdn, u16(avpResultCode, resultAdministered))
			n.delivered()
			other, call := n.call("nobody")
			n.transmit(n.stamp(call))
			other.disconnected(resultNoForwarder, 0)
			d.apply(options{secrets: o.secrets, tunnels: []string{"silver"}})
			n.expect(stopCCN)
		})
	}
}

// What is not authentic does not exist: no answer, no acknowledgment, and its Nr
// acknowledges nothing.
func TestRule29_5_4_1_WrongDigestOrNone(t *testing.T) {
	t.Parallel()
	d := start(t, authenticated())
	n := d.client.open("gold", d.socket)
	s := n.accept()
	forgeries := map[string]func(message) []byte{
		"no digest":      message.encode,
		"another secret": func(m message) []byte { return n.auth.sign(m, "guess") },
		"other nonces": func(m message) []byte {
			return (&authentication{secret: secret, local: n.auth.remote, remote: n.auth.local}).sign(m, secret)
		},
		"no nonces":     func(m message) []byte { return (&authentication{secret: secret}).sign(m, secret) },
		"a bit changed": func(m message) []byte { b := n.seal(m); b[len(b)-1] ^= 1; return b },
	}
	n.silent = true
	// Something of the daemon's that is not acknowledged: a forged Nr must not do so.
	_, call := n.call("nobody")
	n.transmit(n.stamp(call))
	refusal := n.next("a CDN")
	for refusal.kind() == iccn { // a repetition of what is acknowledged already
		refusal = n.next("a CDN")
	}
	for _, seal := range forgeries {
		for _, kind := range []messageType{hello, stopCCN, sli, cdn, ack} {
			m := newMessage(kind)
			switch kind {
			case stopCCN:
				m = m.with(u16(avpResultCode, 1), u32(avpAssignedCCID, n.local))
			case sli:
				m = m.with(s.ids(u16(avpCircuitStatus, 0))...)
			case cdn:
				m = m.with(s.ids(u16(avpResultCode, resultAdministered))...)
			}
			m.ccid, m.ns, m.nr = n.peer, n.ns, n.nr+1
			n.socket.send(n.port, seal(m))
		}
	}
	again := n.next("the CDN again")
	if refusal.kind() != cdn || again.kind() != cdn || again.ns != refusal.ns {
		t.Errorf("after forgeries came %v, before them %v", again, refusal)
	}
	n.silent = false
	n.receive(again)
	n.alive()
	d.host("eth1").receives(s, "through")
}

// Section 5.4.1: "If two Message Digest AVPs are present, [...] valid if either is".
func TestRule30_5_4_1_TwoDigests(t *testing.T) {
	for _, c := range []struct {
		name           string
		daemon, client []string
		known          string
	}{
		{"the first is valid", []string{secret}, []string{secret, "old"}, secret},
		{"the second is valid", []string{secret}, []string{"new", secret}, secret},
		{"the daemon has two, the first is used", []string{"new", "old"}, []string{"new"}, "new"},
		{"the daemon has two, the second is used", []string{"new", "old"}, []string{"old"}, "old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := authenticated()
			o.secrets = c.daemon
			d := start(t, o)
			d.client.secret = c.known
			n := d.client.newConnection("gold", d.socket)
			n.auth.also = c.client
			n.transmit(n.request())
			n.answered()
			n.send(scccn)
			n.delivered()
			n.accept()
			n.alive()
		})
	}
}

// Section 6.15: with authentication a ZLB, which has no digest, acknowledges nothing.
func TestRule31_6_15_ZLBWithAuthentication(t *testing.T) {
	t.Parallel()
	d := start(t, authenticated())
	n := d.client.open("gold", d.socket)
	n.silent = true
	first := n.next("an ICRQ")
	empty := message{ccid: n.peer, ns: n.ns, nr: first.ns + 1}
	n.socket.send(n.port, empty.encode())
	if again := n.next("the ICRQ again"); again.kind() != icrq || again.ns != first.ns {
		t.Errorf("after a ZLB came %v, before it %v", again, first)
	}
	n.silent = false
	n.receive(first)
	n.alive()
}

// Section 5.3: what is hidden is as what is not, whatever the padding, under the
// Random Vector that is closest before it.
func TestRule32_5_3_HiddenAVPs(t *testing.T) {
	for padding := 0; padding <= 40; padding += 10 {
		t.Run("padding of "+string(rune('0'+padding/10))+"0 octets", func(t *testing.T) {
			t.Parallel()
			d := start(t, authenticated())
			n := d.client.open("gold", d.socket)
			n.decline(1)
			one, two := bytes.Repeat([]byte{0xa5}, 16), bytes.Repeat([]byte{0x5a}, 20)
			pad := bytes.Repeat([]byte{0xff}, padding)
			s, call := n.call("a", octets(avpCookie, 1, 2, 3, 4, 5, 6, 7, 8))
			m := message{avps: []avp{call.avps[0], octets(avpRandomVector, one...)}}
			for _, a := range call.avps[1:] {
				switch a.kind {
				case avpLocalSessionID:
					m.avps = append(m.avps, hide(a, secret, one, pad), octets(avpRandomVector, two...))
				case avpRemoteEndID, avpCookie:
					m.avps = append(m.avps, hide(a, secret, two, pad))
				default:
					m.avps = append(m.avps, a)
				}
			}
			n.transmit(n.stamp(m))
			s.connect()
			h := d.host("eth1")
			h.receives(s, "in")
			s.receives(h, "out")
		})
	}
}

// A daemon with a secret lets nobody in that has none, and says nothing to them.
func TestRule29_4_3_StrangerToTheSecret(t *testing.T) {
	t.Parallel()
	d := start(t, authenticated())
	n := d.client.newConnection("gold", d.socket)
	request := n.request()
	d.socket.send(port, request.without(avpNonce).encode())
	d.socket.send(port, request.encode())
	d.socket.send(port, n.auth.sign(request, "guess"))
	if p := d.client.poll(time.Now().Add(time.Second), n.isFor); p != nil {
		t.Errorf("answered: %s", describe(p.payload))
	}
	m := d.client.open("gold", d.socket)
	m.decline(1)
	m.alive()
}
