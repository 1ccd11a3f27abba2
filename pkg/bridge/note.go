package bridge

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// newGroup is the group of a netdev of ours until it is complete and up:
	// what a crash leaves before is known to be ours, and to be finished.
	newGroup = 0x707764 // "pwd"
	// probeName cannot come from a topology: names there begin with a letter or digit.
	probeName = "-pwdprobe"

	bridgePrefix = "pwd:bridge:"
	vlanPrefix   = "pwd:vlan:"
	// maxAlias is the kernel's IFALIASZ without its end.
	maxAlias = 255
	// maxName is IFNAMSIZ without its end.
	maxName = 15
)

// note is the alias of a bridge or VLAN device of ours: that it is ours, and how
// others' interfaces were that we use through it. It lives in the kernel beside
// what it is about, so it outlasts a crash and not a reboot, as that does.
//
//	pwd:bridge:br-lan uses=3,4d0
type note struct {
	prefix, name string
	uses         []use
}

// use is one interface of somebody else's that we changed.
type use struct {
	// index of the interface: names change.
	index int
	// down says that it was down, and addrGen is its IPv6 address generation
	// mode of then.
	down    bool
	addrGen uint8
}

// parseNote reads an alias; it reports whether it is one of ours. What it does
// not understand of the uses it leaves out: the owner of the host may write an alias.
func parseNote(alias string) (note, bool) {
	var n note
	switch {
	case strings.HasPrefix(alias, bridgePrefix):
		n.prefix = bridgePrefix
	case strings.HasPrefix(alias, vlanPrefix):
		n.prefix = vlanPrefix
	default:
		return note{}, false
	}
	fields := strings.Fields(alias[len(n.prefix):])
	if len(fields) == 0 {
		return note{}, false
	}
	n.name = fields[0]
	for _, f := range fields[1:] {
		list, ok := strings.CutPrefix(f, "uses=")
		if !ok {
			continue
		}
		for item := range strings.SplitSeq(list, ",") {
			if u, ok := parseUse(item); ok && n.find(u.index) == nil {
				n.uses = append(n.uses, u)
			}
		}
	}
	return n, true
}

func parseUse(s string) (use, bool) {
	number, mode, down := strings.Cut(s, "d")
	index, err := strconv.ParseUint(number, 10, 31)
	if err != nil || index == 0 {
		return use{}, false
	}
	u := use{index: int(index), down: down}
	if down {
		m, err := strconv.ParseUint(mode, 10, 8)
		if err != nil {
			return use{}, false
		}
		u.addrGen = uint8(m)
	}
	return u, true
}

// String is the alias.
func (n note) String() string {
	s := n.prefix + n.name
	for i, u := range n.uses {
		if i == 0 {
			s += " uses="
		} else {
			s += ","
		}
		s += strconv.Itoa(u.index)
		if u.down {
			s += fmt.Sprintf("d%d", u.addrGen)
		}
	}
	return s
}

// find gives the note about an interface, or nil.
func (n *note) find(index int) *use {
	for i := range n.uses {
		if n.uses[i].index == index {
			return &n.uses[i]
		}
	}
	return nil
}

// with adds or replaces the note about an interface.
func (n note) with(u use) note {
	n = n.without(u.index)
	n.uses = append(n.uses, u)
	slices.SortFunc(n.uses, func(a, b use) int { return cmp.Compare(a.index, b.index) })
	return n
}

// without drops the note about an interface.
func (n note) without(index int) note {
	n.uses = slices.DeleteFunc(slices.Clone(n.uses), func(u use) bool { return u.index == index })
	return n
}

// fit shortens a device name to what the kernel takes: its beginning and four
// octets of base32 of its SHA-256.
func fit(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxName-5] + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:4])
}

// PrivateBridge is the name of the bridge that holds an interface and the
// devices of the pseudowires attached to it: pwb-INTERFACE, shortened as devices' names are.
func PrivateBridge(iface string) string { return fit("pwb-" + iface) }

// VLANDevice is the name of the device for one VLAN of an interface: INTERFACE.VLAN, shortened likewise.
func VLANDevice(iface string, vlan uint16) string {
	return fit(iface + "." + strconv.Itoa(int(vlan)))
}
