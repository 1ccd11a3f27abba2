package tcbpf

import "errors"

// Error says what the datapath was doing to what when it failed, and how to
// mend it where that is known.
type Error struct {
	// Op is what was being done, as "create the pseudowire's devices".
	Op string
	// Object is the name of the pseudowire, tunnel, device … it was done to.
	Object string
	// Hint says what to do about it; it may be empty.
	Hint string
	Err  error
}

func (e *Error) Error() string {
	s := "ebpf datapath: " + e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// What an Error can match.
var (
	// ErrForeignDevice: a device of the wanted name exists and is not this datapath's.
	ErrForeignDevice = errors.New("a device of that name exists and is not ours")
	// ErrUnderlay: the way to the peer is over a link that this datapath cannot use.
	ErrUnderlay = errors.New("not an Ethernet link")
	// ErrUnknown: the object refers to a tunnel or a pseudowire that was not set.
	ErrUnknown = errors.New("not known here")
	// ErrInvalid: the object cannot be, for instance a cookie of 5 octets.
	ErrInvalid = errors.New("invalid")
	// ErrEncapsulation: the encapsulation is not carried.
	ErrEncapsulation = errors.New("encapsulation not supported by the eBPF datapath")
	// ErrKernel: the kernel lacks something that the datapath needs.
	ErrKernel = errors.New("kernel too old for the eBPF datapath")
	// ErrPermission: a capability is missing.
	ErrPermission = errors.New("operation not permitted")
)
