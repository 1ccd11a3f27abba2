//go:build vm

package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// forge makes a packet from the peer to a site with a frame in it, over UDP and
// IPv4. A number below zero is none (RFC 3931, Section 4.6: the S bit is 0).
func (s *site) forge(peer *site, number int, inner []byte) []byte {
	s.t.Helper()
	to, err := s.wan.Attrs()
	if err != nil {
		s.t.Fatal(err)
	}
	from, err := peer.wan.Attrs()
	if err != nil {
		s.t.Fatal(err)
	}
	header := l2tpv3.DataHeader{SessionID: s.session.LocalID, Cookie: s.session.LocalCookie, Sublayer: s.session.ReceiveSublayer}
	if number >= 0 {
		header.Flags, header.Sequence = l2tpv3.SublayerSequenced, uint32(number)
	}
	data, err := header.Append(nil, l2tpv3.UDP)
	if err != nil {
		s.t.Fatal(err)
	}
	data = append(data, inner...)
	p := slices.Concat(to.HardwareAddr, from.HardwareAddr, []byte{0x08, 0x00})
	ip := make([]byte, 28)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(data)))
	copy(ip[12:], peer.addr.AsSlice())
	copy(ip[16:], s.addr.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	binary.BigEndian.PutUint16(ip[20:], l2tpv3.Port)
	binary.BigEndian.PutUint16(ip[22:], l2tpv3.Port)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(data)))
	return slices.Concat(p, ip, data)
}

// What the kernel makes of sequence numbers, as the documentation of l2tpeth says.
func TestKernelSequencing(t *testing.T) {
	x := plain
	x.sublayer, x.sequencing = l2tpv3.SublayerDefault, l2tpv3.SequencingAll
	a, b := twoSites(t, x)
	// The peer numbers its own frames; here it is to have none.
	if err := b.lcce.Netlink().LinkSetNoMaster(b.lcceDevice()); err != nil {
		t.Fatal(err)
	}
	const last = 0xffffff
	for _, step := range []struct {
		name    string
		numbers []int
		want    []int
	}{
		{"from zero", []int{0, 1, 2}, []int{0, 1, 2}},
		{"twice", []int{2, 2, 1}, nil},
		{"one lost: five more", []int{4, 5, 6, 7, 8, 9, 10}, []int{9, 10}},
		{"two change places: five more", []int{12, 11, 13, 14, 15, 16, 17, 18}, []int{11, 17, 18}},
		{"none", []int{-1, -1}, nil},
		{"numbers begin anew", []int{0, 1, 2, 3, 4, 5, 6, 7}, nil},
		{"numbers have caught up", []int{18, 19, 20}, []int{19, 20}},
		{"many lost", []int{0x7ffff0, 0x7ffff1, 0x7ffff2, 0x7ffff3, 0x7ffff4, 0x7ffff5}, []int{0x7ffff5}},
		{"as many again", []int{last - 16, last - 15, last - 14, last - 13, last - 12, last - 11}, []int{last - 11}},
		{"five more", []int{last - 6, last - 5, last - 4, last - 3, last - 2, last - 1}, []int{last - 1}},
		{"wrap", []int{last, 0, 1}, []int{last, 0, 1}},
	} {
		before := a.counters()
		got := a.receive(b, step.numbers, len(step.want))
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: %v: delivered (-want +got):\n%s", step.name, step.numbers, diff)
		}
		lost := len(step.numbers) - len(step.want)
		now := a.counters()
		if n := now.ReceivedFrames - before.ReceivedFrames; n != uint64(len(step.want)) {
			t.Errorf("%s: %d frames received, want %d", step.name, n, len(step.want))
		}
		for reason, n := range now.Drops {
			want := uint64(0)
			if reason == pseudowire.DropOutOfSequence {
				want = uint64(lost)
			}
			if n -= before.Drops[reason]; n != want {
				t.Errorf("%s: %d dropped as %s, want %d", step.name, n, reason, want)
			}
		}
	}

	// Sequencing can be turned off and on, and the device remains.
	device := a.device().Index
	a.session.ReceiveSequencing, a.session.TransmitSequencing = l2tpv3.SequencingNone, l2tpv3.SequencingNone
	a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
	if got := a.receive(b, []int{-1, -1}, 2); len(got) != 2 || a.device().Index != device {
		t.Errorf("without numbers: %v, device %d, before %d", got, a.device().Index, device)
	}
	if p := onUnderlay(t, a, b, frame(1, 100, 0, false, 0x0800))[0]; p[16] != 0 {
		t.Errorf("a packet that is not to be numbered: % x", p[:20])
	}
}

