package topology

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// StaticTunnel is what both ends of a tunnel without a control connection are told by their
// operators.
type StaticTunnel struct {
	// LocalID and RemoteID are the Control Connection IDs, ours and the peer's.
	LocalID, RemoteID uint32
	// LocalPort and RemotePort are the UDP ports, 0 over IP.
	LocalPort, RemotePort uint16
}

func (s StaticTunnel) String() string {
	words := fmt.Sprintf("%d to %d", s.LocalID, s.RemoteID)
	if s.LocalPort != 0 {
		words += fmt.Sprintf(", port %d to %d", s.LocalPort, s.RemotePort)
	}
	return words
}

// StaticSession is what both ends of a pseudowire that is not signalled are told.
type StaticSession struct {
	// LocalID is the Session ID that the peer's packets carry, RemoteID what ours do.
	LocalID, RemoteID uint32
	// LocalCookie is the cookie that the peer's packets carry, RemoteCookie what ours do:
	// 0, 4 or 8 octets.
	LocalCookie, RemoteCookie Secret
	// CookieFiles are the names of the files that they are in, the local one's first, empty
	// where they are in none.
	CookieFiles [2]string
	// Sublayer and Sequencing are how we send; how the peer does is the pseudowire's.
	Sublayer   l2tpv3.L2SpecificSublayer
	Sequencing l2tpv3.DataSequencing
}

// Lacks says that a cookie could not be read from its file.
func (s *StaticSession) Lacks() bool {
	return s.CookieFiles[0] != "" && s.LocalCookie == nil || s.CookieFiles[1] != "" && s.RemoteCookie == nil
}

// staticEnd is one end of a tunnel without a control connection.
type staticEnd struct {
	id     uint32
	port   uint16
	at     spot
	idAt   spot
	broken bool
}

// staticSession is one end of a pseudowire that is not signalled: what packets to it carry.
type staticSession struct {
	id       uint32
	cookie   Secret
	file     *SecretFile
	at, idAt spot
	broken   bool
}

var staticTunnelObject = &object{
	name: "static tunnel end", where: "tunnels.TUNNEL.static.SITE",
	fields: []field{
		{key: "connection-id", shape: integer("the ID", 1, 1<<32-1), required: true, about: "The Control Connection ID of this end (RFC 3931, Section 4.1). It is in no data packet; the kernel's L2TP tells its tunnels apart by it (`tunnel_id`)."},
		{key: "port", shape: integer("port", 1, 65535), standard: "1701", about: "The UDP port of this end. Not over IP."},
	},
}

var staticSessionObject = &object{
	name: "static session end", where: "pseudowires.PSEUDOWIRE.static.SITE",
	fields: []field{
		{key: "session-id", shape: integer("the ID", 1, 1<<32-1), required: true, about: "The Session ID that packets to this end carry (RFC 3931, Section 4.1)."},
		{key: "cookie", shape: cookieText, standard: "none", about: "The cookie that packets to this end carry, in quotes. It is a secret: whoever can read the file can read it."},
		{key: "cookie-file", shape: phrase("the name of a file"), standard: "none", about: "The file with that cookie instead, in hexadecimal. Relative to this file."},
	},
}

// cookieText is a cookie; it reads to a Secret. Faults do not show it.
var cookieText = scalar{words: "8 or 16 hexadecimal digits in quotes", form: pattern(`^(0[xX])?([0-9A-Fa-f]{8}|[0-9A-Fa-f]{16})$`), parse: func(s *source, at spot, n *node) (any, bool) {
	if !n.quoted {
		return s.refuse(CodeAmbiguous, at, "a cookie without quotes: YAML readers take some of them for numbers", "write it in quotes")
	}
	if c, ok := parseCookie(n.text); ok {
		return c, true
	}
	return s.refuse(CodeText, at, "this is no cookie", "write 4 or 8 octets, as 8 or 16 hexadecimal digits")
}}

// parseCookie reads a cookie of 4 or 8 octets.
func parseCookie(text string) (Secret, bool) {
	if len(text) > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') {
		text = text[2:]
	}
	octets, err := hex.DecodeString(text)
	return octets, err == nil && (len(octets) == 4 || len(octets) == 8)
}

