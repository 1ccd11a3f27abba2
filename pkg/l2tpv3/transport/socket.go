package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

const (
	// controlTOS marks control messages as network control: CS6 (RFC 2474), not ECN capable.
	controlTOS = 48 << 2
	// receiveBuffer is what each socket may hold: some hundred full-size datagrams.
	receiveBuffer = 1 << 20
	// pendingErrors is how many errors of earlier packets (ICMP) one send reads off.
	pendingErrors = 4
)

// socket is one socket, of UDP or of protocol 115, and the goroutine that reads it.
type socket struct {
	encapsulation l2tpv3.Encapsulation
	conn          interface {
		io.Closer
		syscall.Conn
	}
	raw syscall.RawConn
	// local has port 0 over IP.
	local netip.AddrPort
	// connection is the local control connection ID; 0 for a listener, and over IP.
	connection uint32
	// peer is who the connection is with; nil for a listener, and over IP.
	peer atomic.Pointer[peer]
	// connected is the owner's own.
	connected bool
	// lent says that the kernel may have made a tunnel of it, see Transport.Socket.
	lent bool
	// vrf is the name of that which it is bound to, empty for none.
	vrf string
	// hears says that errors come by themselves, see hear; trouble is the last.
	hears   bool
	trouble atomic.Pointer[Trouble]
	closing atomic.Bool
	// keep says that somebody else goes on with it.
	keep atomic.Bool
	done chan struct{} // closed when the reader has ended
}

// peer is the remote end of a connection. As long as it is not settled, its
// port is the one asked and another may answer.
type peer struct {
	addr    netip.AddrPort
	settled bool
}

// from reports whether a datagram from a comes from the peer.
func (p *peer) from(a netip.AddrPort) bool {
	if p == nil {
		return false
	}
	if p.settled {
		return a == p.addr
	}
	return a.Addr() == p.addr.Addr()
}

// openSocket makes a socket bound to local. Shared ones get past others of ours
// on the same port, see Transport.share.
func openSocket(local netip.AddrPort, shared, zeroChecksum bool) (*socket, error) {
	return inVRF(local.Addr(), func(vrf string) (*socket, error) { return openUDP(local, vrf, shared, zeroChecksum) })
}

func openUDP(local netip.AddrPort, vrf string, shared, zeroChecksum bool) (*socket, error) {
	network := "udp4"
	if local.Addr().Is6() {
		network = "udp6" // the net package sets IPV6_V6ONLY
	}
	configure := func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = errors.Join(bindTo(int(fd), vrf), setOptions(int(fd), local.Addr().Is6(), shared, zeroChecksum))
		})
		return errors.Join(err, failed)
	}
	packets, err := (&net.ListenConfig{Control: configure}).ListenPacket(context.Background(), network, local.String())
	if err != nil {
		return nil, err
	}
	conn := packets.(*net.UDPConn)
	s := &socket{encapsulation: l2tpv3.UDP, conn: conn, vrf: vrf, done: make(chan struct{})}
	s.local = unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if s.raw, err = conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func setOptions(fd int, six, shared, zeroChecksum bool) error {
	if shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	setReceiveBuffer(fd, receiveBuffer)
	if err := fragment(fd, six); err != nil || !six || !zeroChecksum {
		return err
	}
	// RFC 6935, Section 5: a zero checksum is accepted on ports where both ends
	// are set to use it. These sockets have one known peer, and its data may come so.
	return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1)
}

// setReceiveBuffer goes beyond the system's limit where we may, up to it where
// not: an optimisation either way.
func setReceiveBuffer(fd, octets int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, octets) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, octets)
	}
}

