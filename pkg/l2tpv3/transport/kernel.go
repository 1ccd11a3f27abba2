package transport

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// openKernel gives the connection's socket of the kernel's L2TP over IP.
func (t *Transport) openKernel(c *connection) (int, error) {
	if c.kernel >= 0 {
		return c.kernel, nil
	}
	fd, err := kernelSocket(c.Local.Addr(), c.Remote.Addr(), c.Connection)
	if err != nil {
		return -1, c.failed("hand over", err)
	}
	c.kernel = fd
	t.log.Debug("kernel socket opened", "local", c.Local.Addr(), "remote", c.Remote.Addr(), "ccid", c.Connection)
	return fd, nil
}

func (t *Transport) closeKernel(c *connection) {
	if c.kernel < 0 {
		return
	}
	t.forget(c)
	unix.Close(c.kernel)
	c.kernel = -1
	t.log.Debug("kernel socket closed", "local", c.Local.Addr(), "remote", c.Remote.Addr(), "ccid", c.Connection)
}

// kernelSocket makes a socket for a tunnel in the kernel (l2tp_ip, l2tp_ip6). It
// receives nothing: the kernel gives it the connection's control messages too,
// which come by the raw socket as they do without it, and a process that works
// with a tunnel's socket makes the kernel drop the data that it would send
// from it at that moment.
func kernelSocket(local, remote netip.Addr, connection uint32) (fd int, err error) {
	domain := unix.AF_INET
	if local.Is6() {
		domain = unix.AF_INET6
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_L2TP)
	if err != nil {
		return -1, explainAs(err, map[unix.Errno]error{
			unix.EPROTONOSUPPORT: ErrNoKernelIP, unix.ESOCKTNOSUPPORT: ErrNoKernelIP, unix.EAFNOSUPPORT: ErrNoKernelIP,
		})
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err := attach(fd, []unix.SockFilter{reject}); err != nil {
		return fd, err
	}
	if err := fragment(fd, local.Is6()); err != nil {
		return fd, err
	}
	from, err := kernelSockaddr(local, connection)
	if err != nil {
		return fd, err
	}
	// The peer's connection ID is the tunnel's, not the socket's: it is told when
	// the tunnel is made.
	to, err := kernelSockaddr(remote, 0)
	if err != nil {
		return fd, err
	}
	if err := unix.Bind(fd, from); err != nil {
		absent := ErrAddressNotPresent
		if err == unix.EADDRNOTAVAIL && vrfOf(local) != "" {
			absent = ErrNoKernelVRF
		}
		return fd, explainAs(err, map[unix.Errno]error{unix.EADDRINUSE: ErrConnectionIDInUse, unix.EADDRNOTAVAIL: absent})
	}
	return fd, unix.Connect(fd, to)
}

// kernelSockaddr is a struct sockaddr_l2tpip or sockaddr_l2tpip6.
func kernelSockaddr(addr netip.Addr, connection uint32) (unix.Sockaddr, error) {
	if addr.Is4() {
		return &unix.SockaddrL2TPIP{Addr: addr.As4(), ConnId: connection}, nil
	}
	six := &unix.SockaddrL2TPIP6{Addr: addr.As16(), ConnId: connection}
	if zone := addr.Zone(); zone != "" {
		link, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		six.ZoneId = uint32(link.Index)
	}
	return six, nil
}
