// Package steer says which of a pseudowire's tunnels a frame takes: rules over what is in
// its headers, of which the first that matches decides.
package steer

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/pwd-project/pwd/pkg/vlan"
)

// The limits of a pseudowire: tunnels, and the sum of Terms over its rules.
const (
	MaxTunnels = 8
	MaxTerms   = 64
)

// Rule names the tunnels of frames that match. Of several each flow takes one.
type Rule struct {
	Tunnels []string
	Match
}

// Match is what frames have to be: for each field that is not empty, one of its values. The
// zero value is all frames. What a frame does not have, or what is cut off, matches no value.
type Match struct {
	// PCP are priority bits of the frame's first tag on the attachment circuit.
	PCP []uint8
	// DSCP are those of its IP packet.
	DSCP []uint8
	// VLANs are numbers of the first tag that stays on in the pseudowire.
	VLANs vlan.Set
	// EtherTypes are those behind all tags, of which two are looked at.
	EtherTypes []uint16
	// Protocols are those of its IP packet, behind IPv6 extension headers.
	Protocols []uint8
	// Ports are those of TCP, UDP, UDP-Lite, SCTP and DCCP. No fragment has any, the first
	// one neither: all of a packet take one way.
	SourcePorts, DestinationPorts []Range
	Sources, Destinations         []netip.Prefix
	SourceMACs, DestinationMACs   []MAC
}

// Range is the ports from First to Last, both of them included.
type Range struct{ First, Last uint16 }

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// All says that the match is of all frames.
func (m *Match) All() bool {
	return len(m.PCP) == 0 && len(m.DSCP) == 0 && m.VLANs == "" && len(m.EtherTypes) == 0 && !m.overIP() &&
		len(m.SourceMACs) == 0 && len(m.DestinationMACs) == 0
}

func (m *Match) overIP() bool {
	return len(m.DSCP) > 0 || len(m.Protocols) > 0 || m.Ports() || len(m.Sources) > 0 || len(m.Destinations) > 0
}

// Ports says that the match is about ports.
func (m *Match) Ports() bool { return len(m.SourcePorts) > 0 || len(m.DestinationPorts) > 0 }

// Terms is of how many combinations of single values and ranges the match is made, where
// sets of PCPs and DSCPs are one.
func (m *Match) Terms() int {
	n := 1
	for _, k := range []int{
		len(m.VLANs.Ranges()), len(m.EtherTypes), len(m.Protocols), len(m.SourcePorts), len(m.DestinationPorts),
		len(m.Sources), len(m.Destinations), len(m.SourceMACs), len(m.DestinationMACs),
	} {
		if n *= max(k, 1); n > 1<<20 {
			return 1 << 20
		}
	}
	return n
}

// String is the match as in the topology, "all other frames" for one of all.
func (m *Match) String() string {
	var words []string
	add := func(key string, values any, n int) {
		if n > 0 {
			words = append(words, key+" "+strings.ReplaceAll(strings.Trim(fmt.Sprint(values), "[]"), " ", ","))
		}
	}
	add("pcp", m.PCP, len(m.PCP))
	add("dscp", m.DSCP, len(m.DSCP))
	add("vlan", m.VLANs, len(m.VLANs))
	var types []string
	for _, t := range m.EtherTypes {
		types = append(types, fmt.Sprintf("0x%04x", t))
	}
	add("ethertype", types, len(types))
	add("protocol", m.Protocols, len(m.Protocols))
	add("source", m.Sources, len(m.Sources))
	add("destination", m.Destinations, len(m.Destinations))
	add("source-port", m.SourcePorts, len(m.SourcePorts))
	add("destination-port", m.DestinationPorts, len(m.DestinationPorts))
	add("source-mac", m.SourceMACs, len(m.SourceMACs))
	add("destination-mac", m.DestinationMACs, len(m.DestinationMACs))
	if len(words) == 0 {
		return "all other frames"
	}
	return strings.Join(words, " ")
}

// String is the rule in words.
func (r Rule) String() string { return r.Match.String() + " -> " + strings.Join(r.Tunnels, "|") }
