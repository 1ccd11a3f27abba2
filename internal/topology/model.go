// Package topology reads the topology file: YAML to a positioned tree, the tree
// to a validated model, the model to what one site has to do. It is the only
// package that imports the YAML library.
package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// Local is the topology as one site sees it: what its daemon has to make true.
// All slices are sorted by name.
type Local struct {
	// Topology is metadata.name; Site is the site's name.
	Topology, Site string
	Bridges        []Bridge
	Tunnels        []Tunnel
	Pseudowires    []Pseudowire
	// Classes are those of the site's tunnels.
	Classes []Class
	// SecretFiles are those of the site's tunnels, in the order of the file; CookieFiles
	// those of its static pseudowires.
	SecretFiles, CookieFiles []SecretFile
}

// Class is a class of service.
type Class struct {
	Name string
	// DSCP is that of outer packets, where Marking does not say otherwise.
	DSCP    uint8
	Marking Marking
	Shape
}

// Shape is what each tunnel of a class may send at its end: outer octets, in bits
// a second.
type Shape struct {
	// Rate is guaranteed, Ceiling the most; 0 is none.
	Rate, Ceiling uint64
	// Priority is who takes first of what nobody has a guarantee for; lower first.
	Priority uint8
	// Queue is how many packets wait at most; 0 is the default.
	Queue uint32
}

// Shapes says whether anything is to be shaped.
func (s Shape) Shapes() bool { return s.Rate != 0 || s.Ceiling != 0 }

// Shapes says whether there is a limit to what the tunnel sends, or a guarantee.
func (t *Tunnel) Shapes() bool { return t.Shape.Shapes() || t.PairRate != 0 }

// Bridge is one bridge of the site.
type Bridge struct {
	Name string
	// External bridges are used and never made, changed or removed.
	External bool
	// Ports are interfaces that the daemon puts into the bridge.
	Ports     []string
	VLANAware VLANAware
	// LinkLocal are the groups 01-80-C2-00-00-0x that it passes on: bit x.
	LinkLocal uint16
}

// VLANAware says whether a bridge filters VLANs.
type VLANAware uint8

const (
	// VLANAuto filters where the kernel can.
	VLANAuto VLANAware = iota
	VLANOn
	VLANOff
)

// Tunnel is the site's end of one control connection.
type Tunnel struct {
	// Key is unique at the site: "gold/dc2", the tunnel and the peer site.
	Key        string
	Name, Peer string
	// Local and Remote are the addresses of both ends; the zero one is a dynamic
	// site's: our own is the routing table's choice, and a peer with one is waited for.
	Encapsulation          l2tpv3.Encapsulation
	Local, Remote          netip.Addr
	HostName, PeerHostName string
	RouterID               uint32
	Hello                  time.Duration // 0: the protocol's default
	// SecretFiles are the names of the files of the secrets, one or two, or none
	// where the tunnel is without authentication. Secrets is what is in them, once
	// WithSecrets has read that.
	SecretFiles []string
	Secrets     []Secret
	// Digest is the algorithm of the digests that are sent; Hide says that what may
	// be hidden is.
	Digest l2tpv3.DigestAlgorithm
	Hide   bool
	// Class is the class of service, empty for none.
	Class string
	// Shape is that of the class, LinkRate what the site's link carries, and PairRate what all
	// tunnels to the peer may send together, 0 where that is not said.
	Shape
	LinkRate, PairRate uint64
	// ReplaceQdisc says that a root qdisc that somebody else has set gives way to the shaping.
	ReplaceQdisc bool
	// EDT says that the site keeps ceilings by departure times, instead of HTB.
	EDT bool
	// Underlay is which of the site's it takes, empty where the site has but one address.
	Underlay string
	// ECN says that congestion marks are passed on where the datapaths can.
	ECN bool
	// Checksum says that data packets over UDP have checksums.
	Checksum bool
	// DF says that outer packets do not leave in fragments.
	DF bool
	// Foreign peers do not run this daemon; PeerHostName is empty where any will do.
	Foreign bool
	// Numbers are those of the attributes that the peer is called with.
	Numbers l2tpv3.Numbers
	// Static says that there is no control connection, and what both ends are told
	// instead; nil is with one.
	Static *StaticTunnel
}

