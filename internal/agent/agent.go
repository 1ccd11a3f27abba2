// Package agent is the daemon: it makes a site what its topology says, and
// keeps it so.
//
// # Flow
//
// One goroutine, Run's, owns everything that can change: the control machine,
// the transport, the datapaths, the bridges and the topology in force. What
// comes in (packets, the clock, kernel events, the API's calls) reaches it
// through channels; each is followed by settle, which carries out what the
// control machine asks for.
//
// # Order
//
// settle does the control machine's outputs in their order, with one exception:
// packets leave last, after the state of every tunnel that changed is in its
// file, the ports of new sockets included. So a session's data plane is there
// before the message that lets the peer use it, and a daemon that is killed at
// any moment comes back knowing at least what its peers have heard from it.
//
// # Level-triggered
//
// Every setter below the agent takes the whole desired state of its object and
// changes only what differs. What could not be done because something is
// missing (an interface, an address) is tried again after kernel events and
// every few seconds.
//
// # One topology or the other
//
// A topology is carried out step by step; when a step fails those before it are
// undone, and then everything of the topology in force is set once more. What is
// applied through the API comes into force for good, and into the file of the
// generation, when it has been verified: a daemon that ends before that goes on
// with the topology before.
package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/qos"
)

// Options are a daemon's settings. Site, StateDir and Datapaths are required.
type Options struct {
	Site string
	// TopologyFile may be empty: the daemon goes on with the last one applied.
	TopologyFile string
	StateDir     string
	Version      string
	// Datapaths are all that this host may have, by preference.
	Datapaths []Opener
	// Datapath carries the pseudowires that do not say; empty is the first of
	// Datapaths that opens.
	Datapath pseudowire.Kind
	// Timers of the control protocol; zero fields have its defaults.
	Timers control.Timers
	// OnStopTeardown closes connections and removes everything at a stop.
	OnStopTeardown bool
	// BPFDir is where shaping pins maps, below a bpffs; empty is nowhere.
	BPFDir string
	// Keeper keeps the sockets of the kernel's tunnels beyond the end of the process; nil is none.
	Keeper Keeper
	// Reloaded, if set, is called by Run's goroutine each time a Reload has been carried out.
	Reloaded func()
	// Logger takes what happens; nil is silent.
	Logger *slog.Logger
}

// Opener opens one kind of datapath. An error that is errors.ErrUnsupported
// says that the host has no such datapath.
type Opener struct {
	Kind pseudowire.Kind
	Open func() (pseudowire.Datapath, error)
}

// circuits is what the agent needs of bridge.Manager.
type circuits interface {
	Supports() (vlanFiltering, vlanDevices bool, err error)
	SetBridge(bridge.Bridge) error
	RemoveBridge(name string) error
	SetAttachment(bridge.Attachment) error
	RemoveAttachment(pseudowires ...string) error
	Release(devices []string) error
	Repairs() []drift.Repair
	Heed(held func(thing string) bool)
	AttachmentStates(pseudowires ...string) map[string]bridge.State
	CircuitErrors(name string) (bridge.CircuitErrors, bool)
	Addressed() (map[string]bool, error)
	MACs() ([]bridge.MAC, error)
	Announce(pseudowire string) (int, error)
	Flush(pseudowire string) error
	SetBlocked(pseudowire string, blocked bool) error
	Port(index int) (name, pseudowire string)
	Sides(pseudowires ...string) (map[string][]bridge.Side, error)
	SetKept(pseudowire string, to bridge.Address, kept bool) error
	Refresh() error
	Prune() error
	Close() error
	Cleanup() error
}

