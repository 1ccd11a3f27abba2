package bridge

import (
	"fmt"
	"iter"
	"maps"
	"slices"
)

// target is one bridge of the kernel's and what is to be in it.
type target struct {
	name string
	// external: somebody else's. private: of one interface and its attachments.
	// Neither: made because the topology names it.
	external, private bool
	mode              VLANAware
	// groups are the link-local ones that it passes on.
	groups uint16
	// ports are others' interfaces in it.
	ports []string
	// vlan is the VLAN device of ours that is its port, if one is.
	vlan        *vlanDevice
	attachments map[string]Attachment
	// vlans counts the attachments of each VLAN, 0 for those without.
	vlans map[uint16]int
	// filtered and stacked count the attachments that are so.
	filtered, stacked int

	// What was found or made last.
	index int
	shape shape
	// leftOut says that others keep removing it, and it is not made again for now.
	leftOut bool
	// clean says that the bridge and its ports (not the devices) are as wanted.
	clean bool
}

// vlanDevice is one VLAN of an interface as a netdev.
type vlanDevice struct {
	name, parent string
	id           uint16
}

// shape is what about a bridge concerns all of its ports.
type shape struct {
	// aware: it filters VLANs.
	aware bool
	// pvid is the VLAN that untagged frames are in, if it is aware; 0 is none.
	pvid uint16
	// learns: its ports learn addresses.
	learns bool
}

func newTarget(name string) *target {
	return &target{name: name, attachments: map[string]Attachment{}, vlans: map[uint16]int{}}
}

// put adds an attachment or replaces it.
func (t *target) put(a Attachment) {
	t.drop(a.Pseudowire)
	if t.vlan != nil {
		a.VLAN = 0 // the VLAN device has taken the tag off
	}
	t.attachments[a.Pseudowire] = a
	for vid := range a.vlans() {
		t.vlans[vid]++
	}
	t.filtered += number(a.Filtered)
	t.stacked += number(a.Stacked)
}

// vlans are the VLANs of an attachment, 0 for none.
func (a *Attachment) vlans() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		if a.VLANs == "" {
			yield(a.VLAN)
			return
		}
		if a.Untagged && !yield(0) {
			return
		}
		a.VLANs.All()(yield)
	}
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

func (t *target) drop(pseudowire string) {
	a, known := t.attachments[pseudowire]
	if !known {
		return
	}
	delete(t.attachments, pseudowire)
	for vid := range a.vlans() {
		if t.vlans[vid]--; t.vlans[vid] == 0 {
			delete(t.vlans, vid)
		}
	}
	t.filtered -= number(a.Filtered)
	t.stacked -= number(a.Stacked)
}

// tags reports whether an attachment carries a VLAN.
func (t *target) tags() bool {
	return len(t.vlans) > 1 || len(t.vlans) == 1 && t.vlans[0] == 0
}

// place finds the bridge that an attachment goes to, or makes it up.
func (m *Manager) place(a Attachment) (*target, error) {
	object := "pseudowire " + a.Pseudowire
	switch {
	case a.Pseudowire == "" || a.Device == "":
		return nil, &InvalidError{object, "an attachment needs the names of a pseudowire and its device"}
	case (a.Bridge == "") == (a.Interface == ""):
		return nil, &InvalidError{object, "an attachment is to a bridge or to an interface"}
	case a.VLAN > 4094:
		return nil, &InvalidError{object, fmt.Sprintf("VLAN %d; there are 1 to 4094", a.VLAN)}
	case a.Tagged && a.VLAN == 0 && !a.Filtered:
		return nil, &InvalidError{object, "tagged without a VLAN"}
	case a.VLANs != "" && (a.VLAN != 0 || !a.Filtered):
		return nil, &InvalidError{object, "several VLANs take a device that filters them"}
	case a.Bridge != "":
		t := m.targets[a.Bridge]
		if t == nil || t.private {
			return nil, &InvalidError{object, "bridge " + a.Bridge + " is not set"}
		}
		return t, nil
	}

	wanted := newTarget(PrivateBridge(a.Interface))
	wanted.private, wanted.groups, wanted.ports = true, transparent, []string{a.Interface}
	if a.VLAN != 0 {
		can, err := m.supported()
		switch {
		case err != nil:
			return nil, err
		case a.Tagged || !can.vlanDevices && can.vlanFiltering:
			// The bridge of the whole interface, which filters VLANs if it can.
		case can.vlanDevices:
			device := &vlanDevice{name: VLANDevice(a.Interface, a.VLAN), parent: a.Interface, id: a.VLAN}
			wanted = newTarget(PrivateBridge(device.name))
			wanted.private, wanted.groups, wanted.vlan = true, transparent, device
		default:
			return nil, &UnsupportedError{For: object, Missing: fmt.Sprintf("the kernel has neither VLAN devices nor bridge VLAN filtering to carry VLAN %d of %s", a.VLAN, a.Interface),
				Remedy: "use `datapath: ebpf`, which takes the tag off itself, or load the module 8021q"}
		}
	}
	if wanted.vlan != nil {
		wanted.ports = nil
	} else if owner := m.owners[a.Interface]; owner != nil && !owner.private {
		return nil, &InvalidError{object, "interface " + a.Interface + " is a port of " + owner.name + "; attach to that bridge"}
	}
	if t := m.targets[wanted.name]; t != nil {
		if !t.private {
			return nil, &InvalidError{object, "bridge " + t.name + " has the name that the bridge of " + a.Interface + " is to have; rename it"}
		}
		return t, nil
	}
	return wanted, nil
}

