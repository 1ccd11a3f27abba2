package topology

import (
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

type pseudowire struct {
	name string
	// network is the one that it is of, nil for none.
	network *network
	at      spot
	// tunnel is the one that carries it, the active one if there are others; standby
	// are those, by preference.
	tunnel     *tunnel
	standby    []*tunnel
	redundancy *Redundancy
	// steer says which frame takes which of them.
	steer []steerRule
	kind  l2tpv3.PseudowireType
	endID []byte
	agi   []byte
	// endIDAt is the place of end-id, of the name where that is not set.
	endIDAt  spot
	wishes   wishes
	mtu      int
	maxMACs  int
	suppress bool
	datapath string
	limits   Limits
	ends     []end
	// static are the ends of one that is not signalled, nil for others.
	static map[*site]*staticSession
}

// wishes are how an end wants the peer to send.
type wishes struct {
	cookie     int
	sublayer   l2tpv3.L2SpecificSublayer
	sequencing l2tpv3.DataSequencing
}

// end is a pseudowire's end at one site.
type end struct {
	site       *site
	at         spot
	attachment Attachment
	// circuitAt is the place of the bridge or interface, vlanAt that of the VLAN if it has one.
	circuitAt, vlanAt spot
	// claims are what of the bridge or interface is its own.
	claims []claim
	// endID is what a foreign site's end is called, nil for what the pseudowire is;
	// endIDAt its place. towards is how that site is to send.
	endID   []byte
	endIDAt spot
	towards wishes
	broken  bool
}

func (b *builder) pseudowire(r row) {
	rec, _ := r.value.(*record)
	if rec == nil {
		return
	}
	p := b.serviceOf(r, rec)
	b.t.pseudowires = append(b.t.pseudowires, p)
	b.ends(p, rec)
	b.tags(p)
	b.staticSessions(p, rec)
}

// serviceOf reads what pseudowires and networks have in common, but for the ends.
func (b *builder) serviceOf(r row, rec *record) *pseudowire {
	p := &pseudowire{name: r.name, at: r.at, kind: l2tpv3.Ethernet, endID: []byte(r.name), endIDAt: r.at, wishes: wishes{cookie: 8}}
	p.tunnel = b.tunnelOf(r, rec)
	if rec.has("redundancy") {
		b.redundancy(p, rec)
	}
	b.share(p, rec)
	if id, at, ok := get[string](rec, "end-id"); ok {
		p.endID, p.endIDAt = []byte(id), at
	}
	if rec.has("end-id") && rec.values["end-id"].value == nil {
		// What the end ID is to be is not known: nothing can clash with it.
		p.endID = nil
	}
	if agi, _, ok := get[string](rec, "agi"); ok {
		p.agi = []byte(agi)
	}
	if word, _, _ := get[string](rec, "type"); word == "ethernet-vlan" {
		p.kind = l2tpv3.EthernetVLAN
	}
	p.wishes = b.wishes(p.wishes, rec)
	if mtu, at, ok := get[int64](rec, "mtu"); ok {
		p.mtu = int(mtu)
		if mtu < 1280 {
			b.warn(CodeSmallMTU, at, fmt.Sprintf("IPv6 hosts need an MTU of 1280, this is %d", mtu), "use 1280 or more if there are any")
		}
	}
	if n, _, ok := get[int64](rec, "max-macs"); ok {
		p.maxMACs = int(n)
	}
	word, _, _ := get[string](rec, "suppress")
	p.suppress = word == "arp-nd"
	if word, _, _ := get[string](rec, "datapath"); word != "auto" {
		p.datapath = word
	}
	p.limits.Police, _, _ = get[uint64](rec, "police")
	storm, _, _ := get[*record](rec, "storm-control")
	p.limits.Broadcast, _, _ = get[uint32](storm, "broadcast")
	p.limits.Multicast, _, _ = get[uint32](storm, "multicast")
	p.limits.UnknownUnicast, _, _ = get[uint32](storm, "unknown-unicast")
	return p
}

// wishes reads how the peer is to send, with what holds where a key is absent.
func (b *builder) wishes(w wishes, rec *record) wishes {
	if cookie, _, ok := get[int64](rec, "cookie"); ok {
		w.cookie = int(cookie)
	}
	if word, _, ok := get[string](rec, "sequencing"); ok {
		w.sequencing = map[string]l2tpv3.DataSequencing{"none": l2tpv3.SequencingNone, "non-ip": l2tpv3.SequencingNonIP, "all": l2tpv3.SequencingAll}[word]
		w.sublayer = l2tpv3.SublayerNone
	}
	word, at, ok := get[string](rec, "sublayer")
	switch {
	case ok && word == "none" && w.sequencing != l2tpv3.SequencingNone:
		b.fault(CodeExclusive, at, "sequence numbers are in the default sublayer", "write default, or remove the key")
	case ok && word == "none":
		w.sublayer = l2tpv3.SublayerNone
	case ok || w.sequencing != l2tpv3.SequencingNone:
		w.sublayer = l2tpv3.SublayerDefault
	}
	return w
}

// tags checks that the frames of an Ethernet VLAN pseudowire have a tag at both ends or
// pass as they are at both (RFC 4719, Section 3.1).
func (b *builder) tags(p *pseudowire) {
	var with, without *end
	for i := range p.ends {
		e := &p.ends[i]
		switch {
		case e.broken || e.site.foreign || e.keepsTags():
		case e.attachment.VLAN != 0:
			with = e
		default:
			without = e
		}
	}
	if p.kind == l2tpv3.EthernetVLAN && with != nil && without != nil && !b.full() {
		b.clash(CodeTags, without.circuitAt, fmt.Sprintf("an Ethernet VLAN %s with a VLAN at one end and none at the other", p.kindOfService()), with.vlanAt, "there is one here", "add `vlan:`, remove the other one, or use `type: ethernet`")
	}
	b.otherTags(p)
}

// tunnelOf is the tunnel that carries the pseudowire, nil if that was faulty.
func (b *builder) tunnelOf(r row, rec *record) *tunnel {
	one, many := rec.values["tunnel"], rec.values["tunnels"]
	switch {
	case rec.has("tunnel") && rec.has("tunnels"):
		if many.key.line > one.key.line || many.key.line == one.key.line && many.key.column > one.key.column {
			one, many = many, one
		}
		b.clash(CodeExclusive, one.key, "tunnel and tunnels are both there", many.key, "the other one is here", "keep one of them")
		return nil
	case !rec.has("tunnel") && !rec.has("tunnels"):
		if rec.damaged || rec.has("redundancy") {
			return nil
		}
		b.fault(CodeMissingKey, r.at, "the key tunnel is missing", oneOf("", "add `tunnel:` with one of these tunnels", tunnelNames(b.t.tunnels)))
		return nil
	}
	name, at, ok := get[string](rec, "tunnel")
	if list, _, is := get[[]item](rec, "tunnels"); is {
		for _, it := range list {
			b.knownTunnel(it.at, it.value.(string))
		}
		if len(list) > 1 && rec.has("redundancy") {
			return nil
		}
		return b.tunnels[list[0].value.(string)]
	}
	if !ok {
		return nil
	}
	return b.knownTunnel(at, name)
}

// ends fills in where the pseudowire attaches: exactly two of its tunnel's sites.
func (b *builder) ends(p *pseudowire, rec *record) {
	attach, _, ok := get[[]row](rec, "attach")
	if !ok {
		return
	}
	if p.network != nil {
		b.networkEnds(p.network, rec, attach)
	} else if len(attach) != 2 {
		help := "name both sites, each with what it attaches there"
		if len(attach) > 2 {
			help = "make it a network, under `networks:`"
		}
		b.fault(CodeEnds, rec.values["attach"].key, fmt.Sprintf("a pseudowire has two ends; this has %d", len(attach)), help)
	}
	for _, r := range attach {
		if !r.named {
			continue
		}
		s := b.sites[r.name]
		if s == nil {
			b.unknownSite(r.at, r.name)
			continue
		}
		for _, t := range p.tunnels() {
			if t.broken || slices.Contains(t.sites, s) {
				continue
			}
			b.clash(CodeNotMember, r.at, fmt.Sprintf("tunnel %s does not reach site %s", t.name, s.name), t.sitesAt, "its sites are here", fmt.Sprintf("attach at one of its sites (%s), or add %s to them", listed(siteNames(t.sites)), s.name))
		}
		if s.foreign {
			p.ends = append(p.ends, b.foreignEnd(p, s, r))
		} else {
			p.ends = append(p.ends, b.end(s, r))
		}
	}
}

// foreignEnd is an end that others set up: what we have to know of it.
func (b *builder) foreignEnd(p *pseudowire, s *site, r row) end {
	e := end{site: s, at: r.at, towards: p.wishes}
	rec, _ := r.value.(*record)
	if rec == nil {
		return e
	}
	for _, key := range slices.Concat([]string{"bridge", "interface"}, selectors) {
		if rec.has(key) {
			b.clash(CodeForeign, rec.values[key].key, fmt.Sprintf("%s is foreign: what it attaches is not said here", s.name), s.at, "declared here", "remove the key")
		}
	}
	tag, tagAt, ok := get[int64](rec, "vlan")
	if e.attachment.VLAN, e.vlanAt = uint16(tag), tagAt; ok && p.kind != l2tpv3.EthernetVLAN {
		b.clash(CodeForeign, rec.values["vlan"].key, fmt.Sprintf("%s is foreign: its VLAN matters to an Ethernet VLAN pseudowire only", s.name), s.at, "declared here", "remove the key, or add `type: ethernet-vlan`")
	}
	if id, at, ok := get[string](rec, "end-id"); ok {
		e.endID, e.endIDAt = []byte(id), at
	}
	e.towards = b.wishes(p.wishes, rec)
	return e
}

func (b *builder) end(s *site, r row) end {
	e := end{site: s, at: r.at}
	rec, _ := r.value.(*record)
	if rec == nil {
		e.broken = true
		return e
	}
	for _, key := range []string{"end-id", "cookie", "sequencing", "sublayer"} {
		if rec.has(key) {
			b.fault(CodeForeign, rec.values[key].key, fmt.Sprintf("%s is for foreign sites, and %s runs this daemon", key, s.name), "write it above `attach:`, for both ends")
		}
	}
	br, brAt, brOK := get[string](rec, "bridge")
	ifc, ifcAt, ifcOK := get[string](rec, "interface")
	e.attachment = Attachment{Bridge: br, Interface: ifc}
	e.circuitAt = brAt
	whole := b.selection(&e, rec)
	e.broken = !brOK && !ifcOK || !whole
	switch {
	case rec.has("bridge") && rec.has("interface"):
		b.clash(CodeExclusive, rec.values["interface"].key, "bridge and interface are both there", rec.values["bridge"].key, "the other one is here", "attach one of them")
		e.broken = true
	case !rec.has("bridge") && !rec.has("interface"):
		if !rec.damaged {
			b.fault(CodeMissingKey, r.at, "there is nothing to attach", "add `bridge:` or `interface:`")
		}
	case brOK:
		if s.bridge(br) == nil && !s.noBridges {
			b.unknownBridge(s, br, brAt)
		}
	case ifcOK:
		e.circuitAt = ifcAt
		if other := s.bridge(ifc); other != nil {
			b.clash(CodeBridgeAsPort, ifcAt, fmt.Sprintf("%s is a bridge of site %s", ifc, s.name), other.at, "declared here", fmt.Sprintf("write `bridge: %s`", ifc))
		}
	}
	return e
}

func (b *builder) unknownBridge(s *site, name string, at spot) {
	var known []string
	for _, br := range s.bridges {
		known = append(known, br.Name)
	}
	help := fmt.Sprintf("declare it: `%s: {ports: [eth1]}` under sites.%s.bridges, with `external: true` instead of ports if it is there already", name, s.name)
	if near, ok := nearest(name, known); ok {
		help = fmt.Sprintf("did you mean %s? Or %s", near, help)
	}
	b.fault(CodeUnknownBridge, at, fmt.Sprintf("site %s has no bridge %s", s.name, name), help)
}