// receive sends packets with these numbers to a site and gives the numbers of
// those that were delivered, once as many are counted as were sent.
func (s *site) receive(peer *site, numbers []int, frames int) []int {
	s.t.Helper()
	capture, err := s.lan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return len(f.Data) == 100 && slices.Equal(f.Data[6:12], source)
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	handled := func() (n uint64) {
		c := s.counters()
		n = c.ReceivedFrames
		for _, d := range c.Drops {
			n += d
		}
		return n
	}
	before := handled()
	for _, n := range numbers {
		if err := peer.wan.Send(s.forge(peer, n, frame(uint32(n), 100, 0, false, 0x88b5))); err != nil {
			s.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	if err := netlab.Poll(ctx, "all packets are counted", func() error {
		if n := handled() - before; n < uint64(len(numbers)) {
			return fmt.Errorf("%d of %d", n, len(numbers))
		}
		return nil
	}); err != nil {
		s.t.Error(err)
	}
	if _, err := capture.WaitCount(ctx, frames); err != nil {
		s.t.Error(err)
	}
	packets, err := capture.Stop()
	if err != nil {
		s.t.Fatal(err)
	}
	var got []int
	for _, p := range packets {
		got = append(got, int(int32(binary.BigEndian.Uint32(p.Data[96:]))))
	}
	return got
}

func (s *site) counters() (c pseudowire.Counters) {
	s.t.Helper()
	s.must("count", func(dp pseudowire.Datapath) error {
		all, err := dp.Counters()
		c = all[s.session.LocalID]
		return err
	})
	return c
}

// Data carries the session's DSCP, control messages their
// own, and neither is ECN capable.
func TestKernelMarks(t *testing.T) {
	const ef, cs6 = 46 << 2, 48 << 2
	for _, family := range families {
		x := plain
		x.family = family
		a, b := twoSites(t, x)
		for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
			x.encapsulation = e
			a.change(b, x)
			var classes []byte
			inner, message := frame(1, 100, 0, false, 0x88b5), []byte("\xc8\x03 is how a control message begins")
			capture, err := b.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
				switch {
				case !bytes.HasSuffix(f.Data, inner) && !bytes.HasSuffix(f.Data, message):
				case family.a.Is4() && f.Data[12] == 8 && f.Data[13] == 0:
					classes = append(classes, f.Data[15])
				case family.a.Is6() && f.Data[12] == 0x86:
					classes = append(classes, f.Data[14]<<4|f.Data[15]>>4)
				}
				return len(classes) == 4
			}})
			if err != nil {
				t.Fatal(err)
			}
			send := func() {
				if err := a.lan.Send(inner); err != nil {
					t.Fatal(err)
				}
			}
			wait := func(n int) {
				if err := waitFor(t, func() bool { return a.counters().TransmittedFrames >= uint64(n) }); err != nil {
					t.Fatal(err)
				}
			}
			send()
			wait(1)
			a.session.DSCP = 46
			a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })
			send()
			wait(2)
			err = a.lcce.Do(func() error {
				return a.tr.Transmit(control.Transmit{
					Connection: a.tunnel.LocalID, Payload: message,
					Path: control.Path{Encapsulation: e, Local: a.tunnel.Local, Remote: a.tunnel.Remote},
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			send()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err = capture.WaitCount(ctx, 1)
			cancel()
			if err != nil {
				t.Error(err)
			}
			if _, err := capture.Stop(); err != nil {
				t.Fatal(err)
			}
			if want := []byte{0, ef, cs6, ef}; !slices.Equal(classes, want) {
				t.Errorf("%s over %s: traffic classes %#x, want %#x", e, family.name, classes, want)
			}
		}
	}
}

func waitFor(t *testing.T, done func() bool) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return netlab.Poll(ctx, "it is so", func() error {
		if !done() {
			return errors.New("not yet")
		}
		return nil
	})
}
