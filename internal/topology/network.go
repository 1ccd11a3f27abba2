package topology

import (
	"fmt"
	"slices"
)

// network is an Ethernet service among many sites: a pseudowire for each pair of
// them, or for each with the hub.
type network struct {
	// pseudowire is what all of them have in common; its ends are the sites.
	*pseudowire
	// hub is nil where every site has a pseudowire to every other.
	hub *site
}

func (b *builder) network(r row) {
	rec, _ := r.value.(*record)
	if rec == nil {
		return
	}
	n := &network{pseudowire: b.serviceOf(r, rec)}
	n.pseudowire.network = n
	b.t.networks = append(b.t.networks, n)
	b.ends(n.pseudowire, rec)
	b.tags(n.pseudowire)
	b.staticSessions(n.pseudowire, rec)
}

// networkEnds checks that the network has sites to join, and finds its hub among them.
func (b *builder) networkEnds(n *network, rec *record, attach []row) {
	if len(attach) < 2 {
		b.fault(CodeEnds, rec.values["attach"].key, fmt.Sprintf("a network has two sites or more; this has %d", len(attach)), "name all its sites, each with what it attaches there")
	}
	name, at, ok := get[string](rec, "hub")
	if !ok {
		return
	}
	n.hub = b.sites[name]
	if n.hub == nil && !b.noSites {
		b.unknownSite(at, name)
		return
	}
	var sites []string
	for _, r := range attach {
		if !r.named {
			return // it may be the one
		}
		sites = append(sites, r.name)
	}
	if !slices.Contains(sites, name) && len(sites) > 1 {
		b.clash(CodeHub, at, fmt.Sprintf("the hub %s is not one of the network's sites", name), rec.values["attach"].key, "they are here", oneOf(name, "sites", sites))
	}
}

// services are the pseudowires and the networks, in the order of the file but for that.
func (t *Topology) services() []*pseudowire {
	all := slices.Clone(t.pseudowires)
	for _, n := range t.networks {
		all = append(all, n.pseudowire)
	}
	return all
}

// wires are all pseudowires, those of the networks among them.
func (t *Topology) wires() []*pseudowire {
	all := slices.Clone(t.pseudowires)
	for _, n := range t.networks {
		for i, from := range n.ends {
			for _, to := range n.ends[i+1:] {
				if n.hub != nil && from.site != n.hub && to.site != n.hub {
					continue
				}
				pair := *n.pseudowire
				pair.ends = []end{from, to}
				all = append(all, &pair)
			}
		}
	}
	return all
}

// nameTo is what the pseudowire is called at the site that has this peer.
func (p *pseudowire) nameTo(peer *site) string {
	if p.network != nil {
		return p.name + "/" + peer.name
	}
	return p.name
}

// kindOfService says what the file calls it.
func (p *pseudowire) kindOfService() string {
	if p.network != nil {
		return "network"
	}
	return "pseudowire"
}

// title is the kind and the name.
func (p *pseudowire) title() string { return p.kindOfService() + " " + p.name }
