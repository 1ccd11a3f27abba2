package agent

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openPacketSocket opens a socket that gets the frames of all interfaces which a filter lets through. set
// adds what else is to be set, nil for nothing. It has to be called in the network namespace.
func openPacketSocket(filter []unix.SockFilter, set func(fd int) error) (*os.File, syscall.RawConn, error) {
	// Without a protocol it receives nothing, until it has its filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("packet socket", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err = os.NewSyscallError("filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
	if err == nil && set != nil {
		err = set(fd)
	}
	if err == nil {
		err = os.NewSyscallError("bind packet socket", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}))
	}
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "packet socket")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, raw, nil
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
