// Package bridge makes attachment circuits: it puts the devices of pseudowires
// together with the host's bridges and interfaces.
//
// # Cases
//
//	bridge             the device is a port of the bridge
//	bridge, VLAN       the device carries one VLAN of the bridge. Where the bridge
//	                   filters VLANs, it takes the tag off and puts it on; where the
//	                   datapath does that itself (Attachment.Tagged), any bridge will do
//	interface          a private bridge of the interface and the device, as
//	                   transparent as the kernel allows
//	interface, VLAN    the same with a VLAN device of the interface; with Tagged,
//	                   with the interface itself, which its pseudowires then share
//	several VLANs,     as a VLAN with Tagged: the device is Filtered, it keeps the frames
//	untagged           of others away by itself
//
// # Ownership
//
// Bridges and VLAN devices made here carry an alias that begins with "pwd:", and
// nothing without one is ever removed. The alias also notes how others' interfaces
// were that were changed (taken into a bridge, brought up), so that they are put
// back even by another process after a crash. Everything outlives the process;
// Close gives up handles only.
//
// A Manager belongs to one goroutine, whose thread is in the network namespace
// that Open was called in. Its setters take the whole desired state of one object,
// change only what differs, and may be called again with the same argument.
//
// # Silence
//
// Bridges and VLAN devices made here never speak in the customers' LANs: no IPv6
// on them, no multicast snooping, no spanning tree. That is set when they are made,
// before they are up. Who wants addresses on a bridge may turn IPv6 on there again.
//
// # MTU
//
// No MTU is set here. A bridge's own is the smallest of its ports', by the
// kernel's rule, and goes back with them; what it forwards is bounded by the port that a frame
// leaves through, not by it.
//
// # Restart
//
// Between Open and Prune the desired state is taken to be incomplete: what is
// added is added, and of what is there nothing is taken away that an attachment
// still to be named may need. Prune says that all has been named.
package bridge

