package tcbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/bpf"
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

// Where the map of sessions is full, one more is an error that says so. What there is
// goes on, and when there is room the session is installed.
func TestMapFull(t *testing.T) {
	a, b := up(t, setting{cookie: 8})
	portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
	session := a.session
	session.LocalID, session.RemoteID = 0xb0000001, 0xb0000002
	a.do(func() {
		var full error
		n := uint32(0)
		for ; full == nil; n++ {
			full = a.dp.objs.Sessions.Put(n+1, &bpf.Receive{})
		}
		if !errors.Is(full, bpf.ErrFull) {
			t.Fatal(full)
		}
		err := a.dp.SetSession(session)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, bpf.ErrFull) || !strings.Contains(e.Hint, "datapath: kernel") {
			t.Errorf("one more session: %v", err)
		}
		must(t, a.dp.RemoveSession(session.LocalID))
		must(t, a.dp.SetSession(a.session))
	})
	frame := shapes[0].frame(newRand(), 100)
	for _, way := range [][2]*port{{portA, portB}, {portB, portA}} {
		way[0].send(frame)
		if got := way[1].receive(); !bytes.Equal(got, frame) {
			t.Errorf("while the map is full: %s", firstDifference(got, frame))
		}
	}
	a.do(func() {
		must(t, a.dp.objs.Sessions.Delete(1))
		must(t, a.dp.SetSession(session))
		if _, err := a.dp.objs.Sessions.Get(session.LocalID); err != nil {
			t.Error("with room again:", err)
		}
	})
}
