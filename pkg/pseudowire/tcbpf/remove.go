package tcbpf

import (
	"errors"
	"fmt"
	"slices"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// removalGroup is the first group of links that may be used to remove some; what others
	// have is left out.
	removalGroup = 0x70776472 // "pwdr"
	// removedAtOnce bounds for how long the kernel lets nobody else at its links.
	removedAtOnce = 100
)

// groupSocket asks for what the netlink package has no call for.
type groupSocket struct{ conn *mdlayher.Conn }

func openGroups() (*groupSocket, error) {
	conn, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &groupSocket{conn}, nil
}

func (g *groupSocket) Close() error { return g.conn.Close() }

// remove removes all links of a group (RTM_DELLINK with IFLA_GROUP).
func (g *groupSocket) remove(group uint32) error {
	ae := mdlayher.NewAttributeEncoder()
	ae.Uint32(unix.IFLA_GROUP, group)
	attrs, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = g.conn.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: unix.RTM_DELLINK, Flags: mdlayher.Request | mdlayher.Acknowledge},
		Data:   append(make([]byte, unix.SizeofIfInfomsg), attrs...),
	})
	return err
}

// removeLinks removes devices; that some have gone is no error. The kernel waits several times
// for each request, until nobody uses what it removes, and not for each link: many go as a group.
func (d *Datapath) removeLinks(links []int) error {
	switch len(links) {
	case 0:
		return nil
	case 1:
		return d.removeLink(links[0])
	}
	group, err := d.freeGroup()
	if err != nil {
		return err
	}
	for part := range slices.Chunk(links, removedAtOnce) {
		if err := d.removeGroup(part, group); err == nil {
			continue
		}
		for _, link := range part {
			if err := d.removeLink(link); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeGroup is a group that no link is in.
func (d *Datapath) freeGroup() (uint32, error) {
	all, err := d.links()
	if err != nil {
		return 0, err
	}
	group := uint32(removalGroup)
	for slices.ContainsFunc(all, func(l netlink.Link) bool { return l.Attrs().Group == group }) {
		group++
	}
	return group, nil
}

func (d *Datapath) removeGroup(links []int, group uint32) error {
	for _, link := range links {
		if err := d.nl.LinkSetGroup(linkOf(link), int(group)); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("put link %d into a group: %w", link, err)
		}
	}
	if err := d.groups.remove(group); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the group: %w", err)
	}
	return nil
}

// removeLink removes a device; that it has gone is no error.
func (d *Datapath) removeLink(index int) error {
	if err := d.nl.LinkDel(linkOf(index)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %d: %w", index, err)
	}
	return nil
}
