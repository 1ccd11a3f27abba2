// Package vrf finds the VRF that an address of this host is in: sockets and routes of the address are those of
// that VRF. Sockets (package transport) and the look for routes (package underlay) both ask here, so that they agree.
package vrf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// VRF is one of the calling thread's network namespace. The zero one is none.
type VRF struct {
	Index int
	Name  string
}

// Of is the VRF that the interface with an address is in: none where an interface that is in none has it, or no
// interface has, and that of the first interface of several.
func Of(addr netip.Addr) (VRF, error) {
	addr = addr.Unmap().WithZone("")
	fd, err := open()
	if err != nil {
		return VRF{}, fmt.Errorf("look for the VRF of %v: %w", addr, err)
	}
	defer unix.Close(fd)
	v, err := of(fd, addr)
	if err != nil {
		return VRF{}, fmt.Errorf("look for the VRF of %v: %w", addr, err)
	}
	return v, nil
}

func of(fd int, addr netip.Addr) (first VRF, err error) {
	holders, err := holdersOf(fd, addr)
	if err != nil {
		return VRF{}, err
	}
	for _, index := range holders {
		l, err := linkOf(fd, index)
		if err == unix.ENODEV {
			continue // it has gone in between
		}
		if err != nil {
			return VRF{}, err
		}
		master := link{}
		if l.master != 0 {
			if master, err = linkOf(fd, l.master); err != nil && err != unix.ENODEV {
				return VRF{}, err
			}
		}
		if master.kind != "vrf" {
			return VRF{}, nil // it is there, or soon will be (RFC 4862, Section 5.4: tentative)
		}
		if first == (VRF{}) {
			first = VRF{int(l.master), master.name}
		}
	}
	return first, nil
}

// holdersOf are the interfaces that have an address, the first first.
func holdersOf(fd int, addr netip.Addr) (holders []uint32, err error) {
	family := byte(unix.AF_INET6)
	if addr.Is4() {
		family = unix.AF_INET
	}
	err = ask(fd, unix.RTM_GETADDR, unix.NLM_F_DUMP, []byte{family, 0, 0, 0, 0, 0, 0, 0}, func(m *syscall.NetlinkMessage) error {
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if m.Header.Type != unix.RTM_NEWADDR || err != nil {
			return err
		}
		for _, a := range attrs {
			// Of a pair of addresses IFA_LOCAL is the host's; IPv6 has that one where it is a pair.
			if t := a.Attr.Type; t != unix.IFA_LOCAL && (t != unix.IFA_ADDRESS || addr.Is4()) {
				continue
			}
			if is, ok := netip.AddrFromSlice(a.Value); ok && is == addr {
				holders = append(holders, binary.NativeEndian.Uint32(m.Data[4:])) // struct ifaddrmsg
			}
		}
		return nil
	})
	slices.Sort(holders)
	return slices.Compact(holders), err
}

// link is what is to be known of one.
type link struct {
	name, kind string
	master     uint32
}

func linkOf(fd int, index uint32) (l link, err error) {
	request := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request[4:], index)
	err = ask(fd, unix.RTM_GETLINK, 0, request, func(m *syscall.NetlinkMessage) error {
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if m.Header.Type != unix.RTM_NEWLINK || err != nil {
			return err
		}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				l.name = unix.ByteSliceToString(a.Value)
			case unix.IFLA_MASTER:
				l.master = binary.NativeEndian.Uint32(a.Value)
			case unix.IFLA_LINKINFO:
				l.kind = kind(a.Value)
			}
		}
		return nil
	})
	return l, err
}

func open() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ask sends a request, and calls f with each message of the answer. The kernel answers before the request has returned.
func ask(fd int, what uint16, flags uint16, body []byte, f func(*syscall.NetlinkMessage) error) error {
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(request, uint32(cap(request)))
	binary.NativeEndian.PutUint16(request[4:], what)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|flags)
	if err := unix.Sendto(fd, append(request, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(answer[:n])
		if err != nil {
			return err
		}
		for i := range messages {
			m := &messages[i]
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return unix.EBADMSG
				}
				if e := int32(binary.NativeEndian.Uint32(m.Data)); e != 0 {
					return unix.Errno(-e)
				}
				return nil
			}
			if err := f(m); err != nil {
				return err
			}
		}
		if flags&unix.NLM_F_DUMP == 0 {
			return nil
		}
	}
}

// kind is what a link is, by IFLA_LINKINFO.
func kind(info []byte) string {
	for len(info) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(info))
		if n < unix.SizeofRtAttr || n > len(info) {
			break
		}
		if binary.NativeEndian.Uint16(info[2:]) == unix.IFLA_INFO_KIND {
			return unix.ByteSliceToString(info[unix.SizeofRtAttr:n])
		}
		info = info[min((n+3)&^3, len(info)):]
	}
	return ""
}
