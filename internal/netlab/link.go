package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	nlsocket "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a network device in a namespace. Its methods return it again, to be written in a row.
type Link struct {
	NS    *Namespace
	Name  string
	Index int
	MAC   net.HardwareAddr
	peer  *Link // of a veth
	up    bool

	sendMu sync.Mutex
	sender *os.File
}

// Veth makes a veth pair with one end in each namespace, both down.
func (l *Lab) Veth(a *Namespace, aName string, b *Namespace, bName string) (*Link, *Link) {
	la, lb := &Link{NS: a, Name: aName}, &Link{NS: b, Name: bName}
	if l.Err() != nil {
		return la, lb
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	if err := a.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(b.fd)}); err != nil {
		l.fail("make veth %s in %s to %s in %s: %w", aName, a.Name, bName, b.Name, err)
		return la, lb
	}
	la.peer, lb.peer = lb, la
	return la.find(), lb.find()
}

// Bridge makes a bridge that is up, and puts the ports into it.
func (ns *Namespace) Bridge(name string, ports ...*Link) *Link {
	return ns.bridge(&netlink.Bridge{}, name, ports).Up()
}

// SilentBridge is a Bridge that sends nothing of its own. Others speak IPv6, and, as they snoop
// on IGMP, join a group when they come up: they say so within the next seconds, into each of
// the ports that they have by then.
func (ns *Namespace) SilentBridge(name string, ports ...*Link) *Link {
	snooping := false
	return ns.bridge(&netlink.Bridge{MulticastSnooping: &snooping}, name, ports).Silent().Up()
}

// bridge makes one that is down.
func (ns *Namespace) bridge(b *netlink.Bridge, name string, ports []*Link) *Link {
	l := &Link{NS: ns, Name: name}
	if ns.lab.Err() != nil {
		return l
	}
	b.LinkAttrs = netlink.NewLinkAttrs()
	b.Name = name
	if err := ns.nl.LinkAdd(b); err != nil {
		ns.lab.fail("make bridge %s in %s: %w", name, ns.Name, err)
		return l
	}
	l.find()
	for _, p := range ports {
		p.Master(l)
	}
	return l
}

// Link finds a link that somebody else made.
func (ns *Namespace) Link(name string) *Link {
	return (&Link{NS: ns, Name: name}).find()
}

func (l *Link) find() *Link {
	if l.NS.lab.Err() != nil {
		return l
	}
	link, err := l.NS.nl.LinkByName(l.Name)
	if err != nil {
		l.NS.lab.fail("find %s in %s: %w", l.Name, l.NS.Name, err)
		return l
	}
	l.Index, l.MAC = link.Attrs().Index, link.Attrs().HardwareAddr
	return l
}

// set does one thing to the link.
func (l *Link) set(what string, f func(*netlink.Handle, netlink.Link) error) *Link {
	if l.NS.lab.Err() != nil {
		return l
	}
	if err := f(l.NS.nl, &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.Index}}); err != nil {
		l.NS.lab.fail("%s of %s in %s: %w", what, l.Name, l.NS.Name, err)
	}
	return l
}

// Up brings the link up. The second end of a veth pair to come up waits until both
// are in operation: the kernel notices a carrier up to a second late, and
// IPv6 does not work before.
func (l *Link) Up() *Link {
	l.set("up", func(h *netlink.Handle, d netlink.Link) error { return h.LinkSetUp(d) })
	l.up = true
	if l.peer != nil && l.peer.up {
		l.peer.Operational()
		l.Operational()
	}
	return l
}

// Operational waits until the kernel sees the link in operation and has joined
// the groups at which the IPv6 addresses that Addr added are asked for.
func (l *Link) Operational() *Link {
	return l.set("state", func(h *netlink.Handle, link netlink.Link) error {
		ctx, cancel := context.WithTimeout(context.Background(), operationalWithin)
		defer cancel()
		if err := l.NS.WaitLink(ctx, l.Name, "is in operation", func(d netlink.Link) bool {
			return d != nil && d.Attrs().OperState == netlink.OperUp
		}); err != nil {
			return err
		}
		return l.NS.await(ctx, unix.RTNLGRP_IPV6_IFADDR, "the addresses of "+l.Name+" can be used", func() (bool, error) {
			addrs, err := h.AddrList(link, netlink.FAMILY_V6)
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				return false, nil // it changed meanwhile, which is news
			}
			return !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_NODAD != 0 && a.Flags&unix.IFA_F_TENTATIVE != 0 }), err
		})
	})
}

// operationalWithin is long: the machine may be a slow one with much else to do.
const operationalWithin = 20 * time.Second

