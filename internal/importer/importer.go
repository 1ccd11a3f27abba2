// Package importer makes topology files of static L2TPv3 that other tools have set up:
// `ip l2tp` of iproute2, and VyOS. It is pure: text in, text out. What cannot be carried
// over is said, in notes.
package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Definition is what was found.
type Definition struct {
	// From is what it was made of, for people.
	From string
	// Host is the name of the host, "" if that was not said.
	Host    string
	Tunnels []*Tunnel
	// Bridges are those that interfaces are ports of, by interface.
	Bridges map[string]string
	// Notes are what cannot be carried over, or has to be looked at.
	Notes []string
}

// Tunnel is one that is static.
type Tunnel struct {
	ID, PeerID          uint32
	Encapsulation       string // udp, ip
	Local, Peer         netip.Addr
	LocalPort, PeerPort uint16
	Sessions            []*Session
}

// Session is one of its sessions.
type Session struct {
	Interface  string
	ID, PeerID uint32
	// Cookie is what this end sends, PeerCookie what it wants to receive, as `ip l2tp` has
	// them: in hexadecimal, empty for none.
	Cookie, PeerCookie string
	// Numbers say that packets are numbered.
	Numbers bool
	MTU     int
}

func (d *Definition) note(format string, args ...any) {
	// Notes become comments: what is in the file ends no line.
	n := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	if !slices.Contains(d.Notes, n) {
		d.Notes = append(d.Notes, n)
	}
}

// Options are how the topology is to be.
type Options struct {
	// Site is what this host is called; "" is the host's name, or "here".
	Site string
	// Sublayer is the L2-Specific Sublayer of all sessions, default or none: no tool shows it.
	Sublayer string
}

// Topology writes the topology file; the notes are in it as comments.
func (d *Definition) Topology(o Options) string {
	w := &writer{d: d, o: o, site: nameOf(o.Site), names: map[string]bool{}, sites: map[netip.Addr]string{}, bridges: map[string]string{}}
	if w.site == "" {
		w.site = nameOf(d.Host)
	}
	if w.site == "" {
		w.site = "here"
	}
	tunnels, wires := w.tunnels(), w.pseudowires()
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of %s. What is to be looked at before it is applied:\n", d.From)
	for _, n := range d.Notes {
		fmt.Fprintf(&b, "#  * %s\n", n)
	}
	b.WriteString("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: imported}\n\nsites:\n")
	b.WriteString(w.hereSite())
	for _, addr := range w.peers {
		fmt.Fprintf(&b, "  %s: {address: %q, managed: false}\n", w.sites[addr], addr)
	}
	if tunnels == "" {
		return b.String()
	}
	return b.String() + "\ntunnels:\n" + tunnels + "\npseudowires:\n" + wires
}

// writer makes one topology.
type writer struct {
	d    *Definition
	o    Options
	site string
	// names are taken: pseudowires'. sites are the peers', peers their order; local are this host's addresses.
	names map[string]bool
	sites map[netip.Addr]string
	peers []netip.Addr
	local []netip.Addr
	// bridges are those of this host: their keys in the file.
	bridges map[string]string
	order   []string
}

// peer is the site at an address.
func (w *writer) peer(addr netip.Addr) string {
	if name, known := w.sites[addr]; known {
		return name
	}
	name := peerName(addr)
	if name == w.site {
		name = "far-" + name
	}
	w.sites[addr] = name
	w.peers = append(w.peers, addr)
	return name
}

// peerName is made of the address alone, and no two addresses have the same: what an IPv6
// address leaves out, which may be anywhere in it, is an x, which is no digit of its.
func peerName(addr netip.Addr) string {
	return nameOf("peer-" + strings.Replace(addr.Unmap().String(), "::", ":x:", 1))
}

func (w *writer) tunnels() string {
	var b strings.Builder
	for _, t := range w.d.Tunnels {
		if !slices.Contains(w.local, t.Local) {
			w.local = append(w.local, t.Local)
		}
	}
	for _, t := range w.d.Tunnels {
		peer := w.peer(t.Peer)
		fmt.Fprintf(&b, "  %s:\n    sites: [%s, %s]\n    encapsulation: %s\n", tunnelName(t), w.site, peer, t.Encapsulation)
		if len(w.local) > 1 {
			fmt.Fprintf(&b, "    underlay: {%s: %s}\n", w.site, underlayName(slices.Index(w.local, t.Local)))
		}
		ports := [2]string{}
		if t.Encapsulation == "udp" {
			ports = [2]string{fmt.Sprintf(", port: %d", t.LocalPort), fmt.Sprintf(", port: %d", t.PeerPort)}
		}
		fmt.Fprintf(&b, "    static:\n      %s: {connection-id: %d%s}\n      %s: {connection-id: %d%s}\n", w.site, t.ID, ports[0], peer, t.PeerID, ports[1])
	}
	return b.String()
}

func tunnelName(t *Tunnel) string { return fmt.Sprintf("tunnel-%d", t.ID) }
func underlayName(i int) string   { return fmt.Sprintf("wan%d", i+1) }
func cookieOf(cookie string) string {
	if cookie == "" {
		return ""
	}
	return fmt.Sprintf(", cookie: %q", cookie)
}

