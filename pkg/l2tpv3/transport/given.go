package transport

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/vrf"
)

// givenMTU is the longest packet that a link takes and a route allows, as they were set up:
// without what routers have said of the path.
func givenMTU(local, remote netip.Addr) (int, error) {
	in, err := vrf.Of(local)
	if err != nil {
		return 0, err
	}
	way, err := lookUpRoute(local, remote, in.Index, 0)
	if err != nil {
		return 0, err
	}
	link, err := net.InterfaceByIndex(int(way.link))
	if err != nil {
		return 0, err
	}
	// The route itself, past what is noted of this peer.
	way, err = lookUpRoute(local, remote, in.Index, unix.RTM_F_FIB_MATCH)
	if err != nil {
		return 0, err
	}
	return min(link.MTU, cmp.Or(int(way.mtu), link.MTU)), nil
}

// found is what the kernel says of a route: its link, and its MTU if it has one.
type found struct{ link, mtu uint32 }

func lookUpRoute(local, remote netip.Addr, vrf int, flags uint32) (f found, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return found{}, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, routeRequest(local, remote, vrf, flags), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return found{}, err
	}
	b := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return found{}, err
	}
	messages, err := syscall.ParseNetlinkMessage(b[:n])
	if err != nil {
		return found{}, err
	}
	for i := range messages {
		m := &messages[i]
		switch m.Header.Type {
		case unix.NLMSG_ERROR:
			return found{}, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case unix.RTM_NEWROUTE:
			attrs, err := syscall.ParseNetlinkRouteAttr(m)
			if err != nil {
				return found{}, err
			}
			for _, a := range attrs {
				switch a.Attr.Type {
				case unix.RTA_OIF:
					f.link = binary.NativeEndian.Uint32(a.Value)
				case unix.RTA_METRICS:
					f.mtu = mtuMetric(a.Value)
				}
			}
		}
	}
	return f, nil
}

// mtuMetric is RTAX_MTU among a route's metrics.
func mtuMetric(metrics []byte) uint32 {
	for attribute, value := range attributes(metrics) {
		if attribute == unix.RTAX_MTU && len(value) >= 4 {
			return binary.NativeEndian.Uint32(value)
		}
	}
	return 0
}

// routeRequest is RTM_GETROUTE: struct nlmsghdr, struct rtmsg, attributes.
func routeRequest(local, remote netip.Addr, vrf int, flags uint32) []byte {
	family := byte(unix.AF_INET6)
	if remote.Is4() {
		family = unix.AF_INET
	}
	bits := byte(remote.BitLen())
	rtmsg := []byte{family, bits, bits, 0, 0, 0, 0, 0}
	rtmsg = binary.NativeEndian.AppendUint32(rtmsg, flags)
	attrs := routeAttr(nil, unix.RTA_DST, remote.AsSlice())
	attrs = routeAttr(attrs, unix.RTA_SRC, local.Unmap().AsSlice())
	if vrf != 0 {
		attrs = routeAttr(attrs, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(vrf)))
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(rtmsg)+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_GETROUTE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence number and port ID
	return append(append(b, rtmsg...), attrs...)
}

func routeAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, value...) // addresses and numbers are of whole words
}

// attributes are those that are nested in another.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) || !yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
