package tcbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/steer"
)

// What the topology allows is what the programs have room for.
var (
	_ [bpf.MaxWays]struct{}  = [steer.MaxTunnels]struct{}{}
	_ [bpf.MaxRules]struct{} = [steer.MaxTerms]struct{}{}
)

// takeOver is how long flows have to go over to a way that has come back: those that do not
// pause within that time go over then.
const takeOver = 10 * time.Second

// steering is what the maps have of a pseudowire whose frames take several ways.
type steering struct {
	ways    [bpf.MaxWays]*bpf.Transmit
	rules   *bpf.Steer
	terms   []steer.Term
	tunnels []string
}

// checkSteer refuses rules that the program has no room for.
func checkSteer(s *pseudowire.Steer) error {
	if s == nil {
		return nil
	}
	terms := 0
	for i := range s.Rules {
		terms += s.Rules[i].Match.Terms()
	}
	switch {
	case len(s.Tunnels) == 0 || len(s.Tunnels) > bpf.MaxWays:
		return fmt.Errorf("%d tunnels to steer over: %w", len(s.Tunnels), ErrInvalid)
	case terms > bpf.MaxRules:
		return fmt.Errorf("rules of %d terms: %w", terms, ErrInvalid)
	}
	for _, r := range s.Rules {
		for _, t := range r.Tunnels {
			if !slices.Contains(s.Tunnels, t) {
				return fmt.Errorf("a rule for tunnel %s: %w", t, ErrUnknown)
			}
		}
	}
	return nil
}

// rideOn is the session of a pseudowire on a tunnel, nil if it has none there.
func (d *Datapath) rideOn(dev *device, tunnel string) *session {
	var on *session
	for _, s := range d.members[dev.Name] {
		if s.Tunnel == tunnel && d.tunnels[tunnel] != nil && (on == nil || better(s, on)) {
			on = s
		}
	}
	return on
}

// writeWays brings the maps in line with the ways that frames of a steered pseudowire can
// take. The rules name what is there: ways that come, come before, and those that go, go
// after.
func (d *Datapath) writeWays(dev *device) error {
	up := uint32(0)
	going := map[int]*bpf.Transmit{}
	for i, name := range dev.Steer.Tunnels {
		if _, ok := bpf.SteerWay(dev.pair.outer, i); !ok {
			return fmt.Errorf("rules of a device with the number %d: %w", dev.pair.outer, ErrInvalid)
		}
		s := d.rideOn(dev, name)
		if s == nil {
			continue // deleted when the rules do not name it any more
		}
		tx := d.transmitOf(dev, s)
		if s.Transmit && d.tunnels[name].path.resolved() {
			up |= 1 << i
		}
		if w := dev.steering.ways[i]; w != nil && *w == tx {
			continue
		}
		if dev.steering.ways[i] != nil && up>>i&1 == 0 {
			going[i] = &tx
			continue
		}
		if err := d.putWay(dev, i, &tx); err != nil {
			return err
		}
	}
	if err := d.writeRules(dev, up); err != nil {
		return err
	}
	for i, tx := range going {
		if err := d.putWay(dev, i, tx); err != nil {
			return err
		}
	}
	return d.deleteWays(dev, func(i int) bool { return i < len(dev.Steer.Tunnels) && d.rideOn(dev, dev.Steer.Tunnels[i]) != nil })
}

func (d *Datapath) putWay(dev *device, i int, tx *bpf.Transmit) error {
	if err := d.objs.Pseudowires.Put(key(dev, i), tx); err != nil {
		return err
	}
	dev.steering.ways[i] = tx
	return nil
}

func (d *Datapath) deleteWays(dev *device, keep func(int) bool) error {
	for i := range dev.steering.ways {
		key, ok := bpf.SteerWay(dev.pair.outer, i)
		if !ok || dev.steering.ways[i] == nil || keep(i) {
			continue
		}
		if err := d.objs.Pseudowires.Delete(key); err != nil {
			return err
		}
		dev.steering.ways[i] = nil
	}
	return nil
}

