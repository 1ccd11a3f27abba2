package control

import (
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const (
	// defaultWindow is the peer's receive window where it does not say (Section 5.4.3).
	defaultWindow = 4
	// maxInFlight bounds the unacknowledged messages further than the peer does
	// (Section 4.2: "may be further limited by local resource allocation").
	maxInFlight = 128
	// maxEarlyOctets bounds what one connection keeps of messages that came out of order.
	maxEarlyOctets = 64 << 10
)

// reliable is one end of the reliable delivery of control messages (Section 4.2)
// with slow start and congestion avoidance (Appendix A). It orders and repeats;
// what is in a message is no matter to it.
type reliable struct {
	// queue has the messages that are not acknowledged. The first sent of them
	// have been sent at least once; of those the first flying are on their way,
	// the rest is sent again as the window opens (go-back-N).
	queue        []outgoing
	sent, flying int
	// first is the Ns of queue[0], or of the next message.
	first uint16
	// nr is the Ns that is expected next.
	nr uint16

	// window is the peer's; cwnd, threshold and credit are Appendix A's.
	window, cwnd, threshold, credit int

	// tries counts the retransmissions without progress; expires is when the
	// next is due, zero if nothing is unacknowledged.
	// repeated says that there were some before the last progress.
	tries    int
	expires  time.Time
	repeated bool

	// rtt is the smoothed round-trip time, 0 before it was measured. The message with
	// number timed, sent once at timedAt, measures it; none does while that is zero.
	rtt     time.Duration
	timed   uint16
	timedAt time.Time

	// early has messages that came before their turn, by Ns.
	early       map[uint16][]byte
	earlyOctets int

	// owed says that the peer is owed an acknowledgment.
	owed        bool
	retransmits uint64
}

// outgoing is a message on its way: its octets without sequence numbers, CCID
// and digest, which are put in whenever it is sent.
type outgoing struct {
	kind   l2tpv3.MessageType
	octets []byte
	// session is the local session ID of an SLI; a newer one replaces it.
	session uint32
	saved   bool
}

func newReliable() reliable {
	r := reliable{cwnd: 1}
	r.setWindow(defaultWindow)
	return r
}

// setWindow sets the receive window that the peer advertised.
func (r *reliable) setWindow(n uint16) {
	r.window = min(max(int(n), 1), maxInFlight)
	r.threshold = r.window
	r.cwnd = min(r.cwnd, r.window)
}

// ns is the sequence number of the next new message, which an ACK carries
// without using it up (Section 4.2, Appendix B.1).
func (r *reliable) ns() uint16 { return r.first + uint16(r.sent) }

// idle reports whether everything is acknowledged.
func (r *reliable) idle() bool { return len(r.queue) == 0 }

func (r *reliable) push(m outgoing) { r.queue = append(r.queue, m) }

// replaceUnsent puts m in the place of a message of that kind and session that
// waits to be sent. It is false if there is none.
func (r *reliable) replaceUnsent(m outgoing) bool {
	for i := r.sent; i < len(r.queue); i++ {
		if r.queue[i].kind == m.kind && r.queue[i].session == m.session {
			r.queue[i] = m
			return true
		}
	}
	return false
}

// dropUnsent forgets what the peer cannot have seen.
func (r *reliable) dropUnsent() { r.queue = r.queue[:r.sent] }

// abandon forgets everything that was sent or is to be. The sequence goes on
// behind it.
func (r *reliable) abandon() {
	r.first = r.ns()
	r.queue, r.sent, r.flying, r.tries, r.expires = nil, 0, 0, 0, time.Time{}
	r.timedAt = time.Time{}
}

// repeat has everything that is on its way sent again now, because the peer has
// shown that it listens. The timer is not touched.
func (r *reliable) repeat() { r.flying = 0 }

// next gives the next message that the window lets through, with its Ns. Urgent
// goes past the congestion window, not past the peer's.
func (r *reliable) next(now time.Time, t *Timers, urgent bool) (outgoing, uint16, bool) {
	limit := min(r.cwnd, r.window)
	if urgent {
		limit = r.window
	}
	if r.flying >= min(limit, len(r.queue)) {
		return outgoing{}, 0, false
	}
	m, ns := r.queue[r.flying], r.first+uint16(r.flying)
	if r.flying < r.sent {
		r.retransmits++
		r.timedAt = time.Time{} // of a repeated one nobody knows which is acknowledged
	} else {
		r.sent++
		if r.timedAt.IsZero() {
			r.timed, r.timedAt = ns, now
		}
	}
	r.flying++
	if r.expires.IsZero() {
		r.expires = now.Add(t.wait(r.tries))
	}
	return m, ns, true
}

// expire handles a retransmission timer that has run out. It is false when the
// peer has not answered often enough and the connection is lost.
func (r *reliable) expire(now time.Time, t *Timers) bool {
	if r.tries >= t.MaxRetransmits {
		return false
	}
	r.tries++
	// Appendix A: "one-half of the CWND is saved in SSTHRESH, and CWND is set to one".
	r.threshold, r.cwnd, r.credit = max(r.cwnd/2, 1), 1, 0
	r.flying = 0
	r.expires = now.Add(t.wait(r.tries))
	return true
}

// wait is the time after the n-th retransmission of a message (Section 4.2).
func (t *Timers) wait(n int) time.Duration {
	d := t.Retransmit
	for ; n > 0 && d < t.RetransmitCap; n-- {
		d *= 2
	}
	return min(d, max(t.RetransmitCap, t.Retransmit))
}

// cycle is a full retransmission cycle: from the first sending of a message
// until it is given up.
func (t *Timers) cycle() time.Duration { return t.sum(0, t.MaxRetransmits+1) }

// sum is the time after the retransmissions from one to before another.
func (t *Timers) sum(from, to int) (sum time.Duration) {
	for n := from; n < to; n++ {
		sum += t.wait(n)
	}
	return sum
}

// acknowledge handles a received Nr. It is false if it acknowledges what was
// never sent: "the control message is clearly invalid" (Section 4.2).
func (r *reliable) acknowledge(now time.Time, t *Timers, nr uint16) bool {
	n := int(nr - r.first)
	if n >= 1<<15 {
		return true // older than what is known already
	}
	if n > r.sent {
		return false
	}
	if n == 0 {
		return true
	}
	clear(r.queue[:n])
	r.queue = r.queue[n:]
	if len(r.queue) == 0 {
		r.queue = nil
	}
	r.first += uint16(n)
	r.sent -= n
	r.flying = max(r.flying-n, 0)
	r.measure(now)
	r.repeated = r.tries > 0
	r.tries, r.expires = 0, time.Time{}
	if r.flying > 0 {
		r.expires = now.Add(t.wait(0))
	}
	r.open()
	return true
}

// measure takes the round-trip time if the timed message is acknowledged.
func (r *reliable) measure(now time.Time) {
	if r.timedAt.IsZero() || int16(r.timed-r.first) >= 0 {
		return
	}
	if last := now.Sub(r.timedAt); r.rtt == 0 {
		r.rtt = last
	} else {
		r.rtt += (last - r.rtt) / 8
	}
	r.timedAt = time.Time{}
}

// open widens the congestion window after an acknowledgment (Appendix A).
func (r *reliable) open() {
	if r.cwnd < r.threshold {
		r.cwnd++
	} else if r.credit++; r.credit >= r.cwnd {
		r.cwnd, r.credit = r.cwnd+1, 0
	}
	r.cwnd = min(r.cwnd, r.window)
}

// arrival says what a received message's Ns makes of it.
type arrival uint8

const (
	inOrder arrival = iota
	duplicate
	beforeTurn
)

// classify reads an Ns. Section 4.2: "less than or equal to the last received
// number if its value lies in the range of the last received number and the
// preceding 32767 values, inclusive".
func (r *reliable) classify(ns uint16) arrival {
	switch ahead := ns - r.nr; {
	case ahead == 0:
		return inOrder
	case ahead >= 1<<15:
		return duplicate
	}
	return beforeTurn
}

// accept takes note of the message in order.
func (r *reliable) accept() {
	r.nr++
	r.owed = true
}

// keep stores a message that came before its turn, if it is within the window
// that we advertised and there is room. Otherwise the peer repeats it.
func (r *reliable) keep(ns uint16, octets []byte, window uint16) bool {
	if ns-r.nr >= window || r.earlyOctets+len(octets) > maxEarlyOctets {
		return false
	}
	if _, there := r.early[ns]; there {
		return false
	}
	if r.early == nil {
		r.early = map[uint16][]byte{}
	}
	r.early[ns] = append([]byte(nil), octets...)
	r.earlyOctets += len(octets)
	return true
}

// due takes out the kept message whose turn has come.
func (r *reliable) due() ([]byte, bool) {
	octets, ok := r.early[r.nr]
	if ok {
		delete(r.early, r.nr)
		r.earlyOctets -= len(octets)
	}
	return octets, ok
}