import (
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// Options are what a Manager is made with.
type Options struct {
	// Logger takes what is made and removed; nil is silent.
	Logger *slog.Logger
}

// VLANAware says whether a bridge filters VLANs.
type VLANAware uint8

const (
	// Auto filters where the kernel can and a VLAN attachment is there to need it.
	Auto VLANAware = iota
	On
	Off
)

// Bridge is a bridge to be made or used.
type Bridge struct {
	Name string
	// External bridges are somebody else's: used, never made, changed or removed.
	External bool
	// Ports are the host's interfaces in it; not for external ones. Ports that
	// others put into it stay.
	Ports []string
	// VLANAware is not for external ones, which are as they are.
	VLANAware VLANAware
	// LinkLocal are the groups 01-80-C2-00-00-0x that it passes on: bit x. Not for external
	// ones.
	LinkLocal uint16
}

// Attachment is a pseudowire's attachment circuit: exactly one of Bridge and
// Interface is set.
type Attachment struct {
	// Pseudowire is its name; Device its netdev.
	Pseudowire, Device string
	Bridge, Interface  string
	// VLAN is the tag on the attachment circuit, 1 to 4094. 0 is a whole
	// interface, or a bridge's untagged traffic (all its traffic if it does not
	// filter VLANs).
	VLAN uint16
	// VLANs are several of them instead, whose tags stay on.
	VLANs vlan.Set
	// Untagged is untagged traffic beside VLANs.
	Untagged bool
	// Tagged says that frames on the device carry that tag, because the datapath
	// rewrites it. Otherwise they are without.
	Tagged bool
	// Filtered says that the device takes and gives no other frames than those of the
	// attachment circuit, tags and all, whatever the bridge does; Stacked that tags which
	// the bridge does not look at, an inner or a service tag, say which these are.
	Filtered, Stacked bool
	// AnyTag says that the datapath passes frames with whatever tag, so that the
	// bridge has to keep those of other VLANs away.
	AnyTag bool
	// Isolated keeps frames from one isolated device from going out of another: the
	// split horizon among the pseudowires of one network.
	Isolated bool
	// StateOfOthers says that whether the device is up is its datapath's affair: it comes out of
	// here as it came in.
	StateOfOthers bool
	// Full keeps the device's port from learning more addresses; what it has learned
	// stays until it has been silent for long. Frames of others pass, flooded.
	Full bool
}

// Manager makes attachment circuits in one network namespace.
//
// What it finds changed by others, Repairs tells.
type Manager struct {
	drift.Log
	nl          *rtnl
	log         *slog.Logger
	namespace   uint64 // inode of the network namespace
	support     *support
	bridges     map[string]Bridge
	attachments map[string]placed
	devices     map[string]string // the pseudowires of attachments, by device
	targets     map[string]*target
	// owners is which bridge an interface is for: the one that asked last, so
	// that it can move from one to the other in any order.
	owners map[string]*target
	// known is how ports were left, by name.
	known map[string]portState
	// settled is set by Prune.
	settled bool
}

// placed is an attachment and the bridge that it went to.
type placed struct {
	Attachment
	target *target
}

// Open makes a Manager of the calling thread's network namespace.
func Open(o Options) (*Manager, error) {
	nl, err := openRTNL()
	if err != nil {
		return nil, &OpError{Op: "open", Link: "netlink", Err: err}
	}
	m := &Manager{
		nl: nl, log: o.Logger, namespace: namespaceInode(),
		bridges: map[string]Bridge{}, attachments: map[string]placed{}, devices: map[string]string{}, targets: map[string]*target{}, owners: map[string]*target{},
		known: map[string]portState{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m, nil
}

// SetBridge makes a bridge what b says. Errors, joined where several: missing
// interfaces are *NotPresentError (see NotPresent), and the rest is done all the same.
func (m *Manager) SetBridge(b Bridge) error {
	if m.nl == nil {
		return ErrClosed
	}
	b.Ports = slices.Clone(b.Ports)
	if err := m.checkBridge(b); err != nil {
		return err
	}
	m.bridges[b.Name] = b
	t := m.targets[b.Name]
	if t == nil {
		t = newTarget(b.Name)
		m.targets[b.Name] = t
	}
	m.disown(t)
	t.external, t.ports, t.mode, t.groups = b.External, b.Ports, b.VLANAware, b.LinkLocal&transparent
	m.own(t)
	own, devices := m.reconcile(t)
	return errors.Join(own, present(devices))
}

// own gives a bridge's ports to it, disown gives them up.
func (m *Manager) own(t *target) {
	for _, p := range t.ports {
		m.owners[p] = t
	}
}

func (m *Manager) disown(t *target) {
	for _, p := range t.ports {
		if m.owners[p] == t {
			delete(m.owners, p)
		}
	}
}

func (m *Manager) checkBridge(b Bridge) error {
	object := "bridge " + b.Name
	switch {
	case b.Name == "" || len(b.Name) > maxName:
		return &InvalidError{object, "a bridge's name has 1 to 15 octets"}
	case b.External && len(b.Ports) > 0:
		return &InvalidError{object, "ports of an external bridge are its owner's; leave them out"}
	case b.External && b.LinkLocal != 0:
		return &InvalidError{object, "what an external bridge passes on is its owner's; leave link-local out"}
	case b.External && b.VLANAware != Auto:
		return &InvalidError{object, "VLAN filtering of an external bridge is its owner's; leave vlan-aware out"}
	}
	if t := m.targets[b.Name]; t != nil && t.private {
		return &InvalidError{object, "that is the name of the bridge of an attached interface; rename it"}
	}
	return nil
}

// RemoveBridge removes a bridge that was made here and puts its ports back; an
// external one is left as it is. Unknown names are no error. Attachments that
// name it come off it.
func (m *Manager) RemoveBridge(name string) error {
	if m.nl == nil {
		return ErrClosed
	}
	_, known := m.bridges[name]
	t := m.targets[name]
	delete(m.bridges, name)
	if !known || t == nil {
		return nil
	}
	delete(m.targets, name)
	m.disown(t)
	return m.dismantle(t)
}

// SetAttachment puts a pseudowire's device where a says. Errors, joined where
// several: *NotPresentError for an interface or device that is missing,
// *UnsupportedError for what neither kernel nor datapath can do. What ails
// a bridge that SetBridge set is told there.
func (m *Manager) SetAttachment(a Attachment) error {
	if m.nl == nil {
		return ErrClosed
	}
	t, err := m.place(a)
	if err != nil {
		return err
	}
	old, known := m.attachments[a.Pseudowire]
	if known && old.target == t && old.Attachment == a && t.clean {
		return m.attach(t, a)
	}
	var failures []error
	if known && (old.target != t || old.Device != a.Device) {
		failures = append(failures, m.RemoveAttachment(a.Pseudowire))
	}
	m.attachments[a.Pseudowire], m.devices[a.Device] = placed{a, t}, a.Pseudowire
	m.targets[t.name] = t
	if t.private {
		m.own(t)
	}
	t.put(a)
	failures = append(failures, m.adapt(t, a, known && old.target == t && (old.VLAN != a.VLAN || old.VLANs != a.VLANs)))
	return errors.Join(failures...)
}

// RemoveAttachment takes pseudowires' devices out of their bridges, and removes
// what only they needed. Unknown names are no error.
func (m *Manager) RemoveAttachment(pseudowires ...string) error {
	if m.nl == nil {
		return ErrClosed
	}
	if len(pseudowires) > fewAttachments {
		if err := m.nl.look(); err != nil {
			return failed("list", "links", err)
		}
		defer m.nl.lookAway()
	}
	var failures []error
	for _, name := range pseudowires {
		failures = append(failures, m.removeAttachment(name))
	}
	return errors.Join(failures...)
}

func (m *Manager) removeAttachment(pseudowire string) error {
	p, known := m.attachments[pseudowire]
	if !known {
		return nil
	}
	delete(m.attachments, pseudowire)
	if m.devices[p.Device] == pseudowire {
		delete(m.devices, p.Device)
	}
	p.target.drop(pseudowire)
	err := m.detach(p.target, p.Device)
	if p.target.private && len(p.target.attachments) == 0 {
		delete(m.targets, p.target.name)
		m.disown(p.target)
		return errors.Join(err, m.dismantle(p.target))
	}
	return errors.Join(err, m.reshape(p.target, p.Attachment))
}

// Refresh looks at everything again and mends what differs: after links came,
// went or were changed by others. The error joins what is still amiss.
func (m *Manager) Refresh() error {
	if m.nl == nil {
		return ErrClosed
	}
	var failures []error
	if len(m.attachments) > fewAttachments {
		if err := m.nl.look(); err != nil {
			return failed("list", "links", err)
		}
		defer m.nl.lookAway()
	}
	for _, name := range slices.Sorted(maps.Keys(m.targets)) {
		own, devices := m.reconcile(m.targets[name])
		failures = append(failures, own, devices)
	}
	return errors.Join(failures...)
}

// fewAttachments are looked at one by one: there may be many more links on the host.
const fewAttachments = 4

// Prune removes every bridge and VLAN device of ours that was not named since
// Open, puts the interfaces back that they used, and takes out of the bridges
// what nobody needs: devices of pseudowires, VLANs.
func (m *Manager) Prune() error {
	if m.nl == nil {
		return ErrClosed
	}
	m.settled = true
	wanted := map[string]bool{}
	for _, t := range m.targets {
		wanted[t.name] = !t.external
		if t.vlan != nil {
			wanted[t.vlan.name] = true
		}
	}
	return errors.Join(m.removeOwned(func(l *link) bool { return !wanted[l.name] }), m.removeDevices(), m.Refresh())
}

// Close gives up handles; what was made stays.
func (m *Manager) Close() error {
	if m.nl != nil {
		m.nl.close()
		m.nl = nil
	}
	return nil
}

// Cleanup removes everything of ours, puts back what was changed on others'
// interfaces, and closes. It needs no other call before it.
func (m *Manager) Cleanup() error {
	if m.nl == nil {
		return ErrClosed
	}
	var failures []error
	for _, p := range m.attachments {
		failures = append(failures, m.detach(p.target, p.Device))
	}
	failures = append(failures, m.removeOwned(func(*link) bool { return true }), m.Close())
	return errors.Join(failures...)
}
