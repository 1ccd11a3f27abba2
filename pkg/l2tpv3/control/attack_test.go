package control

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// signed is a message as the peer would send it: its header, digests with the
// secrets, and what the sender chose at random.
func signed(t testing.TB, words string, sender, receiver []byte, a l2tpv3.DigestAlgorithm, secrets ...string) []byte {
	t.Helper()
	b, err := buildMessage(strings.Fields(words))
	if err != nil {
		t.Fatal(err)
	}
	m, err := l2tpv3.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, m, sender, receiver, a, secrets...)
}

func sign(t testing.TB, m *l2tpv3.Message, sender, receiver []byte, a l2tpv3.DigestAlgorithm, secrets ...string) []byte {
	t.Helper()
	var keys []*l2tpv3.Secret
	for _, s := range secrets {
		keys = append(keys, l2tpv3.NewSecret([]byte(s)))
		m.AVPs = slices.Insert(m.AVPs, 1, l2tpv3.AVP(l2tpv3.NewMessageDigest(a)))
	}
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l2tpv3.Sign(b, sender, receiver, keys...); err != nil {
		t.Fatal(err)
	}
	return b
}

// sent takes what is to be transmitted, as text.
func (s *stage) sent() (all []string) {
	for _, o := range s.outputs() {
		if o, ok := o.(*Transmit); ok {
			all = append(all, describe(o.Payload))
		}
	}
	return all
}

var (
	fromPeer  = Path{Local: addrPort("192.0.2.1:1701"), Remote: addrPort("192.0.2.2:4321")}
	peerNonce = []byte("0123456789abcdef")
)

const peerNonceText = " nonce=30313233343536373839616263646566"

// authenticated is an Endpoint whose gold/dc2 has an established connection, 11 to
// 77, that the peer has opened. It returns our nonce.
func authenticated(t testing.TB, options ...string) (s *stage, nonce []byte) {
	t.Helper()
	s = &stage{now: epoch}
	s.reset()
	if err := s.do([]string{"random", "10"}); err != nil {
		t.Fatal(err)
	}
	if err := s.do(append([]string{"tunnel", "gold/dc2"}, options...)); err != nil {
		t.Fatal(err)
	}
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "SCCRQ host=gold.dc2 router=1 assigned=77 caps=5 tie=1"+peerNonceText, nil, nil, 0, "s3cret")})
	c := s.e.connections[11]
	if c == nil {
		t.Fatalf("not answered: %v", s.e.Counters())
	}
	nonce = c.auth.localNonce
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "SCCCN ccid=11 ns=1 nr=1", peerNonce, nonce, 0, "s3cret")})
	if s.e.Connections()[0].State != ConnectionEstablished {
		t.Fatalf("not established: %v", s.e.Counters())
	}
	s.outputs()
	return s, nonce
}

// TestReplayedRequests: SCCRQs that somebody has recorded are answered once, and
// do not get into the way of the peer's own (Section 4.3: "guard against [...]
// replay attacks").
func TestReplayedRequests(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret)
	n.session("gold", "tenant-a")
	var recorded []Datagram
	n.trace = func(from *host, d Datagram) {
		m, _ := l2tpv3.Parse(d.Payload)
		if kind, _ := m.Type(); kind == l2tpv3.SCCRQ && from == n.hosts[1] {
			recorded = append(recorded, d)
		}
	}
	n.hosts[0].start()
	for range 20 { // attempts that come to nothing
		n.hosts[1].start()
		n.run(3 * time.Second)
		n.hosts[1].down = true
		n.hosts[1].forget()
		n.run(100 * time.Second)
	}
	if len(recorded) < 5 {
		t.Fatalf("only %d requests", len(recorded))
	}
	n.hosts[1].start()
	if !n.until(10*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	n.run(2 * time.Minute)
	// The peer loses its state; its new request comes amid a flood of old ones.
	n.hosts[1].forget()
	n.hosts[1].start()
	for i := range 3000 {
		d := recorded[i%len(recorded)]
		n.sent++
		heap.Push(&n.air, packet{at: n.now.Add(time.Duration(i) * time.Millisecond), n: n.sent, to: n.hosts[0], d: d})
	}
	if !n.until(2500*time.Millisecond, n.up) {
		t.Fatalf("%s; %v", n.disagreement(), n.hosts[0].e.Counters())
	}
}

