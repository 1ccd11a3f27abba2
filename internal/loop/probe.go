package loop

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// Probe is what a site sends into its LAN.
type Probe struct {
	Network, Site string
	// Reaches are the peers that the site has a working pseudowire of the network to.
	Reaches map[string]bool
}

// EtherType is that of probes: IEEE 802's second one for local experiments (IEEE 802, Section 9.2.3).
const EtherType = 0x88b6

// Destination is that of probes, an address that nothing has: switches flood what is sent to it, and
// bridges of sites keep it.
var Destination = [6]byte{0x02, 'p', 'w', 'l', 'o', 'p'}

// magic begins the payload: the name, and a version.
const magic = "pwd loop\x01"

// maxReaches is how many peers a probe has room for.
const maxReaches = 150

// told are the peers that a probe tells of: as many of them as it has room for, the first by name.
func told(reaches map[string]bool) []string {
	peers := slices.DeleteFunc(slices.Sorted(maps.Keys(reaches)), func(peer string) bool { return !reaches[peer] })
	return peers[:min(len(peers), maxReaches)]
}

var errNotAProbe = errors.New("not a probe of a loop")

// mark is what stands for a name.
type mark [8]byte

func markOf(name string) (m mark) {
	sum := sha256.Sum256([]byte(name))
	copy(m[:], sum[:])
	return m
}

// sourceOf is the address that a site sends the probes of a network from.
func sourceOf(network, site string) (a [6]byte) {
	m := markOf(network + "/" + site)
	copy(a[:], m[:])
	a[0] = a[0]&^1 | 2 // a single station's, locally administered
	return a
}

// Frame is the probe as it is sent, with a tag if vlan is not 0.
func (p Probe) Frame(vlan uint16) []byte {
	source := sourceOf(p.Network, p.Site)
	b := append(append([]byte{}, Destination[:]...), source[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(b, 0x8100)
		b = binary.BigEndian.AppendUint16(b, vlan)
	}
	b = binary.BigEndian.AppendUint16(b, EtherType)
	b = append(b, magic...)
	network := markOf(p.Network)
	b = append(b, network[:]...)
	b = append(append(b, byte(len(p.Site))), p.Site...)
	reaches := told(p.Reaches)
	b = append(b, byte(len(reaches)))
	for _, peer := range reaches {
		m := markOf(peer)
		b = append(b, m[:]...)
	}
	const least = 60
	return append(b, make([]byte, max(0, least-len(b)))...)
}

// Heard is a probe as it was received: names are marks.
type Heard struct {
	network mark
	Site    string
	reaches map[mark]bool
}

// Parse reads the payload of a frame. The error says that it is no probe.
func Parse(b []byte) (Heard, error) {
	var h Heard
	if len(b) < len(magic)+len(h.network)+1 || string(b[:len(magic)]) != magic {
		return h, errNotAProbe
	}
	b = b[len(magic):]
	b = b[copy(h.network[:], b):]
	n := int(b[0])
	if n == 0 || n > 63 || len(b) < 1+n+1 {
		return Heard{}, errNotAProbe
	}
	for _, c := range b[1 : 1+n] {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return Heard{}, errNotAProbe // nothing else is the name of a site, and it is shown
		}
	}
	h.Site, b = string(b[1:1+n]), b[1+n:]
	n, b = int(b[0]), b[1:]
	if len(b) < n*len(mark{}) {
		return Heard{}, errNotAProbe
	}
	h.reaches = make(map[mark]bool, n)
	for range n {
		h.reaches[mark(b)] = true
		b = b[len(mark{}):]
	}
	return h, nil
}

// Of says whether it is of that network.
func (h Heard) Of(network string) bool { return markOf(network) == h.network }

// In is the probe as one of a network with these peers; false if it is another network's.
func (h Heard) In(network string, peers []string) (Probe, bool) {
	if !h.Of(network) {
		return Probe{}, false
	}
	p := Probe{Network: network, Site: h.Site, Reaches: map[string]bool{}}
	for _, peer := range peers {
		if h.reaches[markOf(peer)] {
			p.Reaches[peer] = true
		}
	}
	return p, true
}
