package control

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// established is an Endpoint with two tunnels to dc2, one of which is up, with a
// session, and one half open; its IDs are 11 and 12.
func established(t testing.TB) *stage {
	s := &stage{now: epoch}
	s.reset()
	for _, line := range [][]string{
		{"random", "10"},
		{"tunnel", "gold/dc2"},
		{"session", "gold/dc2", "tenant-a", "cookie=8"},
		{"advance", "1ms"},
		{"<", "SCCRP", "ccid=11", "ns=0", "nr=1", "host=gold.dc2", "router=200", "assigned=77", "caps=5"},
		{"<", "ICRP", "ccid=11", "ns=1", "nr=3", "local=900", "remote=13", "circuit=A"},
		{"<", "ACK", "ccid=11", "ns=2", "nr=4"},
		{"random", "12"},
		{"tunnel", "silver/dc2"},
		{"advance", "1ms"},
	} {
		if err := s.do(line); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.e.Connections(); c[0].State != ConnectionEstablished || c[1].State != ConnectionWaitReply || s.e.Sessions()[0].State != SessionEstablished {
		t.Fatal(s.out.String())
	}
	s.e.Advance(s.now)
	s.e.TakeDirty()
	return s
}

// outputs takes all that there are.
func (s *stage) outputs() (all []Output) {
	for o, ok := s.e.Next(); ok; o, ok = s.e.Next() {
		all = append(all, o)
	}
	return all
}

// FuzzStranger: whatever comes from somebody who is no peer, or to an ID that is
// nobody's, changes nothing but a counter.
func FuzzStranger(f *testing.F) {
	for _, m := range [][]string{
		{"SCCRQ", "ccid=0", "host=gold.dc2", "router=1", "assigned=5", "caps=5"},
		{"StopCCN", "ccid=0", "ns=1", "result=1", "assigned=5"},
		{"StopCCN", "ccid=11", "ns=2", "nr=4", "result=1"},
		{"HELLO", "ccid=11", "ns=2", "nr=4"},
		{"ZLB", "ccid=11", "ns=2", "nr=4"},
	} {
		b, err := buildMessage(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := established(f)
	state := func() string {
		b, err := json.Marshal(s.e.Save())
		if err != nil {
			f.Fatal(err)
		}
		return string(b)
	}
	before := state()
	f.Fuzz(func(t *testing.T, b []byte) {
		total := func() (n uint64) {
			for _, v := range s.e.Counters() {
				n += v
			}
			return n
		}
		counted := total()
		s.e.Receive(s.now, Datagram{Path: Path{
			Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("198.51.100.7:1701"),
		}, Payload: b})
		if o := s.outputs(); len(o) > 0 {
			t.Errorf("a stranger got %v", o)
		}
		if now := state(); now != before {
			t.Errorf("a stranger changed something (-before +after)\n%s", cmp.Diff(before, now))
		}
		if d := s.e.TakeDirty(); len(d) > 0 {
			t.Errorf("a stranger made us write %v", d)
		}
		if n := total() - counted; n != 2 {
			t.Errorf("%d counted, not received and a reason", n)
		}
	})
}

// FuzzPeer: whatever a peer sends, in whatever order, nothing panics, every
// invariant holds, what is kept for it is bounded, and time goes on. The input is
// a number of messages, each after its length; the first octet of a message says
// whether the header is made to fit.
func FuzzPeer(f *testing.F) {
	seed := func(messages ...[]string) {
		var all []byte
		for _, m := range messages {
			b, err := buildMessage(m)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, byte(len(b)+1>>8), byte(len(b)+1), 1)
			all = append(all, b...)
		}
		f.Add(all)
	}
	seed([]string{"SCCRQ", "ccid=0", "host=gold.dc2", "router=1", "assigned=5", "caps=5", "tie=1"})
	seed([]string{"ICRQ", "ccid=11", "ns=2", "nr=4", "local=7", "remote=0", "serial=1", "type=5", "end=tenant-a", "circuit=A", "sublayer=1"},
		[]string{"ICCN", "ccid=11", "ns=3", "nr=5", "local=7", "remote=17"})
	seed([]string{"SLI", "ccid=11", "ns=2", "nr=4", "local=900", "remote=13", "circuit=-"}, []string{"CDN", "ccid=11", "ns=3", "nr=4", "result=1", "local=900", "remote=13"})
	seed([]string{"SCCRP", "ccid=12", "ns=0", "nr=1", "host=silver.dc2", "router=2", "assigned=78", "caps=5"}, []string{"StopCCN", "ccid=12", "ns=1", "nr=2", "result=1"})
	seed([]string{"OCRQ", "ccid=11", "ns=2", "nr=4", "local=7", "remote=0", "serial=1", "type=5", "end=x", "circuit=A"}, []string{"77", "ccid=11", "ns=3", "nr=4"})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := established(t)
		for n := 0; len(b) > 2 && n < 64; n++ {
			size := min(int(b[0])<<8|int(b[1]), len(b)-2)
			m := b[2 : 2+size]
			b = b[2+size:]
			if len(m) == 0 {
				continue
			}
			fit, m := m[0], m[1:]
			from := netip.MustParseAddrPort("192.0.2.2:1701")
			if fit&4 != 0 {
				from = netip.AddrPortFrom(from.Addr(), 4000+uint16(n))
			}
			if fit&1 != 0 {
				s.fit(m)
			}
			s.e.Receive(s.now, Datagram{Path: Path{Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: from}, Payload: m})
			s.invariants(t)
			if fit&2 != 0 {
				s.now = s.now.Add(time.Duration(fit) * 50 * time.Millisecond)
				s.e.Advance(s.now)
				s.invariants(t)
			}
		}
		// It comes to rest: whatever waits for this peer is given up in the end.
		s.survives(t)
		for range 60 {
			d, ok := s.e.Deadline()
			if !ok {
				break
			}
			s.now = d
			s.e.Advance(s.now)
			s.invariants(t)
			if next, ok := s.e.Deadline(); ok && !next.After(d) {
				t.Fatal("a timer does not move on")
			}
		}
	})
}

