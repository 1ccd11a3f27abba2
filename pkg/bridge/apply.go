package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// transparent is the link-local group addresses (01-80-C2-00-00-0x) that a private
// bridge forwards: all but MAC pause (-01), which the kernel never does. Those of STP (-00)
// it always forwards where no spanning tree runs, whatever the mask.
const transparent = 0xffff &^ (1 << 1)

// reconcile makes a bridge, its ports and its devices what is wanted. The order
// lets no frame into a VLAN that is not its own: VLANs before filtering, the
// bridge up last. The errors are the bridge's own, and those of the devices.
func (m *Manager) reconcile(t *target) (own, devices error) {
	before := left{t.index, t.shape, t.clean && m.settled && !t.external}
	t.clean, t.index = false, 0
	br, n, err := m.ensure(t, before)
	if err != nil {
		return err, nil
	}
	s, err := m.shapeOf(t, br)
	if err != nil {
		return err, nil
	}
	t.index, t.shape = br.index, s
	strayed := before.sure && before.index == br.index && before.shape == s && br.filters != s.aware
	if strayed && m.Held("bridge "+t.name) {
		br.filters, strayed = s.aware, false // left alone, as if it were so
	}

	var failures []error
	if !t.external {
		own = errors.Join(m.prepare(t, br), m.ports(t, br, n))
	}
	for _, a := range t.sorted() {
		failures = append(failures, m.attach(t, a))
	}
	if !t.external {
		own = errors.Join(own, m.complete(t, br))
	}
	if strayed {
		m.Add("bridge "+t.name, "VLAN filtering was turned "+onOff(!s.aware), "turned "+onOff(s.aware)+" again", own)
	}
	t.clean = own == nil
	return own, errors.Join(failures...)
}

// ensure finds or makes the bridge, and reads its note.
func (m *Manager) ensure(t *target, before left) (*link, note, error) {
	br, err := m.nl.link(t.name)
	if err != nil {
		return nil, note{}, failed("find", t.name, err)
	}
	if t.external {
		return m.external(t, br)
	}
	if br == nil {
		removed := (before.index != 0 || t.leftOut) && m.settled
		if t.leftOut = removed && m.Held("bridge "+t.name); t.leftOut {
			return nil, note{}, &NotPresentError{Interface: t.name, For: "bridge " + t.name}
		}
		err := m.nl.create(t.name, infoOf("bridge",
			attr(unix.IFLA_BR_STP_STATE, nl.Uint32Attr(0)),
			attr(unix.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0)),
		), attr(unix.IFLA_ADDRESS, randomAddress()))
		if removed {
			m.Add("bridge "+t.name, "it was removed", "made again", err)
		}
		if err != nil {
			return nil, note{}, failed("make bridge", t.name, err)
		}
		m.log.Info("bridge made", "bridge", t.name)
		if br, err = m.nl.link(t.name); err != nil || br == nil {
			return nil, note{}, failed("find", t.name, orGone(err))
		}
	}
	n, ours := owned(br)
	if !ours || br.kind != "bridge" {
		return nil, note{}, &NotOursError{Link: t.name, Kind: br.kind, Wanted: "bridge"}
	}
	if br.alias == "" {
		n = note{prefix: bridgePrefix, name: t.name}
		m.quiet(br)
		if err := m.nl.setAlias(br.index, n.String()); err != nil {
			return nil, note{}, failed("mark", t.name, err)
		}
	}
	return br, n, nil
}

// external checks somebody else's bridge. One that we made and that is now
// declared to be the user's becomes so: its mark goes.
func (m *Manager) external(t *target, br *link) (*link, note, error) {
	switch {
	case br == nil:
		return nil, note{}, &NotPresentError{Interface: t.name, For: "bridge " + t.name}
	case br.kind != "bridge":
		return nil, note{}, &InvalidError{"bridge " + t.name, "the interface of that name is no bridge but a " + kindOf(br.kind)}
	}
	if _, ours := owned(br); ours {
		if err := m.nl.setAlias(br.index, ""); err != nil {
			return nil, note{}, failed("hand over", t.name, err)
		}
	}
	return br, note{}, nil
}

// prepare sets what a bridge must have before ports come in.
func (m *Manager) prepare(t *target, br *link) error {
	if t.shape.aware && br.defaultPVID != t.shape.pvid {
		if err := m.nl.setBridge(br.index, attr(unix.IFLA_BR_VLAN_DEFAULT_PVID, nl.Uint16Attr(t.shape.pvid))); err != nil {
			return failed("set the default VLAN of", t.name, err)
		}
	}
	if !t.shape.aware && br.filters {
		return m.filter(t, br, false)
	}
	return nil
}

