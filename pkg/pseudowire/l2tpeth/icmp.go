package l2tpeth

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/underlay"
)

// ignoreICMP has packets of a tunnel over IPv4 be as long as the link takes, whatever routers
// say of the path (ICMP), which anybody can forge, and which the kernel would believe down to 552
// octets: the packets go without DF, so that no router has a reason to say something, and each
// cuts what it does not carry. The option passes over the route's own MTU, too: where that is less
// than the link's it is not set.
//
// Over IPv6 there is no such option: the kernel looks at no socket as it cuts a tunnel's packets.
func (d *Datapath) ignoreICMP(t *tunnel) error {
	if six(t.Tunnel) {
		return nil
	}
	lower, err := d.routes.lower(t.Tunnel)
	if underlay.Unreachable(err) || err == nil && t.discovery == discoveryOf(!lower) {
		return nil
	}
	if err == nil {
		err = d.holds(t)
	}
	if err == nil {
		err = d.socket.setDiscovery(t.Socket, discoveryOf(!lower))
	}
	if err != nil {
		return &OpError{"look at the path of", t.String(), err}
	}
	t.discovery = discoveryOf(!lower)
	return nil
}

// tryIgnoreICMP leaves it to the next Refresh if it fails: a tunnel carries frames without it.
func (d *Datapath) tryIgnoreICMP(t *tunnel) {
	if err := d.ignoreICMP(t); err != nil {
		d.log.Warn("a tunnel may heed what routers say of its path for now", "tunnel", t.Name, "err", err)
	}
}

// discoveryOf is IP_MTU_DISCOVER: both go without DF.
func discoveryOf(ignoreICMP bool) int {
	if ignoreICMP {
		return unix.IP_PMTUDISC_OMIT
	}
	return unix.IP_PMTUDISC_DONT
}

// holds makes sure that a tunnel's descriptor is of the socket that it was made of.
func (d *Datapath) holds(t *tunnel) error {
	socket, err := d.socket.identity(t.Socket)
	if err == nil && socket != t.socket {
		err = fmt.Errorf("descriptor %d is another socket's: set the tunnel anew", t.Socket)
	}
	return err
}

// routing is the routing table.
type routing interface {
	// lower reports whether the route to a tunnel's peer has an MTU of its own that is less than its link's.
	lower(t pseudowire.Tunnel) (bool, error)
	close()
}

type kernelRoutes struct{ nl *netlink.Handle }

func openRoutes() (kernelRoutes, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	return kernelRoutes{nl}, err
}

func (r kernelRoutes) lower(t pseudowire.Tunnel) (bool, error) {
	mtu, link, err := underlay.PathMTU(r.nl, t.Local.Addr(), t.Remote.Addr())
	if err == nil && link == 0 {
		err = unix.ENETUNREACH
	}
	return mtu.Given < link, err
}

func (r kernelRoutes) close() { r.nl.Close() }
