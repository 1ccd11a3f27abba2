// Package api is the daemon's local interface: HTTP and JSON over a unix socket.
// It holds the types on the wire, the server and the client; what the server
// shows and does comes from a Backend.
package api

import (
	"context"
	"io"
	"time"
)

// List is what every collection answers with.
type List[T any] struct {
	Items []T `json:"items"`
}

// Tunnel is one end of a control connection.
type Tunnel struct {
	Name                      string `json:"name"`
	Peer                      string `json:"peer"`
	State                     string `json:"state"` // established, connecting, down
	LocalControlConnectionID  uint32 `json:"localControlConnectionID"`
	RemoteControlConnectionID uint32 `json:"remoteControlConnectionID"`

	Local         string `json:"local"`  // address:port
	Remote        string `json:"remote"` // address:port
	Encapsulation string `json:"encapsulation"`
	// PathMTU is the longest packet to the peer, IP header included, that is not
	// fragmented, as far as this host knows; 0 is not known.
	PathMTU int `json:"pathMTU,omitempty"`
	// BlackHole says that longer packets vanish on the way, and no router says so.
	BlackHole bool   `json:"blackHole,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Cause     *Cause `json:"cause,omitempty"`
	// Next is what to do or to look at where the tunnel is not as it should be.
	Next string `json:"next,omitempty"`
	// SinceSeconds is how long the state has lasted.
	SinceSeconds int64  `json:"sinceSeconds"`
	HostName     string `json:"hostName"`
	PeerHostName string `json:"peerHostName,omitempty"`
	RouterID     string `json:"routerID"`
	PeerRouterID string `json:"peerRouterID,omitempty"`
	PeerVendor   string `json:"peerVendor,omitempty"`
	// PeerNumbers is "cisco" where the attributes of control messages have the numbers
	// of before RFC 3931, empty for the standard ones.
	PeerNumbers  string  `json:"peerNumbers,omitempty"`
	HelloSeconds float64 `json:"helloSeconds"`
	Ns           uint16  `json:"ns"`
	Nr           uint16  `json:"nr"`
	PeerWindow   uint16  `json:"peerWindow,omitempty"`
	// CongestionWindow is how much of the peer's window is used now; Queued messages wait
	// for it.
	CongestionWindow int `json:"congestionWindow,omitempty"`
	Queued           int `json:"queued,omitempty"`
	// Tries is how often the unacknowledged were repeated, RetransmitSeconds when they
	// will be again.
	Tries             int     `json:"tries,omitempty"`
	RetransmitSeconds float64 `json:"retransmitSeconds,omitempty"`
	// RTTSeconds is the smoothed time from a message to its acknowledgment, 0 while it has
	// not been measured.
	RTTSeconds float64 `json:"rttSeconds,omitempty"`
	// HeardSeconds is how long ago the peer was last heard, data included.
	HeardSeconds int64 `json:"heardSeconds,omitempty"`
	// Role is "initiator" or "responder" of the connection, "static" of a tunnel that has
	// none and needs none, empty of one that has none yet.
	Role          string `json:"role,omitempty"`
	Authenticated bool   `json:"authenticated"`
	ECN           bool   `json:"ecn"`
	// PeerCapabilities are the pseudowire types that the peer takes.
	PeerCapabilities []string     `json:"peerCapabilities,omitempty"`
	Unacknowledged   int          `json:"unacknowledged"`
	Retransmits      uint64       `json:"retransmits"`
	Sessions         int          `json:"sessions"`
	History          []Transition `json:"history,omitempty"`
	// ControlMessages counts the tunnel's control messages: received, transmitted, and
	// those dropped, by reason.
	ControlMessages   map[string]uint64 `json:"controlMessages,omitempty"`
	ReceivedFrames    uint64            `json:"receivedFrames"`
	ReceivedOctets    uint64            `json:"receivedOctets"`
	TransmittedFrames uint64            `json:"transmittedFrames"`
	TransmittedOctets uint64            `json:"transmittedOctets"`
}

// Transition is a change of state and why it happened. From and To are the states of
// RFC 3931, Sections 7.2 to 7.4; they are the same where only the reason is news.
type Transition struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from"`
	Event  string    `json:"event,omitempty"`
	To     string    `json:"to"`
	Reason string    `json:"reason,omitempty"`
	Cause  *Cause    `json:"cause,omitempty"`
	// Times is how often it has happened in a row, since First; 0 is once.
	Times int        `json:"times,omitempty"`
	First *time.Time `json:"first,omitempty"`
}

