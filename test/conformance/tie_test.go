package conformance

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// rivals are tie breakers of the client, made from the daemon's, and who wins by
// Sections 5.4.3 and 5.4.4: the lower value, as a number in network byte order
// (Section 3.2). The daemon always sends a value, so that never both are absent.
var rivals = []struct {
	name   string
	value  func(v uint64) []avp
	client bool // wins
}{
	{"lowest", func(uint64) []avp { return rival(0) }, true},
	{"lower by one", func(v uint64) []avp { return rival(v - 1) }, true},
	{"higher by one", func(v uint64) []avp { return rival(v + 1) }, false},
	{"highest", func(uint64) []avp { return rival(1<<64 - 1) }, false},
	{"absent", func(uint64) []avp { return nil }, false},
}

func rival(v uint64) []avp {
	return []avp{octets(avpTieBreaker, binary.BigEndian.AppendUint64(nil, v)...)}
}

// ownTie is the value in the daemon's request.
func ownTie(t *testing.T, m message) uint64 {
	t.Helper()
	v := m.value(avpTieBreaker)
	if len(v) != 8 {
		t.Fatalf("%v has no tie breaker: %x", m, m.encode())
	}
	return binary.BigEndian.Uint64(v)
}

// forsaken shows that an attempt of the daemon's is discarded: it is not repeated,
// and an answer to it makes no connection.
func (c *client) forsaken(tunnel string, request *packet) {
	c.t.Helper()
	if p := c.poll(time.Now().Add(2*retransmit), func(p *packet) bool {
		return p.isControl() && p.m.kind() == sccrq && p.m.number(avpAssignedCCID) == request.m.number(avpAssignedCCID)
	}); p != nil {
		c.t.Errorf("Section 5.4.3: the SCCRQ is repeated, of an attempt that was to be discarded")
	}
	n := c.begin(tunnel, request.socket, request)
	n.transmit(n.stamp(newMessage(sccrp, n.identity()...)))
	if p := c.poll(time.Now().Add(retransmit), n.isFor); p != nil && p.m.kind() != stopCCN {
		c.t.Errorf("Section 5.4.3: an answer to an attempt that was to be discarded was answered: %s", describe(p.payload))
	}
}

func TestRule33_5_4_3_ControlConnectionTie(t *testing.T) {
	for _, r := range rivals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, timed())
			request := d.client.request("gold")
			n := d.client.newConnection("gold", d.socket)
			n.transmit(n.request().without(avpTieBreaker).with(r.value(ownTie(t, request.m))...))
			n.ns = 1
			if !r.client {
				// "A StopCCN SHOULD be sent by the winner as an explicit rejection"
				n.stopped(0, 0)
				d.client.reply("gold", d.socket, request).alive()
				return
			}
			n.expect(sccrp)
			n.send(scccn)
			n.delivered()
			d.client.forsaken("gold", request)
			n.alive()
		})
	}
	t.Run("equal", func(t *testing.T) {
		t.Parallel()
		d := start(t, timed())
		request := d.client.request("gold")
		n := d.client.newConnection("gold", d.socket)
		n.transmit(n.request().with(rival(ownTie(t, request.m))...))
		n.ns = 1
		// "both sides MUST discard their control connections and restart [...] with a
		// new, random tie breaker value"
		next := d.client.request("gold")
		if bytes.Equal(next.m.value(avpTieBreaker), request.m.value(avpTieBreaker)) {
			t.Errorf("the same tie breaker again: %s", describe(next.payload))
		}
		if p := d.client.poll(time.Now(), func(p *packet) bool { return n.isFor(p) && p.m.kind() == sccrp }); p != nil {
			t.Errorf("the client's attempt was accepted: %s", describe(p.payload))
		}
		m := d.client.reply("gold", d.socket, next)
		d.client.forsaken("gold", request)
		m.alive()
	})
}

func TestRule34_5_4_4_SessionTie(t *testing.T) {
	for _, r := range rivals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
			n := d.client.open("gold", d.socket)
			request := n.expect(icrq)
			a, call := n.call("a", r.value(ownTie(t, request))...)
			n.transmit(n.stamp(call))
			if r.client {
				a.learn(n.expect(icrp))
				// The winner's: "MUST send a CDN with result code set to 13". The daemon
				// may or may not still know what it asked for.
				lost := &session{n: n, local: n.c.newID()}
				lost.learn(request)
				lost.send(cdn, u16(avpResultCode, resultTieLost))
				a.send(iccn)
				n.delivered()
			} else {
				a.disconnected(resultTieLost, 0)
				a = n.answer(request)
				n.expect(iccn)
			}
			h := d.host("eth1")
			h.receives(a, "to the host")
			a.receives(h, "from the host")
			n.alive()
		})
	}
	t.Run("equal", func(t *testing.T) {
		t.Parallel()
		d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
		n := d.client.open("gold", d.socket)
		request := n.expect(icrq)
		_, call := n.call("a", rival(ownTie(t, request))...)
		n.transmit(n.stamp(call))
		n.aside = []messageType{cdn}
		again := n.expect(icrq)
		if bytes.Equal(again.value(avpTieBreaker), request.value(avpTieBreaker)) {
			t.Errorf("the same tie breaker again: %v", again)
		}
		a := n.answer(again)
		n.expect(iccn)
		d.host("eth1").receives(a, "to the host")
	})
}