// Down takes the link down.
func (l *Link) Down() *Link {
	l.up = false
	return l.set("down", func(h *netlink.Handle, d netlink.Link) error { return h.LinkSetDown(d) })
}

// MTU sets the link's MTU in octets.
func (l *Link) MTU(n int) *Link {
	return l.set("MTU", func(h *netlink.Handle, d netlink.Link) error { return h.LinkSetMTU(d, n) })
}

// Address sets the link's MAC address.
func (l *Link) Address(mac string) *Link {
	return l.set("address", func(h *netlink.Handle, d netlink.Link) error {
		a, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		l.MAC = a
		return h.LinkSetHardwareAddr(d, a)
	})
}

// Master makes the link a port of a bridge.
func (l *Link) Master(bridge *Link) *Link {
	return l.set("bridge "+bridge.Name, func(h *netlink.Handle, d netlink.Link) error { return h.LinkSetMasterByIndex(d, bridge.Index) })
}

// Addr adds addresses with their prefix lengths, as "192.0.2.1/24". IPv6 ones are usable at once: duplicates are not looked for.
func (l *Link) Addr(prefixes ...string) *Link {
	for _, p := range prefixes {
		l.set("address "+p, func(h *netlink.Handle, d netlink.Link) error {
			a, err := netlink.ParseAddr(p)
			if err != nil {
				return err
			}
			if a.IP.To4() == nil {
				a.Flags = unix.IFA_F_NODAD
			}
			return h.AddrAdd(d, a)
		})
	}
	if l.up && l.peer != nil && l.peer.up {
		l.Operational()
	}
	return l
}

// Route adds a route over the link to a prefix ("default" or "198.51.100.0/24"), by way of a gateway or, with "", directly.
func (l *Link) Route(prefix, via string) *Link {
	return l.set("route "+prefix, func(h *netlink.Handle, d netlink.Link) error {
		r := &netlink.Route{LinkIndex: l.Index}
		if via != "" {
			r.Gw = net.ParseIP(via)
		}
		if prefix == "default" {
			zero, bits := net.IPv4zero, 32
			if r.Gw != nil && r.Gw.To4() == nil {
				zero, bits = net.IPv6zero, 128
			}
			r.Dst = &net.IPNet{IP: zero, Mask: net.CIDRMask(0, bits)}
			return h.RouteAdd(r)
		}
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			return err
		}
		r.Dst = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		return h.RouteAdd(r)
	})
}

// Silent takes IPv6 off the link, so that it sends nothing of its own accord:
// no router solicitations, no MLD reports.
func (l *Link) Silent() *Link {
	l.NS.Sysctl("net.ipv6.conf."+l.Name+".disable_ipv6", "1")
	return l
}

// Delete removes the link, and a veth's other end with it.
func (l *Link) Delete() *Link {
	return l.set("removal", func(h *netlink.Handle, d netlink.Link) error { return h.LinkDel(d) })
}

// Attrs are the link's attributes now.
func (l *Link) Attrs() (*netlink.LinkAttrs, error) {
	link, err := l.NS.nl.LinkByIndex(l.Index)
	if err != nil {
		return nil, fmt.Errorf("netlab: %s in %s: %w", l.Name, l.NS.Name, err)
	}
	return link.Attrs(), nil
}

// WaitLink waits until the link of that name satisfies cond, which is asked at
// first and after every change of any link. A link that is not there is nil.
func (ns *Namespace) WaitLink(ctx context.Context, name, what string, cond func(netlink.Link) bool) error {
	return ns.await(ctx, unix.RTNLGRP_LINK, name+" "+what, func() (bool, error) {
		link, err := ns.nl.LinkByName(name)
		if err != nil {
			link = nil
		}
		return cond(link), nil
	})
}

// await waits until cond, which is asked at first and after every message to the multicast group.
func (ns *Namespace) await(ctx context.Context, group int, what string, cond func() (bool, error)) error {
	conn, err := nlsocket.Dial(unix.NETLINK_ROUTE, &nlsocket.Config{NetNS: ns.fd, Groups: 1 << (group - 1)})
	if err != nil {
		return fmt.Errorf("netlab: watch %s: %w", ns.Name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		if done, err := cond(); done || err != nil {
			return err
		}
		// What is received only says that it is time to look again; so does an overrun.
		if _, err := conn.Receive(); ctx.Err() != nil {
			return fmt.Errorf("netlab: %s: waiting until %s: %w", ns.Name, what, ctx.Err())
		} else if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("netlab: watch %s: %w", ns.Name, err)
		}
	}
}
