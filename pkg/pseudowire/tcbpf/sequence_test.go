package tcbpf

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const (
	sBit = 0x40000000
	vBit = 0x80000000
)

// numbering has a site number what it sends.
func numbering(level l2tpv3.DataSequencing) func(*site) {
	return func(s *site) {
		s.session.TransmitSublayer, s.session.TransmitSequencing = l2tpv3.SublayerDefault, level
	}
}

// sublayerOf is that of an outer packet with an 8-octet cookie, and whether it has one:
// a later fragment has none.
func sublayerOf(packet []byte) (sublayer uint32, ok bool) {
	at := 14 + 20
	if packet[12] == 0x86 {
		at = 14 + 40
		if packet[20] == 44 {
			if binary.BigEndian.Uint16(packet[56:])>>3 > 0 {
				return 0, false
			}
			at += 8
			packet = append(bytes.Clone(packet[:20]), append([]byte{packet[54]}, packet[21:]...)...)
		}
		if packet[20] == protocolUDP {
			at += udpLen + 4
		}
	} else {
		if binary.BigEndian.Uint16(packet[20:])&0x1fff > 0 {
			return 0, false
		}
		if packet[23] == protocolUDP {
			at += udpLen + 4
		}
	}
	return binary.BigEndian.Uint32(packet[at+4+8:]), true
}

// RFC 3931, Sections 4.6 and 5.4.4: which packets have the S bit and which number.
func TestNumbers(t *testing.T) {
	const none = -1
	type frame struct {
		shape int
		size  int
	}
	// ARP's EtherType is no IP either; a tag does not hide what is behind it.
	frames := []frame{{0, 60}, {1, 60}, {2, 60}, {6, 60}, {8, 1500}, {0, 1400}, {1, 1500}, {12, 60}, {0, 60}, {13, 60}}
	levels := []struct {
		level l2tpv3.DataSequencing
		want  []int
	}{
		{l2tpv3.SequencingNone, []int{none, none, none, none, none, none, none, none, none, none}},
		{l2tpv3.SequencingNonIP, []int{0, none, none, 1, none, 2, none, none, 3, 4}},
		{l2tpv3.SequencingAll, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	}
	for _, set := range []setting{{cookie: 8}, {cookie: 8, v6: true}, {cookie: 8, ip: true}, {cookie: 8, ip: true, v6: true}} {
		for _, c := range levels {
			t.Run(fmt.Sprintf("IPv6 %v, protocol 115 %v, level %v", set.v6, set.ip, c.level), func(t *testing.T) {
				set.tagRoom, set.mtu = 16, 1280
				a, far := upAgainstTap(t, set, numbering(c.level))
				in := openPort(t, a.host, "eth0")
				// What the host had to say has numbers too.
				first := a.next()
				for i, f := range frames {
					before := a.next()
					in.send(shapes[f.shape].frame(newRand(), f.size))
					got, _ := sublayerOf(far.outer())
					want := uint32(0)
					if c.want[i] != none {
						want = sBit | before
					}
					for f.size > 1200 {
						if _, ok := sublayerOf(far.outer()); ok {
							t.Error("two packets for one frame")
						}
						f.size -= 1200
					}
					// Somebody else's frame may have come between.
					if got&sBit != want&sBit || got&^sBit < want&^sBit || got&^sBit > want&^sBit+2 {
						t.Errorf("frame %d, %s, %d octets: sublayer %#08x, not %#08x", i, shapes[f.shape].name, f.size, got, want)
					}
				}
				if c.level == l2tpv3.SequencingNone && a.next() != first {
					t.Error("a number was used")
				}
			})
		}
	}
}

// next is the next number of the site's packets.
func (s *site) next() (n uint32) {
	s.do(func() {
		v, err := s.dp.objs.Numbers.Get(s.session.LocalID)
		if err == nil {
			n = uint32(v)
		}
	})
	return n
}

func (s *site) setNext(n uint64) {
	s.do(func() { must(s.t, s.dp.objs.Numbers.Put(s.session.LocalID, &n)) })
}

// numbersOf are the numbers of the station's next n packets, in order.
func (p *tap) numbersOf(n int) (numbers []uint32) {
	for len(numbers) < n {
		b := p.data()
		if b == nil {
			return numbers
		}
		s, _ := sublayerOf(b)
		numbers = append(numbers, s&^sBit)
	}
	return numbers
}

// The number after 2^24-1 is 0, which is not left out (RFC 3931, Appendix C).
func TestNumbersWrap(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, numbering(l2tpv3.SequencingAll))
	in := openPort(t, a.host, "eth0")
	a.quiet(far)
	a.setNext(1<<24 - 2)
	for range 4 {
		in.send(shapes[1].frame(newRand(), 60))
	}
	if diff := cmp.Diff([]uint32{0xfffffe, 0xffffff, 0, 1}, far.numbersOf(4)); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
}

