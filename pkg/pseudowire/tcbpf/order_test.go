package tcbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// ordered has a site want all packets in order, and wait so long for a missing one.
func ordered(hold time.Duration) func(*site) {
	return func(s *site) {
		s.session.ReceiveSublayer, s.session.ReceiveSequencing = l2tpv3.SublayerDefault, l2tpv3.SequencingAll
		s.opts.Hold = hold
	}
}

const (
	never = time.Hour
	soon  = 10 * time.Millisecond
)

// RFC 3931, Appendix C: packets ahead of a missing one are held for it. The frames
// arrive in the order of the numbers.
func TestOrder(t *testing.T) {
	all := map[time.Duration]end{}
	for _, hold := range []time.Duration{never, soon} {
		a, far := upAgainstTap(t, setting{cookie: 8}, ordered(hold))
		all[hold] = end{a, far, openPort(t, a.host, "eth0")}
	}
	for _, c := range []struct {
		name  string
		hold  time.Duration
		sent  []uint32
		taken []uint32
		late  uint64
	}{
		{"in order", never, []uint32{0, 1, 2}, []uint32{0, 1, 2}, 0},
		{"a late one", never, []uint32{0, 2, 1, 3}, []uint32{0, 1, 2, 3}, 0},
		{"backwards", never, []uint32{0, 5, 4, 3, 2, 1, 6}, []uint32{0, 1, 2, 3, 4, 5, 6}, 0},
		{"two missing", never, []uint32{0, 2, 4, 5, 1, 3, 6}, []uint32{0, 1, 2, 3, 4, 5, 6}, 0},
		{"from the first on", never, []uint32{2, 1, 0, 3}, []uint32{0, 1, 2, 3}, 0},
		{"over the wrap", never, []uint32{0xfffffe, 0, 0xffffff, 1}, []uint32{0xfffffe, 0xffffff, 0, 1}, 0},
		{"as far ahead as can be", never, []uint32{0, 512, 511, 1}, []uint32{0, 1}, 0},
		{"a duplicate of one that is held", never, []uint32{0, 2, 2, 1}, []uint32{0, 1, 2}, 1},
		{"a duplicate of one before", never, []uint32{0, 2, 0, 1}, []uint32{0, 1, 2}, 1},
		{"one too far ahead waits for nothing", never, []uint32{0, 513, 514}, []uint32{0, 513, 514}, 0},
		{"nor do those before it", never, []uint32{0, 2, 3, 513, 514}, []uint32{0, 2, 3, 513, 514}, 0},

		{"a loss", soon, []uint32{0, 2}, []uint32{0, 2}, 0},
		{"losses", soon, []uint32{0, 2, 4, 7}, []uint32{0, 2, 4, 7}, 0},
		{"the first is lost", soon, []uint32{1, 2}, []uint32{1, 2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, far, out := all[c.hold].site, all[c.hold].tap, all[c.hold].out
			a.anew()
			before := a.counters()
			for _, n := range c.sent {
				far.send(far.inbound(a, false, numbered(int(n)), number(n)))
			}
			for _, n := range c.taken {
				if got := out.receive(); !bytes.Equal(got, numbered(int(n))) {
					t.Fatalf("%s, where number %d should be", firstDifference(got, numbered(int(n))), n)
				}
			}
			want := map[string]uint64{}
			if c.late > 0 {
				want["out-of-sequence"] = c.late
			}
			a.counted(before, want)
			if left := a.held(); len(c.taken) == len(c.sent)-int(c.late) && left != 0 {
				t.Errorf("%d frames are still held", left)
			}
		})
	}
}

// anew makes the session one of which nothing has come. The device keeps its carrier.
func (s *site) anew() {
	s.t.Helper()
	s.do(func() {
		must(s.t, s.dp.deleteState(s.session.LocalID, true))
		must(s.t, s.dp.createState(&s.session))
	})
}

func number(n uint32) func(*message) {
	return func(m *message) { m.sublayer = binary.BigEndian.AppendUint32(nil, sBit|n) }
}

// held is how many frames are.
func (s *site) held() (n int) {
	s.do(func() {
		keys, err := s.dp.objs.Held.Keys()
		must(s.t, err)
		n = len(keys)
	})
	return n
}

