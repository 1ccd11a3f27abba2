package tcbpf

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Whatever reaches the tunnel's socket, only what has the version and the session ID
// of one belongs to it, and that goes on as it came.
func FuzzDeliver(f *testing.F) {
	us, peer := netip.MustParseAddrPort("192.0.2.1:1701"), netip.MustParseAddrPort("192.0.2.2:1701")
	cookie := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	head := append([]byte{0, 3, 0, 0, 0, 0, 0, 7}, cookie...)
	f.Add(head)
	f.Add(append(bytes.Clone(head), 0, 0, 0, 0))
	f.Add(append(bytes.Clone(head), make([]byte, 4+60)...))
	f.Add(append(bytes.Clone(head), 0x80, 0, 0, 0))
	f.Add([]byte{0xc8, 3, 0, 12, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > 65000 {
			t.Skip("no packet is as long")
		}
		s := &session{Session: pseudowire.Session{
			Tunnel: "t", Pseudowire: "x", LocalID: 7, LocalCookie: cookie,
		}}
		d := &Datapath{
			log:         slog.New(slog.NewTextHandler(io.Discard, nil)),
			reassembled: -1, // nothing can be sent
			sessions:    map[uint32]*session{7: s},
			tunnels:     map[string]*tunnel{"t": {Tunnel: pseudowire.Tunnel{Name: "t", Local: us, Remote: peer}}},
		}
		belongs := d.Deliver(peer, packet)
		is := len(packet) >= 8 && binary.BigEndian.Uint16(packet)&0x800f == 3 && bytes.Equal(packet[4:8], head[4:8])
		if belongs != is {
			t.Errorf("belongs to the session: %v, not %v", belongs, is)
		}
		if counted := d.undelivered == 1; counted != belongs {
			t.Errorf("counted as not delivered: %v", counted)
		}
		whole := appendReceived(nil, &d.tunnels["t"].Tunnel, packet)
		if len(whole) != 14+20+8+len(packet) || int(binary.BigEndian.Uint16(whole[16:])) != len(whole)-14 || !bytes.Equal(whole[42:], packet) {
			t.Errorf("into the lane goes % x", whole)
		}
	})
}
