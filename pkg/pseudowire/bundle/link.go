package bundle

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

const (
	aliasPrefix = "pwd:bundle:"
	gathers     = "pwd_gather"
	spreads     = "pwd_spread"
	defaultMTU  = 1500
	// roomForTags is what the other end takes beyond the MTU, of which tags are no part.
	roomForTags = 4 * 4
	addrGenNone = 1 // IN6_ADDR_GEN_MODE_NONE
)

// below is the pseudowire of the datapath below that has the session in a tunnel. No name in
// a topology has a plus sign.
func (w *wire) below(tunnel string) pseudowire.Pseudowire {
	sum := sha256.Sum256([]byte(w.Name + "\x00" + tunnel))
	return pseudowire.Pseudowire{
		Name:   pseudowire.PartOf(w.Name, "+", tunnel),
		Device: "pwl-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:10]),
		MTU:    w.MTU, IgnoreICMP: w.IgnoreICMP,
	}
}

// filter is a program's place at a session's device, or at an outer end.
func filter(name string) tcfilter.Filter {
	return tcfilter.Filter{Parent: netlink.HANDLE_MIN_INGRESS, Priority: tcfilter.PriorityBundle, Name: name}
}

// join has what a session receives come out of the pseudowire's device.
func (d *Datapath) join(w *wire, m *member) error {
	device := w.below(m.Tunnel).Device
	l, err := d.nl.LinkByName(device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		m.device = 0 // it went with its tunnel
		return nil
	}
	if err != nil {
		return &Error{"find a session's device of", w.Name, err}
	}
	// Again even where it looks the same: the index may be another device's now.
	p, err := tcfilter.Redirect(gathers, w.outer, false)
	if err != nil {
		return &Error{"receive for", w.Name, fmt.Errorf("load a program that redirects frames: %w", err)}
	}
	defer p.Close() // the filter holds it
	if err := tcfilter.Attach(d.nl, l.Attrs().Index, filter(gathers), p); err != nil {
		return &Error{"receive for", w.Name, err}
	}
	m.device = l.Attrs().Index
	return nil
}

// keep sets again what others have changed of a pseudowire with several sessions. That its
// device has gone is for SetPseudowire to see.
func (d *Datapath) keep(w *wire) error {
	outer, err := d.nl.LinkByIndex(w.outer)
	if err != nil {
		return nil
	}
	held := d.strays.Held("pseudowire " + w.Name)
	for _, id := range slices.Sorted(maps.Keys(w.members)) {
		m := w.members[id]
		device := w.below(m.Tunnel).Device
		l, err := d.nl.LinkByName(device)
		if err != nil || l.Attrs().Index == m.device && d.redirects(l) {
			continue
		}
		known := l.Attrs().Index == m.device
		if known && held {
			continue
		}
		err = d.join(w, m)
		if known {
			d.strays.Add("pseudowire "+w.Name, "the program "+gathers+" was detached from "+device, "attached again", err)
		}
		if err != nil {
			return err
		}
	}
	if held {
		return nil
	}
	if w.attached && !d.redirects(outer) {
		w.attached = false
		err := d.steer(w)
		if w.attached || err != nil { // where nothing carries, it comes back with what does
			d.strays.Add("pseudowire "+w.Name, "the program "+spreads+" was detached from "+outer.Attrs().Name, "attached again", err)
		}
		return err
	}
	if w.carries() && outer.Attrs().RawFlags&unix.IFF_UP == 0 {
		err := d.steer(w)
		d.strays.Add("pseudowire "+w.Name, outer.Attrs().Name+" was taken down", "brought up again", err)
		return err
	}
	return d.steer(w)
}

// redirects says whether what comes to a device is redirected.
func (d *Datapath) redirects(l netlink.Link) bool {
	there, err := tcfilter.Attached(d.nl, l, filter(""))
	return err == nil && there
}

func (d *Datapath) setUp(index int, up bool) error {
	l, err := d.nl.LinkByIndex(index)
	if err != nil {
		return err
	}
	switch is := l.Attrs().RawFlags&unix.IFF_UP != 0; {
	case is == up:
		return nil
	case up:
		return d.nl.LinkSetUp(l)
	default:
		return d.nl.LinkSetDown(l)
	}
}

