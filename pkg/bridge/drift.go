package bridge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// left is how a bridge was left by the last look at it; sure says that it was as wanted.
type left struct {
	index int
	shape shape
	sure  bool
}

// portState is how a port was left: what it was found with is another's doing if it
// differs from that, and that is still what is wanted.
type portState struct {
	index, master    int
	learns, isolated bool
	groupForward     uint16
	vlans            vlanTable
	object           string
}

// portThing is what is put back, and left alone, apart from other ports of an object.
func portThing(object, port string) string { return object + ": " + port }

// knowVLANs notes which VLANs a port was given since.
func (m *Manager) knowVLANs(name string, index int, vlans vlanTable, err error) {
	p, known := m.known[name]
	if !known || err != nil || p.index != index {
		delete(m.known, name)
		return
	}
	p.vlans = vlans
	m.known[name] = p
}

// knowVLAN notes that a port was given a VLAN since, or that one was taken off it.
func (m *Manager) knowVLAN(name string, index int, vlan uint16, given bool, err error) {
	p, known := m.known[name]
	switch {
	case !known || err != nil || p.index != index || p.vlans == nil:
		delete(m.known, name)
	case given:
		p.vlans[vlan] = tagged
	default:
		delete(p.vlans, vlan)
	}
}

// strayed says that a port is not in the bridge any more that it was left in.
func (m *Manager) strayed(l *link, br int) bool {
	was, known := m.known[l.name]
	return m.settled && known && was.index == l.index && was.master == br && l.master != br
}

// heldOut says that a port that has strayed is to stay out for now.
func (m *Manager) heldOut(object string, l *link, br int) bool {
	return m.strayed(l, br) && m.Held(portThing(object, l.name))
}

// putBackInto tells that a port was put back into the bridge.
func (m *Manager) putBackInto(object string, l *link, bridge string, err error) {
	found := fmt.Sprintf("%s was taken out of %s", l.name, bridge)
	if l.master != 0 {
		found = fmt.Sprintf("%s was moved from %s into another bridge", l.name, bridge)
	}
	m.AddOf(object, portThing(object, l.name), found, "put back", err)
}

// objectOf is what a port belongs to.
func objectOf(t *target, a Attachment) string {
	if a.Pseudowire != "" {
		return "pseudowire " + a.Pseudowire
	}
	return "bridge " + t.name
}

// heldAs says that a port is to stay as others have changed it: it is wanted as it was left.
func (m *Manager) heldAs(name string, next portState) bool {
	was, known := m.known[name]
	return m.settled && known && was.equal(next) && m.Held(portThing(next.object, name))
}

func (p portState) equal(o portState) bool {
	return p.index == o.index && p.master == o.master && p.learns == o.learns && p.isolated == o.isolated &&
		p.groupForward == o.groupForward && p.object == o.object && maps.Equal(p.vlans, o.vlans)
}

// changed tells what differs at a port from how it was left. taken and given are the
// VLANs that it lacks and has beyond the wanted.
func (m *Manager) changed(now *link, next portState, taken, given []uint16, err error) {
	was, known := m.known[now.name]
	if !m.settled || !known || was.index != next.index || was.master != next.master {
		return
	}
	add := func(found, done string) { m.AddOf(next.object, portThing(next.object, now.name), found, done, err) }
	if was.learns == next.learns && now.learning != next.learns {
		add("learning of addresses was turned "+onOff(now.learning)+" at "+now.name, "turned "+onOff(next.learns)+" again")
	}
	if was.isolated == next.isolated && now.isolated != next.isolated {
		add("isolation of "+now.name+" was turned "+onOff(now.isolated), "turned "+onOff(next.isolated)+" again")
	}
	if was.groupForward == next.groupForward && now.portGroupForward != next.groupForward {
		add(fmt.Sprintf("the groups that %s passes were changed to %#x", now.name, now.portGroupForward), fmt.Sprintf("set to %#x again", next.groupForward))
	}
	if !maps.Equal(was.vlans, next.vlans) {
		return
	}
	if len(taken) > 0 {
		add(list(taken)+" taken off "+now.name, "put back")
	}
	if len(given) > 0 {
		add(list(given)+" added to "+now.name, "taken off again")
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// list is VLANs in words.
func list(vlans []uint16) string {
	const most = 8
	slices.Sort(vlans)
	if len(vlans) == 1 {
		return fmt.Sprintf("VLAN %d was", vlans[0])
	}
	words := make([]string, 0, most+1)
	for _, v := range vlans[:min(most, len(vlans))] {
		words = append(words, fmt.Sprint(v))
	}
	if more := len(vlans) - most; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return "VLANs " + strings.Join(words, ", ") + " were"
}
