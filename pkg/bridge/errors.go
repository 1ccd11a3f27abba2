package bridge

import (
	"errors"
	"fmt"
)

// ErrClosed says that the Manager was closed.
var ErrClosed = errors.New("bridge: the manager is closed")

// NotPresentError says that an interface is not there (yet). The same call is
// worth repeating when a link with that name appears.
type NotPresentError struct {
	// Interface is the missing interface; For the bridge or pseudowire that wants it.
	Interface, For string
}

// Error implements error.
func (e *NotPresentError) Error() string {
	return fmt.Sprintf("bridge: interface %s, wanted by %s, is not there; it is used when it appears", e.Interface, e.For)
}

// NotPresent reports whether err says of nothing but interfaces that they are not
// there (yet): all that can be wanted has been done. It is false for nil.
func NotPresent(err error) bool { return err != nil && present(err) == nil }

// present leaves what a NotPresentError says out of an error.
func present(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var others []error
		for _, e := range joined.Unwrap() {
			others = append(others, present(e))
		}
		return errors.Join(others...)
	}
	if _, absent := errors.AsType[*NotPresentError](err); absent {
		return nil
	}
	return err
}

// NotOursError says that a netdev has the name of one to be made, and was made by somebody else.
type NotOursError struct {
	// Link is the netdev's name; Kind what it is ("bridge", "vlan", …); Wanted what was to be made.
	Link, Kind, Wanted string
}

// Error implements error.
func (e *NotOursError) Error() string {
	if e.Wanted == "bridge" && e.Kind == "bridge" {
		return fmt.Sprintf("bridge: bridge %s exists and was not made by this daemon; mark it `external: true` to use it, or remove it", e.Link)
	}
	return fmt.Sprintf("bridge: %s is to be made as a %s, and a %s of that name exists that was not made by this daemon; rename or remove it", e.Link, e.Wanted, kindOf(e.Kind))
}

func kindOf(kind string) string {
	if kind == "" {
		return "network device"
	}
	return kind
}

// EnslavedError says that an interface belongs to somebody else's bridge, bond or the like.
type EnslavedError struct {
	Interface, Master, For string
}

// Error implements error.
func (e *EnslavedError) Error() string {
	return fmt.Sprintf("bridge: interface %s, wanted by %s, is a port of %s; take it out there, or attach to %s instead", e.Interface, e.For, e.Master, e.Master)
}

// UnsupportedError says that the kernel, or somebody else's bridge, lacks what an attachment needs.
type UnsupportedError struct {
	// For is the bridge or pseudowire; Missing what is lacking; Remedy what can be done.
	For, Missing, Remedy string
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("bridge: %s: %s; %s", e.For, e.Missing, e.Remedy)
}

// InvalidError says that what is wanted contradicts itself or something else that is wanted.
type InvalidError struct {
	Object, Reason string
}

// Error implements error.
func (e *InvalidError) Error() string { return fmt.Sprintf("bridge: %s: %s", e.Object, e.Reason) }

// OpError is a refusal of the kernel's.
type OpError struct {
	// Op is what was being done to Link.
	Op, Link string
	Err      error
}

// Error implements error.
func (e *OpError) Error() string { return fmt.Sprintf("bridge: %s %s: %v", e.Op, e.Link, e.Err) }

// Unwrap implements errors.Unwrap.
func (e *OpError) Unwrap() error { return e.Err }

func failed(op, link string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Link: link, Err: err}
}
