package transport

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// State is what a Transport needs to have the same sockets after a restart. It
// goes through JSON unchanged. The listeners come from SetEndpoints.
type State struct {
	Connections []ConnectionState `json:"connections,omitempty"`
}

// ConnectionState is one connection's socket.
type ConnectionState struct {
	// Connection is the local control connection ID.
	Connection uint32 `json:"connection"`
	// Initiator says that the local port is the connection's own; otherwise it
	// is the listener's.
	Initiator bool `json:"initiator,omitempty"`
	// Encapsulation is a number; absent is UDP.
	Encapsulation l2tpv3.Encapsulation `json:"encapsulation,omitempty"`
	// Local and Remote are addresses of both ends, and UDP ports; over IP 0.
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Dynamic says that the routing table chose the local address.
	Dynamic bool `json:"dynamic,omitempty"`
	// Connected says that the peer's address and port are settled.
	Connected bool `json:"connected,omitempty"`
	// Kept is the kernel's number (SO_COOKIE) of the socket that the Keeper has; 0 is none.
	Kept uint64 `json:"kept,omitempty"`
}

// Save gives the state of all connections, by connection ID.
func (t *Transport) Save() State {
	var s State
	for _, c := range t.sorted() {
		s.Connections = append(s.Connections, c.ConnectionState)
	}
	return s
}

// SaveConnection gives the state of one connection; false if it is not known.
func (t *Transport) SaveConnection(id uint32) (ConnectionState, bool) {
	c := t.connections[id]
	if c == nil {
		return ConnectionState{}, false
	}
	return c.ConnectionState, true
}

// Restore opens the sockets of a saved state, with the ports they had (RFC 3931,
// Section 4.1.2.2: they stay the same for the life of a connection). Sockets of
// the kernel's L2TP over IP are not among them: Socket makes them again. Those that
// were inherited are taken over as they are instead. The error
// joins an *Error for each that could not be; its connection remains known, and
// Refresh, Transmit and Connect try again.
func (t *Transport) Restore(s State) error {
	if t.closed {
		return ErrClosed
	}
	var failed []error
	for _, state := range s.Connections {
		t.Release(state.Connection)
		if !supported(state.Encapsulation) {
			failed = append(failed, &Error{Op: "open", Connection: state.Connection, Local: state.Local, Remote: state.Remote, Err: ErrEncapsulation})
			continue
		}
		c := t.add(state)
		failed = append(failed, t.establish(c))
		t.adopt(c)
		c.voidKept()
	}
	return errors.Join(failed...)
}

// sorted gives the connections by ID.
func (t *Transport) sorted() []*connection {
	return slices.SortedFunc(maps.Values(t.connections), func(a, b *connection) int {
		return cmp.Compare(a.Connection, b.Connection)
	})
}