// fit makes a message's header one that the connection it names would take.
func (s *stage) fit(m []byte) {
	if len(m) < 12 {
		return
	}
	m[0], m[1], m[2], m[3] = 0xc8, 0x03, byte(len(m)>>8), byte(len(m))
	for _, c := range s.e.Connections() {
		if c.LocalID != 0 && m[7] == byte(c.LocalID) {
			putHeader(m, c.LocalID, c.Nr, c.Ns)
			return
		}
	}
}

// invariants are what holds after every call.
func (s *stage) invariants(t testing.TB) {
	t.Helper()
	installed := map[uint32]bool{}
	for _, o := range s.outputs() {
		switch o := o.(type) {
		case *Transmit:
			m, err := l2tpv3.Parse(o.Payload)
			if err != nil {
				t.Fatalf("sent %x: %v", o.Payload, err)
			}
			if err := l2tpv3.Validate(m); err != nil {
				t.Fatalf("sent %s: %v", describe(o.Payload), err)
			}
		case *InstallSession:
			installed[o.LocalID] = true
		case *RemoveSession:
			installed[o.LocalID] = false
		}
	}
	s.e.sound(t, len(s.sessions))
	for id, on := range installed {
		x := s.e.sessions[id]
		if on != (x != nil && x.installed != nil) {
			t.Fatalf("session %d: told the data plane %v", id, on)
		}
	}
}