func (w *writer) pseudowires() string {
	var b strings.Builder
	for _, t := range w.d.Tunnels {
		peer := w.peer(t.Peer)
		for _, s := range t.Sessions {
			fmt.Fprintf(&b, "  %s:\n    tunnel: %s\n", w.pseudowire(t, s), tunnelName(t))
			if w.o.Sublayer == "default" || s.Numbers {
				b.WriteString("    sublayer: default\n")
			}
			if s.Numbers {
				b.WriteString("    sequencing: all\n")
			}
			if s.MTU != 0 {
				fmt.Fprintf(&b, "    mtu: %d\n", s.MTU)
			}
			// `ip l2tp`'s cookie is what it sends: what packets to the peer carry.
			fmt.Fprintf(&b, "    static:\n      %s: {session-id: %d%s}\n      %s: {session-id: %d%s}\n", w.site, s.ID, cookieOf(s.PeerCookie), peer, s.PeerID, cookieOf(s.Cookie))
			fmt.Fprintf(&b, "    attach:\n      %s: {bridge: %s}\n      %s: {}\n", w.site, w.bridge(s), peer)
		}
	}
	return b.String()
}

// pseudowire is the name of a session's, after its interface.
func (w *writer) pseudowire(t *Tunnel, s *Session) string {
	name := nameOf(s.Interface)
	if name == "" || w.names[name] {
		name = fmt.Sprintf("session-%d-%d", t.ID, s.ID)
	}
	w.names[name] = true
	return name
}

// bridge is the one that a session's interface was in, or one of its own.
func (w *writer) bridge(s *Session) string {
	if br := w.d.Bridges[s.Interface]; br != "" {
		if _, taken := w.bridges[br]; !taken {
			w.bridges[br] = "{external: true}"
			w.order = append(w.order, br)
			return br
		}
		w.d.note("%s has more than one pseudowire, which a bridge can have here once, or once for each VLAN: %s is in a bridge of its own", br, s.Interface)
	} else {
		w.d.note("what %s was joined to is not said: name its interfaces as ports of its bridge, or attach it to what there is", s.Interface)
	}
	name := "br-" + fmt.Sprint(s.ID)
	for _, taken := w.bridges[name]; taken; _, taken = w.bridges[name] {
		name += "x"
	}
	w.bridges[name] = "{ports: []}"
	w.order = append(w.order, name)
	return name
}

// hereSite is this host's.
func (w *writer) hereSite() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s:\n", w.site)
	switch {
	case len(w.local) == 1:
		fmt.Fprintf(&b, "    address: %q\n", w.local[0])
	case len(w.local) > 1:
		b.WriteString("    underlays:\n")
		for i, addr := range w.local {
			fmt.Fprintf(&b, "      %s: {address: %q}\n", underlayName(i), addr)
		}
	}
	if len(w.order) > 0 {
		b.WriteString("    bridges:\n")
	}
	for _, name := range w.order {
		fmt.Fprintf(&b, "      %s: %s\n", name, w.bridges[name])
	}
	return b.String()
}

// nameOf makes a name of a word: a to z, 0 to 9 and hyphens.
func nameOf(word string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, word)
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	return strings.Trim(name[:min(len(name), 63)], "-")
}

// sublayerNote is what everybody has to look at who imports.
const sublayerNote = "whether sessions have the L2-Specific Sublayer is not shown: taken is `sublayer: default`, which `ip l2tp` uses where it is not told; with `l2spec_type none` import with --sublayer none"

// finish checks what was found and sorts it.
func (d *Definition) finish() error {
	d.Tunnels = slices.DeleteFunc(d.Tunnels, func(t *Tunnel) bool {
		switch {
		case t.ID == 0 || t.PeerID == 0 || !t.Local.IsValid() || !t.Peer.IsValid():
			d.note("tunnel %d is left out: an ID or an address of it is missing", t.ID)
		case t.Encapsulation != "udp" && t.Encapsulation != "ip":
			d.note("tunnel %d is left out: it is neither over UDP nor over IP", t.ID)
		case t.Local == t.Peer:
			d.note("tunnel %d is left out: both of its ends are %s", t.ID, t.Local)
		case t.Local.IsUnspecified():
			d.note("tunnel %d is left out: its own address is any; give it one", t.ID)
		case t.Encapsulation == "udp" && (t.LocalPort == 0 || t.PeerPort == 0):
			d.note("tunnel %d is left out: a port of it is missing", t.ID)
		case len(t.Sessions) == 0:
			d.note("tunnel %d is left out: it has no session", t.ID)
		default:
			return false
		}
		return true
	})
	slices.SortFunc(d.Tunnels, func(a, b *Tunnel) int { return int(int64(a.ID) - int64(b.ID)) })
	for _, t := range d.Tunnels {
		slices.SortFunc(t.Sessions, func(a, b *Session) int { return int(int64(a.ID) - int64(b.ID)) })
		for _, s := range t.Sessions {
			if s.Cookie != "" || s.PeerCookie != "" {
				d.note("there are cookies in this file, which are secrets: keep it from others, or move them into files, with `cookie-file`")
			}
		}
	}
	if len(d.Tunnels) == 0 {
		return fmt.Errorf("there is no static tunnel in %s%s", d.From, strings.Join(append([]string{""}, d.Notes...), "; "))
	}
	d.note("remove what is there before the daemon starts: both cannot have the same addresses, ports and IDs")
	return nil
}
