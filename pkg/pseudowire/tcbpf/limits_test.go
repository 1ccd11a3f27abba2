package tcbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// identification of a fragment, as the counter has it, and whether it is the first one.
func identification(packet []byte) (id uint32, first bool) {
	ip := packet[ethernetLen:]
	if ip[0]>>4 == 4 {
		return uint32(binary.NativeEndian.Uint16(ip[4:])), binary.BigEndian.Uint16(ip[6:])&0x1fff == 0
	}
	return binary.NativeEndian.Uint32(ip[44:]), binary.BigEndian.Uint16(ip[42:])>>3 == 0
}

// After the last identification comes 0: fragments of one packet have the same, those of
// another the next one, and headers are right.
func TestIdentificationsWrap(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		last := uint32(1<<16 - 1)
		if v6 {
			last = 1<<32 - 1
		}
		a, far := upAgainstTap(t, setting{cookie: 8, mtu: 1280, v6: v6}, nil)
		in := openPort(t, a.host, "eth0")
		a.do(func() {
			start := uint64(last) - 1
			must(t, a.dp.objs.FragmentIDs.Put(a.dp.tunnels[tunnelName].flow.Slot(), &start))
		})
		for _, want := range []uint32{last - 1, last, 0, 1} {
			in.send(shapes[0].frame(newRand(), 1500))
			for _, wantFirst := range []bool{true, false} {
				packet := far.fragment(v6)
				if packet == nil {
					t.Fatalf("IPv6 %v, identification %#x: a fragment is missing", v6, want)
				}
				if id, first := identification(packet); id != want || first != wantFirst {
					t.Errorf("IPv6 %v: identification %#x, first %v; want %#x, %v", v6, id, first, want, wantFirst)
				}
				if sum := headerSum(packet[ethernetLen:]); !v6 && sum != 0xffff {
					t.Errorf("identification %#x: the IPv4 header adds up to %#04x", want, sum)
				}
			}
		}
	}
}

// fragment returns the next fragment that comes.
func (p *tap) fragment(v6 bool) []byte {
	for {
		b := p.receiveFrom([6]byte(p.near))
		switch {
		case b == nil,
			v6 && b[12] == 0x86 && b[ethernetLen+6] == 44,
			!v6 && b[12] == 0x08 && b[13] == 0 && binary.BigEndian.Uint16(b[ethernetLen+6:])&0x3fff != 0:
			return b
		}
	}
}

