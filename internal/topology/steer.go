package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/pkg/vlan"
)

var steerObject = &object{
	name: "rule", where: "pseudowires.PSEUDOWIRE.steer[]",
	fields: []field{
		{key: "tunnel", shape: nameOf("a tunnel"), standard: "required, or `tunnels`", about: "The tunnel of frames that match. While it is down they take the next one of the pseudowire's `tunnels` that is up, the first after the last."},
		{key: "tunnels", shape: list{of: nameOf("a tunnel"), least: 2, unique: true}, about: "Several, of which each flow takes one: packets of the same addresses, protocol and ports, other frames of the same MAC addresses. One that is down leaves its flows to the others of them."},
		{key: "pcp", shape: list{of: integer("PCP", 0, 7), least: 1, orOne: true, unique: true}, standard: "any", about: "Priority bits of the frame's first tag, on the attachment circuit."},
		{key: "dscp", shape: list{of: dscp, least: 1, orOne: true, unique: true}, standard: "any", about: "The DSCP of the IP packet inside."},
		{key: "vlan", shape: list{of: vlanOrRange, least: 1, orOne: true}, standard: "any", about: "The number of the first tag that stays on in the pseudowire: not of one that the attachment circuit takes off."},
		{key: "ethertype", shape: list{of: etherType, least: 1, orOne: true, unique: true}, standard: "any", about: "The EtherType behind the tags, of which two are looked at."},
		{key: "protocol", shape: list{of: ipProtocol, least: 1, orOne: true, unique: true}, standard: "any", about: "The protocol of the IP packet inside, behind up to six IPv6 extension headers."},
		{key: "source", shape: list{of: prefix, least: 1, orOne: true, unique: true}, standard: "any", about: "The IP packet's source."},
		{key: "destination", shape: list{of: prefix, least: 1, orOne: true, unique: true}, standard: "any", about: "Its destination."},
		{key: "source-port", shape: list{of: portOrRange, least: 1, orOne: true, unique: true}, standard: "any", about: "The source port of TCP, UDP, UDP-Lite, SCTP or DCCP. Fragments have none, the first one neither, so that all of a packet go one way."},
		{key: "destination-port", shape: list{of: portOrRange, least: 1, orOne: true, unique: true}, standard: "any", about: "The destination port, likewise."},
		{key: "source-mac", shape: list{of: macAddress, least: 1, orOne: true, unique: true}, standard: "any", about: "The frame's source."},
		{key: "destination-mac", shape: list{of: macAddress, least: 1, orOne: true, unique: true}, standard: "any", about: "Its destination."},
	},
}

// share reads what the tunnels of a list are for: one carries all, or `steer:` says which
// frame takes which, or there is `redundancy:`.
func (b *builder) share(p *pseudowire, rec *record) {
	list, at, _ := get[[]item](rec, "tunnels")
	if len(list) > 1 && !rec.has("redundancy") {
		for _, it := range list[1:] {
			if t := b.tunnels[it.value.(string)]; t != nil && p.tunnel != nil {
				p.standby = append(p.standby, t)
			}
		}
		if len(list) > steer.MaxTunnels {
			b.fault(CodeSteer, at, fmt.Sprintf("frames can be spread over %d tunnels; these are %d", steer.MaxTunnels, len(list)), "remove some")
		}
		if !rec.has("steer") && !rec.damaged {
			b.fault(CodeSteer, at, "nothing says what the tunnels are for", "say with `redundancy:` which stand by, or, of a pseudowire, with `steer:` which frame takes which, or keep one of them")
		}
	}
	if !rec.has("steer") {
		return
	}
	b.steer(p, rec)
}

// steer reads which frame takes which of the pseudowire's tunnels.
func (b *builder) steer(p *pseudowire, rec *record) {
	at := rec.values["steer"].key
	items, _, ok := get[[]item](rec, "steer")
	if other, both := rec.values["redundancy"]; both {
		b.clash(CodeExclusive, at, "steer and redundancy are both there", other.key, "the other one is here", "keep one of them: with `steer:` tunnels stand in for each other as well")
		return
	}
	if !ok || p.tunnel == nil {
		return
	}
	if len(p.tunnels()) < 2 {
		b.fault(CodeSteer, at, "there is one tunnel, which takes all frames", "name several with `tunnels:`, or remove the key")
		return
	}
	var all *item
	terms := 0
	for i := range items {
		it := &items[i]
		r, _ := it.value.(*record)
		if r == nil || b.full() {
			continue
		}
		if all != nil {
			b.clash(CodeSteer, it.at, "no frame gets to this rule", all.at, "this one takes all", "move it before that one, or remove it")
			return
		}
		s, whole := b.steerRule(p, r)
		if !whole {
			continue
		}
		if terms += s.match.Terms(); terms > steer.MaxTerms {
			b.fault(CodeSteer, it.at, fmt.Sprintf("the rules up to this one make %d combinations of single values; %d is the limit", terms, steer.MaxTerms), "use ranges and shorter prefixes, or fewer values: a rule counts as often as its numbers of values make when multiplied, those of `pcp` and `dscp` not counted")
			return
		}
		p.steer = append(p.steer, s)
		if s.match.All() {
			all = it
		}
	}
}

