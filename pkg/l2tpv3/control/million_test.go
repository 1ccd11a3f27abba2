package control

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/maphash"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var deliveriesFlag = flag.Int("deliveries", 1_000_000, "messages that TestSimulation has delivered")

// TestSimulation has a million messages delivered, with up to 40 % loss, a tenth
// doubled, delays to 10 s that let 50 packets and more overtake one, while either
// end is killed and started again with and without its state, and sessions and
// circuits come and go. Every message arrives exactly once and in order, what is
// kept is bounded all the time, and when the network is good again both ends agree
// and stay so.
func TestSimulation(t *testing.T) {
	var total tallied
	if *seedFlag != 0 {
		seededRun(t, *seedFlag, total.run)
		return
	}
	want := *deliveriesFlag
	if testing.Short() {
		want /= 20
	}
	seed := uint64(0)
	for ; total.delivered < want && !t.Failed(); seed++ {
		seededRun(t, seed+1, total.run)
	}
	t.Logf("%d runs: %d messages delivered, %d packets sent, %d restarts, up to %d deep out of order, %v of simulated time",
		seed, total.delivered, total.packets, total.restarts, total.depth, total.time.Round(time.Hour))
	if total.depth < 50 {
		t.Errorf("never more than %d deep out of order", total.depth)
	}
}

// tallied is what the runs so far came to.
type tallied struct {
	delivered, packets, restarts, depth int
	time                                time.Duration
}

func (total *tallied) run(t testing.TB, seed uint64) {
	n := newNetwork(t, seed)
	wide := func(t *Tunnel) { t.ReceiveWindow = uint16(1) << n.rand.IntN(9) }
	twoTunnels(n, wide)
	for i := range n.rand.IntN(60) {
		n.session("gold", fmt.Sprintf("s%02d", i))
	}
	l := newLedger(n)
	n.bad()
	n.start()
	for range 100 {
		n.run(time.Duration(n.rand.Int64N(int64(20 * time.Second))))
		h := n.hosts[n.rand.IntN(2)]
		switch {
		case h.down || n.rand.IntN(16) == 0:
			n.disturb(h)
		default:
			h.flap()
		}
		if n.rand.IntN(16) == 0 {
			n.bad()
		}
		for _, h := range n.hosts {
			if !h.down {
				h.e.sound(t, len(h.sessions))
			}
		}
	}
	for _, h := range n.hosts {
		h.crashAfter = -1
		if h.down {
			h.start()
		}
		h.apply()
		h.drain()
	}
	n.good()
	for waited := time.Duration(0); !n.up(); waited += time.Second {
		if waited > settleTime {
			t.Fatalf("no agreement: %s", n.disagreement())
		}
		n.run(time.Second)
	}
	n.run(3 * time.Minute)
	if !n.up() {
		t.Fatalf("agreed, and then not: %s", n.disagreement())
	}
	total.delivered += l.delivered
	total.packets += n.sent
	total.restarts += l.starts[n.hosts[0]] + l.starts[n.hosts[1]] - 2
	total.depth = max(total.depth, l.depth)
	total.time += n.now.Sub(epoch)
}

// flap lets half of the circuits change, each of which is an SLI.
func (h *host) flap() {
	for i := range h.sessions {
		if h.net.rand.IntN(2) == 0 {
			h.sessions[i].Circuit ^= l2tpv3.CircuitActive
		}
	}
	h.apply()
	h.drain()
}

// ledger has what was sent to each connection, and checks what is delivered.
type ledger struct {
	n    *network
	sent map[receiver][]sending
	last map[uint32]lastDelivered
	seed maphash.Seed
	// starts of each host's process.
	starts    map[*host]int
	delivered int
	// recent are the last packets that arrived, and depth how many of those that
	// arrived before an older one there were at most.
	recent map[*host]*[256]int
	depth  int
}

// receiver is a message's place in a connection, by the ID that the receiver gave it.
type receiver struct {
	connection uint32
	ns         uint16
}

