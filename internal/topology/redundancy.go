package topology

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// defaultHold is how long a tunnel has to have worked to be taken again.
const defaultHold = 10 * time.Second

// redundancy reads the tunnels of a pseudowire that stand in for each other. Where
// `tunnels:` is there too it names the same ones.
func (b *builder) redundancy(p *pseudowire, rec *record) {
	at := rec.values["redundancy"].key
	of, _, ok := get[*record](rec, "redundancy")
	if !ok {
		p.tunnel = nil
		return
	}
	r := &Redundancy{Revertive: true, Hold: defaultHold}
	if revertive, _, ok := get[bool](of, "revertive"); ok {
		r.Revertive = revertive
	}
	if hold, _, ok := get[time.Duration](of, "hold"); ok {
		r.Hold = hold
	}
	named := map[string]bool{}
	p.tunnel, p.redundancy = nil, r
	if name, at, ok := get[string](of, "active"); ok {
		p.tunnel, named[name] = b.knownTunnel(at, name), true
	}
	standby, _, _ := get[[]item](of, "standby")
	for _, it := range standby {
		name := it.value.(string)
		if named[name] {
			_, active, _ := get[string](of, "active")
			b.clash(CodeDuplicateItem, it.at, fmt.Sprintf("%s stands in for itself", name), active, "it is the active one", "name another tunnel")
			continue
		}
		named[name] = true
		if t := b.knownTunnel(it.at, name); t != nil {
			p.standby = append(p.standby, t)
		}
	}
	if p.tunnel == nil {
		p.standby = nil // it cannot be used
		return
	}
	b.sameTunnels(rec, at, named)
}

// sameTunnels checks that `tunnel` or `tunnels`, if it is there, names the tunnels of
// the redundancy.
func (b *builder) sameTunnels(rec *record, at spot, named map[string]bool) {
	listedThere := map[string]bool{}
	list, place, isList := get[[]item](rec, "tunnels")
	for _, it := range list {
		listedThere[it.value.(string)] = true
	}
	name, one, isOne := get[string](rec, "tunnel")
	if isOne {
		listedThere[name], place = true, one
	}
	if !isList && !isOne {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !listedThere[name] && b.tunnels[name] != nil {
			b.clash(CodeRedundancy, at, fmt.Sprintf("the redundancy has tunnel %s, which is not among the tunnels", name), place, "they are here", "name the same tunnels in both, or leave `tunnels:` out")
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listedThere)) {
		if !named[name] && b.tunnels[name] != nil {
			b.clash(CodeRedundancy, place, fmt.Sprintf("the redundancy does not say what tunnel %s is for", name), at, "it is here", "add it to `standby:`, or remove it here")
			return
		}
	}
}

// tunnels are all those that carry the pseudowire and are known, by preference.
func (p *pseudowire) tunnels() []*tunnel {
	var all []*tunnel
	for _, t := range append([]*tunnel{p.tunnel}, p.standby...) {
		if t != nil && !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}
