package tcbpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const typeAndVersion = 0x800f

// openPacket opens a socket that sends packets with a mark and receives none.
func openPacket(mark uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set the mark of a packet socket: %w", err)
	}
	return fd, nil
}

// Deliver is described in pseudowire.Datapath. The packet goes into the slow lane as
// it would have come without fragments, and its session's program decides. Packets
// over IP are told from those over UDP by a remote port of 0.
func (d *Datapath) Deliver(remote netip.AddrPort, packet []byte) bool {
	head := l2tpIPLen
	if remote.Port() != 0 {
		head = l2tpLen
		if len(packet) < head || binary.BigEndian.Uint16(packet)&typeAndVersion != l2tpVersion {
			return false
		}
	}
	if len(packet) < head {
		return false
	}
	s := d.sessions[binary.BigEndian.Uint32(packet[head-4:])]
	if s == nil {
		return false
	}
	t := d.tunnels[s.Tunnel]
	if t == nil || overIP(&t.Tunnel) != (remote.Port() == 0) || !sameAddress(t.Remote, remote) {
		return false
	}
	to := &unix.SockaddrLinklayer{Ifindex: d.lane.inner}
	if err := unix.Sendto(d.reassembled, appendReceived(nil, &t.Tunnel, packet), 0, to); err != nil {
		d.log.Debug("packet not delivered", "session", s.LocalID, "err", err)
		d.undelivered++
	}
	return true
}

// appendReceived appends a packet of the tunnel's as it came from the underlay: what
// has been verified of it is not there again.
func appendReceived(b []byte, t *pseudowire.Tunnel, payload []byte) []byte {
	local, remote := t.Local.Addr().Unmap(), t.Remote.Addr().Unmap()
	protocol, udp := byte(protocolL2TP), []byte(nil)
	if !overIP(t) {
		protocol = protocolUDP
		udp = binary.BigEndian.AppendUint16(udp, t.Remote.Port())
		udp = binary.BigEndian.AppendUint16(udp, t.Local.Port())
		udp = binary.BigEndian.AppendUint16(udp, uint16(udpLen+len(payload)))
		udp = append(udp, 0, 0)
	}
	length := len(udp) + len(payload)
	b = append(b, make([]byte, ethernetLen-2)...)
	if remote.Is4() {
		b = binary.BigEndian.AppendUint16(b, 0x0800)
		b = appendIPv4(b, remote, local, protocol, 0)
		binary.BigEndian.PutUint16(b[ethernetLen+2:], uint16(ipv4Len+length))
	} else {
		b = binary.BigEndian.AppendUint16(b, 0x86dd)
		b = appendIPv6(b, remote, local, protocol, 0)
		binary.BigEndian.PutUint16(b[ethernetLen+4:], uint16(length))
	}
	return append(append(b, udp...), payload...)
}

func flowOf(t *pseudowire.Tunnel) bpf.Flow {
	if overIP(t) {
		return bpf.NewFlowIP(t.Local.Addr(), t.Remote.Addr())
	}
	return bpf.NewFlow(t.Local, t.Remote)
}

func sameAddress(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}
