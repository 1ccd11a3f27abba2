package control

import (
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// helloDue is when an established connection asks for a sign of life: "if a
// period of time has passed without receiving any message (data or control) from
// the peer" (Section 4.4). While something is unacknowledged its retransmissions
// ask already.
func (c *connection) helloDue() time.Time {
	if c.state != ConnectionEstablished || !c.rel.idle() {
		return time.Time{}
	}
	return c.heard.Add(c.helloAfter)
}

// drawHello sets the time to the next HELLO. Section 4.4: with several
// connections to the same peer there "MUST" be a jitter. It is up to an eighth
// less than the interval, never more.
func (c *connection) drawHello() {
	c.helloAfter = c.t.cfg.Hello
	if c.t.shared() {
		c.helloAfter -= c.e.jitter(c.helloAfter / 8)
	}
}

// hello sends one, and draws the time to the next.
func (c *connection) hello() {
	c.t.count(countHello)
	c.drawHello()
	c.push(l2tpv3.Hello)
}

// test sends a HELLO that the peer has to answer. It returns the Nr that shows
// that it has.
func (c *connection) test() (answered uint16) {
	if n := len(c.rel.queue); n == 0 || c.rel.queue[n-1].kind != l2tpv3.Hello {
		c.hello()
	}
	return c.rel.first + uint16(len(c.rel.queue))
}

// LastHeard is when the peer of a tunnel's established connection was last heard, data
// that Heard told of included; false if there is no such connection.
func (e *Endpoint) LastHeard(tunnel string) (time.Time, bool) {
	t := e.tunnels[tunnel]
	if t == nil || t.conn == nil || t.conn.state != ConnectionEstablished {
		return time.Time{}, false
	}
	return t.conn.heard, true
}
