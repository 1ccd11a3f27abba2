package bpf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The programs are run on packets here, without a network (BPF_PROG_TEST_RUN):
// pkg/pseudowire/tcbpf has the tests with one. A packet comes in over the
// loopback device of a new namespace, whose number is 1 and whose address is 0.
const device = 1

// What a program can say of a packet.
const (
	pass     = 0xffffffff // TC_ACT_UNSPEC: the stack's
	shot     = 2          // TC_ACT_SHOT
	redirect = 7          // TC_ACT_REDIRECT
)

func load(t testing.TB) *Objects {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: it loads programs")
		}
		t.Skip("needs root: it loads programs")
	}
	// Not unlocked: the thread, and its namespace, end with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	o, err := Load("")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// context is the part of struct __sk_buff that a run takes and gives.
type context struct {
	Len, PktType, Mark, QueueMapping, Protocol, VLANPresent, VLANTCI, VLANProto, Priority uint32
	IngressIfindex, Ifindex, TcIndex                                                      uint32
	CB                                                                                    [5]uint32
	Hash, TcClassid, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4                   uint32
	RemoteIP6, LocalIP6                                                                   [4]uint32
	RemotePort, LocalPort, DataMeta                                                       uint32
	FlowKeys, Tstamp                                                                      uint64
	WireLen, GSOSegs                                                                      uint32
	SK                                                                                    uint64
	GSOSize                                                                               uint32
	TstampType, _                                                                         uint32
	HWTstamp                                                                              uint64
}

// run gives a packet to a program, and its verdict and what it made of it back.
func run(t *testing.T, p *ebpf.Program, packet []byte, mark uint32) (action uint32, out []byte, outMark uint32) {
	t.Helper()
	in, after := context{Mark: mark}, context{}
	opts := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+512), Context: &in, ContextOut: &after}
	action, err := p.Run(&opts)
	if err != nil {
		t.Fatalf("run on %d octets: %v", len(packet), err)
	}
	return action, opts.DataOut, after.Mark
}