// sound checks what holds of an Endpoint between two calls, with at most so many
// sessions wanted: what it keeps is bounded, and everything goes on some time.
func (e *Endpoint) sound(t testing.TB, sessions int) {
	t.Helper()
	if len(e.outputs.queue) != 0 || len(e.touched) != 0 {
		t.Fatal("not settled")
	}
	bound := len(e.tunnels) * (maxEnded + 2)
	if len(e.connections) > bound || len(e.requests) > len(e.connections) || len(e.sessions) > sessions {
		t.Fatalf("%d connections, %d requests, %d sessions", len(e.connections), len(e.requests), len(e.sessions))
	}
	for id, c := range e.connections {
		if c.localID != id || c.phase == ended {
			t.Fatalf("connection %d is %d", id, c.localID)
		}
		if (c.state == ConnectionIdle) == (c.phase == alive) {
			t.Fatalf("connection %d in %v, phase %d", id, c.state, c.phase)
		}
		r := &c.rel
		if r.flying > r.sent || r.sent > len(r.queue) || r.flying > r.window || len(r.early) > int(c.t.cfg.ReceiveWindow) || r.earlyOctets > maxEarlyOctets || len(r.queue) > 2048+8*sessions {
			t.Fatalf("connection %d: flying %d, sent %d, queued %d, window %d, early %d", id, r.flying, r.sent, len(r.queue), r.window, len(r.early))
		}
		if r.sent > 0 && r.expires.IsZero() {
			t.Fatalf("connection %d waits for an acknowledgment without a timer", id)
		}
		if r.owed {
			t.Fatalf("connection %d owes an acknowledgment", id)
		}
	}
	for id, x := range e.sessions {
		if x.localID != id || x.state < SessionWaitReply || x.t.state() != ConnectionEstablished || x.t.sessions[x.cfg.Name] != x {
			t.Fatalf("session %d is %d in %v", id, x.localID, x.state)
		}
	}
	for _, tun := range e.tunnels {
		for _, c := range tun.ended {
			if e.connections[c.localID] != c {
				t.Fatalf("%s lingers in connection %d, which is forgotten", tun.cfg.Name, c.localID)
			}
		}
		if tun.conn != nil && tun.conn.state == ConnectionIdle {
			t.Fatalf("%s has a connection in force that is idle", tun.cfg.Name)
		}
		if tun.conn == nil && tun.openAt.IsZero() && !tun.removed && !e.stopping {
			t.Fatalf("%s will never be opened", tun.cfg.Name)
		}
		for _, x := range tun.sessions {
			if (x.localID != 0) != (x.state >= SessionWaitReply) || x.localID != 0 && e.sessions[x.localID] != x {
				t.Fatalf("session %s in %v has ID %d", x.cfg.Name, x.state, x.localID)
			}
			if x.state == SessionIdle && x.retryAt.IsZero() && tun.state() == ConnectionEstablished && !e.stopping {
				t.Fatalf("session %s will never be tried again: %s", x.cfg.Name, x.log.reason)
			}
		}
	}
}

// survives checks that what is saved now can be restored, and is then the same.
func (s *stage) survives(t testing.TB) {
	t.Helper()
	e := s.e
	state := e.Save()
	b, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	var random counting
	e2 := New(Config{Random: &random})
	if err := e2.Restore(s.now, back); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if d := cmp.Diff(e.essence(), e2.essence(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); d != "" {
		t.Fatalf("-saved +restored\n%s", d)
	}
}

// essence is what must survive a restart exactly: all but the timers of what is
// opened or repeated at once.
func (e *Endpoint) essence() (all []TunnelState) {
	for _, t := range e.sortedTunnels() {
		s := t.save()
		if s.Removed && len(s.Connections) == 0 {
			continue // what it refused to strangers is not kept
		}
		s.Retransmits = 0
		for i := range s.Connections {
			c := &s.Connections[i]
			c.Linger, c.HalfOpen, c.Tries = c.Linger.Round(time.Second), c.HalfOpen.Round(time.Second), 0
		}
		for i := range s.Sessions {
			x := &s.Sessions[i]
			x.Retry, x.HalfOpen = x.Retry.Round(time.Second), x.HalfOpen.Round(time.Second)
		}
		// As it is on the disk.
		b, err := json.Marshal(s)
		var back TunnelState
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if err != nil {
			panic(err)
		}
		all = append(all, back)
	}
	return all
}

// TestGreedyPeer: a peer that asks and asks and never acknowledges an answer does
// not make us keep more and more for it.
func TestGreedyPeer(t *testing.T) {
	s := established(t)
	c := s.e.connections[11]
	for n := range 20000 {
		m, err := buildMessage([]string{"ICRQ", "local=1", "remote=0", "serial=1", "type=5", "end=nobody", "circuit=A"})
		if err != nil {
			t.Fatal(err)
		}
		putHeader(m, 11, c.rel.nr, 4)
		m[29] = byte(n) // its session ID
		s.e.Receive(s.now, Datagram{Path: c.path, Payload: m})
		s.outputs()
	}
	if len(c.rel.queue) > 1100 {
		t.Errorf("%d messages wait for a peer that does not acknowledge", len(c.rel.queue))
	}
	if n := s.e.Counters()["overload"]; n < 18000 {
		t.Errorf("%d dropped", n)
	}
}
