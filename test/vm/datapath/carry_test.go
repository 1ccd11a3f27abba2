//go:build vm

package datapath

import (
	"testing"

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

var pairs = [][2]pseudowire.Kind{{kernel, kernel}, {ebpf, kernel}}

// Hosts and underlay of 1500 octets: every frame of full size has to be
// fragmented on the way, by either datapath, for either datapath.
func TestOrdinaryUnderlay(t *testing.T) {
	for _, pair := range pairs {
		for _, family := range families {
			s := setup{kinds: pair, family: family, cookie: 8, underlay: 1500, pw: 1500}
			t.Run(s.String(), func(t *testing.T) {
				a, b := twoSites(t, s)
				for _, d := range [][2]*site{{a, b}, {b, a}} {
					from, to := d[0], d[1]
					ping(t, from, to, 56)
					watch := watchUnderlay(t, to)
					sweep(t, from, to, sizesFrom(60, 1514, 1))
					ping(t, from, to, fullPing)
					if packets, fragments := watch.stop(t); fragments == 0 || fragments == packets {
						t.Errorf("%d of %d packets to %s were fragments; want the large ones", fragments, packets, to.lcce.Name)
					}
					transfer(t, from, to, 32*mebi)
				}
			})
		}
	}
}

// With room on the underlay nothing is fragmented.
func TestJumboUnderlay(t *testing.T) {
	for _, pair := range pairs {
		for _, family := range families {
			s := setup{kinds: pair, family: family, cookie: 8, underlay: 9200, pw: 9000}
			t.Run(s.String(), func(t *testing.T) {
				a, b := twoSites(t, s)
				for _, d := range [][2]*site{{a, b}, {b, a}} {
					from, to := d[0], d[1]
					watch := watchUnderlay(t, to)
					sweep(t, from, to, sizesFrom(60, 9014, 97))
					if packets, fragments := watch.stop(t); fragments != 0 {
						t.Errorf("%d of %d packets to %s were fragments", fragments, packets, to.lcce.Name)
					}
				}
				transfer(t, a, b, 32*mebi)
			})
		}
	}
}

func TestCookies(t *testing.T) {
	for _, pair := range pairs {
		for i, length := range []int{0, 4} {
			for _, family := range families {
				s := setup{kinds: pair, family: family, cookie: length, underlay: 1500, pw: 1500}
				t.Run(s.String(), func(t *testing.T) {
					a, b := twoSites(t, s)
					ping(t, a, b, 56)
					ping(t, b, a, fullPing)
					sweep(t, a, b, sizesFrom(60, 1514, 11))
					sweep(t, b, a, sizesFrom(60, 1514, 11))
					if i == 0 {
						a, b = b, a
					}
					transfer(t, a, b, 32*mebi)
				})
			}
		}
	}
}

// The default sublayer lies between cookie and frame.
func TestSublayer(t *testing.T) {
	for _, pair := range pairs {
		s := setup{kinds: pair, family: families[0], cookie: 4, underlay: 1500, pw: 1500, sublayer: l2tpv3.SublayerDefault}
		t.Run(s.String(), func(t *testing.T) {
			a, b := twoSites(t, s)
			sweep(t, a, b, sizesFrom(60, 1514, 31))
			sweep(t, b, a, sizesFrom(60, 1514, 31))
			ping(t, a, b, fullPing)
		})
	}
}

// The host's kernel is not the only one that eBPF has to work on.
func TestBothEBPF(t *testing.T) {
	for _, family := range families {
		s := setup{kinds: [2]pseudowire.Kind{ebpf, ebpf}, family: family, cookie: 8, underlay: 1500, pw: 1500}
		t.Run(s.String(), func(t *testing.T) {
			a, b := twoSites(t, s)
			sweep(t, a, b, sizesFrom(60, 1514, 11))
			sweep(t, b, a, sizesFrom(60, 1514, 11))
			ping(t, a, b, fullPing)
			transfer(t, a, b, 32*mebi)
		})
	}
}