func unhex(t *testing.T, s ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(s, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	local4, remote4 = netip.MustParseAddrPort("192.0.2.1:1701"), netip.MustParseAddrPort("192.0.2.2:1702")
	local6, remote6 = netip.MustParseAddrPort("[2001:db8::1]:1701"), netip.MustParseAddrPort("[2001:db8::2]:1702")
)

const (
	session4, session6 = 0x11111111, 0x66666666

	eth4 = "000000000000 020000000002 0800"
	eth6 = "000000000000 020000000002 86dd"
	udp  = "06a6 06a5"
	// The frame in the packet: 14 octets and a payload of 46.
	frameHead = "027077640002 027077640001 88b5"
)

var frame = append([]byte{2, 0x70, 0x77, 0x64, 0, 2, 2, 0x70, 0x77, 0x64, 0, 1, 0x88, 0xb5}, bytes.Repeat([]byte{0xaa}, 46)...)

// sessions installs one over IPv4, cookie 0102030405060708, and one over IPv6
// without a cookie but with a sublayer.
func sessions(t *testing.T, o *Objects) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	flow4, flow6 := NewFlow(local4, remote4), NewFlow(local6, remote6)
	ours := TunnelOurs
	must(o.Tunnels.Put(flow4, &ours))
	must(o.Tunnels.Put(flow6, &ours))
	cookie := binary.NativeEndian.Uint64([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	must(o.Sessions.Put(session4, &Receive{Cookie: cookie, Previous: cookie, CookieMask: CookieMask(8), CookieLen: 8, Flow: flow4, Flags: ReceiveUp, Device: device, Lane: device, Mtu: 1500, Room: 1442}))
	must(o.Sessions.Put(session6, &Receive{Flow: flow6, Flags: ReceiveUp | ReceiveSublayer, Device: device, Lane: device, Mtu: 1500, Room: 1442}))
	must(o.Counts.Create(session4))
	must(o.Counts.Create(session6))
}

// RFC 3931, Sections 4.1.2 and 4.5: which packets are data of a session, and
// what is dropped.
func TestDecap(t *testing.T) {
	const (
		ip4     = "4500 0068 0000 4000 4011 0000 c0000202 c0000201"
		ip6     = "60000000 0050 11 40 20010db8000000000000000000000002 20010db8000000000000000000000001"
		cookie  = "0102030405060708"
		payload = frameHead + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	)
	o := load(t)
	sessions(t, o)
	for _, c := range []struct {
		name   string
		packet []string
		action uint32
	}{
		{"IPv4", []string{eth4, ip4, udp, "0054 0000", "0003 0000 11111111", cookie, payload}, redirect},
		{"IPv4 with a checksum", []string{eth4, ip4, udp, "0054 1234", "0003 0000 11111111", cookie, payload}, redirect},
		{"IPv6, sublayer", []string{eth6, ip6, udp, "0050 0000", "0003 0000 66666666", "00000000", payload}, redirect},
		{"bits marked x", []string{eth4, ip4, udp, "0054 0000", "7ff3 ffff 11111111", cookie, payload}, redirect},
		{"octets after the packet", []string{eth4, ip4, udp, "0054 0000", "0003 0000 11111111", cookie, payload, "00000000"}, redirect},

		{"T bit", []string{eth4, ip4, udp, "0054 0000", "8003 0000 11111111", cookie, payload}, pass},
		{"version 2", []string{eth4, ip4, udp, "0054 0000", "0002 0000 11111111", cookie, payload}, pass},
		{"more fragments", []string{eth4, "4500 0068 0000 2000 4011 0000 c0000202 c0000201", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"a later fragment", []string{eth4, "4500 0068 0000 0010 4011 0000 c0000202 c0000201", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"IP options", []string{eth4, "4600 006c 0000 4000 4011 0000 c0000202 c0000201 01010100", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"TCP", []string{eth4, "4500 0068 0000 4000 4006 0000 c0000202 c0000201", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"IPv6 extension header", []string{eth6, "60000000 0050 2c 40 20010db8000000000000000000000002 20010db8000000000000000000000001", udp, "0050 0000", "0003 0000 66666666", "00000000", payload}, pass},
		{"UDP length is not IP's", []string{eth4, ip4, udp, "0053 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"longer than the frame", []string{eth4, "4500 0168 0000 4000 4011 0000 c0000202 c0000201", udp, "0154 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"another sender", []string{eth4, "4500 0068 0000 4000 4011 0000 c0000203 c0000201", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"another receiver", []string{eth4, "4500 0068 0000 4000 4011 0000 c0000202 c0000202", udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"another port", []string{eth4, ip4, "06a7 06a5", "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"not IP", []string{"000000000000 020000000002 0806", ip4, udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},
		{"ends in the cookie", []string{eth4, "4500 0028 0000 4000 4011 0000 c0000202 c0000201", udp, "0014 0000", "0003 0000 11111111", "01020304"}, pass},
		{"cut in the UDP header", []string{eth4, ip4, "06a6"}, pass},
		{"another station's", []string{"020000000009 020000000002 0800", ip4, udp, "0054 0000", "0003 0000 11111111", cookie, payload}, pass},

		{"unknown session", []string{eth4, ip4, udp, "0054 0000", "0003 0000 11111112", cookie, payload}, shot},
		{"a session of another tunnel", []string{eth4, ip4, udp, "0054 0000", "0003 0000 66666666", cookie, payload}, shot},
		{"wrong cookie", []string{eth4, ip4, udp, "0054 0000", "0003 0000 11111111", "0102030405060709", payload}, shot},
		{"VCCV that nobody asked for", []string{eth6, ip6, udp, "0050 0000", "0003 0000 66666666", "80000021", payload}, shot},
		{"ends in the frame's header", []string{eth4, "4500 0031 0000 4000 4011 0000 c0000202 c0000201", udp, "001d 0000", "0003 0000 11111111", cookie, "027077640002 027077640001 88"}, shot},
	} {
		t.Run(c.name, func(t *testing.T) {
			packet := unhex(t, c.packet...)
			action, out, _ := run(t, o.Decap, packet, 0)
			if action != c.action {
				t.Fatalf("action %#x, not %#x", action, c.action)
			}
			want := packet
			if action == redirect {
				want = frame
			}
			if action != shot && !bytes.Equal(out, want) {
				t.Errorf("got\n%s\nwant\n%s", hex.Dump(out), hex.Dump(want))
			}
		})
	}
	counts, err := o.Counts.Sum(session4)
	if err != nil {
		t.Fatal(err)
	}
	if counts.Received.Frames != 4 || counts.Received.Octets != 4*60 || counts.Events[WrongCookie] != 1 || counts.Events[Error] != 1 {
		t.Errorf("counted %+v", counts)
	}
	global, err := o.Global.Sum()
	if err != nil {
		t.Fatal(err)
	}
	if global[UnknownSession] != 2 {
		t.Errorf("counted %d packets of unknown sessions, not 2", global[UnknownSession])
	}
}

// transmit is an entry for the loopback device, its outer headers those of a
// session with the given cookie over IPv4 or IPv6.
func transmit(t *testing.T, v6 bool, cookie string) Transmit {
	t.Helper()
	head := []string{"020000000001 020000000002 0800", "4500 0000 0000 4000 4011 0000 c0000201 c0000202"}
	if v6 {
		head = []string{"020000000001 020000000002 86dd", "60000000 0000 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002"}
	}
	b := unhex(t, append(head, "06a5 06a6 0000 0000", "0003 0000 22222222", cookie)...)
	tx := Transmit{
		Session: session4, Flags: TransmitEstablished | TransmitResolved, Egress: device, Lane: device,
		Mtu: 1500, Room: 1442, OuterLen: uint32(len(b)),
	}
	if v6 {
		tx.Flags |= TransmitIPv6
		tx.PseudoSum = sum(b[22:54]) + uint32(NetworkOrder16(17))
	} else {
		tx.IpSum = sum(b[14:34])
		tx.PseudoSum = sum(b[26:34]) + uint32(NetworkOrder16(17))
	}
	b = append(b, make([]byte, 8*len(tx.Outer)-len(b))...)
	for i := range tx.Outer {
		tx.Outer[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return tx
}

func sum(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.NativeEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(binary.NativeEndian.Uint16([]byte{b[0], 0}))
	}
	return s
}

// right says that a sum with its checksum in it is that of intact octets.
func right(s uint32) bool {
	s = s&0xffff + s>>16
	return s&0xffff+s>>16 == 0xffff
}

// What becomes of a frame, by what the agent says of its pseudowire.
func TestEncap(t *testing.T) {
	o := load(t)
	sessions(t, o)
	const lane = "to the lane"
	for _, c := range []struct {
		name   string
		change func(*Transmit)
		size   int
		want   string // "out", "to the lane", or the event
		event  Event
	}{
		{"fits", func(*Transmit) {}, 60, "out", 0},
		{"just fits", func(*Transmit) {}, 1500 - 44, "out", 0},
		{"does not fit", func(*Transmit) {}, 1500 - 43, lane, 0},
		{"with a checksum", func(tx *Transmit) { tx.Flags |= TransmitChecksum }, 60, lane, 0},
		{"peer does not listen", func(tx *Transmit) { tx.Flags &^= TransmitEstablished }, 60, "", NotEstablished},
		{"no neighbour", func(tx *Transmit) { tx.Flags &^= TransmitResolved }, 60, "", NoNeighbour},
		{"no tag", func(tx *Transmit) { tx.Vlan = 5 }, 60, "", WrongVLAN},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := transmit(t, false, "0102030405060708")
			c.change(&tx)
			if err := o.Pseudowires.Put(device, &tx); err != nil {
				t.Fatal(err)
			}
			before, err := o.Counts.Sum(session4)
			if err != nil {
				t.Fatal(err)
			}
			in := append(bytes.Clone(frame[:14]), make([]byte, c.size-14)...)
			action, out, mark := run(t, o.Encap, in, 0)
			after, err := o.Counts.Sum(session4)
			if err != nil {
				t.Fatal(err)
			}
			switch c.want {
			case "out":
				outer := len(in) + 44
				if action != redirect || len(out) != 14+outer || !bytes.Equal(out[58:], in) {
					t.Errorf("action %#x, %d octets", action, len(out))
				}
				if !right(sum(out[14:34])) || binary.BigEndian.Uint16(out[16:]) != uint16(outer) || binary.BigEndian.Uint16(out[38:]) != uint16(outer-20) {
					t.Errorf("headers % x", out[:58])
				}
				if after.Transmitted.Frames != before.Transmitted.Frames+1 || after.Transmitted.Octets != before.Transmitted.Octets+uint64(len(in)) {
					t.Errorf("counted %+v after %+v", after.Transmitted, before.Transmitted)
				}
			case lane:
				if action != redirect || mark != device || !bytes.Equal(out, in) {
					t.Errorf("action %#x, mark %d, %d octets", action, mark, len(out))
				}
			default:
				if action != shot || after.Events[c.event] != before.Events[c.event]+1 {
					t.Errorf("action %#x, counted %+v after %+v", action, after.Events, before.Events)
				}
			}
		})
	}
	if err := o.Pseudowires.Delete(device); err != nil {
		t.Fatal(err)
	}
	if action, _, _ := run(t, o.Encap, frame, 0); action != shot {
		t.Errorf("action %#x for a device without a session", action)
	}
}

// At the egress of a device the same becomes of frames, but for those that have to take the
// way over the veth pair.
func TestEnter(t *testing.T) {
	o := load(t)
	sessions(t, o)
	tagged := append(bytes.Clone(frame[:12]), append([]byte{0x81, 0, 0, 5}, frame[12:]...)...)
	for _, c := range []struct {
		name   string
		change func(*Transmit)
		frame  []byte
		action uint32
		mark   uint32
	}{
		{"fits", func(*Transmit) {}, frame, redirect, 0},
		{"does not fit", func(tx *Transmit) { tx.Mtu = 80 }, frame, redirect, 77},
		{"peer does not listen", func(tx *Transmit) { tx.Flags &^= TransmitEstablished }, frame, shot, 0},
		{"over IP", func(tx *Transmit) { tx.Flags |= TransmitIP }, frame, pass, 0},
		{"with a checksum", func(tx *Transmit) { tx.Flags |= TransmitChecksum }, frame, pass, 0},
		{"numbered", func(tx *Transmit) { tx.Flags |= TransmitNumberAll }, frame, pass, 0},
		{"with a tag in it", func(*Transmit) {}, tagged, pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := transmit(t, false, "0102030405060708")
			tx.Device = 77
			c.change(&tx)
			if err := o.Pseudowires.Put(device, &tx); err != nil {
				t.Fatal(err)
			}
			action, out, mark := run(t, o.Enter, c.frame, 0)
			if action != c.action || mark != c.mark {
				t.Errorf("action %#x, mark %d; not %#x and %d", action, mark, c.action, c.mark)
			}
			want := c.frame
			if c.name == "fits" {
				out = out[58:]
			}
			if action != shot && !bytes.Equal(out, want) {
				t.Errorf("got\n%s\nwant\n%s", hex.Dump(out), hex.Dump(want))
			}
		})
	}
	if err := o.Pseudowires.Delete(device); err != nil {
		t.Fatal(err)
	}
	if action, _, _ := run(t, o.Enter, frame, 0); action != pass {
		t.Errorf("action %#x for a device without a session", action)
	}
}

// In the lane, packets can get a UDP checksum: right for every length and content.
func TestLaneChecksums(t *testing.T) {
	o := load(t)
	sessions(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, v6 := range []bool{false, true} {
		for _, cookie := range []string{"", "01020304", "0102030405060708"} {
			tx := transmit(t, v6, cookie)
			tx.Flags |= TransmitChecksum
			if err := o.Pseudowires.Put(device, &tx); err != nil {
				t.Fatal(err)
			}
			ip := 20
			if v6 {
				ip = 40
			}
			for size := 14; size <= 1500-ip-16-len(cookie)/2; size++ {
				in := bytes.Clone(frame[:14])
				for len(in) < size {
					in = append(in, byte(rng.Uint32()))
				}
				action, out, mark := run(t, o.Lane, in, device)
				if action != redirect || mark != 0 {
					t.Fatalf("%d octets: action %#x, mark %d", size, action, mark)
				}
				udp := out[14+ip:]
				addresses := out[14+ip-8 : 14+ip]
				if v6 {
					addresses = out[14+8 : 14+40]
				}
				length := uint32(NetworkOrder16(uint16(len(udp))))
				if s := sum(addresses) + uint32(NetworkOrder16(17)) + length + sum(udp); !right(s) {
					t.Fatalf("IPv6 %v, %d octets: the checksum %04x is wrong", v6, size, udp[6:8])
				}
				if !bytes.Equal(udp[len(udp)-size:], in) {
					t.Fatalf("IPv6 %v, %d octets: the frame is not as it was", v6, size)
				}
			}
		}
	}
}

// Random and spoilt packets are refused or passed, and never leave a program in
// an error of its own.
func TestDecapGarbage(t *testing.T) {
	o := load(t)
	sessions(t, o)
	good := unhex(t, eth4, "4500 0068 0000 4000 4011 0000 c0000202 c0000201", udp, "0054 0000", "0003 0000 11111111 0102030405060708", frameHead, strings.Repeat("aa", 46))
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 20000 {
		packet := bytes.Clone(good)
		for range 1 + rng.IntN(3) {
			packet[14+rng.IntN(len(packet)-14)] = byte(rng.Uint32())
		}
		packet = packet[:34+rng.IntN(len(packet)-33)] // a run wants a whole IP header
		if n%3 == 0 {
			packet = append(packet, good[14+rng.IntN(60):]...)
		}
		switch action, _, _ := run(t, o.Decap, packet, 0); action {
		case pass, shot, redirect:
		default:
			t.Fatalf("action %#x for % x", action, packet)
		}
	}
}

func TestFlow(t *testing.T) {
	f := NewFlow(local4, remote4)
	got := fmt.Sprintf("%x", [][]byte{
		binary.NativeEndian.AppendUint64(nil, f.Local[0]), binary.NativeEndian.AppendUint64(nil, f.Local[1]),
		binary.NativeEndian.AppendUint64(nil, f.Remote[1]), binary.NativeEndian.AppendUint64(nil, f.Ports),
	})
	if want := "[0000000000000000 0000ffffc0000201 0000ffffc0000202 06a506a600000000]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Pairs of addresses that differ in one octet have different counters, mostly.
	slots := map[uint32]bool{}
	for i := range 64 {
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1701)
		slots[NewFlow(local4, remote).Slot()] = true
	}
	if len(slots) < 40 {
		t.Errorf("64 pairs share %d counters", len(slots))
	}
}