// fragment has a control message that does not fit the path fragmented, not refused
// (RFC 3931, Section 4.1.4 is about data; a message cannot be made smaller).
func fragment(fd int, six bool) error {
	if six {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
}

// sendWhole sends what is not to be fragmented, whatever routers have said of the path
// (RFC 8899, Section 3, item 2). Over IPv6 no router fragments, and what is no longer than the
// kernel takes the path's MTU for leaves whole from a tunnel's socket, too, which is not to be worked with.
func (s *socket) sendWhole(send func() error) error {
	if s.local.Addr().Is6() && s.lent {
		return send()
	}
	level, option, probe := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if s.local.Addr().Is6() {
		level, option, probe = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	before := 0
	err := s.control(func(fd int) (err error) {
		if before, err = unix.GetsockoptInt(fd, level, option); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, level, option, probe)
	})
	if err != nil {
		return err
	}
	err = send()
	return errors.Join(err, s.control(func(fd int) error { return unix.SetsockoptInt(fd, level, option, before) }))
}

// setShared lets others of ours bind to the socket's address and port, or not.
func (s *socket) setShared(on bool) error {
	value := 0
	if on {
		value = 1
	}
	return s.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, value)
	})
}

// connect settles the peer's address and port: the kernel then prefers this
// socket for the peer's datagrams and keeps others' away.
func (s *socket) connect(remote netip.AddrPort) error {
	if s.connected && s.peer.Load().addr == remote {
		return nil
	}
	to, err := sockaddr(remote)
	if err != nil {
		return err
	}
	if err := s.control(func(fd int) error { return unix.Connect(fd, to) }); err != nil {
		return err
	}
	s.peer.Store(&peer{addr: remote, settled: true})
	s.connected = true
	return nil
}

// hear has the socket told of what ICMP says of its packets before it is connected, too:
// that nothing listens where the peer should, usually. It is told to people, and decides
// nothing: anybody can forge it.
func (s *socket) hear() {
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if s.local.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	s.hears = s.control(func(fd int) error { return unix.SetsockoptInt(fd, level, option, 1) }) == nil
}

// send sends one datagram without ever waiting: what the socket's buffer does
// not take is lost, as on the wire.
func (s *socket) send(remote netip.AddrPort, payload []byte) (pending int, err error) {
	var to unix.Sockaddr
	if !s.connected || s.peer.Load().addr != remote {
		if to, err = sockaddr(remote); err != nil {
			return 0, err
		}
	}
	if s.encapsulation == l2tpv3.IP {
		buffer := buffers.Get().(*[]byte)
		defer buffers.Put(buffer)
		payload = append(l2tpv3.AppendControlPrefix((*buffer)[:0], l2tpv3.IP), payload...)
	}
	// The class goes with each message and not onto the socket: the kernel's
	// l2tp would mark user traffic with the socket's.
	class := controlTOS4
	if s.local.Addr().Is6() {
		class = controlTOS6
	}
	for {
		err = s.control(func(fd int) error {
			defer s.withoutClass(fd)()
			return unix.Sendmsg(fd, payload, class, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
		// A send reports what an earlier packet met (RFC 1122, Section 4.1.3.3)
		// and then has sent nothing itself.
		if !isPending(err) || pending == pendingErrors {
			if s.hears {
				pending = 0 // they are in the queue, too
			}
			return pending, err
		}
		pending++
	}
}

// withoutClass has what is sent until the returned function is called be in no class of the
// underlay's qdisc, where a datapath has put the socket into one (SO_PRIORITY): control messages
// do not wait behind data. With IPv4 the kernel takes the priority from the IP_TOS that comes with a
// message; with IPv6 it does not. User frames of that moment overtake others.
func (s *socket) withoutClass(fd int) (restore func()) {
	priority := 0
	if s.local.Addr().Is6() {
		priority, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY)
	}
	if priority == 0 || unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 0) != nil {
		return func() {}
	}
	return func() { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, priority) }
}

