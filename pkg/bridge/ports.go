package bridge

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addrGenNone is IN6_ADDR_GEN_MODE_NONE: no link-local address.
const addrGenNone = 1

// join takes an interface of the host's into a bridge: noted first, brought up if it is
// down, then made a port. One that is in it is left as it is; an interface that its
// owner took down stays down.
func (m *Manager) join(t *target, br *link, n note, l *link) (_ note, err error) {
	wantedBy := "bridge " + t.name
	if m.strayed(l, br.index) {
		strayed := *l
		defer func() { m.putBackInto(wantedBy, &strayed, t.name, err) }()
		delete(m.known, l.name)
	}
	if l.kind == "bridge" {
		return n, &InvalidError{wantedBy, "a bridge cannot be a port: " + l.name}
	}
	if l.master != 0 && l.master != br.index {
		if err := m.takeBack(l, wantedBy); err != nil {
			return n, err
		}
	}
	if n.find(l.index) == nil {
		noted := n.with(use{index: l.index, down: !l.up(), addrGen: l.addrGen})
		if len(noted.String()) > maxAlias {
			return n, &InvalidError{wantedBy, fmt.Sprintf("it has more ports than its alias can note, which has %d octets; spread them over several bridges", maxAlias)}
		}
		if err := m.nl.setAlias(br.index, noted.String()); err != nil {
			return n, failed("mark", br.name, err)
		}
		n = noted
	}
	if l.master == br.index {
		return n, nil
	}
	if err := m.wake(l); err != nil {
		return n, err
	}
	if err := m.nl.setMaster(l.index, br.index); err != nil {
		return n, failed("put into "+br.name+" the interface", l.name, err)
	}
	m.log.Info("port added", "bridge", br.name, "port", l.name)
	return n, nil
}

// takeBack takes an interface out of another bridge of ours, where it is not
// wanted any more. Somebody else's is an error.
func (m *Manager) takeBack(l *link, wantedBy string) error {
	master, err := m.nl.linkByIndex(l.master)
	if err != nil || master == nil {
		return failed("find the master of", l.name, orGone(err))
	}
	n, ours := owned(master)
	u := n.find(l.index)
	if !ours || u == nil {
		return &EnslavedError{Interface: l.name, Master: master.name, For: wantedBy}
	}
	if _, err := m.leave(master, n, *u); err != nil {
		return err
	}
	now, err := m.nl.linkByIndex(l.index)
	if err != nil || now == nil {
		return failed("find", l.name, orGone(err))
	}
	*l = *now
	return nil
}

// wake brings an interface up, without an address of its own to speak from.
func (m *Manager) wake(l *link) error {
	if l.up() {
		return nil
	}
	if err := m.setAddrGen(l, addrGenNone); err != nil {
		return err
	}
	return failed("bring up", l.name, m.nl.setUp(l.index, true))
}

// leave takes an interface out of the bridge and puts it back to what it was.
func (m *Manager) leave(br *link, n note, u use) (note, error) {
	l, err := m.nl.linkByIndex(u.index)
	if err != nil {
		return n, failed("find a port of", br.name, err)
	}
	if l != nil && l.master == br.index {
		if err := m.putBack(l, u); err != nil {
			return n, err
		}
		delete(m.known, l.name)
		if err := m.nl.setMaster(l.index, 0); err != nil {
			return n, failed("take out of "+br.name+" the interface", l.name, err)
		}
		m.log.Info("port removed", "bridge", br.name, "port", l.name)
	} else if l != nil && l.master == 0 && u.down {
		// Noted and woken, and then something ended us before it was a port.
		if err := m.putBack(l, u); err != nil {
			return n, err
		}
	}
	n = n.without(u.index)
	return n, failed("mark", br.name, m.nl.setAlias(br.index, n.String()))
}

// putBack takes an interface down again if it was found down.
func (m *Manager) putBack(l *link, u use) error {
	if !u.down {
		return nil
	}
	if err := m.nl.setUp(l.index, false); err != nil {
		return failed("bring down", l.name, err)
	}
	return m.setAddrGen(l, u.addrGen)
}

func (m *Manager) setAddrGen(l *link, mode uint8) error {
	err := m.nl.setAddrGen(l.index, mode)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // no IPv6, or none on links with so small an MTU
	}
	return failed("set the IPv6 address generation of", l.name, err)
}

// joinVLAN makes the VLAN device of a private bridge and makes it the port.
func (m *Manager) joinVLAN(t *target, br *link) error {
	l, err := m.ensureVLAN(t.vlan)
	if err != nil {
		return err
	}
	if l.master != br.index {
		object := "bridge " + t.name
		if m.heldOut(object, l, br.index) {
			return nil
		}
		err := m.nl.setMaster(l.index, br.index)
		if m.strayed(l, br.index) {
			m.putBackInto(object, l, t.name, err)
		}
		delete(m.known, l.name)
		if err != nil {
			return failed("put into "+br.name+" the device", l.name, err)
		}
	}
	return m.configure(t, l.index, l.name, nil, Attachment{}, false)
}

