package transport

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/underlay"
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

// vrfOf is the name of the VRF that an address is in, empty for none, or where that cannot be found out.
func vrfOf(addr netip.Addr) string {
	v, err := underlay.VRFOf(new(netlink.Handle), addr)
	if err != nil {
		return ""
	}
	return v.Name
}
