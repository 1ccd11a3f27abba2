package tcbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// apply brings the maps and the carrier of a pseudowire in line with its
// sessions.
func (d *Datapath) apply(dev *device) error {
	if !d.active {
		return nil // Prune will
	}
	d.takeApart(dev, d.outgoing(dev))
	up := carries(d.outgoing(dev))
	if up {
		if err := d.setUp(dev.pair.outer, &dev.pair.outerUp, true); err != nil {
			return err
		}
	}
	if err := d.cross(dev); err != nil {
		return err
	}
	if err := d.write(dev); err != nil {
		return err
	}
	return d.setUp(dev.pair.outer, &dev.pair.outerUp, up)
}

// write brings the maps in line with a pseudowire's sessions. Receiving comes
// first: the peer may send as soon as we do.
func (d *Datapath) write(dev *device) error {
	out := d.outgoing(dev)
	for _, s := range d.members[dev.Name] {
		if d.tunnels[s.Tunnel] == nil {
			continue
		}
		if err := d.writeReceive(dev, s, carries(out)); err != nil {
			return err
		}
	}
	return d.writeTransmit(dev, out)
}

// takeApart has the kernel cut frames of several segments before they enter the
// device, where they have to leave one by one: packets over IP can be of no segments,
// and numbered ones have each its own number. The slow lane would do it as well, but
// what needs no cutting would overtake them.
func (d *Datapath) takeApart(dev *device, out *session) {
	if out == nil {
		return
	}
	apart := d.leavesApart(out)
	if dev.Steer != nil {
		for _, s := range d.members[dev.Name] {
			apart = apart || d.tunnels[s.Tunnel] != nil && d.leavesApart(s)
		}
	}
	if apart == dev.apart && !dev.unknown {
		return
	}
	dev.apart, dev.unknown = apart, false
	if err := d.features.set(dev.pair.inner, segmentation, !apart); err != nil {
		d.log.Warn("segments are cut in the slow lane", "device", dev.pair.innerName, "err", err)
	}
}

func (d *Datapath) leavesApart(s *session) bool {
	return overIP(&d.tunnels[s.Tunnel].Tunnel) || s.TransmitSequencing == l2tpv3.SequencingAll
}

// outgoing is the session that frames leave over, nil if there is none.
func (d *Datapath) outgoing(dev *device) *session {
	var out *session
	for _, s := range d.members[dev.Name] {
		if d.tunnels[s.Tunnel] != nil && (out == nil || better(s, out)) {
			out = s
		}
	}
	return out
}

// carries says that the device has carrier.
func carries(out *session) bool { return out != nil && out.Transmit }

// better says that frames should rather leave over a than over b: the newest
// session that the peer listens to.
func better(a, b *session) bool {
	if a.Transmit != b.Transmit {
		return a.Transmit
	}
	return a.order > b.order
}

// writeTunnel tells the program of the tunnel's flow. Over UDP all sessions in it
// are the control connection's. Over IP they are those of all between the two
// addresses, and the kernel may carry some.
func (d *Datapath) writeTunnel(t *tunnel) error {
	var value uint32
	if !overIP(&t.Tunnel) || !kernelCarriesIP() {
		value = bpf.TunnelOurs
	}
	if t.written != nil && *t.written == value {
		return nil
	}
	if err := d.objs.Tunnels.Put(t.flow, &value); err != nil {
		return err
	}
	t.written = &value
	return nil
}

// kernelCarriesIP says that the kernel's l2tp_ip or l2tp_ip6 is there, so that
// sessions over IP may be the kernel's.
func kernelCarriesIP() bool {
	protocols, err := os.ReadFile("/proc/net/protocols")
	return err != nil || bytes.Contains(protocols, []byte("L2TP/IP"))
}

// deleteTunnel takes a tunnel's flow back, unless another one has the same.
func (d *Datapath) deleteTunnel(t *tunnel) error {
	for _, other := range d.tunnels {
		if other.Name != t.Name && other.flow == t.flow {
			return nil
		}
	}
	return d.objs.Tunnels.Delete(t.flow)
}

