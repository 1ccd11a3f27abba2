package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// silence keeps whatever is on the LANs from speaking by itself: what moves is the test's.
func (s *site) silence() {
	s.t.Helper()
	quiet := func(names ...string) {
		must(s.t, os.WriteFile("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", []byte("0"), 0))
		for _, name := range names {
			must(s.t, os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0))
		}
	}
	s.host.do(func() { quiet("eth0") })
	s.do(func() { quiet("br0", "lan") })
}

// flow is numbered frames from one site's host to the other's, and what became of them.
type flow struct {
	t        *testing.T
	from, to *site
	out, in  *port
	rng      *rand.Rand
	station  [6]byte // whom frames are for
	number   uint32
	missing  map[uint32][]byte
}

// measured is what counters said before and after.
type measured struct{ sender, receiver pseudowire.Counters }

func (f *flow) measure() measured { return measured{f.from.counters(), f.to.counters()} }

func (m measured) since(was measured) measured {
	sub := func(a, b pseudowire.Counters) pseudowire.Counters {
		return pseudowire.Counters{
			ReceivedFrames: a.ReceivedFrames - b.ReceivedFrames, ReceivedOctets: a.ReceivedOctets - b.ReceivedOctets,
			TransmittedFrames: a.TransmittedFrames - b.TransmittedFrames, TransmittedOctets: a.TransmittedOctets - b.TransmittedOctets,
			Drops: difference(b.Drops, a.Drops),
		}
	}
	return measured{sub(m.sender, was.sender), sub(m.receiver, was.receiver)}
}

// frame is one of size octets, a tag included, with a number of its own.
func (f *flow) frame(size int) []byte {
	s := mixed[int(f.number)%len(mixed)]
	if s.to == unicast {
		s.to = f.station // bridges learn where it is when it answers
	}
	b := s.frame(f.rng, size-len(s.tags))
	f.number++
	binary.BigEndian.PutUint32(b[len(b)-4:], f.number)
	return b
}

// mixed are the kinds of frames that take turns; what decides is their length.
var mixed = []shape{shapes[0], shapes[1], shapes[2], shapes[4], shapes[6], shapes[9]}

// run sends a frame of each size and waits until each has come, octet for octet as it was
// sent, or is counted. It gives the sizes of those that did not come.
func (f *flow) run(sizes []int, reasons ...string) (lost []int, did measured) {
	f.t.Helper()
	// More at a time would be more than queues on the way hold.
	const window = 64 << 10
	before := f.measure()
	f.missing = map[uint32][]byte{}
	octets, sent, came := 0, 0, 0
	deadline := time.Now().Add(20 * time.Second)
	counted := func() (n int) {
		did = f.measure().since(before)
		for _, c := range []pseudowire.Counters{did.sender, did.receiver} {
			for _, reason := range reasons {
				n += int(c.Drops[reason])
			}
		}
		return n
	}
	settle := func() {
		for ; sent != came+counted(); came += f.take() {
			if time.Now().After(deadline) {
				f.t.Fatalf("of %d frames %d came; the sender counted %+v, the receiver %+v; missing are those of %v octets",
					sent, came, did.sender, did.receiver, f.sizes())
			}
		}
	}
	for _, size := range sizes {
		b := f.frame(size)
		f.missing[f.number] = b
		f.out.send(b)
		sent++
		if octets += size; octets > window {
			settle()
			octets = 0
		}
	}
	settle()
	if extra := f.in.receiveNow(); extra != nil && bytes.Equal(extra[6:12], station[:]) {
		f.t.Errorf("a frame too many: % x", extra[:20])
	}
	return f.sizes(), did
}

// take receives what is there and compares it.
func (f *flow) take() (n int) {
	f.t.Helper()
	for b := f.in.receive(); b != nil; b = f.in.receive() {
		number := binary.BigEndian.Uint32(b[len(b)-4:])
		want, ok := f.missing[number]
		if !ok || !bytes.Equal(b, want) {
			f.t.Fatalf("frame %d of %d octets: expected %v: %s", number, len(b), ok, firstDifference(b, want))
		}
		delete(f.missing, number)
		n++
		if len(f.missing) == 0 {
			break
		}
	}
	return n
}

// sizes are those of the frames that have not come.
func (f *flow) sizes() (all []int) {
	for _, b := range f.missing {
		all = append(all, len(b))
	}
	slices.Sort(all)
	return all
}

