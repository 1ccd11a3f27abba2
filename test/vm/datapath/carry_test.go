//go:build vm

package datapath

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	kernel = pseudowire.Kernel
	ebpf   = pseudowire.EBPF

	mebi = 1 << 20
	// fullPing fills a packet of 1500 octets: IPv4 and ICMP headers are 28.
	fullPing = 1472
)

// onOldest says which of the machines' kernels this is: what it shows beyond the other one is that it
// is older. Each frame is tried between all pairs of datapaths, and not on both kernels.
var onOldest = os.Getenv("PWD_VM") == "6.1"

// variant is one way to send a frame.
type variant struct {
	encapsulation l2tpv3.Encapsulation
	cookie        int
	sublayer      l2tpv3.L2SpecificSublayer
	sequencing    l2tpv3.DataSequencing
	// checksum is whether UDP datagrams have one: those of static ends and of the eBPF datapath.
	checksum bool
}

// variants have every two values of different columns in one row, where they can
// go together.
var variants = []variant{
	{l2tpv3.UDP, 0, l2tpv3.SublayerNone, l2tpv3.SequencingNone, true},
	{l2tpv3.UDP, 4, l2tpv3.SublayerDefault, l2tpv3.SequencingNone, false},
	{l2tpv3.UDP, 8, l2tpv3.SublayerNone, l2tpv3.SequencingNone, false},
	{l2tpv3.UDP, 8, l2tpv3.SublayerDefault, l2tpv3.SequencingAll, true},
	{l2tpv3.UDP, 0, l2tpv3.SublayerDefault, l2tpv3.SequencingAll, false},
	{l2tpv3.IP, 8, l2tpv3.SublayerNone, l2tpv3.SequencingNone, true},
	{l2tpv3.IP, 0, l2tpv3.SublayerDefault, l2tpv3.SequencingNone, true},
	{l2tpv3.IP, 4, l2tpv3.SublayerDefault, l2tpv3.SequencingAll, true},
}

// numberedOver is the one of them, for each kind of underlay, that stands for all between the eBPF
// datapath and static ends.
var numberedOver = map[string]variant{"ipv4": variants[3], "ipv6": variants[7]}

func (v variant) String() string {
	s := fmt.Sprintf("%s, cookie of %d, sublayer %s, sequencing %s", v.encapsulation, v.cookie, v.sublayer, v.sequencing)
	if !v.checksum {
		s += ", no checksum"
	}
	return s
}

// Each pair of ends over each kind of underlay. Namespaces take longer to make than
// sessions: the cases of a pair share theirs and set the session anew.
func TestCarry(t *testing.T) {
	for _, pair := range [][2]pseudowire.Kind{{kernel, kernel}, {ebpf, kernel}, {kernel, static}, {ebpf, static}, {ebpf, ebpf}} {
		for _, family := range families {
			s := setup{kinds: pair, family: family, cookie: 8, underlay: 1500, pw: 1500}
			t.Run(fmt.Sprintf("%s-%s/%s", pair[0], pair[1], family.name), func(t *testing.T) {
				a, b := twoSites(t, s)
				step := func(name string, s setup, f func(t *testing.T, a, b *site)) {
					t.Run(name, func(t *testing.T) {
						a, b := a.in(t), b.in(t)
						a.change(b, s)
						f(t, a, b)
					})
				}
				switch {
				case pair[1] == ebpf:
					// Every frame between two of these is for the tests on the host's kernel.
					step("some of all", s, someOfAll)
					return
				case pair[0] == ebpf && pair[1] == kernel:
					step("ordinary underlay", s, ordinaryUnderlay)
					step("tag in the payload", s, tagInThePayload)
				case pair[1] == kernel:
					step("some of all", s, someOfAll)
					step("segments that fit", s, segmentsFit)
					tunnelled := s
					tunnelled.encapsulation = l2tpv3.IP
					step("segments that fit, over IP", tunnelled, segmentsFit)
				}
				for _, v := range variants {
					if !a.can(v) || !b.can(v) {
						continue
					}
					// Those two have all cells in a test of their own, but for tags and the first number.
					if pair == [2]pseudowire.Kind{ebpf, static} && v != numberedOver[family.name] {
						continue
					}
					// What is the kernel's at both ends is so with a static one, too; the older one, the slower, has these there.
					if pair == [2]pseudowire.Kind{kernel, kernel} && onOldest && v != numberedOver[family.name] {
						continue
					}
					s := s
					s.encapsulation, s.cookie, s.sublayer, s.sequencing = v.encapsulation, v.cookie, v.sublayer, v.sequencing
					s.noChecksum, s.checksum = !v.checksum, v.checksum
					step(v.String(), s, carries)
				}
				if pair[1] == kernel {
					for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
						s := s
						s.encapsulation = e
						step(fmt.Sprintf("underlays of all sizes, over %s", e), s, func(t *testing.T, a, b *site) { underlays(t, a, b, s) })
					}
				}
				s := s
				s.underlay, s.pw = 9200, 9000
				step("jumbo underlay", s, jumboUnderlay)
			})
		}
	}
}