// steerRule is one of the file's rules.
type steerRule struct {
	tunnels []*tunnel
	match   steer.Match
}

func (b *builder) steerRule(p *pseudowire, rec *record) (rule steerRule, whole bool) {
	whole = !rec.damaged
	one, many := rec.values["tunnel"], rec.values["tunnels"]
	switch {
	case rec.has("tunnel") && rec.has("tunnels"):
		b.clash(CodeExclusive, one.key, "tunnel and tunnels are both there", many.key, "the other one is here", "keep one of them")
		whole = false
	case !rec.has("tunnel") && !rec.has("tunnels"):
		if !rec.damaged {
			b.fault(CodeMissingKey, rec.at, "the key tunnel is missing", "add `tunnel:`, or `tunnels:` with several that share the flows")
		}
		whole = false
	}
	if name, at, ok := get[string](rec, "tunnel"); ok {
		whole = b.ride(p, &rule, item{at, name}) && whole
	}
	list, _, _ := get[[]item](rec, "tunnels")
	for _, it := range list {
		whole = b.ride(p, &rule, it) && whole
	}
	for key, v := range rec.values {
		whole = whole && (v.value != nil || key == "tunnel" || key == "tunnels")
	}
	rule.match = matchOf(rec)
	return rule, b.possible(rec, &rule.match) && whole
}

// ride adds one of the pseudowire's tunnels to a rule.
func (b *builder) ride(p *pseudowire, rule *steerRule, it item) bool {
	t := b.knownTunnel(it.at, it.value.(string))
	if t == nil {
		return false
	}
	if !slices.Contains(p.tunnels(), t) {
		b.fault(CodeSteer, it.at, fmt.Sprintf("%s is not one of the pseudowire's tunnels", t.name), "add it to `tunnels:` of the pseudowire, or name one of these: "+listed(tunnelNames(p.tunnels())))
		return false
	}
	rule.tunnels = append(rule.tunnels, t)
	return true
}

func matchOf(rec *record) steer.Match {
	m := steer.Match{
		DSCP: each[uint8](rec, "dscp"), EtherTypes: each[uint16](rec, "ethertype"), Protocols: each[uint8](rec, "protocol"),
		SourcePorts: each[steer.Range](rec, "source-port"), DestinationPorts: each[steer.Range](rec, "destination-port"),
		Sources: each[netip.Prefix](rec, "source"), Destinations: each[netip.Prefix](rec, "destination"),
		SourceMACs: each[steer.MAC](rec, "source-mac"), DestinationMACs: each[steer.MAC](rec, "destination-mac"),
		VLANs: vlan.Of(each[vlan.Range](rec, "vlan")...),
	}
	for _, v := range each[int64](rec, "pcp") {
		m.PCP = append(m.PCP, uint8(v))
	}
	return m
}

// each are the values of a list.
func each[T any](rec *record, key string) []T {
	items, _, _ := get[[]item](rec, key)
	var values []T
	for _, it := range items {
		values = append(values, it.value.(T))
	}
	return values
}

// withPorts are the protocols that have ports.
var withPorts = []uint8{6, 17, 33, 132, 136}

// possible refuses conditions that no frame can meet.
func (b *builder) possible(rec *record, m *steer.Match) bool {
	never := func(key, other, message string) bool {
		b.clash(CodeSteer, rec.values[key].key, message, rec.values[other].key, "the other condition is here", "remove one of the two")
		return false
	}
	ports := "destination-port"
	if rec.has("source-port") {
		ports = "source-port"
	}
	if m.Ports() && len(m.Protocols) > 0 && !slices.ContainsFunc(m.Protocols, func(p uint8) bool { return slices.Contains(withPorts, p) }) {
		return never(ports, "protocol", "no frame matches: the protocol has no ports")
	}
	four, six := func(p netip.Prefix) bool { return p.Addr().Is4() }, func(p netip.Prefix) bool { return p.Addr().Is6() }
	from, to := m.Sources, m.Destinations
	if len(from) > 0 && len(to) > 0 && !(slices.ContainsFunc(from, four) && slices.ContainsFunc(to, four)) && !(slices.ContainsFunc(from, six) && slices.ContainsFunc(to, six)) {
		return never("destination", "source", "no frame matches: the source and the destination are of two families")
	}
	if len(m.EtherTypes) > 0 && !slices.Contains(m.EtherTypes, 0x0800) && !slices.Contains(m.EtherTypes, 0x86dd) {
		for _, key := range []string{"dscp", "protocol", "source", "destination", "source-port", "destination-port"} {
			if rec.has(key) {
				return never(key, "ethertype", "no frame matches: what is of that EtherType is no IP packet")
			}
		}
	}
	return true
}

