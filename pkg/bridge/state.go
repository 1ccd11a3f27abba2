package bridge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AttachmentState says whether the attachment circuit's own side is up, and if
// not, why: what Circuit Status and Set-Link-Info tell the peer (RFC 3931,
// Section 5.4.5; RFC 4719, Section 2.3.2). The pseudowire's device plays no part.
//
// An interface is up with its carrier. A bridge is up if it is administratively
// so and somebody can be reached through it: one of its ports that are no
// pseudowires has a carrier, or it has none of those, or the bridge itself has an address.
func (m *Manager) AttachmentState(pseudowire string) (up bool, reason string) {
	s, known := m.AttachmentStates(pseudowire)[pseudowire]
	if !known {
		return false, "it is not attached"
	}
	return s.Up, s.Reason
}

// State is that of an attachment circuit; Reason is empty if it is up.
type State struct {
	Up     bool
	Reason string
}

// AttachmentStates gives the states of those pseudowires' attachment circuits, or of all if none are
// named, as AttachmentState does, with one look at each bridge and interface, and no more than one list of
// all links and of all addresses.
func (m *Manager) AttachmentStates(pseudowires ...string) map[string]State {
	states := map[string]State{}
	if m.nl == nil {
		return states
	}
	if len(pseudowires) == 0 {
		pseudowires = slices.Collect(maps.Keys(m.attachments))
	}
	defer func(before *view) { m.nl.view = before }(m.nl.view)
	all := m.survey()
	seen := map[string]State{} // by bridge or interface, which share no name
	for _, name := range pseudowires {
		p, known := m.attachments[name]
		if !known {
			continue
		}
		s, ok := seen[p.Bridge+p.Interface]
		if !ok {
			s = all.state(p)
			seen[p.Bridge+p.Interface] = s
		}
		states[name] = s
	}
	return states
}

// survey looks at attachment circuits. Lists are asked for when they are first needed, and are then those of
// all circuits.
type survey struct {
	nl    *rtnl
	links func() ([]*link, error)
	// addressed are the netdevs that have an address that is not link-local.
	addressed func() (map[int]bool, error)
}

func (m *Manager) survey() *survey {
	return &survey{m.nl, sync.OnceValues(func() ([]*link, error) {
		if err := m.nl.look(); err != nil { // so that what comes after is in it
			return nil, err
		}
		return slices.Collect(maps.Values(m.nl.view.byIndex)), nil
	}), sync.OnceValues(m.nl.addresses)}
}

func (v *survey) state(p placed) (s State) {
	var err error
	if p.Interface != "" {
		s, err = v.interfaceState(p.Interface)
	} else {
		s, err = v.bridgeState(p.target)
	}
	if err != nil {
		return State{Reason: err.Error()}
	}
	return s
}

func (v *survey) interfaceState(name string) (State, error) {
	l, err := v.nl.link(name)
	switch {
	case err != nil:
		return State{}, failed("find", name, err)
	case l == nil:
		return State{Reason: "interface " + name + " is not there"}, nil
	case !l.up():
		return State{Reason: "interface " + name + " is down"}, nil
	case !l.carrier:
		return State{Reason: "interface " + name + " has no carrier"}, nil
	}
	return State{Up: true}, nil
}

func (v *survey) bridgeState(t *target) (State, error) {
	br, err := v.nl.link(t.name)
	switch {
	case err != nil:
		return State{}, failed("find", t.name, err)
	case br == nil:
		return State{Reason: "bridge " + t.name + " is not there"}, nil
	case !br.up():
		return State{Reason: "bridge " + t.name + " is down"}, nil
	}
	// Usually one of the ports that the topology names is up, and no list is needed.
	ports := 0
	for _, name := range t.ports {
		l, err := v.nl.link(name)
		if err != nil {
			return State{}, failed("find", name, err)
		}
		if l != nil && l.master == br.index && l.up() && l.carrier {
			return State{Up: true}, nil
		}
		ports++ // one that is not there yet has no carrier
	}
	all, err := v.links()
	if err != nil {
		return State{}, failed("list the ports of", t.name, err)
	}
	devices := map[string]bool{}
	for _, a := range t.attachments {
		devices[a.Device] = true
	}
	for _, l := range all {
		if l.master != br.index || strings.HasPrefix(l.alias, "pwd:") || devices[l.name] {
			continue
		}
		if l.up() && l.carrier {
			return State{Up: true}, nil
		}
		ports++
	}
	if ports == 0 {
		return State{Up: true}, nil
	}
	addressed, err := v.addressed()
	if err != nil || addressed[br.index] {
		return State{Up: addressed[br.index]}, failed("list the addresses of", t.name, err)
	}
	return State{Reason: fmt.Sprintf("no port of bridge %s has a carrier", t.name)}, nil
}

// Addressed are the interfaces at which the host has an address that others could
// use: not a link-local one.
func (m *Manager) Addressed() (map[string]bool, error) {
	if m.nl == nil {
		return nil, ErrClosed
	}
	indexes, err := m.nl.addresses()
	if err != nil {
		return nil, failed("list the addresses of", "all interfaces", err)
	}
	names := map[string]bool{}
	for index := range indexes {
		l, err := m.nl.linkByIndex(index)
		if err != nil {
			return nil, failed("find", fmt.Sprintf("interface %d", index), err)
		}
		if l != nil {
			names[l.name] = true
		}
	}
	return names, nil
}

// addresses are the netdevs that have one that is not link-local.
func (r *rtnl) addresses() (map[int]bool, error) {
	all := map[int]bool{}
	messages, err := r.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, b := range messages {
		if len(b) < unix.SizeofIfAddrmsg {
			continue
		}
		// struct ifaddrmsg: family, prefix length, flags, scope, index
		if scope := b[3]; scope < unix.RT_SCOPE_LINK {
			all[int(u32(b[4:]))] = true
		}
	}
	return all, err
}
