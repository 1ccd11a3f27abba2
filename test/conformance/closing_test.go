package conformance

import (
	"syscall"
	"testing"
	"time"
)

func TestRule24_3_3_2_StopCCNIsAcknowledgedForAWhile(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	h := d.host("eth1")
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h.receives(a, "before")

	stop := n.stamp(newMessage(stopCCN, u16(avpResultCode, 6), u32(avpAssignedCCID, n.local)))
	began := time.Now()
	n.transmit(stop)
	n.acked() // and nothing before it: no CDN
	// Its session is gone without one.
	a.transmit(frame("after"))
	again := d.client.accept("gold", d.socket)
	h.receives(again.accept(), "in a new session")
	for _, after := range []time.Duration{5 * time.Second, 15 * time.Second, 30 * time.Second} {
		<-time.After(time.Until(began.Add(after)))
		n.transmit(stop)
		n.acked()
	}
	again.alive()
}

// closed is a topology without the tunnel that a test is about.
var closed = options{tunnels: []string{"silver"}}

func TestRule25_4_2_StopCCNIsRepeatedForAFullCycle(t *testing.T) {
	t.Parallel()
	o := timed()
	o.tunnels = []string{"gold", "silver"}
	d := start(t, o)
	n := d.client.open("gold", d.socket)
	n.silent = true
	d.apply(closed)
	all := n.repeated(1+retransmits, retransmit)
	for _, p := range all {
		if p.m.kind() != stopCCN || p.m.number(avpAssignedCCID) != n.peer {
			t.Errorf("%v with AVP 61 %08x, want a StopCCN with %08x", p.m, p.m.number(avpAssignedCCID), n.peer)
		}
	}
	// That was "the full retransmission interval": nothing more is sent, and nothing
	// is left of it when the last has had its time.
	n.quiet(lastWait + early)
	n.send(hello)
	d.client.open("silver", d.socket).alive()
	n.quiet(0)
}

func TestRule25_4_2_StopCCNIsNotRepeatedOnceAcknowledged(t *testing.T) {
	t.Parallel()
	o := timed()
	o.tunnels = []string{"gold", "silver"}
	d := start(t, o)
	n := d.client.open("gold", d.socket)
	n.silent = true
	d.apply(closed)
	if kind := n.repeated(3, retransmit)[0].m.kind(); kind != stopCCN {
		t.Errorf("%v, want StopCCN", kind)
	}
	n.nr++
	n.ack()
	n.quiet(lastWait) // the next would have come in half of it
}

func TestRule26_5_4_3_6_4_StopCCNBeforeAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		options options
		close   func(d *dut)
	}{
		{"shut down", options{}, func(d *dut) {
			if err := d.site.Daemon.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}},
		{"configured away", options{tunnels: []string{"gold", "silver"}}, func(d *dut) { d.apply(closed) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, c.options)
			request := d.client.request("gold")
			c.close(d)
			p := d.client.take("a StopCCN", func(p *packet) bool { return p.isControl() && p.m.kind() == stopCCN })
			if p.m.ccid != 0 {
				t.Errorf("%v: the client's ID is not known", p.m)
			}
			if got, want := p.m.number(avpAssignedCCID), request.m.number(avpAssignedCCID); got != want {
				t.Errorf("AVP 61 is %08x, that of the SCCRQ %08x", got, want)
			}
			if p.remote != request.remote || p.socket != d.socket {
				t.Errorf("it came from %v, the SCCRQ from %v", p.remote, request.remote)
			}
		})
	}
}
