package topology

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
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
		}
	}
	for _, p := range t.pseudowires {
		if own, ok := p.local(s); ok {
			l.Pseudowires = append(l.Pseudowires, own)
		}
	}
	slices.SortFunc(l.Bridges, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
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
			tunnels = append(tunnels, Tunnel{
				Key: tunnelKey(tn, peer), Name: tn.name, Peer: peer.name,
				Encapsulation: tn.encapsulation,
				Local:         s.address, Remote: peer.address,
				HostName: HostName(tn.name, s.name), PeerHostName: HostName(tn.name, peer.name),
				RouterID:    RouterID(tn.name, s.name),
				Hello:       tn.hello,
				SecretFiles: tn.secretFiles(), Digest: tn.digest, Hide: tn.hide,
			})
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

func tunnelKey(t *tunnel, peer *site) string { return t.name + "/" + peer.name }

// local is the pseudowire's end at the site, if it has one there.
func (p *pseudowire) local(s *site) (Pseudowire, bool) {
	for i, e := range p.ends {
		if e.site != s {
			continue
		}
		peer := p.ends[1-i].site
		return Pseudowire{
			Name: p.name, Peer: peer.name, Device: DeviceName(p.name),
			Tunnel: tunnelKey(p.tunnel, peer),
			Type:   l2tpv3.Ethernet,
			EndID:  slices.Clone(p.endID), CookieLength: p.cookie, MTU: p.mtu, Datapath: p.datapath,
			Attachment: e.attachment,
		}, true
	}
	return Pseudowire{}, false
}