// can says that the site's datapath is able to do what a variant needs.
func (s *site) can(v variant) bool {
	if s.kind == static {
		return true
	}
	able := s.dp.Abilities()
	return (able.IP || v.encapsulation != l2tpv3.IP) && (able.Sequencing || v.sequencing == l2tpv3.SequencingNone)
}

// carries is what every variant has to do: frames of all kinds, whole and in
// fragments, both ways, numbered where they are to be.
func carries(t *testing.T, a, b *site) {
	if a.session.TransmitSequencing == l2tpv3.SequencingAll {
		numbered(t, a, b)
		numbered(t, b, a)
	}
	sweep(t, a, b, sizesFrom(60, 1514, 67), false)
	sweep(t, b, a, sizesFrom(60, 1514, 67), false)
	ping(t, b, a, fullPing)
	transfer(t, b, a, 2*mebi)
}

// numbered looks at the first packets of a session on the underlay. RFC 3931,
// Section 4.6: "The Sequence Number begins at zero", and the S bit says that it is valid.
func numbered(t *testing.T, from, to *site) {
	t.Helper()
	var sent [][]byte
	for i := range 5 {
		sent = append(sent, frame(uint32(i), 100, 0, false, etherTypes[i%len(etherTypes)]))
	}
	packets := onUnderlay(t, from, to, sent...)
	for i, p := range packets {
		header, payload, err := l2tpv3.ParseData(p, to.tunnel.Encapsulation, len(to.session.LocalCookie), to.session.ReceiveSublayer)
		if err != nil {
			t.Fatalf("%v: % x", err, p)
		}
		if header.Flags != l2tpv3.SublayerSequenced || header.Sequence != uint32(i) || !bytes.Equal(payload, sent[i]) {
			t.Errorf("packet %d from %s: flags %#x, number %d", i, from.lcce.Name, header.Flags, header.Sequence)
		}
	}
}

// onUnderlay sends frames from a host and gives the packets that carry them, from
// the L2TP header on.
func onUnderlay(t *testing.T, from, to *site, frames ...[]byte) [][]byte {
	t.Helper()
	capture, err := to.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return slices.ContainsFunc(frames, func(sent []byte) bool { return bytes.HasSuffix(f.Data, sent) })
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := from.lan.Send(frames...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	packets, err := capture.WaitCount(ctx, len(frames))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capture.Stop(); err != nil {
		t.Fatal(err)
	}
	outer := []byte{0x08, 0x00}
	header := 14 + 20
	if to.addr.Is6() {
		outer, header = []byte{0x86, 0xdd}, 14+40
	}
	if to.tunnel.Encapsulation == l2tpv3.UDP {
		header += 8
	}
	var out [][]byte
	for _, p := range packets {
		if p.TagInMetadata || !bytes.Equal(p.Data[12:14], outer) {
			t.Errorf("outer packet: tag beside it %v, EtherType % x", p.TagInMetadata, p.Data[12:14])
		}
		out = append(out, p.Data[header:])
	}
	return out
}

// Hosts and underlay of 1500 octets: every frame of full size has to be
// fragmented on the way, by either datapath, for either datapath. Each machine has every second size; those at
// which something changes are in underlays, too.
func ordinaryUnderlay(t *testing.T, a, b *site) {
	first := 60
	if onOldest {
		first = 61
	}
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		ping(t, from, to, 56)
		watch := watchUnderlay(t, to)
		sweep(t, from, to, sizesFrom(first, 1514, 2), a.addr.Is4())
		ping(t, from, to, fullPing)
		if packets, fragments := watch.stop(t); fragments == 0 || fragments == packets {
			t.Errorf("%d of %d packets to %s were fragments; want the large ones", fragments, packets, to.lcce.Name)
		}
		transfer(t, from, to, 16*mebi)
	}
}

