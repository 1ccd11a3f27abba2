package control

import (
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// probe asks how long packets to the peer may be, in the manner of RFC 8899: a message is
// made as long as that, and an acknowledgment shows that it arrived. It is a HELLO that
// the peer has dealt with already, by its Ns. So it changes nothing, and nothing waits for
// it if it is lost; but "an acknowledgment for the message MUST be sent" (Section 4.2).
type probe struct {
	// octets is how long it is, first the connection's first unacknowledged Ns when it was sent.
	octets int
	first  uint16
	// sent is how often it was, answers how often that was acknowledged.
	sent, answers int
}

// ProbeState is what has become of a connection's last probe.
type ProbeState struct {
	// Sent is how often it was sent, one after the other, and Answers how many of those have
	// arrived, as far as is known. An acknowledgment does not say which probe it is to: who
	// asks about another length has to wait before for those that may still come.
	Sent, Answers int
	// Valid is false if it cannot be known any more what else has arrived, because something else
	// has been sent.
	Valid bool
}

// Padding is AVPs that say nothing: of a vendor that we know nobody to be, and not
// mandatory, so that whoever reads them ignores them (Section 5.2).
const (
	paddingVendor = 0xffff
	avpHeader     = 6
	avpMost       = 1023
)

// appendPadding appends AVPs of n octets together, n being none or at least avpHeader.
func appendPadding(b []byte, n int) []byte {
	for n > 0 {
		size := min(n, avpMost)
		if rest := n - size; rest > 0 && rest < avpHeader {
			size -= avpHeader
		}
		b = append(b, byte(size>>8), byte(size), paddingVendor>>8, paddingVendor&0xff, 0, 0)
		b = append(b, make([]byte, size-avpHeader)...)
		n -= size
	}
	return b
}

var helloOctets, _ = l2tpv3.NewMessage(l2tpv3.Hello).Append(nil)

// Probe sends a message of that many octets, which is not to be fragmented, over an
// established connection to a peer that is known to answer. It is false where that cannot
// be: then, when it may well be soon, or when the last message was sent several times, each of
// which may still be answered. One that was longer or shorter before is forgotten.
func (e *Endpoint) Probe(now time.Time, connection uint32, octets int) bool {
	e.now = now
	c := e.connections[connection]
	if c == nil || c.state != ConnectionEstablished || !c.ours() || !c.rel.idle() || c.rel.repeated || c.auth.on && len(c.keys()) == 0 {
		return false
	}
	plain := c.seal(helloOctets, 0)
	rest := octets - len(plain)
	e.Recycle(plain)
	if rest != 0 && rest < avpHeader || octets > 0xffff {
		return false
	}
	if c.probe.octets != octets || c.probe.first != c.rel.first {
		c.probe = probe{octets: octets, first: c.rel.first}
	}
	c.probe.sent++
	message := appendPadding(append([]byte(nil), helloOctets...), rest)
	out := Transmit{
		Tunnel: c.t.cfg.Name, Connection: c.localID, Initiator: c.initiator, Path: c.path,
		Payload: c.seal(message, c.rel.first-1), Whole: true,
	}
	c.t.count(countTransmitted)
	emit(&e.outputs, &e.outputs.transmit, out)
	return true
}

// ProbeState says what has become of the connection's last probe.
func (e *Endpoint) ProbeState(connection uint32) ProbeState {
	c := e.connections[connection]
	if c == nil || c.probe.sent == 0 {
		return ProbeState{}
	}
	return ProbeState{Sent: c.probe.sent, Answers: c.probe.answers, Valid: c.rel.idle() && c.rel.first == c.probe.first}
}

// RTT is the connection's smoothed round-trip time, 0 while it has not been measured.
func (e *Endpoint) RTT(connection uint32) time.Duration {
	if c := e.connections[connection]; c != nil {
		return c.rel.rtt
	}
	return 0
}

// acknowledged follows an acknowledgment that says nothing new: the peer was asked for it.
// Older ones say nothing of the probe, whoever repeats them.
func (p *probe) acknowledged(r *reliable, nr uint16) {
	if p.answers < p.sent && r.idle() && r.first == p.first && nr == r.first {
		p.answers++
	}
}
