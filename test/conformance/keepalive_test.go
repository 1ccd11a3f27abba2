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
	last := time.Now() // the SCCCN is what the daemon heard last, then each ACK
	for range 3 {
		n.expect(hello)
	}
	for _, p := range received(d.client) {
		if p.m.kind() != hello {
			continue
		}
		// "a period of time [...] has passed without receiving any message"
		if got := p.at.Sub(last); got < interval-early || got > interval+late {
			t.Errorf("a HELLO after %v of silence, want %v", got.Round(time.Millisecond), interval)
		}
		last = p.at
	}
	// Control messages postpone it.
	for range 10 {
		<-time.After(interval / 4)
		n.alive()
	}
}

func TestRule27_4_4_DataPostponesAHello(t *testing.T) {
	for _, c := range []struct {
		name    string
		hello   time.Duration
		tunnels []string
	}{
		{"one connection", 2 * time.Second, []string{"gold"}},
		{"the shortest interval", time.Second, []string{"gold"}},
		// Section 4.4: these have a jitter.
		{"two connections", time.Second, []string{"gold", "silver"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{hello: c.hello.String(), tunnels: c.tunnels, pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
			var others []*connection
			for _, tunnel := range c.tunnels[1:] {
				others = append(others, d.client.open(tunnel, d.socket))
			}
			n := d.client.open("gold", d.socket)
			a := n.accept()
			began := time.Now()
			for time.Since(began) < 4*c.hello {
				a.transmit(frame("life"))
				if p := d.client.poll(time.Now().Add(c.hello/8), n.isFor); p != nil {
					t.Fatalf("%v after the first of many data messages: %s", time.Since(began), describe(p.payload))
				}
				for _, o := range others {
					for p := d.client.poll(time.Now(), o.isFor); p != nil; p = d.client.poll(time.Now(), o.isFor) {
						o.receive(p.m)
					}
				}
			}
			n.expect(hello) // now that there are no more
		})
	}
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
