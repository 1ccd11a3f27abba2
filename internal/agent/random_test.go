package agent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomTopology is a valid topology of dc1, dc2 and dc3, of as much of what a topology
// can say as a virtual host can do. It takes names, places and tunnels of few, so that two
// of them clash in every way.
func randomTopology(t testing.TB, r *rand.Rand) string {
	for range 1000 {
		text := draw(r)
		valid := true
		for _, site := range []string{"dc1", "dc2"} {
			_, err := parse("t.yaml", "", text, site)
			valid = valid && err == nil
		}
		if valid {
			return text
		}
	}
	t.Fatal("no valid topology in 1000")
	return ""
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// complete is a topology with all tunnels that one can have: at the other site, for the host
// names of this one's to be known there. A foreign name gets any that is free.
func complete(text string) string {
	head, rest, _ := strings.Cut(text, "tunnels:\n")
	for _, name := range []string{"gold", "silver", "bronze"} {
		if !strings.Contains(rest, "  "+name+": {sites") {
			rest = "  " + name + ": {sites: [dc1, dc2]}\n" + rest
		}
	}
	return head + "tunnels:\n" + rest
}

func draw(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: t}\nsites:\n")
	fmt.Fprintf(&b, "  dc1: {address: 192.0.2.1%s, bridges: {%s}}\n", pick(r, "", "", ", rate: 1gbit"), strings.Join(some(r,
		"br-a: {ports: ["+pick(r, "", "eth1", "eth9")+"]"+pick(r, "", ", vlan-aware: on", ", vlan-aware: off")+"}",
		"br-b: {ports: ["+pick(r, "", "eth2", "eth2, eth3")+"]}", "br-c: {}"), ", "))
	b.WriteString("  dc2: {address: 192.0.2.2, bridges: {br: {}}}\n  dc3: {address: 192.0.2.3, bridges: {br: {}}}\n")
	b.WriteString("classes:\n  voice: {dscp: ef, priority: 1, rate: " + pick(r, "1mbit", "2mbit") + "}\n  bulk: {dscp: af11}\n")
	tunnels := some(r, "gold", "silver", "bronze")
	b.WriteString("tunnels:\n")
	for _, name := range append(tunnels, "iron") {
		fmt.Fprintf(&b, "  %s: {sites: [dc1, dc2%s]%s%s%s%s%s}\n", name, pick(r, "", "", ", dc3"), pick(r, "", "", ", encapsulation: ip"),
			pick(r, "", "", ", hello: 20s"), pick(r, "", "", ", class: voice", ", class: bulk"), pick(r, "", "", "", ", udp-checksum: on"), pick(r, "", "", "", ", df: true"))
	}
	tunnels = append(tunnels, "iron")
	b.WriteString("pseudowires:\n")
	for _, name := range some(r, "a", "b", "c", "d") {
		ride := "tunnel: " + pick(r, tunnels...)
		if len(tunnels) > 1 && r.IntN(4) == 0 {
			two := r.Perm(len(tunnels))
			ride = fmt.Sprintf("tunnels: [%s, %s], redundancy: {active: %[1]s, standby: [%[2]s], revertive: true}", tunnels[two[0]], tunnels[two[1]])
		}
		fmt.Fprintf(&b, "  %s: {%s%s%s%s%s%s, attach: {dc1: {%s}, dc2: {bridge: br, vlan: %d}}}\n", name, ride,
			pick(r, "", "", "", ", mtu: 1400"), pick(r, "", "", "", ", cookie: 4", ", cookie: 0"), pick(r, "", "", "", ", sequencing: all"),
			pick(r, "", "", "", ", end-id: other-"+name), pick(r, "", "", "", ", datapath: kernel"), somewhere(r), 10+name[0]%16)
	}
	if r.IntN(3) == 0 {
		fmt.Fprintf(&b, "networks:\n  n: {tunnel: iron, attach: {dc1: {%s}, dc2: {bridge: br}}}\n", somewhere(r))
	}
	return b.String()
}

// somewhere is an attachment at dc1.
func somewhere(r *rand.Rand) string {
	switch r.IntN(5) {
	case 0:
		return "interface: " + pick(r, "eth4", "eth5", "eth9")
	case 1:
		return fmt.Sprintf("interface: %s, vlan: %d", pick(r, "eth4", "eth5"), 7+r.IntN(2))
	case 2:
		return fmt.Sprintf("bridge: %s, vlans: [%s]", pick(r, "br-a", "br-b", "br-c"), pick(r, "7-9", "8, 100", "200-210"))
	default:
		return fmt.Sprintf("bridge: %s, vlan: %d", pick(r, "br-a", "br-b", "br-c"), 7+r.IntN(3))
	}
}

// some are a few of them, in their order.
func some(r *rand.Rand, of ...string) (few []string) {
	for _, x := range of {
		if r.IntN(3) > 0 {
			few = append(few, x)
		}
	}
	return few
}
