//go:build vm

package datapath

import (
	"bytes"
	"context"
	"fmt"
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

// Each pair of datapaths over each kind of underlay. Namespaces take longer to
// make than sessions: the cases of a pair share theirs and set the session anew.
func TestCarry(t *testing.T) {
	for _, pair := range [][2]pseudowire.Kind{{kernel, kernel}, {ebpf, kernel}, {ebpf, ebpf}} {
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
				if pair[1] == ebpf {
					// Every frame between two of these is for the tests on the host's kernel.
					step("some of all", s, someOfAll)
					return
				}
				step("ordinary underlay", s, ordinaryUnderlay)
				step("tag in the payload", s, tagInThePayload)
				for _, length := range []int{0, 4} {
					s := s
					s.cookie = length
					step(fmt.Sprintf("cookie of %d", length), s, someOfAll)
				}
				s := s
				s.sublayer = l2tpv3.SublayerDefault
				step("default sublayer", s, func(t *testing.T, a, b *site) {
					sweep(t, a, b, sizesFrom(60, 1514, 31), false)
					sweep(t, b, a, sizesFrom(60, 1514, 31), false)
				})
				s.sublayer, s.underlay, s.pw = l2tpv3.SublayerNone, 9200, 9000
				step("jumbo underlay", s, jumboUnderlay)
			})
		}
	}
}

// Hosts and underlay of 1500 octets: every frame of full size has to be
// fragmented on the way, by either datapath, for either datapath.
func ordinaryUnderlay(t *testing.T, a, b *site) {
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		ping(t, from, to, 56)
		watch := watchUnderlay(t, to)
		sweep(t, from, to, sizesFrom(60, 1514, 1), a.addr.Is4())
		ping(t, from, to, fullPing)
		if packets, fragments := watch.stop(t); fragments == 0 || fragments == packets {
			t.Errorf("%d of %d packets to %s were fragments; want the large ones", fragments, packets, to.lcce.Name)
		}
		transfer(t, from, to, 32*mebi)
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
	transfer(t, b, a, 32*mebi)
}

// The octets of the packet on the underlay: Ethernet, IP and UDP headers, the
// L2TP header with the peer's session ID and cookie, and then the frame, its tag in it.
func tagInThePayload(t *testing.T, a, b *site) {
	for _, d := range [][2]*site{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		sent := frame(7, 200, 0, true, 0x0800)
		capture, err := to.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return bytes.HasSuffix(f.Data, sent) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := from.lan.Send(sent); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		packets, err := capture.WaitCount(ctx, 1)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := capture.Stop(); err != nil {
			t.Fatal(err)
		}
		p, outer, ipHeader := packets[0], []byte{0x08, 0x00}, 20
		if to.addr.Is6() {
			outer, ipHeader = []byte{0x86, 0xdd}, 40
		}
		if p.TagInMetadata || !bytes.Equal(p.Data[12:14], outer) {
			t.Errorf("outer packet: tag beside it %v, EtherType % x", p.TagInMetadata, p.Data[12:14])
		}
		got, payload, err := l2tpv3.ParseData(p.Data[14+ipHeader+8:], l2tpv3.UDP, 8, l2tpv3.SublayerNone)
		if err != nil {
			t.Fatalf("%v: % x", err, p.Data)
		}
		if got.SessionID != to.session.LocalID || !bytes.Equal(got.Cookie, to.session.LocalCookie) {
			t.Errorf("session %x, cookie %x; want %x, %x", got.SessionID, got.Cookie, to.session.LocalID, to.session.LocalCookie)
		}
		if !bytes.Equal(payload, sent) {
			t.Errorf("payload\n% x\nwant\n% x", payload, sent)
		}
	}
}
