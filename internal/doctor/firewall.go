package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
)

// firewall: rules for input see control messages and fragments; what the eBPF
// datapath takes has passed before them. There are those of nft, iptables-nft's among them, and
// those that iptables-legacy and ip6tables-legacy have in the kernel beside them.
func firewall(ctx context.Context, x *examination) {
	nft, err := x.Run(ctx, "nft", "list", "ruleset")
	if err != nil {
		x.find(Note, "the firewall could not be looked at: nft: "+err.Error(), "", "run pwctl doctor as root, with nft installed")
	}
	legacy := append(x.tables("iptables", false), x.tables("ip6tables", true)...)
	var closed []string
	fix := ""
	for _, t := range x.site.Status.Tunnels {
		p := packetOf(&t)
		way := "UDP port 1701"
		if t.Encapsulation == "ip" {
			way = "IP protocol 115"
		}
		told := fmt.Sprintf("%s (tunnel %s to %s)", way, t.Name, t.Peer)
		if nftRefuses(string(nft), p) {
			closed, fix = append(closed, told), "nft add rule … udp dport 1701 accept (or ip protocol 115 accept), for the peers' addresses"
			continue
		}
		for _, table := range legacy {
			if table.IPv6 == p.to.Is6() && table.refuses(p) {
				closed = append(closed, told+", in the table "+table.name+" of "+table.program)
				fix = table.program + " -I INPUT -p udp --dport 1701 -j ACCEPT (or -p 115), with -s for the peers' addresses"
				break
			}
		}
	}
	switch {
	case len(closed) > 0:
		x.find(Warning, "input is dropped unless allowed, and no rule allows "+strings.Join(closed, ", "),
			"control messages of peers that call would not arrive", fix)
	case err != nil && len(legacy) == 0: // told
	case strings.TrimSpace(string(nft)) == "" && len(legacy) == 0:
		x.ok("no rules")
	case len(x.on("ebpf")) > 0:
		x.find(Note, "there are rules, which see control messages and fragments only", "the eBPF datapath takes data packets before them", "")
	default:
		x.ok("there are rules, none against the tunnels that could be seen")
	}
}

// packetOf is the first packet of a tunnel's peer that calls.
func packetOf(t *api.Tunnel) *newPacket {
	p := &newPacket{protocol: 17, port: 1701, from: addressOf(t.Remote), to: addressOf(t.Local)}
	if t.Encapsulation == "ip" {
		p.protocol, p.port = 115, 0
	}
	return p
}

// addressOf is that of "192.0.2.1:1701", or of "192.0.2.1".
func addressOf(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(s)
	return a.Unmap()
}

// legacyTable is one that a program has rules in.
type legacyTable struct {
	*Table
	program, name string
}

// tables are those of iptables-legacy, or ip6tables-legacy, in this namespace. The kernel names those that
// are in use: to ask for another one would make it.
func (x *examination) tables(program string, ipv6 bool) (found []legacyTable) {
	file := "proc/net/ip_tables_names"
	if ipv6 {
		file = "proc/net/ip6_tables_names"
	}
	unseen := func(err error) {
		x.find(Note, fmt.Sprintf("the tables of %s-legacy were not looked at: %v", program, err), "", "run pwctl doctor as root")
	}
	names, err := fs.ReadFile(x.Files, file)
	if err != nil {
		if x.exists(file) {
			unseen(err)
		}
		return nil // the kernel has none
	}
	for _, name := range strings.Fields(string(names)) {
		if name == "nat" {
			continue // it refuses nothing
		}
		t, err := x.Table(name, ipv6)
		if err != nil {
			unseen(err)
			continue
		}
		found = append(found, legacyTable{t, program, name})
	}
	return found
}

// nftRefuses says that nft drops input unless it is allowed, and that no rule for that kind of address names the way.
func nftRefuses(rules string, p *newPacket) bool {
	words := []string{"1701", "l2tp", "l2f"}
	if p.protocol == 115 {
		words = []string{"115", "l2tp"}
	}
	family := "ip"
	if p.to.Is6() {
		family = "ip6"
	}
	closes, ofInput, last, concerns := false, false, "", false
	for line := range strings.Lines(rules) {
		line = strings.TrimSpace(line)
		switch f := strings.Fields(line); {
		case len(f) > 2 && f[0] == "table":
			concerns = f[1] == family || f[1] == "inet"
			continue
		case !concerns:
			continue
		case strings.HasPrefix(line, "chain "):
			ofInput = false
		case strings.Contains(line, "hook input"):
			ofInput = true
			closes = closes || strings.Contains(line, "policy drop")
		case line == "}" && ofInput:
			closes = closes || last == "drop" || last == "reject" || strings.HasPrefix(last, "reject with ") || strings.HasPrefix(last, "counter packets ") && strings.HasSuffix(last, " drop")
			ofInput = false
		}
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			return false
		}
		last = line
	}
	return closes
}