// mtuSizes are lengths of frames from 60 to 9,014 octets: those about which something
// changes, for an underlay's MTU, and some between.
func mtuSizes(rng *rand.Rand, mtu, overhead, ipHeader int) []int {
	const least, most = 60, 9014
	all := []int{least, least + 1, most - 1, most}
	// The longest one that is not cut, and those that fill one more fragment.
	edges := []int{mtu - overhead + ethernetLen, 1514, 1518}
	for payload := (mtu - ipHeader) &^ 7; payload < most; payload += (mtu - ipHeader) &^ 7 {
		edges = append(edges, payload-(overhead-ethernetLen-ipHeader))
	}
	for _, edge := range edges {
		for n := edge - 1; n <= edge+1; n++ {
			all = append(all, n)
		}
	}
	for range 24 {
		all = append(all, least+rng.IntN(most-least))
	}
	return slices.DeleteFunc(all, func(n int) bool { return n < least || n > most })
}

// Frames of 60 to 9,014 octets over underlays of all kinds, bridged and cross-connected:
// where fragments may be, all arrive. Where they may not, where the receiver's device is
// smaller, and where the sender's is, each arrives or is counted as too long, and the
// counters add up.
func TestEveryLengthArrivesOrIsCounted(t *testing.T) {
	for _, mtu := range []int{1280, 1400, 1500, 9000} {
		for _, set := range []setting{{cookie: 8}, {v6: true, cookie: 8}, {ip: true, cookie: 4}, {ip: true, v6: true}} {
			for _, crossed := range []bool{false, true} {
				set := set
				set.mtu, set.lanMTU, set.crossed = mtu, 9000, crossed
				t.Run(fmt.Sprintf("%d, IP %v, IPv6 %v, crossed %v", mtu, set.ip, set.v6, crossed), func(t *testing.T) {
					t.Parallel() // most of the time goes by as namespaces go
					everyLength(t, set)
				})
			}
		}
	}
}

func everyLength(t *testing.T, set setting) {
	a, b := newSites(t, set)
	rng := rand.New(rand.NewPCG(uint64(set.mtu), 7))
	ports := map[*site]*port{}
	for _, s := range []*site{a, b} {
		s.silence()
		s.open()
		s.set()
		pump(t, s)
		p := openPort(t, s.host, "eth0")
		must(t, unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000}))
		ports[s] = p
	}
	a.resolve()
	b.resolve()
	to := func(from, to *site) *flow {
		at := unicast
		if to == a {
			at[5]++
		}
		return &flow{station: at, t: t, from: from, to: to, out: ports[from], in: ports[to], rng: rng}
	}
	overhead, ipHeader := pseudowire.Overhead(&a.tunnel, &a.session), 20
	if set.v6 {
		ipHeader = 40 + 8
	}
	sizes := mtuSizes(rng, set.mtu, overhead, ipHeader)
	fits := set.mtu - overhead + ethernetLen // without fragments
	longer := func(limit int) (n int) {
		for _, size := range sizes {
			if size > limit {
				n++
			}
		}
		return n
	}
	exactly := func(what string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: counted %d, want %d", what, got, want)
		}
	}
	n := uint64(len(sizes))

	lost, did := to(a, b).run(sizes)
	if len(lost) > 0 {
		t.Errorf("with fragments: lost %v", lost)
	}
	cut := uint64(longer(fits))
	exactly("sent", did.sender.TransmittedFrames, n)
	exactly("received", did.receiver.ReceivedFrames, n)
	exactly("octets received", did.receiver.ReceivedOctets, did.sender.TransmittedOctets)
	exactly("fragmented", did.sender.Drops[pseudowire.CountFragmented], cut)
	exactly("reassembled", did.receiver.Drops[pseudowire.CountReassembled], cut)

	tooLong := func(what string, f *flow, limit int, at func(measured) pseudowire.Counters) measured {
		t.Helper()
		lost, did := f.run(sizes, pseudowire.DropOversize)
		if slices.ContainsFunc(lost, func(n int) bool { return n <= limit-4 }) || len(lost) < longer(limit+4) {
			t.Errorf("%s: lost %v, the limit is %d", what, lost, limit)
		}
		exactly(what+", oversize", at(did).Drops[pseudowire.DropOversize], uint64(len(lost)))
		exactly(what+", received", did.receiver.ReceivedFrames, n-uint64(len(lost)))
		return did
	}
	sender := func(m measured) pseudowire.Counters { return m.sender }
	receiver := func(m measured) pseudowire.Counters { return m.receiver }

	withDF(b)
	b.do(func() { must(t, b.dp.SetTunnel(b.tunnel)) })
	did = tooLong("without fragments", to(b, a), fits, sender)
	exactly("without fragments, fragmented", did.sender.Drops[pseudowire.CountFragmented], 0)

	const small = 1500
	b.pw.MTU = small
	b.do(func() { must(t, b.dp.SetPseudowire(b.pw)) })
	tooLong("into a small device", to(a, b), small+ethernetLen, receiver)
	if set.crossed {
		limit := min(fits, small+ethernetLen)
		tooLong("from a small device", to(b, a), limit, sender)
	}
}
