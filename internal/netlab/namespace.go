package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, with the mounts that belong to it: its own
// /sys and an empty BPF file system at /sys/fs/bpf, seen by the programs
// started in it, and by this process under Root.
type Namespace struct {
	Name string
	lab  *Lab
	fd   int
	tid  int
	nl   *netlink.Handle

	mu    sync.Mutex // closed against calls
	calls chan func()
	ended chan struct{}
}

// Namespace makes a namespace with a running loopback and the kernel's
// defaults. The name is for messages only.
func (l *Lab) Namespace(name string) *Namespace {
	if l.Err() != nil {
		return &Namespace{Name: name, lab: l, fd: -1}
	}
	ns, err := newNamespace(name, l)
	if err == nil {
		l.mu.Lock()
		l.namespaces = append(l.namespaces, ns)
		l.mu.Unlock()
		err = l.watch.add(ns)
	}
	if err == nil {
		err = ns.open()
	}
	if err != nil {
		l.fail("make namespace %s: %w", name, err)
	}
	if ns == nil {
		ns = &Namespace{Name: name, lab: l, fd: -1}
	}
	return ns
}

// newNamespace makes the namespace and the thread that holds it.
func newNamespace(name string, l *Lab) (*Namespace, error) {
	ns := &Namespace{Name: name, lab: l, fd: -1, calls: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	ownThread(func() {
		defer close(ns.ended)
		err := ns.enterNew()
		ready <- err
		if err != nil {
			return
		}
		for f := range ns.calls {
			f()
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return ns, nil
}

// enterNew takes the calling thread into new namespaces, for as long as it lives.
func (ns *Namespace) enterNew() error {
	ns.tid = unix.Gettid()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		u := &UnavailableError{Feature: "netns", Err: fmt.Errorf("make a network namespace: %w", err)}
		switch {
		case errors.Is(err, unix.EPERM):
			u.Fix = "run it as root; in a container, with CAP_SYS_ADMIN and CAP_NET_ADMIN"
		case errors.Is(err, unix.EINVAL):
			u.Fix = "the kernel needs CONFIG_NET_NS"
		}
		return u
	}
	// Without this the mounts below would spread to the whole machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return &UnavailableError{Feature: "netns", Err: fmt.Errorf("make mounts private: %w", err)}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return &UnavailableError{Feature: "netns", Err: fmt.Errorf("mount the namespace's /sys: %w", err)}
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return &UnavailableError{Feature: "bpf", Fix: "the kernel needs CONFIG_BPF_SYSCALL", Err: fmt.Errorf("mount a BPF file system: %w", err)}
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &UnavailableError{Feature: "netns", Fix: "mount /proc", Err: fmt.Errorf("open /proc/thread-self/ns/net: %w", err)}
	}
	ns.fd = fd
	return nil
}

// open makes the namespace's netlink handle and brings up its loopback.
func (ns *Namespace) open() error {
	err := ns.Do(func() (err error) {
		ns.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	lo, err := ns.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return ns.nl.LinkSetUp(lo)
}

// release gives the namespace up. What others hold of it lives on.
func (ns *Namespace) release() {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.fd < 0 {
		return
	}
	if ns.nl != nil {
		ns.nl.Close()
	}
	unix.Close(ns.fd)
	ns.fd = -1
	close(ns.calls)
	<-ns.ended
}

// errClosed is what is returned of a namespace that is gone or was never made.
var errClosed = errors.New("the namespace is closed")

// Do runs f inside the namespace, on a thread of its own, and returns its
// error. Sockets that f opens stay in the namespace; f's goroutines do not. Mounts
// are this process's; see Root. f must not end the test: it is not on its goroutine.
func (ns *Namespace) Do(f func() error) error {
	ns.mu.Lock()
	if ns.fd < 0 {
		ns.mu.Unlock()
		return fmt.Errorf("netlab: %s: %w", ns.Name, errClosed)
	}
	fd, err := unix.FcntlInt(uintptr(ns.fd), unix.F_DUPFD_CLOEXEC, 0)
	ns.mu.Unlock()
	if err != nil {
		return fmt.Errorf("netlab: %s: duplicate the namespace's descriptor: %w", ns.Name, err)
	}
	result := make(chan error, 1)
	ownThread(func() {
		returned := false
		defer func() {
			if !returned {
				result <- fmt.Errorf("netlab: %s: the function ended its goroutine", ns.Name)
			}
		}()
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
		if err != nil {
			err = fmt.Errorf("netlab: enter %s: %w", ns.Name, err)
		} else {
			err = f()
		}
		returned = true
		result <- err
	})
	return <-result
}

// onKeeper runs f on the thread that holds the namespace. Children of that thread have
// its mounts, and a parent-death signal comes when it ends and not before.
func (ns *Namespace) onKeeper(f func() error) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.fd < 0 {
		return fmt.Errorf("netlab: %s: %w", ns.Name, errClosed)
	}
	result := make(chan error, 1)
	ns.calls <- func() { result <- f() }
	return <-result
}

// FD is the namespace's descriptor, for netlink attributes and setns. It stays the lab's.
func (ns *Namespace) FD() int { return ns.fd }

// Netlink is a route netlink handle inside the namespace. It stays the lab's.
func (ns *Namespace) Netlink() *netlink.Handle { return ns.nl }

// Root is a path to the root directory as programs in the namespace see it:
// Root()+"/sys/fs/bpf" is its BPF file system.
func (ns *Namespace) Root() string {
	return fmt.Sprintf("/proc/%d/task/%d/root", os.Getpid(), ns.tid)
}

// Sysctl writes a setting under net, as "net.ipv6.conf.default.accept_dad".
// A dot in an interface name is written as a slash.
func (ns *Namespace) Sysctl(name, value string) *Namespace {
	if ns.lab.Err() != nil {
		return ns
	}
	path := filepath.Join("/proc/sys", strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name))
	if err := ns.Do(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
		ns.lab.fail("set %s of %s to %s: %w", name, ns.Name, value, err)
	}
	return ns
}

// Links are the names of the namespace's links but lo.
func (ns *Namespace) Links() ([]string, error) {
	links, err := ns.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("netlab: list the links of %s: %w", ns.Name, err)
	}
	var names []string
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" {
			names = append(names, name)
		}
	}
	return names, nil
}
