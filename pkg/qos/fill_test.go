package qos_test

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

const frames = 20

// fill sends packets with a priority: raw frames, so that nothing has to answer.
func fill(h *host, priority uint32) {
	h.t.Helper()
	h.must(h.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, int(priority)); err != nil {
			return err
		}
		frame := make([]byte, 1000)
		copy(frame, net.HardwareAddr{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
		for range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: h.index, Halen: 6}); err != nil && !errors.Is(err, unix.ENOBUFS) { // a full queue says so
				return err
			}
		}
		return nil
	}))
}
