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
	// ErrNoListener says that nothing listens on the address that an answer has to come from.
	ErrNoListener = errors.New("nothing listens on that address; name it in SetListeners")
	// ErrUnreachable says that there is no route to the peer at the moment.
	ErrUnreachable = errors.New("there is no route to the peer")
	// ErrEncapsulation says that the encapsulation is not carried by this transport.
	ErrEncapsulation = errors.New("the encapsulation is not supported; use udp")
	// ErrUnknownConnection says that the transport has no socket for the connection.
	ErrUnknownConnection = errors.New("the connection has no socket")
	// ErrClosed says that the transport was closed.
	ErrClosed = errors.New("the transport is closed")
)

// Error is a failure of one socket. It wraps one of the errors of this package
// where one fits, and always the system's error if there is one.
type Error struct {
	// Op is what was being done: "listen", "open", "connect" or "transmit".
	Op string
	// Connection is the local control connection ID; 0 for a listener.
	Connection    uint32
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

// explain puts the package's meaning beside an error of the system.
func explain(err error) error {
	for _, m := range []struct {
		number  unix.Errno
		meaning error
	}{
		{unix.EADDRNOTAVAIL, ErrAddressNotPresent},
		{unix.EADDRINUSE, ErrPortInUse},
		{unix.ENETUNREACH, ErrUnreachable},
		{unix.EHOSTUNREACH, ErrUnreachable},
	} {
		if errors.Is(err, m.number) {
			return fmt.Errorf("%w (%w)", m.meaning, m.number)
		}
	}
	return err
}
