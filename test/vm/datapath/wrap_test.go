//go:build vm

package datapath

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// wrapKernel has the kernel count as far, which takes it minutes: see docs/performance.md.
var wrapKernel = flag.Bool("wrap-kernel", false, "have TestKernelNumbersWrap send the 2^24 packets that it takes")

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

// The kernel's numbers wrap, too, and the eBPF datapath takes every packet. Where the kernel counts from cannot be set: it
// has to send them all. Not run unless asked for: -args -wrap-kernel.
func TestKernelNumbersWrap(t *testing.T) {
	if !*wrapKernel {
		return
	}
	a, b := numberedSites(t)
	if got := numbersOf(t, b, a, 3); !slices.Equal(got, []uint32{0, 1, 2}) {
		t.Fatalf("at first: %v", got)
	}
	// It numbers packets before it sees that the tunnel's socket has no peer.
	const led, first = 24, 0xffffe8
	const skipped = first - led - 3
	began := time.Now()
	disconnect(t, b.tunnel.Socket)
	b.pktgen(skipped)
	if err := unix.Connect(b.tunnel.Socket, &unix.SockaddrInet4{Port: int(b.tunnel.Remote.Port()), Addr: b.tunnel.Remote.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packets in %v", skipped, time.Since(began).Round(time.Second))
	lead(t, b, led)
	if got, want := numbersOf(t, b, a, 48), overTheWrap(first, 48); !slices.Equal(got, want) {
		t.Errorf("numbers %x, want %x", got, want)
	}
}

// disconnect takes a UDP socket's peer from it.
func disconnect(t *testing.T, fd int) {
	t.Helper()
	var unspecified [16]byte
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), uintptr(len(unspecified))); errno != 0 {
		t.Fatal(errno)
	}
}

// pktgen has the kernel send so many frames through the pseudowire's device, each on its own: l2tp_eth changes
// what it is given. Linux 6.1 knows no such flag, and would panic.
func (s *site) pktgen(count int) {
	s.t.Helper()
	if out, err := s.lcce.Run(s.t.Context(), "modprobe", "pktgen"); err != nil {
		s.t.Fatalf("modprobe pktgen: %v: %s", err, out)
	}
	const dir = "/proc/thread-self/net/pktgen/"
	write := func(file string, lines ...string) {
		s.t.Helper()
		err := s.lcce.Do(func() error {
			for _, line := range lines {
				if err := os.WriteFile(dir+file, []byte(line+"\n"), 0); err != nil {
					return fmt.Errorf("%s: %s: %w", file, line, err)
				}
			}
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	write("kpktgend_0", "add_device "+pwDevice)
	write(pwDevice, fmt.Sprintf("count %d", count), "pkt_size 60", "delay 0", "flag !SHARED", "dst_mac 02:00:00:00:00:0b")
	write("pgctrl", "start") // returns when it is done
	var result []byte
	if err := s.lcce.Do(func() (err error) { result, err = os.ReadFile(dir + pwDevice); return err }); err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(result), fmt.Sprintf("pkts-sofar: %d ", count)) {
		s.t.Fatalf("pktgen: %s", result)
	}
	write("kpktgend_0", "rem_device_all")
}
