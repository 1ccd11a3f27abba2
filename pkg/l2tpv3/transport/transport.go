// Package transport carries L2TPv3 over UDP, IPv4 and IPv6 (RFC 3931, Section
// 4.1.2): the sockets around the control machine.
//
// # Sockets
//
// A listener is bound to a site's address, never to the wildcard, and port 1701.
// The initiator of a connection has a socket with an ephemeral port, which stays
// unconnected until the peer's answer shows which port it uses, and is connected
// to that then. The responder answers from the listener, and has a socket of its
// own, bound to port 1701 and connected to the peer, as soon as the peer is
// settled. The kernel prefers connected sockets, so each connection's packets
// reach its own.
//
// Nothing that arrives is lost in between: what reaches a socket from somebody
// else than its peer (before it is connected) is passed on as a stranger's.
//
// # Ownership
//
// A Transport belongs to one goroutine, its owner, which also takes what arrives
// from Packets. Each socket has a goroutine that reads it and does no more than
// sort what it reads into bounded queues. Only Counters may be called from anywhere.
package transport

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// Options are what a Transport is made with.
type Options struct {
	// Listen are the site's addresses, see Transport.SetListeners.
	Listen []netip.Addr
	// Logger takes what sockets are opened and closed, at debug level; nil is silent.
	Logger *slog.Logger
}

// Packet is one received datagram.
type Packet struct {
	// Connection is the local control connection ID of the connection whose
	// peer sent it to that connection's socket; 0 for everything else.
	Connection uint32
	// Path has the addresses that the datagram really came to and from.
	Path control.Path
	// Payload is the whole UDP payload; the receiver of the Packet owns it.
	Payload []byte
	// Control is the T bit (RFC 3931, Sections 3.2.1 and 4.1.2.1): a control
	// message. Otherwise it is a data message that the datapath did not take by
	// itself: outer fragments put together by the stack, or an unknown session.
	Control bool
}

// Counters of a Transport since it was opened.
type Counters struct {
	ReceivedControl, ReceivedData uint64
	// DroppedControl and DroppedData found their queue full.
	DroppedControl, DroppedData uint64
	// Malformed datagrams are too short for their first two octets.
	Malformed uint64
	// Transmitted datagrams, and those that the system refused.
	Transmitted, TransmitFailed uint64
	// SocketErrors is how often a socket reported what an earlier packet met:
	// port or host unreachable, usually.
	SocketErrors uint64
}

// Transport is the UDP sockets of one LCCE host.
type Transport struct {
	log         *slog.Logger
	wanted      []netip.Addr
	listeners   map[netip.Addr]*socket
	connections map[uint32]*connection
	queue       *queue
	packets     chan Packet
	stop        chan struct{}
	stopped     chan struct{}
	closed      bool

	receivedControl, receivedData, droppedControl, droppedData atomic.Uint64
	malformed, transmitted, transmitFailed, socketErrors       atomic.Uint64
}

// connection is what the owner asked for; socket is what there is of it.
type connection struct {
	ConnectionState
	socket *socket
}

// Open makes a Transport. It fails only with the errors of SetListeners, and
// then the Transport is there all the same, and Refresh tries again.
func Open(o Options) (*Transport, error) {
	t := &Transport{
		log:         o.Logger,
		listeners:   map[netip.Addr]*socket{},
		connections: map[uint32]*connection{},
		queue:       newQueue(),
		packets:     make(chan Packet),
		stop:        make(chan struct{}),
		stopped:     make(chan struct{}),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	go t.dispatch()
	return t, t.SetListeners(o.Listen)
}

// Packets gives what was received: control before data, the peers of
// connections before strangers. It is closed by Close.
func (t *Transport) Packets() <-chan Packet { return t.packets }

// SetListeners says on which addresses there are listeners, all of them. The
// error joins an *Error for each that could not be opened; Refresh tries those again.
func (t *Transport) SetListeners(addrs []netip.Addr) error {
	t.wanted = nil
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(t.wanted, a) {
			t.wanted = append(t.wanted, a)
		}
	}
	for addr, s := range t.listeners {
		if !slices.Contains(t.wanted, addr) {
			delete(t.listeners, addr)
			t.end(s)
		}
	}
	return t.listen()
}

// listen opens the listeners that are wanted and not there.
func (t *Transport) listen() error {
	if t.closed {
		return ErrClosed
	}
	var failed []error
	for _, addr := range t.wanted {
		if t.listeners[addr] != nil {
			continue
		}
		local := netip.AddrPortFrom(addr, l2tpv3.Port)
		s, err := openSocket(local, true, false)
		if err == nil {
			// From here on it is shared only while share lets it: a second
			// daemon on the same address is told that the port is in use.
			err = s.setShared(false)
		}
		if err != nil {
			failed = append(failed, &Error{Op: "listen", Local: local, Err: explain(err)})
			continue
		}
		t.listeners[addr] = s
		t.begin(s)
	}
	return errors.Join(failed...)
}

