// Package plan compares what a site should be with what it is and puts the
// difference in an order that can be carried out, and undone, step by step. It
// is pure.
package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/internal/topology"
)

// Kind is the kind of object that a step is about.
type Kind string

const (
	Bridge     Kind = "bridge"
	Tunnel     Kind = "tunnel"
	Pseudowire Kind = "pseudowire"
)

// Action is what a step does to its object.
type Action string

const (
	Add    Action = "add"
	Change Action = "change"
	Remove Action = "remove"
)

// Impact is what a step costs the traffic of its object.
type Impact string

const (
	// None is for objects that carry nothing yet.
	None Impact = ""
	// Live changes lose no session.
	Live Impact = "live"
	// ResetsSession closes the session, or the tunnel's sessions, and signals anew.
	ResetsSession Impact = "resets-session"
	// Recreates takes the object's kernel devices away, for good or to make new ones.
	Recreates Impact = "recreates"
)

// Disruptive says whether traffic stops.
func (i Impact) Disruptive() bool { return i == ResetsSession || i == Recreates }

// Step takes one object from Before to After; one of them is nil when the
// object is added or removed. Their type is *topology.Bridge, *topology.Tunnel
// or *topology.Pseudowire, as Kind says.
type Step struct {
	Action Action
	Kind   Kind
	Name   string
	Impact Impact
	// Detail says in words what differs.
	Detail        string
	Before, After any
}

// Undo is the step that takes the object back.
func (s Step) Undo() Step {
	u := s
	u.Before, u.After = s.After, s.Before
	switch s.Action {
	case Add:
		u.Action = Remove
	case Remove:
		u.Action = Add
	}
	return u
}

// Disruptive says whether any of the steps stops traffic.
func Disruptive(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Impact.Disruptive() })
}

// Between lists the steps from one state of a site to another; either may be
// nil, which is a site without anything.
//
// What goes is taken away first, users before what they use, so that what comes
// may take its name, VLAN or port. What comes is made in the other direction.
func Between(from, to *topology.Local) []Step {
	if from == nil {
		from = &topology.Local{}
	}
	if to == nil {
		to = &topology.Local{}
	}
	bridges := diff(Bridge, index(from.Bridges, bridgeName), index(to.Bridges, bridgeName), changedBridge)
	tunnels := diff(Tunnel, index(from.Tunnels, tunnelName), index(to.Tunnels, tunnelName), changedTunnel)
	wires := diff(Pseudowire, index(from.Pseudowires, wireName), index(to.Pseudowires, wireName), changedPseudowire)

	var steps []Step
	for _, d := range []difference{wires, tunnels, bridges} {
		steps = append(steps, d.removed...)
	}
	for _, d := range []difference{bridges, tunnels, wires} {
		steps = append(steps, d.changed...)
	}
	for _, d := range []difference{bridges, tunnels, wires} {
		steps = append(steps, d.added...)
	}
	return steps
}

// Untouched lists the objects of a topology that steps towards it are not about, as steps
// without an action.
func Untouched(to *topology.Local, steps []Step) (rest []Step) {
	type object struct {
		kind Kind
		name string
	}
	touched := make(map[object]bool)
	for _, s := range steps {
		touched[object{s.Kind, s.Name}] = true
	}
	add := func(kind Kind, name string) {
		if !touched[object{kind, name}] {
			rest = append(rest, Step{Kind: kind, Name: name})
		}
	}
	for _, b := range to.Bridges {
		add(Bridge, b.Name)
	}
	for _, t := range to.Tunnels {
		add(Tunnel, t.Key)
	}
	for _, p := range to.Pseudowires {
		add(Pseudowire, p.Name)
	}
	return rest
}

func bridgeName(b topology.Bridge) string   { return b.Name }
func tunnelName(t topology.Tunnel) string   { return t.Key }
func wireName(p topology.Pseudowire) string { return p.Name }

func index[T any](items []T, name func(T) string) map[string]*T {
	m := make(map[string]*T, len(items))
	for i := range items {
		m[name(items[i])] = &items[i]
	}
	return m
}

type difference struct{ removed, changed, added []Step }