// control runs f with the descriptor.
func (s *socket) control(f func(fd int) error) error {
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// close ends the socket and its reader. What had already arrived is passed on, unless the
// socket is kept.
func (s *socket) close(deliver func(*socket, netip.AddrPort, []byte)) {
	s.closing.Store(true)
	_ = s.control(func(fd int) error {
		if s.keep.Load() {
			return nil
		}
		s.drain(fd, receiveBuffer/512, deliver)
		return nil
	})
	s.conn.Close()
	<-s.done
}

// read passes on what arrives until the socket is closed.
func (s *socket) read(deliver func(*socket, netip.AddrPort, []byte), failed func(error)) {
	defer close(s.done)
	// The only error is that of a closed socket.
	_ = s.raw.Read(func(fd uintptr) bool {
		for !s.closing.Load() {
			if s.hears {
				takeErrors(int(fd), failed)
			}
			err := s.drain(int(fd), 64, deliver)
			if err == unix.EAGAIN {
				if s.encapsulation == l2tpv3.IP && s.local.Addr().Is6() {
					takeErrors(int(fd), func(error) {})
				}
				return false
			}
			if err != nil && err != unix.EINTR {
				// Errors of this kind are read off one by one (ICMP): the
				// connection's fate is for its timers to decide.
				if !s.hears || !isPending(err) {
					failed(err)
				}
				if !isPending(err) {
					return false
				}
			}
		}
		return true
	})
}

// buffers for one datagram of any size.
var buffers = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}

// drain passes on up to n datagrams without waiting.
func (s *socket) drain(fd, n int, deliver func(*socket, netip.AddrPort, []byte)) error {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for range n {
		size, from, err := unix.Recvfrom(fd, *buffer, unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		deliver(s, addrPort(from, s.local.Addr().Zone()), s.withoutHeader((*buffer)[:size]))
	}
	return nil
}

// takeErrors empties the queue of errors of a socket that has one. What is in it counts
// towards what the socket may hold, and is there once for each ICMP message, while
// reads and sends may report the same one again.
func takeErrors(fd int, failed func(error)) {
	var oob [256]byte
	for range receiveBuffer / 512 {
		_, n, _, _, err := unix.Recvmsg(fd, nil, oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if err := fromICMP(oob[:n]); err != nil {
			failed(err)
		}
	}
}

// fromICMP is the error in the ancillary data that comes from the queue (struct
// sock_extended_err: errno, origin), nil if ICMP has not made it.
func fromICMP(oob []byte) error {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range all {
		wanted := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !wanted || len(m.Data) < 5 {
			continue
		}
		if origin := m.Data[4]; origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6 {
			return unix.Errno(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return nil
}

// isPending reports whether err is what an ICMP message made of an earlier packet.
func isPending(err error) bool {
	switch err {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EPROTO, unix.EACCES, unix.EMSGSIZE:
		return true
	}
	return false
}

// path is a datagram's way as the control machine has it.
func (s *socket) path(remote netip.AddrPort) control.Path {
	return control.Path{Encapsulation: s.encapsulation, Local: s.local, Remote: remote}
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Unmap().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}, nil
	}
	if !a.Addr().Is6() {
		return nil, unix.EDESTADDRREQ
	}
	to := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		link, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		to.ZoneId = uint32(link.Index)
	}
	return to, nil
}

// addrPort reads an address that the system gives. A socket that is bound within
// a zone hears of no other: it is named, and only elsewhere looked up.
func addrPort(a unix.Sockaddr, zone string) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(zoned(a.Addr, a.ZoneId, zone), uint16(a.Port))
	// On any socket of protocol 115 the unix package takes addresses for the
	// kernel's L2TP's. A raw one's begin with the same fields.
	case *unix.SockaddrL2TPIP:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), 0)
	case *unix.SockaddrL2TPIP6:
		return netip.AddrPortFrom(zoned(a.Addr, a.ZoneId, zone), 0)
	}
	return netip.AddrPort{}
}

func zoned(a [16]byte, id uint32, zone string) netip.Addr {
	addr := netip.AddrFrom16(a).Unmap()
	switch {
	case id == 0:
		return addr
	case zone != "":
		return addr.WithZone(zone)
	}
	if link, err := net.InterfaceByIndex(int(id)); err == nil {
		return addr.WithZone(link.Name)
	}
	return addr
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// controlTOS4 and controlTOS6 are control messages (cmsg) with controlTOS.
var (
	controlTOS4 = tosMessage(unix.IPPROTO_IP, unix.IP_TOS)
	controlTOS6 = tosMessage(unix.IPPROTO_IPV6, unix.IPV6_TCLASS)
)

func tosMessage(level, kind int32) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], controlTOS)
	return b
}
