package transport

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// FuzzClassifyIP: whatever comes in an IP packet, the filters and the reader are
// of one mind about it, and only a known connection's ID with its addresses is
// taken for the peer's.
func FuzzClassifyIP(f *testing.F) {
	const known = 0x01020304
	for _, seed := range []string{
		"", "\x00\x00\x00", "\x00\x00\x00\x00\xc8", "\x00\x00\x00\x07a frame",
		"\x00\x00\x00\x00\xc8\x03\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x00\xc8\x03\x00\x0c\x01\x02\x03\x04\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed), true, uint8(5))
		f.Add([]byte(seed), false, uint8(15))
	}
	here, peer, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	f.Fuzz(func(t *testing.T, b []byte, fromPeer bool, words uint8) {
		x := &Transport{peers: directory{connections: map[uint32]pair{}, pairs: map[pair]int{}}}
		x.peers.set(known, pair{here, peer})
		remote := other
		if fromPeer {
			remote = peer
		}
		p := Packet{Path: control.Path{
			Encapsulation: l2tpv3.IP, Local: netip.AddrPortFrom(here, 0), Remote: netip.AddrPortFrom(remote, 0),
		}}
		s := &socket{encapsulation: l2tpv3.IP, local: p.Path.Local}
		packet := as(false, 5+int(words%11), b)
		if !bytes.Equal(s.withoutHeader(packet), b) {
			t.Fatal("the header is not all that is taken off")
		}
		payload, theirs, ok := x.classifyIP(&p, b)
		isData := run(t, dataFilter(false), packet) > 0
		isControl := run(t, controlFilter(false), packet) > 0
		switch {
		case isData == isControl:
			t.Fatalf("data %v, control %v", isData, isControl)
		case ok && p.Control:
			if !isControl || !bytes.Equal(append([]byte{0, 0, 0, 0}, payload...), b) {
				t.Fatalf("control %v: %x of %x", isControl, payload, b)
			}
			ours := fromPeer && len(b) >= 12 && bytes.Equal(b[8:12], []byte{1, 2, 3, 4})
			if theirs != ours || (p.Connection == known) != ours || p.Connection != 0 && !ours {
				t.Fatalf("connection %#x, from its peer %v", p.Connection, theirs)
			}
		case ok:
			if !isData || !bytes.Equal(payload, b) || theirs != fromPeer || p.Connection != 0 {
				t.Fatalf("data %v of connection %#x, from a peer %v: %x of %x", isData, p.Connection, theirs, payload, b)
			}
		case isData || p.Connection != 0 || theirs:
			t.Fatalf("malformed, and data %v of connection %#x", isData, p.Connection)
		}
	})
}

// TestDirectory: connections between the same addresses come and go.
func TestDirectory(t *testing.T) {
	d := directory{connections: map[uint32]pair{}, pairs: map[pair]int{}}
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ab, ba := pair{a, b}, pair{b, a}
	d.set(1, ab)
	d.set(1, ab)
	d.set(2, ab)
	d.remove(1)
	d.remove(1)
	if d.has(1, ab) || !d.has(2, ab) || d.has(2, ba) || !d.know(ab) || d.know(ba) {
		t.Errorf("after one of two has gone: %+v", d.connections)
	}
	d.set(2, ba)
	if d.has(2, ab) || !d.has(2, ba) || d.know(ab) || !d.know(ba) {
		t.Errorf("after the other has moved: %+v", d.connections)
	}
	d.remove(2)
	if len(d.connections)+len(d.pairs) != 0 {
		t.Errorf("left: %+v %+v", d.connections, d.pairs)
	}
}