// Refresh opens what is missing: listeners whose address was not there, sockets
// of connections that could not be opened or connected. The error joins an
// *Error for each that is still missing.
func (t *Transport) Refresh() error {
	failed := []error{t.listen()}
	for _, c := range t.sorted() {
		if c.Connected || c.Initiator {
			failed = append(failed, t.establish(c))
		}
	}
	return errors.Join(failed...)
}

// Transmit sends one datagram, without waiting. An initiator's socket is opened
// if the connection has none; a responder's connection is answered for by the
// listener until Connect. Connection 0 is sent from the socket bound to
// Path.Local. Errors are *Error; the protocol's retransmission makes up for them.
func (t *Transport) Transmit(m control.Transmit) error {
	s, err := t.source(m)
	if err == nil {
		var pending int
		pending, err = s.send(m.Path.Remote, m.Payload)
		t.socketErrors.Add(uint64(pending))
	}
	if err != nil {
		t.transmitFailed.Add(1)
		var typed *Error
		if errors.As(err, &typed) {
			return err
		}
		return &Error{Op: "transmit", Connection: m.Connection, Local: m.Path.Local, Remote: m.Path.Remote, Err: explain(err)}
	}
	t.transmitted.Add(1)
	return nil
}

// source is the socket that m is to be sent from.
func (t *Transport) source(m control.Transmit) (*socket, error) {
	switch {
	case t.closed:
		return nil, ErrClosed
	case m.Path.Encapsulation != l2tpv3.UDP:
		return nil, ErrEncapsulation
	}
	if c := t.connections[m.Connection]; m.Connection != 0 && c != nil {
		if c.socket == nil {
			if err := t.establish(c); err != nil && c.Initiator {
				return nil, err
			}
		}
		if c.socket != nil {
			return c.socket, nil
		}
		return t.bound(c.Local) // the listener, for a responder
	}
	if m.Connection != 0 && m.Initiator {
		c := &connection{ConnectionState: ConnectionState{
			Connection: m.Connection, Initiator: true, Local: m.Path.Local, Remote: m.Path.Remote,
		}}
		if err := t.establish(c); err != nil {
			return nil, err
		}
		t.connections[m.Connection] = c
		return c.socket, nil
	}
	return t.bound(m.Path.Local)
}

// bound finds the socket with a local address and port; port 0 is a listener's.
func (t *Transport) bound(local netip.AddrPort) (*socket, error) {
	local = unmap(local)
	if local.Port() == 0 || local.Port() == l2tpv3.Port {
		if s := t.listeners[local.Addr()]; s != nil {
			return s, nil
		}
	}
	for _, c := range t.connections {
		if c.socket != nil && c.socket.local == local {
			return c.socket, nil
		}
	}
	return nil, ErrNoListener
}

// Connect connects the connection's socket to the settled peer: the initiator's
// own, or for a responder a new one on port 1701. After an error (an *Error) the
// connection goes on without, and Refresh tries again.
func (t *Transport) Connect(m control.Connected) error {
	if t.closed {
		return ErrClosed
	}
	if m.Path.Encapsulation != l2tpv3.UDP {
		return &Error{Op: "connect", Connection: m.Connection, Local: m.Path.Local, Remote: m.Path.Remote, Err: ErrEncapsulation}
	}
	c := t.connections[m.Connection]
	if c == nil {
		c = &connection{ConnectionState: ConnectionState{
			Connection: m.Connection, Initiator: m.Initiator, Local: unmap(m.Path.Local),
		}}
		t.connections[m.Connection] = c
	}
	c.Remote, c.Connected = unmap(m.Path.Remote), true
	return t.establish(c)
}

// establish makes the connection's socket what its state says.
func (t *Transport) establish(c *connection) error {
	fail := func(op string, err error) error {
		return &Error{Op: op, Connection: c.Connection, Local: c.Local, Remote: c.Remote, Err: explain(err)}
	}
	if c.socket == nil {
		local, err := c.bindTo()
		if err != nil {
			return fail("open", err)
		}
		s, err := t.openConnection(c, local)
		if err != nil {
			return fail("open", err)
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
		t.end(c.socket)
		c.socket = nil
	}
	return fail("connect", err)
}

// bindTo is where the connection's socket is to be bound. RFC 3931, Section
// 4.1.2.2: the initiator picks an available port, the responder uses 1701, and
// both keep them for the life of the connection.
func (c *connection) bindTo() (netip.AddrPort, error) {
	addr, port := c.Local.Addr().Unmap(), c.Local.Port()
	if !addr.IsValid() || addr.IsUnspecified() {
		var err error
		if addr, err = sourceFor(c.Remote); err != nil {
			return netip.AddrPort{}, err
		}
	}
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
		return openSocket(local, false, true)
	}
	if listener := t.listeners[local.Addr()]; listener != nil {
		if err := listener.setShared(true); err != nil {
			return nil, err
		}
		defer listener.setShared(false)
	}
	return openSocket(local, true, true)
}

