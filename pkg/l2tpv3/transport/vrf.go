package transport

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// inVRF opens a socket for a local address. The addresses of interfaces in a VRF are there for
// sockets alone that are bound to it: where the host does not have the address, it is opened
// once more in the VRF of the interface that does.
func inVRF[S any](local netip.Addr, open func(vrf string) (S, error)) (S, error) {
	s, err := open("")
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return s, err
	}
	if vrf := vrfOf(local); vrf != "" {
		return open(vrf)
	}
	return s, err
}

func bindTo(fd int, vrf string) error {
	if vrf == "" {
		return nil
	}
	return unix.BindToDevice(fd, vrf)
}

// vrfOf is the VRF that the interface with an address is in, empty if one in none has it, and
// that of the first interface of several.
func vrfOf(addr netip.Addr) string {
	var holders []uint32
	each(unix.RTM_GETADDR, unix.RTM_NEWADDR, func(index uint32, attrs []syscall.NetlinkRouteAttr) {
		for _, a := range attrs {
			// Of a pair of addresses IFA_LOCAL is the host's; IPv6 has that one where it is a pair.
			if t := a.Attr.Type; t != unix.IFA_LOCAL && (t != unix.IFA_ADDRESS || addr.Is4()) {
				continue
			}
			if is, ok := netip.AddrFromSlice(a.Value); ok && is == addr.WithZone("") {
				holders = append(holders, index)
			}
		}
	})
	if len(holders) == 0 {
		return ""
	}
	masters, vrfs := map[uint32]uint32{}, map[uint32]string{}
	each(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(index uint32, attrs []syscall.NetlinkRouteAttr) {
		name, is := "", false
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				name = unix.ByteSliceToString(a.Value)
			case unix.IFLA_MASTER:
				masters[index] = binary.NativeEndian.Uint32(a.Value)
			case unix.IFLA_LINKINFO:
				is = kind(a.Value) == "vrf"
			}
		}
		if is {
			vrfs[index] = name
		}
	})
	slices.Sort(holders)
	for _, index := range holders {
		if vrfs[masters[index]] == "" {
			return "" // it is there, or soon will be (RFC 4862, Section 5.4: tentative)
		}
	}
	return vrfs[masters[holders[0]]]
}

// each calls f with every entry of a table of the kernel's, as it is now; none where it cannot be read.
func each(request int, answer uint16, f func(index uint32, attrs []syscall.NetlinkRouteAttr)) {
	table, err := syscall.NetlinkRIB(request, unix.AF_UNSPEC)
	if err != nil {
		return
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return
	}
	for i := range messages {
		m := &messages[i]
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if m.Header.Type != answer || err != nil {
			continue
		}
		// struct ifaddrmsg and struct ifinfomsg have it at the same place.
		f(binary.NativeEndian.Uint32(m.Data[4:]), attrs)
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
