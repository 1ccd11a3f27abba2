package conformance

import (
	"testing"
	"time"
)

// twice sends a message two times and wants one effect: the answers have to be
// given once, and both copies acknowledged.
func (n *connection) twice(m message, answers ...messageType) {
	n.c.t.Helper()
	n.transmit(m)
	n.transmit(m)
	acknowledged := 0
	for acknowledged < 2 || len(answers) > 0 {
		got := n.next("the answers to " + m.kind().String())
		if got.nr != m.ns+1 {
			n.c.t.Errorf("Section 4.2: Nr %d after a message with Ns %d: %v", got.nr, m.ns, got)
		}
		acknowledged++
		if got.isACK() {
			continue
		}
		if len(answers) == 0 || got.kind() != answers[0] {
			n.c.t.Fatalf("a second %v had the effect %v", m.kind(), got)
		}
		n.receive(got)
		answers = answers[1:]
	}
}

func TestRule17_4_2_RepeatedMessagesHaveOneEffect(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	n.transmit(n.request())
	n.answered()
	n.twice(n.stamp(newMessage(scccn)), icrq)
	// What the daemon has asked for is refused; then the same the other way round.
	n.aside = []messageType{icrq}
	a, call := n.call("a", tieBreaker)
	n.transmit(n.stamp(call))
	a.learn(n.expect(icrp))
	n.twice(n.stamp(newMessage(iccn, a.ids()...)))
	n.twice(n.stamp(newMessage(hello)))
	n.twice(n.stamp(newMessage(cdn, a.ids(u16(avpResultCode, resultNoForwarder))...)))
	_, call = n.call("a")
	n.twice(n.stamp(call), icrp)
	_, call = n.call("nobody")
	n.twice(n.stamp(call), cdn)
	n.alive()
}

func TestRule18_4_2_OldMessagesAreDuplicates(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	n := d.client.open("gold", d.socket)
	// The last message had Ns 1: these wrap around. "the last received number and
	// the preceding 32767 values, inclusive"
	for _, behind := range []uint16{0, 1, 2, 100, 32766, 32767} {
		old := n.stamp(newMessage(stopCCN, u16(avpResultCode, 6), u32(avpAssignedCCID, n.local)))
		n.ns--
		old.ns = n.ns - 1 - behind
		n.transmit(old)
		n.acked()
	}
	n.alive()
}

func TestRule19_4_2_OrderedDelivery(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", circuit: "eth1"}}})
	n := d.client.newConnection("gold", d.socket)
	n.transmit(n.request())
	n.answered()

	// inverse sends two messages in the wrong order. In between, a copy of what was
	// received before has the daemon say what it knows.
	last := n.request()
	inverse := func(first, second message, effect messageType) {
		t.Helper()
		n.transmit(second)
		n.transmit(last)
		if m := n.next("an ACK"); !m.isACK() || m.nr != first.ns {
			t.Fatalf("%v before %v, which has Ns %d, was answered by %v", second.kind(), first.kind(), first.ns, m)
		}
		n.transmit(first)
		n.transmit(second) // if it was not kept
		if effect == ack {
			n.delivered()
		} else {
			n.expect(effect)
		}
		last = second
	}
	connected, first := n.stamp(newMessage(scccn)), n.stamp(newMessage(hello))
	last.ccid = n.peer // a copy of the SCCRQ with the ID is as old as one without
	inverse(connected, first, icrq)
	n.delivered()
	n.aside = []messageType{icrq}
	_, call := n.call("a", tieBreaker)
	between := n.stamp(newMessage(hello))
	inverse(between, n.stamp(call), icrp)
	n.delivered()
	between = n.stamp(newMessage(hello))
	inverse(between, n.stamp(newMessage(stopCCN, u16(avpResultCode, 6), u32(avpAssignedCCID, n.local))), ack)
}

// repetition is a message of the daemon that is not acknowledged: what it was each
// time, and when.
type repetition struct {
	m  message
	at time.Time
}

// repeated collects a message and its repetitions until the number is reached, and
// checks the gaps between them. Nothing else may come.
func (n *connection) repeated(count int, retransmit time.Duration) (all []repetition) {
	n.c.t.Helper()
	gap := retransmit
	for len(all) < count {
		p := n.placed(n.c.take("a repetition", n.isFor))
		if p.m.isACK() {
			continue
		}
		if behind := n.nr - p.m.ns; len(all) == 0 && behind != 0 && behind < 1<<15 {
			continue // a busy daemon had repeated what was acknowledged meanwhile
		}
		if len(all) > 0 {
			before := all[len(all)-1]
			if p.m.kind() != before.m.kind() || p.m.ns != before.m.ns {
				n.c.t.Fatalf("waited for %v again, got %v", before.m, p.m)
			}
			n.doubling(p.at.Sub(before.at), gap)
			gap *= 2
		}
		all = append(all, repetition{p.m, p.at})
	}
	return all
}

// How much a busy machine may be late, and with it how much too early something
// seems to be that comes after it.
const (
	late  = 4 * time.Second
	early = 400 * time.Millisecond
)

// doubling judges the time between two repetitions.
func (n *connection) doubling(got, want time.Duration) {
	n.c.t.Helper()
	if got < want-early || got > want+late {
		n.c.t.Errorf("Section 4.2: repeated after %v, want %v", got.Round(time.Millisecond), want)
	}
}

// Timers that tests wait for: repetitions after 0.5, 1 and 2 s, and the end 4 s later.
const (
	retransmit  = 500 * time.Millisecond
	retransmits = 3
	lastWait    = retransmit << retransmits
)

