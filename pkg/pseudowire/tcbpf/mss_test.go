package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// syn is a frame with a TCP segment and the given options, checksums right.
func syn(v6 bool, tags []byte, flags byte, options []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	tcp := []byte{0x30, 0x39, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, byte(5+len(options)/4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0}
	tcp = append(tcp, options...)
	b := append(unicast[:], station[:]...)
	b = append(b, tags...)
	var addresses []byte
	if v6 {
		b = append(b, 0x86, 0xdd)
		h := make([]byte, 40)
		h[0], h[5], h[6], h[7] = 0x60, byte(len(tcp)), 6, 64
		h[8], h[23], h[24], h[39] = 0xfd, 1, 0xfd, 2
		b = append(b, h...)
		addresses = h[8:40]
	} else {
		b = append(b, 0x08, 0x00)
		h := []byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
		binary.NativeEndian.PutUint16(h[10:], checksum(h))
		b = append(b, h...)
		addresses = h[12:20]
	}
	pseudo := append(bytes.Clone(addresses), 0, 6, 0, byte(len(tcp)))
	binary.NativeEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	return append(b, tcp...)
}

func checksum(b []byte) uint16 {
	sum := sum16(b)
	sum = sum&0xffff + sum>>16
	return ^uint16(sum + sum>>16)
}

func mss(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }

// A SYN through the pseudowire, in either direction, speaks of no larger
// segments than the underlay carries; everything else is as it was.
func TestMSS(t *testing.T) {
	const (
		// 1500 less IPv4, UDP, L2TP with cookie and the frame's Ethernet header:
		// what is left for the segment's IP packet.
		room4 = 1500 - 20 - 8 - 16 - 14
		room6 = 1500 - 40 - 8 - 16 - 14
	)
	for _, underlay := range []struct {
		v6   bool
		room uint16
	}{{false, room4}, {true, room6}} {
		t.Run(fmt.Sprintf("underlay IPv6 %v", underlay.v6), func(t *testing.T) {
			a, b := up(t, setting{cookie: 8, v6: underlay.v6})
			from, to := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for _, v6 := range []bool{false, true} {
				limit := underlay.room - 40
				if v6 {
					limit -= 20
				}
				nop := []byte{1}
				for _, c := range []struct {
					name    string
					tags    []byte
					flags   byte
					options func(uint16) []byte
					sent    uint16
					want    uint16
				}{
					{"SYN", nil, 0x02, mss, 1460, limit},
					{"SYN and ACK", nil, 0x12, mss, 1460, limit},
					{"jumbo", nil, 0x02, mss, 8960, limit},
					{"the limit itself", nil, 0x02, mss, limit, limit},
					{"less is not raised", nil, 0x02, mss, 536, 536},
					{"tag", tag5, 0x02, mss, 1460, limit - 4},
					{"two tags", twice, 0x02, mss, 1460, limit - 8},
					{"after others", nil, 0x02, func(n uint16) []byte { return append([]byte{4, 2, 3, 3, 7, 1}, mss(n)...) }, 1460, limit},
					{"at an odd offset", nil, 0x02, func(n uint16) []byte { return append(bytes.Clone(nop), mss(n)...) }, 1460, limit},
					{"after many of no use", nil, 0x02, func(n uint16) []byte { return append(bytes.Repeat(nop, 36), mss(n)...) }, 1460, limit},
					{"ACK only", nil, 0x10, mss, 1460, 1460},
					{"after the end", nil, 0x02, func(n uint16) []byte { return append([]byte{0, 0, 0, 0}, mss(n)...) }, 1460, 1460},
					{"of a wrong length", nil, 0x02, func(n uint16) []byte { return append([]byte{2, 3}, byte(n>>8), byte(n)) }, 1460, 1460},
					{"after a length of 0", nil, 0x02, func(n uint16) []byte { return append([]byte{3, 0, 1, 1}, mss(n)...) }, 1460, 1460},
				} {
					from.send(syn(v6, c.tags, c.flags, c.options(c.sent)))
					want := syn(v6, c.tags, c.flags, c.options(c.want))
					if got := to.receive(); !bytes.Equal(got, want) {
						t.Errorf("%s, IPv6 %v: %s", c.name, v6, firstDifference(got, want))
					}
				}
			}
		})
	}
}

// A SYN that comes from a peer that does not clamp.
func TestMSSOfReceived(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, nil)
	out := openPort(t, a.host, "eth0")
	for _, v6 := range []bool{false, true} {
		limit := uint16(1500 - 58 - 40)
		if v6 {
			limit -= 20
		}
		for tags, lower := range map[string]uint16{"": 0, string(tag5): 4, string(twice): 8} {
			far.send(far.inbound(a, false, syn(v6, []byte(tags), 0x02, mss(1460)), nil))
			want := syn(v6, []byte(tags), 0x02, mss(limit-lower))
			if got := out.receive(); !bytes.Equal(got, want) {
				t.Errorf("IPv6 %v, tags % x: %s", v6, tags, firstDifference(got, want))
			}
		}
	}
}
