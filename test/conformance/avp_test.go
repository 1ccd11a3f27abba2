package conformance

import (
	"fmt"
	"slices"
	"testing"
)

func TestRule11_5_2_UnknownOptionalAVPsAreIgnored(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	extra := unknown(false)
	// Section 5.1: several of these, whose M bit has to be 0.
	for range 2 {
		extra = append(extra, avp{kind: avpExtendedVendor, value: []byte{0, 1, 0, 0, 0, 7, 'x'}})
	}
	add := func(m message) message { m.avps = append(m.avps, extra...); return m }

	n := d.client.newConnection("gold", d.socket)
	n.transmit(add(n.request()))
	n.answered()
	n.transmit(add(n.stamp(newMessage(scccn))))
	n.delivered()
	n.decline(1)
	a, call := n.call("a")
	n.transmit(add(n.stamp(call)))
	a.learn(n.expect(icrp))
	n.transmit(add(n.stamp(newMessage(iccn, a.ids()...))))
	n.delivered()
	for _, status := range []uint16{0, circuitActive} {
		n.transmit(add(n.stamp(newMessage(sli, a.ids(u16(avpCircuitStatus, status))...))))
		n.acked()
	}
	// The SLIs were carried out, and the session works.
	a.receives(d.host("eth1"), "the session works")
	n.transmit(add(n.stamp(newMessage(hello))))
	n.acked()
}

func TestRule12_5_2_UnknownMandatoryAVPInSCCRQ(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	for _, extra := range unknown(true) {
		n := d.client.newConnection("gold", d.socket)
		n.transmit(n.request().with(extra))
		n.ns = 1
		n.stopped(resultError, errorUnknownAVP)
	}
	// The next one finds the daemon as it was.
	d.client.open("gold", d.socket).alive()
}

func TestRule12_5_2_UnknownMandatoryAVPInSCCRP(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	n := d.client.begin("gold", d.socket, d.client.request("gold"))
	n.transmit(n.stamp(newMessage(sccrp, n.identity()...)).with(unknown(true)[0]))
	n.stopped(resultError, errorUnknownAVP)
	d.client.accept("gold", d.socket).alive()
}

func TestRule12_5_2_UnknownMandatoryAVPInSCCCN(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	n.transmit(n.request())
	n.answered()
	n.send(scccn, unknown(true)[0])
	n.stopped(resultError, errorUnknownAVP) // and no ICRQ before it
	d.client.open("gold", d.socket).accept()
}

func TestRule12_5_2_UnknownMandatoryAVPInHELLO(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 4, circuit: "eth1"}}})
	h := d.host("eth1")
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h.receives(a, "before")
	n.send(hello, unknown(true)[1])
	n.stopped(resultError, errorUnknownAVP)
	// "and shut down": its session is gone too.
	a.transmit(frame("after"))
	h.receives(d.client.open("gold", d.socket).accept(), "in a new session")
}

// sessions is two pseudowires on one connection, of which the second is established.
func sessions(t *testing.T) (d *dut, n *connection, other *session) {
	d = start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}, {name: "b", circuit: "eth2"}}})
	n = d.client.open("gold", d.socket)
	n.decline(2)
	return d, n, n.open("b")
}

// survives shows that the connection and a session on it live.
func (d *dut) survives(s *session) {
	d.t.Helper()
	s.n.aside = []messageType{icrq} // the daemon may try again what was closed
	s.n.alive()
	h := d.host("eth2")
	h.receives(s, "to the host")
	s.receives(h, "from the host")
}

func TestRule13_5_2_UnknownMandatoryAVPInICRQ(t *testing.T) {
	t.Parallel()
	d, n, b := sessions(t)
	for _, extra := range unknown(true) {
		a, call := n.call("a", extra)
		n.transmit(n.stamp(call))
		a.disconnected(resultError, errorUnknownAVP)
	}
	n.open("a")
	d.survives(b)
}

func TestRule13_5_2_UnknownMandatoryAVPInICCN(t *testing.T) {
	t.Parallel()
	d, n, b := sessions(t)
	a, call := n.call("a")
	n.transmit(n.stamp(call))
	a.learn(n.expect(icrp))
	a.send(iccn, unknown(true)[0])
	a.disconnected(resultError, errorUnknownAVP)
	d.survives(b)
}

func TestRule13_5_2_UnknownMandatoryAVPInICRP(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}, {name: "b", circuit: "eth2"}}})
	n := d.client.open("gold", d.socket)
	request := n.expect(icrq)
	if string(request.value(avpRemoteEndID)) != "a" {
		t.Fatalf("the first ICRQ is for %q", request.value(avpRemoteEndID))
	}
	b := n.accept()
	n.answer(request, unknown(true)[0]).disconnected(resultError, errorUnknownAVP)
	d.survives(b)
}

