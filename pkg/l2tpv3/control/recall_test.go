package control

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// TestRecall: who reads the messages that an established connection is recalled by learns
// from them what both ends know, and finds them authentic; both ends recall the same.
func TestRecall(t *testing.T) {
	for _, secret := range []bool{false, true} {
		n := newNetwork(t, 1)
		var options []func(*Tunnel)
		if secret {
			options = append(options, withSecret)
		}
		n.tunnel("gold", options...)
		n.session("gold", "tenant-a")
		n.start()
		if !n.until(settleTime, n.up) {
			t.Fatal(n.disagreement())
		}
		var kinds [2][]l2tpv3.MessageType
		for i, h := range n.hosts {
			c, x := h.e.Connections()[0], h.e.Sessions()[0]
			conn := h.e.tunnels[c.Tunnel.Name].conn
			learnt := map[uint32][]byte{}
			for _, r := range h.e.Recall(c.Tunnel.Name) {
				m, err := l2tpv3.Parse(r.Payload)
				if err != nil {
					t.Fatal(err)
				}
				if err := l2tpv3.Validate(m); err != nil {
					t.Error(err)
				}
				kind, _ := m.Type()
				kinds[i] = append(kinds[i], kind)
				to := c.LocalID
				if r.Sent {
					to = c.RemoteID
				}
				first, second := conn.auth.remoteNonce, conn.auth.localNonce
				if r.Sent {
					first, second = second, first
				}
				if kind == l2tpv3.SCCRQ {
					to, first, second = 0, nil, nil
				}
				if m.ControlConnectionID != to {
					t.Errorf("%v is for %d, not %d", kind, m.ControlConnectionID, to)
				}
				if secret {
					if err := l2tpv3.Verify(r.Payload, first, second, conn.keys()...); err != nil {
						t.Errorf("%v: %v", kind, err)
					}
				}
				if id, ok := l2tpv3.Find[l2tpv3.LocalSessionID](m); ok && kind != l2tpv3.ICCN {
					learnt[uint32(id)], _ = l2tpv3.Find[l2tpv3.AssignedCookie](m)
				}
			}
			if string(learnt[x.LocalID]) != string(x.LocalCookie) || string(learnt[x.RemoteID]) != string(x.RemoteCookie) || len(learnt) != 2 {
				t.Errorf("the cookies are %x; want %x of %d, %x of %d", learnt, x.LocalCookie, x.LocalID, x.RemoteCookie, x.RemoteID)
			}
		}
		if len(kinds[0]) != 6 || len(kinds[1]) != 6 {
			t.Errorf("%v and %v", kinds[0], kinds[1])
		}
	}
	if r := New(Config{}).Recall("gold/dc2"); r != nil {
		t.Errorf("%d messages of nothing", len(r))
	}
}

// TestCallerOutlivesARestart: where a peer that calls from anywhere has called from is known
// after a restart, too, whether its tunnel is up by then or not.
func TestCallerOutlivesARestart(t *testing.T) {
	for _, up := range []bool{true, false} {
		n := newNetwork(t, 1)
		n.tunnel("gold", func(c *Tunnel) { c.Secrets = [][]byte{[]byte("secret")} })
		n.session("gold", "tenant-a")
		n.hosts[0].tunnels[0].Remote = netip.Addr{}
		n.start()
		if !n.until(5*time.Second, n.up) {
			t.Fatal(n.disagreement())
		}
		if !up {
			n.loss = 1
			n.run(10 * time.Minute)
		}
		h := n.hosts[0]
		if got := h.e.Connections()[0].State == ConnectionEstablished; got != up {
			t.Fatalf("established is %v", got)
		}
		h.start()
		if got, want := h.e.Callers(), []netip.Addr{n.hosts[1].addr}; !slices.Equal(got, want) {
			t.Errorf("up %v: after the restart the callers are %v, want %v", up, got, want)
		}
	}
}

// TestNothingNewKeepsTheCause: an SLI or a WEN without news is no reason for anything.
func TestNothingNewKeepsTheCause(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	n.session("gold", "tenant-a")
	n.hosts[1].sessions[0].Circuit = 0
	n.start()
	n.run(10 * time.Second)
	status := func() SessionStatus { return n.hosts[0].e.Sessions()[0] }
	s := n.hosts[0].e.tunnels["gold/dc2"].sessions["tenant-a"]
	s.log.cause = Cause{Kind: CauseCircuit, By: Peer, Message: l2tpv3.SLI}
	before := status().Cause
	for ev, m := range map[sessionEvent]*l2tpv3.Message{
		receiveSLI: l2tpv3.NewMessage(l2tpv3.SLI, l2tpv3.LocalSessionID(s.remoteID), l2tpv3.RemoteSessionID(s.localID), l2tpv3.CircuitStatus(s.remote)),
		receiveWEN: l2tpv3.NewMessage(l2tpv3.WEN, l2tpv3.LocalSessionID(s.remoteID), l2tpv3.RemoteSessionID(s.localID), l2tpv3.CircuitErrors{}),
	} {
		s.handle(ev, sessionInput{m: m})
		if got := status().Cause; got != before {
			t.Errorf("after %v the cause is %+v, before %+v", ev, got, before)
		}
	}
}
