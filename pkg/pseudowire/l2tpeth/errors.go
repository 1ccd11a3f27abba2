package l2tpeth

import "fmt"

// UnsupportedError says that the kernel, or this datapath, cannot do something.
type UnsupportedError struct {
	// Feature is what cannot be done; Hint what to do about it.
	Feature, Hint string
	// Err is what the kernel answered, if it was asked.
	Err error
}

func (e *UnsupportedError) Error() string {
	s := "l2tpeth: " + e.Feature + " is not supported"
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + "; " + e.Hint
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// OpError is an operation that failed.
type OpError struct {
	// Op is what was to be done, as "create"; Object what to, as "tunnel gold/dc2 (12)".
	Op, Object string
	Err        error
}

func (e *OpError) Error() string { return fmt.Sprintf("l2tpeth: %s %s: %v", e.Op, e.Object, e.Err) }

func (e *OpError) Unwrap() error { return e.Err }

// ConflictError says that a name, an ID or a socket that is needed is in use.
type ConflictError struct {
	// Object is what is taken, as "device pw-a"; Hint by whom, or what to do about it.
	Object, Hint string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("l2tpeth: %s is taken; %s", e.Object, e.Hint)
}

// ArgumentError says that a setter was given what no kernel object can be made of.
type ArgumentError struct {
	// Object is what was to be set; Problem what is wrong with it.
	Object, Problem string
}

func (e *ArgumentError) Error() string { return fmt.Sprintf("l2tpeth: %s: %s", e.Object, e.Problem) }

// moduleHint is how to get the kernel's L2TP.
const moduleHint = "load it with `modprobe l2tp_eth`; the module comes with Debian's linux-image, " +
	"Ubuntu's linux-modules-extra-$(uname -r), Fedora's and RHEL's kernel-modules-extra; or use `datapath: ebpf`"