func TestRule13_5_2_UnknownMandatoryAVPInSLI(t *testing.T) {
	t.Parallel()
	d, n, b := sessions(t)
	a := n.open("a")
	a.send(sli, u16(avpCircuitStatus, circuitActive), unknown(true)[0])
	a.disconnected(resultError, errorUnknownAVP)
	// "and shut down"
	h := d.host("eth1")
	a.transmit(frame("after"))
	d.survives(b)
	h.receives(n.open("a"), "in a new session")
}

// all is an exchange with every AVP that RFC 3931 has for these messages. It
// returns what the daemon answers, less what differs from one to the other.
func all(t *testing.T, change func(message) message) (answers []string) {
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	noted := func(m message) message {
		s := fmt.Sprintf("%v Ns %d Nr %d:", m.kind(), m.ns, m.nr)
		for _, a := range m.avps {
			s += fmt.Sprintf(" %d", a.kind)
		}
		if m.has(avpResultCode) {
			s += fmt.Sprintf(" result %x", m.value(avpResultCode))
		}
		answers = append(answers, s)
		return m
	}
	random := octets(avpRandomVector, make([]byte, 16)...)
	speed := make([]byte, 8)
	send := func(kind messageType, avps ...avp) {
		n.transmit(change(n.stamp(newMessage(kind, append(avps, random)...))))
	}

	n.transmit(change(n.request().with(
		text(avpVendorName, "conformance"), text(avpPreferredLanguage, "en"), u16(avpReceiveWindow, 8), random)))
	n.ns = 1
	noted(n.expect(sccrp))
	send(scccn)
	n.delivered()
	n.decline(1)
	a, call := n.call("a", octets(avpCookie, 1, 2, 3, 4), tieBreaker, u32(avpPhysicalChannel, 7),
		u16(avpSublayer, 0), u16(avpSequencing, 0), octets(avpTxSpeed, speed...), octets(avpRxSpeed, speed...), random)
	n.transmit(change(n.stamp(call)))
	a.learn(noted(n.expect(icrp)))
	send(iccn, a.ids(u16(avpSublayer, 0), u16(avpSequencing, 0), u16(avpCircuitStatus, 1), octets(avpTxSpeed, speed...), octets(avpRxSpeed, speed...))...)
	n.acked()
	send(sli, a.ids(u16(avpCircuitStatus, 0))...)
	n.acked()
	h := d.host("eth1")
	h.send(frame("not while the circuit is inactive"))
	send(sli, a.ids(u16(avpCircuitStatus, 1))...)
	n.acked()
	a.receives(h, "with the cookie")
	send(wen, a.ids(octets(avpCircuitErrors, make([]byte, 26)...))...)
	n.acked()
	send(hello)
	n.acked()
	_, call = n.call("nobody")
	n.transmit(change(n.stamp(call)))
	noted(n.expect(cdn))
	send(cdn, a.ids(u16(avpResultCode, resultNoForwarder))...)
	n.delivered()
	send(stopCCN, u16(avpResultCode, 6), u32(avpAssignedCCID, n.local))
	n.acked()
	return answers
}

func TestRule14_5_2_MandatoryBitOfKnownAVPsIsOfNoConsequence(t *testing.T) {
	t.Parallel()
	normal := all(t, func(m message) message { return m })
	inverted := all(t, message.inverted)
	if !slices.Equal(normal, inverted) {
		t.Errorf("with the M bits as they should be:\n%q\ninverted:\n%q", normal, inverted)
	}
}

// unknownTypes are Message Type AVPs that nobody can know: of a number that is
// reserved, one that is not assigned, and of a vendor (Section 5.4.1).
func unknownTypes(mandatory bool) []avp {
	return []avp{
		{mandatory: mandatory, kind: avpMessageType, value: []byte{0, 5}},
		{mandatory: mandatory, kind: avpMessageType, value: []byte{0x7a, 0xbc}},
		{mandatory: mandatory, vendor: 0xfffe, kind: avpMessageType, value: []byte{0, 6}},
	}
}

func TestRule15_5_4_1_UnknownMandatoryMessageType(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	h := d.host("eth1")
	for _, kind := range unknownTypes(true) {
		n := d.client.open("gold", d.socket)
		a := n.accept()
		h.receives(a, "before")
		n.transmit(n.stamp(message{avps: []avp{kind}}))
		n.stopped(0, 0)
		a.transmit(frame("after"))
	}
}

func TestRule16_5_4_1_UnknownOptionalMessageType(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	n := d.client.open("gold", d.socket)
	for _, kind := range unknownTypes(false) {
		n.transmit(n.stamp(message{avps: append([]avp{kind}, unknown(true)...)}))
		n.acked()
	}
	n.alive()
}
