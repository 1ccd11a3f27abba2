package topology

import (
	"fmt"
	"slices"
)

// Topology is a whole topology file, valid: all sites, the tunnels between them
// and the pseudowires on those.
type Topology struct {
	// Name is metadata.name.
	Name string

	sites       []*site
	classes     []*class
	pairs       []*pair
	tunnels     []*tunnel
	pseudowires []*pseudowire
	networks    []*network
	// sitesPlace is where the sites are, for messages.
	sitesPlace Place
}

type class struct {
	Class
	at spot
}

// Parse reads a topology file; name is what diagnostics call it. Every fault is
// reported at once, in the order of the file. The topology is nil if one of them
// is an error; with warnings alone it can be used.
func Parse(name string, data []byte) (*Topology, Diagnostics) {
	s, text, ok := newSource(name, data)
	if !ok {
		return nil, s.finish()
	}
	root := s.parseTree(text)
	if root == nil || !s.header(root, topologyObject) {
		return nil, s.finish()
	}
	rec, _ := topologyObject.readAt(s, root.at(""), root).(*record)
	if rec == nil || s.full() {
		return nil, s.finish()
	}
	b := builder{source: s, t: &Topology{}, sites: map[string]*site{}, tunnels: map[string]*tunnel{}, classes: map[string]*class{}}
	b.build(rec)
	b.check()
	if s.diagnostics.HasErrors() {
		return nil, s.finish()
	}
	b.warnings()
	return b.t, s.finish()
}

// header checks what kind of file it is before anything is said about its keys:
// those of another kind or version would all be wrong.
func (s *source) header(root *node, o *object) bool {
	if root.kind != mappingNode {
		s.fault(CodeWrongKind, root.at(""), fmt.Sprintf("the file is %s, but has to be a mapping with keys like apiVersion", root.kind), "start with `apiVersion: pwd/v1`")
		return false
	}
	kinds := map[string]string{
		"Topology": "this is a topology: give it to --topology",
		"Config":   "this is a configuration of the daemon: give it to --config",
	}
	kind := o.fields[1].shape.describe()
	for _, e := range root.entries {
		at := e.value.at(e.key.text)
		if e.value.kind != scalarNode || e.value.null {
			continue
		}
		switch text := e.value.text; {
		case e.key.text == "apiVersion" && text != "pwd/v1":
			s.fault(CodeVersion, at, fmt.Sprintf("%s is not a version that this program reads", printable(text)), "write pwd/v1, or use the program that the file was written for")
			return false
		case e.key.text == "kind" && text != kind:
			help := "write " + kind
			if known, ok := kinds[text]; ok {
				help = known
			}
			s.fault(CodeVersion, at, fmt.Sprintf("the file is a %s, not a %s", printable(text), kind), help)
			return false
		}
	}
	return true
}

// builder makes the model from what was read, reporting references that lead nowhere.
type builder struct {
	*source
	t       *Topology
	sites   map[string]*site
	tunnels map[string]*tunnel
	classes map[string]*class
	// noSites, noTunnels and noClasses are set where the key is there and could not be
	// read: then nothing is unknown.
	noSites, noTunnels, noClasses bool
}

func (b *builder) build(rec *record) {
	metadata, _, _ := get[*record](rec, "metadata")
	b.t.Name, _, _ = get[string](metadata, "name")
	b.t.sitesPlace = b.place(rec.values["sites"].key)
	sites, _, readable := get[[]row](rec, "sites")
	b.noSites = !readable
	_, _, readable = get[[]row](rec, "tunnels")
	b.noTunnels = !readable && rec.has("tunnels")
	_, _, readable = get[[]row](rec, "classes")
	b.noClasses = !readable && rec.has("classes")
	if !b.noSites && len(sites) == 0 {
		b.fault(CodeCount, rec.values["sites"].key, "there are no sites", "name at least the site that this host is")
	}
	for _, r := range sites {
		if r.named {
			b.site(r)
		}
	}
	for _, r := range rows(rec, "classes") {
		if r.named {
			b.class(r)
		}
	}
	for _, r := range rows(rec, "tunnels") {
		if r.named {
			b.tunnel(r)
		}
	}
	for _, r := range rows(rec, "pairs") {
		if r.named {
			b.pair(r)
		}
	}
	for _, r := range rows(rec, "pseudowires") {
		if r.named && !b.full() {
			b.pseudowire(r)
		}
	}
	for _, r := range rows(rec, "networks") {
		if r.named && !b.full() {
			b.network(r)
		}
	}
	b.nameSpace(rec)
}

// nameSpace checks that no network has the name of a pseudowire.
func (b *builder) nameSpace(rec *record) {
	taken := map[string]spot{}
	for _, r := range rows(rec, "pseudowires") {
		taken[r.name] = r.at
	}
	for _, r := range rows(rec, "networks") {
		if other, ok := taken[r.name]; ok {
			b.clash(CodeNameClash, r.at, fmt.Sprintf("there is a pseudowire with the name %s", r.name), other, "it is here", "pseudowires and networks share one name space: rename one of them")
		}
	}
}

func (b *builder) class(r row) {
	c := &class{Class: Class{Name: r.name}, at: r.at}
	b.classes[c.Name] = c
	b.t.classes = append(b.t.classes, c)
	rec, _ := r.value.(*record)
	b.marking(c, rec)
	b.shape(c, rec)
}

// Managed are the names of the sites that run this daemon, sorted.
func (t *Topology) Managed() []string {
	var names []string
	for _, s := range t.sites {
		if !s.foreign {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// Sites are the names of all sites, sorted.
func (t *Topology) Sites() []string {
	names := siteNames(t.sites)
	slices.Sort(names)
	return names
}
