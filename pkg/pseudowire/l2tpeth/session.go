package l2tpeth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// session is a session that was set.
type session struct {
	pseudowire.Session
	spec       sessionSpec
	sequencing sequencing
	// index of its device.
	index uint32
}

const (
	// aliasPrefix marks what is ours.
	aliasPrefix = "pwd:"
	defaultMTU  = 1500
)

func alias(pw string) string { return aliasPrefix + "pseudowire:" + pw }

func sessionName(s pseudowire.Session) string {
	return fmt.Sprintf("session %d of %s in tunnel %s", s.LocalID, s.Pseudowire, s.Tunnel)
}

// SetPseudowire names a device to be. Sessions of the pseudowire that are there
// follow: the MTU is changed, and for another device name they are made anew.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	if p.MTU == 0 {
		p.MTU = defaultMTU
	}
	object := "pseudowire " + p.Name
	switch {
	case p.VLAN != 0:
		return &UnsupportedError{Feature: "rewriting VLAN tags", Hint: "leave the tag to the bridge or to a VLAN device"}
	case p.Device == "" || len(p.Device) >= unix.IFNAMSIZ || strings.ContainsAny(p.Device, "/: \t\n"):
		return &ArgumentError{object, fmt.Sprintf("%q cannot be a device's name", p.Device)}
	case p.MTU < 68 || p.MTU > 65535:
		return &ArgumentError{object, fmt.Sprintf("MTU %d is not within 68 and 65535", p.MTU)}
	}
	old, known := d.pseudowires[p.Name]
	d.pseudowires[p.Name] = p
	s := d.sessionOf(p.Name)
	switch {
	case !known || s == nil:
		return nil
	case old == p:
		return d.keepDevice(s, p)
	}
	return d.SetSession(s.Session)
}

// RemovePseudowires removes their sessions, and the devices with them: all are asked to go
// before the first is waited for, because the kernel takes its time over each.
func (d *Datapath) RemovePseudowires(names ...string) error {
	var going []*session
	var errs []error
	stay := map[string]bool{}
	fail := func(s *session, err error) {
		errs, stay[s.Pseudowire] = append(errs, &OpError{"delete", sessionName(s.Session), err}), true
	}
	for _, name := range names {
		if s := d.sessionOf(name); s == nil {
			continue
		} else if err := d.l2tp.deleteSession(s.spec.connID, s.spec.id); err != nil && !gone(err) {
			fail(s, err)
		} else {
			going = append(going, s)
		}
	}
	for _, s := range going {
		if err := d.awaitGone(s.index); err != nil {
			fail(s, err)
			continue
		}
		d.forget(s.LocalID)
	}
	for _, name := range names {
		if !stay[name] {
			delete(d.pseudowires, name)
		}
	}
	return errors.Join(errs...)
}

// SessionBehind is the session whose device the pseudowire's is: one that was set, or in a tunnel
// that was taken over one that an earlier process made, without a sublayer.
func (d *Datapath) SessionBehind(name string) (pseudowire.Session, bool, error) {
	if s := d.sessionOf(name); s != nil {
		return s.Session, true, nil
	}
	none := pseudowire.Session{}
	device := d.pseudowires[name].Device
	l, ok, err := d.links.byName(device)
	if err != nil {
		return none, false, &OpError{"look at", "device " + device, err}
	}
	if !ok || l.alias != alias(name) {
		return none, false, nil
	}
	all, err := d.l2tp.sessions()
	if err != nil {
		return none, false, &OpError{"list", "sessions", err}
	}
	for _, k := range all {
		for _, t := range d.tunnels {
			if k.ifName == device && k.connID == t.LocalID && k.pwType == pwEth && t.adopted {
				return pseudowire.Session{
					Tunnel: t.Name, Pseudowire: name, LocalID: k.id, RemoteID: k.peerID,
					LocalCookie: []byte(k.peerCookie), RemoteCookie: []byte(k.cookie),
					DSCP: t.dscp, Priority: t.priority, Transmit: l.up, Deaf: k.sequencing.receive,
				}, true, nil
			}
		}
	}
	return none, false, nil
}

// DeviceIndex is the number of the device of a pseudowire whose session was set, as it was made or found last.
func (d *Datapath) DeviceIndex(pseudowire string) (index int, known bool) {
	if s := d.sessionOf(pseudowire); s != nil {
		return int(s.index), true
	}
	return 0, false
}