var etherTypes = map[string]uint16{"ipv4": 0x0800, "arp": 0x0806, "ipv6": 0x86dd, "lldp": 0x88cc, "pppoe": 0x8864, "mpls": 0x8847, "fcoe": 0x8906, "aoe": 0x88a2}

// etherType reads to a uint16.
var etherType = scalar{words: "an EtherType by name, as arp, or a number as 0x88cc", form: anyOf(between(0x600, 0xffff), spelled(sortedNames(etherTypes)), pattern("^0x[0-9A-Fa-f]{4}$")), parse: func(s *source, at spot, n *node) (any, bool) {
	if v, named := etherTypes[n.text]; named {
		return v, true
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(n.text, "0x"), 16, 16)
	if !strings.HasPrefix(n.text, "0x") {
		v, err = strconv.ParseUint(n.text, 10, 16)
	}
	if err != nil || v < 0x600 {
		return s.refuse(CodeNotOneOf, at, printable(n.text)+" is not an EtherType", oneOf(n.text, "write a number from 0x0600 to 0xffff, or one of", sortedNames(etherTypes)))
	}
	if v == 0x8100 || v == 0x88a8 {
		return s.refuse(CodeNotOneOf, at, printable(n.text)+" is that of tags, which are looked behind", "use `vlan:` or `pcp:`")
	}
	return uint16(v), true
}}

var ipProtocols = map[string]uint8{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136}

// ipProtocol reads to a uint8.
var ipProtocol = scalar{words: "a protocol by name, as udp, or a number from 0 to 255", form: anyOf(between(0, 255), spelled(sortedNames(ipProtocols))), parse: func(s *source, at spot, n *node) (any, bool) {
	if v, named := ipProtocols[n.text]; named && !n.quoted {
		return v, true
	}
	if v, fault := decimal(n); fault == "" && v >= 0 && v <= 255 {
		return uint8(v), true
	}
	return s.refuse(CodeNotOneOf, at, printable(n.text)+" is not a protocol", oneOf(n.text, "write 0 to 255 or one of", sortedNames(ipProtocols)))
}}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// prefix is addresses of packets; it reads to a netip.Prefix.
var prefix = scalar{words: "a prefix or an address, as 10.1.0.0/16", form: pattern(`^([0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(/[0-9]{1,3})?$`), parse: func(s *source, at spot, n *node) (any, bool) {
	p, err := netip.ParsePrefix(n.text)
	if a, is := netip.ParseAddr(n.text); is == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return s.refuse(CodeAddress, at, printable(n.text)+" is not a prefix", "write one like 10.1.0.0/16 or 2001:db8::/32, or an address")
	case p.Addr().Is4In6():
		return s.refuse(CodeAddress, at, printable(n.text)+" is of IPv4 addresses in IPv6 form", "write them as IPv4 addresses")
	case p != p.Masked():
		return s.refuse(CodeAddress, at, printable(n.text)+" has bits beyond its length", "write "+p.Masked().String())
	}
	return p, true
}}

// portOrRange reads to a steer.Range.
var portOrRange = scalar{words: "a port or a range, as 5060 or 5000-5999", form: anyOf(between(0, 65535), pattern(`^[0-9]+-[0-9]+$`)), parse: func(s *source, at spot, n *node) (any, bool) {
	low, high, isRange := strings.Cut(n.text, "-")
	if !isRange {
		high = low
	}
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || from > to || !isDecimal(low) || !isDecimal(high) {
		return s.refuse(CodeNumber, at, printable(n.text)+" is not a port or a range of ports", "write it as 5060 or 5000-5999, within 0 to 65535")
	}
	return steer.Range{First: uint16(from), Last: uint16(to)}, true
}}

// macAddress reads to a steer.MAC.
var macAddress = scalar{words: "a MAC address, as 02:00:5e:00:00:01", form: pattern(`^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$`), parse: func(s *source, at spot, n *node) (any, bool) {
	if !s.clear(at, n) {
		return nil, false
	}
	var m steer.MAC
	parts := strings.Split(n.text, ":")
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(parts) != len(m) || len(part) != 2 {
			return s.refuse(CodeAddress, at, printable(n.text)+" is not a MAC address", "write six octets as 02:00:5e:00:00:01")
		}
		m[i] = byte(v)
	}
	return m, true
}}

// EtherType reads a name or a number as the topology file has it.
func EtherType(text string) (uint16, bool) { return scalarOf[uint16](etherType, text) }

// IPProtocol is as EtherType.
func IPProtocol(text string) (uint8, bool) { return scalarOf[uint8](ipProtocol, text) }

// DSCP is as EtherType.
func DSCP(text string) (uint8, bool) { return scalarOf[uint8](dscp, text) }

func scalarOf[T any](k scalar, text string) (T, bool) {
	v, ok := k.parse(&source{}, spot{}, &node{kind: scalarNode, text: text})
	value, is := v.(T)
	return value, ok && is
}
