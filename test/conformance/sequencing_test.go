package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// Levels of Data Sequencing (Section 5.4.4), and the default L2-Specific Sublayer (4.6).
const (
	sequencingNonIP  = 1
	sequencingAll    = 2
	sublayerDefault  = 1
	sublayerS        = 0x40000000
	sublayerReserved = 0xbf000000 // all but S and the number
)

// numbered is a frame of an EtherType that is known by its label.
func numbered(etherType uint16, label string) []byte {
	f := frame(label)
	binary.BigEndian.PutUint16(f[12:], etherType)
	if etherType == 0x0800 {
		// 46 octets of IPv4, protocol 253, for tests (RFC 3692).
		copy(f[14:], []byte{0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 253, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2})
		sum := sum16(f[14:34])
		binary.BigEndian.PutUint16(f[24:], ^uint16(sum>>16+sum&0xffff))
		copy(f[34:], label)
	}
	return f
}

// The client asks for a sublayer and for numbers: the daemon's packets have them, from 0
// on, all of them or those that are not IP. What the client sends has neither.
func TestRule37_4_6_5_4_4_Sequencing(t *testing.T) {
	for _, level := range []uint16{sequencingNonIP, sequencingAll} {
		t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
			n := d.client.open("gold", d.socket)
			n.decline(1)
			s := n.open("a", u16(avpSublayer, sublayerDefault), u16(avpSequencing, level), octets(avpCookie, 1, 2, 3, 4))
			h := d.host("eth1")
			h.receives(s, "neither sublayer nor number")
			header := dataMessage(s.local, s.cookie, nil)
			isData := func(p *packet) bool { return !p.isControl() && bytes.HasPrefix(p.payload, header) }
			next := uint32(0)
			take := func(f []byte, until time.Time) bool {
				p := n.placed(d.client.poll(until, isData))
				if p == nil {
					return false
				}
				b := p.payload[len(header):]
				if len(b) < 4 || !bytes.Equal(b[4:], f) {
					t.Fatalf("Section 4.6: after the cookie %x, want 4 octets of sublayer and the frame %x", b, f)
				}
				sublayer := binary.BigEndian.Uint32(b)
				wants := level == sequencingAll || binary.BigEndian.Uint16(f[12:]) != 0x0800
				switch {
				case sublayer&sublayerReserved != 0:
					t.Errorf("Section 4.6: reserved bits of the sublayer %08x", sublayer)
				case wants != (sublayer&sublayerS != 0):
					t.Errorf("Section 5.4.4: the sublayer of EtherType %x is %08x; a number: want %v", f[12:14], sublayer, wants)
				case wants && sublayer&0xffffff != next:
					t.Errorf("Section 4.6: number %d, want %d", sublayer&0xffffff, next)
				}
				if wants {
					next++
				}
				return true
			}
			// The bridge may take a while to forward; frames until then are lost to it.
			first := numbered(0x0806, "the first")
			d.client.frames = append(d.client.frames, first)
			for begun := time.Now(); ; {
				h.send(first)
				if take(first, time.Now().Add(again)) {
					break
				}
				if time.Since(begun) > patience {
					t.Fatal("no frame comes through the session")
				}
			}
			for take(first, time.Now().Add(20*again)) { // those that were on their way
			}
			for i := range 12 {
				f := numbered([]uint16{0x0800, 0x0806, 0x88b5}[i%3], fmt.Sprintf("number %d", i))
				d.client.frames = append(d.client.frames, f)
				h.send(f)
				if !take(f, time.Now().Add(patience)) {
					t.Fatalf("frame %d does not come through the session", i)
				}
			}
		})
	}
}