// TestRivalTakesOver: the old connection ends while another is being authenticated
// beside it. That goes on in its place.
func TestRivalTakesOver(t *testing.T) {
	s, nonce := authenticated(t, "secret=s3cret")
	other := fromPeer
	other.Remote = addrPort("192.0.2.2:4999")
	const otherNonce = "fedcba9876543210"
	s.e.Receive(s.now, Datagram{Path: other, Payload: signed(t, fmt.Sprintf("SCCRQ host=gold.dc2 router=1 assigned=78 caps=5 tie=2 nonce=%x", otherNonce), nil, nil, 0, "s3cret")})
	if c := s.e.Connections()[0]; c.LocalID != 11 || !c.Testing {
		t.Fatalf("connection %d, %v", c.LocalID, s.e.Counters())
	}
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "StopCCN ccid=11 ns=2 nr=1 result=6", peerNonce, nonce, 0, "s3cret")})
	c := s.e.Connections()[0]
	if c.LocalID == 0 || c.LocalID == 11 || c.State != ConnectionWaitConnect || c.Testing {
		t.Fatalf("connection %d in %v: %s", c.LocalID, c.State, c.Reason)
	}
	m := signed(t, fmt.Sprintf("SCCCN ccid=%d ns=1 nr=1", c.LocalID), []byte(otherNonce), s.e.connections[c.LocalID].auth.localNonce, 0, "s3cret")
	s.e.Receive(s.now, Datagram{Path: other, Payload: m})
	if c := s.e.Connections()[0]; c.State != ConnectionEstablished {
		t.Errorf("%v: %s", c.State, c.Reason)
	}
}

// TestLeavingWithoutOurNonce: a peer that closes before it has got our SCCRP does
// not know our nonce. Its StopCCN is taken, acknowledged in a way that it
// understands, and so is the repetition.
func TestLeavingWithoutOurNonce(t *testing.T) {
	s := &stage{now: epoch}
	s.reset()
	for _, line := range []string{"random 10", "tunnel gold/dc2 secret=s3cret"} {
		if err := s.do(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "SCCRQ host=gold.dc2 router=1 assigned=77 caps=5"+peerNonceText, nil, nil, 0, "s3cret")})
	s.outputs()
	for range 2 {
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "StopCCN ns=1 result=6 assigned=77", peerNonce, nil, 0, "s3cret")})
		var acks int
		for _, o := range s.outputs() {
			if o, ok := o.(*Transmit); ok {
				acks++
				if err := l2tpv3.Verify(o.Payload, nil, peerNonce, l2tpv3.NewSecret([]byte("s3cret"))); err != nil {
					t.Errorf("%s: %v", describe(o.Payload), err)
				}
			}
		}
		if acks != 1 {
			t.Errorf("%d messages, not an ACK: %v", acks, s.e.Counters())
		}
	}
	if n := s.e.Counters()["unauthenticated"]; n != 0 {
		t.Errorf("%d unauthenticated", n)
	}
}

// TestCloseWithTheOldSecret: who takes the secret away, or replaces it together
// with something that ends the connection, says good-bye in the old one.
func TestCloseWithTheOldSecret(t *testing.T) {
	for _, change := range []string{"", "secret=other window=9", "secret=other"} {
		s, nonce := authenticated(t, "secret=s3cret")
		if change == "secret=other" { // by itself that is a live change
			s.e.RemoveTunnel(s.now, "gold/dc2", l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
		}
		if err := s.tunnel("gold/dc2", strings.Fields(change)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // and again
			var stopped bool
			for _, o := range s.outputs() {
				if o, ok := o.(*Transmit); ok && strings.HasPrefix(describe(o.Payload), "StopCCN ccid=77") {
					stopped = true
					if err := l2tpv3.Verify(o.Payload, nonce, peerNonce, l2tpv3.NewSecret([]byte("s3cret"))); err != nil {
						t.Errorf("%q: %v", change, err)
					}
				}
			}
			if !stopped {
				t.Errorf("%q: no StopCCN", change)
			}
			s.now = s.now.Add(time.Second)
			s.e.Advance(s.now)
		}
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "ACK ccid=11 ns=2 nr=2", peerNonce, nonce, 0, "s3cret")})
		if len(s.e.connections[11].rel.queue) != 0 {
			t.Errorf("%q: the acknowledgment is not understood", change)
		}
	}
}

