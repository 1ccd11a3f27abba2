// Package transport carries L2TPv3 over UDP and over IP protocol 115, IPv4 and
// IPv6 (RFC 3931, Section 4.1): the sockets around the control machine.
//
// # Sockets over UDP
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
// # Sockets over IP
//
// All connections of a local address share raw sockets, listener or not: the
// Control Connection ID tells their messages apart, and 0 is a stranger's SCCRQ.
// The socket for control messages is one, and the socket for data messages
// another, so that no amount of data costs a control message its place.
//
// Raw sockets get copies of all packets to their address, also of those that the
// kernel's L2TP or another program takes. Filters in the kernel keep out of each
// what is not for it; see Transport.SetDataSessions.
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// Options are what a Transport is made with.
type Options struct {
	// Listen is where there are listeners, see Transport.SetEndpoints.
	Listen []Endpoint
	// Logger takes what sockets are opened and closed, at debug level; nil is silent.
	Logger *slog.Logger
	// Keeper keeps the sockets that Transport.Socket gives; nil is none.
	Keeper Keeper
}

// Endpoint is an address with an encapsulation that it is to be reached by.
type Endpoint struct {
	Addr          netip.Addr
	Encapsulation l2tpv3.Encapsulation
}

// Packet is one received datagram.
type Packet struct {
	// Connection is the local control connection ID of the connection that the
	// packet belongs to and whose peer it came from: over UDP by the socket that
	// it reached, over IP by the ID in a control message. It is 0 for everything
	// else, so for all data over IP.
	Connection uint32
	// Path has the addresses that the datagram really came to and from.
	Path control.Path
	// Payload of a control message begins with its T bit. That of a data message
	// is what DataSessionID and ParseData of package l2tpv3 read with
	// Path.Encapsulation, without which the two cannot be told apart: over UDP
	// the whole payload (flags and version, reserved, Session ID, ...), over IP
	// what follows the IP header (Session ID, ...). The receiver of the Packet owns it.
	Payload []byte
	// Control says that it is a control message: over UDP by the T bit (RFC 3931,
	// Section 4.1.2.1), over IP by Session ID 0 (Section 4.1.1.2). Otherwise it is
	// a data message that the datapath did not take by itself: outer fragments
	// put together by the stack, or an unknown session.
	Control bool
}

// Counters of a Transport since it was opened.
type Counters struct {
	ReceivedControl, ReceivedData uint64
	// DroppedControl and DroppedData found their queue full.
	DroppedControl, DroppedData uint64
	// Malformed datagrams are too short to tell control from data, or over IP for
	// the first two octets of a control message.
	Malformed uint64
	// Transmitted datagrams, and those that the system refused.
	Transmitted, TransmitFailed uint64
	// SocketErrors is how often a socket reported what an earlier packet met:
	// port or host unreachable, usually.
	SocketErrors uint64
}

// Transport is the sockets of one LCCE host.
type Transport struct {
	log         *slog.Logger
	wanted      []Endpoint
	listeners   map[netip.Addr]*socket          // over UDP
	protocol    map[netip.Addr]*protocolSockets // over IP
	data        dataSessions
	peers       directory
	known       atomic.Pointer[map[netip.Addr]struct{}] // see SetPeers
	connections map[uint32]*connection
	queue       *queue
	closed      bool
	keeper      Keeper
	// inherited are sockets of an earlier process, by name, that nobody has asked for yet.
	inherited map[string]*inherited

	receivedControl, receivedData, droppedControl, droppedData atomic.Uint64
	malformed, transmitted, transmitFailed, socketErrors       atomic.Uint64
}

// Open makes a Transport. It fails only with the errors of SetEndpoints, and
// then the Transport is there all the same, and Refresh tries again.
func Open(o Options) (*Transport, error) {
	t := &Transport{
		log:         o.Logger,
		listeners:   map[netip.Addr]*socket{},
		protocol:    map[netip.Addr]*protocolSockets{},
		peers:       directory{connections: map[uint32]pair{}, pairs: map[pair]int{}},
		connections: map[uint32]*connection{},
		queue:       newQueue(),
		keeper:      o.Keeper,
		inherited:   map[string]*inherited{},
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t, t.SetEndpoints(o.Listen)
}

// SetPeers says which addresses peers have, all of them: what comes from there finds room
// where the messages of strangers do not, so that a flood of those keeps no peer out.
func (t *Transport) SetPeers(addrs []netip.Addr) {
	known := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		known[a.Unmap()] = struct{}{}
	}
	t.known.Store(&known)
}

