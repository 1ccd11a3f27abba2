package conformance

import "testing"

// exchange uses an established connection and its session on eth1 in every way.
// That all of it keeps to the connection's ports is seen to by placed.
func (d *dut) exchange(s *session, h *host, name string) {
	d.t.Helper()
	s.n.alive()
	h.receives(s, "to the host "+name)
	s.receives(h, "from the host "+name)
	d.circuits["eth1"].Down()
	s.isFor(s.n.expect(sli))
	d.circuits["eth1"].Up()
	s.isFor(s.n.expect(sli))
}

func TestRule5_4_1_2_2_InitiatorsPort(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	s := d.client.listen(0)
	n := d.client.open("gold", s)
	n.decline(1)
	a := n.open("a")
	h := d.host("eth1")
	d.exchange(a, h, "by an ephemeral port")

	// From yet another port nothing is answered there, and the pair stays.
	other := d.client.listen(0)
	stray := n.stamp(newMessage(hello))
	n.ns--
	other.send(n.port, stray.encode())
	n.alive()
	d.exchange(a, h, "after a stray message")
	for _, p := range received(d.client) {
		if p.socket == other {
			t.Errorf("an answer to another port: %s", describe(p.payload))
		}
		if p.socket == d.socket && p.m.kind() != sccrq {
			t.Errorf("to port 1701, which is not the connection's: %s", describe(p.payload))
		}
	}
}

func TestRule6_4_1_2_2_RespondersPort(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	s := d.client.listen(0)
	n := d.client.accept("gold", s) // the SCCCN has to come to that socket
	a := n.accept()
	d.exchange(a, d.host("eth1"), "by the answering port")
	for _, p := range received(d.client) {
		if p.socket != s && p.m.kind() != sccrq {
			t.Errorf("to port 1701 after another one answered: %s", describe(p.payload))
		}
	}
}
