package tcbpf

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Whatever reaches the tunnel's socket, only what has the version, the session
// and the cookie of one belongs to it.
func FuzzDeliver(f *testing.F) {
	peer := netip.MustParseAddrPort("192.0.2.2:1701")
	cookie := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	head := append([]byte{0, 3, 0, 0, 0, 0, 0, 7}, cookie...)
	f.Add(head)
	f.Add(append(bytes.Clone(head), 0, 0, 0, 0))
	f.Add(append(bytes.Clone(head), make([]byte, 4+60)...))
	f.Add(append(bytes.Clone(head), 0x80, 0, 0, 0))
	f.Add([]byte{0xc8, 3, 0, 12, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, packet []byte) {
		s := &session{Session: pseudowire.Session{
			Tunnel: "t", Pseudowire: "x", LocalID: 7, LocalCookie: cookie, ReceiveSublayer: l2tpv3.SublayerDefault,
		}}
		d := &Datapath{
			log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
			packet:   -1, // nothing can be sent
			sessions: map[uint32]*session{7: s},
			tunnels:  map[string]*tunnel{"t": {Tunnel: pseudowire.Tunnel{Name: "t", Remote: peer}}},
			pseudowires: map[string]*device{"x": {
				Pseudowire: pseudowire.Pseudowire{Name: "x", MTU: 1500, VLAN: 5}, pair: pair{outerUp: true},
			}},
		}
		belongs := d.Deliver(peer, packet)
		is := len(packet) >= len(head) && binary.BigEndian.Uint16(packet)&0x800f == 3 && bytes.Equal(packet[4:16], head[4:])
		if belongs != is {
			t.Errorf("belongs to the session: %v, not %v", belongs, is)
		}
		var counted uint64
		for _, n := range s.deliveries {
			counted += n
		}
		if s.delivered.frames != 0 || counted > 1 || belongs && counted != 1 {
			t.Errorf("counted %v, delivered %d", s.deliveries, s.delivered.frames)
		}
	})
}