// knows reports whether an address is a peer's.
func (t *Transport) knows(a netip.Addr) bool {
	known := t.known.Load()
	if known == nil {
		return false
	}
	_, ok := (*known)[a]
	return ok
}

// Ready gives a token when there may be something for Take, and another one as long
// as there is more. It is closed by Close.
func (t *Transport) Ready() <-chan struct{} { return t.queue.wake }

// Take takes what was received, without waiting: control before data, the peers of
// connections before their addresses, and those before strangers. It is false if there is nothing.
func (t *Transport) Take() (Packet, bool) { return t.queue.get() }

// SetEndpoints says where there are listeners, all of them. The error joins an
// *Error for each that could not be opened; Refresh tries those again.
func (t *Transport) SetEndpoints(endpoints []Endpoint) error {
	t.wanted = nil
	for _, e := range endpoints {
		if e.Addr = e.Addr.Unmap(); !slices.Contains(t.wanted, e) {
			t.wanted = append(t.wanted, e)
		}
	}
	for addr, s := range t.listeners {
		if !slices.Contains(t.wanted, Endpoint{addr, l2tpv3.UDP}) {
			delete(t.listeners, addr)
			t.end(s)
		}
	}
	for addr, p := range t.protocol {
		if p.listening && !slices.Contains(t.wanted, Endpoint{addr, l2tpv3.IP}) {
			p.listening = false
			t.leave(p)
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
	for _, e := range t.wanted {
		var err error
		local := netip.AddrPortFrom(e.Addr, 0)
		switch e.Encapsulation {
		case l2tpv3.UDP:
			local = netip.AddrPortFrom(e.Addr, l2tpv3.Port)
			err = t.listenUDP(local)
		case l2tpv3.IP:
			err = t.listenIP(e.Addr)
		default:
			err = ErrEncapsulation
		}
		if err != nil {
			failed = append(failed, &Error{Op: "listen", Local: local, Err: explain(err)})
		}
	}
	return errors.Join(failed...)
}

func (t *Transport) listenUDP(local netip.AddrPort) error {
	if old := t.listeners[local.Addr()]; old != nil {
		if old.vrf == "" || old.vrf == vrfOf(local.Addr()) {
			return nil
		}
		// The address is in that VRF no more, or outside as well by now.
		delete(t.listeners, local.Addr())
		t.end(old)
	}
	s, err := openSocket(local, true, false)
	if err != nil {
		return err
	}
	// From here on it is shared only while openConnection lets it: a second
	// daemon on the same address is told that the port is in use.
	if err := s.setShared(false); err != nil {
		s.conn.Close()
		return err
	}
	t.listeners[local.Addr()] = s
	t.begin(s)
	return nil
}

// Refresh opens what is missing: listeners whose address was not there, or in a VRF that it is in no more, sockets
// of connections that could not be opened or connected, and of attempts (an
// initiator's before Connect) from an address that the routing table chose and that
// has gone. The error joins an *Error for each that is still missing, and for
// each established connection whose chosen address has gone: ErrAddressNotPresent.
func (t *Transport) Refresh() error {
	failed := []error{t.listen()}
	for _, c := range t.sorted() {
		if c.Connected || c.Initiator {
			failed = append(failed, t.establish(c))
		}
	}
	return errors.Join(failed...)
}

// Transmit sends one control message, without waiting. An initiator's socket is
// opened if the connection has none, bound to Path.Local or, if that is invalid, to
// the address that the routing table chooses; a responder's connection is answered for by
// the listener until Connect. Connection 0 is sent from the socket bound to
// Path.Local. Errors are *Error; the protocol's retransmission makes up for them.
func (t *Transport) Transmit(m control.Transmit) error {
	err := t.send(m)
	if c := t.connections[m.Connection]; err != nil && c != nil && c.Dynamic {
		// The address may have gone that was chosen for it.
		if gone := t.establish(c); gone != nil {
			err = gone
		} else if !c.Connected {
			err = t.send(m)
		}
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

func (t *Transport) send(m control.Transmit) error {
	s, err := t.source(m)
	if err != nil {
		return err
	}
	send := func() error {
		pending, err := s.send(m.Path.Remote, m.Payload)
		t.socketErrors.Add(uint64(pending))
		return err
	}
	if m.Whole {
		return s.sendWhole(send)
	}
	return send()
}

// source is the socket that m is to be sent from.
func (t *Transport) source(m control.Transmit) (*socket, error) {
	switch {
	case t.closed:
		return nil, ErrClosed
	case !supported(m.Path.Encapsulation):
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
		return t.bound(c.Encapsulation, c.Local) // the listener, for a responder
	}
	if m.Connection != 0 && m.Initiator {
		c := t.add(ConnectionState{
			Connection: m.Connection, Initiator: true,
			Encapsulation: m.Path.Encapsulation, Local: m.Path.Local, Remote: m.Path.Remote,
		})
		if err := t.establish(c); err != nil {
			t.Release(m.Connection)
			return nil, err
		}
		return c.socket, nil
	}
	return t.bound(m.Path.Encapsulation, m.Path.Local)
}

// bound finds the socket with a local address and port; port 0 is a listener's.
func (t *Transport) bound(e l2tpv3.Encapsulation, local netip.AddrPort) (*socket, error) {
	local = unmap(local)
	if e == l2tpv3.IP {
		if p := t.protocol[local.Addr()]; p != nil {
			return p.control, nil
		}
		return nil, ErrNoListener
	}
	if local.Port() == 0 || local.Port() == l2tpv3.Port {
		if s := t.listeners[local.Addr()]; s != nil {
			return s, nil
		}
	}
	for _, c := range t.connections {
		if c.socket != nil && c.Encapsulation == e && c.socket.local == local {
			return c.socket, nil
		}
	}
	return nil, ErrNoListener
}

// Trouble is what the network has said of packets to a peer.
type Trouble struct {
	// Err is what ICMP makes of a packet: unix.ECONNREFUSED where nothing listens,
	// unix.EHOSTUNREACH where there is no way.
	Err error
	At  time.Time
}

// Trouble gives the last error of a connection's own socket, nil if there was none.
// Anybody can forge one, so that it is good for telling people only.
func (t *Transport) Trouble(connection uint32) *Trouble {
	c := t.connections[connection]
	if c == nil || c.socket == nil || c.Encapsulation == l2tpv3.IP {
		return nil
	}
	return c.socket.trouble.Load()
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

// Close closes all sockets and ends all goroutines, then closes Ready.
// What was not taken is gone; what has yet to be read from a socket that is kept stays in it.
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
	for _, p := range t.protocol {
		p.listening = false
		t.leave(p)
	}
	for _, i := range t.inherited {
		unix.Close(i.fd) // what keeps it goes on doing so
	}
	clear(t.inherited)
	t.queue.close() // nothing reads sockets any more
	return nil
}

func (t *Transport) begin(s *socket) {
	t.log.Debug("socket opened", "encapsulation", s.encapsulation, "local", s.local, "ccid", s.connection)
	go s.read(t.deliver, func(err error) {
		t.socketErrors.Add(1)
		s.trouble.Store(&Trouble{Err: err, At: time.Now()})
	})
}

func (t *Transport) end(s *socket) {
	s.close(t.deliver)
	t.log.Debug("socket closed", "encapsulation", s.encapsulation, "local", s.local, "ccid", s.connection)
}

// deliver sorts one datagram into the queue. It runs in the readers' goroutines.
func (t *Transport) deliver(s *socket, from netip.AddrPort, payload []byte) {
	p := Packet{Path: s.path(from)}
	fromPeer, ok := false, false
	if s.encapsulation == l2tpv3.IP {
		payload, fromPeer, ok = t.classifyIP(&p, payload)
	} else {
		fromPeer, ok = s.classify(&p, payload)
	}
	if !ok {
		t.malformed.Add(1)
		return
	}
	received, dropped := &t.receivedData, &t.droppedData
	if p.Control {
		received, dropped = &t.receivedControl, &t.droppedControl
	}
	received.Add(1)
	c := classOf(p.Control, fromPeer)
	if c == strangerControl && t.knows(p.Path.Remote.Addr()) {
		c = knownControl
	}
	if !t.queue.put(c, p, payload) {
		dropped.Add(1)
	}
}

// classify says what a UDP payload is, and whether the connection's peer sent it.
// It is false for one that is too short.
func (s *socket) classify(p *Packet, payload []byte) (fromPeer, ok bool) {
	if len(payload) < 2 {
		return false, false
	}
	p.Control = isControl(payload)
	if fromPeer = s.peer.Load().from(p.Path.Remote); fromPeer {
		p.Connection = s.connection
	}
	return fromPeer, true
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
