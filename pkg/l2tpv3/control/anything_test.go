package control

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// TestAnyMessages has a peer that sends every kind of message, well formed, in
// any order and in every state, while the user does this and that. The
// invariants hold after every step, and the state can be saved and restored.
func TestAnyMessages(t *testing.T) {
	seen := map[string]bool{}
	runs(t, 1500, func(t testing.TB, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := established(t)
		for range 60 {
			s.anything(r, seen)
			s.invariants(t)
		}
		s.survives(t)
		for range 40 {
			d, ok := s.e.Deadline()
			if !ok {
				break
			}
			s.now = d
			s.e.Advance(s.now)
			s.invariants(t)
		}
	})
	if *seedFlag != 0 || testing.Short() {
		return
	}
	// The test is worth something only if it gets everywhere.
	for _, state := range []fmt.Stringer{ConnectionIdle, ConnectionWaitReply, ConnectionWaitConnect, ConnectionEstablished} {
		for _, kind := range []l2tpv3.MessageType{l2tpv3.SCCRQ, l2tpv3.SCCRP, l2tpv3.SCCCN, l2tpv3.StopCCN, l2tpv3.Hello, l2tpv3.ICRQ} {
			if k := fmt.Sprintf("connection in %v, %v", state, kind); !seen[k] {
				t.Errorf("never: %s", k)
			}
		}
	}
	for _, state := range []fmt.Stringer{SessionIdle, SessionWaitReply, SessionWaitConnect, SessionEstablished} {
		for _, kind := range []l2tpv3.MessageType{l2tpv3.ICRQ, l2tpv3.ICRP, l2tpv3.ICCN, l2tpv3.OCRQ, l2tpv3.OCRP, l2tpv3.OCCN, l2tpv3.CDN, l2tpv3.WEN, l2tpv3.SLI} {
			if k := fmt.Sprintf("session in %v, %v", state, kind); !seen[k] {
				t.Errorf("never: %s", k)
			}
		}
	}
}

// anything does one thing, and notes which message met which state.
func (s *stage) anything(r *rand.Rand, seen map[string]bool) {
	e := s.e
	switch n := r.IntN(20); {
	case n == 0:
		if d, ok := e.Deadline(); ok && d.After(s.now) {
			s.now = d
		}
		e.Advance(s.now)
	case n == 1:
		s.now = s.now.Add(time.Duration(r.Int64N(int64(20 * time.Second))))
		e.Advance(s.now)
	case n == 2:
		x := s.sessions[0]
		x.Circuit = l2tpv3.CircuitStatus(r.UintN(128))
		if e.SetSession(s.now, x) == nil {
			s.sessions[0] = x
		}
	case n == 3 && r.IntN(4) == 0:
		e.RemoveTunnel(s.now, s.tunnels[r.IntN(len(s.tunnels))].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
	case n == 4:
		for _, t := range s.tunnels {
			_ = e.SetTunnel(s.now, t)
		}
		for _, x := range s.sessions {
			_ = e.SetSession(s.now, x)
		}
	case n == 5:
		for _, x := range e.Sessions() {
			if x.LocalID != 0 && r.IntN(3) == 0 {
				e.InstallFailed(s.now, x.LocalID, ErrUnknownTunnel)
			}
		}
	default:
		s.message(r, seen)
	}
}

// message receives a message for one of the connections, those that linger
// included, with a header that fits or nearly so.
func (s *stage) message(r *rand.Rand, seen map[string]bool) {
	var all []*connection
	for _, t := range s.e.sortedTunnels() {
		if t.conn != nil {
			all = append(all, t.conn, t.conn, t.conn)
		}
		all = append(all, t.ended...)
	}
	kinds := []l2tpv3.MessageType{
		l2tpv3.SCCRQ, l2tpv3.SCCRP, l2tpv3.SCCCN, l2tpv3.Hello, l2tpv3.ACK, l2tpv3.ICRQ, l2tpv3.ICRQ, l2tpv3.ICRP, l2tpv3.ICRP,
		l2tpv3.ICCN, l2tpv3.CDN, l2tpv3.SLI, l2tpv3.WEN, l2tpv3.OCRQ, l2tpv3.OCRP, l2tpv3.OCCN, l2tpv3.StopCCN, 77,
	}
	kind := kinds[r.IntN(len(kinds))]
	if (kind == l2tpv3.StopCCN || kind == 77 || kind <= l2tpv3.SCCCN) && r.IntN(3) > 0 {
		kind = l2tpv3.ICRP // or the connections would not live for long
	}
	d := Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: addrPort("192.0.2.2:1701")}}
	m := s.body(r, kind)
	if len(all) == 0 || kind == l2tpv3.SCCRQ && r.IntN(4) > 0 {
		m.ControlConnectionID = 0
		d.Remote = addrPort(fmt.Sprintf("192.0.2.2:%d", 4000+r.IntN(3)))
		if t := s.e.tunnels["gold/dc2"]; t != nil && kind == l2tpv3.SCCRQ {
			seen[fmt.Sprintf("connection in %v, %v", t.state(), kind)] = true
		}
	} else {
		c := all[r.IntN(len(all))]
		m.ControlConnectionID, m.Ns, m.Nr = c.localID, c.rel.nr, c.rel.ns()
		if r.IntN(8) == 0 {
			m.Ns += uint16(r.IntN(5)) - 2
		}
		if r.IntN(4) == 0 {
			m.Nr -= uint16(r.IntN(3))
		}
		d.Path.Remote = c.path.Remote
		if m.Ns == c.rel.nr {
			s.note(seen, c, m, kind)
		}
	}
	b, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	d.Payload = b
	s.e.Receive(s.now, d)
}

