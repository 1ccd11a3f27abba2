// Package underlay looks up ways through the network that tunnels cross.
package underlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Routes are the ways of packets from one address to another, as of `ip route get`: by the tables
// of the VRF that the interface with local is in, where no interface that is in none has it. local may be the zero one or an unspecified one:
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

// vrfOf is the VRF that an address is in, as sockets find it (transport.inVRF): 0 if an interface in
// none has it, and that of the first interface of several.
func vrfOf(nl *netlink.Handle, addr netip.Addr) (index int, err error) {
	family := netlink.FAMILY_V6
	if addr.Is4() {
		family = netlink.FAMILY_V4
	}
	addrs, err := nl.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	holder := 0
	for _, a := range addrs {
		if !a.IP.Equal(addr.AsSlice()) {
			continue
		}
		link, err := nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			continue // it has gone in between
		}
		master, err := nl.LinkByIndex(link.Attrs().MasterIndex)
		if err != nil || master.Type() != "vrf" {
			return 0, nil
		}
		if holder == 0 || a.LinkIndex < holder {
			holder, index = a.LinkIndex, master.Attrs().Index
		}
	}
	return index, nil
}