// Session is one L2TPv3 session.
type Session struct {
	Tunnel          string `json:"tunnel"`
	Pseudowire      string `json:"pseudowire"`
	Peer            string `json:"peer"`
	State           string `json:"state"` // established, signalling, down
	LocalSessionID  uint32 `json:"localSessionID"`
	RemoteSessionID uint32 `json:"remoteSessionID"`

	Reason        string `json:"reason,omitempty"`
	Cause         *Cause `json:"cause,omitempty"`
	SinceSeconds  int64  `json:"sinceSeconds"`
	LocalCircuit  string `json:"localCircuit,omitempty"`
	RemoteCircuit string `json:"remoteCircuit,omitempty"`
	// LocalErrors and RemoteErrors are errors of the two attachment circuits since the
	// session was established, by kind; the peer's as its last WEN has them.
	LocalErrors       map[string]uint64 `json:"localErrors,omitempty"`
	RemoteErrors      map[string]uint64 `json:"remoteErrors,omitempty"`
	CookieOctets      int               `json:"cookieOctets"`
	ReceivedFrames    uint64            `json:"receivedFrames"`
	ReceivedOctets    uint64            `json:"receivedOctets"`
	TransmittedFrames uint64            `json:"transmittedFrames"`
	TransmittedOctets uint64            `json:"transmittedOctets"`
	Drops             map[string]uint64 `json:"drops,omitempty"`
	History           []Transition      `json:"history,omitempty"`
}

// Kinds of errors of an attachment circuit (RFC 3931, Section 5.4.5, and the two
// of RFC 2661 before them).
const (
	ErrorsCRC              = "crc"
	ErrorsFraming          = "framing"
	ErrorsHardwareOverruns = "hardware-overruns"
	ErrorsBufferOverruns   = "buffer-overruns"
	ErrorsTimeouts         = "timeouts"
	ErrorsAlignment        = "alignment"
)

// Pseudowire is one pseudowire of the site.
type Pseudowire struct {
	Name     string `json:"name"`
	Peer     string `json:"peer"`
	State    string `json:"state"` // up, down, standby
	Device   string `json:"device"`
	Datapath string `json:"datapath"` // ebpf, kernel
	Reason   string `json:"reason"`
	// Cause is the session's, Next what to do where the pseudowire is down.
	Cause *Cause `json:"cause,omitempty"`
	Next  string `json:"next,omitempty"`

	// StormControl are the limits, in words, empty for none.
	StormControl string `json:"stormControl,omitempty"`
	// Police is what comes out of it at most, in bits a second, 0 for no limit.
	Police uint64 `json:"police,omitempty"`

	Type              string            `json:"type"`
	Tunnel            string            `json:"tunnel"`
	MTU               int               `json:"mtu"`
	Attachment        string            `json:"attachment"`
	SinceSeconds      int64             `json:"sinceSeconds"`
	ReceivedFrames    uint64            `json:"receivedFrames"`
	ReceivedOctets    uint64            `json:"receivedOctets"`
	TransmittedFrames uint64            `json:"transmittedFrames"`
	TransmittedOctets uint64            `json:"transmittedOctets"`
	Drops             map[string]uint64 `json:"drops,omitempty"`

	// SuppressedRequests are those of address resolution that were answered at this site, nil
	// where none are.
	SuppressedRequests *uint64 `json:"suppressedRequests,omitempty"`

	// Redundancy is nil for a pseudowire of one tunnel; otherwise Tunnel is that in use.
	Redundancy *Redundancy `json:"redundancy,omitempty"`
	// Steering is nil for one whose frames take one tunnel; otherwise Tunnel are those in use.
	Steering *Steering `json:"steering,omitempty"`
}