func (d *Datapath) sessionOf(pw string) *session {
	if s := d.sessions[d.carriers[pw]]; s != nil && s.Pseudowire == pw {
		return s
	}
	return nil
}

// have notes a session that was set.
func (d *Datapath) have(s *session) {
	d.sessions[s.LocalID], d.carriers[s.Pseudowire] = s, s.LocalID
}

// SetSession makes a session and its device, or changes them. The kernel changes
// nothing in a session but its sequencing: with other cookies, another remote
// ID or sublayer it is made anew. A pseudowire has one session: another one for
// it takes the device over and ends the first.
//
// PreviousCookie is not honoured (see Abilities.ChangesCookies), and DSCP and Priority become
// those of all sessions of the tunnel. Deaf takes a session without a sublayer.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	spec, err := d.spec(s)
	if err != nil {
		return err
	}
	numbers, err := sequencingOf(s)
	if err != nil {
		return err
	}
	if err := d.mark(d.tunnels[s.Tunnel], s.DSCP, s.Priority); err != nil {
		return err
	}
	var kept *session
	for _, old := range []*session{d.sessions[s.LocalID], d.sessionOf(s.Pseudowire)} {
		if old == nil || old == kept || d.sessions[old.LocalID] != old {
			continue // it has been looked at, or has gone with the first
		}
		live, err := d.l2tp.hasSession(old.spec.connID, old.spec.id)
		if err != nil {
			return &OpError{"look for", sessionName(old.Session), err}
		}
		if live && old.LocalID == s.LocalID && old.spec == spec {
			kept = old
			continue
		}
		if err := d.RemoveSession(old.LocalID); err != nil {
			return err
		}
	}
	if kept != nil {
		l, err := d.deviceOf(kept, s)
		if err != nil {
			return err
		}
		return d.changeSession(kept, l, s, numbers, false)
	}
	adopted, l, err := d.adoptSession(s, spec)
	if err != nil {
		return err
	}
	if adopted != nil {
		d.have(adopted)
		return d.changeSession(adopted, l, s, numbers, d.pseudowires[s.Pseudowire].StayDown)
	}
	if l, err = d.createSession(s, spec, numbers); err != nil {
		return err
	}
	if err := d.configure(l, s, d.pseudowires[s.Pseudowire].StayDown); err != nil {
		return errors.Join(err, d.l2tp.deleteSession(spec.connID, spec.id))
	}
	d.have(&session{s, spec, numbers, l.index})
	return nil
}

// deviceOf is the device that a session has.
func (d *Datapath) deviceOf(old *session, s pseudowire.Session) (link, error) {
	l, ok, err := d.links.byIndex(old.index)
	if err == nil && !ok {
		err = unix.ENODEV
	}
	if err != nil {
		return link{}, &OpError{"look at", "device " + d.pseudowires[s.Pseudowire].Device, err}
	}
	return l, nil
}

// changeSession changes what the kernel can change in a session, and in its device as it was just found; see configure.
func (d *Datapath) changeSession(old *session, l link, s pseudowire.Session, numbers sequencing, stayDown bool) error {
	if old.sequencing != numbers {
		if err := d.l2tp.modifySession(old.spec.connID, old.spec.id, numbers); err != nil {
			return &OpError{"change the sequencing of", sessionName(s), err}
		}
		old.sequencing = numbers
	}
	if err := d.configure(l, s, stayDown); err != nil {
		return err
	}
	old.Session = s
	d.have(old)
	return nil
}