// staticEnds reads the ends of a tunnel that has no control connection.
func (b *builder) staticEnds(t *tunnel, rec *record) {
	if !rec.has("static") {
		return
	}
	t.static = map[*site]*staticEnd{}
	t.staticAt = rec.values["static"].key
	for _, key := range []string{"secret-file", "digest", "hide", "hello", "ecn"} {
		if rec.has(key) {
			b.clash(CodeStatic, rec.values[key].key, key+" is for control connections, and this tunnel has none", t.staticAt, "static here", "remove one of the two")
		}
	}
	ends, _, ok := get[[]row](rec, "static")
	if !ok {
		t.broken = true
		return
	}
	if len(t.sites) > 2 {
		b.clash(CodeStatic, t.sitesAt, fmt.Sprintf("a static tunnel has two ends, this has %d", len(t.sites)), t.staticAt, "static here", "make a tunnel for each pair of sites")
		t.broken = true
	}
	for _, r := range ends {
		s := b.sites[r.name]
		switch {
		case !r.named:
			continue
		case s == nil:
			b.unknownSite(r.at, r.name)
			continue
		case !t.broken && !slices.Contains(t.sites, s):
			b.clash(CodeNotMember, r.at, fmt.Sprintf("tunnel %s does not reach site %s", t.name, s.name), t.sitesAt, "its sites are here", "name its sites: "+listed(siteNames(t.sites)))
			continue
		}
		t.static[s] = b.staticEnd(t, s, r)
	}
	for _, s := range t.sites {
		if t.static[s] == nil && !t.broken && !rec.damaged {
			b.fault(CodeStatic, t.staticAt, fmt.Sprintf("the end at %s is missing", s.name), fmt.Sprintf("add `%s: {connection-id: …}`", s.name))
			t.broken = true
		}
		if s.dynamic {
			b.clash(CodeStatic, t.staticAt, fmt.Sprintf("%s has no address that is known, and nobody signals one here", s.name), s.path.addressAt, "dynamic here", "give it an address, or leave `static` out")
		}
	}
}

func (b *builder) staticEnd(t *tunnel, s *site, r row) *staticEnd {
	e := &staticEnd{at: r.at}
	rec, _ := r.value.(*record)
	if rec == nil {
		e.broken = true
		return e
	}
	id, at, ok := get[int64](rec, "connection-id")
	e.id, e.idAt, e.broken = uint32(id), at, !ok
	if t.encapsulation == l2tpv3.UDP {
		e.port = l2tpv3.Port
	}
	if port, at, ok := get[int64](rec, "port"); ok {
		e.port = uint16(port)
		if t.encapsulation == l2tpv3.IP {
			b.fault(CodeExclusive, at, "there is no UDP in L2TP directly over IP", "remove the key, or `encapsulation: ip`")
		}
	}
	if s.foreign || e.broken {
		return e
	}
	for _, other := range b.t.tunnels {
		if o := other.static[s]; o != nil && other != t && o.id == e.id && !o.broken {
			b.clash(CodeStatic, e.idAt, fmt.Sprintf("%s has the connection ID %d on tunnel %s already", s.name, e.id, other.name), o.idAt, "first used here", "the IDs of a site's tunnels differ")
		}
	}
	return e
}

// staticSessions reads the ends of a pseudowire that is not signalled, and checks that it is
// one exactly if its tunnel has no control connection.
func (b *builder) staticSessions(p *pseudowire, rec *record) {
	t := p.tunnel
	for _, x := range p.tunnels() {
		if x.static != nil && (p.network != nil || len(p.tunnels()) > 1) {
			b.clash(CodeStatic, p.at, fmt.Sprintf("tunnel %s is static: it carries pseudowires of two ends, which have no other tunnel", x.name), x.staticAt, "static here", "use a tunnel that signals")
			return
		}
	}
	switch {
	case !rec.has("static") && t != nil && t.static != nil && !rec.damaged:
		b.clash(CodeStatic, p.at, fmt.Sprintf("nobody signals on tunnel %s what the session IDs are", t.name), t.staticAt, "static here", "add `static:` with a `session-id` at each end")
		return
	case !rec.has("static"):
		return
	}
	at := rec.values["static"].key
	if t != nil && t.static == nil && !t.broken {
		b.clash(CodeStatic, at, fmt.Sprintf("tunnel %s signals its sessions", t.name), t.at, "that one is here", "remove the key, or give the tunnel `static:` ends")
	}
	for _, key := range []string{"redundancy", "end-id", "agi", "cookie"} {
		if rec.has(key) {
			b.clash(CodeStatic, rec.values[key].key, key+" is for pseudowires that are signalled", at, "static here", "remove one of the two")
		}
	}
	ends, _, ok := get[[]row](rec, "static")
	if !ok {
		return
	}
	p.static = map[*site]*staticSession{}
	for _, r := range ends {
		s := b.sites[r.name]
		switch {
		case !r.named:
			continue
		case s == nil:
			b.unknownSite(r.at, r.name)
			continue
		case !slices.ContainsFunc(p.ends, func(e end) bool { return e.site == s }):
			b.fault(CodeStatic, r.at, fmt.Sprintf("the pseudowire does not end at %s", s.name), "name the sites that it attaches at")
			continue
		}
		p.static[s] = b.staticSession(p, s, r)
	}
	for _, e := range p.ends {
		if p.static[e.site] == nil && !rec.damaged {
			b.fault(CodeStatic, at, fmt.Sprintf("the end at %s is missing", e.site.name), fmt.Sprintf("add `%s: {session-id: …}`", e.site.name))
		}
	}
}