// Steering is how the frames of a pseudowire are spread over its tunnels.
type Steering struct {
	// Rules are in words, in order: the first that matches decides.
	Rules []string `json:"rules"`
	// Tunnels are by preference: the last one takes what no rule says anything of.
	Tunnels []SteeredTunnel `json:"tunnels"`
}

// SteeredTunnel is one of the tunnels.
type SteeredTunnel struct {
	Tunnel            string `json:"tunnel"`
	State             string `json:"state"` // used, down, drained
	Reason            string `json:"reason,omitempty"`
	TransmittedFrames uint64 `json:"transmittedFrames"`
	ReceivedFrames    uint64 `json:"receivedFrames"`
}

// Redundancy is how the tunnels of a pseudowire stand in for each other.
type Redundancy struct {
	// DecidedBy is the site that chooses, Why what the last choice was for.
	DecidedBy    string  `json:"decidedBy"`
	Why          string  `json:"why"`
	SinceSeconds int64   `json:"sinceSeconds"`
	Revertive    bool    `json:"revertive"`
	HoldSeconds  float64 `json:"holdSeconds"`
	// Tunnels are by preference.
	Tunnels []RedundantTunnel `json:"tunnels"`
}

// RedundantTunnel is one of the tunnels.
type RedundantTunnel struct {
	Tunnel       string `json:"tunnel"`
	State        string `json:"state"` // used, chosen, standby, failed
	Reason       string `json:"reason,omitempty"`
	SinceSeconds int64  `json:"sinceSeconds"`
}

// Attachment is one attachment circuit.
type Attachment struct {
	Pseudowire string `json:"pseudowire"`
	Bridge     string `json:"bridge,omitempty"`
	Interface  string `json:"interface,omitempty"`
	VLAN       uint16 `json:"vlan,omitempty"`
	// Frames are those of the circuit, in words, empty for all: "vlan 100", "vlans 100,200-210".
	Frames string `json:"frames,omitempty"`
	Device string `json:"device"`
	// PrivateBridge is that of the interface, made where one is needed.
	PrivateBridge string `json:"privateBridge,omitempty"`
	// CrossConnected says that frames pass between interface and pseudowire without a bridge.
	CrossConnected bool   `json:"crossConnected,omitempty"`
	State          string `json:"state"` // up, down
	Reason         string `json:"reason,omitempty"`
}

// MAC is an address that a bridge of the site has learned, and where it is.
type MAC struct {
	Address string `json:"address"`
	Bridge  string `json:"bridge"`
	VLAN    uint16 `json:"vlan,omitempty"`
	Port    string `json:"port"`
	// Pseudowire and Peer are empty where it is at this site.
	Pseudowire string `json:"pseudowire,omitempty"`
	Peer       string `json:"peer,omitempty"`
	// SinceSeconds is for how long it has been there, as far as the daemon has seen;
	// IdleSeconds for how long it has sent nothing.
	SinceSeconds int64 `json:"sinceSeconds"`
	IdleSeconds  int64 `json:"idleSeconds"`
}

// AnnounceRequest names the pseudowires to announce on; none is all.
type AnnounceRequest struct {
	Pseudowires []string `json:"pseudowires,omitempty"`
}

// Announcement is how many of the site's addresses were announced on a pseudowire.
// Reason is why none or not all were.
type Announcement struct {
	Pseudowire string `json:"pseudowire"`
	Peer       string `json:"peer"`
	Addresses  int    `json:"addresses"`
	Reason     string `json:"reason,omitempty"`
}

