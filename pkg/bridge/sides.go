package bridge

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Side is a port of a pseudowire's bridge that is towards the LAN, and how the pseudowire's
// frames are tagged there: the tags of its VLANs, 0 for none, sorted.
type Side struct {
	Name  string
	Index int
	Tags  []uint16
}

// Sides are, for each of the pseudowires, the ports of its bridge that are towards the LAN: all but devices of
// pseudowires. Those that do not carry its VLANs are left out. A pseudowire that is in no bridge has none; one
// whose ports could not be looked at, which the error says, is left out.
func (m *Manager) Sides(pseudowires ...string) (map[string][]Side, error) {
	if m.nl == nil {
		return nil, ErrClosed
	}
	links, err := m.nl.links()
	if err != nil {
		return nil, failed("list the ports of", "bridges", err)
	}
	ports := make(map[int][]*link)
	for _, l := range links {
		if l.master != 0 && m.devices[l.name] == "" {
			ports[l.master] = append(ports[l.master], l)
		}
	}
	var failures []error
	tables := make(map[int]vlanTable)
	all := make(map[string][]Side, len(pseudowires))
	for _, name := range pseudowires {
		p, known := m.attachments[name]
		if !known || p.target.index == 0 {
			all[name] = nil
			continue
		}
		sides, err := m.sidesAmong(p, ports[p.target.index], tables)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		all[name] = sides
	}
	return all, errors.Join(failures...)
}

// sidesAmong are those of one pseudowire. tables has the VLANs of ports that were asked for already.
func (m *Manager) sidesAmong(p placed, ports []*link, tables map[int]vlanTable) (all []Side, err error) {
	for _, l := range ports {
		own := p.target.vlan != nil && l.name == p.target.vlan.name
		if strings.HasPrefix(l.alias, "pwd:") && !own {
			continue
		}
		s := Side{Name: l.name, Index: l.index, Tags: p.tagsInBridge()}
		if p.target.shape.aware {
			table, asked := tables[l.index]
			if !asked {
				if table, err = m.nl.vlansOf(l.index); err != nil {
					return nil, failed("list the VLANs of", l.name, err)
				}
				tables[l.index] = table
			}
			s.Tags = table.tagsOf(deviceVLANs(p.Attachment, p.target.shape))
		}
		if len(s.Tags) > 0 {
			all = append(all, s)
		}
	}
	return all, nil
}

// tagsInBridge are the tags of the attachment's frames in a bridge that does not look at them.
func (p placed) tagsInBridge() []uint16 {
	if p.target.vlan != nil || !p.Tagged && !p.Filtered {
		return []uint16{0} // what is not the VLAN's does not come in, or nothing is tagged
	}
	return slices.Sorted(p.Attachment.vlans())
}

// tagsOf are the tags that frames of VLANs leave the port with.
func (t vlanTable) tagsOf(vlans vlanTable) (tags []uint16) {
	for _, vid := range slices.Sorted(maps.Keys(vlans)) {
		if how, is := t[vid]; is && how&untagged != 0 {
			tags = append(tags, 0)
		} else if is {
			tags = append(tags, vid)
		}
	}
	slices.Sort(tags)
	return tags
}

// SetKept has the bridge of a pseudowire keep, or not any more, the frames to an address: in the
// pseudowire's VLANs they are the bridge's own, and leave it by no port. It holds while
// the pseudowire's device is in the bridge.
func (m *Manager) SetKept(pseudowire string, to Address, kept bool) error {
	l, err := m.port(pseudowire)
	if err != nil {
		return err
	}
	p := m.attachments[pseudowire]
	vlans := []uint16{0}
	if p.target.shape.aware {
		vlans = slices.Sorted(maps.Keys(deviceVLANs(p.Attachment, p.target.shape)))
	}
	for _, vid := range vlans {
		if err := m.nl.setLocal(l.index, to, vid, kept); err != nil {
			return failed("keep what is sent to "+to.String()+" by", p.target.name, err)
		}
	}
	return nil
}

// setLocal adds or removes an entry of a bridge that has it take frames for its own.
func (r *rtnl) setLocal(port int, a Address, vlan uint16, there bool) error {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = unix.AF_BRIDGE
	nl.NativeEndian().PutUint32(header[4:], uint32(port))
	nl.NativeEndian().PutUint16(header[8:], unix.NUD_PERMANENT)
	header[10] = unix.NTF_MASTER
	data := []nl.NetlinkRequestData{raw(header), attr(unix.NDA_LLADDR, a[:])}
	if vlan != 0 {
		data = append(data, attr(unix.NDA_VLAN, nl.Uint16Attr(vlan)))
	}
	if there {
		return r.do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, data...)
	}
	if err := r.do(unix.RTM_DELNEIGH, 0, data...); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil // it has gone already
}