// ensurePair makes the veth pair of a pseudowire, or what there is of it into what it should be.
func (d *Datapath) ensurePair(w *wire) error {
	mtu := w.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	outer := pseudowire.OuterDevice(w.Name, w.Device)
	inner, err := d.nl.LinkByName(w.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = w.Device, mtu
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU = outer, uint32(mtu+roomForTags)
		if err := d.nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth pair %s, %s: %w", w.Device, outer, err)
		}
		inner, err = d.nl.LinkByName(w.Device)
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", w.Device, err)
	}
	other, err := d.nl.LinkByName(outer)
	if err != nil {
		return fmt.Errorf("find %s: %w", outer, err)
	}
	for _, l := range []netlink.Link{inner, other} {
		if a := l.Attrs(); l.Type() != "veth" || a.Alias != "" && a.Alias != aliasPrefix+w.Name {
			return fmt.Errorf("%s (%s, alias %q) is somebody else's: remove or rename it", a.Name, l.Type(), a.Alias)
		}
	}
	if inner.Attrs().ParentIndex != other.Attrs().Index {
		return fmt.Errorf("%s and %s are no pair: remove them", w.Device, outer)
	}
	w.inner, w.outer = inner.Attrs().Index, other.Attrs().Index
	if err := d.configure(inner, w, "pw-"+w.Name, mtu); err != nil {
		return err
	}
	if err := d.configure(other, w, "pwo-"+w.Name, mtu+roomForTags); err != nil {
		return err
	}
	return d.setUp(w.inner, true)
}

// configure gives an end of a pair its marks, and silences it.
func (d *Datapath) configure(l netlink.Link, w *wire, long string, mtu int) error {
	a := l.Attrs()
	if a.Alias == "" {
		if err := d.nl.LinkSetAlias(l, aliasPrefix+w.Name); err != nil {
			return fmt.Errorf("set the alias of %s: %w", a.Name, err)
		}
		d.silence(l)
		if long != a.Name {
			if err := d.nl.LinkAddAltName(l, long); err != nil {
				d.log.Debug("cannot add an alternative name", "device", a.Name, "name", long, "err", err)
			}
		}
	}
	if a.MTU != mtu {
		if err := d.nl.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", a.Name, mtu, err)
		}
	}
	return nil
}

// silence keeps the kernel from speaking on a device. One that refuses some of it carries
// frames all the same.
func (d *Datapath) silence(l netlink.Link) {
	name := l.Attrs().Name
	err := errors.Join(d.nl.LinkSetARPOff(l), d.nl.LinkSetMulticastOff(l), d.nl.LinkSetIP6AddrGenMode(l, addrGenNone),
		os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0))
	if err != nil {
		d.log.Debug("a device is not quite silent", "device", name, "err", err)
	}
}

// giveWay removes the pair that an earlier process made for a pseudowire that has one
// session now.
func (d *Datapath) giveWay(p pseudowire.Pseudowire) error {
	l, err := d.nl.LinkByName(p.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil || l.Type() != "veth" || l.Attrs().Alias != aliasPrefix+p.Name {
		return err
	}
	return d.removeLink(l.Attrs().Index)
}

// prune removes pairs of ours that no pseudowire has.
func (d *Datapath) prune() error {
	all, err := d.nl.LinkList()
	for range 4 {
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		all, err = d.nl.LinkList()
	}
	if err != nil {
		return fmt.Errorf("bundle: list links: %w", err)
	}
	known := map[int]bool{}
	for _, w := range d.wires {
		known[w.inner], known[w.outer] = true, true
	}
	var errs []error
	for _, l := range all {
		if a := l.Attrs(); l.Type() == "veth" && strings.HasPrefix(a.Alias, aliasPrefix) && !known[a.Index] {
			errs = append(errs, d.removeLink(a.Index))
		}
	}
	return errors.Join(errs...)
}

// removeLink removes a device; that it has gone is no error.
func (d *Datapath) removeLink(index int) error {
	err := d.nl.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove link %d: %w", index, err)
	}
	return nil
}
