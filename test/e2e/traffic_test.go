package e2e

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/pwd-project/pwd/internal/netlab"
)

// Hosts with 1500 octets over an underlay with 1500: everything a host does works,
// and TCP needs no fragments.
func TestTraffic(t *testing.T) {
	octets, cookies := int64(1<<30), []int{0, 4, 8}
	if inVM { // where the datapaths have tests of their own, with more
		octets, cookies = 8<<20, []int{8}
	}
	for _, d := range eachOnOneKernel(datapaths()) {
		for _, ipv6 := range []bool{false, true} {
			for _, cookie := range cookies {
				t.Run(fmt.Sprintf("%s-%s, IPv6 %v, cookie %d", d[0], d[1], ipv6, cookie), func(t *testing.T) {
					w := build(t, network{datapaths: d, ipv6: ipv6})
					w.write(w.text(fmt.Sprintf("cookie: %d", cookie)))
					w.start()
					for _, l := range []*lan{w.a, w.b} {
						w.ping(l, netlab.PingOptions{Count: 5})
						w.ping(l, netlab.PingOptions{Count: 5, Size: 1472, DontFragment: true})
						w.ping(l, netlab.PingOptions{Count: 2, Size: 8000})
						f := w.flows(l, netlab.FlowOptions{Rate: steady, Size: 1472})
						f.await(t, steady/2)
						f.stop(t)
					}
					// The large transfer once each way and for each kind of attachment; the other cases differ in what a smaller one shows.
					size := octets
					if cookie != 8 {
						size = min(size, 64<<20)
					}
					fragments := w.watchFragments(func() {
						w.transfer(w.a, 0, size)
						w.transfer(w.b, 1, size)
					})
					// Where both ends are the kernel's l2tp_eth nothing has a say in TCP's segments, and it fragments.
					if fragments > 0 && slices.Contains(d[:], "ebpf") {
						t.Errorf("TCP needed %d fragments", fragments)
					}
				})
			}
		}
	}
}

// watchFragments counts the fragments on the underlay while f runs.
func (w *world) watchFragments(f func()) (count int) {
	w.t.Helper()
	var captures []*netlab.Capture
	for _, l := range w.underlay {
		c, err := l.Capture(netlab.CaptureOptions{Filter: fragmentsOnly})
		if err != nil {
			w.t.Fatal(err)
		}
		captures = append(captures, c)
	}
	f()
	for _, c := range captures {
		frames, err := c.Stop()
		if err != nil {
			w.t.Error(err)
		}
		count += len(frames)
	}
	return count
}

// fragmentsOnly lets through fragments of IPv4 (RFC 791) and IPv6 (RFC 8200, Section 4.5) packets.
var fragmentsOnly = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipFalse: 2},
	bpf.LoadAbsolute{Off: 14 + 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 3, SkipFalse: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipFalse: 3},
	bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 44, SkipFalse: 1},
	bpf.RetConstant{Val: 1 << 20},
	bpf.RetConstant{Val: 0},
}

// What hosts say to each other stays theirs: a host of one tenant hears nothing of the other, and sees only its own VLAN.
func TestTenantsAreApart(t *testing.T) {
	beside(t)
	w := build(t, network{}).start()
	var captures []*netlab.Capture
	for _, h := range slices.Concat(w.a.hosts[:], w.b.hosts[:]) {
		c, err := h.Capture(netlab.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		captures = append(captures, c)
	}
	w.ping(w.a, netlab.PingOptions{Count: 3})
	w.ping(w.b, netlab.PingOptions{Count: 3})
	for i, want := range []uint16{100, 200, 0, 0} {
		frames, err := captures[i].Stop()
		if err != nil || len(frames) == 0 {
			t.Errorf("host %d: %d frames, %v", i, len(frames), err)
		}
		for _, f := range frames {
			if got := vlanOf(f.Data); got != want {
				t.Errorf("host %d: a frame on VLAN %d, want %d: % x", i, got, want, f.Data)
			}
		}
	}
}

// vlanOf is the VLAN ID of a frame's 802.1Q tag, 0 if it has none.
func vlanOf(frame []byte) uint16 {
	if len(frame) < 16 || binary.BigEndian.Uint16(frame[12:]) != 0x8100 {
		return 0
	}
	return binary.BigEndian.Uint16(frame[14:]) & 0xfff
}

// Nothing is on the LANs that no host sent: devices of ours are silent.
func TestDevicesAreSilent(t *testing.T) {
	beside(t)
	w := build(t, network{})
	var captures []*netlab.Capture
	for _, l := range []*lan{w.a, w.b} {
		for _, h := range l.hosts {
			c, err := h.Capture(netlab.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			captures = append(captures, c)
		}
	}
	w.start()
	// Long enough for router solicitations and MLD reports, which come within some seconds of a link's start;
	// the clock is the flow's, whose datagrams the other tenant's hosts must not see either.
	f := w.flows(w.b, netlab.FlowOptions{Rate: 100})
	f.await(t, 500)
	f.stop(t)
	for i, c := range captures {
		frames, err := c.Stop()
		if err != nil {
			t.Error(err)
		}
		for _, f := range frames {
			source := f.Data[6:12]
			if i >= 2 && (slices.Equal(source, w.b.hosts[0].MAC) || slices.Equal(source, w.b.hosts[1].MAC)) {
				continue
			}
			t.Errorf("host %d: a frame that no host sent: % x", i, f.Data[:min(len(f.Data), 64)])
		}
	}
}
