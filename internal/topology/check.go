package topology

import (
	"fmt"
	"net/netip"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// check looks for things that cannot both be: two sites with one address, two
// pseudowires with one VLAN.
func (b *builder) check() {
	b.checkSites()
	circuits := map[*site]*circuits{}
	for _, s := range b.t.sites {
		circuits[s] = newCircuits()
		b.checkPorts(s, circuits[s])
	}
	for _, p := range b.t.services() {
		for _, e := range p.ends {
			if !e.broken && !e.site.foreign && !b.full() {
				b.checkCircuit(p, e, circuits[e.site])
			}
		}
	}
	b.checkDevices()
	b.checkEndIDs()
	b.checkPairs()
	b.checkRates()
}

func (b *builder) checkSites() {
	type holder struct {
		site string
		at   spot
	}
	addresses := map[netip.Addr]holder{}
	ids := map[uint32]holder{}
	for _, s := range b.t.sites {
		for _, at := range s.ends() {
			if !at.address.IsValid() {
				continue
			}
			if other, taken := addresses[at.address]; taken {
				b.clash(CodeAddressClash, at.addressAt, fmt.Sprintf("site %s has the address %s already", other.site, at.address), other.at, "first used here", "give each site, and each of its underlays, an address of its own")
			} else {
				addresses[at.address] = holder{s.name, at.addressAt}
			}
		}
		if s.routerID != 0 {
			if other, taken := ids[s.routerID]; taken {
				b.clash(CodeRouterIDClash, s.routerIDAt, fmt.Sprintf("site %s has this router ID already", other.site), other.at, "first used here", "give each site a router ID of its own, or remove the key")
			} else {
				ids[s.routerID] = holder{s.name, s.routerIDAt}
			}
		}
	}
}

// checkPorts takes the ports of the site's bridges.
func (b *builder) checkPorts(s *site, c *circuits) {
	for _, br := range s.bridges {
		for _, port := range br.ports {
			name := port.value.(string)
			if other := s.bridge(name); other != nil {
				b.clash(CodeBridgeAsPort, port.at, fmt.Sprintf("%s is a bridge: it cannot be a port of one", name), other.at, "declared here", "name the interfaces that are to be in the bridge")
				continue
			}
			if other := c.interfaces[name]; other != nil {
				b.interfaceClash(port.at, name, other.whole)
				continue
			}
			c.interfaces[name] = &taken{whole: use{"a port of bridge " + br.Name, port.at}}
		}
	}
}

func (b *builder) interfaceClash(at spot, name string, other use) {
	b.clash(CodeInterfaceClash, at, fmt.Sprintf("interface %s is %s already", name, other.by), other.at, "first used here", "use each interface, and each VLAN of one, once")
}

// checkDevices finds pseudowires whose devices would have one name at a site.
func (b *builder) checkDevices() {
	type device struct {
		site *site
		name string
	}
	taken := map[device]*pseudowire{}
	for _, p := range b.t.wires() {
		for i, e := range p.ends {
			name := p.name
			if p.network != nil {
				name = p.nameTo(p.ends[1-i].site)
			}
			if e.site.foreign || b.full() {
				continue
			}
			key := device{e.site, DeviceName(name)}
			if other := taken[key]; other != nil && other != p {
				help := "rename one of them: names of up to 12 characters are used as they are"
				if p.network != nil {
					help = "rename one of them"
				}
				b.clash(CodeDeviceClash, p.at, fmt.Sprintf("the device of this %s would be %s, as that of %s", p.kindOfService(), key.name, other.name), other.at, "that one is here", help)
				continue
			}
			taken[key] = p
		}
	}
}

// checkEndIDs finds pseudowires that a peer could not tell apart: type, AGI and
// Remote End ID are what an ICRQ names them by (RFC 3931, Section 5.4.4; RFC 4667,
// Section 5.1).
func (b *builder) checkEndIDs() {
	type identity struct {
		tunnel    *tunnel
		low, high string
		kind      l2tpv3.PseudowireType
		agi, id   string
		// to is the site that has to understand it.
		to *site
	}
	type holder struct {
		service string
		at      spot
	}
	taken := map[identity]holder{}
	for _, p := range b.t.wires() {
		if len(p.ends) != 2 || p.endID == nil {
			continue
		}
		low, high := p.ends[0].site.name, p.ends[1].site.name
		for _, e := range p.ends {
			id, at := p.endID, p.endIDAt
			if e.endID != nil {
				id, at = e.endID, e.endIDAt
			}
			clashes := false
			for _, t := range p.tunnels() {
				key := identity{t, min(low, high), max(low, high), p.kind, string(p.agi), string(id), e.site}
				other, clash := taken[key]
				if clashes = clash && other.service != p.title(); clashes {
					b.clash(CodeEndIDClash, at, fmt.Sprintf("the end ID %s is that of %s, on the same tunnel between the same sites", EndIDWords(id), other.service), other.at, "first used here", "set another `end-id:`")
					break
				}
				taken[key] = holder{p.title(), at}
			}
			if clashes {
				break
			}
		}
	}
}

// EndIDWords shows an end ID (Remote End ID, RFC 3931, Section 5.4.4): its characters, or its octets.
func EndIDWords(id []byte) string {
	for _, c := range id {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("0x%x", id)
		}
	}
	return fmt.Sprintf("%q", id)
}

