package agent

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// ether is the network between virtual sites.
type ether struct {
	mu    sync.Mutex
	hosts map[netip.Addr]*memorySockets
	// cut, if set, says that nothing arrives.
	cut bool
	// carries is the longest packet that arrives, 0 for any, heard what routers say that it is, 0 for nothing.
	carries, heard int
}

// path has packets of up to some length arrive, and routers say what they like of it.
func (e *ether) path(carries, heard int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.carries, e.heard = carries, heard
}

func (e *ether) send(encapsulation l2tpv3.Encapsulation, from, to netip.AddrPort, payload []byte) {
	e.mu.Lock()
	host := e.hosts[to.Addr()]
	cut := e.cut || e.carries != 0 && len(payload)+28 > e.carries // headers of IPv4 and UDP
	e.mu.Unlock()
	if host != nil && !cut {
		host.arrive(control.Path{Encapsulation: encapsulation, Local: to, Remote: from}, slices.Clone(payload))
	}
}

// memorySockets are the sockets of one daemon, on an ether.
type memorySockets struct {
	ether *ether
	addr  netip.Addr
	ready chan struct{}

	mu          sync.Mutex
	port        uint16
	listen      map[transport.Endpoint]bool
	connections map[uint32]*transport.ConnectionState
	queue       []transport.Packet
}

func (e *ether) open(addr netip.Addr) *memorySockets {
	s := &memorySockets{ether: e, addr: addr, ready: make(chan struct{}, 1), port: 40000,
		listen: map[transport.Endpoint]bool{}, connections: map[uint32]*transport.ConnectionState{}}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hosts[addr] = s
	return s
}

func (s *memorySockets) arrive(p control.Path, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := transport.Packet{Path: p, Payload: payload, Control: true}
	reached := s.listen[transport.Endpoint{Addr: p.Local.Addr(), Encapsulation: p.Encapsulation}] && (p.Encapsulation == l2tpv3.IP || p.Local.Port() == l2tpv3.Port)
	for id, c := range s.connections {
		switch {
		case c.Encapsulation != p.Encapsulation:
		case p.Encapsulation == l2tpv3.IP:
			if len(payload) >= 8 && binary.BigEndian.Uint32(payload[4:]) == id {
				in.Connection, reached = id, true
			}
		case c.Local == p.Local && (c.Remote == p.Remote || !c.Connected):
			in.Connection, reached = id, true
		}
	}
	if !reached {
		return
	}
	s.queue = append(s.queue, in)
	s.wake()
}

func (s *memorySockets) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *memorySockets) Ready() <-chan struct{} { return s.ready }

func (s *memorySockets) Take() (transport.Packet, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return transport.Packet{}, false
	}
	p := s.queue[0]
	if s.queue = s.queue[1:]; len(s.queue) > 0 {
		s.wake()
	}
	return p, true
}

// add opens what is a connection's; s.mu is held.
func (s *memorySockets) add(c transport.ConnectionState) *transport.ConnectionState {
	port := c.Local.Port()
	switch {
	case c.Encapsulation == l2tpv3.IP:
		port = 0
	case port == 0 && c.Initiator:
		s.port++
		port = s.port
	case port == 0:
		port = l2tpv3.Port
	}
	c.Local = netip.AddrPortFrom(s.addr, port)
	s.connections[c.Connection] = &c
	return &c
}

func (s *memorySockets) Transmit(m control.Transmit) error {
	s.mu.Lock()
	local := netip.AddrPortFrom(s.addr, l2tpv3.Port)
	if m.Path.Encapsulation == l2tpv3.IP {
		local = netip.AddrPortFrom(s.addr, 0)
	}
	if m.Connection != 0 {
		c := s.connections[m.Connection]
		if c == nil && m.Initiator {
			c = s.add(transport.ConnectionState{Connection: m.Connection, Initiator: true,
				Encapsulation: m.Path.Encapsulation, Local: m.Path.Local, Remote: m.Path.Remote})
		}
		if c != nil {
			local = c.Local
		}
	} else if m.Path.Local.Port() != 0 {
		local = m.Path.Local
	}
	s.mu.Unlock()
	s.ether.send(m.Path.Encapsulation, local, m.Path.Remote, m.Payload)
	return nil
}

func (s *memorySockets) SetEndpoints(all []transport.Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.listen)
	for _, e := range all {
		s.listen[e] = true
	}
	return nil
}

func (s *memorySockets) Connect(m control.Connected) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.connections[m.Connection]
	if c == nil {
		c = s.add(transport.ConnectionState{Connection: m.Connection, Initiator: m.Initiator, Encapsulation: m.Path.Encapsulation, Local: m.Path.Local})
	}
	c.Remote, c.Connected = m.Path.Remote, true
	return nil
}

func (s *memorySockets) Release(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, id)
}

func (s *memorySockets) Path(id uint32) (local, remote netip.AddrPort, ok bool) {
	c, ok := s.SaveConnection(id)
	return c.Local, c.Remote, ok
}

func (s *memorySockets) SaveConnection(id uint32) (transport.ConnectionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.connections[id]; c != nil {
		return *c, true
	}
	return transport.ConnectionState{}, false
}

func (s *memorySockets) Restore(state transport.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range state.Connections {
		s.add(c)
	}
	return nil
}

func (s *memorySockets) Socket(uint32) (int, error)        { return -1, nil }
func (s *memorySockets) Trouble(uint32) *transport.Trouble { return nil }
func (s *memorySockets) SetPeers([]netip.Addr)             {}
func (s *memorySockets) SetDataSessions([]uint32) error    { return nil }
func (s *memorySockets) Refresh() error                    { return nil }
func (s *memorySockets) Counters() (c transport.Counters)  { return c }

func (s *memorySockets) PathMTU(_ uint32, heed bool) int {
	s.ether.mu.Lock()
	defer s.ether.mu.Unlock()
	if heed && s.ether.heard != 0 {
		return s.ether.heard
	}
	return 1500
}

func (s *memorySockets) Inherit(string, int) error               { return nil }
func (s *memorySockets) Inherits(transport.ConnectionState) bool { return false }
func (s *memorySockets) Disown() []string                        { return nil }
func (s *memorySockets) KeepAgain()                              {}

func (s *memorySockets) Close() error {
	s.ether.mu.Lock()
	defer s.ether.mu.Unlock()
	if s.ether.hosts[s.addr] == s {
		delete(s.ether.hosts, s.addr)
	}
	return nil
}
