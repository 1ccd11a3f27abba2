package bridge

import (
	"errors"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// membership is how a port belongs to a VLAN: the BRIDGE_VLAN_INFO flags.
type membership uint16

const (
	tagged   membership = 0
	untagged membership = nl.BRIDGE_VLAN_INFO_UNTAGGED
	native   membership = nl.BRIDGE_VLAN_INFO_UNTAGGED | nl.BRIDGE_VLAN_INFO_PVID // untagged both ways

	membershipMask = native
)

// vlanTable is the VLANs of a port, or of a bridge itself.
type vlanTable map[uint16]membership

// vlansOf reads a netdev's VLANs: its own if it is a bridge, or as a port. A
// kernel without VLAN filtering has none.
func (r *rtnl) vlansOf(index int) (vlanTable, error) {
	if table, seen := r.seenVLANs(index); seen {
		return table, nil
	}
	all, err := r.allVLANs(index)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return r.vlansByLink(index) // before 5.6
	case err != nil:
		return nil, err
	case all[index] == nil:
		return vlanTable{}, nil
	}
	return all[index], nil
}

// addEntry adds one BRIDGE_VLANDB_ENTRY: a VLAN or a range of them.
func (t vlanTable) addEntry(b []byte) error {
	const info, end = 1, 2 // BRIDGE_VLANDB_ENTRY_INFO, _RANGE
	var first, last, flags uint16
	err := walk(b, func(kind uint16, v []byte) error {
		switch kind {
		case info:
			flags = u16(v)
			if len(v) >= 4 {
				first = u16(v[2:])
			}
			last = max(last, first)
		case end:
			last = u16(v)
		}
		return nil
	})
	for vid := first; vid >= 1 && vid <= last && vid < 4095; vid++ {
		t[vid] = membership(flags) & membershipMask
	}
	return err
}

// vlansByLink reads them out of all bridges' and ports' VLANs.
func (r *rtnl) vlansByLink(index int) (vlanTable, error) {
	messages, err := r.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_BRIDGE),
		attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(uint32(nl.RTEXT_FILTER_BRVLAN))))
	if err != nil {
		return nil, err
	}
	table := vlanTable{}
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(m).Index != int32(index) {
			continue
		}
		err := walk(m[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
			if kind != unix.IFLA_AF_SPEC {
				return nil
			}
			return walk(v, func(kind uint16, v []byte) error {
				if kind == nl.IFLA_BRIDGE_VLAN_INFO && len(v) >= 4 {
					table[u16(v[2:])] = membership(u16(v)) & membershipMask
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return table, nil
}

// setVLANs makes a netdev's VLANs what is wanted. With keep, those that are
// there beyond it stay. self says that the netdev is the bridge itself. It returns the
// VLANs that were missing or different, and those that were too many.
func (r *rtnl) setVLANs(index int, self bool, wanted vlanTable, keep bool) (missing, beyond []uint16, err error) {
	have, err := r.vlansOf(index)
	if err != nil {
		return nil, nil, err
	}
	for _, vid := range slices.Sorted(maps.Keys(wanted)) {
		if m, ok := have[vid]; ok && m == wanted[vid] {
			continue
		}
		missing = append(missing, vid)
		if err := r.changeVLAN(unix.RTM_SETLINK, index, self, vid, wanted[vid]); err != nil {
			return missing, nil, err
		}
	}
	if keep {
		return missing, nil, nil
	}
	for _, vid := range slices.Sorted(maps.Keys(have)) {
		if _, ok := wanted[vid]; ok {
			continue
		}
		beyond = append(beyond, vid)
		if err := r.changeVLAN(unix.RTM_DELLINK, index, self, vid, tagged); err != nil && !errors.Is(err, unix.ENOENT) {
			return missing, beyond, err
		}
	}
	return missing, beyond, nil
}

func (r *rtnl) changeVLAN(command, index int, self bool, vid uint16, m membership) error {
	info := nl.BridgeVlanInfo{Flags: uint16(m), Vid: vid}
	spec := attr(unix.IFLA_AF_SPEC, nil, attr(nl.IFLA_BRIDGE_VLAN_INFO, info.Serialize()))
	if self {
		spec.AddChild(attr(nl.IFLA_BRIDGE_FLAGS, nl.Uint16Attr(nl.BRIDGE_FLAGS_SELF)))
	}
	return r.doPort(index, command, header(unix.AF_BRIDGE, index), spec)
}

// vlanFiltering makes a bridge, sees whether it can filter, and removes it. The
// bridge's name is one that no topology can give.
func (r *rtnl) vlanFiltering() (bool, error) {
	err := r.create(probeName, infoOf("bridge"))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return false, nil
		}
		return false, err
	}
	l, err := r.link(probeName)
	if err != nil || l == nil {
		return false, err
	}
	return l.canFilter, r.remove(l.index)
}

// vlanDevices asks for a VLAN device without saying which: a kernel that knows
// the kind misses its properties, one that does not know it says so.
func (r *rtnl) vlanDevices() (bool, error) {
	err := r.create(probeName, infoOf("vlan"))
	switch {
	case errors.Is(err, unix.EINVAL):
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case err == nil:
		return false, errors.New("the kernel made a VLAN device without parent or number")
	}
	return false, err
}

// raw is octets of a request.
type raw []byte

func (b raw) Len() int          { return len(b) }
func (b raw) Serialize() []byte { return b }
