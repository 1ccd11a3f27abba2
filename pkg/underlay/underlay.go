// Package underlay looks up ways through the network that tunnels cross.
package underlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Routes are the ways of packets from one address to another, as of `ip route get`: by the tables
// of the VRF that the interface with local is in. local may be the zero one or an unspecified one:
// the host chooses.
func Routes(nl *netlink.Handle, local, remote netip.Addr) ([]netlink.Route, error) {
	local, remote = local.Unmap(), remote.Unmap()
	o := new(netlink.RouteGetOptions)
	if local.IsValid() && !local.IsUnspecified() {
		var err error
		if o.OifIndex, err = vrfOf(nl, local); err != nil {
			return nil, err
		}
		o.SrcAddr = local.AsSlice()
	}
	return nl.RouteGetWithOptions(remote.AsSlice(), o)
}

// vrfOf is the VRF that an address is in, 0 if it is in none.
func vrfOf(nl *netlink.Handle, addr netip.Addr) (index int, err error) {
	family := netlink.FAMILY_V6
	if addr.Is4() {
		family = netlink.FAMILY_V4
	}
	addrs, err := nl.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if !a.IP.Equal(addr.AsSlice()) {
			continue
		}
		// One that has gone in between is in none.
		link, err := nl.LinkByIndex(a.LinkIndex)
		if err != nil || link.Attrs().MasterIndex == 0 {
			continue
		}
		if master, err := nl.LinkByIndex(link.Attrs().MasterIndex); err == nil && master.Type() == "vrf" {
			return master.Attrs().Index, nil
		}
	}
	return 0, nil
}
