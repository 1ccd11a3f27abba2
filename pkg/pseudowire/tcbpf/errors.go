package tcbpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
)

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
	ErrUnderlay = errors.New("neither an Ethernet link nor one of IP packets alone")
	// ErrUnknown: the object refers to a tunnel or a pseudowire that was not set.
	ErrUnknown = errors.New("not known here")
	// ErrInvalid: the object cannot be, for instance a cookie of 5 octets.
	ErrInvalid = errors.New("invalid")
	// ErrKernel: the kernel lacks something that the datapath needs.
	ErrKernel = errors.New("kernel too old for the eBPF datapath")
	// ErrPermission: a capability is missing.
	ErrPermission = errors.New("operation not permitted")
)

// loadError tells what the kernel lacks from what else may go wrong at loading.
func loadError(err error) error {
	e := &Error{Op: "load the programs into the kernel", Err: err}
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused):
		e.Err = fmt.Errorf("%w: %w", ErrKernel, err)
		e.Hint = "the kernel's verifier refuses a program that those of Linux 6.1, 6.12 and 6.18 take; this is " + release()
	case errors.Is(err, bpf.ErrUnsupported):
		e.Err = fmt.Errorf("%w: %w", ErrKernel, err)
		e.Hint = "Linux 6.1 or newer with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_DEBUG_INFO_BTF has it all; this is " + release()
	case errors.Is(err, os.ErrPermission):
		e.Err = fmt.Errorf("%w: %w", ErrPermission, err)
		e.Hint = "CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW are needed"
	}
	return e
}

// hintFull is what to do where there is no room for one more.
func hintFull(err error) string {
	if errors.Is(err, bpf.ErrFull) {
		return "the eBPF datapath can have no more: give some pseudowires `datapath: kernel`, or to another host"
	}
	return ""
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
