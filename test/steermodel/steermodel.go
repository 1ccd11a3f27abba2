// Package steermodel is an independent model of the rules of `steer:`, for tests that compare what
// the programs of the datapaths make of frames with it.
package steermodel

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// Frame is one, and what a rule can find in it; -1 is what is not there.
type Frame struct {
	Octets                           []byte
	pcp, vlan, ethertype, dscp       int
	protocol, sourcePort, targetPort int
	source, destination              netip.Addr
	sourceMAC, destinationMAC        steer.MAC
}

// The pools are small, so that frames match rules, or nearly.
var (
	somePorts     = []uint16{53, 5060, 5061, 5999, 6000}
	someProtocols = []byte{6, 17, 58, 1, 132, 47}
	someAddresses = []string{"10.1.0.1", "10.1.255.255", "10.2.0.1", "2001:db8:1::1", "2001:db8:1:8000::", "2001:db8:2::1"}
	somePrefixes  = []string{"10.1.0.0/16", "10.2.0.1/32", "10.0.0.0/8", "0.0.0.0/0", "2001:db8:1::/48", "2001:db8:1:8000::/49", "2001:db8::/32", "::/0"}
	someTypes     = []uint16{0x0806, 0x0800, 0x86dd, 0x88cc, 0x8847}
	someVLANs     = []uint16{1, 100, 101, 4094}
	someMACs      = []steer.MAC{{2, 0, 0x5e, 0, 0, 1}, {2, 0, 0x5e, 0, 0, 2}, {2, 1, 0x5e, 0, 0, 1}}
	someDSCPs     = []byte{0, 1, 46, 47, 63}
)

func oneOf[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// someOf is nothing most times.
func someOf[T any](r *rand.Rand, all []T) (some []T) {
	if r.IntN(4) > 0 {
		return nil
	}
	for range 1 + r.IntN(2) {
		some = append(some, oneOf(r, all))
	}
	return some
}

// MakeFrame makes one as it comes to a pseudowire's device; ac is the tag of the attachment circuit, 0 for none, which is taken off
// unless it is kept. Two tags beside one that is taken off are looked at.
func MakeFrame(r *rand.Rand, ac int, kept bool) Frame {
	f := Frame{pcp: -1, vlan: -1, dscp: -1, protocol: -1, sourcePort: -1, targetPort: -1, sourceMAC: oneOf(r, someMACs), destinationMAC: oneOf(r, someMACs)}
	b := append(append([]byte{}, f.destinationMAC[:]...), f.sourceMAC[:]...)
	tag := func(tpid uint16, vid, pcp int) {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, tpid), uint16(pcp<<13|r.IntN(2)<<12|vid))
		if f.pcp < 0 {
			f.pcp = pcp
		}
	}
	if ac != 0 {
		tag(0x8100, ac, r.IntN(8))
	}
	seen, third := 0, 0
	if kept {
		f.vlan, seen = ac, 1
	}
	for range r.IntN(4) {
		vid, tpid := int(oneOf(r, someVLANs)), oneOf(r, []uint16{0x8100, 0x88a8})
		tag(tpid, vid, r.IntN(8))
		if f.vlan < 0 {
			f.vlan = vid
		}
		if seen++; seen == 3 {
			third = int(tpid)
		}
	}
	f.ethertype = int(oneOf(r, someTypes))
	b = binary.BigEndian.AppendUint16(b, uint16(f.ethertype))
	var packet []byte
	switch f.ethertype {
	case 0x0800:
		packet = f.ipv4(r)
	case 0x86dd:
		packet = f.ipv6(r)
	default:
		packet = make([]byte, 50)
	}
	f.Octets = append(b, packet...)
	if third != 0 {
		f.ethertype, f.dscp, f.protocol, f.sourcePort, f.targetPort = third, -1, -1, -1, -1
		f.source, f.destination = netip.Addr{}, netip.Addr{}
	}
	return f
}