// ensureVLAN finds or makes a VLAN device.
func (m *Manager) ensureVLAN(v *vlanDevice) (*link, error) {
	parent, err := m.nl.link(v.parent)
	switch {
	case err != nil:
		return nil, failed("find", v.parent, err)
	case parent == nil:
		return nil, &NotPresentError{Interface: v.parent, For: "VLAN device " + v.name}
	}
	l, err := m.nl.link(v.name)
	if err != nil {
		return nil, failed("find", v.name, err)
	}
	if l != nil {
		if _, ours := owned(l); !ours {
			return nil, &NotOursError{Link: v.name, Kind: l.kind, Wanted: "vlan"}
		}
		if l.parent != parent.index || l.vlan != v.id {
			if err := m.removeLink(l); err != nil {
				return nil, failed("remove", l.name, err)
			}
			l = nil
		}
	}
	if l == nil {
		_, known := m.known[v.name]
		if known && m.settled && m.Held("VLAN device "+v.name) {
			return nil, &NotPresentError{Interface: v.name, For: "interface " + v.parent}
		}
		l, err = m.makeVLAN(v, parent)
		if known && m.settled {
			m.Add("VLAN device "+v.name, "it was removed", "made again", err)
			delete(m.known, v.name)
		}
		if err != nil {
			return nil, err
		}
	}
	if l.group != newGroup {
		return l, nil
	}

	// The kernel has no VLAN device up on a parent that is down.
	n := note{prefix: vlanPrefix, name: v.name}.with(use{index: parent.index, down: !parent.up(), addrGen: parent.addrGen})
	if old, noted := parseNote(l.alias); noted {
		n = old
	}
	if err := m.nl.setAlias(l.index, n.String()); err != nil {
		return nil, failed("mark", l.name, err)
	}
	m.quiet(l)
	if err := m.wake(parent); err != nil {
		return nil, err
	}
	if err := m.nl.finish(l.index); err != nil {
		return nil, failed("bring up", l.name, err)
	}
	return l, nil
}

func (m *Manager) makeVLAN(v *vlanDevice, parent *link) (*link, error) {
	err := m.nl.create(v.name, infoOf("vlan", attr(unix.IFLA_VLAN_ID, nl.Uint16Attr(v.id))),
		attr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent.index))))
	if errors.Is(err, unix.EEXIST) {
		return nil, &InvalidError{"VLAN device " + v.name, fmt.Sprintf("interface %s has a device for VLAN %d already; attach to that device instead", v.parent, v.id)}
	}
	if err != nil {
		return nil, failed("make VLAN device", v.name, err)
	}
	m.log.Info("VLAN device made", "device", v.name)
	l, err := m.nl.link(v.name)
	if err != nil || l == nil {
		return nil, failed("find", v.name, orGone(err))
	}
	return l, nil
}

// releaseParent puts the parent of a VLAN device back, or leaves that to another
// VLAN device of ours on the same parent.
func (m *Manager) releaseParent(l *link, u use) error {
	if !u.down {
		return nil
	}
	parent, err := m.nl.linkByIndex(u.index)
	if err != nil || parent == nil {
		return failed("find the parent of", l.name, err)
	}
	all, err := m.nl.links()
	if err != nil {
		return failed("list", "links", err)
	}
	for _, other := range all {
		n, ours := owned(other)
		if ours && other.index != l.index && other.kind == "vlan" && other.parent == u.index {
			return failed("mark", other.name, m.nl.setAlias(other.index, n.with(u).String()))
		}
	}
	return m.putBack(parent, u)
}

// quiet keeps a device of ours from speaking IPv6 by itself. Without the sysctl
// (a read-only /proc) a host that routes still reports multicast groups.
func (m *Manager) quiet(l *link) {
	if !l.hasIPv6 {
		return
	}
	if err := m.setAddrGen(l, addrGenNone); err != nil {
		m.log.Warn("cannot silence IPv6", "link", l.name, "err", err)
	}
	if namespaceInode() != m.namespace {
		return // this thread's /proc is about another namespace's links
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+l.name+"/disable_ipv6", []byte("1"), 0); err != nil {
		m.log.Debug("cannot disable IPv6", "link", l.name, "err", err)
	}
}

// namespaceInode identifies the calling thread's network namespace; 0 if it cannot be found out.
func namespaceInode() uint64 {
	var s unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &s) != nil {
		return 0
	}
	return s.Ino
}
