package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

type site struct {
	name string
	at   spot
	// path is the only one to the site, without a name; where there are underlays, those are.
	path      underlay
	underlays []*underlay
	// dynamic sites have no address that is known, foreign ones not this daemon.
	dynamic, foreign bool
	place            Place
	// numbers are those of the attributes that a foreign site is called with.
	numbers l2tpv3.Numbers
	// hostName is what a foreign site calls itself, empty for anything.
	hostName    string
	routerID    uint32
	routerIDAt  spot
	bridges     []*bridge
	bridgeNames map[string]*bridge
	// noBridges is set where the bridges are there and could not be read.
	noBridges bool
}

// underlay is one path to a site.
type underlay struct {
	name      string
	at        spot
	address   netip.Addr
	addressAt spot
	// rate is what it carries, 0 if that is not known.
	rate   uint64
	rateAt spot
	// replaceQdisc says that others' root qdiscs give way.
	replaceQdisc bool
	// edt says that departure times keep ceilings, edtAt where.
	edt   bool
	edtAt spot
}

type bridge struct {
	Bridge
	at spot
	// ports are the interfaces' places.
	ports []item
	// broken bridges were faulty: they are known, and nothing else about them.
	broken bool
}

func (b *builder) site(r row) {
	s := &site{name: r.name, at: r.at, place: b.place(r.at), bridgeNames: map[string]*bridge{}}
	b.sites[s.name] = s
	b.t.sites = append(b.t.sites, s)
	rec, _ := r.value.(*record)
	if rec == nil {
		return
	}
	s.dynamic = s.path.read(rec) && !s.path.address.IsValid()
	b.foreign(s, rec)
	b.underlays(s, r, rec)
	s.routerID, s.routerIDAt, _ = get[uint32](rec, "router-id")
	bridges, _, readable := get[[]row](rec, "bridges")
	s.noBridges = !readable && rec.has("bridges")
	for _, br := range bridges {
		if br.named {
			made := b.bridge(br)
			s.bridges = append(s.bridges, made)
			s.bridgeNames[made.Name] = made
		}
	}
}

// foreign reads whether the site runs this daemon, and what only others have.
func (b *builder) foreign(s *site, rec *record) {
	managed, managedAt, ok := get[bool](rec, "managed")
	s.foreign = ok && !managed
	s.hostName, _, _ = get[string](rec, "host-name")
	if word, _, _ := get[string](rec, "numbers"); word == l2tpv3.CiscoNumbers.String() {
		s.numbers = l2tpv3.CiscoNumbers
	}
	shapes := slices.IndexFunc(shapingKeys, rec.has)
	switch {
	case s.foreign && shapes >= 0:
		b.clash(CodeForeign, rec.values[shapingKeys[shapes]].key, fmt.Sprintf("%s is foreign: nobody shapes there", s.name), managedAt, "foreign here", "remove the key")
	case s.foreign && rec.has("bridges"):
		b.clash(CodeForeign, rec.values["bridges"].key, fmt.Sprintf("%s is foreign: nobody makes bridges there", s.name), managedAt, "foreign here", "remove the key")
	case !s.foreign && rec.has("numbers") && (ok || !rec.has("managed")):
		b.fault(CodeForeign, rec.values["numbers"].key, fmt.Sprintf("%s runs this daemon, which speaks RFC 3931's numbers", s.name), "remove the key, or add `managed: false`")
	case !s.foreign && rec.has("host-name") && (ok || !rec.has("managed")):
		b.fault(CodeForeign, rec.values["host-name"].key, fmt.Sprintf("%s runs this daemon: its host names are those of its tunnels", s.name), "remove the key, or add `managed: false`")
	}
}

func (b *builder) bridge(r row) *bridge {
	br := &bridge{Bridge: Bridge{Name: r.name}, at: r.at}
	rec, _ := r.value.(*record)
	if rec == nil {
		br.broken = true
		return br
	}
	br.External, _, _ = get[bool](rec, "external")
	ports, portsAt, _ := get[[]item](rec, "ports")
	br.ports = ports
	for _, p := range ports {
		br.Ports = append(br.Ports, p.value.(string))
	}
	word, filterAt, _ := get[string](rec, "vlan-aware")
	br.VLANAware = map[string]VLANAware{"": VLANAuto, "auto": VLANAuto, "true": VLANOn, "on": VLANOn, "false": VLANOff, "off": VLANOff}[word]
	br.LinkLocal, _ = b.groups(rec)
	if !br.External {
		return br
	}
	external := rec.values["external"].at
	if len(br.Ports) > 0 {
		b.clash(CodeExternalBridge, portsAt, fmt.Sprintf("%s is external: its ports are not the daemon's to set", r.name), external, "external here", "remove ports, or external")
	}
	if rec.has("link-local") {
		b.clash(CodeExternalBridge, rec.values["link-local"].key, fmt.Sprintf("%s is external: what it passes on is not the daemon's to set", r.name), external, "external here", "remove link-local, or external")
	}
	if br.VLANAware != VLANAuto {
		b.clash(CodeExternalBridge, filterAt, fmt.Sprintf("%s is external: its VLAN filtering is not the daemon's to set", r.name), external, "external here", "remove vlan-aware, or external")
	}
	return br
}

// siteHelp names the sites other than one.
func (b *builder) siteHelp(but string) string {
	var others []string
	for _, s := range b.t.sites {
		if s.name != but {
			others = append(others, s.name)
		}
	}
	if len(others) == 0 {
		return "add another site"
	}
	return "name another site: " + listed(others)
}

func (b *builder) unknownSite(at spot, name string) {
	if b.noSites {
		return
	}
	b.fault(CodeUnknownSite, at, fmt.Sprintf("there is no site %s", name), oneOf(name, "sites", b.t.Sites()))
}

func siteNames(sites []*site) []string {
	names := make([]string, len(sites))
	for i, s := range sites {
		names[i] = s.name
	}
	return names
}

// bridge is the site's bridge with that name, nil if it has none.
func (s *site) bridge(name string) *bridge {
	return s.bridgeNames[name]
}
