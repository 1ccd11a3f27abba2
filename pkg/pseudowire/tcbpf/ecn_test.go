package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	notECT = iota
	ect1
	ect0
	ce
)

var codepoints = [4]string{"Not-ECT", "ECT(1)", "ECT(0)", "CE"}

// withECN gives the IP header of a frame, behind its tags, an ECN field.
func withECN(frame []byte, ecn byte) []byte {
	b := bytes.Clone(frame)
	at := 14
	for b[at-2] == 0x81 || b[at-2] == 0x88 && b[at-1] == 0xa8 {
		at += 4
	}
	switch binary.BigEndian.Uint16(b[at-2:]) {
	case 0x0800:
		b[at+1] = b[at+1]&^3 | ecn
		b[at+10], b[at+11] = 0, 0
		sum := sum16(b[at : at+20])
		sum = sum&0xffff + sum>>16
		binary.NativeEndian.PutUint16(b[at+10:], ^uint16(sum+sum>>16))
	case 0x86dd:
		b[at+1] = b[at+1]&^0x30 | ecn<<4
	}
	return b
}

// outerTOS is the second octet of an outer packet's IPv4 header, or the traffic
// class of its IPv6 header; the header's checksum is right.
func outerTOS(t *testing.T, packet []byte) byte {
	t.Helper()
	if packet[12] == 0x86 {
		return packet[14]<<4 | packet[15]>>4
	}
	sum := sum16(packet[14:34])
	sum = sum&0xffff + sum>>16
	if sum&0xffff+sum>>16 != 0xffff {
		t.Errorf("the checksum of % x is wrong", packet[14:34])
	}
	return packet[15]
}

// outer returns the next packet with a frame of the station's in it, or fragment of one.
func (p *tap) outer() []byte {
	for {
		b := p.receiveFrom([6]byte(p.near))
		if b == nil {
			p.t.Fatal("no packet")
		}
		protocol, offset := b[23], binary.BigEndian.Uint16(b[20:])&0x1fff
		if b[12] == 0x86 {
			protocol, offset = b[20], 0
			if protocol == 44 {
				protocol, offset = b[54], binary.BigEndian.Uint16(b[56:])>>3
			}
		}
		if (protocol == protocolUDP || protocol == protocolL2TP) && (offset > 0 || bytes.Contains(b, station[:])) {
			return b
		}
	}
}

// RFC 6040, Section 4.1, between LCCEs that have agreed on it (RFC 9601), and without:
// the ECN field of outer packets.
func TestECNOfOuterPackets(t *testing.T) {
	kinds := []shape{shapes[1], shapes[2], shapes[8], shapes[9], shapes[12], shapes[14]}
	for _, set := range []setting{{cookie: 8}, {cookie: 8, v6: true}, {cookie: 8, ip: true}, {v6: true, ip: true}} {
		for _, ecn := range []bool{true, false} {
			t.Run(fmt.Sprintf("IPv6 %v, protocol 115 %v, ECN %v", set.v6, set.ip, ecn), func(t *testing.T) {
				set.tagRoom, set.mtu = 16, 1400
				a, far := upAgainstTap(t, set, func(s *site) { s.tunnel.ECN, s.session.DSCP = ecn, 46 })
				in := openPort(t, a.host, "eth0")
				for _, s := range kinds {
					for field := range byte(4) {
						for _, n := range []int{100, 1500} {
							in.send(withECN(s.frame(newRand(), n), field))
							want := byte(46 << 2)
							if ecn {
								want |= field
							}
							// Fragments each have it.
							for packets := 1 + n/1000; packets > 0; packets-- {
								if got := outerTOS(t, far.outer()); got != want {
									t.Errorf("%s of %d octets, %s: traffic class %#02x outside, not %#02x", s.name, n, codepoints[field], got, want)
								}
							}
						}
					}
				}
				in.send(shapes[0].frame(newRand(), 100))
				if got := outerTOS(t, far.data()); got != 46<<2 {
					t.Errorf("not IP: traffic class %#02x outside", got)
				}
			})
		}
	}
}

// RFC 6040, Section 4.2, Figure 4, and what is done without agreement: nothing.
func TestECNOfFrames(t *testing.T) {
	const drop = 4
	figure := [4][4]byte{ // inner, then outer
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: drop},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
	kinds := []shape{shapes[1], shapes[2], shapes[8], shapes[9], shapes[12]}
	for _, v6 := range []bool{false, true} {
		for _, ecn := range []bool{true, false} {
			t.Run(fmt.Sprintf("IPv6 %v, ECN %v", v6, ecn), func(t *testing.T) {
				a, far := upAgainstTap(t, setting{cookie: 8, mtu: 1700, v6: v6, tagRoom: 16}, func(s *site) { s.tunnel.ECN = ecn })
				out := openPort(t, a.host, "eth0")
				before, dropped := a.counters(), uint64(0)
				for _, s := range kinds {
					for inner := range byte(4) {
						for outer := range byte(4) {
							frame := withECN(s.frame(newRand(), 200), inner)
							want := inner
							if ecn {
								want = figure[inner][outer]
							}
							far.send(far.inbound(a, v6, frame, func(m *message) { m.tos = 46<<2 | outer }))
							if want == drop {
								dropped++
								continue
							}
							if got := out.receive(); !bytes.Equal(got, withECN(frame, want)) {
								t.Errorf("%s, %s outside of %s: %s", s.name, codepoints[outer], codepoints[inner], firstDifference(got, withECN(frame, want)))
							}
						}
					}
				}
				// What is not IP knows nothing of ECN.
				plain := shapes[0].frame(newRand(), 200)
				far.send(far.inbound(a, v6, plain, func(m *message) { m.tos = ect0 }))
				if got := out.receive(); !bytes.Equal(got, plain) {
					t.Errorf("not IP: %s", firstDifference(got, plain))
				}
				want := map[string]uint64{"congestion-not-ecn-capable": dropped}
				if !ecn {
					want = map[string]uint64{}
				}
				if diff := cmp.Diff(want, difference(before.Drops, a.counters().Drops)); diff != "" {
					t.Errorf("counters (-want +got):\n%s", diff)
				}
			})
		}
	}
}