func (d *Datapath) writeReceive(dev *device, s *session, up bool) error {
	t := d.tunnels[s.Tunnel]
	r := bpf.Receive{
		Flow:      t.flow,
		Device:    uint32(dev.pair.outer),
		Lane:      uint32(d.lane.inner),
		Mtu:       uint32(dev.MTU),
		Room:      uint32(room(dev, t, s)),
		Vlan:      dev.VLAN,
		CookieLen: uint16(len(s.LocalCookie)),
	}
	// Where order counts, all frames take one way.
	if x := dev.crossed; x.port != 0 && s.ReceiveSequencing == l2tpv3.SequencingNone {
		r.Port, r.PortVlan = uint32(x.port), x.vlan
	}
	if x := dev.crossed; x.port != 0 {
		r.Mtu = uint32(min(dev.MTU, x.mtu))
	}
	if s.ReceiveSequencing == l2tpv3.SequencingNone {
		r.Inner = uint32(dev.pair.inner)
	}
	var cookie [8]byte
	copy(cookie[:], s.LocalCookie)
	r.Cookie = binary.NativeEndian.Uint64(cookie[:])
	copy(cookie[:], s.PreviousCookie)
	r.Previous = binary.NativeEndian.Uint64(cookie[:])
	r.CookieMask = bpf.CookieMask(len(s.LocalCookie))
	if up {
		r.Flags |= bpf.ReceiveUp
	}
	if s.ReceiveSublayer == l2tpv3.SublayerDefault {
		r.Flags |= bpf.ReceiveSublayer
	}
	if s.ReceiveSequencing != l2tpv3.SequencingNone {
		r.Flags |= bpf.ReceiveNumbers
	}
	if t.ECN {
		r.Flags |= bpf.ReceiveECN
	}
	if dev.KeepTag && dev.VLAN != 0 {
		r.Flags |= bpf.ReceiveKeepTag
	}
	if s.written != nil && *s.written == r {
		return nil
	}
	if err := d.objs.Sessions.Put(s.LocalID, &r); err != nil {
		return err
	}
	s.written = &r
	return nil
}

// writeTransmit tells the program how frames leave: over s, or by rules; nil is not at all.
func (d *Datapath) writeTransmit(dev *device, s *session) error {
	if s == nil {
		dev.written = nil
		return d.deleteTransmit(dev)
	}
	tx := d.transmitOf(dev, s)
	if dev.Steer != nil {
		if err := d.writeWays(dev); err != nil {
			return err
		}
		tx.Flags |= bpf.TransmitSteered
	}
	if dev.written == nil || *dev.written != tx || dev.writtenApart != dev.apart {
		keys := dev.pair.keys()
		if dev.Steer != nil && dev.apart {
			// Some way takes no segments: the device cuts them, on the way over the pair.
			if err := d.objs.Pseudowires.Delete(keys[1]); err != nil {
				return err
			}
			keys = keys[:1]
		}
		for _, key := range keys {
			if err := d.objs.Pseudowires.Put(key, &tx); err != nil {
				return err
			}
		}
		dev.written, dev.writtenApart = &tx, dev.apart
	}
	if dev.Steer == nil {
		return d.deleteSteering(dev)
	}
	return nil
}

// transmitOf is how frames of a pseudowire leave over a session.
func (d *Datapath) transmitOf(dev *device, s *session) bpf.Transmit {
	t := d.tunnels[s.Tunnel]
	tx := bpf.Transmit{
		Session:  s.LocalID,
		Egress:   uint32(t.path.link),
		Lane:     uint32(d.lane.inner),
		IdSlot:   t.flow.Slot(),
		Mtu:      uint32(dev.longest(t)),
		Room:     uint32(room(dev, t, s)),
		Vlan:     uint32(dev.VLAN),
		Priority: s.Priority,
		Device:   uint32(dev.pair.outer),
	}
	if s.Transmit {
		tx.Flags |= bpf.TransmitEstablished
	}
	if t.path.resolved() {
		tx.Flags |= bpf.TransmitResolved
	}
	if t.path.kind == withoutEthernet {
		tx.Flags |= bpf.TransmitNoEthernet
	}
	if t.ECN {
		tx.Flags |= bpf.TransmitECN
	}
	if t.Checksum && !overIP(&t.Tunnel) {
		tx.Flags |= bpf.TransmitChecksum
	}
	if t.DF {
		tx.Flags |= bpf.TransmitDF
	}
	if dev.KeepTag && dev.VLAN != 0 {
		tx.Flags |= bpf.TransmitKeepTag
	}
	switch s.TransmitSequencing {
	case l2tpv3.SequencingAll:
		tx.Flags |= bpf.TransmitNumberAll
	case l2tpv3.SequencingNonIP:
		tx.Flags |= bpf.TransmitNumberOthers
	}
	putMarking(&tx, &s.Marking)
	putOuter(&tx, t.path, &t.Tunnel, &s.Session)
	return tx
}

// keys are those of a pseudowire's entries in the map.
func (p pair) keys() []uint32 { return []uint32{uint32(p.outer), uint32(p.inner)} }

func (d *Datapath) deleteTransmit(dev *device) error {
	var errs []error
	for _, key := range dev.pair.keys() {
		errs = append(errs, d.objs.Pseudowires.Delete(key))
	}
	return errors.Join(append(errs, d.deleteSteering(dev))...)
}

// room is the longest IP packet that untagged frames can carry in one packet of
// the underlay and through the device: what the MSS is clamped to.
func room(dev *device, t *tunnel, s *session) int {
	if t.path.mtu.Given == 0 {
		return dev.MTU
	}
	return max(min(dev.MTU, dev.longest(t)-pseudowire.Overhead(&t.Tunnel, &s.Session)), leastMTU)
}

// longest is the longest packet of the device that leaves over a tunnel in one piece.
func (dev *device) longest(t *tunnel) int {
	if dev.IgnoreICMP {
		return t.path.mtu.Given
	}
	return t.path.mtu.Heard
}