// sockets is what the agent needs of transport.Transport.
type sockets interface {
	Ready() <-chan struct{}
	Take() (transport.Packet, bool)
	Transmit(control.Transmit) error
	SetEndpoints([]transport.Endpoint) error
	SetPeers([]netip.Addr)
	SetDataSessions(ids []uint32) error
	Connect(control.Connected) error
	Release(connection uint32)
	Path(connection uint32) (local, remote netip.AddrPort, ok bool)
	Socket(connection uint32) (int, error)
	PathMTU(connection uint32, heed bool) int
	Trouble(connection uint32) *transport.Trouble
	SaveConnection(connection uint32) (transport.ConnectionState, bool)
	Restore(transport.State) error
	Refresh() error
	Inherit(name string, fd int) error
	Inherits(transport.ConnectionState) bool
	Disown() (names []string)
	KeepAgain()
	Counters() transport.Counters
	Close() error
}

// shaper is what the agent needs of qos.Manager.
type shaper interface {
	Egress(local, remote netip.Addr) (index int, err error)
	Set([]qos.Interface) error
	Counters(index int) (map[uint16]qos.Counters, error)
	Repairs() []drift.Repair
	Heed(held func(thing string) bool)
	Cleanup() error
	Close()
}

// Agent is one site's daemon. It implements api.Backend.
type Agent struct {
	opt     Options
	log     *slog.Logger
	boot    string
	started time.Time
	// host opens what there is of the host: the namespace, its kernel and datapaths.
	host func(*Agent) error
	// disk is the store's, if set.
	disk func(what string, do func() error) error

	store     *store
	namespace *namespaceLock
	kernel    *watcher
	events    *eventLog
	faults    faults
	drops     drops
	drifts    drifts
	contests  contests
	bursts    map[string]*burst
	control   *control.Endpoint
	transport sockets
	bridges   circuits
	macs      *macWatch
	shaper    shaper
	datapaths map[pseudowire.Kind]pseudowire.Datapath
	standard  pseudowire.Kind
	// notes are facts about this host for the status.
	notes []string

	// generation and local are the topology in force and the site's part of it.
	generation *generation
	local      *topology.Local
	// trial is the apply that has yet to be verified, nil if there is none; the
	// file is to be read after it if fileDue is set.
	trial *trial
	// unkept is a generation that could not be written into the history.
	unkept *generation
	// misfiled is a generation that was taken back and may be in the file.
	misfiled *generation
	file     fileState
	fileDue  bool
	// secretsTold is what was told about secrets in force.
	secretsTold map[string]bool

	// made are the bridges that were set.
	made    map[string]bool
	tunnels map[string]*tunnel
	// numbers are the tunnels' classes in the shaper, shaping is set while it shapes.
	numbers numbers
	// groups are the numbers of what tunnels share there: underlays and pairs of sites.
	groups  numbers
	paces   paces
	shaping bool
	wires   map[string]*wire
	// unknowns are what peers ask for and is not in wires.
	unknowns unknowns
	// places has the wires by where their attachments are.
	places map[where]map[*wire]bool
	// sessions that are in a datapath, by local ID.
	sessions map[uint32]*installed
	// orphans are sessions that nothing wants and that their datapath would not let go of.
	orphans map[uint32]pseudowire.Datapath
	// carried is what the datapaths were last told of tunnels.
	carried map[carrier]pseudowire.Tunnel
	// dials are the tunnels of the sockets with a port of their own, by connection.
	dials map[uint32]string
	// pathCaps are what was saved of tunnels that are not set yet (pathProbe.cap).
	pathCaps map[string]int
	// probeWait is for how long the answer to a probe of a path is waited for.
	probeWait time.Duration
	// heard is what the sessions had received when their counters were last read.
	heard    map[uint32]uint64
	lastLook time.Time
	// errors are what interfaces of attachment circuits had counted at the last look.
	errors map[string]bridge.CircuitErrors
	// rest is when the kernel may be looked at again.
	rest time.Time
	calls
	// refreshed is when the datapaths last looked at everything, refreshTook how long that and the look before took.
	refreshed   time.Time
	refreshTook [2]time.Duration

	// redundant are the pseudowires of several tunnels, undecided those with news of them.
	// watchAt is when all are looked at again, every watchEvery; zero is never. former is how an earlier daemon
	// signalled their sessions, restored when that was taken up.
	undecided, redundant map[*wire]bool
	watchAt              time.Time
	watchEvery           time.Duration
	// watchChanged says that watchEvery may be another, watchLate that the last look was
	// put off because it came late.
	watchChanged, watchLate bool
	restored                time.Time
	former                  map[string]l2tpv3.CircuitStatus

	// drains are what is not to be used.
	drains []drain
	loops  loops

	// peers are the addresses that the topology gives to peers.
	peers map[netip.Addr]bool

	// limitAt is when limits on addresses are looked at, zero if they need not be; limited is when they were.
	limitAt, limited time.Time

	// taps are the captures under way.
	taps []*tap

	// outbox is what leaves once the state is saved.
	outbox []parting
	// leaving is what is to go from datapaths after that, ending the tunnels among it.
	leaving []func()
	ending  map[string]bool
	// failed are tunnels whose attempt has just come to nothing.
	failed []*tunnel
	// statics are the sockets of static tunnels that an earlier daemon left and nobody has asked for yet,
	// staticsDue says that they are others than their file has.
	statics    map[uint32]transport.ConnectionState
	staticsDue bool
	// unsaved are tunnels whose state could not be written.
	unsaved map[string]bool
	// resumed is set once everything has been taken up that an earlier daemon left,
	// closing once everything is to go, resignal when a circuit may have changed,
	// unclean when something could not be removed, dataDue when other sessions are
	// in the datapaths than the transport was told of, peersDue when peers may have other
	// addresses, lanesDue when there are other sessions than captures of data know.
	resumed, closing, resignal, unclean, dataDue, peersDue, lanesDue bool

	// attached are pseudowires whose devices came into their attachment circuits with a session:
	// their circuits may have changed, those of others have not.
	attached map[string]bool

	patience patience
	applying chan struct{}
	commands chan func()
	reload   chan struct{}
	// quit is closed when Run is to end, stopping when its loop has, stopped when
	// everything is closed.
	quit              <-chan struct{}
	stopping, stopped chan struct{}
	changed           *broadcast
}

