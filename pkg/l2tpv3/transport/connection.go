package transport

import (
	"net/netip"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// connection is what the owner asked for, and what there is of it.
type connection struct {
	ConnectionState
	// socket is what its messages leave from: over UDP its own, over IP that of
	// all connections of the local address.
	socket *socket
	// kernel is the socket of the kernel's L2TP over IP, -1 for none; see Transport.Socket.
	kernel int
	// kept says that the Keeper has the socket.
	kept bool
}

// add makes a connection that has no sockets yet.
func (t *Transport) add(state ConnectionState) *connection {
	if addr := state.Local.Addr(); !addr.IsValid() || addr.IsUnspecified() {
		state.Dynamic = true
	}
	c := &connection{ConnectionState: state, kernel: -1}
	t.connections[c.Connection] = c
	return c
}

// Connect settles the connection's peer. Over UDP its socket is connected: the
// initiator's own, or for a responder a new one on port 1701. Over IP packets
// with its ID are its own from now on. After an error (an *Error) the
// connection goes on without, and Refresh tries again.
func (t *Transport) Connect(m control.Connected) error {
	if t.closed {
		return ErrClosed
	}
	if !supported(m.Path.Encapsulation) {
		return &Error{Op: "connect", Connection: m.Connection, Local: m.Path.Local, Remote: m.Path.Remote, Err: ErrEncapsulation}
	}
	c := t.connections[m.Connection]
	if c == nil {
		c = t.add(ConnectionState{
			Connection: m.Connection, Initiator: m.Initiator,
			Encapsulation: m.Path.Encapsulation, Local: unmap(m.Path.Local),
		})
	}
	if remote := unmap(m.Path.Remote); c.Remote != remote {
		t.closeKernel(c)
		c.Remote = remote
	}
	c.Connected = true
	return t.establish(c)
}

func supported(e l2tpv3.Encapsulation) bool { return e == l2tpv3.UDP || e == l2tpv3.IP }

// establish makes the connection's sockets what its state says. Errors are *Error.
func (t *Transport) establish(c *connection) error {
	if err := t.follow(c); err != nil {
		return c.failed("open", err)
	}
	if c.Encapsulation == l2tpv3.IP {
		return t.establishIP(c)
	}
	if t.adopt(c); c.socket == nil {
		local, err := c.bindTo()
		if err != nil {
			return c.failed("open", err)
		}
		s, err := t.openConnection(c, local)
		if err != nil {
			return c.failed("open", err)
		}
		s.connection, c.socket, c.Local = c.Connection, s, s.local
		s.peer.Store(&peer{addr: c.Remote, settled: c.Connected})
		t.begin(s)
	}
	if !c.Connected {
		return nil
	}
	err := c.socket.connect(c.Remote)
	if err == nil {
		return nil
	}
	if !c.Initiator {
		// Unconnected, it would stand before the listener for everybody.
		t.endSocket(c)
	}
	return c.failed("connect", err)
}

func (c *connection) failed(op string, err error) error {
	return &Error{Op: op, Connection: c.Connection, Local: c.Local, Remote: c.Remote, Err: explain(err)}
}

// address is the connection's local address: the one it was given, or the one
// that the routing table chooses. One of IPv6 that is of the link only is none, unless
// the peer's is, too: no router takes packets on from there, a route without a router need
// not mean that the peer is on the link (as over PPP), and a connection stays where it
// began, while most hosts that have no other address are about to get one. In IPv4 such
// an address (RFC 3927) is one like others: providers number links with them.
func (c *connection) address() (netip.Addr, error) {
	if addr := c.Local.Addr().Unmap(); addr.IsValid() && !addr.IsUnspecified() {
		return addr, nil
	}
	addr, _, err := route(netip.Addr{}, c.Remote.Addr())
	if err == nil && addr.Is6() && addr.IsLinkLocalUnicast() && !c.Remote.Addr().IsLinkLocalUnicast() {
		return netip.Addr{}, ErrAddressNotPresent
	}
	return addr, err
}

// follow gives up the sockets of an attempt whose address the routing table chose
// and that has gone since: another one is to be chosen. The address of a connection
// whose peer is settled is what the peer knows it by, and stays.
func (t *Transport) follow(c *connection) error {
	addr := c.Local.Addr().Unmap()
	if !c.Dynamic || !addr.IsValid() || addr.IsUnspecified() {
		return nil
	}
	here, err := present(addr)
	switch {
	case here || err != nil:
		return err
	case c.Connected:
		return ErrAddressNotPresent
	case c.socket != nil:
		t.endSocket(c)
	}
	c.Local = netip.AddrPort{}
	return nil
}

// endSocket takes the connection off its socket.
func (t *Transport) endSocket(c *connection) {
	switch {
	case c.socket == nil:
	case c.Encapsulation == l2tpv3.IP:
		t.releaseIP(c)
	default:
		t.forget(c)
		if t.closed && c.kept {
			c.socket.keep.Store(true)
		}
		t.end(c.socket)
	}
	c.socket = nil
}

// bindTo is where the connection's socket is to be bound. RFC 3931, Section
// 4.1.2.2: the initiator picks an available port, the responder uses 1701, and
// both keep them for the life of the connection.
func (c *connection) bindTo() (netip.AddrPort, error) {
	addr, err := c.address()
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := c.Local.Port()
	if port == 0 && !c.Initiator {
		port = l2tpv3.Port
	}
	return netip.AddrPortFrom(addr, port), nil
}

// openConnection opens a connection's socket. A responder's shares its address
// and port with the listener and the other connections', which the kernel allows
// when all of them do; the listener does for this moment only.
func (t *Transport) openConnection(c *connection, local netip.AddrPort) (*socket, error) {
	if c.Initiator {
		s, err := openSocket(local, false, true)
		if err == nil {
			s.hear()
		}
		return s, err
	}
	if listener := t.listeners[local.Addr()]; listener != nil {
		if err := listener.setShared(true); err != nil {
			return nil, err
		}
		defer listener.setShared(false)
	}
	return openSocket(local, true, true)
}

// Release closes what the connection has of its own; unknown connections are no matter.
func (t *Transport) Release(id uint32) {
	c := t.connections[id]
	if c == nil {
		return
	}
	delete(t.connections, id)
	t.closeKernel(c)
	t.endSocket(c)
}

// Path gives a connection's local and remote address and port (0 over IP). It is
// false as long as it has no socket: never asked for, or not to be opened.
func (t *Transport) Path(id uint32) (local, remote netip.AddrPort, ok bool) {
	c := t.connections[id]
	if c == nil || c.socket == nil {
		return netip.AddrPort{}, netip.AddrPort{}, false
	}
	return c.Local, c.Remote, true
}

// Socket gives the descriptor of a socket with which the kernel's L2TP can carry
// the connection's sessions. It is valid until Release or Close, remains the
// Transport's, and its file status flags must not be changed.
//
// Over UDP it is the connection's connected socket. Over IP it is one of
// IPPROTO_L2TP, bound to both addresses and the connection's ID, made at the
// first call, so that only connections whose sessions the kernel carries have
// one; control messages do not use it. The kernel's tunnel and its sessions end
// with it (see SetDataSessions for what such a socket means for all others).
// The Keeper is given it: SaveConnection then says so, and Restore finds it again.
//
// Errors are *Error: ErrUnknownConnection, ErrNotConnected before Connect, and
// over IP ErrNoKernelIP or ErrConnectionIDInUse.
func (t *Transport) Socket(id uint32) (fd int, err error) {
	c := t.connections[id]
	if c == nil || c.socket == nil {
		return -1, &Error{Op: "hand over", Connection: id, Err: ErrUnknownConnection}
	}
	if !c.Connected || c.Encapsulation == l2tpv3.UDP && !c.socket.connected {
		return -1, c.failed("hand over", ErrNotConnected)
	}
	if c.Encapsulation == l2tpv3.IP {
		fd, err = t.openKernel(c)
	} else if err = c.socket.control(func(n int) error { fd = n; return nil }); err != nil {
		err = c.failed("hand over", err)
	} else {
		c.socket.lent = true
	}
	if err != nil {
		return -1, err
	}
	return fd, t.keep(c, fd)
}