// Status is the daemon in one screen.
type Status struct {
	Site     string `json:"site"`
	Topology string `json:"topology"`
	Version  string `json:"version"`
	// Health is "healthy" or "degraded"; Problems say what is wrong and what to do.
	Health   string    `json:"health"`
	Problems []Problem `json:"problems"`
	Started  time.Time `json:"started"`
	// Generation counts the applied topologies; AppliedHash and FileHash are
	// SHA-256 of the one in force and of the file, FileDiffers that they do.
	Generation  int       `json:"generation"`
	Applied     time.Time `json:"applied"`
	AppliedHash string    `json:"appliedHash"`
	FileHash    string    `json:"fileHash,omitempty"`
	FileDiffers bool      `json:"fileDiffers"`
	// ConfirmBy is when the topology before is put back unless this one is confirmed.
	ConfirmBy *time.Time `json:"confirmBy,omitempty"`
	Datapath  string     `json:"datapath"`
	// Notes are facts worth knowing that are not problems, as "no bpffs".
	Notes []string `json:"notes,omitempty"`
	// Restart says what keeps the sockets of the kernel's datapath while the daemon is away.
	Restart     Restart           `json:"restart"`
	Tunnels     []Tunnel          `json:"tunnels"`
	Pseudowires []Pseudowire      `json:"pseudowires"`
	Counters    map[string]uint64 `json:"counters,omitempty"`
	// Drift counts what others have changed.
	Drift DriftCount `json:"drift"`
	// Strangers are who sent what was dropped and is no tunnel's, the last first.
	Strangers []Stranger `json:"strangers,omitempty"`
}

// Restart says which places there are that keep sockets.
type Restart struct {
	// Store is the service manager's, for a restart, a crash and an upgrade.
	Store bool `json:"store"`
	// Holder is a process beside the daemon, for a stop and a start, too.
	Holder bool `json:"holder"`
}

// Problem is one thing that is wrong.
type Problem struct {
	Object string `json:"object"`
	What   string `json:"what"`
	Fix    string `json:"fix,omitempty"`
}

// ApplyRequest carries a topology file. Name is what diagnostics call it. Directory
// is what the names of secrets' files in it are relative to, an absolute path at the
// daemon's host: the daemon reads them.
type ApplyRequest struct {
	Name      string `json:"name"`
	Document  string `json:"document"`
	Directory string `json:"directory,omitempty"`
	DryRun    bool   `json:"dryRun,omitempty"`
	// Disruptive allows changes that interrupt traffic.
	Disruptive   bool `json:"disruptive,omitempty"`
	RequirePeers bool `json:"requirePeers,omitempty"`
	// ConfirmSeconds is for how long the topology stays in force without being confirmed;
	// 0 is for good.
	ConfirmSeconds float64 `json:"confirmSeconds,omitempty"`
	// Untrusted is set by the server: whoever asks may not change the site, so that
	// nothing is to be found out about files for them.
	Untrusted bool `json:"-"`
	// By is set by the server: who asks.
	By string `json:"-"`
}

// ApplyResult is what an apply did or, with DryRun, would do.
type ApplyResult struct {
	Generation int      `json:"generation"`
	Changes    []Change `json:"changes"`
	// Untouched are the objects that a dry run would leave as they are.
	Untouched []Object `json:"untouched,omitempty"`
	// Waiting lists new pseudowires that are not up, as "tenant-a: waiting for dc2".
	Waiting []string `json:"waiting,omitempty"`
	// Warnings do not stand in the way.
	Warnings []Diagnostic `json:"warnings,omitempty"`
	Seconds  float64      `json:"seconds"`
	// ConfirmBy is when the topology before is put back unless this one is confirmed.
	ConfirmBy *time.Time `json:"confirmBy,omitempty"`
}

// RotateRequest names the pseudowires that are to get other cookies; none is all.
type RotateRequest struct {
	Pseudowires []string `json:"pseudowires,omitempty"`
}

// Rotation is what became of one pseudowire's cookie: the one that this site
// assigned, and its peer sends.
type Rotation struct {
	Pseudowire string `json:"pseudowire"`
	// Tunnel tells the sessions of a pseudowire apart that has several.
	Tunnel string `json:"tunnel,omitempty"`
	Peer   string `json:"peer"`
	Result string `json:"result"` // done, pending, failed
	Reason string `json:"reason,omitempty"`
}