// Pseudowire is the site's end of one pseudowire.
type Pseudowire struct {
	// Name is NETWORK/PEER for one of a network.
	Name, Peer string
	// Network is the network that it is one of, empty for none. Isolated says that no
	// frame goes from it to another of them: its split horizon.
	Network  string
	Isolated bool
	// Device is the netdev's name: pw-NAME or its short form.
	Device string
	// Tunnel is the Key of the tunnel that carries it, the active one if there are others,
	// DSCP and Marking those of its class. Standby are the others, by preference.
	Tunnel  string
	DSCP    uint8
	Marking Marking
	Standby []Ride
	// Redundancy says how they stand in for each other, nil where there are none, and where
	// frames are spread over all of them: then Steer has the rules, for others than which the
	// last of the tunnels is.
	Redundancy *Redundancy
	Steer      []steer.Rule
	Type       l2tpv3.PseudowireType
	// EndID is what the peer's end is called, LocalEndID what ours is, nil for the same.
	EndID, LocalEndID []byte
	AGI               []byte
	CookieLength      int // 0, 4 or 8 octets: what we assign
	// Sublayer and Sequencing are how the peer is to send.
	Sublayer   l2tpv3.L2SpecificSublayer
	Sequencing l2tpv3.DataSequencing
	// MaxMACs is how many addresses are learned behind it, or behind all of its network; 0
	// is no limit.
	MaxMACs int
	// Suppress says that requests of address resolution for what is known behind it, or behind
	// any of its network, are answered here.
	Suppress bool
	MTU      int // 0: the datapath's default, and not signalled
	// Datapath is "ebpf", "kernel" or empty for the daemon's choice.
	Datapath string
	// Limits are of frames that go to many, each way.
	Limits     Limits
	Attachment Attachment
	// Static says that nothing is signalled, and what both ends are told instead; nil is
	// signalled.
	Static *StaticSession
	// PeerVLAN is the tag at the other end of an Ethernet VLAN pseudowire, 0 for none.
	PeerVLAN uint16
}

// Ride is one session of a pseudowire, on one tunnel.
type Ride struct {
	// Tunnel is the Key of the tunnel, DSCP and Marking are those of its class.
	Tunnel  string
	DSCP    uint8
	Marking Marking
}

// Marking says how the DSCP of an outer packet comes from the frame in it. The zero value
// is not at all.
type Marking struct {
	// Copy says that it is that of the IP packet inside, 0 where there is none.
	Copy bool
	// Mapped says that it is in Map, by the priority bits of the frame's first tag.
	Mapped bool
	Map    [8]uint8
}

// String is it in words, empty for not at all.
func (m Marking) String() string {
	switch {
	case m.Copy:
		return "copy"
	case m.Mapped:
		return fmt.Sprintf("by PCP %d", m.Map)
	}
	return ""
}

// Any says that it does come from the frame.
func (m *Marking) Any() bool { return m.Copy || m.Mapped }

// Rides are all sessions of the pseudowire, by preference.
func (p *Pseudowire) Rides() []Ride {
	return append([]Ride{{p.Tunnel, p.DSCP, p.Marking}}, p.Standby...)
}

// Steered says that frames are spread over the tunnels.
func (p *Pseudowire) Steered() bool { return len(p.Standby) > 0 && p.Redundancy == nil }

// On says whether the pseudowire has a session on a tunnel.
func (p *Pseudowire) On(tunnel string) bool {
	return slices.ContainsFunc(p.Rides(), func(r Ride) bool { return r.Tunnel == tunnel })
}

// Redundancy is how the tunnels of a pseudowire stand in for each other.
type Redundancy struct {
	// Revertive says that one that works again is taken again, after Hold.
	Revertive bool
	Hold      time.Duration
	// Leads says that this site decides which of them is used; otherwise its peer does.
	Leads bool
}

// Limits are numbers of frames a second, and of bits of what comes out; 0 for none.
type Limits struct {
	Broadcast, Multicast, UnknownUnicast uint32
	Police                               uint64
}

// Attachment is a pseudowire's attachment circuit at the site: exactly one of
// Bridge and Interface is set.
type Attachment struct {
	Bridge, Interface string
	// VLAN is the tag on the attachment circuit, 1 to 4094; 0 is a whole port or
	// a bridge's untagged traffic, or what VLANs, InnerVLAN and Untagged say.
	VLAN uint16
	// VLANs are several of them, whose tags stay on; Untagged are frames without one,
	// beside them or alone.
	VLANs    vlan.Set
	Untagged bool
	// InnerVLAN is the second tag, 0 for any or none.
	InnerVLAN uint16
	// TagProtocol is the TPID of the first tag: 0x8100, or 0x88a8 for a service tag.
	TagProtocol uint16
	PCP         PCP
	// RefusedGroups are link-local groups 01-80-C2-00-00-0x that are not carried: bit x.
	RefusedGroups uint16
}

// PCP says which priority bits tags have on the way out of a pseudowire. The zero value
// leaves them as they are, and 0 where a tag is pushed.
type PCP struct {
	// Mapped says that Map has the new bits by the old ones; DSCP that they are the first
	// three bits of the DSCP inside.
	Mapped bool
	Map    [8]uint8
	DSCP   bool
}
