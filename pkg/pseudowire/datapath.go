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
	// VLAN is the tag that the datapath pops from frames into the pseudowire and
	// pushes on frames out of it; frames without it are not carried. 0 is none:
	// frames pass as they are.
	VLAN uint16
}

// Session is one session's data plane (RFC 3931, Section 4.5), both directions.
type Session struct {
	// Tunnel and Pseudowire are the names of those it belongs to.
	Tunnel, Pseudowire string
	// LocalID is what the peer's packets carry, RemoteID what ours do.
	LocalID, RemoteID uint32
	// LocalCookie is what the peer's packets carry: 0, 4 or 8 octets. RemoteCookie is what ours do.
	LocalCookie, RemoteCookie []byte
	// ReceiveSublayer and TransmitSublayer are the L2-Specific Sublayers of each direction.
	ReceiveSublayer, TransmitSublayer l2tpv3.L2SpecificSublayer
	// Transmit is set when user frames may be sent to the peer: the session is
	// established and the peer's circuit is active (Section 5.4.5). Frames
	// received are always delivered.
	Transmit bool
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
	DropError          = "error"
	CountFragmented    = "fragmented"
	CountReassembled   = "reassembled"
)

// Datapath carries Ethernet frames of sessions between devices and the PSN.
type Datapath interface {
	Kind() Kind
	// RewritesTags says that frames on a pseudowire's device carry the
	// attachment circuit's own tag (Pseudowire.VLAN is honoured). Where it does
	// not, the bridge or a VLAN device has to take the tag off and put it on.
	RewritesTags() bool
	// DeviceWithoutSession says that the device exists, without carrier, while
	// there is no session. Otherwise it comes and goes with the session.
	DeviceWithoutSession() bool

	SetPseudowire(Pseudowire) error
	RemovePseudowire(name string) error
	SetTunnel(Tunnel) error
	RemoveTunnel(name string) error
	// SetSession installs a session, or changes one with the same LocalID. When
	// it returns without error the session receives.
	SetSession(Session) error
	// RemoveSession takes the session with that local ID out; unknown ones are no error.
	RemoveSession(localID uint32) error

	// Refresh looks again at routes, neighbours and links of the underlay. The
	// caller calls it after a change there.
	Refresh() error
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
