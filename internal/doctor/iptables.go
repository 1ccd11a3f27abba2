package doctor

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Table is one of iptables' or ip6tables' in the kernel, as its programs get it: the rules of all
// chains, one behind the other. Rules of iptables-nft are nft's, and are in none.
type Table struct {
	IPv6 bool
	// Hooks says which hooks have a chain, Entry where that begins, and Policy where its policy is.
	Hooks         uint32
	Entry, Policy [5]uint32
	Rules         []byte
}

// The hooks that packets for the host come by: NF_INET_PRE_ROUTING and NF_INET_LOCAL_IN.
const prerouting, input = 0, 1

// newPacket is the first packet of a peer that calls, as far as it is known.
type newPacket struct {
	protocol uint8
	port     uint16
	from, to netip.Addr // invalid where unknown
}

type outcome int

const (
	goesOn outcome = iota
	admitted
	refused
)

// answer of a rule, or a part of it, to whether the packet is one of its.
type answer int

const (
	no answer = iota
	perhaps
	yes
)

// mostSteps bounds a walk through rules.
const mostSteps = 100_000

// refuses says that a packet does certainly not get through: what is not understood is taken to let it in.
func (t *Table) refuses(p *newPacket) bool {
	steps := mostSteps
	for _, hook := range []int{prerouting, input} {
		if t.Hooks>>hook&1 != 0 && t.walk(p, t.Entry[hook], t.Policy[hook], 0, &steps) == refused {
			return true
		}
	}
	return false
}

// rule is one, taken apart.
type rule struct {
	next    uint32
	target  string
	verdict int32
	is      answer
}

// walk goes through a chain. policy is where one of a hook returns to, and 0 for others.
func (t *Table) walk(p *newPacket, at, policy uint32, depth int, steps *int) outcome {
	for *steps--; *steps > 0; *steps-- {
		r, ok := t.rule(p, at)
		if !ok {
			return admitted
		}
		switch {
		case r.target == "REJECT" && r.is == yes:
			return refused
		case r.target == "ERROR":
			return goesOn
		case r.target != "" || r.is == no || r.verdict == int32(r.next): // LOG and the like
		case r.verdict == accept:
			return admitted
		case r.verdict == drop && r.is == yes:
			return refused
		case r.verdict == returns && r.is == yes && (policy == 0 || at == policy):
			return goesOn
		case r.verdict == returns && r.is == yes:
			at = policy
			continue
		case r.verdict >= 0 && depth < 100:
			if o := t.walk(p, uint32(r.verdict), 0, depth+1, steps); o == admitted || o == refused && r.is == yes {
				return o
			}
		}
		at = r.next
	}
	return admitted
}

// Verdicts of the standard target, which has no name (linux/netfilter/x_tables.h): others than these
// are where a chain begins.
const drop, accept, returns = -1, -2, -5

// rule takes one apart (struct ipt_entry, struct ip6t_entry, with what is in them).
func (t *Table) rule(p *newPacket, at uint32) (r rule, ok bool) {
	target, head := 88, 112
	if t.IPv6 {
		target, head = 140, 168
	}
	if at > uint32(len(t.Rules)) || len(t.Rules)-int(at) < head {
		return r, false
	}
	b := t.Rules[at:]
	matches, next := int(binary.NativeEndian.Uint16(b[target:])), int(binary.NativeEndian.Uint16(b[target+2:]))
	if matches < head || next < matches+extension || next > len(b) {
		return r, false
	}
	r.next, r.target = at+uint32(next), nameOf(b[matches:])
	if r.target == "" {
		if next < matches+extension+4 {
			return r, false
		}
		r.verdict = int32(binary.NativeEndian.Uint32(b[matches+extension:]))
	}
	if t.IPv6 {
		r.is = headers{b[:16], b[16:32], b[32:48], b[48:64], b[64:80], b[96:112],
			binary.NativeEndian.Uint16(b[128:]) * uint16(b[131]&1), false, b[132]}.match(p)
	} else {
		r.is = headers{b[:4], b[4:8], b[8:12], b[12:16], b[16:32], b[48:64],
			binary.NativeEndian.Uint16(b[80:]), b[82]&1 != 0, b[83]}.match(p)
	}
	for rest := b[head:matches]; len(rest) > 0 && r.is != no; {
		size := 0
		if len(rest) >= extension {
			size = int(binary.NativeEndian.Uint16(rest))
		}
		if size < extension || size > len(rest) {
			return r, false
		}
		r.is = min(r.is, matched(p, nameOf(rest), rest[2+29], rest[extension:size]))
		rest = rest[size:]
	}
	return r, true
}