// quiet waits until the hosts have said what new ones say: no number of theirs gets
// between the test's.
func (s *site) quiet(p *tap) {
	for p.receiveFrom([6]byte(p.near)) != nil {
	}
}

// Several senders at once: no number is missing and none is there twice.
func TestNumbersOfManySenders(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, numbering(l2tpv3.SequencingAll))
	a.quiet(far)
	start := a.next()
	const senders, each = 4, 500
	var wait sync.WaitGroup
	for range senders {
		in := openPort(t, a.host, "eth0")
		wait.Go(func() {
			for range each {
				in.send(shapes[1].frame(newRand(), 60))
			}
		})
	}
	wait.Wait()
	got := far.numbersOf(senders * each)
	slices.Sort(got)
	for i, n := range got {
		if n != start+uint32(i) {
			t.Fatalf("number %d at place %d", n-start, i)
		}
	}
	if len(got) != senders*each {
		t.Errorf("%d packets of %d", len(got), senders*each)
	}
}

// Each segment of what is sent as one has its own number, in order.
func TestNumbersOfSegments(t *testing.T) {
	for _, level := range []l2tpv3.DataSequencing{l2tpv3.SequencingAll, l2tpv3.SequencingNonIP} {
		a, far := upAgainstTap(t, setting{cookie: 8}, numbering(level))
		from, to := netip.MustParseAddrPort("10.0.0.1:5002"), netip.MustParseAddrPort("10.0.0.9:5002")
		a.host.do(func() { neighbour(t, "eth0", to.Addr(), unicast) })
		fd := udpSocket(t, a.host, from, to)
		defer unix.Close(fd)
		a.quiet(far)
		start := a.next()
		a.host.do(func() { must(t, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 100)) })
		sent := make([]byte, 1000)
		rand.Read(sent)
		_, err := unix.Write(fd, sent)
		must(t, err)
		want := uint32(0)
		for n := range uint32(10) {
			packet := far.receiveFrom([6]byte(far.near))
			if level == l2tpv3.SequencingNonIP {
				// They have none, and leave together.
				if s, _ := sublayerOf(packet); s != 0 {
					t.Errorf("sublayer %#08x of segments", s)
				}
				break
			}
			want = sBit | (start + n)
			if s, _ := sublayerOf(packet); s != want {
				t.Errorf("segment %d: sublayer %#08x, not %#08x", n, s, want)
			}
			if !bytes.HasSuffix(packet, sent[n*100:n*100+100]) {
				t.Errorf("segment %d is another", n)
			}
		}
	}
}

// The next process goes on with the numbers of the last one, where maps are pinned.
func TestNumbersSurviveRestart(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8, bpfDir: bpffs(t)}, numbering(l2tpv3.SequencingAll))
	in := openPort(t, a.host, "eth0")
	a.quiet(far)
	a.setNext(100)
	in.send(shapes[1].frame(newRand(), 60))
	a.restart()
	in.send(shapes[1].frame(newRand(), 60))
	if diff := cmp.Diff([]uint32{100, 101}, far.numbersOf(2)); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
}