// TestDigests: any algorithm is accepted, and either of two digests with either of
// two secrets (Section 5.4.1, rule 30); sent is what is configured.
func TestDigests(t *testing.T) {
	s, nonce := authenticated(t, "secret=new", "secret=s3cret", "digest=sha1")
	ns := 2
	for _, row := range []struct {
		name      string
		algorithm l2tpv3.DigestAlgorithm
		secrets   []string
		good      bool
	}{
		{"HMAC-MD5, the second secret", l2tpv3.HMACMD5, []string{"s3cret"}, true},
		{"HMAC-SHA-1, the second secret", l2tpv3.HMACSHA1, []string{"s3cret"}, true},
		{"HMAC-SHA-1, the first secret", l2tpv3.HMACSHA1, []string{"new"}, true},
		{"the first of two digests", l2tpv3.HMACMD5, []string{"s3cret", "wrong"}, true},
		{"the second of two digests", l2tpv3.HMACSHA1, []string{"wrong", "new"}, true},
		{"both wrong", l2tpv3.HMACMD5, []string{"wrong", "other"}, false},
		{"the empty secret", l2tpv3.HMACMD5, []string{""}, false},
	} {
		words := fmt.Sprintf("HELLO ccid=11 ns=%d nr=1", ns)
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, words, peerNonce, nonce, row.algorithm, row.secrets...)})
		if row.good {
			ns++
		}
		if got := int(s.e.Connections()[0].Nr); got != ns {
			t.Fatalf("%s: Nr %d, not %d", row.name, got, ns)
		}
		for _, o := range s.sent() {
			if !row.good || !strings.Contains(o, "digest=HMAC-SHA-1 digest=HMAC-SHA-1") {
				t.Errorf("%s: sent %s", row.name, o)
			}
		}
	}
	for what, m := range map[string][]byte{
		"a StopCCN without our nonce": signed(t, fmt.Sprintf("StopCCN ccid=11 ns=%d nr=1 result=6", ns), peerNonce, nil, 0, "s3cret"),
		"a StopCCN without nonces":    signed(t, fmt.Sprintf("StopCCN ccid=11 ns=%d nr=1 result=6", ns), nil, nil, 0, "s3cret"),
		"an SCCRQ without a nonce":    signed(t, "SCCRQ host=gold.dc2 router=1 assigned=79 caps=5 tie=1", nil, nil, 0, "s3cret"),
	} {
		before := s.e.Counters()["unauthenticated"]
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: m})
		if s.e.Counters()["unauthenticated"] == before || len(s.outputs()) > 0 {
			t.Errorf("%s was taken for good", what)
		}
	}
	// The nonces the wrong way round: one of our own messages, sent back.
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, fmt.Sprintf("HELLO ccid=11 ns=%d nr=1", ns), nonce, peerNonce, 0, "s3cret")})
	if got := int(s.e.Connections()[0].Nr); got != ns {
		t.Error("a reflected message was accepted")
	}
}

