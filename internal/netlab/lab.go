// Package netlab builds networks out of network namespaces, for the tests and
// the demo: namespaces, veth pairs, bridges, hosts that ping and transfer, raw
// frames sent and captured. It speaks netlink and needs no program but this one.
//
// # Objects
//
//	Lab ── Namespace ── Link       an end of a veth pair, a bridge
//	                 ├─ Process    a program that runs in it
//	                 ├─ Capture    frames as a wire would show them
//	                 └─ Flow       steady numbered datagrams to another namespace
//
// A namespace has no name in the file system. A thread of this process and
// the descriptors of the lab hold it, and with it its links, mounts, pins and programs;
// so all of it goes with the process, however that ends. Programs started in a
// namespace are killed with the process too.
//
// # Errors
//
// In a test (New) what builds the network fails the test, so that the test reads as a drawing:
//
//	lab := netlab.New(t)
//	dc1, dc2 := lab.Namespace("dc1"), lab.Namespace("dc2")
//	a, b := lab.Veth(dc1, "eth0", dc2, "eth0")
//	a.Addr("192.0.2.1/24").Up()
//	b.Addr("192.0.2.2/24").Up()
//
// It must be called on the test's goroutine. In a program (Open) the first error is kept, everything
// after it does nothing, and Err gives it. What is done with the network once it stands (Do, Ping, Transfer …) returns its error.
//
// # Teardown
//
// Close ends programs, captures and flows, gives up the namespaces, and then waits for
// the kernel to say that they are gone. One that stays, because somebody
// left a socket open in it, is an error: nothing is left behind unnoticed.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// TB is what a lab needs of a test; *testing.T and *testing.B have it.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Options of a lab that is not part of a test.
type Options struct {
	// Log gets what the programs in the namespaces write, a line at a time; nil discards it.
	Log func(line string)
}

// Lab is a set of namespaces and of what runs in them. Its methods may be
// called from several goroutines.
type Lab struct {
	t     TB
	log   func(string)
	watch *watcher

	mu         sync.Mutex
	err        error
	namespaces []*Namespace
	closers    []func()
	closed     bool
}

// UnavailableError says that this machine cannot do what was asked of it.
type UnavailableError struct {
	// Feature as PWD_REQUIRE names it: "netns", "bpf", "l2tp", "vm", or a tool.
	Feature string
	// Fix says how to mend it.
	Fix string
	Err error
}

func (e *UnavailableError) Error() string {
	s := e.Feature + " is not available here"
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Missing ends a test that needs what is not there: as failed in CI and where
// the environment's PWD_REQUIRE lists the feature (or says "all"), as skipped
// elsewhere. A nil error is no reason to end.
func Missing(t TB, feature string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	required := strings.FieldsFunc(os.Getenv("PWD_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
	if os.Getenv("CI") != "" || slices.Contains(required, feature) || slices.Contains(required, "all") {
		t.Fatalf("this test needs %s: %v", feature, err)
	}
	t.Skipf("this test needs %s: %v", feature, err)
}

// New opens a lab that is closed at the end of the test; what it cannot take down
// fails the test. Where namespaces cannot be made the test ends as Missing says.
func New(t TB) *Lab {
	t.Helper()
	l, err := Open(Options{Log: func(line string) { t.Logf("%s", line) }})
	if u, ok := errors.AsType[*UnavailableError](err); ok {
		Missing(t, u.Feature, err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.t = t
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

// Open opens a lab for a program. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN,
// and returns an *UnavailableError where it does not have them.
func Open(o Options) (*Lab, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	w, err := newWatcher()
	if err != nil {
		return nil, err
	}
	return &Lab{log: o.Log, watch: w}, nil
}

// Err is the first error of building the network, nil if there was none.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// fail ends the test, or keeps the first error.
func (l *Lab) fail(format string, args ...any) {
	err := fmt.Errorf("netlab: "+format, args...)
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	if l.t != nil {
		l.t.Helper()
		l.t.Fatalf("%v", err)
	}
}

// onClose registers what has to end before the namespaces do.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	l.closers = append(l.closers, f)
	l.mu.Unlock()
}

// goneWithin bounds the wait for the kernel to take namespaces apart; it does that in the background, one batch after the other.
const goneWithin = 15 * time.Second

// Close takes everything down and returns when the kernel has let go of it. Calling it again does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers, namespaces := l.closers, l.namespaces
	l.mu.Unlock()

	for _, f := range slices.Backward(closers) {
		f()
	}
	for _, ns := range slices.Backward(namespaces) {
		ns.release()
	}
	left := l.watch.wait(goneWithin)
	l.watch.close()
	if len(left) > 0 {
		return fmt.Errorf("netlab: namespaces still in use %v after the lab was closed, by an open socket perhaps: %s", goneWithin, strings.Join(left, ", "))
	}
	return nil
}
