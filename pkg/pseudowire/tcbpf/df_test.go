package tcbpf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

func withDF(s *site) { s.tunnel.DF = true }

// upWithDF brings two sites up whose tunnel does not fragment.
func upWithDF(t *testing.T, set setting) (a, b *site) {
	t.Helper()
	a, b = newSites(t, set)
	for _, s := range []*site{a, b} {
		withDF(s)
		s.open()
		s.set()
	}
	a.resolve()
	b.resolve()
	return a, b
}

// learnMTU sends datagrams that may not be fragmented until the kernel knows that they
// are too long, and returns what it has learnt.
func learnMTU(t *testing.T, host *space, to netip.AddrPort, size int) (mtu int) {
	t.Helper()
	host.do(func() {
		family, level, discover, option, known := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU
		var sa unix.Sockaddr
		if to.Addr().Is4() {
			sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
		} else {
			family, level, discover, known = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU
			sa = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.SetsockoptInt(fd, level, discover, option))
		must(t, unix.Connect(fd, sa))
		deadline := time.Now().Add(10 * time.Second)
		for {
			_, err := unix.Write(fd, make([]byte, size))
			if err == unix.EMSGSIZE {
				break
			}
			if err != nil && err != unix.ECONNREFUSED {
				t.Fatalf("send %d octets to %v: %v", size, to, err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody says that %d octets to %v are too many", size, to)
			}
			time.Sleep(5 * time.Millisecond)
		}
		mtu, err = unix.GetsockoptInt(fd, level, known)
		must(t, err)
	})
	return mtu
}

// Where a tunnel does not fragment, a sender whose packets ask for that learns how long
// they may be; those then arrive, and no longer ones.
func TestSenderIsToldTheMTU(t *testing.T) {
	for _, set := range []setting{
		{cookie: 8}, {cookie: 8, v6: true}, {cookie: 4, ip: true}, {cookie: 8, mtu: 1400, lanMTU: 9000},
	} {
		t.Run(fmt.Sprintf("IPv6 %v, IP %v, underlay %d", set.v6, set.ip, cmp.Or(set.mtu, 1500)), func(t *testing.T) {
			a, b := upWithDF(t, set)
			want := cmp.Or(set.mtu, 1500) - pseudowire.Overhead(&a.tunnel, &a.session)
			for _, to := range []string{"10.0.0.2:7", "[fd00::2]:7"} {
				to := netip.MustParseAddrPort(to)
				headers := 28
				if to.Addr().Is6() {
					headers = 48
				}
				if got := learnMTU(t, a.host, to, 1472-20); got != want {
					t.Errorf("%v: the MTU is %d, want %d", to, got, want)
				}
				arrives(t, a.host, b.host, to, want-headers)
			}
			got := a.counters().Drops
			if got[pseudowire.DropOversize] == 0 || got[pseudowire.CountFragmented] != 0 || got[pseudowire.DropError] != 0 {
				t.Errorf("%v", got)
			}
		})
	}
}

// arrives sends a datagram of that size until one has come.
func arrives(t *testing.T, from, to *space, at netip.AddrPort, size int) {
	t.Helper()
	var in net.PacketConn
	var out net.Conn
	to.do(func() {
		var err error
		in, err = net.ListenPacket("udp", at.String())
		must(t, err)
	})
	defer in.Close()
	from.do(func() {
		var err error
		out, err = net.Dial("udp", at.String())
		must(t, err)
	})
	defer out.Close()
	b := make([]byte, 65536)
	for deadline := time.Now().Add(10 * time.Second); ; {
		out.Write(bytes.Repeat([]byte{7}, size))
		in.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := in.ReadFrom(b)
		if err == nil && n == size {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d octets to %v: %d octets, %v", size, at, n, err)
		}
	}
}

// packet4 is an IPv4 packet of n octets, from 10.0.0.1 to 10.0.0.2.
func packet4(n int, flags uint16, protocol byte) []byte {
	b := make([]byte, n)
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint16(b[6:], flags)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	for i := ipv4Len; i < n; i++ {
		b[i] = byte(i)
	}
	return withChecksum(b)
}

// withChecksum writes the checksum of an IPv4 header.
func withChecksum(b []byte) []byte {
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], ^foldedSum(b[:ipv4Len]))
	return b
}

