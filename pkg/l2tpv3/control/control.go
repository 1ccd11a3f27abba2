package control

import (
	"io"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Config is what an Endpoint is made of.
type Config struct {
	// Random gives IDs, cookies, tie breakers and jitter: crypto/rand.Reader
	// outside of tests. It must not fail, as that does not.
	Random io.Reader
	Timers Timers
	// VendorName is sent in SCCRQ and SCCRP; empty for none.
	VendorName string
	// SessionIDTaken, if set, says that a local session ID is used by somebody
	// else in this network namespace. It must not call into the Endpoint.
	SessionIDTaken func(uint32) bool
	// Discarded, if set, is told of every received message that came in vain. A
	// flood of them passes through it: it has to be quick, and must not call into
	// the Endpoint.
	Discarded func(Discard)
}

// Timers of the protocol; zero fields have the defaults.
type Timers struct {
	Retransmit     time.Duration // first retransmission; 1 s (Section 4.2)
	RetransmitCap  time.Duration // 8 s
	MaxRetransmits int           // 10
	OpenDelay      time.Duration // each end opens after a random time up to this; 1 s
	ReopenMin      time.Duration // wait before another attempt, doubling; 1 s
	ReopenMax      time.Duration // 30 s
	Linger         time.Duration // state kept after StopCCN; 31 s (Section 3.3.2)
}

// Tunnel is the configuration of one control connection: an LCCE of its own
// and the peer that it is for.
type Tunnel struct {
	// Name is unique in the Endpoint, as "gold/dc2".
	Name          string
	Encapsulation l2tpv3.Encapsulation
	// Local and Remote are the addresses of both sites. An invalid Local is the
	// routing table's choice. An invalid Remote is a peer whose address changes: it is
	// waited for, never called, and found by the secret that verifies its SCCRQ, so
	// that there have to be Secrets.
	Local, Remote netip.Addr
	// HostName and RouterID are ours in SCCRQ and SCCRP.
	HostName string
	RouterID uint32
	// PeerHostName is what the peer's end of this very tunnel calls itself.
	PeerHostName string
	// Peer is what reasons call the peer, as "waiting for dc2"; empty is PeerHostName.
	Peer         string
	Capabilities []l2tpv3.PseudowireType
	Hello        time.Duration // 0 is 60 s (Section 4.4)
	// ReceiveWindow is advertised; 0 is 16.
	ReceiveWindow uint16
	// Secrets turn authentication on (Section 4.3): one, or two while a secret is
	// being replaced. Each of them is accepted from the peer, and each makes a
	// digest, so that a peer with either of them understands.
	Secrets [][]byte
	// Digest is the algorithm of the digests that are sent; any is accepted.
	Digest l2tpv3.DigestAlgorithm
	// Hide hides what may be hidden in the messages that are sent (Section 5.3).
	// It takes Secrets.
	Hide bool
	// ECN announces that the data plane can do RFC 9601's normal mode.
	ECN bool
	// Language is a Preferred Language (Section 5.4.3) as "en"; empty for none.
	Language string
	// Foreign peers are not of this implementation: one that calls itself by
	// another Host Name than PeerHostName is accepted where that is empty, and what
	// only this implementation understands is not sent to it.
	Foreign bool
	// Numbers are those of the attributes that the peer is called with. What it sends
	// shows what it speaks, and gets an answer in that.
	Numbers l2tpv3.Numbers
}

// Session is the configuration of one session on a tunnel.
type Session struct {
	Tunnel string
	// Name is the pseudowire's, unique on the tunnel.
	Name        string
	Type        l2tpv3.PseudowireType
	RemoteEndID []byte
	// LocalEndID is our own forwarder (RFC 4667, Section 4.3): what the peer's ICRQ has
	// as its Remote End ID, and ours as its Local End ID. Nil is that it is the same
	// as RemoteEndID, and not sent.
	LocalEndID   []byte
	AGI          []byte
	CookieLength int // 0, 4 or 8 octets: what we assign
	// Sublayer and Sequencing are how we want to receive (Sections 5.4.4 and 4.6).
	Sublayer   l2tpv3.L2SpecificSublayer
	Sequencing l2tpv3.DataSequencing
	MTU        uint16 // Interface MTU AVP; 0 for none
	// DSCP is what data packets should have, both ways, signalled as a PHB (RFC
	// 3308, Section 4); 0 is not signalled.
	DSCP uint8
	// Circuit is the state of the local attachment circuit. A fault or standby
	// bit may be set; CircuitActive is ignored beside a fault (RFC 5641, Section 3).
	Circuit l2tpv3.CircuitStatus
	// CanSequence says that the data plane can number the packets to the peer.
	// Without it a peer that asks for sequencing is refused (CDN 31).
	CanSequence bool
	// Specific is the sublayer of the pseudowire type's own that the data plane can send
	// (Section 5.4.4); 0 if there is none but the default one, as with Ethernet.
	Specific l2tpv3.L2SpecificSublayer
	// CanSublayer says that the data plane can have a sublayer in one direction alone.
	CanSublayer bool
	// CanChangeCookies says that the data plane can change cookies under way, CanSucceed that
	// it can have a second session beside the first (InstallSession.Beside); without
	// CanSublayer only of those that have no sublayer.
	CanChangeCookies, CanSucceed bool
}

// Path is where a control connection's packets go and come from.
type Path struct {
	Encapsulation l2tpv3.Encapsulation
	// Local has port 0 as long as the socket has not been chosen: an initiator's
	// ephemeral port is the transport's affair.
	Local, Remote netip.AddrPort
}

// Datagram is one received control packet, from the T-bit word on.
type Datagram struct {
	Path
	Payload []byte
}

// Output is one thing to be done, a pointer to one of: Transmit, Connected,
// Released, InstallSession, RemoveSession, SessionChanged, SessionUnknown, ConnectionChanged. What
// it points to is the Endpoint's: it is valid until Next has returned false and
// another method is called, and slices in it must not be changed.
type Output interface{ output() }

// Transmit asks for one packet to be sent. Connection is the local control
// connection ID whose socket is to be used; with 0 it is an answer to a stranger,
// sent from where the packet came in. The Payload is the taker's, who may give it
// back by Endpoint.Recycle.
type Transmit struct {
	Tunnel     string
	Connection uint32
	// Initiator says that a socket with an ephemeral port is to be made for the
	// connection if it has none; otherwise it is one bound to port 1701.
	Initiator bool
	Path      Path
	Payload   []byte
	// Whole says that the packet is not to be fragmented, here or on the way: it shows
	// whether the path carries it (see Endpoint.Probe).
	Whole bool
}

// Connected says that the connection is established, with the peer's address and
// port settled: its socket is to be connected to them. It comes again after Restore.
type Connected struct {
	Connection uint32
	Initiator  bool
	Path       Path
}

// Released says that nothing more will be sent for the connection: its socket can go.
type Released struct{ Connection uint32 }

// InstallSession asks for a session's data plane. It comes before the message
// that lets the peer use it. That it is done is told by Endpoint.Installed, a failure by
// Endpoint.InstallFailed, in any case before the next one is taken. It is
// given again, whole, when something in it changes (Transmit, usually).
type InstallSession struct {
	Tunnel, Name              string
	Connection                uint32 // local control connection ID
	RemoteConnection          uint32
	LocalID, RemoteID         uint32
	LocalCookie, RemoteCookie []byte
	// PreviousCookie is still accepted, see Endpoint.ChangeCookie; nil for none.
	PreviousCookie   []byte
	ReceiveSublayer  l2tpv3.L2SpecificSublayer
	TransmitSublayer l2tpv3.L2SpecificSublayer
	// ReceiveSequencing is Session.Sequencing; TransmitSequencing is what the peer
	// asked for, if Session.CanSequence.
	ReceiveSequencing, TransmitSequencing l2tpv3.DataSequencing
	// DSCP is what was agreed on for data packets; ECN says that both ends can do it.
	DSCP uint8
	ECN  bool
	// Transmit is set when user frames may be sent.
	Transmit bool
	// Beside is the local ID of the session that carries the frames of that name, where this
	// is another one that only receives; 0 where it is itself. See Endpoint.ChangeCookie.
	Beside uint32
}

// RemoveSession asks for a session's data plane to be taken out.
type RemoveSession struct {
	Tunnel, Name string
	LocalID      uint32
}

// ConnectionChanged tells of a tunnel's new state and why. From and To are the
// same if only the reason is news, as when a peer's request was refused.
type ConnectionChanged struct {
	Tunnel   string
	From, To ConnectionState
	Reason   string
	Cause    Cause
}

// SessionChanged tells of a session's new state, or of the peer's new circuit
// status or another reason, where From and To are the same.
type SessionChanged struct {
	Tunnel, Name string
	From, To     SessionState
	Remote       l2tpv3.CircuitStatus
	Reason       string
	Cause        Cause
}

// SessionUnknown tells that the peer asks for a session that there is none for here: it was answered by
// CDN, No Forwarder (RFC 4667, Section 5.1). It comes each time that the peer asks.
type SessionUnknown struct {
	Tunnel string
	Type   l2tpv3.PseudowireType
	// AGI and End are the peer's words for what is asked for, Attachment Group Identifier and
	// Remote End ID.
	AGI, End string
}

func (*Transmit) output()          {}
func (*Connected) output()         {}
func (*Released) output()          {}
func (*InstallSession) output()    {}
func (*RemoveSession) output()     {}
func (*ConnectionChanged) output() {}
func (*SessionChanged) output()    {}
func (*SessionUnknown) output()    {}

// ConnectionState is a state of Section 7.2.
type ConnectionState uint8

const (
	ConnectionIdle ConnectionState = iota
	ConnectionWaitReply
	ConnectionWaitConnect
	ConnectionEstablished
)

// SessionState is a state of Sections 7.3 and 7.4.
type SessionState uint8

const (
	SessionIdle SessionState = iota
	SessionWaitControl
	SessionWaitReply
	SessionWaitConnect
	SessionEstablished
)