// sending is what one connection of the peer's has sent there. There may be several:
// a late copy of a request is answered anew, by another connection or by none.
type sending struct {
	content uint64
	by      uint32
}

// lastDelivered is the last message that a connection got, and in which process's life.
type lastDelivered struct {
	ns    uint16
	start int
}

func newLedger(n *network) *ledger {
	l := &ledger{n: n, sent: map[receiver][]sending{}, last: map[uint32]lastDelivered{}, seed: maphash.MakeSeed(),
		starts: map[*host]int{}, recent: map[*host]*[256]int{}}
	traced := n.trace
	n.trace = func(from *host, d Datagram) {
		if traced != nil {
			traced(from, d)
		}
		l.record(from, d.Payload)
	}
	n.arrived = l.arrived
	for _, h := range n.hosts {
		l.recent[h] = new([256]int)
		h.started = func(e *Endpoint) {
			l.starts[h]++
			e.accepted = func(c *connection, m *l2tpv3.Message) { l.deliver(h, c, m) }
		}
	}
	return l
}

// content is a message's AVPs without the digests, which differ with each Nr.
func (l *ledger) content(payload []byte) uint64 {
	const header, messageType = 12, 8
	rest := payload[header:]
	var h maphash.Hash
	h.SetSeed(l.seed)
	h.Write(rest[:messageType])
	for rest = rest[messageType:]; len(rest) >= 6 && l2tpv3.AVPType(binary.BigEndian.Uint16(rest[4:])) == l2tpv3.AVPMessageDigest; {
		rest = rest[binary.BigEndian.Uint16(rest)&0x3ff:]
	}
	h.Write(rest)
	return h.Sum64()
}

// record notes a message that is sent: a connection sends the same again, whatever
// becomes of the process in between.
func (l *ledger) record(from *host, payload []byte) {
	to := receiver{binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint16(payload[8:])}
	if kind := l2tpv3.MessageType(binary.BigEndian.Uint16(payload[18:])); to.connection == 0 || kind == l2tpv3.ACK {
		return
	}
	content := l.content(payload)
	for _, was := range l.sent[to] {
		switch {
		case was.content == content:
			return
		case was.by == l.n.sender && was.by != 0:
			l.n.t.Fatalf("%s sends another message with number %d: %s", from.name, to.ns, describe(payload))
		}
	}
	l.sent[to] = append(l.sent[to], sending{content, l.n.sender})
}

// deliver checks a message that reaches the state machine: the next one that was
// sent. Only a process that died before it could write that it had received one
// may get it again.
func (l *ledger) deliver(h *host, c *connection, m *l2tpv3.Message) {
	l.delivered++
	if m.ControlConnectionID == 0 {
		return // who has not been told it yet ends its request
	}
	octets, err := m.Append(nil)
	if err != nil {
		l.n.t.Fatalf("%s got %v: %v", h.name, m, err)
	}
	ns := c.rel.nr - 1
	content := l.content(octets)
	sent := slices.ContainsFunc(l.sent[receiver{c.localID, ns}], func(s sending) bool { return s.content == content })
	if !sent || m.Ns != ns {
		l.n.t.Fatalf("%s got %v as number %d of connection %d, which was not sent", h.name, m, ns, c.localID)
	}
	last, known := l.last[c.localID]
	switch {
	case !known || ns == last.ns+1:
	case last.start != l.starts[h] && int16(last.ns+1-ns) > 0: // it had died
	default:
		l.n.t.Fatalf("%s got number %d of connection %d after number %d", h.name, ns, c.localID, last.ns)
	}
	l.last[c.localID] = lastDelivered{ns, l.starts[h]}
}

// arrived measures how far out of order packets arrive.
func (l *ledger) arrived(p packet) {
	recent := l.recent[p.to]
	depth := 0
	for _, n := range recent {
		if n > p.n {
			depth++
		}
	}
	copy(recent[1:], recent[:])
	recent[0] = p.n
	l.depth = max(l.depth, depth)
}
