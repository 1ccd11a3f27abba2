// Package spread tells the programs that choose a session for each frame (bpf/steer.h) of a
// pseudowire's rules: which of them are up, and which flows have to go over to others.
package spread

import (
	"encoding/binary"
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

// Check refuses rules that the programs have no room for; nil is none.
func Check(s *pseudowire.Steer) error {
	if s == nil {
		return nil
	}
	terms := 0
	for i := range s.Rules {
		terms += s.Rules[i].Match.Terms()
	}
	switch {
	case len(s.Tunnels) == 0 || len(s.Tunnels) > bpf.MaxWays:
		return fmt.Errorf("%d tunnels to steer over; 1 to %d are possible", len(s.Tunnels), bpf.MaxWays)
	case terms > bpf.MaxRules:
		return fmt.Errorf("rules of %d terms; %d are possible", terms, bpf.MaxRules)
	}
	for _, r := range s.Rules {
		for _, t := range r.Tunnels {
			if !slices.Contains(s.Tunnels, t) {
				return fmt.Errorf("a rule is for tunnel %s, which is not among those to steer over", t)
			}
		}
	}
	return nil
}

// Table is what a program has of a pseudowire's rules. The zero value is nothing.
type Table struct {
	rules   *bpf.Steer
	terms   []steer.Term
	tunnels []string
}

// Empty says that the program has nothing.
func (t *Table) Empty() bool { return t.rules == nil }

// Rule is the index of the rule that the program means, -1 for none.
func (t *Table) Rule(found uint32) int {
	if int(found) < len(t.terms) {
		return t.terms[found].Rule
	}
	return -1
}

// Pair is the pseudowire's device, as the programs know it.
type Pair struct {
	// Outer is the ifindex of the outer end. SteerWay has to take it.
	Outer int
	// Popped says that the first tag of frames comes off behind the program.
	Popped bool
}

// Key is that of one of the ways.
func (p Pair) Key(i int) uint32 {
	k, _ := bpf.SteerWay(p.Outer, i)
	return k
}

// Write tells the program of the rules, if there is anything new, with a bit in up for each
// of the tunnels that are. Flows go over to one that has come back in their first pause.
func (t *Table) Write(p Pair, s *pseudowire.Steer, up uint32, put func(*bpf.Steer) error) error {
	terms := steer.Terms(s.Rules)
	now := bpf.Now()
	next := compile(p, s, terms, up)
	if last := t.rules; last != nil {
		known := slices.Equal(terms, t.terms) && slices.Equal(s.Tunnels, t.tunnels)
		same := sameWays(last, next)
		if known && same && last.Up == up && (last.Until == 0 || now < last.Until) {
			return nil
		}
		if known && goOver(last, next, up, now) {
			next.Until = now + uint64(takeOver)
			next.Change = next.Until
			if last.Until > now {
				next.Change = last.Change
				if same {
					next.Until = last.Until
				}
			}
		}
	}
	if err := put(next); err != nil {
		return err
	}
	t.rules, t.terms, t.tunnels = next, terms, slices.Clone(s.Tunnels)
	return nil
}

// compile makes of the terms of rules what the program looks at.
func compile(p Pair, s *pseudowire.Steer, terms []steer.Term, up uint32) *bpf.Steer {
	tunnels := s.Tunnels
	out := &bpf.Steer{Count: uint32(len(terms)), Up: up}
	if p.Popped {
		out.Flags |= bpf.SteerPopped
	}
	only := func(ways uint32) uint32 {
		if bits.OnesCount32(ways) == 1 {
			return p.Key(bits.TrailingZeros32(ways))
		}
		return 0
	}
	for i := range tunnels {
		out.Way[i].Key = p.Key(i)
		out.Way[i].Seed = seedOf(i)
	}
	out.Ways = reachable(tunnels, tunnels[len(tunnels)-1:], up)
	out.Was, out.Only = out.Ways, only(out.Ways)
	for i, t := range terms {
		r := &out.Rule[i]
		putTerm(r, &t)
		r.Ways = reachable(tunnels, s.Rules[t.Rule].Tunnels, up)
		r.Was, r.Only = r.Ways, only(r.Ways)
	}
	return out
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