// sourceFor is the address that the routing table gives packets to remote.
func sourceFor(remote netip.AddrPort) (netip.Addr, error) {
	any := netip.IPv4Unspecified()
	if remote.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	s, err := openSocket(netip.AddrPortFrom(any, 0), false, false)
	if err != nil {
		return netip.Addr{}, err
	}
	defer s.conn.Close()
	if err := s.connect(remote); err != nil {
		return netip.Addr{}, err
	}
	var local unix.Sockaddr
	err = s.control(func(fd int) (err error) { local, err = unix.Getsockname(fd); return err })
	return addrPort(local).Addr(), err
}

// Release closes the connection's socket; unknown connections are no matter.
func (t *Transport) Release(id uint32) {
	c := t.connections[id]
	delete(t.connections, id)
	if c != nil && c.socket != nil {
		t.end(c.socket)
	}
}

// Path gives a connection's local and remote address and port. It is false as
// long as it has no socket: never asked for, or not to be opened.
func (t *Transport) Path(id uint32) (local, remote netip.AddrPort, ok bool) {
	c := t.connections[id]
	if c == nil || c.socket == nil {
		return netip.AddrPort{}, netip.AddrPort{}, false
	}
	return c.Local, c.Remote, true
}

// Socket gives the descriptor of a connection's connected socket, for a datapath
// in the kernel. It is valid until Release or Close, remains the Transport's, and
// its file status flags must not be changed. A datapath that duplicated it gives it up before
// Release: a socket that is kept goes on taking the peer's datagrams.
func (t *Transport) Socket(id uint32) (fd int, ok bool) {
	c := t.connections[id]
	if c == nil || c.socket == nil || !c.socket.connected {
		return -1, false
	}
	err := c.socket.control(func(n int) error { fd = n; return nil })
	return fd, err == nil
}

// Counters may be called from any goroutine.
func (t *Transport) Counters() Counters {
	return Counters{
		ReceivedControl: t.receivedControl.Load(), ReceivedData: t.receivedData.Load(),
		DroppedControl: t.droppedControl.Load(), DroppedData: t.droppedData.Load(),
		Malformed:   t.malformed.Load(),
		Transmitted: t.transmitted.Load(), TransmitFailed: t.transmitFailed.Load(),
		SocketErrors: t.socketErrors.Load(),
	}
}

// Close closes all sockets and ends all goroutines, then closes Packets. What
// was not taken from Packets is gone.
func (t *Transport) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	for addr, s := range t.listeners {
		delete(t.listeners, addr)
		t.end(s)
	}
	for id := range t.connections {
		t.Release(id)
	}
	close(t.stop)
	<-t.stopped
	return nil
}

func (t *Transport) begin(s *socket) {
	t.log.Debug("socket opened", "local", s.local, "ccid", s.connection)
	go s.read(t.deliver, func(error) { t.socketErrors.Add(1) })
}

func (t *Transport) end(s *socket) {
	s.close(t.deliver)
	t.log.Debug("socket closed", "local", s.local, "ccid", s.connection)
}

// deliver sorts one datagram into the queue. It runs in the readers' goroutines.
func (t *Transport) deliver(s *socket, from netip.AddrPort, payload []byte) {
	if len(payload) < 2 {
		t.malformed.Add(1)
		return
	}
	p := Packet{Path: s.path(from), Control: isControl(payload)}
	fromPeer := s.peer.Load().from(from)
	if fromPeer {
		p.Connection = s.connection
	}
	received, dropped := &t.receivedData, &t.droppedData
	if p.Control {
		received, dropped = &t.receivedControl, &t.droppedControl
	}
	received.Add(1)
	if !t.queue.put(classOf(p.Control, fromPeer), p, payload) {
		dropped.Add(1)
	}
}

// isControl reads the T bit (RFC 3931, Section 4.1.2.1).
func isControl(payload []byte) bool { return payload[0]&0x80 != 0 }

func classOf(control, fromPeer bool) class {
	switch {
	case control && fromPeer:
		return peerControl
	case control:
		return strangerControl
	case fromPeer:
		return peerData
	}
	return strangerData
}

// dispatch hands out what the queue holds, one packet at a time, so that the
// order of the classes is decided when the owner is ready and not before.
func (t *Transport) dispatch() {
	defer close(t.stopped)
	defer close(t.packets)
	for {
		p, ok := t.queue.get()
		if !ok {
			select {
			case <-t.queue.wake:
				continue
			case <-t.stop:
				return
			}
		}
		select {
		case t.packets <- p:
		case <-t.stop:
			return
		}
	}
}