// RFC 3931, Section 4.6.1 and Appendix C: what is taken of a peer's packets, by their
// sublayers, where none are held.
func TestSequence(t *testing.T) {
	type packets []uint32
	s := func(numbers ...uint32) (p packets) {
		for _, n := range numbers {
			p = append(p, sBit|n)
		}
		return p
	}
	ends := map[l2tpv3.DataSequencing]end{}
	for _, level := range []l2tpv3.DataSequencing{l2tpv3.SequencingAll, l2tpv3.SequencingNonIP, l2tpv3.SequencingNone} {
		a, far := upAgainstTap(t, setting{cookie: 8}, func(s *site) {
			s.session.ReceiveSublayer, s.session.ReceiveSequencing = l2tpv3.SublayerDefault, level
			s.opts.Hold = -1
		})
		ends[level] = end{a, far, openPort(t, a.host, "eth0")}
	}
	for _, c := range []struct {
		name  string
		sent  packets
		taken []int // places, in order
		late  uint64
	}{
		{"in order", s(0, 1, 2, 3), []int{0, 1, 2, 3}, 0},
		{"starts anywhere", s(0x900000, 0x900001), []int{0, 1}, 0},
		{"0 follows 2^24-1", s(0xfffffe, 0xffffff, 0, 1), []int{0, 1, 2, 3}, 0},
		{"a duplicate", s(0, 1, 1, 2), []int{0, 1, 3}, 1},
		{"a loss", s(0, 1, 3, 4), []int{0, 1, 2, 3}, 0},
		{"a late one", s(0, 2, 1, 3), []int{0, 1, 3}, 1},
		{"a late one, over the wrap", s(0xfffffe, 0, 0xffffff, 1), []int{0, 1, 3}, 1},
		{"just new", s(0, 1, 1+0x800000), []int{0, 1, 2}, 0},
		{"just old", s(0, 1, 2+0x800000), []int{0, 1}, 1},
		{"a peer that begins anew", s(500, 501, 0, 1, 2, 3, 4, 5, 6, 7, 8), []int{0, 1, 9, 10}, 7},
		{"old ones out of order do not", s(500, 501, 0, 1, 2, 3, 9, 4, 5, 6, 7, 502), []int{0, 1, 11}, 9},
		{"without the S bit numbers mean nothing", packets{sBit | 5, 0, 3, sBit | 6, 0x3fffffff}, []int{0, 1, 2, 3, 4}, 0},
		{"a peer without numbers", packets{0, 0, 0}, []int{0, 1, 2}, 0},
		{"reserved bits", packets{0x7f000000, 0x7f000001, 0x7f000001}, []int{0, 1}, 1},
	} {
		for level, end := range ends {
			t.Run(fmt.Sprintf("%s, level %v", c.name, level), func(t *testing.T) {
				a, far, out := end.site, end.tap, end.out
				a.anew()
				before := a.counters()
				for i, sublayer := range c.sent {
					far.send(far.inbound(a, false, numbered(i), func(m *message) {
						m.sublayer = binary.BigEndian.AppendUint32(nil, sublayer)
					}))
				}
				taken, late := c.taken, c.late
				if level == l2tpv3.SequencingNone {
					taken, late = nil, 0
					for i := range c.sent {
						taken = append(taken, i)
					}
				}
				for _, want := range taken {
					if got := out.receive(); !bytes.Equal(got, numbered(want)) {
						t.Fatalf("%s, where number %d should be", firstDifference(got, numbered(want)), want)
					}
				}
				want := map[string]uint64{}
				if late > 0 {
					want["out-of-sequence"] = late
				}
				a.counted(before, want)
			})
		}
	}
	// RFC 5085: with the V bit it is no data, whatever the number.
	a, far := ends[l2tpv3.SequencingAll].site, ends[l2tpv3.SequencingAll].tap
	before := a.counters()
	far.send(far.inbound(a, false, numbered(0), func(m *message) {
		m.sublayer = binary.BigEndian.AppendUint32(nil, vBit|sBit|7)
	}))
	a.counted(before, map[string]uint64{"error": 1})
}

// numbered is a frame that is told from others of its kind.
func numbered(n int) []byte {
	frame := shapes[0].frame(newRand(), 100)
	binary.BigEndian.PutUint32(frame[20:], uint32(n))
	return frame
}
