// Package underlay looks up ways through the network that tunnels cross.
package underlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routes are the ways of packets from one address to another, as of `ip route get`: by the tables
// of the VRF that the interface with local is in, where no interface that is in none has it. local may be the zero one or an unspecified one:
// the host chooses. nl is of the calling thread's network namespace.
func Routes(nl *netlink.Handle, local, remote netip.Addr) ([]netlink.Route, error) {
	return lookUp(nl, local, remote, new(netlink.RouteGetOptions))
}

func lookUp(nl *netlink.Handle, local, remote netip.Addr, o *netlink.RouteGetOptions) ([]netlink.Route, error) {
	local, remote = local.Unmap(), remote.Unmap()
	if local.IsValid() && !local.IsUnspecified() {
		v, err := VRFOf(nl, local)
		if err != nil {
			return nil, err
		}
		o.OifIndex, o.SrcAddr = v.Index, local.AsSlice()
	}
	return nl.RouteGetWithOptions(remote.AsSlice(), o)
}

// Unreachable says that an error of a look for a route, or for its link, means that there is no way now: no route, one
// that refuses packets, or a link that has just gone.
func Unreachable(err error) bool {
	return errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) // a route that prohibits it
}

// LeastMTU is what every path carries (RFC 8200, Section 5), and what is believed of one at the least.
const LeastMTU = 1280

// MTU is the longest packet, IP header included, that leaves for a peer in one piece. The zero value
// is that of no way.
type MTU struct {
	// Given is what the link takes and the route allows, as they were set up.
	Given int
	// Heard is that, or what routers say of the path if that is less (ICMP, RFC 1191 and RFC 8201), which
	// anybody can forge: never less than LeastMTU for that.
	Heard int
}

// MTUOf is the MTU of a way that Routes has found, over a link of that MTU.
func MTUOf(nl *netlink.Handle, local, remote netip.Addr, way *netlink.Route, link int) (MTU, error) {
	m := MTU{link, link}
	if way.MTU == 0 {
		return m, nil
	}
	// What the kernel has heard takes the place of the route's own: that is asked for.
	routes, err := lookUp(nl, local, remote, &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return MTU{}, err
	}
	if len(routes) > 0 && routes[0].MTU > 0 {
		m.Given = min(link, routes[0].MTU)
	}
	m.Heard = min(m.Given, max(way.MTU, LeastMTU))
	return m, nil
}

// PathMTU is that of the way to a peer, and what its link takes: zero values where there is no way.
func PathMTU(nl *netlink.Handle, local, remote netip.Addr) (m MTU, link int, err error) {
	routes, err := Routes(nl, local, remote)
	if err != nil || len(routes) == 0 {
		return MTU{}, 0, unlessUnreachable(err, "look up the route to %v: %w", remote)
	}
	l, err := nl.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return MTU{}, 0, unlessUnreachable(err, "look up the link of the route to %v: %w", remote)
	}
	link = l.Attrs().MTU
	if m, err = MTUOf(nl, local, remote, &routes[0], link); err != nil {
		return MTU{}, 0, unlessUnreachable(err, "look up the route to %v: %w", remote)
	}
	return m, link, nil
}

func unlessUnreachable(err error, format string, remote netip.Addr) error {
	if err == nil || Unreachable(err) {
		return nil
	}
	return fmt.Errorf(format, remote, err)
}

// AtMost is the MTU of the same way that carries no more than n, 0 for any.
func (m MTU) AtMost(n int) MTU {
	if n == 0 {
		return m
	}
	return MTU{min(m.Given, n), min(m.Heard, n)}
}