// TestHidden: AVPs that the peer hides are as if they were not (Section 5.3, rule
// 32): in the SCCRQ, where the secret has to be found first, in session messages,
// also out of order, with two secrets. Without authentication they cannot be read.
func TestHidden(t *testing.T) {
	vector := l2tpv3.RandomVector("fedcba9876543210")
	hide := func(secret string, m *l2tpv3.Message) *l2tpv3.Message {
		k := l2tpv3.NewSecret([]byte(secret))
		all := []l2tpv3.AVP{m.AVPs[0], vector}
		for i, a := range m.AVPs[1:] {
			if h, err := k.Hide(a, vector, make([]byte, 3*i)); err == nil {
				a = h
			}
			all = append(all, a)
		}
		m.AVPs = all
		return m
	}
	request := func() *l2tpv3.Message {
		return l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.HostName("gold.dc2"), l2tpv3.RouterID(1), l2tpv3.AssignedControlConnectionID(77),
			l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet}, l2tpv3.Nonce(peerNonce))
	}
	start := func(options ...string) *stage {
		s := &stage{now: epoch}
		s.reset()
		for _, line := range [][]string{{"random", "10"}, append([]string{"tunnel", "gold/dc2"}, options...), {"session", "gold/dc2", "tenant-a", "cookie=4"}} {
			if err := s.do(line); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	for _, row := range []struct {
		name, hidden string
		options      []string
	}{
		{"one secret", "s3cret", []string{"secret=s3cret"}},
		{"hidden with the first of two", "s3cret", []string{"secret=s3cret", "secret=old"}},
		{"hidden with the second of two", "old", []string{"secret=s3cret", "secret=old"}},
	} {
		s := start(row.options...)
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: sign(t, hide(row.hidden, request()), nil, nil, 0, "s3cret")})
		c := s.e.connections[11]
		if c == nil || c.remoteID != 77 {
			t.Errorf("%s: SCCRQ not answered: %v", row.name, s.e.Counters())
			continue
		}
		nonce := c.auth.localNonce
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "SCCCN ccid=11 ns=1 nr=1", peerNonce, nonce, 0, "s3cret")})
		id := s.e.Sessions()[0].LocalID
		icrp := l2tpv3.NewMessage(l2tpv3.ICRP, l2tpv3.LocalSessionID(900), l2tpv3.RemoteSessionID(id), l2tpv3.CircuitStatus(1), l2tpv3.AssignedCookie("12345678"))
		sli := l2tpv3.NewMessage(l2tpv3.SLI, l2tpv3.LocalSessionID(900), l2tpv3.RemoteSessionID(id), l2tpv3.CircuitStatus(0x40))
		for i, m := range []*l2tpv3.Message{sli, icrp} { // the second first
			m.ControlConnectionID, m.Ns, m.Nr = 11, uint16(3-i), 2
			s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: sign(t, hide(row.hidden, m), peerNonce, nonce, 0, "s3cret")})
		}
		x := s.e.Sessions()[0]
		if x.State != SessionEstablished || x.RemoteID != 900 || string(x.RemoteCookie) != "12345678" || x.Remote != l2tpv3.CircuitStandby {
			t.Errorf("%s: %v %d %q %v: %s", row.name, x.State, x.RemoteID, x.RemoteCookie, x.Remote, x.Reason)
		}
		// With a secret that is nobody's here nothing sensible comes out. The M bit decides (Section 7.1).
		wrong := l2tpv3.NewMessage(l2tpv3.SLI, l2tpv3.LocalSessionID(900), l2tpv3.RemoteSessionID(id), l2tpv3.CircuitStatus(1))
		wrong.ControlConnectionID, wrong.Ns, wrong.Nr = 11, 4, 3
		s.outputs()
		s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: sign(t, hide("wrong", wrong), peerNonce, nonce, 0, "s3cret")})
		if sent := s.sent(); len(sent) != 1 || !strings.HasPrefix(sent[0], "ACK") && !strings.HasPrefix(sent[0], "CDN") {
			t.Errorf("%s: wrongly hidden: %v", row.name, sent)
		}
	}
	s := start()
	m := request()
	m.AVPs = m.AVPs[:len(m.AVPs)-1] // no nonce: no authentication
	b, err := hide("", m).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: b})
	if sent := s.sent(); len(sent) != 0 || len(s.e.connections) != 0 {
		t.Errorf("hidden without authentication: %v", sent)
	}
}

// TestNothingForStrangers: what is not from a peer, or not for a connection, costs
// no more than a look at its header, however long it is.
func TestNothingForStrangers(t *testing.T) {
	s := established(t)
	bomb := l2tpv3.NewMessage(l2tpv3.Hello)
	for range 5000 {
		bomb.AVPs = append(bomb.AVPs, l2tpv3.RouterID(1<<20))
	}
	for _, row := range []struct {
		id      uint32
		from    string
		counter string
	}{
		{0, "198.51.100.7:1701", "unknown-peer"},
		{4711, "198.51.100.7:1701", "unknown-connection"},
		{4711, "192.0.2.2:1701", "unknown-connection"},
		{11, "198.51.100.7:1701", "wrong-peer"},
		{11, "192.0.2.2:999", "wrong-port"},
	} {
		bomb.ControlConnectionID = row.id
		b, err := bomb.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		d := Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: addrPort(row.from)}, Payload: b}
		before := s.e.Counters()[row.counter]
		if n := testing.AllocsPerRun(10, func() { s.e.Receive(s.now, d) }); n > 0 {
			t.Errorf("ID %d from %s: %v allocations", row.id, row.from, n)
		}
		if n := s.e.Counters()[row.counter] - before; n != 11 {
			t.Errorf("ID %d from %s: counted %d times", row.id, row.from, n)
		}
	}
}