func headerSum(ip []byte) (sum uint32) {
	for b := ip[:ipv4Len]; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// Where a map is full, one more is an error that says so and what to do, or does without. What
// there is goes on, nothing of it is left, and when there is room it can be done.
func TestMapFull(t *testing.T) {
	a, b := up(t, setting{cookie: 8})
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	other := a.session
	other.LocalID, other.RemoteID = 0xb0000001, 0xb0000002
	ordered := other
	ordered.ReceiveSublayer, ordered.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	ordered.ReceiveSequencing, ordered.TransmitSequencing = l2tpv3.SequencingAll, l2tpv3.SequencingAll
	second := pseudowire.Pseudowire{Name: "y", Device: "pw-y", MTU: 1500}
	onSecond := other
	onSecond.Pseudowire = second.Name
	steered := second
	steered.Several, steered.Steer = true, &pseudowire.Steer{Tunnels: []string{tunnelName}}
	tunnel := a.tunnel
	tunnel.Name, tunnel.Remote = "silver/peer", netip.AddrPortFrom(tunnel.Remote.Addr(), 1702)
	crossed := second
	crossed.Port, crossed.PortVLAN = "lan", 7

	dp, objs := a.dp, a.dp.objs
	sessions := func(s pseudowire.Session) func() error { return func() error { return dp.SetSession(s) } }
	removeSession := func() error { return dp.RemoveSession(other.LocalID) }
	set := func(p pseudowire.Pseudowire, s pseudowire.Session) func() error {
		return func() error { return errors.Join(dp.SetPseudowire(p), dp.SetSession(s)) }
	}
	remove := func() error { return errors.Join(dp.RemoveSession(other.LocalID), dp.RemovePseudowires(second.Name)) }
	const outOfTheWay = 1 << 20 // of the numbers of links
	for _, c := range []struct {
		name     string
		fill     func(n uint32) error
		free     func(n uint32) error
		do, undo func() error
		without  func() error // what is different where it is no error
	}{
		{name: "sessions",
			fill: func(n uint32) error { return objs.Sessions.Put(n, &bpf.Receive{}) }, free: objs.Sessions.Delete,
			do: sessions(other), undo: removeSession},
		{name: "counts",
			fill: objs.Counts.Create, free: objs.Counts.Delete,
			do: sessions(other), undo: removeSession},
		{name: "numbers",
			fill: func(n uint32) error { return objs.Numbers.Put(n, new(uint64)) }, free: objs.Numbers.Delete,
			do: sessions(ordered), undo: removeSession},
		{name: "orders",
			fill: func(n uint32) error { return objs.Orders.Put(n, &bpf.Order{}) }, free: objs.Orders.Delete,
			do: sessions(ordered), undo: removeSession},
		{name: "pseudowires",
			fill: func(n uint32) error { return objs.Pseudowires.Put(outOfTheWay+n, &bpf.Transmit{}) },
			free: func(n uint32) error { return objs.Pseudowires.Delete(outOfTheWay + n) },
			do:   set(second, onSecond), undo: remove},
		{name: "steers",
			fill: func(n uint32) error { return objs.Steers.Put(outOfTheWay+n, &bpf.Steer{}) },
			free: func(n uint32) error { return objs.Steers.Delete(outOfTheWay + n) },
			do:   set(steered, onSecond), undo: remove},
		{name: "tunnels",
			fill: func(n uint32) error { return objs.Tunnels.Put(bpf.Flow{Ports: uint64(n)}, new(uint32)) },
			free: func(n uint32) error { return objs.Tunnels.Delete(bpf.Flow{Ports: uint64(n)}) },
			do:   func() error { return dp.SetTunnel(tunnel) }, undo: func() error { return dp.RemoveTunnel(tunnel.Name) }},
		{name: "circuits",
			fill: func(n uint32) error { return objs.Circuits.Put(bpf.CircuitKey{Port: outOfTheWay + n}, &bpf.Circuit{}) },
			free: func(n uint32) error { return objs.Circuits.Delete(bpf.CircuitKey{Port: outOfTheWay + n}) },
			do:   set(crossed, onSecond), undo: remove,
			without: func() error {
				if dp.CrossConnected(second.Name) {
					return errors.New("it is cross-connected")
				}
				return nil
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := uint32(0)
			a.do(func() {
				for until := time.Now().Add(20 * time.Second); ; {
					full := c.fill(n + 1)
					if errors.Is(full, bpf.ErrFull) {
						break
					}
					switch {
					case full == nil:
						n++
					case errors.Is(full, unix.ENOMEM) && time.Now().Before(until):
						time.Sleep(time.Millisecond) // the kernel makes more entries behind those that are taken
					default:
						t.Fatal(full)
					}
				}
				err := c.do()
				var e *Error
				switch {
				case c.without != nil:
					must(t, errors.Join(err, c.without()))
				case !errors.As(err, &e) || !errors.Is(err, bpf.ErrFull) || !strings.Contains(e.Hint, "datapath: kernel"):
					t.Errorf("one more: %v", err)
				}
				must(t, c.undo())
				must(t, dp.SetSession(a.session))
				if more := c.fill(n + 1); !errors.Is(more, bpf.ErrFull) {
					t.Errorf("there is room now: %v", more)
				}
			})
			frame := shapes[0].frame(newRand(), 100)
			for _, way := range [][2]*port{{portA, portB}, {portB, portA}} {
				way[0].send(frame)
				if got := way[1].receive(); !bytes.Equal(got, frame) {
					t.Errorf("while the map is full: %s", firstDifference(got, frame))
				}
			}
			a.do(func() {
				for ; n > 0; n-- {
					must(t, c.free(n))
				}
				must(t, c.do())
				if c.without != nil && c.without() == nil {
					t.Error("with room again it does without")
				}
				must(t, c.undo())
			})
		})
	}
}
