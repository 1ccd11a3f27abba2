package topology

import (
	"fmt"
	"slices"
)

// pair is what all tunnels between two sites may send together.
type pair struct {
	name    string
	at      spot
	sites   [2]*site
	sitesAt spot
	rate    uint64
	rateAt  spot
}

// leastPriority is that of tunnels which are shaped for their pair's sake alone: whoever
// has a class that says something of it comes first.
const leastPriority = 7

func (b *builder) pair(r row) {
	p := &pair{name: r.name, at: r.at}
	rec, _ := r.value.(*record)
	p.rate, p.rateAt, _ = get[uint64](rec, "rate")
	list, at, ok := get[[]item](rec, "sites")
	p.sitesAt = at
	if !ok {
		return
	}
	for i, it := range list {
		name := it.value.(string)
		if p.sites[i] = b.sites[name]; p.sites[i] == nil {
			b.unknownSite(it.at, name)
			return
		}
	}
	if p.sites[0] == p.sites[1] {
		b.clash(CodeSameSite, list[1].at, fmt.Sprintf("a pair of %s and itself", p.sites[0].name), list[0].at, "first used here", b.siteHelp(p.sites[0].name))
		return
	}
	if other := b.t.pairOf(p.sites[0], p.sites[1]); other != nil {
		b.clash(CodeDuplicateItem, at, fmt.Sprintf("pair %s is of %s and %s, too", other.name, p.sites[0].name, p.sites[1].name), other.sitesAt, "it is here", "keep one of them")
		return
	}
	b.t.pairs = append(b.t.pairs, p)
}

// pairOf is that of two sites, in either order; nil if there is none.
func (t *Topology) pairOf(a, b *site) *pair {
	for _, p := range t.pairs {
		if p.sites == [2]*site{a, b} || p.sites == [2]*site{b, a} {
			return p
		}
	}
	return nil
}

// checkPairs finds pairs that no tunnel joins, and compares what is guaranteed between
// two sites with what all may send together.
func (b *builder) checkPairs() {
	for _, p := range b.t.pairs {
		if b.full() {
			return
		}
		var guaranteed sumOf
		joined := b.noTunnels
		for _, t := range b.t.tunnels {
			if t.broken {
				joined = true
				continue
			}
			if !slices.Contains(t.sites, p.sites[0]) || !slices.Contains(t.sites, p.sites[1]) {
				continue
			}
			joined = true
			if t.class != nil && t.class.Rate != 0 {
				guaranteed.add(t.name, t.class.Rate)
			}
		}
		switch {
		case !joined:
			b.fault(CodeNotMember, p.sitesAt, fmt.Sprintf("no tunnel joins %s and %s", p.sites[0].name, p.sites[1].name), "remove the pair, or add a tunnel between the two")
		case guaranteed.sum > p.rate && p.rate != 0:
			b.fault(CodeRateSum, p.rateAt, fmt.Sprintf("%s and %s send each other no more than %s, and more is guaranteed: %s",
				p.sites[0].name, p.sites[1].name, bits(p.rate), guaranteed), "lower the `rate:` of classes, of which each tunnel has it to itself, or raise that of the pair")
		}
	}
}