// foldedSum is the one's complement sum of octets (RFC 1071).
func foldedSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Answers are from the destination, have the tag of what they answer, and are right to the
// octet. What may not be answered, or does not ask for it, is only counted.
func TestTooBigAnswers(t *testing.T) {
	a, _ := upWithDF(t, setting{cookie: 8, tagRoom: 16})
	in := openPort(t, a.host, "eth0")
	room := 1500 - pseudowire.Overhead(&a.tunnel, &a.session)
	const df, more = 0x4000, 0x2000
	head := func(tags []byte, ethertype uint16) []byte {
		b := append(append(bytes.Clone(unicast[:]), station[:]...), tags...)
		return binary.BigEndian.AppendUint16(b, ethertype)
	}
	changed := func(b []byte, at int, to ...byte) []byte {
		copy(b[at:], to)
		return withChecksum(b) // a bridge may look at it
	}
	// Of ICMP the type is the first octet behind the header.
	for _, tt := range []struct {
		name   string
		head   []byte
		packet []byte
		mtu    int // 0: no answer
	}{
		{"IPv4", head(nil, 0x0800), packet4(1500, df, 17), room},
		{"one octet too long", head(nil, 0x0800), packet4(room+1, df, 17), room},
		{"tagged", head(tag5, 0x0800), packet4(1500, df, 17), room - 4},
		{"an echo request", head(nil, 0x0800), changed(packet4(1500, df, 1), ipv4Len, 8), room},
		{"an ICMP error", head(nil, 0x0800), changed(packet4(1500, df, 1), ipv4Len, 3), 0},
		{"may be fragmented", head(nil, 0x0800), packet4(1500, 0, 17), 0},
		{"a later fragment", head(nil, 0x0800), packet4(1500, df|more|100, 17), 0},
		{"from nobody", head(nil, 0x0800), changed(packet4(1500, df, 17), 12, 0, 0, 0, 0), 0},
		{"to many", head(nil, 0x0800), changed(packet4(1500, df, 17), 16, 224, 0, 0, 9), 0},
		{"to many stations", append(bytes.Clone(multicast[:]), head(nil, 0x0800)[6:]...), packet4(1500, df, 17), 0},
		{"two tags", head(twice, 0x0800), packet4(1500, df, 17), 0},
		{"not IP", head(nil, experimental), packet4(1500, df, 17), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := a.counters().Drops[pseudowire.DropOversize]
			in.send(append(bytes.Clone(tt.head), tt.packet...))
			a.eventually("it is not counted", func() bool {
				all, err := a.dp.Counters()
				must(t, err)
				return all[a.session.LocalID].Drops[pseudowire.DropOversize] > before
			})
			if tt.mtu == 0 {
				return // the next answer would be the wrong one
			}
			var got []byte
			for deadline := time.Now().Add(10 * time.Second); got == nil; got = in.receiveFrom(unicast) {
				if time.Now().After(deadline) {
					t.Fatal("no answer")
				}
			}
			ip := got[len(tt.head):]
			if want := append(append(bytes.Clone(station[:]), unicast[:]...), tt.head[12:]...); !bytes.Equal(got[:len(tt.head)], want) {
				t.Errorf("Ethernet header % x, want % x", got[:len(tt.head)], want)
			}
			if len(ip) < 548-16 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
				t.Fatalf("%d octets of IP: % x", len(ip), ip[:ipv4Len])
			}
			if !bytes.Equal(ip[12:16], tt.packet[16:20]) || !bytes.Equal(ip[16:20], tt.packet[12:16]) || foldedSum(ip[:ipv4Len]) != 0xffff {
				t.Errorf("IP header % x", ip[:ipv4Len])
			}
			icmp := ip[ipv4Len:]
			if icmp[0] != 3 || icmp[1] != 4 || int(binary.BigEndian.Uint16(icmp[6:])) != tt.mtu || foldedSum(icmp) != 0xffff {
				t.Errorf("ICMP header % x, want MTU %d", icmp[:8], tt.mtu)
			}
			if quote := icmp[8:]; !bytes.Equal(quote, tt.packet[:len(quote)]) {
				t.Errorf("quotes % x", quote)
			}
		})
	}
	if extra := in.receiveFrom(unicast); extra != nil {
		t.Errorf("an answer too many: % x", extra[:60])
	}
}

