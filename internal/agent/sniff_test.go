package agent

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var (
	ours   = netip.MustParseAddr("192.0.2.1")
	theirs = netip.MustParseAddr("192.0.2.2")
)

// outerPacket is an IPv4 packet of the peer's, or of a session of protocol 115.
func outerPacket(e l2tpv3.Encapsulation, session uint32, id, fragment uint16) []byte {
	var payload []byte
	protocol := byte(l2tpv3.Protocol)
	if e == l2tpv3.UDP {
		protocol = unix.IPPROTO_UDP
		payload = append(payload, 6, 165, 6, 165, 0, 0, 0, 0, 0, 3, 0, 0)
	}
	payload = append(binary.BigEndian.AppendUint32(payload, session), 1, 2, 3, 4)
	h := make([]byte, 20, 20+len(payload))
	h[0], h[9] = 4<<4|5, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], theirs.AsSlice())
	copy(h[16:], ours.AsSlice())
	return append(h, payload...)
}

// Of what passes an interface a capture takes the data packets of its sessions, with
// their fragments, once.
func TestSnifferWantsItsSessions(t *testing.T) {
	s := &sniffer{lanes: map[lane]bool{{theirs, ours, 7}: true}}
	now := time.Now()
	const more = 0x2000
	for _, tt := range []struct {
		what   string
		packet []byte
		link   int
		want   bool
	}{
		{"one of its own over UDP", outerPacket(l2tpv3.UDP, 7, 1, 0), 2, true},
		{"over IP", outerPacket(l2tpv3.IP, 7, 2, 0), 2, true},
		{"another session", outerPacket(l2tpv3.UDP, 8, 3, 0), 2, false},
		{"control over IP", outerPacket(l2tpv3.IP, 0, 4, 0), 2, false},
		{"the same on the interface below", outerPacket(l2tpv3.UDP, 7, 1, 0), 3, false},
		{"a first fragment", outerPacket(l2tpv3.UDP, 7, 5, more), 2, true},
		{"the last of it", outerPacket(l2tpv3.UDP, 0, 5, 100), 2, true},
		{"a fragment of another", outerPacket(l2tpv3.UDP, 7, 6, 100), 2, false},
		{"too short", outerPacket(l2tpv3.UDP, 7, 1, 0)[:30], 2, false},
		{"no IP", []byte{0x12}, 2, false},
		{"nothing", nil, 2, false},
	} {
		if got := s.wants(now, tt.packet, false, tt.link); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
	// Where it goes another way now, that is followed.
	if !s.wants(now.Add(2*stale), outerPacket(l2tpv3.UDP, 7, 1, 0), false, 3) {
		t.Error("not followed to another interface")
	}
	padded := append(outerPacket(l2tpv3.UDP, 7, 1, 0), 0, 0, 0)
	if got := trim(padded); !slices.Equal(got, padded[:len(padded)-3]) {
		t.Errorf("the link's padding stays: %x", got)
	}
	tagged := append(append(make([]byte, 12), 0x81, 0, 0, 100, 8, 0), 0x45)
	if got := withoutLink(tagged, unix.ARPHRD_ETHER); len(got) != 1 || got[0] != 0x45 {
		t.Errorf("behind a VLAN tag: %x", got)
	}
}

// What has the headers of IPv6 is read as well, with a fragment header, too.
func TestSnifferReadsIPv6(t *testing.T) {
	from, to := netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::1")
	h := make([]byte, 40)
	h[0], h[6] = 6<<4, unix.IPPROTO_FRAGMENT
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	b := append(h, l2tpv3.Protocol, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 1, 2)
	p, ok := readOuter(b)
	if !ok || p.from != from || p.to != to || !p.more || p.later || p.id != 9 || p.encapsulation != l2tpv3.IP {
		t.Errorf("%+v %v", p, ok)
	}
	if id, err := l2tpv3.DataSessionID(p.payload, p.encapsulation); err != nil || id != 7 {
		t.Errorf("session %d, %v", id, err)
	}
	for n := range b {
		readOuter(b[:n])
	}
}
