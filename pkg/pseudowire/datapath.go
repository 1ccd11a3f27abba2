// Package pseudowire says what an Ethernet pseudowire is to the host that
// carries it, and what a datapath has to offer. The datapaths are its
// subpackages: tcbpf (eBPF) and l2tpeth (the kernel's l2tp_eth).
//
// # Ownership
//
// A Datapath belongs to one goroutine. Its setters take the whole desired state
// of one object, change only what differs, and may be called again with the same
// argument. Everything it makes in the kernel outlives the process; Close gives
// up handles only, Cleanup removes the objects.
package pseudowire

import (
	"net/netip"
	"strings"

	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Kind names a datapath, in the topology and to the user.
type Kind string

const (
	EBPF   Kind = "ebpf"
	Kernel Kind = "kernel"
)

// Tunnel is what a datapath must know of a control connection.
type Tunnel struct {
	// Name is unique on this host: tunnel and peer site, as "gold/dc2".
	Name string
	// LocalID and RemoteID are the control connection IDs, ours and the peer's.
	LocalID, RemoteID uint32
	Encapsulation     l2tpv3.Encapsulation
	// Local and Remote are the packet's addresses and, over UDP, its ports.
	Local, Remote netip.AddrPort
	// Socket is a descriptor of the connected socket of the control connection,
	// -1 if there is none. The datapath duplicates it if it keeps it.
	Socket int
	// ECN says that both ends have announced RFC 9601's capability: the ECN field of
	// an IP packet inside is copied outside, and what the PSN did to it is brought
	// back in (RFC 6040). Otherwise that of outer packets is 00.
	ECN bool
	// Checksum says that data packets over UDP have a UDP checksum (RFC 3931, Section
	// 4.1.2.3). Otherwise a datapath may leave it out, over IPv6 too (RFC 6935); packets
	// that leave in fragments have one all the same. What comes in may be without.
	Checksum bool
	// DF says that no packet leaves in fragments: a frame that does not fit one is dropped
	// and counted (DropOversize), and its sender is told by ICMP, from the frame's own
	// destination, where there is an IP packet in it that asks not to be fragmented.
	DF bool
	// PathMTU is the longest packet, IP header included, that is known to get through where
	// routers do not say what does not (RFC 4821); 0 is whatever the host takes the path for.
	PathMTU int
}

// Pseudowire is a device to be: one netdev towards the attachment circuit.
// It exists for as long as the topology names it, with or without a session
// where the datapath can do that (see Datapath.SetPseudowire).
type Pseudowire struct {
	// Name is the pseudowire's name; Device its netdev (pw-NAME or shortened,
	// at most 15 octets).
	Name, Device string
	// MTU of the device: octets of payload after the Ethernet header, tags not
	// counted. 0 is 1500.
	MTU int
	// IgnoreICMP says that who set the MTU knows the path: the pseudowire's packets are as long as
	// the links and the routes of this host allow, whatever routers say (ICMP, which anybody can forge).
	// Otherwise these are believed, down to 1280 octets. What a datapath cannot choose its host decides.
	IgnoreICMP bool
	// VLAN is the tag that the datapath pops from frames into the pseudowire and
	// pushes on frames out of it; frames without it are not carried. 0 is none:
	// frames pass as they are.
	VLAN uint16
	// KeepTag is for pseudowires of type Ethernet VLAN: the tag VLAN stays on frames
	// into the pseudowire, and that of frames out of it, whatever its number, gets the
	// number VLAN (RFC 4719, Section 3.1; RFC 4448, Section 4.4). VLAN 0 leaves tags alone.
	KeepTag bool
	// Service is what happens to frames beyond that, between the device and what is
	// above it; it sees the tags that VLAN is about. The zero value is nothing.
	Service Service
	// Several says that it may have more than one session at once, of which one at most
	// sends (Abilities.Several). Its device exists without, too.
	Several bool
	// StayDown has the device of a session that is made stay down until the session is set once more: who
	// attaches programs to it does so before. A device that does not come with its session is not concerned.
	StayDown bool
	// Steer has frames leave over several sessions at once, all of those that send, where the
	// datapath can do that (Abilities.Steers); nil is over one. It takes Several.
	Steer *Steer
	// Suppress is the network whose address resolution it suppresses: requests for addresses
	// that are known behind one of the network's pseudowires are answered, and cross none
	// (Abilities.Suppresses). Empty is none.
	Suppress string
	// Port is the interface that the attachment circuit is, or with PortVLAN that VLAN of
	// it, where the datapath may carry frames between that and the pseudowire past Device
	// (Abilities.CrossConnects). It is set once Device and Port are in one bridge, which
	// no other Device is in: frames pass there as long as, and where, the datapath
	// cannot do so. Empty is no such interface.
	Port     string
	PortVLAN uint16
}

// Session is one session's data plane (RFC 3931, Section 4.5), both directions.
type Session struct {
	// Tunnel and Pseudowire are the names of those it belongs to.
	Tunnel, Pseudowire string
	// LocalID is what the peer's packets carry, RemoteID what ours do.
	LocalID, RemoteID uint32
	// LocalCookie is what the peer's packets carry: 0, 4 or 8 octets. RemoteCookie is what ours do.
	LocalCookie, RemoteCookie []byte
	// PreviousCookie is accepted beside LocalCookie while the peer goes over from one
	// to the other; it is of the same length. Nil is none.
	PreviousCookie []byte
	// ReceiveSublayer and TransmitSublayer are the L2-Specific Sublayers of each direction.
	ReceiveSublayer, TransmitSublayer l2tpv3.L2SpecificSublayer
	// ReceiveSequencing and TransmitSequencing say which packets of each direction
	// are numbered (Section 4.6); SequencingNone without a sublayer.
	ReceiveSequencing, TransmitSequencing l2tpv3.DataSequencing
	// DSCP is that of outer packets, 0 to 63, where Marking does not say otherwise.
	DSCP    uint8
	Marking Marking
	// Priority is that of outer packets on this host (skb->priority): the handle of
	// their class, where the underlay's qdisc has classes.
	Priority uint32
	// Transmit is set when user frames may be sent to the peer: the session is
	// established and the peer's circuit is active (Section 5.4.5). Frames
	// received are always delivered.
	Transmit bool
	// Beside is the local ID of another session, of the same pseudowire in the same tunnel: this
	// one only receives, while the peer goes over from one to the other (Abilities.Succeeds).
	// 0 is that it carries the frames itself.
	Beside uint32
	// Deaf says that nothing is received any more: what there is is kept for its device.
	Deaf bool
}

// Marking says how the DSCP of an outer packet comes from the frame in it. The zero value
// is not at all.
type Marking struct {
	// Copy says that it is that of the IP packet inside, 0 where there is none.
	Copy bool
	// Mapped says that it is in Map, by the priority bits of the frame's first tag on the
	// attachment circuit; those of a frame without one are 0.
	Mapped bool
	Map    [8]uint8
}

// Counters of one session since it was installed.
type Counters struct {
	ReceivedFrames, ReceivedOctets       uint64
	TransmittedFrames, TransmittedOctets uint64
	// Drops counts frames lost, by reason; the names are the Drop constants.
	Drops map[string]uint64
}

// The reasons why a frame was dropped or a packet was handled apart.
const (
	DropWrongCookie    = "wrong-cookie"
	DropUnknownSession = "unknown-session"
	DropOversize       = "oversize"
	DropNoNeighbour    = "no-neighbour"
	DropNotTransmit    = "not-established"
	DropWrongVLAN      = "wrong-vlan"
	DropOutOfSequence  = "out-of-sequence"
	DropCongestion     = "congestion-not-ecn-capable" // RFC 6040, Section 4.2
	DropError          = "error"
	DropLinkLocal      = "link-local"
	// Frames beyond a limit of Service.Limits.
	DropBroadcast      = "policed-broadcast"
	DropMulticast      = "policed-multicast"
	DropUnknownUnicast = "policed-unknown-unicast"
	DropPoliced        = "policed"
	CountFragmented    = "fragmented"
	CountReassembled   = "reassembled"
)

// Abilities are what one datapath can do and another cannot.
type Abilities struct {
	// RewritesTags says that frames on a pseudowire's device carry the attachment
	// circuit's own tag (Pseudowire.VLAN and KeepTag are honoured). Where it does
	// not, the bridge or a VLAN device has to take the tag off and put it on.
	RewritesTags bool
	// DeviceWithoutSession says that the device exists, without carrier, while
	// there is no session. Otherwise it comes and goes with the session.
	DeviceWithoutSession bool
	// Several says that Pseudowire.Several is honoured.
	Several bool
	// SeveralAnew says that a pseudowire whose Several changes gets another device; its sessions stay.
	SeveralAnew bool
	// Steers says that Pseudowire.Steer is honoured, and that it is a Classifier.
	Steers bool
	// IP says that it carries L2TP directly over IP (protocol 115).
	IP bool
	// Sequencing says that it numbers packets and looks at the numbers of others'.
	Sequencing bool
	// SublayerPerDirection says that the sublayers of both directions may differ.
	SublayerPerDirection bool
	// ChangesCookies says that cookies of a session can change while it carries
	// frames, none of which is lost (Session.PreviousCookie is honoured).
	ChangesCookies bool
	// Succeeds says that another session can take the place of one while that carries frames, none
	// of which is lost (Session.Beside is honoured).
	Succeeds bool
	// DSCP and ECN say that Session.DSCP and Tunnel.ECN are honoured.
	DSCP, ECN bool
	// Marking says that Session.Marking is honoured.
	Marking bool
	// Checksum says that Tunnel.Checksum is honoured; otherwise data packets over UDP
	// have checksums always.
	Checksum bool
	// DF says that Tunnel.DF is honoured.
	DF bool
	// Priority says that Session.Priority is honoured.
	Priority bool
	// Services says that Pseudowire.Service is honoured.
	Services bool
	// Suppresses says that Pseudowire.Suppress is honoured.
	Suppresses bool
	// CrossConnects says that Pseudowire.Port is honoured.
	CrossConnects bool
}

// TunnelsGoneError is in an error of Refresh if somebody has removed tunnels from the datapath
// that it cannot make again over the sockets that they had.
type TunnelsGoneError struct {
	// Names are Tunnel.Name of each.
	Names []string
}

func (e *TunnelsGoneError) Error() string {
	return "tunnels were removed by somebody else: " + strings.Join(e.Names, ", ")
}

// Datapath carries Ethernet frames of sessions between devices and the PSN.
type Datapath interface {
	Kind() Kind
	Abilities() Abilities

	SetPseudowire(Pseudowire) error
	// RemovePseudowires removes several at once, which costs little more than one: the kernel
	// waits for each request. Unknown ones are no error. After an error they may be there or not,
	// and can be removed again or set.
	RemovePseudowires(names ...string) error
	SetTunnel(Tunnel) error
	RemoveTunnel(name string) error
	// SetSession installs a session, or changes one with the same LocalID. When
	// it returns without error the session receives.
	SetSession(Session) error
	// RemoveSession takes the session with that local ID out; unknown ones are no error.
	RemoveSession(localID uint32) error

	// Refresh looks again at routes, neighbours and links of the underlay, and at what
	// is attached. The caller calls it after a change there.
	Refresh() error
	// Repairs gives what was found that others had changed, since the last call: what
	// SetPseudowire and Refresh look at.
	Repairs() []drift.Repair
	// Heed has what held says so of left as others have changed it, by SetPseudowire only
	// where its caller does.
	Heed(held func(thing string) bool)
	// Deliver takes a data packet that reached the tunnel's socket (outer
	// fragments, put together by the stack), from the L2TP header on. remote is
	// its sender. It reports whether the packet belonged to a session.
	Deliver(remote netip.AddrPort, packet []byte) bool
	// Counters by local session ID.
	Counters() (map[uint32]Counters, error)
	// Global counts what belongs to no session, by reason.
	Global() (map[string]uint64, error)
	// Prune removes every object of this datapath's that its setters did not
	// name since it was opened: what a crash left behind.
	Prune() error
	// Close gives up handles; the kernel objects stay and go on forwarding.
	Close() error
	// Cleanup removes every object of this datapath's, then closes.
	Cleanup() error
}
