package tcfilter

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Devices finds devices of a network namespace by their names, for those who look often and
// want no more than the number: of the kernel's answer nothing else is read. It belongs to one
// goroutine.
type Devices struct {
	fd  int
	seq uint32
	buf []byte
}

// OpenDevices finds those of the calling thread's namespace.
func OpenDevices() (*Devices, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &Devices{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// Asked is how many look-ups there were.
func (d *Devices) Asked() int { return int(d.seq) }

// Close ends it.
func (d *Devices) Close() error { return unix.Close(d.fd) }

// skipStats is RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h).
const skipStats = 1 << 3

// Index is a device's number; 0 if there is none of that name.
func (d *Devices) Index(name string) (int, error) {
	d.seq++
	if err := unix.Sendto(d.fd, getLink(name, d.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("find the device %s: %w", name, err)
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find the device %s: %w", name, err)
		}
		index, ours, err := answered(d.buf[:n], d.seq)
		switch {
		case !ours:
		case err == unix.ENODEV:
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("find the device %s: %w", name, err)
		default:
			return index, nil
		}
	}
}

// getLink is the request for a link by its name.
func getLink(name string, seq uint32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg, 96)
	attr := func(kind uint16, value []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, value...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	attr(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats))
	attr(unix.IFLA_IFNAME, append([]byte(name), 0))
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return b
}

// answered reads the answer; ours is false for one to another request.
func answered(b []byte, seq uint32) (index int, ours bool, err error) {
	if len(b) < unix.SizeofNlMsghdr+8 || binary.NativeEndian.Uint32(b[8:]) != seq {
		return 0, false, nil
	}
	rest := b[unix.SizeofNlMsghdr:]
	switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
	case unix.NLMSG_ERROR:
		return 0, true, unix.Errno(-int32(binary.NativeEndian.Uint32(rest)))
	case unix.RTM_NEWLINK:
		return int(binary.NativeEndian.Uint32(rest[4:])), true, nil
	default:
		return 0, true, fmt.Errorf("a message of type %d", kind)
	}
}

// Numbered is a device whose number and name are all that is known of it.
func Numbered(index int, name string) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name}}
}