// complete turns VLAN filtering on once every VLAN is in place, and brings a new bridge up.
func (m *Manager) complete(t *target, br *link) error {
	if t.shape.aware && !br.filters {
		if err := m.filter(t, br, true); err != nil {
			return err
		}
	}
	if br.group == newGroup {
		return failed("bring up", t.name, m.nl.finish(br.index))
	}
	return nil
}

func (m *Manager) filter(t *target, br *link, on bool) error {
	m.log.Info("bridge VLAN filtering", "bridge", t.name, "on", on)
	return failed("set VLAN filtering of", t.name, m.nl.setBridge(br.index, attr(unix.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(bit(on)))))
}

// ports puts the wanted interfaces into the bridge and the others that we put there out of it.
func (m *Manager) ports(t *target, br *link, n note) error {
	var failures []error
	wanted := map[int]bool{}
	for _, name := range t.ports {
		l, err := m.nl.link(name)
		switch {
		case err != nil:
			failures = append(failures, failed("find", name, err))
			continue
		case l == nil:
			failures = append(failures, &NotPresentError{Interface: name, For: "bridge " + t.name})
			continue
		}
		if m.owners[name] == nil {
			m.owners[name] = t
		} else if m.owners[name] != t {
			failures = append(failures, &InvalidError{"bridge " + t.name, "interface " + name + " is used by " + m.owners[name].name + " already"})
			continue
		}
		wanted[l.index] = true
		if m.heldOut("bridge "+t.name, l, br.index) {
			continue
		}
		if n, err = m.join(t, br, n, l); err == nil {
			err = m.configure(t, l.index, l.name, t.portVLANs(t.shape), Attachment{}, !m.settled)
		}
		failures = append(failures, err)
	}
	if t.vlan != nil {
		failures = append(failures, m.joinVLAN(t, br))
	}
	for _, u := range n.uses {
		if !wanted[u.index] {
			var err error
			n, err = m.leave(br, n, u)
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// configure sets what a port has of the bridge's shape. With keep, VLANs beyond
// the wanted ones stay. Until everything has been named, a port that does not
// learn goes on so.
func (m *Manager) configure(t *target, index int, name string, vlans vlanTable, a Attachment, keep bool) error {
	l, err := m.nl.linkByIndex(index)
	if err != nil || l == nil {
		return failed("find", name, orGone(err))
	}
	return m.configureAs(t, l, name, vlans, a, keep)
}

// configureAs is configure of a port that has just been looked at.
func (m *Manager) configureAs(t *target, l *link, name string, vlans vlanTable, a Attachment, keep bool) (err error) {
	index := l.index
	next := portState{
		index: index, master: t.index, isolated: a.Isolated, learns: t.shape.learns && !a.Full,
		groupForward: t.groups, vlans: vlans, object: objectOf(t, a),
	}
	if !t.shape.aware {
		next.vlans = nil
	}
	if t.external {
		next.groupForward = l.portGroupForward
	}
	if m.heldAs(name, next) {
		return nil
	}
	var change []*nl.RtAttr
	if l.learning && !t.shape.learns {
		// What it has learned would be wrong still.
		change = append(change, attr(unix.IFLA_BRPORT_LEARNING, nl.Uint8Attr(0)), attr(unix.IFLA_BRPORT_FLUSH, nil))
	} else if l.learning && a.Full {
		change = append(change, attr(unix.IFLA_BRPORT_LEARNING, nl.Uint8Attr(0)))
	} else if !l.learning && t.shape.learns && !a.Full && m.settled {
		change = append(change, attr(unix.IFLA_BRPORT_LEARNING, nl.Uint8Attr(1)))
	}
	if l.isolated != a.Isolated {
		change = append(change, attr(unix.IFLA_BRPORT_ISOLATED, nl.Uint8Attr(bit(a.Isolated))))
	}
	if !t.external && l.portGroupForward != t.groups {
		change = append(change, attr(unix.IFLA_BRPORT_GROUP_FWD_MASK, nl.Uint16Attr(t.groups)))
	}
	if len(change) > 0 {
		err = failed("configure port", name, m.nl.setPort(index, change...))
	}
	var taken, given []uint16
	if err == nil && t.shape.aware {
		taken, given, err = m.nl.setVLANs(index, false, vlans, keep)
		err = failed("set the VLANs of", name, err)
	}
	m.changed(l, next, taken, given, err)
	m.know(name, next, err)
	return err
}

// know notes how a port was left. After a failure nothing is known of it, but for one that somebody
// has taken out of the bridge meanwhile: that is what the next look is to tell.
func (m *Manager) know(name string, next portState, err error) {
	if err == nil {
		m.known[name] = next
		return
	}
	was, known := m.known[name]
	delete(m.known, name)
	if !known || was.index != next.index || was.master != next.master {
		return
	}
	if now, err := m.nl.linkByIndex(next.index); err == nil && now != nil && now.master != next.master {
		m.known[name] = was
	}
}

// adapt brings one new or changed attachment in, and the rest where it concerns
// the rest. had is whether it had another VLAN before.
func (m *Manager) adapt(t *target, a Attachment, had bool) error {
	br, err := m.nl.link(t.name)
	if err != nil {
		return failed("find", t.name, err)
	}
	var s shape
	same := br != nil && br.index == t.index && t.clean
	if same {
		if s, err = m.shapeOf(t, br); err != nil {
			return err
		}
	}
	switch {
	case !same || s != t.shape:
		// What ails a bridge of the topology's, like a missing port, is told by
		// SetBridge and Refresh, as long as there is a bridge.
		if err, _ = m.reconcile(t); t.index != 0 && !t.private {
			err = nil
		}
	case had || a.VLANs != "":
		err = m.portTables(t)
	default:
		err = m.portTable(t, t.attachments[a.Pseudowire].VLAN)
	}
	return errors.Join(err, m.attach(t, a))
}

// reshape takes back what a removed attachment needed.
func (m *Manager) reshape(t *target, a Attachment) error {
	if !m.settled || !t.clean {
		return nil
	}
	br, err := m.nl.link(t.name)
	if err != nil {
		return failed("find", t.name, err)
	}
	if br == nil || br.index != t.index {
		return nil // Refresh's affair
	}
	s, err := m.shapeOf(t, br)
	if err != nil {
		return err
	}
	if s != t.shape {
		own, devices := m.reconcile(t)
		return errors.Join(own, present(devices))
	}
	if a.VLANs != "" {
		return m.portTables(t)
	}
	return m.takeVLAN(t, a.VLAN)
}

// takeVLAN takes one VLAN off the host's ports, if no attachment has it any more.
func (m *Manager) takeVLAN(t *target, vlan uint16) error {
	if t.external || !t.shape.aware || vlan == 0 || t.vlans[vlan] > 0 {
		return nil
	}
	var failures []error
	for _, name := range t.ports {
		l, err := m.nl.link(name)
		if err != nil || l == nil || l.master != t.index {
			t.clean = false
			failures = append(failures, failed("find", name, err))
			continue
		}
		if err = m.nl.changeVLAN(unix.RTM_DELLINK, l.index, false, vlan, tagged); errors.Is(err, unix.ENOENT) {
			err = nil
		}
		m.knowVLAN(name, l.index, vlan, false, err)
		failures = append(failures, failed("take a VLAN off", name, err))
	}
	return errors.Join(failures...)
}

// portTable adds one VLAN to the host's ports.
func (m *Manager) portTable(t *target, vlan uint16) error {
	if t.external || !t.shape.aware || vlan == 0 || t.vlans[vlan] > 1 {
		return nil
	}
	var failures []error
	for _, name := range t.ports {
		l, err := m.nl.link(name)
		if err == nil && l != nil && l.master == t.index {
			err = m.nl.changeVLAN(unix.RTM_SETLINK, l.index, false, vlan, tagged)
			m.knowVLAN(name, l.index, vlan, true, err)
		} else {
			t.clean = false // Refresh puts it in, with all its VLANs
		}
		failures = append(failures, failed("add VLAN to", name, err))
	}
	return errors.Join(failures...)
}

// portTables sets the VLANs of the host's ports.
func (m *Manager) portTables(t *target) error {
	if t.external || !t.shape.aware {
		return nil
	}
	var failures []error
	for _, name := range t.ports {
		l, err := m.nl.link(name)
		if err != nil || l == nil || l.master != t.index {
			t.clean = false
			failures = append(failures, failed("find", name, err))
			continue
		}
		table := t.portVLANs(t.shape)
		_, _, err = m.nl.setVLANs(l.index, false, table, !m.settled)
		m.knowVLANs(name, l.index, table, err)
		failures = append(failures, failed("set the VLANs of", name, err))
	}
	return errors.Join(failures...)
}

// attach puts a pseudowire's device into its bridge.
func (m *Manager) attach(t *target, a Attachment) (err error) {
	a = t.attachments[a.Pseudowire]
	if t.index == 0 {
		return nil // the bridge's own error is told
	}
	if err := m.carries(t, a); err != nil {
		return err
	}
	l, err := m.nl.link(a.Device)
	switch {
	case err != nil:
		return failed("find", a.Device, err)
	case l == nil:
		return &NotPresentError{Interface: a.Device, For: "pseudowire " + a.Pseudowire}
	}
	object := "pseudowire " + a.Pseudowire
	if m.heldOut(object, l, t.index) {
		return nil
	}
	joins, wasUp := l.master != t.index, l.up()
	if joins {
		// A port comes into a filtering bridge with the default VLAN, which may
		// not be its own.
		if t.shape.aware && l.up() {
			if err := m.nl.setUp(l.index, false); err != nil {
				return failed("bring down", a.Device, err)
			}
			l.flags &^= unix.IFF_UP
			defer func() {
				if err != nil && a.StateOfOthers {
					err = errors.Join(err, m.giveUp(l))
				}
			}()
		}
		err := m.nl.setMaster(l.index, t.index)
		if m.strayed(l, t.index) {
			m.putBackInto(object, l, t.name, err)
		}
		delete(m.known, l.name)
		if errors.Is(err, unix.EXFULL) {
			return &UnsupportedError{For: object, Missing: "bridge " + t.name + " has as many ports as the kernel allows, 1023",
				Remedy: "spread the pseudowires over several bridges"}
		}
		if err != nil {
			return failed("put into "+t.name+" the device", a.Device, err)
		}
		m.log.Info("device attached", "pseudowire", a.Pseudowire, "device", a.Device, "bridge", t.name, "vlan", a.VLAN)
	}
	now := l
	if joins { // it is a port only now
		if now, err = m.nl.linkByIndex(l.index); err != nil || now == nil {
			return failed("find", a.Device, orGone(err))
		}
	}
	if err := m.configureAs(t, now, a.Device, deviceVLANs(a, t.shape), a, false); err != nil {
		return err
	}
	if l.up() || a.StateOfOthers && !wasUp || !joins && m.Held(object) {
		return nil
	}
	m.quiet(l)
	return failed("bring up", a.Device, m.nl.setUp(l.index, true))
}

// giveUp has a device that could not be attached be as it was: up, in no bridge, where it gets and gives no
// frames. Whose affair its state is would take one that is down for another's doing.
func (m *Manager) giveUp(l *link) error {
	delete(m.known, l.name)
	if err := m.nl.setMaster(l.index, 0); err != nil {
		return failed("take out of its bridge", l.name, err)
	}
	return failed("bring up", l.name, m.nl.setUp(l.index, true))
}

// carries says whether the bridge, such as it is, can carry the attachment.
func (m *Manager) carries(t *target, a Attachment) error {
	if a.VLAN == 0 || a.Filtered || a.Tagged && !a.AnyTag || t.shape.aware {
		return nil
	}
	e := &UnsupportedError{For: "pseudowire " + a.Pseudowire}
	can, err := m.supported()
	switch {
	case err != nil:
		return err
	case t.private:
		e.Missing = fmt.Sprintf("VLAN %d of %s cannot be taken apart from the whole interface, which another pseudowire has", a.VLAN, t.ports[0])
		e.Remedy = "use `datapath: ebpf`, or attach only VLANs of it"
	case !can.vlanFiltering:
		e.Missing = fmt.Sprintf("the kernel has no bridge VLAN filtering, so VLAN %d of bridge %s cannot be told apart", a.VLAN, t.name)
		e.Remedy = "use `datapath: ebpf`, which takes the tag off itself"
	case t.external:
		e.Missing = fmt.Sprintf("bridge %s does not filter VLANs, so its VLAN %d cannot be told apart", t.name, a.VLAN)
		e.Remedy = fmt.Sprintf("turn it on there (`ip link set %s type bridge vlan_filtering 1`), or use `datapath: ebpf`", t.name)
	default:
		e.Missing = fmt.Sprintf("bridge %s has `vlan-aware: false`, so its VLAN %d cannot be told apart", t.name, a.VLAN)
		e.Remedy = "leave that out, or use `datapath: ebpf`"
	}
	return e
}

func bit(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

// randomAddress is a locally administered address: a bridge without one of its
// own takes and changes it with its ports'.
func randomAddress() net.HardwareAddr {
	a := make(net.HardwareAddr, 6)
	rand.Read(a)
	a[0] = a[0]&^1 | 2
	return a
}

// orGone is the error of a look-up that failed or found nothing.
func orGone(err error) error {
	if err == nil {
		return unix.ENODEV
	}
	return err
}