// spec is the session in the kernel's terms.
func (d *Datapath) spec(s pseudowire.Session) (sessionSpec, error) {
	t, p := d.tunnels[s.Tunnel], d.pseudowires[s.Pseudowire]
	switch {
	case t == nil:
		return sessionSpec{}, &ArgumentError{sessionName(s), "its tunnel was not set"}
	case p.Name == "":
		return sessionSpec{}, &ArgumentError{sessionName(s), "its pseudowire was not set"}
	// RFC 3931, Section 4.1: Session ID 0 is reserved for control messages.
	case s.LocalID == 0 || s.RemoteID == 0:
		return sessionSpec{}, &ArgumentError{sessionName(s), "a session ID is 0"}
	// RFC 3931, Section 4.1: "The optional Cookie field contains a variable-length value (maximum 64 bits)";
	// Section 5.4.4 allows 4 and 8 octets.
	case !cookieLength(len(s.LocalCookie)) || !cookieLength(len(s.RemoteCookie)):
		return sessionSpec{}, &ArgumentError{sessionName(s), "a cookie is not of 0, 4 or 8 octets"}
	case s.Beside != 0: // it would take the device over, and end the one that carries
		return sessionSpec{}, &UnsupportedError{
			Feature: fmt.Sprintf("a session beside another one's (%s)", sessionName(s)),
			Hint:    "have package succession around this datapath, which takes eBPF programs",
		}
	case s.TransmitSublayer != s.ReceiveSublayer:
		return sessionSpec{}, &UnsupportedError{
			Feature: fmt.Sprintf("a sublayer in one direction only (%s)", sessionName(s)),
			Hint:    "give both ends the same `sublayer`, or use `datapath: ebpf`",
		}
	case s.TransmitSublayer != l2tpv3.SublayerNone && s.TransmitSublayer != l2tpv3.SublayerDefault:
		return sessionSpec{}, &UnsupportedError{
			Feature: fmt.Sprintf("L2-Specific Sublayer %d (%s)", s.TransmitSublayer, sessionName(s)),
			Hint:    "use `sublayer: none` or `sublayer: default`",
		}
	case s.Deaf && s.ReceiveSublayer != l2tpv3.SublayerNone:
		return sessionSpec{}, &UnsupportedError{Feature: fmt.Sprintf("refusing what comes with a sublayer (%s)", sessionName(s)), Hint: "use `sublayer: none`"}
	}
	return sessionSpec{
		connID: t.LocalID, id: s.LocalID, peerID: s.RemoteID, l2spec: uint8(s.TransmitSublayer),
		cookie: string(s.RemoteCookie), peerCookie: string(s.LocalCookie), ifName: p.Device,
	}, nil
}

// sequencingOf is the session's sequencing in the kernel's terms. The kernel does not
// look into frames, and where it numbers what it sends, it drops what comes
// without a number.
func sequencingOf(s pseudowire.Session) (sequencing, error) {
	// RFC 3931, Section 5.4.4: "if an implementation is unable to perform such
	// classification within L2 frames, all packets MUST be provided with sequence
	// numbers (essentially falling back to a Data Sequencing Level of 2)."
	numbers := sequencing{
		send:    s.TransmitSequencing != l2tpv3.SequencingNone,
		receive: s.ReceiveSequencing == l2tpv3.SequencingAll,
	}
	if s.Deaf { // without a sublayer no packet has a number
		return sequencing{receive: true}, nil
	}
	switch {
	// Section 5.4.4: sequencing needs a sublayer that can provide numbers.
	case numbers.send && s.TransmitSublayer != l2tpv3.SublayerDefault,
		s.ReceiveSequencing != l2tpv3.SequencingNone && s.ReceiveSublayer != l2tpv3.SublayerDefault:
		return sequencing{}, &ArgumentError{sessionName(s), "sequencing without a default sublayer"}
	case numbers.send && !numbers.receive:
		return sequencing{}, &UnsupportedError{
			Feature: fmt.Sprintf("sequencing %s of what is sent and %s of what is received (%s)",
				s.TransmitSequencing, s.ReceiveSequencing, sessionName(s)),
			Hint: "give both ends `sequencing: all`, or use `datapath: ebpf`",
		}
	}
	return numbers, nil
}

func cookieLength(n int) bool { return n == 0 || n == 4 || n == 8 }