func (b *builder) staticSession(p *pseudowire, s *site, r row) *staticSession {
	e := &staticSession{at: r.at}
	rec, _ := r.value.(*record)
	if rec == nil {
		e.broken = true
		return e
	}
	id, at, ok := get[int64](rec, "session-id")
	e.id, e.idAt, e.broken = uint32(id), at, !ok
	e.cookie, _, _ = get[Secret](rec, "cookie")
	if name, at, ok := get[string](rec, "cookie-file"); ok {
		e.file = &SecretFile{Tunnel: p.name, Name: name, At: b.place(at), Path: at.path}
		if rec.has("cookie") {
			b.clash(CodeExclusive, rec.values["cookie"].key, "cookie and cookie-file are both there", rec.values["cookie-file"].key, "the other one is here", "keep one of them")
		}
	}
	if s.foreign || e.broken {
		return e
	}
	// RFC 3931, Section 4.1: a Session ID is all that tells a session's packets from
	// others'.
	for _, other := range b.t.pseudowires {
		if o := other.static[s]; o != nil && other != p && o.id == e.id && !o.broken {
			b.clash(CodeStatic, e.idAt, fmt.Sprintf("%s has the session ID %d for pseudowire %s already", s.name, e.id, other.name), o.idAt, "first used here", "the IDs of a site's sessions differ")
		}
	}
	return e
}

// staticOf is the tunnel's end at a site, nil if it has a control connection.
func (t *tunnel) staticOf(s, peer *site) *StaticTunnel {
	here, there := t.static[s], t.static[peer]
	if here == nil || there == nil {
		return nil
	}
	return &StaticTunnel{LocalID: here.id, RemoteID: there.id, LocalPort: here.port, RemotePort: there.port}
}

// staticOf is the pseudowire's end at a site, nil if it is signalled.
func (p *pseudowire) staticOf(s, peer *site) *StaticSession {
	here, there := p.static[s], p.static[peer]
	if here == nil || there == nil {
		return nil
	}
	x := &StaticSession{LocalID: here.id, RemoteID: there.id, LocalCookie: here.cookie, RemoteCookie: there.cookie,
		Sublayer: p.wishes.sublayer, Sequencing: p.wishes.sequencing}
	for i, e := range []*staticSession{here, there} {
		if e.file != nil {
			x.CookieFiles[i] = e.file.Name
		}
	}
	return x
}

// cookieFiles are those of a pseudowire, by name.
func (p *pseudowire) cookieFiles() []SecretFile {
	var files []SecretFile
	for _, s := range slices.SortedFunc(maps.Keys(p.static), func(a, b *site) int { return strings.Compare(a.name, b.name) }) {
		if f := p.static[s].file; f != nil {
			files = append(files, *f)
		}
	}
	return files
}

// readCookie reads a cookie from its file.
func (f SecretFile) readCookie(read ReadSecret) (Secret, Diagnostics) {
	text, found := f.read(read)
	if found.HasErrors() {
		for i := range found {
			found[i].Help = strings.ReplaceAll(strings.ReplaceAll(found[i].Help, "make it, with one secret for all sites of the tunnel: ", "make it: "), "openssl rand -base64 32", "openssl rand -hex 8")
		}
		return nil, found
	}
	c, ok := parseCookie(strings.TrimSpace(string(text)))
	if !ok {
		return nil, append(found, Diagnostic{Place: f.At, Severity: SeverityError, Code: CodeSecret, Path: f.Path,
			Message: "what is in " + printable(f.Name) + " is no cookie", Help: "write 4 or 8 octets into it, as 8 or 16 hexadecimal digits"})
	}
	return c, found
}

// withCookies is a copy of pseudowires with the cookies that are in files.
func (l *Local) withCookies(read ReadSecret) ([]Pseudowire, Diagnostics) {
	if len(l.CookieFiles) == 0 {
		return l.Pseudowires, nil
	}
	var found Diagnostics
	cookies := map[string]Secret{}
	for _, f := range l.CookieFiles {
		c, faults := f.readCookie(read)
		cookies[f.Name], found = c, append(found, faults...)
	}
	wires := slices.Clone(l.Pseudowires)
	for i := range wires {
		if wires[i].Static == nil {
			continue
		}
		x := *wires[i].Static
		for k, into := range []*Secret{&x.LocalCookie, &x.RemoteCookie} {
			if name := x.CookieFiles[k]; name != "" {
				*into = cookies[name]
			}
		}
		wires[i].Static = &x
	}
	return wires, found
}