// writeRules tells the program of the rules, with the ways that are up.
func (d *Datapath) writeRules(dev *device, up uint32) error {
	terms := steer.Terms(dev.Steer.Rules)
	now := monotonic()
	next := compile(dev, terms, up)
	last := dev.steering.rules
	if last != nil {
		known := slices.Equal(terms, dev.steering.terms) && slices.Equal(dev.Steer.Tunnels, dev.steering.tunnels)
		if known && sameWays(last, next) && (last.Until == 0 || now < last.Until) {
			return nil
		}
		if known && !sameWays(last, next) && goOver(last, next, up, now) {
			next.Until = now + uint64(takeOver)
			if last.Until > now {
				next.Until = last.Until
			}
		}
	}
	if err := d.objs.Steers.Put(uint32(dev.pair.outer), next); err != nil {
		return err
	}
	dev.steering.rules, dev.steering.terms, dev.steering.tunnels = next, terms, slices.Clone(dev.Steer.Tunnels)
	return nil
}

// compile makes of the terms of rules what the program looks at.
func compile(dev *device, terms []steer.Term, up uint32) *bpf.Steer {
	tunnels := dev.Steer.Tunnels
	out := &bpf.Steer{Count: uint32(len(terms))}
	if dev.VLAN != 0 && !dev.KeepTag {
		out.Flags |= bpf.SteerPopped
	}
	only := func(ways uint32) uint32 {
		if bits.OnesCount32(ways) == 1 {
			return key(dev, bits.TrailingZeros32(ways))
		}
		return 0
	}
	for i := range tunnels {
		out.Way[i].Key = key(dev, i)
		out.Way[i].Seed = seedOf(i)
	}
	out.Ways = reachable(tunnels, tunnels[len(tunnels)-1:], up)
	out.Was, out.Only = out.Ways, only(out.Ways)
	for i, t := range terms {
		r := &out.Rule[i]
		putTerm(r, &t)
		r.Ways = reachable(tunnels, dev.Steer.Rules[t.Rule].Tunnels, up)
		r.Was, r.Only = r.Ways, only(r.Ways)
	}
	return out
}

func key(dev *device, i int) uint32 {
	k, _ := bpf.SteerWay(dev.pair.outer, i)
	return k
}

// seedOf sets the weights of one way apart from those of the others, the same in every
// process: flows stay where they are over a restart.
func seedOf(i int) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }

// reachable are the ways of a rule: those of its tunnels that are up, else the next of all
// that is; of none that is up the first of its own, where frames are counted as lost.
func reachable(all, wanted []string, up uint32) (ways uint32) {
	first := slices.Index(all, wanted[0])
	for _, t := range wanted {
		if i := slices.Index(all, t); up>>i&1 == 1 {
			ways |= 1 << i
		}
	}
	for i := 1; ways == 0 && i < len(all); i++ {
		if next := (first + i) % len(all); up>>next&1 == 1 {
			ways = 1 << next
		}
	}
	if ways == 0 {
		ways = 1 << first
	}
	return ways
}

// sameWays says that all rules lead where they did.
func sameWays(a, b *bpf.Steer) bool {
	if a.Flags != b.Flags || a.Count != b.Count || a.Ways != b.Ways {
		return false
	}
	for i := range a.Count {
		if a.Rule[i].Ways != b.Rule[i].Ways {
			return false
		}
	}
	return a.Way == b.Way
}

// goOver notes which ways flows come from, of those that are still there; it reports whether
// any has to go over from one that is. Flows that are about to go over already come from
// where they were.
func goOver(last, next *bpf.Steer, up uint32, now uint64) (any bool) {
	from := func(was, ways, next uint32) uint32 {
		if last.Until <= now {
			was = ways
		}
		if was &= up; was == 0 || was == next {
			return next
		}
		any = true
		return was
	}
	next.Was = from(last.Was, last.Ways, next.Ways)
	for i := range next.Count {
		l, n := &last.Rule[i], &next.Rule[i]
		n.Was = from(l.Was, l.Ways, n.Ways)
	}
	return any
}

