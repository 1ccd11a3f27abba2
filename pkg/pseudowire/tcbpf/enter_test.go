package tcbpf

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// passed are the frames that a site's outer end has taken in and given out.
func (s *site) passed() (in, out uint64) {
	stats := s.link(s.dp.pseudowires[pseudowireName].pair.outerName).Attrs().Statistics
	return stats.RxPackets, stats.TxPackets
}

// Frames that need nothing of what the kernel does on it do not take the way over the veth
// pair, neither into the pseudowire nor out of it; others do.
func TestFramesPassTheOuterEndBy(t *testing.T) {
	const n = 20
	for _, c := range []struct {
		name    string
		set     setting
		change  func(*site)
		in, out uint64
	}{
		{"UDP", setting{cookie: 8}, func(*site) {}, 0, 0},
		{"a VLAN", setting{cookie: 8, vlanA: 5, vlanB: 5}, func(*site) {}, 0, 0},
		{"over IP", setting{cookie: 8, ip: true}, func(*site) {}, n, 0},
		{"in order", setting{cookie: 8}, inOrder, n, n},
		{"without the program", setting{cookie: 8}, (*site).withoutEnter, n, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newSites(t, c.set)
			for _, s := range []*site{a, b} {
				s.open()
				if c.name == "in order" {
					c.change(s)
				}
				s.set()
				if c.name != "in order" {
					c.change(s)
				}
				s.resolve()
			}
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			shape := shapes[0]
			if c.set.vlanA != 0 {
				shape.tags = []byte{0x81, 0, 0, 5}
			}
			inBefore, _ := a.passed()
			_, outBefore := b.passed()
			for range n {
				carry(t, portA, portB, shape, []int{100})
			}
			in, _ := a.passed()
			_, out := b.passed()
			// The hosts' kernels may have something to say at any time, as router solicitations.
			if got := in - inBefore; got < c.in || c.in == 0 && got >= n {
				t.Errorf("%d frames into the pseudowire took the way over its outer end, not %d", got, c.in)
			}
			if got := out - outBefore; got < c.out || c.out == 0 && got >= n {
				t.Errorf("%d frames out of the pseudowire took the way over its outer end, not %d", got, c.out)
			}
			if got := a.counters().TransmittedFrames; got < n {
				t.Errorf("%d frames sent, of %d", got, n)
			}
			if got := b.counters().ReceivedFrames; got < n {
				t.Errorf("%d frames received, of %d", got, n)
			}
		})
	}
}

func inOrder(s *site) {
	numbering(l2tpv3.SequencingAll)(s)
	ordered(soon)(s)
}

// withoutEnter takes the program off, as devices are that a version before has made.
func (s *site) withoutEnter() {
	s.do(func() {
		own, err := s.dp.ownFilters(s.dp.pseudowires[pseudowireName].pair.inner, s.dp.enterHook())
		must(s.t, err)
		for _, f := range own {
			must(s.t, netlink.FilterDel(f))
		}
		if len(own) != 1 {
			s.t.Errorf("%d programs at the egress of the device, not one", len(own))
		}
	})
}