// cut is how much of a packet is there, everything most times. The kernel does not run
// programs on IP packets without tags whose header is cut.
func (f *Frame) cut(r *rand.Rand, header, n int) int {
	if r.IntN(3) > 0 {
		return n
	}
	if f.pcp < 0 {
		return header + r.IntN(n-header)
	}
	return 1 + r.IntN(n-1)
}

func (f *Frame) ipv4(r *rand.Rand) []byte {
	header := 20 + 4*r.IntN(3)
	protocol, dscp, fragment := oneOf(r, someProtocols), oneOf(r, someDSCPs), oneOf(r, []uint16{0, 0, 0x4000, 0x2000, 0x0001, 0x2007})
	from, to := netip.MustParseAddr(someAddresses[r.IntN(3)]), netip.MustParseAddr(someAddresses[r.IntN(3)])
	source, target := oneOf(r, somePorts), oneOf(r, somePorts)
	b := make([]byte, header+20)
	b[0], b[1], b[8], b[9] = byte(0x40|header/4), dscp<<2|byte(r.IntN(4)), 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[header:], source)
	binary.BigEndian.PutUint16(b[header+2:], target)
	n := f.cut(r, 20, len(b))
	if n < 20 {
		return b[:n]
	}
	f.dscp, f.protocol, f.source, f.destination = int(dscp), int(protocol), from, to
	if fragment&0x3fff == 0 && n >= header+4 {
		f.ports(protocol, source, target)
	}
	return b[:n]
}

func (f *Frame) ports(protocol byte, source, target uint16) {
	if protocol == 6 || protocol == 17 || protocol == 132 {
		f.sourcePort, f.targetPort = int(source), int(target)
	}
}

// ipv6 has up to eight extension headers, of which six are looked behind.
func (f *Frame) ipv6(r *rand.Rand) []byte {
	dscp := oneOf(r, someDSCPs)
	from, to := netip.MustParseAddr(someAddresses[3+r.IntN(3)]), netip.MustParseAddr(someAddresses[3+r.IntN(3)])
	source, target := oneOf(r, somePorts), oneOf(r, somePorts)
	b := make([]byte, 40)
	b[0], b[1], b[7] = 0x60|dscp>>2, dscp<<6, 64
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	next := 6 // where the number of the next header is
	whole, fragmented, ends := 0, false, []int{}
	var kinds []byte
	for range []int{0, 0, 1, 2, 3, 6, 7, 8}[r.IntN(8)] {
		kind := oneOf(r, []byte{0, 43, 60, 44, 51, 135})
		if fragmented && kind == 44 {
			kind = 60
		}
		b[next], next = kind, len(b)
		kinds = append(kinds, kind)
		words := r.IntN(3) // of eight octets, behind the first
		header := make([]byte, 8+8*words)
		header[1] = byte(words)
		switch kind {
		case 51: // words of four octets, two not counted
			header[1] = byte(2 * words)
		case 44:
			header = header[:8]
			header[1] = 0
			if r.IntN(2) == 0 {
				binary.BigEndian.PutUint16(header[2:], oneOf(r, []uint16{0x0001, 0x0008, 0x1009}))
				fragmented = true
			}
		}
		b = append(b, header...)
		ends = append(ends, len(b))
		if fragmented && whole == 0 {
			whole = len(ends)
		}
	}
	protocol := oneOf(r, someProtocols)
	b[next] = protocol
	kinds = append(kinds, protocol)
	behind := len(b)
	b = append(b, make([]byte, 20)...)
	binary.BigEndian.PutUint16(b[behind:], source)
	binary.BigEndian.PutUint16(b[behind+2:], target)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	n := f.cut(r, 40, len(b))
	if n < 40 {
		return b[:n]
	}
	f.dscp, f.source, f.destination = int(dscp), from, to
	// What is looked at of an extension header is its first eight octets.
	for i := range ends {
		begins := 40
		if i > 0 {
			begins = ends[i-1]
		}
		if i == 6 || n < begins+8 {
			return b[:n] // the protocol is not known
		}
		if whole == i+1 {
			f.protocol = int(kinds[i+1])
			return b[:n]
		}
	}
	f.protocol = int(protocol)
	if n >= behind+4 {
		f.ports(protocol, source, target)
	}
	return b[:n]
}

