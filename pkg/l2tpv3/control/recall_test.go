package control

import (
	"testing"

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
