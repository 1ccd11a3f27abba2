package transport

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/underlay"
)

// PathMTU is the longest packet to the connection's peer, IP header included, that
// is not fragmented, as far as this host knows: what the link takes that the routing
// table chooses, or less if a router has said so (ICMP, RFC 1191 and RFC 8201). The
// kernel forgets that after ten minutes, unless told again.
//
// Routers' messages can be forged, and no event comes with them: it is for the
// owner to look from time to time, and to leave them out (heed is false) where the user
// has said what the path carries. It is below 1280 only where the link or the route is. It is 0
// for connections without a socket, and without a route.
func (t *Transport) PathMTU(id uint32, heed bool) int {
	c := t.connections[id]
	if c == nil || c.socket == nil {
		return 0
	}
	local, remote := c.Local.Addr(), c.Remote.Addr()
	source, mtu, err := route(local, remote)
	if err != nil {
		return 0
	}
	if heed && mtu >= underlay.LeastMTU {
		return mtu
	}
	way, _, err := underlay.PathMTU(new(netlink.Handle), source, remote)
	switch {
	case err != nil || way == underlay.MTU{}:
		return max(mtu, underlay.LeastMTU)
	case heed:
		return max(mtu, min(way.Given, underlay.LeastMTU))
	}
	return way.Given
}

// route asks the routing table about packets to remote: the source that they have,
// which is local if that is valid, and the longest that the path takes. The
// connection's own socket would know only what it found when it last looked.
func route(local, remote netip.Addr) (source netip.Addr, mtu int, err error) {
	remote = remote.Unmap()
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if !local.IsValid() {
		local = netip.IPv4Unspecified()
	}
	if remote.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
		if local == netip.IPv4Unspecified() {
			local = netip.IPv6Unspecified()
		}
	}
	s, err := openSocket(netip.AddrPortFrom(local, 0), false, false)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer s.conn.Close()
	// UDP sends nothing to connect.
	if err := s.connect(netip.AddrPortFrom(remote, l2tpv3.Port)); err != nil {
		return netip.Addr{}, 0, err
	}
	var name unix.Sockaddr
	err = s.control(func(fd int) (err error) {
		if name, err = unix.Getsockname(fd); err != nil {
			return err
		}
		mtu, err = unix.GetsockoptInt(fd, level, option)
		return err
	})
	return addrPort(name, "").Addr(), mtu, err
}

// present says whether the host has the address, and may use it. One that the routing table has
// chosen is in no VRF.
func present(addr netip.Addr) (bool, error) {
	s, err := openUDP(netip.AddrPortFrom(addr, 0), "", false, false)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, s.conn.Close()
}