// New opens what the daemon needs and takes up what an earlier one left: its
// connections, its sessions, its kernel objects. Nothing is signalled before Run.
//
// The calling thread has to be the one that calls Run, if it is in a network
// namespace of its own. Errors: *BusyError, *NamespaceBusyError, *SiteError,
// *VersionError, *DamagedError, a *topology.InvalidError if the file is invalid
// and nothing was applied before, and those of what is opened.
func New(opt Options) (*Agent, error) {
	return newAgent(opt).begun()
}

// begun is New of an agent that has its options.
func (a *Agent) begun() (*Agent, error) {
	err := a.open()
	if err == nil {
		a.bridges.Heed(a.held)
		a.shaper.Heed(a.held)
		err = a.resume()
	}
	if err != nil {
		if failed := a.Close(); failed != nil {
			a.log.Warn("cannot close everything", "err", failed)
		}
		return nil, err
	}
	return a, nil
}

func newAgent(opt Options) *Agent {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{
		opt: opt, log: opt.Logger, boot: bootID(), started: time.Now(), host: (*Agent).openAll,
		events:    newEventLog(),
		faults:    newFaults(opt.Logger),
		drops:     newDrops(opt.Logger),
		bursts:    make(map[string]*burst),
		datapaths: make(map[pseudowire.Kind]pseudowire.Datapath),
		made:      make(map[string]bool),
		ending:    make(map[string]bool),
		calls:     calls{strayed: make(map[string]uint32), unsent: make(map[string]bool)},
		tunnels:   make(map[string]*tunnel),
		numbers:   make(numbers),
		groups:    make(numbers),
		paces:     make(paces),
		shaping:   true, // until what an earlier daemon left has been seen to
		wires:     make(map[string]*wire),
		unknowns:  make(unknowns),
		places:    make(map[where]map[*wire]bool),
		sessions:  make(map[uint32]*installed),
		orphans:   make(map[uint32]pseudowire.Datapath),
		carried:   make(map[carrier]pseudowire.Tunnel),
		dials:     make(map[uint32]string),
		pathCaps:  make(map[string]int),
		probeWait: defaultProbeWait,
		heard:     make(map[uint32]uint64),
		unsaved:   make(map[string]bool),
		undecided: make(map[*wire]bool),
		redundant: make(map[*wire]bool),
		attached:  make(map[string]bool),
		loops:     loops{guards: make(map[string]*watched), announce: make(map[string]time.Time)},
		dataDue:   true,
		patience:  defaultPatience,
		applying:  make(chan struct{}, 1),
		commands:  make(chan func()),
		reload:    make(chan struct{}, 1),
		stopping:  make(chan struct{}),
		stopped:   make(chan struct{}),
		changed:   newBroadcast(),
	}
}

