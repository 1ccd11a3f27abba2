package systemd

import (
	"fmt"
	"maps"
	"slices"
)

// Unkept are descriptors that a place was to keep and does not, by name. What becomes of others
// says nothing of them.
type Unkept map[string]error

// Note takes in what became of one; nil is well.
func (u *Unkept) Note(name string, err error) {
	switch {
	case err == nil:
		delete(*u, name)
	case *u == nil:
		*u = Unkept{name: err}
	default:
		(*u)[name] = err
	}
}

// Err is an *UnkeptError, or nil if there are none.
func (u Unkept) Err() error {
	if len(u) == 0 {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(u)))
	return &UnkeptError{first, len(u) - 1, u[first]}
}

// UnkeptError says of one descriptor why it is not kept, and of how many others there is something to say.
type UnkeptError struct {
	Name   string
	Others int
	Err    error
}

func (e *UnkeptError) Error() string {
	others := ""
	if e.Others > 0 {
		others = fmt.Sprintf(" (and %d more)", e.Others)
	}
	return fmt.Sprintf("socket %s%s: %v", e.Name, others, e.Err)
}

func (e *UnkeptError) Unwrap() error { return e.Err }
