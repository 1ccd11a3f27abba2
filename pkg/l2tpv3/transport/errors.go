package transport

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

var (
	// ErrAddressNotPresent says that the local address is on no interface of the
	// host (or, IPv6, that duplicate address detection has not finished). It is
	// worth another try when an address appears.
	ErrAddressNotPresent = errors.New("the address is not on this host; it is tried again when it appears")
	// ErrPortInUse says that another program has the port.
	ErrPortInUse = errors.New("another program uses the port; end it, or give the site an address of its own")
	// ErrProtocolInUse says that another daemon carries L2TPv3 over IP on the address.
	ErrProtocolInUse = errors.New("another daemon uses IP protocol 115 on the address; end it, or give the site an address of its own")
	// ErrConnectionIDInUse says that the kernel's L2TP has a tunnel over IP with
	// the connection's ID already.
	ErrConnectionIDInUse = errors.New("another tunnel of the kernel has the connection's ID; remove it (`ip l2tp del tunnel`)")
	// ErrNotPermitted says that the process may not open raw sockets.
	ErrNotPermitted = errors.New("raw sockets need CAP_NET_RAW; grant it, or use udp")
	// ErrNoKernelIP says that this kernel's L2TP does not run over IP.
	ErrNoKernelIP = errors.New("the kernel has no L2TP over IP; load l2tp_ip and l2tp_ip6, or use udp or the eBPF datapath")
	// ErrNoKernelVRF says that the kernel's L2TP over IP cannot have an address of an interface in a VRF.
	ErrNoKernelVRF = errors.New("the address is in a VRF, which the kernel's L2TP over IP does not know of; use udp or the eBPF datapath")
	// ErrNoListener says that nothing listens on the address that an answer has to come from.
	ErrNoListener = errors.New("nothing listens on that address; name it in SetEndpoints")
	// ErrUnreachable says that there is no route to the peer at the moment.
	ErrUnreachable = errors.New("there is no route to the peer")
	// ErrEncapsulation says that the encapsulation is not carried by this transport.
	ErrEncapsulation = errors.New("the encapsulation is not supported; use udp or ip")
	// ErrUnknownConnection says that the transport has no socket for the connection.
	ErrUnknownConnection = errors.New("the connection has no socket")
	// ErrNotConnected says that it is not settled yet who the connection's peer is.
	ErrNotConnected = errors.New("the connection's peer is not settled")
	// ErrClosed says that the transport was closed.
	ErrClosed = errors.New("the transport is closed")
)

// Error is a failure of one socket. It wraps one of the errors of this package
// where one fits, and always the system's error if there is one.
type Error struct {
	// Op is what was being done: "listen", "open", "connect", "transmit" or, for
	// the kernel's own socket, "hand over".
	Op string
	// Connection is the local control connection ID; 0 for a listener.
	Connection uint32
	// Local and Remote have port 0 over IP.
	Local, Remote netip.AddrPort
	Err           error
}

// Error implements error.
func (e *Error) Error() string {
	where := e.Local.String()
	if e.Remote.IsValid() {
		where += " to " + e.Remote.String()
	}
	if e.Connection != 0 {
		return fmt.Sprintf("l2tpv3 transport: %s %s for connection %d: %v", e.Op, where, e.Connection, e.Err)
	}
	return fmt.Sprintf("l2tpv3 transport: %s %s: %v", e.Op, where, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// explained is an error of the system with the package's meaning beside it.
type explained struct{ meaning, err error }

func (e *explained) Error() string   { return fmt.Sprintf("%v (%v)", e.meaning, e.err) }
func (e *explained) Unwrap() []error { return []error{e.meaning, e.err} }

// meanings are what the system's errors mean where nothing else was said.
var meanings = map[unix.Errno]error{
	unix.EADDRNOTAVAIL: ErrAddressNotPresent,
	unix.EADDRINUSE:    ErrPortInUse,
	unix.ENETUNREACH:   ErrUnreachable,
	unix.EHOSTUNREACH:  ErrUnreachable,
}

// explain puts the package's meaning beside an error of the system, unless
// somebody who knew better has done so.
func explain(err error) error {
	if _, ok := errors.AsType[*explained](err); ok {
		return err
	}
	return explainAs(err, meanings)
}

// explainAs does so with meanings of a place.
func explainAs(err error, meanings map[unix.Errno]error) error {
	if number, ok := errors.AsType[unix.Errno](err); ok && meanings[number] != nil {
		return &explained{meanings[number], number}
	}
	return err
}
