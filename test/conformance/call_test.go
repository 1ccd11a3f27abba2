package conformance

import (
	"slices"
	"testing"
	"time"
)

func TestRule35_5_4_4_PseudowireTypeThatWasNotAdvertised(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	n.transmit(n.request())
	advertised := capabilities(n.answered())
	n.send(scccn)
	n.delivered()
	n.decline(1)
	for _, kind := range []uint16{ethernetVLAN, hdlc, 0, 0xffff} {
		if slices.Contains(advertised, kind) {
			continue
		}
		for _, end := range []string{"a", "nobody"} {
			s, call := n.call(end, u16(avpPseudowireType, kind))
			n.transmit(n.stamp(call))
			s.disconnected(resultType, 0)
		}
	}
	n.open("a")
	n.alive()
}

func TestRule35_5_4_4_TypeThatTheClientDoesNotAdvertise(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	// "A peer MUST NOT request" it: no ICRQ comes.
	n := d.client.open("gold", d.socket, u16(avpCapabilities, ethernetVLAN, hdlc))
	for range 5 {
		n.alive()
	}
	n.quiet(time.Second)
}

func TestRule35_5_4_4_SequencingWithoutSublayer(t *testing.T) {
	for _, c := range []struct {
		name string
		avps []avp
	}{
		{"level 1", []avp{u16(avpSequencing, 1)}},
		{"level 2", []avp{u16(avpSequencing, 2)}},
		{"level 2 and sublayer 0", []avp{u16(avpSequencing, 2), u16(avpSublayer, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
			n := d.client.open("gold", d.socket)
			n.answer(n.expect(icrq), c.avps...).disconnected(resultSequencing, 0)
			n.aside = []messageType{icrq} // it may try again
			s, call := n.call("a", append(c.avps, tieBreaker)...)
			n.transmit(n.stamp(call))
			s.disconnected(resultSequencing, 0)
			s, call = n.call("a", tieBreaker)
			n.transmit(n.stamp(call))
			s.learn(n.expect(icrp))
			s.send(iccn, c.avps...)
			s.disconnected(resultSequencing, 0)
			n.open("a")
			n.alive()
		})
	}
}

func TestRule39_5_4_4_ReverseLookUp(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}, {name: "b", circuit: "eth2"}}})
	n := d.client.open("gold", d.socket)
	n.decline(2)
	n.aside = []messageType{icrq}
	b := n.open("b")
	h := d.host("eth1")

	// The client does not know the daemon's ID before the ICRP; then it just says so.
	a, call := n.call("a", tieBreaker)
	unknown := func(avps ...avp) []avp {
		return append([]avp{u32(avpLocalSessionID, a.local), u32(avpRemoteSessionID, 0)}, avps...)
	}
	n.transmit(n.stamp(call))
	n.send(sli, unknown(u16(avpCircuitStatus, 0))...)
	a.learn(n.expect(icrp))
	a.send(iccn)
	n.delivered()
	h.floods("while the circuit is not active")
	n.send(sli, unknown(u16(avpCircuitStatus, circuitActive))...)
	n.acked()
	a.receives(h, "while it is active")
	n.send(sli, unknown(u16(avpCircuitStatus, 0))...)
	n.acked()
	h.floods("while it is not active any more")

	n.send(cdn, unknown(u16(avpResultCode, resultAdministered))...)
	n.acked() // no CDN in reply
	// It is closed: its ID is free to be used again.
	again, call := n.call("a", u32(avpLocalSessionID, a.local), tieBreaker)
	again.local = a.local
	n.transmit(n.stamp(call))
	again.connect()
	again.receives(h, "in a new session")
	b.receives(d.host("eth2"), "in the other session")

	// In wait-connect, too.
	again.send(cdn, u16(avpResultCode, resultAdministered))
	n.delivered()
	a, call = n.call("a", tieBreaker)
	n.transmit(n.stamp(call))
	n.send(cdn, unknown(u16(avpResultCode, resultAdministered))...)
	n.expect(icrp)
	n.delivered()
	n.open("a")
}

func TestRule40_4_7_3_FallbackSCCRQ(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	request := newMessage(sccrq,
		// Mandatory in L2TPv2 (RFC 2661, Section 6.1), some of them in no L2TPv3.
		octets(avpProtocolVersion, 1, 0), text(avpHostName, "gold.dc2"), u32(avpFramingCaps, 3), u16(avpAssignedTunnelID, 0x1234),
		// Optional there.
		u32(4, 3), u16(6, 1).optional(), octets(11, 1, 2, 3, 4, 5, 6, 7, 8), tieBreaker, u16(avpReceiveWindow, 8),
		// Of L2TPv3 only.
		u32(avpRouterID, 1).optional(), u32(avpAssignedCCID, n.local).optional(), u16(avpCapabilities, ethernet).optional(),
	)
	request.bits = 0xc802
	n.transmit(request)
	n.answered() // in Ver 3, as everything that comes (see judge)
	n.send(scccn)
	n.delivered()
	h := d.host("eth1")
	h.receives(n.accept(), "to the host")
	n.alive()
}

// The further rules beside rule 40.
func TestRule40_7_3_2_MessagesInTheWrongState(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(s *session)
	}{
		{"ICRQ", func(s *session) {
			_, call := s.n.call("a", u32(avpLocalSessionID, s.local))
			s.n.transmit(s.n.stamp(call))
		}},
		{"ICRP", func(s *session) { s.send(icrp, u16(avpCircuitStatus, circuitActive)) }},
		{"ICCN", func(s *session) { s.send(iccn) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 4, circuit: "eth1"}, {name: "b", circuit: "eth2"}}})
			n := d.client.open("gold", d.socket)
			n.decline(2)
			b := n.open("b")
			a := n.open("a")
			h := d.host("eth1")
			h.receives(a, "before")
			c.send(a)
			a.disconnected(0, 0)
			a.transmit(frame("after"))
			d.survives(b)
			h.receives(n.open("a"), "in a new session")
		})
	}
}
