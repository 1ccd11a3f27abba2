package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
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

type site struct {
	name      string
	at        spot
	address   netip.Addr
	addressAt spot
	// underlays are its paths, where it has no address.
	underlays []*underlay
	// dynamic sites have no address that is known, foreign ones not this daemon.
	dynamic, foreign bool
	place            Place
	// numbers are those of the attributes that a foreign site is called with.
	numbers l2tpv3.Numbers
	// hostName is what a foreign site calls itself, empty for anything.
	hostName   string
	routerID   uint32
	routerIDAt spot
	// rate is the link's, 0 if that is not known.
	rate   uint64
	rateAt spot
	// replaceQdisc says that others' root qdiscs give way.
	replaceQdisc bool
	bridges      []*bridge
	bridgeNames  map[string]*bridge
	// noBridges is set where the bridges are there and could not be read.
	noBridges bool
}

// underlay is one path to a site.
type underlay struct {
	name      string
	at        spot
	address   netip.Addr
	addressAt spot
	rate      uint64
	rateAt    spot
	// replaceQdisc is as a site's.
	replaceQdisc bool
}

type class struct {
	Class
	at spot
}

type bridge struct {
	Bridge
	at spot
	// ports are the interfaces' places.
	ports []item
	// broken bridges were faulty: they are known, and nothing else about them.
	broken bool
}

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

func (b *builder) site(r row) {
	s := &site{name: r.name, at: r.at, place: b.place(r.at), bridgeNames: map[string]*bridge{}}
	b.sites[s.name] = s
	b.t.sites = append(b.t.sites, s)
	rec, _ := r.value.(*record)
	if rec == nil {
		return
	}
	address, at, readAddress := get[netip.Addr](rec, "address")
	s.address, s.addressAt, s.dynamic = address, at, readAddress && !address.IsValid()
	b.foreign(s, rec)
	b.underlays(s, r, rec)
	s.routerID, s.routerIDAt, _ = get[uint32](rec, "router-id")
	s.rate, s.rateAt, _ = get[uint64](rec, "rate")
	s.replaceQdisc = replacesQdisc(rec)
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
	switch {
	case s.foreign && rec.has("rate"):
		b.clash(CodeForeign, rec.values["rate"].key, fmt.Sprintf("%s is foreign: nobody shapes there", s.name), managedAt, "foreign here", "remove the key")
	case s.foreign && rec.has("qdisc"):
		b.clash(CodeForeign, rec.values["qdisc"].key, fmt.Sprintf("%s is foreign: nobody shapes there", s.name), managedAt, "foreign here", "remove the key")
	case s.foreign && rec.has("bridges"):
		b.clash(CodeForeign, rec.values["bridges"].key, fmt.Sprintf("%s is foreign: nobody makes bridges there", s.name), managedAt, "foreign here", "remove the key")
	case !s.foreign && rec.has("numbers") && (ok || !rec.has("managed")):
		b.fault(CodeForeign, rec.values["numbers"].key, fmt.Sprintf("%s runs this daemon, which speaks RFC 3931's numbers", s.name), "remove the key, or add `managed: false`")
	case !s.foreign && rec.has("host-name") && (ok || !rec.has("managed")):
		b.fault(CodeForeign, rec.values["host-name"].key, fmt.Sprintf("%s runs this daemon: its host names are those of its tunnels", s.name), "remove the key, or add `managed: false`")
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
				b.clash(CodeNeedsSecret, it.at, fmt.Sprintf("%s calls from any address, so it has to be known by a secret", s.name), s.addressAt, "dynamic here", "add `secret-file:` to the tunnel")
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
		if s == nil || !t.addressOf(s).IsValid() {
			continue
		}
		if first == nil {
			first = s
		}
		if here, there := t.addressOf(s), t.addressOf(first); here.Is4() != there.Is4() {
			b.clash(CodeFamilies, it.at, fmt.Sprintf("%s has an %s address and %s an %s one", s.name, family(here), first.name, family(there)), t.addressAtOf(s), "its address is here", "give all sites of a tunnel addresses of one family")
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

func siteNames(sites []*site) []string {
	names := make([]string, len(sites))
	for i, s := range sites {
		names[i] = s.name
	}
	return names
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

// bridge is the site's bridge with that name, nil if it has none.
func (s *site) bridge(name string) *bridge {
	return s.bridgeNames[name]
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
