package tcbpf

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/underlay"
)

// path is the way to a peer: what the routing and the neighbour tables say.
type path struct {
	link        int // ifindex of the underlay
	name        string
	next        netip.Addr // the next hop
	source      net.HardwareAddr
	destination net.HardwareAddr // nil while the neighbour is not resolved
	kind        linkKind
	mtu         underlay.MTU
	up          bool
}

// same says that packets leave the same way, with the same headers.
func (p path) same(o path) bool {
	return p.link == o.link && p.name == o.name && p.next == o.next && p.kind == o.kind && p.mtu == o.mtu && p.up == o.up &&
		bytes.Equal(p.source, o.source) && bytes.Equal(p.destination, o.destination)
}

func (p path) resolved() bool {
	return p.up && (p.destination != nil || p.kind == withoutEthernet)
}

// linkKind is what an underlay expects of packets.
type linkKind int

const (
	unusable linkKind = iota
	// onEthernet: an Ethernet header, so the next hop has to be resolved.
	onEthernet
	// withoutEthernet: packets as they are, as over tun, WireGuard and PPP.
	withoutEthernet
)

// bare are the types of links (ARPHRD_…) whose packets have no header of the link's: tun and
// WireGuard, PPP, IP in IP, and modems (RAWIP).
var bare = []string{"none", "ppp", "ipip", "unknown519"}

// kindOf says what a link expects. Of tunnels of the kernel's, those whose packets come in
// at their own headers (GRE, SIT) are not among them: programs see those headers first.
func kindOf(a *netlink.LinkAttrs) linkKind {
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return unusable
	case a.EncapType == "ether":
		return onEthernet
	case slices.Contains(bare, a.EncapType):
		return withoutEthernet
	}
	return unusable
}

// findPath looks the way to remote up. The neighbour may be unresolved: then it
// is asked for, and the next Refresh will find it. before is the way found last:
// the address of a neighbour that the kernel has forgotten since, not missed, is
// still good.
func (d *Datapath) findPath(local, remote netip.Addr, before path) (path, error) {
	local, remote = local.Unmap(), remote.Unmap()
	routes, err := underlay.Routes(d.nl, local, remote)
	if err != nil || len(routes) == 0 {
		// Without a route there is nothing to send over, for now.
		if err != nil && !underlay.Unreachable(err) {
			return path{}, fmt.Errorf("look up the route to %v: %w", remote, err)
		}
		return path{}, nil
	}
	route := routes[0]
	link, err := d.nl.LinkByIndex(route.LinkIndex)
	if err != nil {
		return path{}, fmt.Errorf("look up the link of the route to %v: %w", remote, err)
	}
	attrs := link.Attrs()
	kind := kindOf(attrs)
	if kind == unusable {
		return path{}, fmt.Errorf("%v is reached over %s (%s): %w", remote, attrs.Name, attrs.EncapType, ErrUnderlay)
	}
	p := path{
		link:   attrs.Index,
		name:   attrs.Name,
		source: attrs.HardwareAddr,
		up:     attrs.Flags&net.FlagUp != 0,
		kind:   kind,
	}
	if p.mtu, err = underlay.MTUOf(d.nl, local, remote, &route, attrs.MTU); err != nil {
		if underlay.Unreachable(err) {
			return path{}, nil
		}
		return path{}, fmt.Errorf("look up the route to %v: %w", remote, err)
	}
	next := route.Gw
	if via, ok := route.Via.(*netlink.Via); ok && next == nil {
		next = via.Addr
	}
	p.next = remote
	if gateway, ok := netip.AddrFromSlice(next); ok {
		p.next = gateway.Unmap()
	}
	if !p.up || kind == withoutEthernet {
		return p, nil
	}
	var forgotten bool
	p.destination, forgotten, err = d.neighbour(p.link, p.next)
	if forgotten && before.link == p.link && before.next == p.next {
		p.destination = before.destination
	}
	return p, err
}

// neighbour finds the link-layer address of an IP address, nil if it is not
// known; forgotten says that the kernel has no entry for it. The kernel is asked
// to look for it, and to see whether a stale one is still there: frames that go
// past the stack do not make it do so.
func (d *Datapath) neighbour(link int, next netip.Addr) (address net.HardwareAddr, forgotten bool, err error) {
	family := netlink.FAMILY_V6
	if next.Is4() {
		family = netlink.FAMILY_V4
	}
	ip := net.IP(next.AsSlice())
	neighbours, err := d.nl.NeighList(link, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, false, fmt.Errorf("list the neighbours of link %d: %w", link, err)
	}
	const (
		settled = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
		known   = settled | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	)
	forgotten = true
	for _, n := range neighbours {
		if !n.IP.Equal(ip) || n.State == netlink.NUD_NONE {
			continue
		}
		forgotten = false
		if n.State&known != 0 && len(n.HardwareAddr) == 6 {
			address = n.HardwareAddr
		}
		if n.State&settled != 0 {
			return address, false, nil
		}
	}
	// A refusal is no reason to fail: the next Refresh asks again.
	use := &netlink.Neigh{LinkIndex: link, Family: family, IP: ip, Flags: netlink.NTF_USE}
	if err := d.nl.NeighSet(use); err != nil {
		d.log.Debug("neighbour not asked for", "link", link, "address", ip, "err", err)
	}
	return address, forgotten, nil
}

func isEthernet(a *netlink.LinkAttrs) bool {
	return kindOf(a) == onEthernet
}

// owners are the links that have the address and can be an underlay.
func (d *Datapath) owners(local netip.Addr) ([]int, error) {
	family := netlink.FAMILY_V6
	if local.Unmap().Is4() {
		family = netlink.FAMILY_V4
	}
	addrs, err := d.nl.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var links []int
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); !ok || ip.Unmap() != local.Unmap() {
			continue
		}
		link, err := d.nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			continue // gone in between
		}
		if kindOf(link.Attrs()) != unusable {
			links = append(links, a.LinkIndex)
		}
	}
	return links, nil
}
