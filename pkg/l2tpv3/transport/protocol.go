package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// rawBuffer is what each raw socket may hold, each way: all connections of an
// address share it.
const rawBuffer = 4 << 20

// protocolSockets carry protocol 115 on one local address (RFC 3931, Section
// 4.1.1), for all its connections and for strangers.
type protocolSockets struct {
	addr    netip.Addr
	control *socket
	// data is nil while no data is wanted.
	data *socket
	// claim is what tells a second daemon that the address is taken: raw sockets
	// share everything without a word.
	claim int
	// users are the connections, and the listener if there is one.
	users     int
	listening bool
}

// dataSessions are the sessions whose data messages over IP are wanted.
type dataSessions struct {
	// restricted is false for all sessions.
	restricted bool
	// ids are in order.
	ids []uint32
}

func (d dataSessions) any() bool { return !d.restricted || len(d.ids) > 0 }

// SetDataSessions says of which sessions data messages over IP are wanted, by
// local session ID, all of them; until it is called, of every one. They are
// those of a datapath that leaves to the stack what it does not take, outer
// fragments above all. Where the kernel's L2TP carries sessions, the sockets get
// a copy of each of their packets too, and only here is it known which are whose.
//
// Filters in the kernel drop what is not wanted, uncounted. They take some
// hundred sessions, depending on net.core.optmem_max; of more, data of every
// session is passed on. Errors are *Error, joined.
func (t *Transport) SetDataSessions(ids []uint32) error {
	if t.closed {
		return ErrClosed
	}
	wanted := dataSessions{restricted: true, ids: slices.Clone(ids)}
	slices.Sort(wanted.ids)
	wanted.ids = slices.Compact(wanted.ids)
	if len(wanted.ids) > 0 && wanted.ids[0] == 0 {
		wanted.ids = wanted.ids[1:] // that is control, which is not data of anybody's
	}
	if t.data.restricted && slices.Equal(t.data.ids, wanted.ids) {
		return nil
	}
	t.data = wanted
	var failed []error
	for _, p := range t.protocol {
		if err := t.setData(p); err != nil {
			failed = append(failed, &Error{Op: "listen", Local: netip.AddrPortFrom(p.addr, 0), Err: explain(err)})
		}
	}
	return errors.Join(failed...)
}

// setData makes the data socket what is wanted.
func (t *Transport) setData(p *protocolSockets) error {
	filter := func(fd int) error { return attachSessions(fd, p.addr.Is6(), t.data) }
	switch {
	case !t.data.any():
		if p.data != nil {
			t.end(p.data)
			p.data = nil
		}
		return nil
	case p.data != nil:
		return p.data.control(filter)
	}
	s, err := openRaw(p.addr, filter)
	if err != nil {
		return err
	}
	p.data = s
	t.begin(s)
	return nil
}

// listenIP gives an address its sockets, for as long as SetEndpoints names it.
func (t *Transport) listenIP(addr netip.Addr) error {
	if p := t.protocol[addr]; p != nil && p.listening {
		return nil
	}
	p, err := t.join(addr)
	if err != nil {
		return err
	}
	p.listening = true
	return nil
}

// establishIP joins the connection to its address's sockets.
func (t *Transport) establishIP(c *connection) error {
	if c.socket == nil {
		addr, err := c.address()
		if err != nil {
			return c.failed("open", err)
		}
		p, err := t.join(addr)
		if err != nil {
			return c.failed("open", err)
		}
		c.socket, c.Local = p.control, netip.AddrPortFrom(addr, 0)
	}
	t.peers.set(c.Connection, pair{c.Local.Addr(), c.Remote.Addr().Unmap()})
	return nil
}

// releaseIP takes the connection from its address's sockets.
func (t *Transport) releaseIP(c *connection) {
	t.peers.remove(c.Connection)
	t.leave(t.protocol[c.Local.Addr()])
}

// join gives the address's sockets one more user.
func (t *Transport) join(addr netip.Addr) (*protocolSockets, error) {
	p := t.protocol[addr]
	if p == nil {
		var err error
		if p, err = t.openProtocol(addr); err != nil {
			return nil, err
		}
		t.protocol[addr] = p
	}
	p.users++
	return p, nil
}

// leave ends the address's sockets with their last user.
func (t *Transport) leave(p *protocolSockets) {
	if p.users--; p.users > 0 {
		return
	}
	delete(t.protocol, p.addr)
	t.end(p.control)
	if p.data != nil {
		t.end(p.data)
	}
	unix.Close(p.claim)
}

func (t *Transport) openProtocol(addr netip.Addr) (*protocolSockets, error) {
	control, err := openRaw(addr, func(fd int) error {
		return errors.Join(attach(fd, controlFilter(addr.Is6())), learnPaths(fd, addr.Is6()))
	})
	if err != nil {
		return nil, err
	}
	claimed, err := claim(addr)
	if err != nil {
		control.conn.Close()
		return nil, err
	}
	p := &protocolSockets{addr: addr, control: control, claim: claimed}
	if err := t.setData(p); err != nil {
		control.conn.Close()
		unix.Close(claimed)
		return nil, err
	}
	t.begin(control)
	return p, nil
}