// A frame that is held is what it would have been otherwise: its tags, its ECN field,
// its length. One that is dropped, or too long to be held, holds up no other.
func TestOrderedFrames(t *testing.T) {
	for _, vlan := range []uint16{0, 7} {
		a, far := upAgainstTap(t, setting{cookie: 8, mtu: 9200, tagRoom: 16, vlanA: vlan}, func(s *site) {
			ordered(never)(s)
			s.tunnel.ECN = true
		})
		out := openPort(t, a.host, "eth0")
		next := uint32(0)
		send := func(n uint32, frame []byte, tos byte) {
			far.send(far.inbound(a, false, frame, func(m *message) { number(n)(m); m.tos = tos }))
		}
		arrives := func(what string, frame []byte) {
			t.Helper()
			if vlan != 0 {
				frame = withTag(frame, vlan)
			}
			if got := out.receive(); !bytes.Equal(got, frame) {
				t.Errorf("%s: %s", what, firstDifference(got, frame))
			}
		}
		for _, s := range shapes {
			if vlan != 0 && len(s.tags) > 4 {
				continue // no room for another
			}
			for _, n := range []int{60, 1000, s.most()} {
				missing, frame, last := numbered(1), s.frame(newRand(), n), s.frame(newRand(), 61)
				send(next+2, last, 0)
				send(next+1, frame, 0)
				send(next, missing, 0)
				next += 3
				what := fmt.Sprintf("%s, %d octets, VLAN %d", s.name, n, vlan)
				arrives(what, missing)
				arrives(what, frame)
				arrives(what, last)
			}
		}
		// Marked by a router, and dropped for the mark.
		ip := withECN(shapes[1].frame(newRand(), 100), ect0)
		send(next+2, numbered(2), 0)
		send(next+1, ip, ce)
		send(next, numbered(0), 0)
		arrives("the missing one", numbered(0))
		arrives("a marked one", withECN(ip, ce))
		arrives("the last", numbered(2))
		next += 3
		before := a.counters()
		send(next+2, numbered(2), 0)
		send(next+1, shapes[1].frame(newRand(), 100), ce)
		send(next, numbered(0), 0)
		arrives("before one that is dropped", numbered(0))
		arrives("after one that is dropped", numbered(2))
		next += 3
		// Too long for the device, and for the store.
		send(next+2, numbered(2), 0)
		send(next+1, shapes[0].frame(newRand(), 2000), 0)
		send(next, numbered(0), 0)
		send(next+3, numbered(3), 0)
		arrives("before one that is too long", numbered(2))
		arrives("after one that is too long", numbered(3))
		a.counted(before, map[string]uint64{"congestion-not-ecn-capable": 1, "oversize": 1, "out-of-sequence": 1})
	}
}

// Where the store is full, what cannot be held is lost, counted, and what comes after
// waits for nothing. When there is room again, packets are put in order again.
func TestStoreFull(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, ordered(never))
	out := openPort(t, a.host, "eth0")
	send := func(n int) {
		far.send(far.inbound(a, false, numbered(n), number(uint32(n))))
	}
	arrive := func(when string, numbers ...int) {
		t.Helper()
		for _, n := range numbers {
			if got := out.receive(); !bytes.Equal(got, numbered(n)) {
				t.Fatalf("%s: %s, where number %d should be", when, firstDifference(got, numbered(n)), n)
			}
		}
	}
	var others []bpf.TurnKey
	a.do(func() {
		for {
			key := bpf.TurnKey{Session: 1, Number: uint64(len(others))}
			err := a.dp.objs.Held.Put(key, &bpf.HeldFrame{})
			if errors.Is(err, bpf.ErrFull) {
				break
			}
			must(t, err)
			others = append(others, key)
		}
	})
	before := a.counters()
	for _, n := range []int{0, 2, 3, 4} {
		send(n)
	}
	arrive("full", 0, 3, 4)
	a.counted(before, map[string]uint64{"error": 1})
	a.do(func() {
		for _, key := range others {
			must(t, a.dp.objs.Held.Delete(key))
		}
	})
	for _, n := range []int{6, 7, 5} {
		send(n)
	}
	arrive("with room", 5, 6, 7)
	a.counted(before, map[string]uint64{"error": 1})
}

