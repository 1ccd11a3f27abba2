package topology

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

type tunnel struct {
	name          string
	at, sitesAt   spot
	sites         []*site
	encapsulation l2tpv3.Encapsulation
	hello         time.Duration
	secrets       []SecretFile
	digest        l2tpv3.DigestAlgorithm
	hide          bool
	ecn           bool
	checksum      string // on, off, or empty for what suits the peer
	df            bool
	class         *class
	// underlays are the paths that it takes at the sites that have such.
	underlays map[*site]*underlay
	// static are the ends of one without a control connection, nil with one.
	static   map[*site]*staticEnd
	staticAt spot
	broken   bool
}

// secretFiles are the names of the files.
func (t *tunnel) secretFiles() []string {
	var names []string
	for _, f := range t.secrets {
		names = append(names, f.Name)
	}
	return names
}

// checksums says whether data packets to a peer have UDP checksums. Where RFC 6935,
// Section 5 wants both ends to know that they have none, we know it of ourselves.
func (t *tunnel) checksums(peer *site) bool {
	if t.encapsulation == l2tpv3.IP {
		return false
	}
	return t.checksum == "on" || t.checksum == "" && peer.foreign
}

func (b *builder) tunnel(r row) {
	t := &tunnel{name: r.name, at: r.at, encapsulation: l2tpv3.UDP, ecn: true}
	b.tunnels[t.name] = t
	b.t.tunnels = append(b.t.tunnels, t)
	rec, _ := r.value.(*record)
	t.hello, _, _ = get[time.Duration](rec, "hello")
	if word, _, _ := get[string](rec, "encapsulation"); word == "ip" {
		t.encapsulation = l2tpv3.IP
	}
	b.authentication(t, rec)
	b.service(t, rec)
	list, at, ok := get[[]item](rec, "sites")
	t.sitesAt = at
	t.broken = !ok
	first := map[string]spot{}
	for _, it := range list {
		if b.full() {
			return
		}
		name := it.value.(string)
		s := b.sites[name]
		other, twice := first[name]
		switch {
		case twice && len(list) == 2:
			b.clash(CodeSameSite, it.at, fmt.Sprintf("a tunnel from %s to itself", name), other, "first used here", b.siteHelp(name))
			t.broken = true
		case twice:
			b.clash(CodeDuplicateItem, it.at, fmt.Sprintf("%s is in the list twice", name), other, "first used here", "remove one of them")
			t.broken = true
		case s == nil:
			b.unknownSite(it.at, name)
			t.broken = true
		default:
			t.sites = append(t.sites, s)
		}
		first[name] = it.at
	}
	b.paths(t, rec)
	b.staticEnds(t, rec)
	b.families(t, list)
	b.callers(t, list, rec)
}

// service reads what the tunnel does for data packets.
func (b *builder) service(t *tunnel, rec *record) {
	if on, _, ok := get[bool](rec, "ecn"); ok {
		t.ecn = on
	}
	t.df, _, _ = get[bool](rec, "df")
	var checksumAt spot
	if t.checksum, checksumAt, _ = get[string](rec, "udp-checksum"); t.checksum != "" && t.encapsulation == l2tpv3.IP {
		b.clash(CodeExclusive, checksumAt, "there is no UDP in L2TP directly over IP", rec.values["encapsulation"].at, "`ip` here", "remove one of the two")
	}
	name, at, ok := get[string](rec, "class")
	if !ok {
		return
	}
	if t.class = b.classes[name]; t.class == nil && !b.noClasses {
		var known []string
		for _, c := range b.t.classes {
			known = append(known, c.Name)
		}
		b.fault(CodeUnknownClass, at, fmt.Sprintf("there is no class %s", name), oneOf(name, "classes", known))
	}
}

// callers checks that each pair of a tunnel's sites has one that can call the other,
// and is let in, and one that runs this daemon.
func (b *builder) callers(t *tunnel, list []item, rec *record) {
	var dynamic, foreign *item
	for i := range list {
		it := &list[i]
		s := b.sites[it.value.(string)]
		if s == nil || b.full() {
			continue
		}
		switch {
		case !s.dynamic:
		case dynamic != nil:
			b.clash(CodeDynamic, it.at, fmt.Sprintf("neither %s nor %s has an address that the other could call", dynamic.value, s.name), dynamic.at, "the other one is here", "give one of them a fixed address, or make a tunnel for each pair of sites that can have one")
		default:
			if !rec.has("secret-file") && !rec.damaged {
				b.clash(CodeNeedsSecret, it.at, fmt.Sprintf("%s calls from any address, so it has to be known by a secret", s.name), s.path.addressAt, "dynamic here", "add `secret-file:` to the tunnel")
			}
			dynamic = it
		}
		switch {
		case !s.foreign:
		case foreign != nil:
			b.clash(CodeForeign, it.at, fmt.Sprintf("%s and %s are both foreign: this daemon has nothing to do with a tunnel between them", foreign.value, s.name), foreign.at, "the other one is here", "make a tunnel for each foreign site")
		default:
			foreign = it
		}
	}
}

// authentication reads what the tunnel's messages are protected by.
func (b *builder) authentication(t *tunnel, rec *record) {
	files, _, _ := get[[]item](rec, "secret-file")
	for _, f := range files {
		t.secrets = append(t.secrets, SecretFile{Tunnel: t.name, Name: f.value.(string), At: b.place(f.at), Path: f.at.path})
	}
	if word, _, _ := get[string](rec, "digest"); word == "sha1" {
		t.digest = l2tpv3.HMACSHA1
	}
	t.hide, _, _ = get[bool](rec, "hide")
	for _, key := range []string{"digest", "hide"} {
		if rec.has(key) && !rec.has("secret-file") {
			b.fault(CodeNeedsSecret, rec.values[key].key, key+" takes a secret, and the tunnel has none", "add `secret-file:`, or remove the key")
		}
	}
}

// families checks that all ends of a tunnel are IPv4 or all are IPv6.
func (b *builder) families(t *tunnel, list []item) {
	var first *site
	for _, it := range list {
		s := b.sites[it.value.(string)]
		if s == nil || !t.pathAt(s).address.IsValid() {
			continue
		}
		if first == nil {
			first = s
		}
		if here, there := t.pathAt(s).address, t.pathAt(first).address; here.Is4() != there.Is4() {
			b.clash(CodeFamilies, it.at, fmt.Sprintf("%s has an %s address and %s an %s one", s.name, family(here), first.name, family(there)), t.pathAt(s).addressAt, "its address is here", "give all sites of a tunnel addresses of one family")
			return
		}
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (b *builder) knownTunnel(at spot, name string) *tunnel {
	t := b.tunnels[name]
	if t == nil && !b.noTunnels {
		b.fault(CodeUnknownTunnel, at, fmt.Sprintf("there is no tunnel %s", name), oneOf(name, "tunnels", tunnelNames(b.t.tunnels)))
	}
	return t
}

func tunnelNames(tunnels []*tunnel) []string {
	names := make([]string, len(tunnels))
	for i, t := range tunnels {
		names[i] = t.name
	}
	return names
}