// createSession returns the session's device. It waits for a device
// or session of ours that is on its way out.
func (d *Datapath) createSession(s pseudowire.Session, spec sessionSpec, numbers sequencing) (link, error) {
	cleared := false
	created, err := d.until(func() (bool, error) {
		err := d.l2tp.createSession(spec, numbers)
		switch {
		case errors.Is(err, unix.EEXIST):
			l, ok, err := d.links.byName(spec.ifName)
			if err != nil {
				return false, err
			}
			if ok && !strings.HasPrefix(l.alias, aliasPrefix) {
				return false, &ConflictError{"device " + spec.ifName, "it is not ours: rename or remove it"}
			}
			if cleared {
				return false, nil // it is on its way out
			}
			cleared = true
			return false, d.removeLeftovers(func(k kernelSession) bool { return k.id == spec.id || k.ifName == spec.ifName })
		case errors.Is(err, unix.EPROTONOSUPPORT):
			return false, &UnsupportedError{Feature: "the kernel's Ethernet over L2TP (module l2tp_eth)", Hint: moduleHint, Err: err}
		}
		return err == nil, err
	})
	if err != nil {
		return link{}, &OpError{"create", sessionName(s), err}
	}
	if !created {
		return link{}, &ConflictError{fmt.Sprintf("session ID %d", spec.id), "see `ip l2tp show session`"}
	}
	l, ok, err := d.links.byName(spec.ifName)
	if err == nil && !ok {
		err = fmt.Errorf("device %s did not appear", spec.ifName)
	}
	if err != nil {
		return link{}, errors.Join(&OpError{"create", sessionName(s), err}, d.l2tp.deleteSession(spec.connID, spec.id))
	}
	return l, nil
}

// configure brings a session's device, as it was just found, into its desired state. What makes it
// silent is done before it goes up; with stayDown it does not go up.
func (d *Datapath) configure(l link, s pseudowire.Session, stayDown bool) error {
	p := d.pseudowires[s.Pseudowire]
	fail := func(op string, err error) error { return &OpError{op, "device " + p.Device, err} }
	fresh := l.alias == ""
	if l.alias != alias(p.Name) || l.mtu != uint32(p.MTU) {
		unsaid, err := d.links.mark(l.index, alias(p.Name), uint32(p.MTU), fresh)
		if err != nil {
			return fail("set alias and MTU of", err)
		}
		if unsaid != nil {
			d.log.Warn("cannot keep IPv6 from making addresses", "device", p.Device, "err", unsaid)
		}
	}
	if fresh {
		d.silence(l.index, p)
	}
	if l.up != s.Transmit && !(s.Transmit && stayDown) {
		if err := d.links.setUp(l.index, s.Transmit); err != nil {
			return fail("change state of", err)
		}
	}
	return nil
}

// silence does what else a new device needs to say nothing of its own, and gives it
// its long name. A kernel that refuses one of these carries frames all the same.
func (d *Datapath) silence(index uint32, p pseudowire.Pseudowire) {
	if err := disableIPv6(d.sysctl, p.Device); err != nil {
		d.log.Debug("cannot turn IPv6 off", "device", p.Device, "err", err)
	}
	if name := altName(p); name != "" {
		if err := d.links.addAltName(index, name); err != nil {
			d.log.Debug("cannot add an alternative name", "device", p.Device, "name", name, "err", err)
		}
	}
}

// altName is the device's name as it would be if names were long enough, or ""
// where it is that already.
func altName(p pseudowire.Pseudowire) string {
	if name := "pw-" + p.Name; name != p.Device {
		return name
	}
	return ""
}

// RemoveSession removes a session and returns when its device is gone.
func (d *Datapath) RemoveSession(localID uint32) error {
	s := d.sessions[localID]
	if s == nil {
		return nil
	}
	if err := d.deleteSession(s.spec.connID, s.spec.id, s.index); err != nil {
		return &OpError{"delete", sessionName(s.Session), err}
	}
	d.forget(localID)
	return nil
}

// forget a session that has gone, whose ID is free again.
func (d *Datapath) forget(localID uint32) {
	if s := d.sessions[localID]; s != nil && d.carriers[s.Pseudowire] == localID {
		delete(d.carriers, s.Pseudowire)
	}
	delete(d.sessions, localID)
	delete(d.taken, localID)
}

func (d *Datapath) deleteSession(connID, id, index uint32) error {
	if err := d.l2tp.deleteSession(connID, id); err != nil && !gone(err) {
		return err
	}
	return d.awaitGone(index)
}

// awaitGone waits until a device that was asked to go has gone.
func (d *Datapath) awaitGone(index uint32) error {
	ended, err := d.until(func() (bool, error) {
		_, ok, err := d.links.byIndex(index)
		return !ok, err
	})
	if err == nil && !ended {
		err = fmt.Errorf("its device is still there after %v", patience)
	}
	return err
}

// Deliver counts the packet and takes none: the kernel handles those of its
// sessions, and what it leaves on the socket belongs to none.
func (d *Datapath) Deliver(netip.AddrPort, []byte) bool {
	d.delivered++
	return false
}
