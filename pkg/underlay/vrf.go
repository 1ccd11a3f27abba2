package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VRF is one of a network namespace. The zero one is none.
type VRF struct {
	Index int
	Name  string
}

// VRFOf is the VRF that the interface with an address is in: none where an interface that is in none has it, or no
// interface has, and that of the first interface of several. Sockets and routes of the address are those of that VRF.
func VRFOf(nl *netlink.Handle, addr netip.Addr) (VRF, error) {
	addr = addr.Unmap().WithZone("")
	v, err := vrfOf(nl, addr)
	if err != nil {
		return VRF{}, fmt.Errorf("look for the VRF of %v: %w", addr, err)
	}
	return v, nil
}

func vrfOf(nl *netlink.Handle, addr netip.Addr) (first VRF, err error) {
	holders, err := holdersOf(nl, addr)
	if err != nil {
		return VRF{}, err
	}
	for _, index := range holders {
		l, err := linkOf(nl, index)
		if err != nil {
			return VRF{}, err
		}
		if l == nil {
			continue // it has gone in between
		}
		var master netlink.Link
		if i := l.Attrs().MasterIndex; i != 0 {
			if master, err = linkOf(nl, i); err != nil {
				return VRF{}, err
			}
		}
		if master == nil || master.Type() != "vrf" {
			return VRF{}, nil // it is there, or soon will be (RFC 4862, Section 5.4: tentative)
		}
		if first == (VRF{}) {
			first = VRF{master.Attrs().Index, master.Attrs().Name}
		}
	}
	return first, nil
}

// holdersOf are the interfaces that have an address, the first first.
func holdersOf(nl *netlink.Handle, addr netip.Addr) (holders []int, err error) {
	family := netlink.FAMILY_V6
	if addr.Is4() {
		family = netlink.FAMILY_V4
	}
	var all []netlink.Addr
	for range 5 { // again if they changed while they were being read
		if all, err = nl.AddrList(nil, family); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if is, ok := netip.AddrFromSlice(a.IP); ok && is.Unmap() == addr {
			holders = append(holders, a.LinkIndex)
		}
	}
	slices.Sort(holders)
	return slices.Compact(holders), nil
}

// linkOf is nil for one that is not there.
func linkOf(nl *netlink.Handle, index int) (netlink.Link, error) {
	l, err := nl.LinkByIndex(index)
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return l, err
}
