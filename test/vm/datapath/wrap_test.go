//go:build vm

package datapath

import (
	"encoding/binary"
	"slices"
	"testing"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// numberedSites have a session whose packets all have numbers, between the eBPF datapath and the kernel's.
func numberedSites(t *testing.T) (a, b *site) {
	t.Helper()
	x := plain
	x.kinds = [2]pseudowire.Kind{ebpf, kernel}
	x.sublayer, x.sequencing = l2tpv3.SublayerDefault, l2tpv3.SequencingAll
	a, b = twoSites(t, x)
	for _, s := range []*site{a, b} { // nothing else is to be numbered
		if err := s.lcce.Netlink().LinkSetNoMaster(s.lcceDevice()); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// numbersOf sends frames through the pseudowire, wants them all to arrive, and gives the numbers of their packets.
func numbersOf(t *testing.T, from, to *site, frames int) (numbers []uint32) {
	t.Helper()
	const sublayer = 14 + 20 + 8 + 8 + 8 // after Ethernet, IPv4, UDP, L2TP and the cookie
	capture, err := to.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		if len(f.Data) > sublayer+100 && f.Data[23] == unix.IPPROTO_UDP {
			numbers = append(numbers, binary.BigEndian.Uint32(f.Data[sublayer:])&0xffffff)
		}
		return false
	}})
	if err != nil {
		t.Fatal(err)
	}
	before := to.counters()
	if err := exchange(t, from.lcce.Link(pwDevice), to.lcce.Link(pwDevice), 0, slices.Repeat([]int{100}, frames)); err != nil {
		t.Error(err)
	}
	if _, err := capture.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := to.counters(); got.ReceivedFrames-before.ReceivedFrames != uint64(frames) || got.Drops[pseudowire.DropOutOfSequence] != before.Drops[pseudowire.DropOutOfSequence] {
		t.Errorf("of %d frames: %+v, before %+v", frames, got, before)
	}
	return numbers
}

// overTheWrap are as many numbers from first on, in 24 bits.
func overTheWrap(first uint32, n int) (numbers []uint32) {
	for i := range uint32(n) {
		numbers = append(numbers, (first+i)&0xffffff)
	}
	return numbers
}

// lead sends frames that the receiver may take for late ones, until it has followed the numbers.
func lead(t *testing.T, from *site, frames int) {
	t.Helper()
	for i := range frames {
		if err := from.lcce.Link(pwDevice).Send(frame(uint32(i), 100, 0, false, 0x88b5)); err != nil {
			t.Fatal(err)
		}
	}
}

// The numbers of the eBPF datapath's packets wrap after 24 bits (RFC 3931, Section 4.6.1), and the kernel takes every one.
func TestNumbersWrapTowardsTheKernel(t *testing.T) {
	a, b := numberedSites(t)
	if got := numbersOf(t, a, b, 3); !slices.Equal(got, []uint32{0, 1, 2}) {
		t.Fatalf("at first: %v", got)
	}
	// The kernel follows by less than half of all numbers, after some packets.
	const led, first = 8, 0xffffe8
	for _, next := range []uint64{0x7ffff0, first - led} {
		a.setNext(next)
		lead(t, a, led)
	}
	if got, want := numbersOf(t, a, b, 48), overTheWrap(first, 48); !slices.Equal(got, want) {
		t.Errorf("numbers %x, want %x", got, want)
	}
}

// setNext gives the next number of the eBPF datapath's session, in its map.
func (s *site) setNext(n uint64) {
	s.t.Helper()
	for id := cilium.MapID(0); ; {
		var err error
		if id, err = cilium.MapGetNextID(id); err != nil {
			s.t.Fatalf("no map with the numbers of session %d: %v", s.session.LocalID, err)
		}
		m, err := cilium.NewMapFromID(id)
		if err != nil {
			continue
		}
		info, err := m.Info()
		var was uint64
		found := err == nil && info.Name == "numbers" && m.Lookup(s.session.LocalID, &was) == nil
		if found {
			err = m.Put(s.session.LocalID, n)
		}
		m.Close()
		if found && err != nil {
			s.t.Fatal(err)
		}
		if found {
			return
		}
	}
}
