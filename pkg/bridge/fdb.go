package bridge

import (
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address is a MAC address.
type Address [6]byte

func (a Address) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5])
}

// MAC is an address that a bridge has learned, and where it is.
type MAC struct {
	Address Address
	// Bridge learned it, in VLAN if it tells VLANs apart; otherwise that is 0.
	Bridge string
	VLAN   uint16
	// Port is the netdev that it is behind. Pseudowire is whose device that is,
	// empty if it is the host's own port.
	Port, Pseudowire string
	// BridgeIndex and PortIndex are those of the links, as a Move has them.
	BridgeIndex, PortIndex int
	// Idle is for how long it has sent nothing.
	Idle time.Duration
}

// MACs lists what the bridges that were set have learned, sorted. The bridges'
// and ports' own addresses, and what was configured by others, are not in it.
func (m *Manager) MACs() ([]MAC, error) {
	if m.nl == nil {
		return nil, ErrClosed
	}
	links, err := m.nl.links()
	if err != nil {
		return nil, failed("list", "links", err)
	}
	names, bridges := map[int]string{}, map[int]bool{}
	for _, l := range links {
		names[l.index] = l.name
		bridges[l.index] = m.targets[l.name] != nil
	}
	learned, err := m.nl.learned()
	if err != nil {
		return nil, failed("list", "what bridges have learned", err)
	}
	devices := map[string]string{}
	for name, p := range m.attachments {
		devices[p.Device] = name
	}
	var all []MAC
	for _, e := range learned {
		if !bridges[e.bridge] {
			continue
		}
		port := names[e.port]
		all = append(all, MAC{
			Address: e.address, Bridge: names[e.bridge], VLAN: e.vlan,
			Port: port, Pseudowire: devices[port], Idle: e.idle,
			BridgeIndex: e.bridge, PortIndex: e.port,
		})
	}
	slices.SortFunc(all, compareMACs)
	return all, nil
}

func compareMACs(a, b MAC) int {
	for _, c := range []int{
		compare(a.Bridge, b.Bridge), int(a.VLAN) - int(b.VLAN), slices.Compare(a.Address[:], b.Address[:]), compare(a.Port, b.Port),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

func compare(a, b string) int { return slices.Compare([]byte(a), []byte(b)) }

// Flush forgets what was learned behind a pseudowire: its frames are flooded
// until their destinations have sent something again.
func (m *Manager) Flush(pseudowire string) error {
	return m.onPort(pseudowire, "flush", attr(unix.IFLA_BRPORT_FLUSH, nil))
}

// The states of a port (linux/if_bridge.h). Without spanning tree the kernel takes
// every other one for forwarding.
const (
	stateDisabled   = 0
	stateForwarding = 3
)

// SetBlocked keeps a pseudowire's device from forwarding, learning included, or
// lets it again. It holds until the device leaves its bridge or its carrier
// comes back. What is blocked forgets what it has learned; what is not is left as it is.
func (m *Manager) SetBlocked(pseudowire string, blocked bool) error {
	if blocked {
		return m.onPort(pseudowire, "block", attr(unix.IFLA_BRPORT_STATE, nl.Uint8Attr(stateDisabled)), attr(unix.IFLA_BRPORT_FLUSH, nil))
	}
	l, err := m.port(pseudowire)
	if err != nil || l.portState != stateDisabled {
		return err
	}
	return failed("unblock", l.name, m.nl.setPort(l.index, attr(unix.IFLA_BRPORT_STATE, nl.Uint8Attr(stateForwarding))))
}

// port finds the port that a pseudowire's device is. One that is not in its
// bridge is a *NotPresentError.
func (m *Manager) port(pseudowire string) (*link, error) {
	if m.nl == nil {
		return nil, ErrClosed
	}
	p, known := m.attachments[pseudowire]
	if !known {
		return nil, &InvalidError{"pseudowire " + pseudowire, "it is not attached"}
	}
	l, err := m.nl.link(p.Device)
	switch {
	case err != nil:
		return nil, failed("find", p.Device, err)
	case l == nil || l.master == 0 || l.master != p.target.index:
		return nil, &NotPresentError{Interface: p.Device, For: "pseudowire " + pseudowire}
	}
	return l, nil
}

// onPort changes a pseudowire's port.
func (m *Manager) onPort(pseudowire, op string, change ...*nl.RtAttr) error {
	l, err := m.port(pseudowire)
	if err != nil {
		return err
	}
	return failed(op, l.name, m.nl.setPort(l.index, change...))
}

// learnedEntry is an entry of a bridge's forwarding table that it learned.
type learnedEntry struct {
	address      Address
	bridge, port int
	vlan         uint16
	idle         time.Duration
}

// learned lists what all bridges have learned.
func (r *rtnl) learned() ([]learnedEntry, error) {
	query := make([]byte, unix.SizeofNdMsg)
	query[0] = unix.AF_BRIDGE
	messages, err := r.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, raw(query))
	if err != nil {
		return nil, err
	}
	var all []learnedEntry
	for _, m := range messages {
		if e, ok := parseLearned(m); ok {
			all = append(all, e)
		}
	}
	return all, nil
}

// userHZ is what times in route netlink count in, whatever the kernel's own.
const userHZ = 100

// parseLearned reads a neighbour message of a bridge; false for one that is not
// about something learned.
func parseLearned(b []byte) (e learnedEntry, ok bool) {
	const configured = unix.NUD_PERMANENT | unix.NUD_NOARP
	if len(b) < unix.SizeofNdMsg || b[0] != unix.AF_BRIDGE || u16(b[8:])&configured != 0 {
		return e, false
	}
	e.port = int(int32(u32(b[4:])))
	err := walk(b[unix.SizeofNdMsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.NDA_LLADDR:
			ok = copy(e.address[:], v) == len(e.address)
		case unix.NDA_VLAN:
			e.vlan = u16(v)
		case unix.NDA_MASTER:
			e.bridge = int(u32(v))
		case unix.NDA_CACHEINFO: // confirmed, used, updated, refcnt
			if len(v) >= 12 {
				e.idle = time.Duration(u32(v[8:])) * time.Second / userHZ
			}
		}
		return nil
	})
	return e, err == nil && ok && e.bridge != 0
}
