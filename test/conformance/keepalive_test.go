package conformance

import (
	"testing"
	"time"
)

// interval is the shortest that a tunnel can have.
const interval = time.Second

func TestRule27_4_4_SilenceGivesAHello(t *testing.T) {
	t.Parallel()
	d := start(t, options{hello: interval.String()})
	n := d.client.open("gold", d.socket)
	for range 3 {
		heard := time.Now() // the last that the daemon heard: an ACK
		n.expect(hello)
		// "a period of time [...] has passed without receiving any message"
		if got := time.Since(heard); got < interval-late || got > interval+late {
			t.Errorf("a HELLO after %v of silence, want %v", got.Round(time.Millisecond), interval)
		}
	}
	// Control messages postpone it.
	for range 10 {
		<-time.After(interval / 4)
		n.alive()
	}
}

func TestRule27_4_4_DataPostponesAHello(t *testing.T) {
	t.Parallel()
	const interval = 2 * time.Second
	d := start(t, options{hello: interval.String(), pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	n := d.client.open("gold", d.socket)
	a := n.accept()
	began := time.Now()
	for time.Since(began) < 3*interval {
		a.transmit(frame("life"))
		if p := d.client.poll(time.Now().Add(interval/8), n.isFor); p != nil {
			t.Fatalf("%v after the first of many data messages: %s", time.Since(began), describe(p.payload))
		}
	}
	n.expect(hello) // now that there are no more
}

func TestRule27_4_4_UnansweredHelloEndsTheConnection(t *testing.T) {
	t.Parallel()
	o := timed(pseudowire{name: "a", cookie: 8, circuit: "eth1"})
	o.hello = interval.String()
	d := start(t, o)
	h := d.host("eth1")
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h.receives(a, "before")
	n.silent = true
	for m := n.next("a HELLO"); m.kind() != hello; m = n.next("a HELLO") {
	}
	n.repeated(retransmits, 2*retransmit)
	request := d.client.request("gold")
	a.transmit(frame("after"))
	h.receives(d.client.reply("gold", d.socket, request).accept(), "in a new session")
}