// open takes what the daemon needs, what can refuse it first: an invalid
// topology has to leave no trace in the kernel.
func (a *Agent) open() error {
	var err error
	if a.store, err = openStore(a.opt.StateDir); err != nil {
		return err
	}
	a.store.disk = a.disk
	if a.generation, err = a.store.generation(); err != nil {
		return err
	}
	if g := a.generation; g != nil && g.Site != a.opt.Site {
		return &SiteError{Dir: a.opt.StateDir, Got: g.Site, Want: a.opt.Site}
	}
	if err := a.resumeProbation(time.Now(), uptime()); err != nil {
		return err
	}
	if err := a.mendDatapaths(); err != nil {
		return err
	}
	if a.drains, err = a.store.drains(); err != nil {
		return err
	}
	boundDrains(time.Now(), a.drains)
	if err := a.choose(); err != nil {
		return err
	}
	return a.host(a)
}

// openAll opens what there is of this host.
func (a *Agent) openAll() error {
	var err error
	if a.namespace, err = lockNamespace(a.log); err != nil {
		return err
	}
	if a.kernel, err = watchKernel(a.log); err != nil {
		return err
	}
	if err := a.openStandard(); err != nil {
		return err
	}
	return a.openHost()
}

// openHost opens the bridges, the sockets and the control machine.
func (a *Agent) openHost() error {
	bridges, err := bridge.Open(bridge.Options{Logger: a.log})
	if err != nil {
		return fmt.Errorf("open bridges: %w", err)
	}
	a.bridges = bridges
	if a.macs, err = a.watchMACs(bridges); err != nil {
		return err
	}
	q, err := qos.Open(replacedQdiscs{a.store}, a.opt.BPFDir)
	if err != nil {
		return fmt.Errorf("open shaping: %w", err)
	}
	a.shaper = q
	t, err := transport.Open(transport.Options{Logger: a.log, Keeper: a.opt.Keeper})
	if err != nil {
		return fmt.Errorf("open transport: %w", err)
	}
	a.transport = t
	a.control = a.newControl()
	return nil
}

// SiteError says that a state directory belongs to another site.
type SiteError struct{ Dir, Got, Want string }

func (e *SiteError) Error() string {
	return fmt.Sprintf("state directory %s belongs to site %s, not %s: use another --state-dir, or remove what %s left with --cleanup --site %s",
		e.Dir, e.Got, e.Want, e.Got, e.Got)
}

// Close gives up all handles of an agent that will not Run; what is in the
// kernel stays.
func (a *Agent) Close() error {
	var errs []error
	for _, dp := range a.datapaths {
		errs = append(errs, dp.Close())
	}
	clear(a.datapaths)
	if a.transport != nil {
		errs = append(errs, a.transport.Close())
	}
	if a.bridges != nil {
		errs = append(errs, a.bridges.Close())
	}
	if a.macs != nil {
		a.macs.news.Close()
	}
	if a.loops.ears != nil {
		a.loops.ears.close()
	}
	if a.shaper != nil {
		a.shaper.Close()
	}
	if a.kernel != nil {
		a.kernel.close()
	}
	if a.namespace != nil {
		a.namespace.close()
	}
	if a.store != nil {
		errs = append(errs, a.store.close())
	}
	return errors.Join(errs...)
}

// Reload has the topology file read again, as SIGHUP does.
func (a *Agent) Reload() {
	select {
	case a.reload <- struct{}{}:
	default:
	}
}