// putTerm writes what a term compares.
func putTerm(r *bpf.Rule, t *steer.Term) {
	r.Dscps, r.Pcps = t.DSCPs, t.PCPs
	for _, f := range []struct {
		is  bool
		bit uint32
	}{{t.Other, bpf.FamilyNone}, {t.OverIPv4, bpf.FamilyIPv4}, {t.OverIPv6, bpf.FamilyIPv6}} {
		if f.is {
			r.Families |= f.bit
		}
	}
	r.Vlan, r.Vlans = t.VLAN.First, t.VLAN.Further
	r.SourcePort, r.SourcePorts = t.SourcePort.First, t.SourcePort.Further
	r.DestinationPort, r.DestinationPorts = t.DestinationPort.First, t.DestinationPort.Further
	r.Ethertype, r.EthertypeMask = t.EtherType.Value, t.EtherType.Mask
	r.Protocol, r.ProtocolMask = t.Protocol.Value, t.Protocol.Mask
	r.Source, r.SourceMask = twoWords(t.Source.Value), twoWords(t.Source.Mask)
	r.Destination, r.DestinationMask = twoWords(t.Destination.Value), twoWords(t.Destination.Mask)
	r.SourceMac, r.SourceMacMask = macWord(t.SourceMAC, t.AnySourceMAC)
	r.DestinationMac, r.DestinationMacMask = macWord(t.DestinationMAC, t.AnyDestinationMAC)
}

func twoWords(b [16]byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func macWord(a steer.MAC, any bool) (value, mask uint64) {
	if any {
		return 0, 0
	}
	return uint64(binary.BigEndian.Uint16(a[:2]))<<32 | uint64(binary.BigEndian.Uint32(a[2:])), 1<<48 - 1
}

// deleteSteering takes the rules and ways of a pseudowire out of the maps, once its entry
// does not send frames there any more.
func (d *Datapath) deleteSteering(dev *device) error {
	if dev.steering.rules == nil && dev.steering.ways == [bpf.MaxWays]*bpf.Transmit{} {
		return nil
	}
	err := errors.Join(d.objs.Steers.Delete(uint32(dev.pair.outer)), d.deleteWays(dev, func(int) bool { return false }))
	if err == nil {
		dev.steering = steering{}
	}
	return err
}

// Classify says what would become of a frame.
func (d *Datapath) Classify(name string, frame []byte) (pseudowire.Classified, error) {
	var out pseudowire.Classified
	fail := func(err error) (pseudowire.Classified, error) {
		return out, &Error{Op: "classify a frame of pseudowire", Object: name, Err: err}
	}
	dev := d.pseudowires[name]
	if dev == nil {
		return fail(ErrUnknown)
	}
	c, err := d.objs.Classify(uint32(dev.pair.outer), frame)
	if err != nil {
		return fail(err)
	}
	out = pseudowire.Classified{Rule: -1, Session: c.Session, DSCP: c.TOS >> 2, Priority: c.Priority}
	if s := d.sessions[c.Session]; s != nil {
		out.Tunnel = s.Tunnel
	}
	if int(c.Rule) < len(dev.steering.terms) {
		out.Rule = dev.steering.terms[c.Rule].Rule
	}
	switch {
	case c.Refused&bpf.LostState != 0:
		out.Dropped = pseudowire.DropNotTransmit
	case c.Refused&bpf.LostVLAN != 0:
		out.Dropped = pseudowire.DropWrongVLAN
	case c.Refused&bpf.LostNeighbour != 0:
		out.Dropped = pseudowire.DropNoNeighbour
	}
	return out, nil
}