// TestRepetitionsAreNotWritten: what changes nothing is not written to the disk,
// or anybody who repeats a packet could keep it busy.
func TestRepetitionsAreNotWritten(t *testing.T) {
	s := established(t)
	for _, words := range []string{
		"ICRP ccid=11 ns=1 nr=3 local=900 remote=13 circuit=A",
		"ACK ccid=11 ns=2 nr=4", "ACK ccid=11 ns=1 nr=3", "HELLO ccid=11 ns=9 nr=4",
	} {
		if err := s.receive(strings.Fields(words)); err != nil {
			t.Fatal(err)
		}
		if dirty := s.e.TakeDirty(); len(dirty) > 0 {
			t.Errorf("%s: %v", words, dirty)
		}
	}
}

// TestFloodAndFarewell: refusals, however many, leave what is closing alone, which
// needs its state for a full cycle (Section 4.2).
func TestFloodAndFarewell(t *testing.T) {
	s := established(t)
	if err := s.do([]string{"remove", "gold/dc2", "6"}); err != nil {
		t.Fatal(err)
	}
	if err := s.do([]string{"tunnel", "gold/dc2"}); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		words := fmt.Sprintf("SCCRQ host=gold.dc2 router=200 assigned=%d caps=5 avp=M:0:999:00 from=192.0.2.2:4001", 1+i)
		if err := s.receive(strings.Fields(words)); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(time.Second)
		s.e.Advance(s.now)
	}
	if c := s.e.connections[11]; c == nil || c.phase != closing {
		t.Error("the farewell is forgotten")
	}
}

