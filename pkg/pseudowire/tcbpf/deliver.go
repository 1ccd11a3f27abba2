package tcbpf

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const (
	typeAndVersion = 0x800f
	channelBit     = 0x80 // the sublayer's V bit
	tagLen         = 4
	tpidVLAN       = 0x8100
	tpidService    = 0x88a8
)

// openPacket opens a socket that sends frames and receives none.
func openPacket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	return fd, nil
}

// Deliver is described in pseudowire.Datapath. It does in user space what the
// decapsulation program does with packets that come whole.
func (d *Datapath) Deliver(remote netip.AddrPort, packet []byte) bool {
	if len(packet) < l2tpLen || binary.BigEndian.Uint16(packet)&typeAndVersion != l2tpVersion {
		return false
	}
	s := d.sessions[binary.BigEndian.Uint32(packet[4:])]
	if s == nil {
		return false
	}
	t := d.tunnels[s.Tunnel]
	if t == nil || !sameAddress(t.Remote, remote) {
		return false
	}
	event, frame, err := d.deliver(s, packet[l2tpLen:])
	if err != nil {
		d.log.Debug("frame not delivered", "session", s.LocalID, "err", err)
	}
	if frame == 0 {
		s.deliveries[event]++
		return event != bpf.WrongCookie
	}
	s.delivered.frames++
	s.delivered.octets += uint64(frame)
	return true
}

// deliver takes a packet from the cookie on. It returns the octets of the frame
// delivered, or 0 and what happened instead.
func (d *Datapath) deliver(s *session, b []byte) (bpf.Event, int, error) {
	// RFC 3931, Section 4.5: a wrong cookie is dropped. The comparison takes the
	// same time whatever differs.
	n := len(s.LocalCookie)
	if len(b) < n || subtle.ConstantTimeCompare(b[:n], s.LocalCookie) == 0 {
		return bpf.WrongCookie, 0, nil
	}
	b = b[n:]
	if s.ReceiveSublayer == l2tpv3.SublayerDefault {
		// RFC 5085, Section 3: VCCV that nobody asked for is discarded.
		if len(b) < sublayerLen || b[0]&channelBit != 0 {
			return bpf.Error, 0, nil
		}
		b = b[sublayerLen:]
	}
	dev := d.pseudowires[s.Pseudowire]
	if len(b) < ethernetLen {
		return bpf.Error, 0, nil
	}
	if dev == nil || !dev.pair.outerUp {
		return bpf.NotEstablished, 0, nil
	}
	if len(b) > longest(dev, b) {
		return bpf.Oversize, 0, nil
	}
	frame := len(b)
	if dev.VLAN != 0 {
		b = withTag(b, dev.VLAN)
	}
	to := &unix.SockaddrLinklayer{Ifindex: dev.pair.outer}
	if err := unix.Sendto(d.packet, b, 0, to); err != nil {
		return bpf.Error, 0, fmt.Errorf("send into %s: %w", dev.pair.outerName, err)
	}
	return 0, frame, nil
}

// longest is how long a frame may be for the device: its first tag does not count.
func longest(dev *device, frame []byte) int {
	n := ethernetLen + dev.MTU
	switch binary.BigEndian.Uint16(frame[12:]) {
	case tpidVLAN, tpidService:
		n += tagLen
	}
	return n
}

func withTag(frame []byte, vlan uint16) []byte {
	b := make([]byte, 0, len(frame)+tagLen)
	b = append(b, frame[:12]...)
	b = binary.BigEndian.AppendUint16(b, tpidVLAN)
	b = binary.BigEndian.AppendUint16(b, vlan)
	return append(b, frame[12:]...)
}

func sameAddress(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}