// Matches is the model: what docs/topology.md says of a rule.
func (f *Frame) Matches(m *steer.Match) bool {
	within := func(port int, ranges []steer.Range) bool {
		return len(ranges) == 0 || slices.ContainsFunc(ranges, func(r steer.Range) bool { return port >= int(r.First) && port <= int(r.Last) })
	}
	covered := func(a netip.Addr, prefixes []netip.Prefix) bool {
		return len(prefixes) == 0 || a.IsValid() && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	is := func(v int, n int, has func(int) bool) bool { return n == 0 || v >= 0 && has(v) }
	return is(f.pcp, len(m.PCP), func(v int) bool { return slices.Contains(m.PCP, uint8(v)) }) &&
		is(f.dscp, len(m.DSCP), func(v int) bool { return slices.Contains(m.DSCP, uint8(v)) }) &&
		is(f.vlan, len(m.VLANs), func(v int) bool {
			return slices.ContainsFunc(m.VLANs.Ranges(), func(r vlan.Range) bool { return v >= int(r.First) && v <= int(r.Last) })
		}) &&
		is(f.ethertype, len(m.EtherTypes), func(v int) bool { return slices.Contains(m.EtherTypes, uint16(v)) }) &&
		is(f.protocol, len(m.Protocols), func(v int) bool { return slices.Contains(m.Protocols, uint8(v)) }) &&
		within(f.sourcePort, m.SourcePorts) && within(f.targetPort, m.DestinationPorts) &&
		covered(f.source, m.Sources) && covered(f.destination, m.Destinations) &&
		(len(m.SourceMACs) == 0 || slices.Contains(m.SourceMACs, f.sourceMAC)) &&
		(len(m.DestinationMACs) == 0 || slices.Contains(m.DestinationMACs, f.destinationMAC))
}

// MakeRules makes some for these tunnels, of which the first two may share one; what no rule matches
// takes the last.
func MakeRules(r *rand.Rand, tunnels []string) []steer.Rule {
	var rules []steer.Rule
	parse := func(all []string) (prefixes []netip.Prefix) {
		for _, s := range all {
			prefixes = append(prefixes, netip.MustParsePrefix(s))
		}
		return prefixes
	}
	ranges := func(ports []uint16) (all []steer.Range) {
		for _, p := range ports {
			all = append(all, steer.Range{First: p, Last: p + uint16(r.IntN(2)*r.IntN(1000))})
		}
		return all
	}
	var vlans []vlan.Range
	for range 1 + r.IntN(8) {
		vlans = vlans[:0]
		for _, v := range someOf(r, someVLANs) {
			vlans = append(vlans, vlan.Range{First: v, Last: min(4094, v+uint16(r.IntN(3)))})
		}
		rule := steer.Rule{Match: steer.Match{
			PCP: someOf(r, []uint8{0, 3, 5, 7}), DSCP: someOf(r, someDSCPs), VLANs: vlan.Of(vlans...), EtherTypes: someOf(r, someTypes),
			Protocols: someOf(r, someProtocols), SourcePorts: ranges(someOf(r, somePorts)), DestinationPorts: ranges(someOf(r, somePorts)),
			Sources: parse(someOf(r, somePrefixes)), Destinations: parse(someOf(r, somePrefixes)),
			SourceMACs: someOf(r, someMACs), DestinationMACs: someOf(r, someMACs),
		}}
		rule.Tunnels = []string{oneOf(r, tunnels)}
		if r.IntN(4) == 0 {
			rule.Tunnels = append([]string{}, tunnels[:2]...)
		}
		if len(steer.Terms(append(rules, rule))) <= steer.MaxTerms {
			rules = append(rules, rule)
		}
	}
	return rules
}
