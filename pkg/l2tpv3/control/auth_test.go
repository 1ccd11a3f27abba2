package control

import (
	"container/heap"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

func withSecret(t *Tunnel) { t.Secrets = [][]byte{[]byte("s3cret")} }

// TestAuthenticatedNewcomer: a peer that was restarted without its state and
// proves that it knows the secret takes its tunnel over at once, without the old
// connection being tested.
func TestAuthenticatedNewcomer(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret)
	n.session("gold", "tenant-a")
	n.start()
	if !n.until(3*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	n.run(time.Minute)
	n.hosts[1].forget()
	n.hosts[1].start()
	if !n.until(1500*time.Millisecond, n.up) { // the open delay, and some
		t.Fatal(n.disagreement())
	}
	n.run(3 * time.Minute)
	if !n.up() {
		t.Fatal(n.disagreement())
	}
}

// TestReplay: every packet that a peer ever sent, sent again by somebody who
// recorded them, ends no connection and no session, and begins none.
func TestReplay(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret)
	n.session("gold", "tenant-a")
	var recorded []packet
	record := func(from *host, d Datagram) {
		recorded = append(recorded, packet{to: from.peer, d: d})
	}
	n.trace = record
	// A first connection, closed, and then the one that is to be attacked.
	n.start()
	if !n.until(3*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	n.hosts[0].e.RemoveTunnel(n.now, n.hosts[0].tunnels[0].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
	n.hosts[0].drain()
	n.run(2 * time.Minute)
	n.hosts[0].apply()
	n.hosts[0].drain()
	if !n.until(time.Minute, n.up) {
		t.Fatal(n.disagreement())
	}
	n.run(2 * time.Minute)
	n.trace = nil
	before := n.hosts[0].e.Connections()[0].LocalID
	for range 3 {
		for i, p := range recorded {
			p.at, p.n = n.now.Add(time.Duration(i)*10*time.Millisecond), n.sent+i
			heap.Push(&n.air, p)
		}
		n.run(5 * time.Minute)
		if !n.up() {
			t.Fatal(n.disagreement())
		}
	}
	if after := n.hosts[0].e.Connections()[0].LocalID; after != before {
		t.Error("the connection is another one")
	}
	for _, h := range n.hosts {
		if c := h.e.Counters(); c["connections-lost"] > 3 || len(h.e.connections) != 1 {
			t.Errorf("%s: %d connections, %v", h.name, len(h.e.connections), c)
		}
	}
}

// TestForged: without the secret, packets that look like the peer's change nothing
// in an authenticated connection: not acknowledged, not acknowledging (rule 29).
func TestForged(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret)
	n.session("gold", "tenant-a")
	n.start()
	n.run(5 * time.Second)
	if !n.up() {
		t.Fatal(n.disagreement())
	}
	a := n.hosts[0]
	c := a.e.connections[a.e.Connections()[0].LocalID]
	a.e.connections[c.localID].hello() // something to acknowledge
	for _, words := range [][]string{
		{"HELLO"}, {"ACK"}, {"ZLB"}, {"StopCCN", "result=1"}, {"CDN", "result=1", "local=1", "remote=1"},
		{"ICRQ", "local=1", "remote=0", "serial=1", "type=5", "end=tenant-a", "circuit=A"}, {"SCCCN"}, {"77"},
	} {
		m, err := buildMessage(words)
		if err != nil {
			t.Fatal(err)
		}
		putHeader(m, c.localID, c.rel.nr, c.rel.ns()+1)
		before := a.e.Counters()
		queued, heard := len(c.rel.queue), c.heard
		a.e.Receive(n.now, Datagram{Path: c.path, Payload: m})
		after := a.e.Counters()
		if after["unauthenticated"] != before["unauthenticated"]+1 {
			t.Errorf("%s: not counted", words[0])
		}
		if len(c.rel.queue) != queued || c.heard != heard || c.rel.owed || c.state != ConnectionEstablished {
			t.Errorf("%s had an effect", words[0])
		}
	}
}
