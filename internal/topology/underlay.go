package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// shapingKeys are those of a path that say how it is shaped.
var shapingKeys = []string{"rate", "qdisc", "shaper"}

// read takes what a site, or an underlay of one, says of its path, and reports whether there is an address that
// could be read.
func (u *underlay) read(rec *record) (ok bool) {
	u.address, u.addressAt, ok = get[netip.Addr](rec, "address")
	u.rate, u.rateAt, _ = get[uint64](rec, "rate")
	qdisc, _, _ := get[string](rec, "qdisc")
	shaper, at, _ := get[string](rec, "shaper")
	u.replaceQdisc, u.edt, u.edtAt = qdisc == "replace", shaper == "edt", at
	return ok
}

// underlays reads the site's paths, and that it has an address or such.
func (b *builder) underlays(s *site, r row, rec *record) {
	switch {
	case rec.has("underlays"):
		for _, key := range append([]string{"address"}, shapingKeys...) {
			if rec.has(key) {
				b.clash(CodeExclusive, rec.values[key].key, fmt.Sprintf("%s and underlays are both there", key), rec.values["underlays"].key, "the other one is here",
					fmt.Sprintf("give each underlay its `%s:`", key))
			}
		}
	case !rec.has("address") && !rec.damaged:
		b.fault(CodeMissingKey, r.at, "the key address is missing", "add `address:` with an IPv4 or IPv6 address")
	}
	list, at, readable := get[[]row](rec, "underlays")
	if readable && len(list) == 0 {
		b.fault(CodeCount, at, "there is no underlay", "add one with its `address:`, or give the site an `address:`")
	}
	for _, it := range list {
		if !it.named {
			continue
		}
		u := &underlay{name: it.name, at: it.at}
		of, _ := it.value.(*record)
		u.read(of)
		s.underlays = append(s.underlays, u)
	}
}

// ends are the places where tunnels can end at the site: its underlays, or one without
// a name.
func (s *site) ends() []*underlay {
	if len(s.underlays) > 0 {
		return s.underlays
	}
	return []*underlay{&s.path}
}

// addresses are all of them, in words.
func (s *site) addresses() string {
	var words []string
	for _, u := range s.ends() {
		if u.address.IsValid() {
			words = append(words, u.address.String())
		}
	}
	return strings.Join(words, ", ")
}

// paths reads which underlays the tunnel takes. Each of its sites that has several needs
// to be there.
func (b *builder) paths(t *tunnel, rec *record) {
	t.underlays = map[*site]*underlay{}
	chosen, at, readable := get[[]row](rec, "underlay")
	if rec.has("underlay") && !readable {
		t.broken = true
		return
	}
	named := map[*site]bool{}
	for _, r := range chosen {
		s := b.sites[r.name]
		name, isName := r.value.(string)
		switch {
		case !r.named || !isName:
			t.broken = true
			continue
		case s == nil:
			b.unknownSite(r.at, r.name)
			t.broken = true
			continue
		case !slices.Contains(t.sites, s) && !t.broken:
			b.clash(CodeNotMember, r.at, fmt.Sprintf("tunnel %s does not reach site %s", t.name, s.name), t.sitesAt, "its sites are here", "remove it, or add the site to them")
			continue
		}
		named[s] = true
		i := slices.IndexFunc(s.underlays, func(u *underlay) bool { return u.name == name })
		if i < 0 {
			var known []string
			for _, u := range s.underlays {
				known = append(known, u.name)
			}
			b.fault(CodeUnderlay, r.at, fmt.Sprintf("site %s has no underlay %s", s.name, name), oneOf(name, "underlays", known))
			t.broken = true
			continue
		}
		t.underlays[s] = s.underlays[i]
	}
	for _, s := range t.sites {
		switch {
		case named[s] || len(s.underlays) == 0 || b.full():
		case len(s.underlays) == 1:
			t.underlays[s] = s.underlays[0]
		default:
			var known []string
			for _, u := range s.underlays {
				known = append(known, u.name)
			}
			where := t.at
			if readable {
				where = at
			}
			b.fault(CodeUnderlay, where, fmt.Sprintf("site %s has several underlays, and it is not said which one the tunnel takes", s.name),
				fmt.Sprintf("add `underlay: {%s: %s}`, or another of %s", s.name, known[0], listed(known)))
			t.broken = true
		}
	}
}

// pathAt is the tunnel's at a site; its address is the zero one at a dynamic site.
func (t *tunnel) pathAt(s *site) *underlay {
	if u := t.underlays[s]; u != nil {
		return u
	}
	return &s.path
}