// Change is one step of an apply.
type Change struct {
	Action string `json:"action"` // add, change, remove
	Kind   string `json:"kind"`   // bridge, tunnel, pseudowire, attachment
	Name   string `json:"name"`
	// Impact is "live", "resets-session" or "recreates"; empty where nothing runs yet.
	Impact string `json:"impact,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Object is one of a site's.
type Object struct {
	Kind string `json:"kind"` // bridge, tunnel, pseudowire
	Name string `json:"name"`
}

// Diagnostic is one fault of a topology, at its place.
type Diagnostic struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Severity string `json:"severity"` // error, warning
	Code     string `json:"code"`
	Path     string `json:"path,omitempty"`
	Message  string `json:"message"`
	Help     string `json:"help,omitempty"`
	Source   string `json:"source,omitempty"`
	// Caret is the position of Column in Source, in characters from 1.
	Caret int `json:"caret,omitempty"`
	// Other is a second place that the fault is about; its Message says what is
	// there, as "first used here".
	Other *OtherPlace `json:"other,omitempty"`
}

// OtherPlace is the second place of a Diagnostic.
type OtherPlace struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Source  string `json:"source,omitempty"`
	Caret   int    `json:"caret,omitempty"`
}

// Error is the body of every answer that is not a success (RFC 9457). Code is
// stable: one of the Code constants.
type Error struct {
	Code        string       `json:"code"`
	Title       string       `json:"title"`
	Detail      string       `json:"detail,omitempty"`
	Status      int          `json:"status"`
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
	// Changes are those that need a confirmation.
	Changes []Change `json:"changes,omitempty"`
}

// Error is the title and the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Title
	}
	return e.Title + ": " + e.Detail
}

// Event is one thing that happened.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Severity string    `json:"severity"` // info, warning, error
	// Object is what it happened to, as "tunnel gold/dc2"; Message says what, in words.
	Object  string `json:"object"`
	Message string `json:"message"`
	Reason  string `json:"reason,omitempty"`
	Cause   *Cause `json:"cause,omitempty"`
	// Next is what to do or to look at.
	Next string `json:"next,omitempty"`
}

// Pulse is the least that there is to say of a daemon that answers.
type Pulse struct {
	Site       string
	Generation int
}

// Backend is what the server serves. Every error it returns is an *Error or is
// shown as "internal".
type Backend interface {
	// Pulse says that the daemon lives, and costs it little.
	Pulse(context.Context) (Pulse, error)
	Status(context.Context) (*Status, error)
	Tunnels(context.Context) ([]Tunnel, error)
	Sessions(context.Context) ([]Session, error)
	Pseudowires(context.Context) ([]Pseudowire, error)
	Attachments(context.Context) ([]Attachment, error)
	Classes(context.Context) ([]Class, error)
	MACs(context.Context) ([]MAC, error)
	// Announce tells peers which addresses are at this site.
	Announce(context.Context, AnnounceRequest) ([]Announcement, error)
	// Classify says what would become of frames.
	Classify(context.Context, ClassifyRequest) ([]Classification, error)
	// Drift lists what others have changed, the last first.
	Drift(context.Context) ([]Drift, error)
	// Drain has something not used any more, or used again, and waits a while for that.
	Drain(context.Context, DrainRequest) ([]Drained, error)
	Apply(context.Context, ApplyRequest) (*ApplyResult, error)
	Keeper
	// RotateCookies gives pseudowires other cookies, and waits a while for their peers.
	RotateCookies(context.Context, RotateRequest) ([]Rotation, error)
	// Events calls emit with every event kept that is newer than since, then, if
	// follow is set, with new ones until the context ends or emit fails.
	Events(ctx context.Context, since uint64, follow bool, emit func(Event) error) error
	// Capture writes a pcapng file of control messages, each message with one Write,
	// until what the request says is reached, or the context ends or w fails.
	Capture(ctx context.Context, req CaptureRequest, w io.Writer) error
}
