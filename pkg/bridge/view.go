package bridge

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// view is what there was of netdevs at one look, and of their VLANs: for a pass over many of
// them that mostly finds them as they should be. A change ends it, or takes out of it the port
// that it is about: what is looked at after that is as it is by then.
type view struct {
	byName  map[string]*link
	byIndex map[int]*link
	// vlans are listed when they are first asked for.
	vlans map[int]vlanTable
}

// look begins a view.
func (r *rtnl) look() error {
	all, err := r.links()
	if err != nil {
		return err
	}
	v := &view{byName: make(map[string]*link, len(all)), byIndex: make(map[int]*link, len(all))}
	for _, l := range all {
		v.byName[l.name], v.byIndex[l.index] = l, l
	}
	r.view = v
	return nil
}

// lookAway ends it.
func (r *rtnl) lookAway() { r.view = nil }

// lookAwayFrom takes a netdev out of it.
func (r *rtnl) lookAwayFrom(index int) {
	if r.view == nil {
		return
	}
	if l := r.view.byIndex[index]; l != nil {
		delete(r.view.byName, l.name)
	}
	delete(r.view.byIndex, index)
}

// seen is a netdev in the view, for the caller to change. There may be others by now, and by
// other names.
func (r *rtnl) seen(name string, index int) *link {
	if r.view == nil {
		return nil
	}
	l := r.view.byName[name]
	if name == "" {
		l = r.view.byIndex[index]
	}
	if l == nil {
		return nil
	}
	own := *l
	return &own
}

// seenVLANs are the VLANs of a netdev in the view; false if they are to be asked for.
func (r *rtnl) seenVLANs(index int) (vlanTable, bool) {
	if r.view == nil || r.view.byIndex[index] == nil {
		return nil, false
	}
	if r.view.vlans == nil {
		all, err := r.allVLANs(0)
		if err != nil {
			r.view = nil
			return nil, false
		}
		r.view.vlans = all
	}
	table := r.view.vlans[index]
	if table == nil {
		table = vlanTable{}
	}
	return table, true
}

// allVLANs lists those of a netdev, or of all if index is 0.
func (r *rtnl) allVLANs(index int) (map[int]vlanTable, error) {
	query := make([]byte, 8) // struct br_vlan_msg
	query[0] = unix.AF_BRIDGE
	nl.NativeEndian().PutUint32(query[4:], uint32(index))
	messages, err := r.dump(unix.RTM_GETVLAN, unix.RTM_NEWVLAN, raw(query))
	if err != nil {
		return nil, err
	}
	all := map[int]vlanTable{}
	for _, m := range messages {
		if len(m) < len(query) {
			continue
		}
		at := int(u32(m[4:]))
		if all[at] == nil {
			all[at] = vlanTable{}
		}
		err := walk(m[len(query):], func(kind uint16, v []byte) error {
			const entry = 1 // BRIDGE_VLANDB_ENTRY
			if kind != entry {
				return nil
			}
			return all[at].addEntry(v)
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
