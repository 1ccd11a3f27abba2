package bridge

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// detach takes a pseudowire's device out of its bridge, if it is there.
func (m *Manager) detach(t *target, device string) error {
	delete(m.known, device)
	l, err := m.nl.link(device)
	if err != nil || l == nil || l.master == 0 {
		return failed("find", device, err)
	}
	br, err := m.nl.link(t.name)
	if err != nil || br == nil || l.master != br.index {
		return failed("find", t.name, err)
	}
	m.log.Info("device detached", "device", device, "bridge", t.name)
	return failed("take out of "+t.name+" the device", device, m.nl.setMaster(l.index, 0))
}

// Release takes devices of pseudowires out of whatever bridge they are in, attached or not:
// between Open and Prune, of what somebody has left who died. Unknown names, and links of others,
// are no error.
func (m *Manager) Release(devices []string) error {
	if m.nl == nil {
		return ErrClosed
	}
	var failures []error
	for _, name := range devices {
		delete(m.known, name)
		l, err := m.nl.link(name)
		if err == nil && l != nil && l.master != 0 && strings.HasPrefix(l.alias, "pwd:") {
			err = m.nl.setMaster(l.index, 0)
		}
		failures = append(failures, failed("release", name, err))
	}
	return errors.Join(failures...)
}

// dismantle removes a bridge that is not wanted any more, with what belonged to it alone.
func (m *Manager) dismantle(t *target) error {
	var failures []error
	if t.external {
		for _, a := range t.sorted() {
			failures = append(failures, m.detach(t, a.Device))
		}
		return errors.Join(failures...)
	}
	names := []string{t.name}
	if t.vlan != nil {
		names = append(names, t.vlan.name)
	}
	for _, name := range names {
		l, err := m.nl.link(name)
		if err == nil && l != nil {
			err = m.removeLink(l)
		}
		failures = append(failures, failed("remove", name, err))
	}
	return errors.Join(failures...)
}

// removeOwned removes the bridges and VLAN devices of ours that unwanted picks.
func (m *Manager) removeOwned(unwanted func(*link) bool) error {
	all, err := m.nl.links()
	if err != nil {
		return failed("list", "links", err)
	}
	// Bridges before the VLAN devices that are their ports.
	slices.SortStableFunc(all, func(a, b *link) int {
		if a.kind == b.kind {
			return 0
		} else if a.kind == "bridge" {
			return -1
		}
		return 1
	})
	var failures []error
	for _, l := range all {
		if unwanted(l) {
			failures = append(failures, failed("remove", l.name, m.removeLink(l)))
		}
	}
	return errors.Join(failures...)
}

// removeDevices takes the devices of pseudowires that were not named out of the bridges that were.
func (m *Manager) removeDevices() error {
	all, err := m.nl.links()
	if err != nil {
		return failed("list", "links", err)
	}
	bridges := map[int]*target{}
	for _, l := range all {
		if t := m.targets[l.name]; t != nil {
			bridges[l.index] = t
		}
	}
	devices := map[string]bool{}
	for _, p := range m.attachments {
		devices[p.Device] = true
	}
	var failures []error
	for _, l := range all {
		_, owned := owned(l)
		if t := bridges[l.master]; t != nil && strings.HasPrefix(l.alias, "pwd:") && !owned && !devices[l.name] {
			failures = append(failures, m.detach(t, l.name))
		}
	}
	return errors.Join(failures...)
}

// removeLink removes a netdev if it is ours, and puts back what it used.
func (m *Manager) removeLink(l *link) error {
	n, ours := owned(l)
	if !ours {
		return nil
	}
	var failures []error
	for _, u := range n.uses {
		var err error
		if l.kind == "vlan" {
			err = m.releaseParent(l, u)
		} else {
			n, err = m.leave(l, n, u)
		}
		failures = append(failures, err)
	}
	m.log.Info("removed", "link", l.name)
	delete(m.known, l.name)
	err := m.nl.remove(l.index)
	if errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return errors.Join(append(failures, err)...)
}

// owned reads the note of a bridge or VLAN device of ours. One that a crash left
// without alias has its mark.
func owned(l *link) (note, bool) {
	n, ok := parseNote(l.alias)
	switch {
	case ok && n.prefix == bridgePrefix && l.kind == "bridge", ok && n.prefix == vlanPrefix && l.kind == "vlan":
		return n, true
	case l.alias == "" && l.group == newGroup && l.kind == "bridge":
		return note{prefix: bridgePrefix, name: l.name}, true
	case l.alias == "" && l.group == newGroup && l.kind == "vlan":
		return note{prefix: vlanPrefix, name: l.name}, true
	}
	return note{}, false
}
