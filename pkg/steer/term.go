package steer

import (
	"net/netip"

	"github.com/pwd-project/pwd/pkg/vlan"
)

// Term is one combination of single values and ranges, as a program compares them: sets as
// bits, ranges as a first value and how many come after it, everything else as value and
// mask. IPv4 addresses are mapped into IPv6.
type Term struct {
	// Rule is the index of the rule that it is of.
	Rule int
	// PCPs and DSCPs have a bit for each, NoPCP that for frames without a tag.
	PCPs  uint32
	DSCPs uint64
	// OverIPv4, OverIPv6 and Other say of what kind frames may be.
	OverIPv4, OverIPv6, Other         bool
	VLAN, SourcePort, DestinationPort Span
	EtherType, Protocol               Masked
	Source, Destination               Address
	SourceMAC, DestinationMAC         MAC
	AnySourceMAC, AnyDestinationMAC   bool
}

// Span is First and Further values after it.
type Span struct{ First, Further uint32 }

// Masked is a value, of which the bits of Mask count.
type Masked struct{ Value, Mask uint32 }

// Address is a prefix as value and mask.
type Address struct{ Value, Mask [16]byte }

// NoPCP stands for a frame without a tag in Term.PCPs.
const NoPCP = 8

var anything = Span{0, 1<<32 - 1}

// Terms are those of all rules, in order.
func Terms(rules []Rule) []Term {
	var all []Term
	for i := range rules {
		all = append(all, termsOf(i, &rules[i].Match)...)
	}
	return all
}

func termsOf(rule int, m *Match) []Term {
	t := Term{
		Rule: rule, PCPs: 1<<(NoPCP+1) - 1, DSCPs: 1<<64 - 1, OverIPv4: true, OverIPv6: true, Other: !m.overIP(),
		VLAN: anything, SourcePort: anything, DestinationPort: anything, AnySourceMAC: true, AnyDestinationMAC: true,
	}
	if len(m.PCP) > 0 {
		t.PCPs = 0
		for _, p := range m.PCP {
			t.PCPs |= 1 << p
		}
	}
	if len(m.DSCP) > 0 {
		t.DSCPs = 0
		for _, d := range m.DSCP {
			t.DSCPs |= 1 << d
		}
	}
	terms := []Term{t}
	terms = product(terms, m.VLANs.Ranges(), func(t *Term, r vlan.Range) { t.VLAN = Span{uint32(r.First), uint32(r.Last - r.First)} })
	terms = product(terms, m.EtherTypes, func(t *Term, v uint16) { t.EtherType = Masked{uint32(v), 0xffff} })
	terms = product(terms, m.Protocols, func(t *Term, v uint8) { t.Protocol = Masked{uint32(v), 0xffff} })
	terms = product(terms, m.SourcePorts, func(t *Term, r Range) { t.SourcePort = Span{uint32(r.First), uint32(r.Last - r.First)} })
	terms = product(terms, m.DestinationPorts, func(t *Term, r Range) { t.DestinationPort = Span{uint32(r.First), uint32(r.Last - r.First)} })
	terms = product(terms, m.Sources, func(t *Term, p netip.Prefix) { t.Source = t.address(p) })
	terms = product(terms, m.Destinations, func(t *Term, p netip.Prefix) { t.Destination = t.address(p) })
	terms = product(terms, m.SourceMACs, func(t *Term, a MAC) { t.SourceMAC, t.AnySourceMAC = a, false })
	return product(terms, m.DestinationMACs, func(t *Term, a MAC) { t.DestinationMAC, t.AnyDestinationMAC = a, false })
}

// product makes of each term one for each value; without values they stay.
func product[V any](terms []Term, values []V, set func(*Term, V)) []Term {
	if len(values) == 0 {
		return terms
	}
	var all []Term
	for _, t := range terms {
		for _, v := range values {
			one := t
			set(&one, v)
			all = append(all, one)
		}
	}
	return all
}

// address is a prefix; the term is of its family alone from then on.
func (t *Term) address(p netip.Prefix) Address {
	a := Address{Value: p.Masked().Addr().As16()}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
		t.OverIPv6 = false
	} else {
		t.OverIPv4 = false
	}
	for i := range bits {
		a.Mask[i/8] |= 0x80 >> (i % 8)
	}
	return a
}
