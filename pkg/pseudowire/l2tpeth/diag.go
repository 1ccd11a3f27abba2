package l2tpeth

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// The part of sock_diag(7) that is used (linux/inet_diag.h).
const (
	diagTOS      = 5 // u8
	diagTClass   = 6 // u8
	diagMsgSize  = 72
	diagReqSize  = 56
	diagByFamily = 20
)

// dscp is how the kernel marks what it sends from a tunnel's socket. A process that asks
// the socket holds it for that moment on kernels before 6.7, which may cost a packet; the
// one that lists sockets does not. Over IP there is no such list.
func (k kernelSockets) dscp(t pseudowire.Tunnel) (uint8, error) {
	if t.Encapsulation == l2tpv3.UDP {
		if dscp, err := k.listedDSCP(t); err == nil {
			return dscp, nil
		}
	}
	level, option := unix.IPPROTO_IP, unix.IP_TOS
	if six(t) {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	tos, err := unix.GetsockoptInt(t.Socket, level, option)
	return uint8(tos >> 2), err
}

func (k kernelSockets) listedDSCP(t pseudowire.Tunnel) (uint8, error) {
	cookie, err := k.identity(t.Socket)
	if err != nil {
		return 0, err
	}
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	answer, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: diagByFamily, Flags: netlink.Request},
		Data:   diagRequest(t.Local, t.Remote, cookie),
	})
	if err != nil {
		return 0, err
	}
	return diagDSCP(answer, six(t))
}

// diagRequest is a struct inet_diag_req_v2 for one UDP socket. It is looked up as for a
// packet that arrives: from the remote address.
func diagRequest(local, remote netip.AddrPort, cookie uint64) []byte {
	b := make([]byte, diagReqSize)
	b[0] = unix.AF_INET
	if remote.Addr().Unmap().Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = unix.IPPROTO_UDP
	b[2] = 1<<(diagTOS-1) | 1<<(diagTClass-1)
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // in any state
	binary.BigEndian.PutUint16(b[8:], remote.Port())
	binary.BigEndian.PutUint16(b[10:], local.Port())
	copy(b[12:28], remote.Addr().Unmap().AsSlice())
	copy(b[28:44], local.Addr().Unmap().AsSlice())
	binary.NativeEndian.PutUint32(b[48:], uint32(cookie))
	binary.NativeEndian.PutUint32(b[52:], uint32(cookie>>32))
	return b
}

func diagDSCP(answer []netlink.Message, six bool) (uint8, error) {
	if len(answer) != 1 || len(answer[0].Data) < diagMsgSize {
		return 0, fmt.Errorf("the list of sockets has no such one")
	}
	d, err := netlink.NewAttributeDecoder(answer[0].Data[diagMsgSize:])
	if err != nil {
		return 0, err
	}
	want := uint16(diagTOS)
	if six {
		want = diagTClass
	}
	for d.Next() {
		if d.Type() == want {
			return d.Uint8() >> 2, nil
		}
	}
	if err := d.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the list of sockets has no class of traffic")
}
