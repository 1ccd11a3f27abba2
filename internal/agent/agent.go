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
// file. So a session's data plane is there before the message that lets the
// peer use it, and a daemon that is killed at any moment comes back knowing at
// least what its peers have heard from it.
//
// # Level-triggered
//
// Every setter below the agent takes the whole desired state of its object and
// changes only what differs. What could not be done because something is
// missing (an interface, an address) is tried again after every kernel event.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Options are a daemon's settings. All but Logger and OnStopTeardown are required.
type Options struct {
	Site string
	// TopologyFile may be empty: the daemon goes on with the last one applied.
	TopologyFile string
	StateDir     string
	Version      string
	// Datapaths opens them, by preference: the first that opens is the default.
	Datapaths []Opener
	Timers    control.Timers
	// OnStopTeardown closes connections and removes everything at a stop.
	OnStopTeardown bool
	Logger         *slog.Logger
}

// Opener opens one kind of datapath.
type Opener struct {
	Kind pseudowire.Kind
	Open func() (pseudowire.Datapath, error)
}

// Agent is one site's daemon. It implements api.Backend.
type Agent struct {
	opt     Options
	log     *slog.Logger
	boot    string
	started time.Time

	store     *store
	events    *eventLog
	control   *control.Endpoint
	transport *transport.Transport
	bridges   *bridge.Manager
	datapaths map[pseudowire.Kind]pseudowire.Datapath
	standard  pseudowire.Kind

	generation *generation
	// local is the site's part of the topology in force.
	local *topology.Local
	// fileHash is of the topology file as it was last seen, fileFault what was wrong with it.
	fileHash  string
	fileFault topology.Diagnostics

	wires    map[string]*wire
	sessions map[uint32]*wire // by local session ID
	heard    map[uint32]uint64
	lastLook time.Time

	outbox   []control.Output
	applying sync.Mutex
	commands chan func()
	reload   chan struct{}
	// stopped is closed when Run has ended.
	stopped chan struct{}
	changed *broadcast
}

// New opens what the daemon needs and takes up what an earlier one left: its
// connections, its sessions, its kernel objects. Nothing is signalled before Run.
func New(opt Options) (*Agent, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		opt: opt, log: opt.Logger, boot: bootID(), started: time.Now(),
		events:    newEventLog(),
		datapaths: make(map[pseudowire.Kind]pseudowire.Datapath),
		wires:     make(map[string]*wire),
		sessions:  make(map[uint32]*wire),
		heard:     make(map[uint32]uint64),
		commands:  make(chan func()),
		reload:    make(chan struct{}, 1),
		stopped:   make(chan struct{}),
		changed:   newBroadcast(),
	}
	if err := a.open(); err != nil {
		a.Close()
		return nil, err
	}
	if err := a.resume(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Agent) open() error {
	var err error
	if a.store, err = openStore(a.opt.StateDir); err != nil {
		return err
	}
	if a.generation, err = a.store.generation(); err != nil {
		return err
	}
	if g := a.generation; g != nil && g.Site != a.opt.Site {
		return &SiteError{Dir: a.opt.StateDir, Got: g.Site, Want: a.opt.Site}
	}
	if err := a.openDatapath(); err != nil {
		return err
	}
	if a.bridges, err = bridge.Open(bridge.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open bridges: %w", err)
	}
	if a.transport, err = transport.Open(transport.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open transport: %w", err)
	}
	a.control = control.New(control.Config{
		Random:         rand.Reader,
		Timers:         a.opt.Timers,
		VendorName:     "pwd " + a.opt.Version,
		SessionIDTaken: a.sessionIDTaken,
	})
	return nil
}

// openDatapath opens the first datapath of the preferred ones that this host offers.
func (a *Agent) openDatapath() error {
	var errs []error
	for _, o := range a.opt.Datapaths {
		dp, err := o.Open()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s datapath: %w", o.Kind, err))
			continue
		}
		a.datapaths[o.Kind], a.standard = dp, o.Kind
		for _, err := range errs {
			a.log.Warn("datapath is not available, using another", "datapath", o.Kind, "err", err)
		}
		return nil
	}
	return fmt.Errorf("no datapath works on this host: %w", errors.Join(errs...))
}

// datapath returns the one that a pseudowire asks for, opening it if need be.
func (a *Agent) datapath(kind pseudowire.Kind) (pseudowire.Datapath, error) {
	if dp := a.datapaths[kind]; dp != nil {
		return dp, nil
	}
	for _, o := range a.opt.Datapaths {
		if o.Kind != kind {
			continue
		}
		dp, err := o.Open()
		if err != nil {
			return nil, fmt.Errorf("%s datapath: %w", kind, err)
		}
		a.datapaths[kind] = dp
		return dp, nil
	}
	return nil, fmt.Errorf("the %s datapath is excluded by --datapath: allow it there or leave `datapath` out of the topology", kind)
}

// sessionIDTaken asks the datapaths for session IDs of others: they are unique in
// a network namespace.
func (a *Agent) sessionIDTaken(id uint32) bool {
	for _, dp := range a.datapaths {
		if t, ok := dp.(interface{ SessionTaken(uint32) (bool, error) }); ok {
			taken, err := t.SessionTaken(id)
			if err != nil {
				a.log.Warn("cannot look at sessions of others", "err", err)
			}
			if !taken {
				continue
			}
			return true
		}
	}
	return false
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
	if a.transport != nil {
		errs = append(errs, a.transport.Close())
	}
	if a.bridges != nil {
		errs = append(errs, a.bridges.Close())
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

// readFile reads and checks the topology file. The hash is of whatever was read,
// good or bad.
func (a *Agent) readFile() (document, hash string, local *topology.Local, diags topology.Diagnostics, err error) {
	b, err := os.ReadFile(a.opt.TopologyFile)
	if err != nil {
		return "", "", nil, nil, fmt.Errorf("read topology: %w", err)
	}
	local, diags = parse(a.opt.TopologyFile, b, a.opt.Site)
	return string(b), hashOf(b), local, diags, nil
}

// parse reads a topology as one site sees it; local is nil if there are errors.
func parse(name string, document []byte, site string) (*topology.Local, topology.Diagnostics) {
	t, diags := topology.Parse(name, document)
	if t == nil {
		return nil, diags
	}
	local, more := t.Local(site)
	diags = append(diags, more...)
	if diags.HasErrors() {
		return nil, diags
	}
	return local, diags
}

// start chooses the topology to begin with: the file if it changed since it was
// last read, else the last one applied.
func (a *Agent) start(ctx context.Context) error {
	if a.opt.TopologyFile == "" {
		if a.generation == nil {
			a.log.Warn("no topology yet: give --topology FILE or run pwctl apply")
		}
		return nil
	}
	document, hash, local, diags, err := a.readFile()
	if err != nil {
		if a.generation != nil && errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("topology file is gone, keeping the last one applied", "err", err)
			return nil
		}
		return err
	}
	a.fileHash = hash
	if a.generation != nil && a.generation.FileHash == hash {
		a.log.Info("topology file is unchanged, keeping the applied generation", "generation", a.generation.Number)
		return nil
	}
	if local == nil {
		if a.generation == nil {
			return diags.Err()
		}
		a.fileFault = diags
		a.log.Error("topology file is invalid, keeping the applied generation", "err", diags.Err())
		return nil
	}
	_, err = a.change(a.opt.TopologyFile, document, hash, local)
	return err
}
