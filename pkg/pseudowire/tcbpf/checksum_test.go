package tcbpf

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

func withChecksums(s *site) { s.tunnel.Checksum = true }

// udpOf takes a data packet apart: its UDP datagram, and the sum of the pseudo header
// (RFC 768; RFC 8200, Section 8.1).
func udpOf(packet []byte) (udp []byte, pseudo uint32) {
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			pseudo += uint32(binary.BigEndian.Uint16(b))
		}
	}
	const ipv6Len = 40
	ip := packet[ethernetLen:]
	if ip[0]>>4 == 4 {
		udp = ip[ipv4Len:binary.BigEndian.Uint16(ip[2:])]
		add(ip[12:ipv4Len])
	} else {
		udp = ip[ipv6Len : ipv6Len+int(binary.BigEndian.Uint16(ip[4:]))]
		add(ip[8:ipv6Len])
	}
	return udp, pseudo + protocolUDP + uint32(len(udp))
}

// RFC 3931, Section 4.1.2.3: data packets have UDP checksums where they are to, and
// none after that has changed, while the session stays.
func TestChecksums(t *testing.T) {
	for _, set := range []setting{{cookie: 8, mtu: 1600}, {cookie: 4, mtu: 1600, v6: true}} {
		a, far := upAgainstTap(t, set, withChecksums)
		in := openPort(t, a.host, "eth0")
		look := func(want bool) {
			for _, n := range []int{60, 61, 700, 1513, 1514} {
				for _, shape := range []shape{shapes[0], shapes[6]} {
					in.send(shape.frame(newRand(), n))
					packet := far.data()
					if packet == nil {
						t.Fatalf("IPv6 %v, %d octets: no packet", set.v6, n)
					}
					udp, sum := udpOf(packet)
					got := binary.BigEndian.Uint16(udp[6:])
					if !want {
						if got != 0 {
							t.Errorf("IPv6 %v, %s, %d octets: checksum %#04x, want none", set.v6, shape.name, n, got)
						}
						continue
					}
					if len(udp)%2 == 1 {
						udp = append(udp[:len(udp):len(udp)], 0)
					}
					for b := udp; len(b) > 0; b = b[2:] {
						sum += uint32(binary.BigEndian.Uint16(b))
					}
					for sum > 0xffff {
						sum = sum>>16 + sum&0xffff
					}
					if got == 0 || sum != 0xffff {
						t.Errorf("IPv6 %v, %s, %d octets: checksum %#04x, all adds up to %#04x", set.v6, shape.name, n, got, sum)
					}
				}
			}
		}
		look(true)
		a.tunnel.Checksum = false
		a.do(func() { must(t, a.dp.SetTunnel(a.tunnel)) })
		look(false)
		a.tunnel.Checksum = true
		a.do(func() { must(t, a.dp.SetTunnel(a.tunnel)) })
		look(true)
	}
}

// With checksums everything still arrives: segments, which are cut for them, and
// fragments. The other end's are none of its business.
func TestChecksumsEndToEnd(t *testing.T) {
	for _, set := range []setting{{cookie: 8, tagRoom: 16}, {cookie: 8, v6: true, tagRoom: 16}, {cookie: 8, ip: true, tagRoom: 16}} {
		t.Run(fmt.Sprintf("IPv6 %v, IP %v", set.v6, set.ip), func(t *testing.T) {
			a, b := newSites(t, set)
			withChecksums(a)
			for _, s := range []*site{a, b} {
				s.open()
				s.set()
			}
			a.resolve()
			b.resolve()
			pump(t, a)
			pump(t, b)
			transfer(t, a.host, b.host, "10.0.0.2:5001", 2<<20)
			transfer(t, b.host, a.host, "[fd00::1]:5001", 2<<20)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for _, n := range []int{60, 1000, 1500, 1514} {
				carry(t, portA, portB, shapes[0], []int{n})
				carry(t, portB, portA, shapes[0], []int{n})
			}
			for _, s := range []*site{a, b} {
				if got := s.counters(); got.Drops[pseudowire.DropError] != 0 || got.Drops[pseudowire.DropOversize] != 0 {
					t.Errorf("%s: %v", s.name, got.Drops)
				}
			}
		})
	}
}