// What is held is delivered when its time is over, also where the ring that tells of it had no
// room, as it has none while many sessions wait.
func TestNoticesFull(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, ordered(never))
	out := openPort(t, a.host, "eth0")
	untold := func() (n uint64) {
		a.do(func() {
			var err error
			n, err = a.dp.objs.Keeper.Get(bpf.KeeperUntold)
			must(t, err)
		})
		return n
	}
	// Each packet that comes late is one notice, of which the keeper has taken the first, to
	// wait for that one's time to be over.
	n := uint32(0)
	for ; untold() == 0; n += 40 {
		for i := uint32(0); i < 40; i += 2 {
			for _, x := range []uint32{n + i + 1, n + i} {
				far.send(far.inbound(a, false, numbered(int(x)), number(x)))
			}
			for _, x := range []uint32{n + i, n + i + 1} {
				if got := out.receive(); !bytes.Equal(got, numbered(int(x))) {
					t.Fatalf("%s, where number %d should be", firstDifference(got, numbered(int(x))), x)
				}
			}
		}
	}
	a.do(func() {
		o, err := a.dp.objs.Orders.Get(a.session.LocalID)
		must(t, err)
		o.Hold = uint64(soon)
		must(t, a.dp.objs.Orders.Put(a.session.LocalID, &o))
	})
	far.send(far.inbound(a, false, numbered(int(n)+1), number(n+1)))
	if got := out.receive(); !bytes.Equal(got, numbered(int(n)+1)) {
		t.Errorf("%s, where number %d should be", firstDifference(got, numbered(int(n)+1)), n+1)
	}
	if left := a.held(); left != 0 {
		t.Errorf("%d frames are still held", left)
	}
}

// Where nobody ends the waiting, nothing is held.
func TestNothingIsHeldWithoutKeeper(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, ordered(never))
	out := openPort(t, a.host, "eth0")
	far.send(far.inbound(a, false, numbered(0), number(0)))
	far.send(far.inbound(a, false, numbered(2), number(2)))
	if got := out.receive(); !bytes.Equal(got, numbered(0)) {
		t.Fatal(firstDifference(got, numbered(0)))
	}
	a.do(func() { must(t, a.dp.Close()) })
	for _, n := range []uint32{3, 5, 4} {
		far.send(far.inbound(a, false, numbered(int(n)), number(n)))
	}
	for _, n := range []int{2, 3, 5} {
		if got := out.receive(); !bytes.Equal(got, numbered(n)) {
			t.Fatalf("%s, where number %d should be", firstDifference(got, numbered(n)), n)
		}
	}
	a.open()
	a.set()
	a.do(func() { must(t, a.dp.Prune()) })
}

// Packets of an underlay that reorders, up to 20 deep, arrive in order, and none is
// lost.
func TestOrderOverReorderingUnderlay(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, ordered(time.Second))
	out := openPort(t, a.host, "eth0")
	rng := rand.New(rand.NewPCG(9, 10))
	const packets, depth = 4000, 20
	order := make([]uint32, packets)
	for i := range order {
		order[i] = uint32(i)
	}
	for at := 0; at+depth <= packets; at += depth {
		if rng.IntN(3) == 0 {
			rng.Shuffle(depth, func(i, j int) { order[at+i], order[at+j] = order[at+j], order[at+i] })
		}
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for _, n := range order {
			far.send(far.inbound(a, false, numbered(int(n)), number(n)))
		}
	})
	for n := range packets {
		if got := out.receive(); !bytes.Equal(got, numbered(n)) {
			t.Fatalf("%s, where number %d should be; %+v", firstDifference(got, numbered(n)), n, a.counters())
		}
	}
	wait.Wait()
	if n := a.counters().Drops["out-of-sequence"]; n != 0 {
		t.Errorf("%d out of sequence", n)
	}
}

// Between two sites that number all: TCP, datagrams in fragments among small ones,
// senders on several CPUs. What has a number is neither late nor lost.
func TestOrderEndToEnd(t *testing.T) {
	for _, set := range []setting{{cookie: 8}, {cookie: 8, ip: true, v6: true}} {
		a, b := newSites(t, set)
		for _, s := range []*site{a, b} {
			ordered(300 * time.Millisecond)(s)
			numbering(l2tpv3.SequencingAll)(s)
			s.open()
			s.set()
			s.resolve()
			pump(t, s)
		}
		transfer(t, a.host, b.host, "10.0.0.2:5001", 8<<20)
		// A burst of held frames can be more than a busy host's backlog takes
		// (net.core.netdev_max_backlog); TCP sends what is counted so again.
		before := map[*site]uint64{a: a.counters().Drops["error"], b: b.counters().Drops["error"]}
		in, out := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
		const frames = 100
		for range frames {
			in.send(shapes[0].frame(newRand(), 1514))
			in.send(shapes[0].frame(newRand(), 100))
		}
		for n := range 2 * frames {
			if out.receive() == nil {
				t.Fatalf("%d frames of %d came; a %+v, b %+v", n, 2*frames, a.counters(), b.counters())
			}
		}
		for _, s := range []*site{a, b} {
			if c := s.counters(); c.Drops["out-of-sequence"] != 0 || c.Drops["error"] != before[s] {
				t.Errorf("%s: %+v; %d errors before", s.name, c, before[s])
			}
		}
		b.eventually("frames are still held", func() bool {
			keys, err := b.dp.objs.Held.Keys()
			must(t, err)
			return len(keys) == 0
		})
	}
}