// shapeOf decides what the bridge is to be, from what is wanted of it and what it is.
func (m *Manager) shapeOf(t *target, now *link) (shape, error) {
	var s shape
	switch {
	case t.external:
		s.aware = now.filters
	case t.mode == On:
		if !now.canFilter {
			return shape{}, &UnsupportedError{For: "bridge " + t.name, Missing: "the kernel has no bridge VLAN filtering", Remedy: "leave `vlan-aware: true` out"}
		}
		s.aware = true
	case t.private && (t.vlans[0] > 0 || t.filtered > 0):
		// A whole interface passes tags and all.
	case t.mode == Auto && now.canFilter:
		// So does a bridge without VLAN attachments. Until everything has been
		// named it stays as it is.
		s.aware = t.tags() || now.filters && !m.settled
	}
	if s.aware && !t.private {
		s.pvid = pvidFor(t, now)
	}
	// A bridge that does not tell VLANs apart has one table of addresses for
	// all of them. The same address in two VLANs (a router's, VRRP) would move
	// to and fro in it and take frames to the wrong pseudowire: it must not learn.
	// Nor does one that does tell them apart know of tags below the first.
	s.learns = (s.aware || len(t.vlans) < 2) && t.stacked == 0
	return s, nil
}

// pvidFor picks the VLAN of untagged frames, inside the bridge only: what it is,
// unless an attachment carries that VLAN on the wire.
func pvidFor(t *target, now *link) uint16 {
	if t.external || now.defaultPVID != 0 && t.vlans[now.defaultPVID] == 0 {
		return now.defaultPVID
	}
	for vid := uint16(4094); vid > 1; vid-- {
		if t.vlans[vid] == 0 {
			return vid
		}
	}
	return 0
}

// portVLANs are the VLANs of a port of the host's.
func (t *target) portVLANs(s shape) vlanTable {
	table := vlanTable{}
	for vid := range t.vlans {
		if vid != 0 {
			table[vid] = tagged
		}
	}
	if s.pvid != 0 {
		table[s.pvid] = native
	}
	return table
}

// deviceVLANs are the VLANs of a pseudowire's device.
func deviceVLANs(a Attachment, s shape) vlanTable {
	switch {
	case a.VLANs != "":
		table := vlanTable{}
		for vid := range a.VLANs.All() {
			table[vid] = tagged
		}
		if a.Untagged && s.pvid != 0 {
			table[s.pvid] = native
		}
		return table
	case a.VLAN == 0 && s.pvid == 0:
		return vlanTable{}
	case a.VLAN == 0:
		return vlanTable{s.pvid: native}
	case a.Tagged:
		return vlanTable{a.VLAN: tagged}
	}
	return vlanTable{a.VLAN: native}
}

// sorted gives the attachments by name.
func (t *target) sorted() []Attachment {
	var all []Attachment
	for _, name := range slices.Sorted(maps.Keys(t.attachments)) {
		all = append(all, t.attachments[name])
	}
	return all
}