// claim takes a name of the network namespace, in the abstract, for as long as
// the descriptor is open: whoever comes second is refused.
func claim(addr netip.Addr) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@l2tpv3/ip/" + addr.String()}); err != nil {
		unix.Close(fd)
		return -1, explainAs(err, map[unix.Errno]error{unix.EADDRINUSE: ErrProtocolInUse})
	}
	return fd, nil
}

// openRaw makes a raw socket bound to an address, with its filter.
func openRaw(local netip.Addr, filter func(fd int) error) (*socket, error) {
	return inVRF(local, func(vrf string) (*socket, error) { return openRawIn(local, vrf, filter) })
}

func openRawIn(local netip.Addr, vrf string, filter func(fd int) error) (*socket, error) {
	network := "ip4:"
	if local.Is6() {
		network = "ip6:"
	}
	configure := func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = errors.Join(bindTo(int(fd), vrf), setRawOptions(int(fd), local.Is6())) })
		return errors.Join(err, failed)
	}
	conn, err := (&net.ListenConfig{Control: configure}).ListenPacket(
		context.Background(), network+strconv.Itoa(l2tpv3.Protocol), local.String())
	if err != nil {
		return nil, explainAs(err, map[unix.Errno]error{
			unix.EPERM: ErrNotPermitted, unix.EACCES: ErrNotPermitted, unix.EADDRNOTAVAIL: ErrAddressNotPresent,
		})
	}
	s := &socket{
		encapsulation: l2tpv3.IP, conn: conn.(*net.IPConn),
		local: netip.AddrPortFrom(local, 0), done: make(chan struct{}),
	}
	if s.raw, err = s.conn.SyscallConn(); err == nil {
		err = s.control(func(fd int) error {
			// What came before it was bound may have gone to any address.
			for b := make([]byte, 1); ; {
				if _, err := unix.Read(fd, b); err != nil && err != unix.EINTR {
					return filter(fd)
				}
			}
		})
	}
	if err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

func setRawOptions(fd int, six bool) error {
	if err := attach(fd, []unix.SockFilter{reject}); err != nil {
		return err
	}
	setReceiveBuffer(fd, rawBuffer)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, rawBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, rawBuffer)
	}
	return fragment(fd, six)
}

// learnPaths has the kernel note what routers say of paths to the peers. Without
// being asked it does so for UDP, and for protocol 115 over IPv4, but for raw sockets
// of IPv6 only where they take the errors themselves.
func learnPaths(fd int, six bool) error {
	if !six {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
}

// withoutHeader is what follows the IPv4 header, which raw sockets leave in place
// (IPv6 ones do not).
func (s *socket) withoutHeader(b []byte) []byte {
	if s.encapsulation != l2tpv3.IP || s.local.Addr().Is6() || len(b) == 0 {
		return b
	}
	return b[min(int(b[0]&0xf)*4, len(b)):]
}

// classifyIP says what an IP payload is, takes the four octets off that precede
// a control message, and finds its connection. It is false for one that is too short.
func (t *Transport) classifyIP(p *Packet, b []byte) (payload []byte, fromPeer, ok bool) {
	if len(b) < 4 {
		return nil, false, false
	}
	payload, p.Control = l2tpv3.ControlPayload(b, l2tpv3.IP)
	between := pair{p.Path.Local.Addr(), p.Path.Remote.Addr()}
	switch {
	case !p.Control:
		return payload, t.peers.know(between), true
	case len(payload) < 2:
		return nil, false, false
	case len(payload) >= 8:
		// Section 3.2.1: after flags, version and length, the ID that we assigned.
		if id := binary.BigEndian.Uint32(payload[4:]); t.peers.has(id, between) {
			p.Connection, fromPeer = id, true
		}
	}
	return payload, fromPeer, true
}

// pair are the addresses of both ends.
type pair struct{ local, remote netip.Addr }

// directory knows the connections over IP: the readers look into it.
type directory struct {
	mu          sync.RWMutex
	connections map[uint32]pair
	// pairs counts connections.
	pairs map[pair]int
}

func (d *directory) set(id uint32, p pair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.connections[id] == p {
		return
	}
	d.forget(id)
	d.connections[id] = p
	d.pairs[p]++
}

func (d *directory) remove(id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(id)
}

// forget needs the lock.
func (d *directory) forget(id uint32) {
	p, ok := d.connections[id]
	if !ok {
		return
	}
	delete(d.connections, id)
	if d.pairs[p]--; d.pairs[p] == 0 {
		delete(d.pairs, p)
	}
}

// has reports whether the connection is one between these addresses.
func (d *directory) has(id uint32, p pair) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	known, ok := d.connections[id]
	return ok && known == p
}

// know reports whether there is a connection between these addresses.
func (d *directory) know(p pair) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.pairs[p] > 0
}
