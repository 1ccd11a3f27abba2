package topology

import (
	"fmt"
	"strings"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Graph draws the topology: the sites, the tunnels between them, and the pseudowires
// from attachment circuit to attachment circuit. Names are safe in what it writes: the
// parser admits no others.
func (t *Topology) Graph() Graph {
	g := Graph{Name: t.Name}
	for _, s := range t.sites {
		address := "dynamic"
		if !s.dynamic {
			address = s.addresses()
		}
		g.Sites = append(g.Sites, GraphSite{Name: s.name, Address: address, Foreign: s.foreign})
	}
	for _, tn := range t.tunnels {
		for i, from := range tn.sites {
			for _, to := range tn.sites[i+1:] {
				e := GraphTunnel{Name: tn.name, From: from.name, To: to.name, Encapsulation: "udp"}
				if tn.encapsulation == l2tpv3.IP {
					e.Encapsulation = "ip"
				}
				if tn.class != nil {
					e.Class = tn.class.Name
				}
				g.Tunnels = append(g.Tunnels, e)
			}
		}
	}
	for _, p := range t.wires() {
		if len(p.ends) != 2 {
			continue
		}
		e := GraphPseudowire{Name: p.name, From: p.ends[0].circuit(), To: p.ends[1].circuit()}
		e.Tunnel = strings.Join(tunnelNames(p.tunnels()), ", ")
		g.Pseudowires = append(g.Pseudowires, e)
	}
	return g
}

// Graph is a topology as nodes and edges.
type Graph struct {
	Name        string
	Sites       []GraphSite
	Tunnels     []GraphTunnel
	Pseudowires []GraphPseudowire
}

// GraphSite is a site; Address is "dynamic" where it has none that is known.
type GraphSite struct {
	Name, Address string
	Foreign       bool
}

// GraphTunnel is one control connection.
type GraphTunnel struct{ Name, From, To, Encapsulation, Class string }

// GraphPseudowire joins two attachment circuits.
type GraphPseudowire struct {
	Name, Tunnel string
	From, To     Circuit
}

// Circuit is an attachment circuit of a site, in words.
type Circuit struct{ Site, Words string }

func (e *end) circuit() Circuit {
	a := e.attachment
	words := "the foreign end"
	switch {
	case a.Bridge != "":
		words = "bridge " + a.Bridge
	case a.Interface != "":
		words = "interface " + a.Interface
	}
	if frames := a.Frames(); frames != "" {
		words += " " + frames
	}
	return Circuit{Site: e.site.name, Words: words}
}

// circuits are a site's attachment circuits in the order of the pseudowires, each once.
func (g Graph) circuits(site string) []Circuit {
	var all []Circuit
	seen := map[Circuit]bool{}
	for _, p := range g.Pseudowires {
		for _, c := range []Circuit{p.From, p.To} {
			if c.Site == site && !seen[c] {
				seen[c] = true
				all = append(all, c)
			}
		}
	}
	return all
}

// nodes names every circuit and site for the languages below.
func (g Graph) nodes() (site map[string]string, circuit map[Circuit]string) {
	site, circuit = map[string]string{}, map[Circuit]string{}
	for i, s := range g.Sites {
		site[s.Name] = fmt.Sprintf("s%d", i)
		for j, c := range g.circuits(s.Name) {
			circuit[c] = fmt.Sprintf("s%dc%d", i, j)
		}
	}
	return site, circuit
}

func (s GraphSite) title() string {
	if s.Foreign {
		return s.Name + ", " + s.Address + ", foreign"
	}
	return s.Name + ", " + s.Address
}

func (t GraphTunnel) title() string {
	if t.Class != "" {
		return t.Name + ", " + t.Encapsulation + ", class " + t.Class
	}
	return t.Name + ", " + t.Encapsulation
}

func (p GraphPseudowire) title() string { return p.Name + " on " + p.Tunnel }

// Mermaid is the graph as a Mermaid flowchart, which many Markdown viewers draw.
func (g Graph) Mermaid() string {
	var b strings.Builder
	site, circuit := g.nodes()
	b.WriteString("flowchart LR\n")
	for _, s := range g.Sites {
		fmt.Fprintf(&b, "  subgraph %s_site[\"%s\"]\n    %s((%s))\n", site[s.Name], s.title(), site[s.Name], s.Name)
		for _, c := range g.circuits(s.Name) {
			fmt.Fprintf(&b, "    %s[\"%s\"]\n", circuit[c], c.Words)
		}
		b.WriteString("  end\n")
	}
	for _, t := range g.Tunnels {
		fmt.Fprintf(&b, "  %s ===|\"%s\"| %s\n", site[t.From], t.title(), site[t.To])
	}
	for _, p := range g.Pseudowires {
		fmt.Fprintf(&b, "  %s ---|\"%s\"| %s\n", circuit[p.From], p.title(), circuit[p.To])
	}
	return b.String()
}

// Dot is the graph in the language of Graphviz: dot -Tsvg draws it.
func (g Graph) Dot() string {
	var b strings.Builder
	site, circuit := g.nodes()
	fmt.Fprintf(&b, "graph %q {\n  rankdir=LR; node [shape=box]; compound=true;\n", g.Name)
	for _, s := range g.Sites {
		fmt.Fprintf(&b, "  subgraph cluster_%s {\n    label=%q;\n    %s [label=%q, shape=circle];\n", site[s.Name], s.title(), site[s.Name], s.Name)
		for _, c := range g.circuits(s.Name) {
			fmt.Fprintf(&b, "    %s [label=%q];\n", circuit[c], c.Words)
		}
		b.WriteString("  }\n")
	}
	for _, t := range g.Tunnels {
		fmt.Fprintf(&b, "  %s -- %s [label=%q, penwidth=3];\n", site[t.From], site[t.To], t.title())
	}
	for _, p := range g.Pseudowires {
		fmt.Fprintf(&b, "  %s -- %s [label=%q];\n", circuit[p.From], circuit[p.To], p.title())
	}
	b.WriteString("}\n")
	return b.String()
}