// RFC 4443, Section 2.4 (e.6): who has an address of its own is answered, those of networks
// that translate (RFC 6052) included.
func TestTooBigAnswersIPv6(t *testing.T) {
	a, _ := upWithDF(t, setting{cookie: 8})
	in := openPort(t, a.host, "eth0")
	room := 1500 - pseudowire.Overhead(&a.tunnel, &a.session)
	for _, tt := range []struct {
		source   string
		answered bool
	}{
		{"fd00::1", true}, {"64:ff9b::192.0.2.1", true}, {"::2", true}, {"fe80::1", true},
		{"::", false}, {"::1", false}, {"ff02::1", false},
	} {
		t.Run(tt.source, func(t *testing.T) {
			source, target := netip.MustParseAddr(tt.source).As16(), netip.MustParseAddr("fd00::2").As16()
			packet := make([]byte, 1500)
			packet[0], packet[6], packet[7] = 0x60, unix.IPPROTO_UDP, 64
			binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-40))
			copy(packet[8:], source[:])
			copy(packet[24:], target[:])
			before := a.counters().Drops[pseudowire.DropOversize]
			frame := append(append(bytes.Clone(unicast[:]), station[:]...), 0x86, 0xdd)
			in.send(append(frame, packet...))
			a.eventually("it is not counted", func() bool {
				all, err := a.dp.Counters()
				must(t, err)
				return all[a.session.LocalID].Drops[pseudowire.DropOversize] > before
			})
			if !tt.answered {
				return // the next answer would be the wrong one, or the last look
			}
			var got []byte
			for deadline := time.Now().Add(10 * time.Second); got == nil; got = in.receiveFrom(unicast) {
				if time.Now().After(deadline) {
					t.Fatal("no answer")
				}
			}
			ip := got[ethernetLen:]
			if !bytes.Equal(got[:12], append(bytes.Clone(station[:]), unicast[:]...)) || !bytes.Equal(ip[8:24], target[:]) || !bytes.Equal(ip[24:40], source[:]) {
				t.Errorf("addresses % x, % x", got[:12], ip[8:40])
			}
			if icmp := ip[40:]; icmp[0] != 2 || int(binary.BigEndian.Uint32(icmp[4:])) != room {
				t.Errorf("ICMPv6 header % x, want MTU %d", icmp[:8], room)
			}
		})
	}
	if extra := in.receiveFrom(unicast); extra != nil {
		t.Errorf("an answer too many: % x", extra[:60])
	}
}

// However many packets are too long, answers are few; all are counted.
func TestTooBigAnswersAreLimited(t *testing.T) {
	a, _ := upWithDF(t, setting{cookie: 8})
	in := openPort(t, a.host, "eth0")
	const n = 250 // less than may wait for a CPU (net.core.netdev_max_backlog)
	frame := append(append(bytes.Clone(unicast[:]), station[:]...), 8, 0)
	frame = append(frame, packet4(1500, 0x4000, 17)...)
	began := time.Now()
	for range n {
		in.send(frame)
	}
	a.eventually("they are not counted", func() bool {
		all, err := a.dp.Counters()
		must(t, err)
		return all[a.session.LocalID].Drops[pseudowire.DropOversize] >= n
	})
	took := time.Since(began)
	answers := 0
	for in.receiveFrom(unicast) != nil {
		answers++
	}
	if most := 52 + int(took/(10*time.Millisecond)); answers < 50 || answers > most {
		t.Errorf("%d answers in %v, want 50 to %d", answers, took, most)
	}
}