// extension is how long the head of a match or target is: struct xt_entry_match.
const extension = 32

func nameOf(b []byte) string { return unix.ByteSliceToString(b[2 : 2+29]) }

// headers are what a rule says of them (struct ipt_ip, struct ip6t_ip6).
type headers struct {
	from, to, fromMask, toMask []byte
	in, inMask                 []byte
	protocol                   uint16
	fragments                  bool
	inverted                   uint8
}

func (h headers) match(p *newPacket) answer {
	const in, from, to, protocol = 1, 8, 16, 64 // IPT_INV_*, and the same of IPv6
	if h.fragments || h.protocol != 0 && (h.protocol == uint16(p.protocol)) == (h.inverted&protocol != 0) {
		return no
	}
	is := min(ofNetwork(p.from, h.from, h.fromMask, h.inverted&from != 0), ofNetwork(p.to, h.to, h.toMask, h.inverted&to != 0))
	if h.inMask[0] == 0 {
		return is
	}
	switch loopback := unix.ByteSliceToString(h.in) == "lo"; {
	case loopback && h.inverted&in != 0:
		return is
	case loopback:
		return no
	}
	return min(is, perhaps)
}

func ofNetwork(a netip.Addr, network, mask []byte, inverted bool) answer {
	any := true
	for _, m := range mask {
		any = any && m == 0
	}
	octets := a.Unmap().AsSlice()
	switch {
	case any && !inverted:
		return yes
	case len(octets) != len(network):
		return perhaps
	}
	in := true
	for i := range network {
		in = in && octets[i]&mask[i] == network[i]&mask[i]
	}
	if in != inverted {
		return yes
	}
	return no
}

// matched is what an extension says of the packet.
func matched(p *newPacket, name string, revision uint8, b []byte) answer {
	if len(b) < 4 {
		return perhaps
	}
	is := func(it, inverted bool) answer {
		if it != inverted {
			return yes
		}
		return no
	}
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	const isNew = 1 << 3 // XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
	switch {
	case name == "comment":
		return yes
	case name == "udp" && len(b) >= 9: // struct xt_udp
		if u16(0) != 0 || u16(2) != 0xffff {
			return perhaps
		}
		return is(u16(4) <= p.port && p.port <= u16(6), b[8]&2 != 0)
	case name == "multiport" && revision == 1 && len(b) >= 48 && b[0] == 1: // struct xt_multiport_v1, of destinations
		return is(hasPort(p.port, b), b[47] != 0)
	case name == "state": // struct xt_state_info
		return is(binary.NativeEndian.Uint32(b)&isNew != 0, false)
	case name == "conntrack" && revision > 0 && len(b) >= 152 && u16(146) == 1: // struct xt_conntrack_mtinfo1 and later, of the state
		states := u16(150)
		if revision == 1 {
			states = uint16(b[150])
		}
		return is(states&isNew != 0, u16(148)&1 != 0)
	}
	return perhaps
}

// hasPort looks into the list of struct xt_multiport_v1: single ports and ranges.
func hasPort(port uint16, b []byte) bool {
	for i := 0; i < min(int(b[1]), 15); i++ {
		first := binary.NativeEndian.Uint16(b[2+2*i:])
		last := first
		if b[32+i] != 0 && i < 14 {
			i++
			last = binary.NativeEndian.Uint16(b[2+2*i:])
		}
		if first <= port && port <= last {
			return true
		}
	}
	return false
}