// diff compares two sets of objects of one kind. changed says what two unequal
// objects differ in and what the change costs.
func diff[T any](kind Kind, from, to map[string]*T, changed func(a, b *T) (Impact, []string)) difference {
	var d difference
	for _, name := range sortedKeys(from) {
		a, b := from[name], to[name]
		if b == nil {
			d.removed = append(d.removed, Step{Action: Remove, Kind: kind, Name: name, Impact: Recreates, Before: a})
			continue
		}
		if reflect.DeepEqual(a, b) {
			continue
		}
		impact, what := changed(a, b)
		d.changed = append(d.changed, Step{Action: Change, Kind: kind, Name: name, Impact: impact, Detail: strings.Join(what, ", "), Before: a, After: b})
	}
	for _, name := range sortedKeys(to) {
		if from[name] == nil {
			d.added = append(d.added, Step{Action: Add, Kind: kind, Name: name, After: to[name]})
		}
	}
	return d
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// field is one attribute of an object, before and after.
type field struct {
	name   string
	impact Impact
	a, b   any
}

func compare(fields []field) (Impact, []string) {
	worst := Live
	var what []string
	for _, f := range fields {
		if reflect.DeepEqual(f.a, f.b) {
			continue
		}
		if _, secret := f.a.([]topology.Secret); secret {
			what = append(what, f.name+" changed")
		} else {
			what = append(what, fmt.Sprintf("%s %s -> %s", f.name, shown(f.a), shown(f.b)))
		}
		if rank(f.impact) > rank(worst) {
			worst = f.impact
		}
	}
	return worst, what
}

func rank(i Impact) int { return slices.Index([]Impact{None, Live, ResetsSession, Recreates}, i) }

func shown(v any) string {
	switch s := fmt.Sprint(v); s {
	case "", "0", "[]":
		return "-"
	default:
		return s
	}
}

func changedBridge(a, b *topology.Bridge) (Impact, []string) {
	return compare([]field{
		{"external", Recreates, a.External, b.External},
		{"ports", Live, a.Ports, b.Ports},
		{"vlan-aware", Live, a.VLANAware, b.VLANAware},
		{"link-local groups", Live, a.LinkLocal, b.LinkLocal},
	})
}

// A tunnel's identity is what its control connection was set up with; only its
// timers, its secrets and how it signs and hides can change under it.
func changedTunnel(a, b *topology.Tunnel) (Impact, []string) {
	fields := []field{
		{"encapsulation", ResetsSession, a.Encapsulation, b.Encapsulation},
		{"local address", ResetsSession, address(a.Local), address(b.Local)},
		{"remote address", ResetsSession, address(a.Remote), address(b.Remote)},
		{"host name", ResetsSession, a.HostName, b.HostName},
		{"peer's host name", ResetsSession, a.PeerHostName, b.PeerHostName},
		{"router ID", ResetsSession, a.RouterID, b.RouterID},
		{"hello", Live, a.Hello, b.Hello},
		{"authentication", ResetsSession, authentication(a), authentication(b)},
		{"digest", Live, a.Digest, b.Digest},
		{"hide", Live, a.Hide, b.Hide},
		{"class", Live, a.Class, b.Class},
		{"rate", Live, a.Rate, b.Rate},
		{"ceiling", Live, a.Ceiling, b.Ceiling},
		{"priority", Live, a.Priority, b.Priority},
		{"queue", Live, a.Queue, b.Queue},
		{"the link's rate", Live, a.LinkRate, b.LinkRate},
		{"the pair's rate", Live, a.PairRate, b.PairRate},
		{"replace others' qdiscs", Live, a.ReplaceQdisc, b.ReplaceQdisc},
		{"departure times", Live, a.EDT, b.EDT},
		{"underlay", Live, a.Underlay, b.Underlay},
		{"ecn", ResetsSession, a.ECN, b.ECN},
		{"udp-checksum", Live, onOff(a.Checksum), onOff(b.Checksum)},
		{"df", Live, a.DF, b.DF},
		{"numbers", Live, a.Numbers, b.Numbers},
		{"foreign peer", ResetsSession, a.Foreign, b.Foreign},
		{"control connection", ResetsSession, signalled(a.Static == nil), signalled(b.Static == nil)},
	}
	if a.Static != nil && b.Static != nil {
		fields = append(fields, field{"connection IDs and ports", ResetsSession, *a.Static, *b.Static})
	}
	if len(a.SecretFiles) > 0 && len(b.SecretFiles) > 0 {
		fields = append(fields, field{"secret-file", Live, a.SecretFiles, b.SecretFiles}, field{"secret", Live, a.Secrets, b.Secrets})
	}
	return compare(fields)
}

func signalled(is bool) string {
	if is {
		return "signalled"
	}
	return "static"
}

func address(a netip.Addr) string {
	if a.IsValid() {
		return a.String()
	}
	return "dynamic"
}

func authentication(t *topology.Tunnel) string {
	return onOff(len(t.SecretFiles) > 0)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// tunnelsOf are the tunnels of a pseudowire, by preference.
func tunnelsOf(p *topology.Pseudowire) []string {
	var keys []string
	for _, r := range p.Rides() {
		keys = append(keys, r.Tunnel)
	}
	return keys
}

func redundancy(p *topology.Pseudowire) string {
	switch r := p.Redundancy; {
	case r == nil:
		return ""
	case r.Revertive:
		return fmt.Sprintf("revertive after %v", r.Hold)
	}
	return "not revertive"
}

// dscps are those of the sessions that a pseudowire has on tunnels that the other one
// has as well.
func dscps(p, other *topology.Pseudowire) []uint8 {
	rides := slices.SortedFunc(slices.Values(p.Rides()), func(a, b topology.Ride) int { return strings.Compare(a.Tunnel, b.Tunnel) })
	var all []uint8
	for _, r := range rides {
		if other.On(r.Tunnel) {
			all = append(all, r.DSCP)
		}
	}
	return all
}

// markings are how those sessions get their DSCP from frames.
func markings(p, other *topology.Pseudowire) string {
	var all []string
	for _, r := range p.Rides() {
		if other.On(r.Tunnel) && r.Marking.Any() {
			all = append(all, r.Tunnel+" "+r.Marking.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func changedPseudowire(a, b *topology.Pseudowire) (Impact, []string) {
	// While it keeps one of its tunnels, frames go over that.
	ride := ResetsSession
	if slices.ContainsFunc(tunnelsOf(a), b.On) {
		ride = Live
	}
	fields := []field{
		{"datapath", Recreates, a.Datapath, b.Datapath},
		{"device", Recreates, a.Device, b.Device},
		{"peer", ResetsSession, a.Peer, b.Peer},
		{"tunnel", ride, strings.Join(tunnelsOf(a), " "), strings.Join(tunnelsOf(b), " ")},
		{"redundancy", Live, redundancy(a), redundancy(b)},
		{"steer", Live, a.Steer, b.Steer},
		{"type", ResetsSession, a.Type, b.Type},
		{"end ID", ResetsSession, string(a.EndID), string(b.EndID)},
		{"own end ID", ResetsSession, string(a.LocalEndID), string(b.LocalEndID)},
		{"AGI", ResetsSession, string(a.AGI), string(b.AGI)},
		{"cookie", ResetsSession, a.CookieLength, b.CookieLength},
		{"sublayer", ResetsSession, a.Sublayer, b.Sublayer},
		{"sequencing", ResetsSession, a.Sequencing, b.Sequencing},
		{"dscp", ResetsSession, dscps(a, b), dscps(b, a)},
		{"dscp from frames", Live, markings(a, b), markings(b, a)},
		{"mtu", ResetsSession, a.MTU, b.MTU},
		{"max-macs", Live, a.MaxMACs, b.MaxMACs},
		{"suppress", Live, a.Suppress, b.Suppress},
		{"bridge", Live, a.Attachment.Bridge, b.Attachment.Bridge},
		{"interface", Live, a.Attachment.Interface, b.Attachment.Interface},
		{"vlan", Live, a.Attachment.VLAN, b.Attachment.VLAN},
		{"vlans", Live, a.Attachment.VLANs, b.Attachment.VLANs},
		{"untagged", Live, a.Attachment.Untagged, b.Attachment.Untagged},
		{"inner vlan", Live, a.Attachment.InnerVLAN, b.Attachment.InnerVLAN},
		{"tag protocol", Live, a.Attachment.TagProtocol, b.Attachment.TagProtocol},
		{"priority bits", Live, a.Attachment.PCP, b.Attachment.PCP},
		{"link-local groups", Live, a.Attachment.RefusedGroups, b.Attachment.RefusedGroups},
		{"limits", Live, a.Limits, b.Limits},
		{"split horizon", Live, a.Isolated, b.Isolated},
		{"vlan at the peer", Live, a.PeerVLAN, b.PeerVLAN},
		{"session", ResetsSession, signalled(a.Static == nil), signalled(b.Static == nil)},
	}
	if x, y := a.Static, b.Static; x != nil && y != nil {
		fields = append(fields,
			field{"session ID here", ResetsSession, x.LocalID, y.LocalID},
			field{"session ID at the peer", ResetsSession, x.RemoteID, y.RemoteID},
			field{"cookies", ResetsSession, []topology.Secret{x.LocalCookie, x.RemoteCookie}, []topology.Secret{y.LocalCookie, y.RemoteCookie}},
			field{"cookie-file", Live, x.CookieFiles, y.CookieFiles},
			field{"sublayer sent", ResetsSession, x.Sublayer, y.Sublayer},
			field{"sequencing sent", ResetsSession, x.Sequencing, y.Sequencing})
	}
	return compare(fields)
}
