package main

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets here are blocking ones, each used by one thread of its own: the runtime's
// poller would cost some of what is measured.

// stall is how long a socket may make no progress before the network is taken for broken.
const stall = 30 // seconds

func newSocket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	limit := unix.Timeval{Sec: stall}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("socket: %w", err)
		}
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// bound is a socket that is bound to an address.
func bound(kind int, at netip.AddrPort) (int, error) {
	fd, err := newSocket(kind)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind to %v: %w", at, err)
	}
	return fd, nil
}

// connected is a socket that is connected to an address.
func connected(kind int, to netip.AddrPort) (int, error) {
	fd, err := newSocket(kind)
	if err != nil {
		return -1, err
	}
	if err := again(func() error { return unix.Connect(fd, sockaddr(to)) }); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

// accept waits for a connection.
func accept(listener int) (fd int, err error) {
	err = again(func() (err error) {
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("accept: %w", err)
	}
	limit := unix.Timeval{Sec: stall}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
}

// again does what a signal has interrupted again: the runtime sends itself some.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// pin has the calling thread run on one CPU; less than 0 is any.
func pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	return nil
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	len    uint32
	_      [4]byte
}

// batch is what one sendmmsg or recvmmsg takes.
type batch struct {
	messages []message
	iovecs   []unix.Iovec
	buffers  []byte
}

func newBatch(n, size int) *batch {
	b := &batch{make([]message, n), make([]unix.Iovec, n), make([]byte, n*size)}
	for i := range b.messages {
		b.iovecs[i].Base = &b.buffers[i*size]
		b.iovecs[i].SetLen(size)
		b.messages[i].header.Iov = &b.iovecs[i]
		b.messages[i].header.SetIovlen(1)
	}
	return b
}

func (b *batch) call(trap, flags uintptr, fd int) (int, error) {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(len(b.messages)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (b *batch) send(fd int) (int, error) { return b.call(unix.SYS_SENDMMSG, 0, fd) }

// receive takes datagrams that are there.
func (b *batch) receive(fd int) (int, error) { return b.call(unix.SYS_RECVMMSG, unix.MSG_DONTWAIT, fd) }