// TCP between hosts of 1500 octets agrees on segments that need no fragments.
func segmentsFit(t *testing.T, a, b *site) {
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		watch := watchUnderlay(t, to)
		transfer(t, from, to, 2*mebi)
		if packets, fragments := watch.stop(t); packets < 1000 || fragments != 0 {
			t.Errorf("%d of %d packets to %s were fragments", fragments, packets, to.lcce.Name)
		}
	}
}

// Frames of 60 to 9,014 octets over underlays that are large, and so small that frames come
// in eight fragments: all arrive, and are counted at both ends.
func underlays(t *testing.T, a, b *site, s setup) {
	s.pw = 9000
	for _, mtu := range []int{1280, 1400, 1500, 9000} {
		s.underlay = mtu
		a.change(b, s)
		overhead := pseudowire.Overhead(&a.tunnel, &a.session)
		var sizes []int
		for i := range 4 {
			edge := (i+1)*mtu - overhead + 14
			sizes = append(sizes, edge-1, edge, edge+1)
		}
		for range 8 {
			sizes = append(sizes, 60+rand.IntN(9014-60))
		}
		sizes = append(sizes, 60, 1514, 9013, 9014)
		sizes = slices.DeleteFunc(sizes, func(n int) bool { return n > 9014 })
		slices.Sort(sizes)
		for _, d := range [][2]*site{{a, b}, {b, a}} {
			from, to := d[0], d[1]
			before, beforeTo := from.counters(), to.counters()
			sweep(t, from, to, sizes, false)
			n := uint64(2 * len(sizes)) // each tagged, too
			sent, received := from.counters().TransmittedFrames-before.TransmittedFrames, to.counters().ReceivedFrames-beforeTo.ReceivedFrames
			if sent != n || received != n {
				t.Errorf("MTU %d, %s to %s: of %d frames %d are counted as sent, %d as received", mtu, from.lcce.Name, to.lcce.Name, n, sent, received)
			}
		}
	}
}

// With room on the underlay nothing is fragmented.
func jumboUnderlay(t *testing.T, a, b *site) {
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		watch := watchUnderlay(t, to)
		sweep(t, from, to, sizesFrom(60, 9014, 97), true)
		if packets, fragments := watch.stop(t); fragments != 0 {
			t.Errorf("%d of %d packets to %s were fragments", fragments, packets, to.lcce.Name)
		}
	}
	ping(t, a, b, 8972)
}

// someOfAll is for what cannot depend on a frame's every octet.
func someOfAll(t *testing.T, a, b *site) {
	sweep(t, a, b, sizesFrom(60, 1514, 11), false)
	sweep(t, b, a, sizesFrom(60, 1514, 11), false)
	ping(t, a, b, 56)
	ping(t, b, a, fullPing)
	transfer(t, b, a, 16*mebi)
}

// The octets of the packet on the underlay: Ethernet, IP and UDP headers, the
// L2TP header with the peer's session ID and cookie, and then the frame, its tag in it.
func tagInThePayload(t *testing.T, a, b *site) {
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		sent := frame(7, 200, 0, true, 0x0800)
		p := onUnderlay(t, from, to, sent)[0]
		got, payload, err := l2tpv3.ParseData(p, l2tpv3.UDP, 8, l2tpv3.SublayerNone)
		if err != nil {
			t.Fatalf("%v: % x", err, p)
		}
		if got.SessionID != to.session.LocalID || !bytes.Equal(got.Cookie, to.session.LocalCookie) {
			t.Errorf("session %x, cookie %x; want %x, %x", got.SessionID, got.Cookie, to.session.LocalID, to.session.LocalCookie)
		}
		if !bytes.Equal(payload, sent) {
			t.Errorf("payload\n% x\nwant\n% x", payload, sent)
		}
	}
}
