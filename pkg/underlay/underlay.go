// Package underlay looks up ways through the network that tunnels cross.
package underlay

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/vrf"
)

// Routes are the ways of packets from one address to another, as of `ip route get`: by the tables
// of the VRF that the interface with local is in, where no interface that is in none has it. local may be the zero one or an unspecified one:
// the host chooses. nl is of the calling thread's network namespace.
func Routes(nl *netlink.Handle, local, remote netip.Addr) ([]netlink.Route, error) {
	local, remote = local.Unmap(), remote.Unmap()
	o := new(netlink.RouteGetOptions)
	if local.IsValid() && !local.IsUnspecified() {
		v, err := vrf.Of(local)
		if err != nil {
			return nil, err
		}
		o.OifIndex, o.SrcAddr = v.Index, local.AsSlice()
	}
	return nl.RouteGetWithOptions(remote.AsSlice(), o)
}