// note says which states a message meets.
func (s *stage) note(seen map[string]bool, c *connection, m *l2tpv3.Message, kind l2tpv3.MessageType) {
	seen[fmt.Sprintf("connection in %v, %v", c.state, kind)] = true
	if c.state != ConnectionEstablished {
		return
	}
	state := SessionIdle
	local, _ := l2tpv3.Find[l2tpv3.RemoteSessionID](m)
	remote, _ := l2tpv3.Find[l2tpv3.LocalSessionID](m)
	if x := c.t.sessionOf(uint32(local), uint32(remote)); x != nil {
		state = x.state
	}
	if end, _ := l2tpv3.Find[l2tpv3.RemoteEndID](m); kind == l2tpv3.ICRQ && string(end) == "tenant-a" && c.t.sessions["tenant-a"] != nil {
		state = c.t.sessions["tenant-a"].state
	}
	seen[fmt.Sprintf("session in %v, %v", state, kind)] = true
}

// body is a message with values that mean something here, mostly.
func (s *stage) body(r *rand.Rand, kind l2tpv3.MessageType) *l2tpv3.Message {
	some := func(n int) bool { return r.IntN(n) == 0 }
	var avps []l2tpv3.AVP
	add := func(a ...l2tpv3.AVP) { avps = append(avps, a...) }
	switch kind {
	case l2tpv3.SCCRQ, l2tpv3.SCCRP:
		host := []string{"gold.dc2", "gold.dc2", "silver.dc2", "lac"}[r.IntN(4)]
		add(l2tpv3.HostName(host), l2tpv3.RouterID(200), l2tpv3.AssignedControlConnectionID(1+r.Uint32N(4)), l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet})
		if !some(4) {
			add(l2tpv3.TieBreaker{0, 0, 0, 0, 0, 0, 0, byte(r.UintN(60))})
		}
		if some(2) {
			add(l2tpv3.ReceiveWindowSize(1 + r.UintN(300)))
		}
	case l2tpv3.StopCCN:
		add(l2tpv3.ResultCode{Result: uint16(r.UintN(9))})
		if some(2) {
			add(l2tpv3.AssignedControlConnectionID(1 + r.Uint32N(4)))
		}
	}
	if kind.IsSession() {
		var local, remote uint32 = 900 + r.Uint32N(3), 0
		if all := s.e.Sessions(); kind != l2tpv3.ICRQ && len(all) > 0 && !some(6) {
			remote = all[r.IntN(len(all))].LocalID
		}
		if kind == l2tpv3.CDN || kind == l2tpv3.ICRQ {
			local = 900 + r.Uint32N(100)
		}
		if kind == l2tpv3.CDN {
			add(l2tpv3.ResultCode{Result: uint16(r.UintN(32))})
		}
		add(l2tpv3.LocalSessionID(local), l2tpv3.RemoteSessionID(remote))
	}
	switch kind {
	case l2tpv3.ICRQ, l2tpv3.OCRQ:
		add(l2tpv3.SerialNumber(1), l2tpv3.Ethernet, l2tpv3.RemoteEndID([]string{"tenant-a", "tenant-a", "other"}[r.IntN(3)]), l2tpv3.CircuitStatus(r.UintN(128)))
		if !some(3) {
			add(l2tpv3.TieBreaker{0, 0, 0, 0, 0, 0, 0, byte(r.UintN(60))})
		}
		fallthrough
	case l2tpv3.ICRP, l2tpv3.OCRP:
		if kind == l2tpv3.ICRP || kind == l2tpv3.OCRP {
			add(l2tpv3.CircuitStatus(r.UintN(128)))
		}
		if some(2) {
			add(l2tpv3.AssignedCookie{1, 2, 3, 4})
		}
		fallthrough
	case l2tpv3.ICCN, l2tpv3.OCCN:
		if some(4) {
			add(l2tpv3.L2SpecificSublayer(r.UintN(3)))
		}
		if some(8) {
			add(l2tpv3.DataSequencing(r.UintN(4)))
		}
	case l2tpv3.SLI:
		add(l2tpv3.CircuitStatus(r.UintN(128)))
	case l2tpv3.WEN:
		add(l2tpv3.CircuitErrors{})
	}
	if some(40) {
		add(l2tpv3.RawAVP{Type: 999, Mandatory: some(2), Value: []byte{1}})
	}
	return l2tpv3.NewMessage(kind, avps...)
}