// warnings looks for what is allowed and probably not meant.
func (b *builder) warnings() {
	reached := map[*site]bool{}
	used := map[*tunnel]bool{}
	for _, t := range b.t.tunnels {
		for _, s := range t.sites {
			reached[s] = true
		}
	}
	for _, p := range b.t.services() {
		for _, t := range p.tunnels() {
			used[t] = true
		}
	}
	for _, s := range b.t.sites {
		if !reached[s] && !b.full() {
			b.warn(CodeUnusedSite, s.at, fmt.Sprintf("no tunnel reaches site %s", s.name), "add it to the `sites:` of a tunnel, or remove it")
		}
	}
	for _, t := range b.t.tunnels {
		if !used[t] && !b.full() {
			b.warn(CodeUnusedTunnel, t.at, fmt.Sprintf("no pseudowire and no network uses tunnel %s", t.name), "add a pseudowire with `tunnel: "+t.name+"`, or remove it")
		}
	}
	b.mixedBridges()
}

// mixedBridges warns of frames with a tag that two pseudowires would carry: one
// as its VLAN, one with all else, because the bridge was told not to look at tags.
func (b *builder) mixedBridges() {
	type key struct {
		site   *site
		bridge string
	}
	whole := map[key]end{}
	each := func(visit func(p *pseudowire, e end, k key)) {
		for _, p := range b.t.services() {
			for _, e := range p.ends {
				if br := e.site.bridge(e.attachment.Bridge); br != nil && br.VLANAware == VLANOff {
					visit(p, e, key{e.site, br.Name})
				}
			}
		}
	}
	each(func(_ *pseudowire, e end, k key) {
		if e.attachment.Whole() {
			whole[k] = e
		}
	})
	each(func(p *pseudowire, e end, k key) {
		other, ok := whole[k]
		if !ok || e.attachment.VLAN == 0 || b.full() {
			return
		}
		second := b.place(other.circuitAt)
		b.add(Diagnostic{
			Place: b.place(e.vlanAt), Severity: SeverityWarning, Code: CodeMixedBridge, Path: e.vlanAt.path,
			Message: fmt.Sprintf("bridge %s does not filter VLANs: frames of VLAN %d are carried by another pseudowire too", k.bridge, e.attachment.VLAN),
			Help:    "remove `vlan-aware: off`, or use a bridge for each",
			Other:   &second, OtherMessage: "which carries all that is in the bridge",
		})
	})
}
