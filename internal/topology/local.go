package topology

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/steer"
)

// Local is the topology as one site sees it. If there is no such site the
// diagnostics name those there are, and the result is nil.
func (t *Topology) Local(name string) (*Local, Diagnostics) {
	i := slices.IndexFunc(t.sites, func(s *site) bool { return s.name == name })
	if i < 0 {
		return nil, Diagnostics{{
			Place: t.sitesPlace, Severity: SeverityError, Code: CodeUnknownSite, Path: "sites",
			Message: fmt.Sprintf("there is no site %s", printable(name)),
			Help:    oneOf(name, "sites", t.Sites()),
		}}
	}
	s := t.sites[i]
	if s.foreign {
		return nil, Diagnostics{{
			Place: s.place, Severity: SeverityError, Code: CodeForeign, Path: "sites." + s.name,
			Message: fmt.Sprintf("site %s is foreign (`managed: false`): this daemon does not run there", s.name),
			Help:    "name the site that this host is: " + listed(t.Managed()),
		}}
	}
	l := &Local{Topology: t.Name, Site: s.name}
	for _, b := range s.bridges {
		own := b.Bridge
		own.Ports = slices.Sorted(slices.Values(own.Ports))
		l.Bridges = append(l.Bridges, own)
	}
	l.Tunnels = t.localTunnels(s)
	for _, tn := range t.tunnels {
		if slices.Contains(tn.sites, s) {
			l.SecretFiles = append(l.SecretFiles, tn.secrets...)
			if c := tn.class; c != nil && !slices.Contains(l.Classes, c.Class) {
				l.Classes = append(l.Classes, c.Class)
			}
		}
	}
	for _, p := range t.wires() {
		if own, ok := p.local(s); ok {
			l.Pseudowires = append(l.Pseudowires, own)
			l.CookieFiles = append(l.CookieFiles, p.cookieFiles()...)
		}
	}
	slices.SortFunc(l.Bridges, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(l.Classes, func(a, b Class) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(l.Tunnels, func(a, b Tunnel) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(l.Pseudowires, func(a, b Pseudowire) int { return cmp.Compare(a.Name, b.Name) })
	return l, nil
}

// localTunnels is a control connection for each tunnel of the site and each
// other site of that.
func (t *Topology) localTunnels(s *site) []Tunnel {
	var tunnels []Tunnel
	perPeer := map[string]int{}
	for _, tn := range t.tunnels {
		if !slices.Contains(tn.sites, s) {
			continue
		}
		for _, peer := range tn.sites {
			if peer == s {
				continue
			}
			perPeer[peer.name]++
			path := tn.pathAt(s)
			own := Tunnel{
				Key: tunnelKey(tn, peer), Name: tn.name, Peer: peer.name,
				Encapsulation: tn.encapsulation,
				Local:         path.address, Remote: tn.pathAt(peer).address, Underlay: path.name,
				HostName: HostName(tn.name, s.name), PeerHostName: peer.hostNameOn(tn),
				RouterID:    RouterID(tn.name, s.name),
				Hello:       tn.hello,
				SecretFiles: tn.secretFiles(), Digest: tn.digest, Hide: tn.hide,
				ECN: tn.ecn, Checksum: tn.checksums(peer), DF: tn.df, Static: tn.staticOf(s, peer), Foreign: peer.foreign, Numbers: peer.numbers,
			}
			if tn.class != nil {
				own.Class, own.Shape = tn.class.Name, tn.class.Shape
			}
			if p := t.pairOf(s, peer); p != nil {
				own.PairRate = p.rate
				if !own.Shape.Shapes() {
					own.Priority = leastPriority
				}
			}
			if own.Shapes() {
				own.LinkRate, own.ReplaceQdisc, own.EDT = path.rate, path.replaceQdisc, path.edt
			}
			if own.Static != nil {
				own.ECN = false // that both ends can is signalled (RFC 9601)
			}
			tunnels = append(tunnels, own)
		}
	}
	// The site's own router ID identifies its end of the only tunnel of a pair.
	for i := range tunnels {
		if s.routerID != 0 && perPeer[tunnels[i].Peer] == 1 {
			tunnels[i].RouterID = s.routerID
		}
	}
	return tunnels
}

// hostNameOn is what the site calls itself on a tunnel; empty if that is not known.
func (s *site) hostNameOn(t *tunnel) string {
	if s.foreign {
		return s.hostName
	}
	return HostName(t.name, s.name)
}

func tunnelKey(t *tunnel, peer *site) string { return t.name + "/" + peer.name }

func rideOf(t *tunnel, peer *site) Ride {
	r := Ride{Tunnel: tunnelKey(t, peer)}
	if t.class != nil {
		r.DSCP, r.Marking = t.class.DSCP, t.class.Marking
	}
	return r
}

// local is the pseudowire's end at the site, if it has one there.
func (p *pseudowire) local(s *site) (Pseudowire, bool) {
	for i, e := range p.ends {
		if e.site != s {
			continue
		}
		there := p.ends[1-i]
		own := Pseudowire{
			Name: p.nameTo(there.site), Peer: there.site.name, Device: DeviceName(p.nameTo(there.site)),
			Type: p.kind, EndID: slices.Clone(p.endID), AGI: slices.Clone(p.agi),
			CookieLength: p.wishes.cookie, Sublayer: p.wishes.sublayer, Sequencing: p.wishes.sequencing,
			MTU: p.mtu, MaxMACs: p.maxMACs, Suppress: p.suppress, Datapath: p.datapath, Limits: p.limits,
			Attachment: e.attachment,
		}
		if n := p.network; n != nil {
			own.Network, own.Isolated = n.name, n.hub == nil
		}
		if p.kind == l2tpv3.EthernetVLAN {
			own.PeerVLAN = there.attachment.VLAN
		}
		r := rideOf(p.tunnel, there.site)
		own.Tunnel, own.DSCP, own.Marking = r.Tunnel, r.DSCP, r.Marking
		for _, t := range p.standby {
			own.Standby = append(own.Standby, rideOf(t, there.site))
		}
		for _, s := range p.steer {
			rule := steer.Rule{Match: s.match}
			for _, t := range s.tunnels {
				rule.Tunnels = append(rule.Tunnels, tunnelKey(t, there.site))
			}
			own.Steer = append(own.Steer, rule)
		}
		if p.redundancy != nil {
			own.Redundancy = new(Redundancy)
			*own.Redundancy = *p.redundancy
			// Both ends have to come to the same; a foreign one follows nobody's choice.
			own.Redundancy.Leads = there.site.foreign || s.name < there.site.name
		}
		if there.site.foreign {
			w := there.towards
			own.CookieLength, own.Sublayer, own.Sequencing = w.cookie, w.sublayer, w.sequencing
		}
		if there.endID != nil {
			own.EndID, own.LocalEndID = slices.Clone(there.endID), slices.Clone(p.endID)
		}
		own.Static = p.staticOf(s, there.site)
		return own, true
	}
	return Pseudowire{}, false
}
