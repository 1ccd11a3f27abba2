package tcbpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// Tags are no part of a device's MTU; the outer end has to take a frame with
	// as many as the programs do.
	roomForTags   = 4 * 4
	addrGenNone   = 1 // IN6_ADDR_GEN_MODE_NONE
	defaultMTU    = 1500
	maxMTU        = 9216
	leastMTU      = 68
	ipv6ConfTree  = "/proc/sys/net/ipv6/conf"
	disableIPv6At = "disable_ipv6"
)

// pair is a veth pair.
type pair struct {
	inner, outer           int // ifindexes
	innerName, outerName   string
	innerUp, outerUp, made bool
	// found says how the ends were found.
	found [2]endState
}

// endState is what somebody may have changed of an end of a pair.
type endState struct {
	mtu   int
	alias string
	arp   bool
}

// pairSpec is a veth pair to be.
type pairSpec struct {
	inner, outer       string
	innerAlt, outerAlt string
	alias              string
	innerMTU, outerMTU int
}

// ensurePair makes a veth pair, or what there is of it into what it should be.
func (d *Datapath) ensurePair(s pairSpec) (pair, error) {
	inner, err := d.ownLink(s.inner, s.alias)
	if err != nil {
		return pair{}, err
	}
	outer, err := d.ownLink(s.outer, s.alias)
	if err != nil {
		return pair{}, err
	}
	if half, err := d.halfPair(inner, outer, s.alias); err != nil {
		return pair{}, err
	} else if half {
		inner, outer = nil, nil
	}
	p := pair{innerName: s.inner, outerName: s.outer}
	if inner == nil && outer == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = s.inner, s.innerMTU
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU = s.outer, uint32(s.outerMTU)
		if err := d.nl.LinkAdd(veth); err != nil {
			return pair{}, fmt.Errorf("add veth pair %s, %s: %w", s.inner, s.outer, err)
		}
		p.made = true
		if inner, err = d.nl.LinkByName(s.inner); err != nil {
			return pair{}, fmt.Errorf("look up %s: %w", s.inner, err)
		}
		if outer, err = d.nl.LinkByName(s.outer); err != nil {
			return pair{}, fmt.Errorf("look up %s: %w", s.outer, err)
		}
	}
	if inner == nil || outer == nil || inner.Attrs().ParentIndex != outer.Attrs().Index {
		return pair{}, fmt.Errorf("%s and %s are no pair: %w", s.inner, s.outer, ErrForeignDevice)
	}
	for i, l := range []netlink.Link{inner, outer} {
		a := l.Attrs()
		p.found[i] = endState{a.MTU, a.Alias, a.RawFlags&unix.IFF_NOARP == 0}
	}
	if err := d.configure(inner, s.alias, s.innerAlt, s.innerMTU); err != nil {
		return pair{}, err
	}
	if err := d.configure(outer, s.alias, s.outerAlt, s.outerMTU); err != nil {
		return pair{}, err
	}
	p.inner, p.outer = inner.Attrs().Index, outer.Attrs().Index
	p.innerUp = inner.Attrs().RawFlags&unix.IFF_UP != 0
	p.outerUp = outer.Attrs().RawFlags&unix.IFF_UP != 0
	return p, nil
}

// ownLink finds a device by its name: nil if there is none, an error if it is
// somebody else's. One without an alias is what a crash just after its creation
// leaves.
func (d *Datapath) ownLink(name, alias string) (netlink.Link, error) {
	link, err := d.nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	a := link.Attrs()
	if a.Name != name || link.Type() != "veth" || (a.Alias != "" && a.Alias != alias) {
		return nil, fmt.Errorf("%s (%s, alias %q): %w", a.Name, link.Type(), a.Alias, ErrForeignDevice)
	}
	return link, nil
}

// configure gives an end of a pair its marks, and silences it: nothing of ours
// speaks in a customer's LAN.
func (d *Datapath) configure(link netlink.Link, alias, alt string, mtu int) error {
	a := link.Attrs()
	if a.Alias != alias {
		if err := d.nl.LinkSetAlias(link, alias); err != nil {
			return fmt.Errorf("set the alias of %s: %w", a.Name, err)
		}
	}
	if alt != "" && (len(a.AltNames) != 1 || a.AltNames[0] != alt) {
		if err := d.nl.LinkAddAltName(link, alt); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the name %s to %s: %w", alt, a.Name, err)
		}
	}
	if a.MTU != mtu {
		if err := d.nl.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", a.Name, mtu, err)
		}
	}
	if a.RawFlags&unix.IFF_NOARP == 0 {
		if err := d.nl.LinkSetARPOff(link); err != nil {
			return fmt.Errorf("turn ARP off on %s: %w", a.Name, err)
		}
	}
	if a.RawFlags&unix.IFF_MULTICAST != 0 {
		if err := d.nl.LinkSetMulticastOff(link); err != nil {
			return fmt.Errorf("turn multicast off on %s: %w", a.Name, err)
		}
	}
	if a.RawFlags&unix.IFF_UP == 0 {
		d.withoutIPv6(link)
	}
	return nil
}

// withoutIPv6 keeps the kernel from giving the device addresses and from
// speaking MLD on it. Where sysctls are read-only the first is all there is, and
// there may be no IPv6 at all: neither is an error.
func (d *Datapath) withoutIPv6(link netlink.Link) {
	name := link.Attrs().Name
	if err := d.nl.LinkSetIP6AddrGenMode(link, addrGenNone); err != nil {
		d.log.Debug("address generation not turned off", "device", name, "err", err)
	}
	file := filepath.Join(ipv6ConfTree, name, disableIPv6At)
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		d.log.Debug("IPv6 not turned off", "device", name, "err", err)
	}
}

// setUp brings a link up or down if it is not.
func (d *Datapath) setUp(index int, now *bool, up bool) error {
	if *now == up {
		return nil
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	set, word := d.nl.LinkSetDown, "down"
	if up {
		set, word = d.nl.LinkSetUp, "up"
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set link %d %s: %w", index, word, err)
	}
	*now = up
	return nil
}