// TestFlood: SCCRQs from a peer's address, which may be forged, make us send and
// keep a few messages in a second, whatever state they meet (Section 4.3).
func TestFlood(t *testing.T) {
	request := func(id, tie int) []string {
		return []string{"SCCRQ", "ccid=0", "host=gold.dc2", "router=200", fmt.Sprint("assigned=", id), "caps=5", fmt.Sprintf("tie=%x", tie)}
	}
	opened := []string{"SCCRP ccid=11 ns=0 nr=1 host=gold.dc2 router=200 assigned=77 caps=5", "ACK ccid=11 ns=1 nr=2"}
	for _, row := range []struct {
		name    string
		before  []string
		request func(i int) []string
	}{
		{"the same, half open", nil, func(i int) []string { return request(5, 1) }},
		{"others, half open", nil, func(i int) []string { return request(1+i, 1) }},
		{"others that lose the tie", nil, func(i int) []string { return request(1+i, 99) }},
		{"one that loses the tie", nil, func(i int) []string { return request(5, 99) }},
		{"not acceptable", nil, func(i int) []string { return append(request(1+i, 1), "avp=M:0:999:00") }},
		{"beside a living connection", opened, func(i int) []string { return request(1+i, 1) }},
	} {
		s := &stage{now: epoch}
		s.reset()
		for _, line := range []string{"random 10", "tunnel gold/dc2", "advance 1ms"} {
			if err := s.do(strings.Fields(line)); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range row.before {
			if err := s.receive(strings.Fields(m)); err != nil {
				t.Fatal(err)
			}
		}
		s.outputs()
		var answers int
		for i := range 1000 {
			if err := s.receive(append(row.request(i), "from=192.0.2.2:4001")); err != nil {
				t.Fatal(err)
			}
			sent := s.sent()
			for _, m := range sent {
				if strings.HasPrefix(m, "HELLO") { // the living peer answers
					if err := s.receive(strings.Fields(fmt.Sprintf("ACK ccid=11 ns=1 nr=%d", s.e.Connections()[0].Ns))); err != nil {
						t.Fatal(err)
					}
					sent = append(sent, s.sent()...)
				}
			}
			answers += len(sent)
		}
		if answers == 0 || answers > 2*(maxRequests+1) {
			t.Errorf("%s: %d messages for 1000 requests", row.name, answers)
		}
		if n := len(s.e.connections); n > maxEnded+2 {
			t.Errorf("%s: %d connections", row.name, n)
		}
		if len(row.before) > 0 && s.e.Connections()[0].LocalID != 11 {
			t.Errorf("%s: it is gone", row.name)
		}
	}
}

// TestForger has somebody who sends from the peer's address what he can know or
// guess without seeing an answer: requests of all kinds, StopCCNs by the peer's
// IDs, copies of what the peer has sent. Connections that live go on, with
// authentication and without.
func TestForger(t *testing.T) {
	runs(t, 60, func(t testing.TB, seed uint64) {
		n := newNetwork(t, seed)
		twoTunnels(n)
		var recorded []packet
		n.trace = func(from *host, d Datagram) {
			recorded = append(recorded, packet{to: from.peer, d: d})
		}
		n.start()
		if !n.until(3*time.Second, n.up) {
			t.Fatal(n.disagreement())
		}
		n.run(30 * time.Second)
		n.trace = nil
		ids := func() (all []uint32) {
			for _, c := range n.hosts[0].e.Connections() {
				all = append(all, c.LocalID, c.RemoteID)
			}
			return all
		}
		before := ids()
		at := n.now
		for range 400 {
			at = at.Add(time.Duration(n.rand.Int64N(int64(500 * time.Millisecond))))
			p := recorded[n.rand.IntN(len(recorded))]
			if n.rand.IntN(3) > 0 {
				p = n.forged(n.hosts[n.rand.IntN(2)], before)
			}
			n.sent++
			p.at, p.n = at, n.sent
			heap.Push(&n.air, p)
		}
		n.run(5 * time.Minute)
		if !n.up() || !slices.Equal(ids(), before) {
			t.Fatalf("%v, not %v; %s", ids(), before, n.disagreement())
		}
	})
}

// forged is a packet to h that its peer has not sent.
func (n *network) forged(h *host, ids []uint32) packet {
	r := n.rand
	own, peers := h.tunnels[r.IntN(len(h.tunnels))], h.peer.tunnels[r.IntN(len(h.tunnels))]
	names := []string{own.HostName, own.PeerHostName, peers.HostName, "lac"}
	id := ids[r.IntN(len(ids))]
	if r.IntN(2) == 0 {
		id = 1 + r.Uint32N(10)
	}
	m := l2tpv3.NewMessage(l2tpv3.SCCRQ, l2tpv3.HostName(names[r.IntN(len(names))]), l2tpv3.RouterID(1), l2tpv3.AssignedControlConnectionID(id), l2tpv3.PseudowireCapabilities{l2tpv3.Ethernet})
	if r.IntN(4) > 0 {
		m.AVPs = append(m.AVPs, l2tpv3.TieBreaker{7: byte(r.UintN(200))})
	}
	if r.IntN(4) == 0 {
		m.AVPs = append(m.AVPs, l2tpv3.Nonce(peerNonce))
	}
	if r.IntN(3) == 0 {
		m = l2tpv3.NewMessage(l2tpv3.StopCCN, l2tpv3.ResultCode{Result: 6}, l2tpv3.AssignedControlConnectionID(id))
		m.Ns, m.Nr = uint16(r.UintN(6)), uint16(r.UintN(3))
	}
	b, err := m.Append(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	ports := []uint16{1701, h.peer.nextPort, h.peer.nextPort - 1, 5000 + uint16(r.UintN(3))}
	if own.Encapsulation == l2tpv3.IP {
		ports = []uint16{0}
	}
	local := addrPort(fmt.Sprintf("%v:%d", h.addr, l2tpv3.Port))
	if own.Encapsulation == l2tpv3.IP {
		local = addrPort(fmt.Sprintf("%v:0", h.addr))
	}
	return packet{to: h, d: Datagram{Payload: b, Path: Path{Encapsulation: own.Encapsulation, Local: local,
		Remote: addrPort(fmt.Sprintf("%v:%d", h.peer.addr, ports[r.IntN(len(ports))]))}}}
}

// TestPatienceEnds: a peer that never goes on with a session, and always has
// something to say of another, does not keep it half open for ever.
func TestPatienceEnds(t *testing.T) {
	s := established(t)
	if err := s.do([]string{"session", "gold/dc2", "tenant-b"}); err != nil {
		t.Fatal(err)
	}
	start := s.now
	for s.e.Sessions()[1].State == SessionWaitReply {
		c := s.e.Connections()[0]
		if err := s.receive(strings.Fields(fmt.Sprintf("SLI ccid=11 ns=%d nr=%d local=900 remote=13 circuit=A", c.Nr, c.Ns))); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(30 * time.Second)
		s.e.Advance(s.now)
		s.outputs()
		if s.now.Sub(start) > time.Hour {
			t.Fatal("still half open")
		}
	}
	if d := s.now.Sub(start); d < 5*time.Minute || s.e.Sessions()[1].Reason != "not established in time" {
		t.Errorf("after %v: %s", d, s.e.Sessions()[1].Reason)
	}
}

// TestUnknownMandatory: an AVP that is passed over does not hide the next, which is
// named by its place in the message.
func TestUnknownMandatory(t *testing.T) {
	m := l2tpv3.NewMessage(l2tpv3.Hello, l2tpv3.RawAVP{Vendor: l2tpv3.VendorCisco, Type: 1, Mandatory: true}, l2tpv3.RouterID(1),
		l2tpv3.RawAVP{Vendor: vendorCableLabs, Type: 2, Mandatory: true}, l2tpv3.RawAVP{Vendor: 3561, Type: 3, Mandatory: true})
	if u, ok := unknownMandatory(m); !ok || u.Index != 4 || u.Vendor != 3561 {
		t.Errorf("%v", u)
	}
	m.AVPs = m.AVPs[:4]
	if u, ok := unknownMandatory(m); ok {
		t.Error(u)
	}
}

// TestSlowPeer: a peer with a window of 1 that takes most of a retransmission cycle
// for each message gets the requests one by one; those that wait are not given up.
func TestSlowPeer(t *testing.T) {
	s := &stage{now: epoch}
	s.reset()
	for _, line := range []string{
		"random 10", "tunnel gold/dc2", "session gold/dc2 a", "session gold/dc2 b", "session gold/dc2 c", "session gold/dc2 d", "advance 1ms",
		"< SCCRP ccid=11 nr=1 window=1 host=gold.dc2 router=200 assigned=77 caps=5",
	} {
		if err := s.do(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	for nr := 2; nr <= 5; nr++ {
		for end := s.now.Add(50 * time.Second); ; {
			d, ok := s.e.Deadline()
			if !ok || d.After(end) {
				s.now = end
				break
			}
			s.e.Advance(d)
		}
		if err := s.receive(strings.Fields(fmt.Sprintf("ACK ccid=11 ns=1 nr=%d", nr))); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range s.e.Sessions() {
		if x.State != SessionWaitReply || x.Failures > 0 {
			t.Errorf("%s: %v, %d failures: %s", x.Session.Name, x.State, x.Failures, x.Reason)
		}
	}
}

// TestNoSecretHere: a peer that authenticates its SCCRP gets StopCCN 4 from one
// that has no secret, whose user is told.
func TestNoSecretHere(t *testing.T) {
	s := &stage{now: epoch}
	s.reset()
	for _, line := range []string{"random 10", "tunnel gold/dc2", "advance 1ms"} {
		if err := s.do(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	s.outputs()
	s.e.Receive(s.now, Datagram{Path: fromPeer, Payload: signed(t, "SCCRP ccid=11 nr=1 host=gold.dc2 router=1 assigned=77 caps=5"+peerNonceText, peerNonce, nil, 0, "s3cret")})
	if sent := s.sent(); len(sent) != 1 || !strings.HasPrefix(sent[0], "StopCCN ccid=77 ns=1 nr=1 result=4/") {
		t.Errorf("sent %v", sent)
	}
	if c := s.e.Connections()[0]; !strings.Contains(c.Reason, "wants authentication") {
		t.Error(c.Reason)
	}
}