// timed are options with those.
func timed(pseudowires ...pseudowire) options {
	return options{retransmit: retransmit.String(), retransmits: retransmits, pseudowires: pseudowires}
}

func TestRule20_4_2_RetransmissionAndLoss(t *testing.T) {
	t.Parallel()
	d := start(t, timed(pseudowire{name: "a", cookie: 4, circuit: "eth1"}))
	h := d.host("eth1")
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h.receives(a, "before")

	_, call := n.call("nobody")
	n.transmit(n.stamp(call))
	n.silent = true
	all := n.repeated(1+retransmits, retransmit)
	if kind := all[0].m.kind(); kind != cdn {
		t.Fatalf("%v for a pseudowire that is not there", kind)
	}
	// "the control connection and all associated sessions MUST be cleared": and
	// the daemon asks anew, but not before the last repetition had its time.
	request := d.client.request("gold")
	if got := request.at.Sub(all[retransmits].at); got < lastWait-early {
		t.Errorf("given up %v after the last repetition, want %v or more", got, lastWait)
	}
	a.transmit(frame("after"))
	n.transmit(n.stamp(newMessage(hello)))
	again := d.client.reply("gold", d.socket, request)
	h.receives(again.accept(), "in a new session")
	if p := d.client.poll(time.Now(), n.isFor); p != nil {
		t.Errorf("from a connection that was lost: %s", describe(p.payload))
	}
}

func TestRule21_4_2_RepetitionsHaveTheNrOfNow(t *testing.T) {
	t.Parallel()
	d := start(t, options{retransmit: retransmit.String()})
	n := d.client.open("gold", d.socket)
	_, call := n.call("nobody")
	n.transmit(n.stamp(call))
	n.silent = true
	for _, p := range n.repeated(2, retransmit) {
		if p.m.nr != n.ns {
			t.Errorf("%v, want Nr %d", p.m, n.ns)
		}
	}
	for range 2 {
		n.send(hello) // it acknowledges nothing, and is acknowledged
		for known := false; ; {
			m := n.next("a repetition")
			if m.isACK() {
				known = true
			} else if m.nr == n.ns {
				break
			} else if known {
				t.Fatalf("%v after a HELLO, want Nr %d", m, n.ns)
			}
		}
	}
	n.nr++
	n.silent = false
	n.ack()
	n.alive()
}

func TestRule22_4_2_ACKsTakeNoSequenceNumber(t *testing.T) {
	t.Parallel()
	d := start(t, options{})
	n := d.client.open("gold", d.socket)
	for range 3 {
		n.ack()
	}
	n.transmit(n.stamp(message{})) // and a ZLB
	n.alive()
	// An ACK with the Ns of the next message does not move what is expected.
	for range 3 {
		m := n.stamp(newMessage(ack))
		m.ns += 3
		n.transmit(m)
	}
	n.alive()
	// The daemon's: each has the Ns of the next message, which then still has it.
	for range 3 {
		n.alive()
	}
	_, call := n.call("nobody")
	n.transmit(n.stamp(call))
	n.expect(cdn) // in order
	n.alive()
}

// outstanding takes what comes until a HELLO is answered, and acknowledges nothing
// of it. It returns how many messages it were.
func (n *connection) outstanding() (count int) {
	n.c.t.Helper()
	n.send(hello)
	for m := n.next("an answer"); !m.isACK() || m.nr != n.ns; m = n.next("an answer") {
		if !m.isACK() {
			n.receive(m)
			count++
		}
	}
	return count
}

func TestRule31_6_15_ZLBAcknowledges(t *testing.T) {
	t.Parallel()
	d := start(t, timed())
	n := d.client.open("gold", d.socket)
	_, call := n.call("nobody")
	n.transmit(n.stamp(call))
	n.silent = true
	n.receive(n.next("a CDN"))
	n.transmit(n.stamp(message{}))
	n.quiet(2 * retransmit) // it is not repeated
	n.silent = false
	n.alive()
}

func TestRule23_4_2_5_4_3_ReceiveWindow(t *testing.T) {
	window := func(n uint16) message { return message{}.with(u16(avpReceiveWindow, n)) }
	for _, w := range []struct {
		name    string
		request message // what is said of the window
		limit   int
	}{
		{"RWS 1", window(1), 1},
		{"RWS 2", window(2), 2},
		{"absent", message{}, 4},
		{"RWS 65535", window(65535), 65535},
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			const calls = 40
			d := start(t, options{retransmit: "8s"})
			n := d.client.newConnection("gold", d.socket)
			n.transmit(n.request().without(avpReceiveWindow).with(w.request.avps...))
			reply := n.answered()
			n.send(scccn)
			n.delivered()
			own := reply.number(avpReceiveWindow)
			if !reply.has(avpReceiveWindow) {
				own = 4
			}
			n.silent = true
			asked, answered, unacknowledged, most := 0, 0, 0, 0
			for answered < calls {
				// The daemon's own window is kept to.
				for range own - 1 {
					if asked < calls {
						_, call := n.call("nobody")
						n.transmit(n.stamp(call))
						asked++
					}
				}
				got := n.outstanding()
				answered += got
				unacknowledged += got
				most = max(most, unacknowledged)
				if unacknowledged > w.limit {
					t.Fatalf("%d messages are not acknowledged, the window is %d", unacknowledged, w.limit)
				}
				if unacknowledged == 0 && answered < calls {
					t.Fatalf("%d of %d answers came, and no more", answered, calls)
				}
				n.ack()
				unacknowledged = 0
			}
			t.Logf("at most %d messages not acknowledged", most)
		})
	}
}
