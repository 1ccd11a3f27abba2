package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// withDSCP gives the IP header of a frame, behind its tags, a DSCP; reported is whether
// it has one.
func withDSCP(frame []byte, dscp byte) ([]byte, bool) {
	b, at := bytes.Clone(frame), 14
	for b[at-2] == 0x81 || b[at-2] == 0x88 && b[at-1] == 0xa8 {
		at += 4
	}
	switch binary.BigEndian.Uint16(b[at-2:]) {
	case 0x0800:
		b[at+1] = b[at+1]&3 | dscp<<2
	case 0x86dd:
		b[at], b[at+1] = b[at]&0xf0|dscp>>2, b[at+1]&0x3f|dscp<<6
	default:
		return b, false
	}
	// Whatever else it was, the checksum is right.
	return withECN(b, notECT), true
}

// pcpOf is that of a frame's first tag, 0 without one.
func pcpOf(frame []byte) byte {
	if frame[12] == 0x81 || frame[12] == 0x88 && frame[13] == 0xa8 {
		return frame[14] >> 5
	}
	return 0
}

// The DSCP of outer packets comes from the frame: that of the IP packet inside, behind any
// tags, or the one that the first tag's priority bits stand for. Those of fragments too.
func TestMarking(t *testing.T) {
	byPCP := [8]uint8{8, 1, 16, 26, 34, 46, 48, 56}
	for _, set := range []setting{{cookie: 8}, {cookie: 8, v6: true}, {cookie: 8, ip: true}, {v6: true, ip: true}, {cookie: 4, crossed: true}, {cookie: 4, vlanA: 5, vlanB: 5}, {cookie: 4, crossed: true, vlanA: 5, vlanB: 5}} {
		for _, marking := range []pseudowire.Marking{{Copy: true}, {Mapped: true, Map: byPCP}} {
			name := fmt.Sprintf("IPv6 %v, protocol 115 %v, crossed %v, VLAN %d, copied %v", set.v6, set.ip, set.crossed, set.vlanA, marking.Copy)
			t.Run(name, func(t *testing.T) {
				set.tagRoom, set.mtu = 16, 1400
				// What the peer has asked for (RFC 3308) does not count then.
				a, far := upAgainstTap(t, set, func(s *site) { s.tunnel.ECN, s.session.DSCP, s.session.Marking = false, 10, marking })
				in := openPort(t, a.host, "eth0")
				for _, s := range shapes {
					if s.to != unicast || set.vlanA != 0 && !bytes.Equal(s.tags, tag5) {
						continue
					}
					for _, n := range []int{100, 1500} {
						frame, isIP := withDSCP(s.frame(newRand(), n), 46)
						in.send(frame)
						want := byte(0)
						switch {
						case marking.Mapped:
							want = byPCP[pcpOf(frame)]
						case isIP:
							want = 46
						}
						for packets := 1 + n/1000; packets > 0; packets-- {
							if got := outerTOS(t, far.outer()); got != want<<2 {
								t.Errorf("%s of %d octets: DSCP %d outside, not %d", s.name, n, got>>2, want)
							}
						}
					}
				}
			})
		}
	}
}
