package bundle

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/spread"
)

// ErrUnsupported is what an error of Wrap matches where the kernel cannot load the programs.
var ErrUnsupported = ebpf.ErrNotSupported

// Error is an operation that failed.
type Error struct {
	// Op is what was to be done, as "steer"; Pseudowire what to.
	Op, Pseudowire string
	Err            error
}

func (e *Error) Error() string {
	return fmt.Sprintf("bundle: %s pseudowire %s: %v", e.Op, e.Pseudowire, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Options of a bundle. The zero value is usable.
type Options struct {
	// Logger gets what went wrong without failing an operation; nil discards it.
	Logger *slog.Logger
}

// Datapath is another one, whose pseudowires can have several sessions.
type Datapath struct {
	pseudowire.Above
	log      *slog.Logger
	nl       *netlink.Handle
	programs *bpf.Spread
	wires    map[string]*wire
	// sessions are all that were set, by local ID.
	sessions map[uint32]pseudowire.Session
	// settled is set by Prune: before that, a session that is not there may come yet, and
	// what an earlier process left goes on.
	settled bool
	strays  drift.Log
}

// wire is a pseudowire as it was set.
type wire struct {
	pseudowire.Pseudowire
	// own are the local IDs of the sessions of one that has no several: one, and those that stand beside it.
	own []uint32
	// Of one with several sessions: the ends of its pair, and its sessions by local ID.
	inner, outer int
	members      map[uint32]*member
	// sends is the local ID of the session that sends, 0 if none does, where there are no rules.
	sends uint32
	written
}

// written is what the program at the outer end has of a pseudowire: nil is nothing.
type written struct {
	exit  *bpf.Exit
	ways  [bpf.MaxWays]*bpf.Exit
	table spread.Table
	// attached says that the program there is this process's.
	attached bool
}

// member is a session of several.
type member struct {
	pseudowire.Session
	// device is its device's index.
	device int
}

// Wrap makes it so for a datapath, in the namespace of the calling thread. On an error the
// datapath is as it was, and the caller's.
func Wrap(dp pseudowire.Datapath, o Options) (*Datapath, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	programs, err := bpf.LoadSpread()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		programs.Close()
		return nil, fmt.Errorf("bundle: open rtnetlink: %w", err)
	}
	return &Datapath{
		Above: pseudowire.Above{Datapath: dp}, log: o.Logger, nl: nl, programs: programs,
		wires: map[string]*wire{}, sessions: map[uint32]pseudowire.Session{},
	}, nil
}

// Abilities are the datapath's, several sessions, with a device of their own, and rules among them.
func (d *Datapath) Abilities() pseudowire.Abilities {
	can := d.Datapath.Abilities()
	can.Several, can.SeveralAnew, can.Steers = true, true, true
	return can
}

// SetPseudowire is the datapath's, or makes the pair. A pseudowire that gets to have several
// sessions, or one, keeps those it has; its device is made anew.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	old := d.wires[p.Name]
	var kept []pseudowire.Session
	if old != nil && (old.Several != p.Several || old.Device != p.Device) {
		kept = d.sessionsOf(p.Name)
		if err := d.RemovePseudowires(p.Name); err != nil {
			return err
		}
		old = nil
	}
	if err := d.set(old, p); err != nil {
		return err
	}
	for _, s := range kept {
		if err := d.SetSession(s); err != nil {
			return err
		}
	}
	return nil
}

func (d *Datapath) set(old *wire, p pseudowire.Pseudowire) error {
	if !p.Several {
		if old == nil && !d.settled { // by then there are no others' pairs any more
			if err := d.giveWay(p); err != nil {
				return &Error{"take over the device of", p.Name, err}
			}
		}
		if err := d.Datapath.SetPseudowire(p); err != nil {
			return err
		}
		w := &wire{Pseudowire: p}
		if old != nil {
			w.own = old.own
		}
		d.wires[p.Name] = w
		return nil
	}
	if err := spread.Check(p.Steer); err != nil {
		return &Error{"steer", p.Name, err}
	}
	w := &wire{Pseudowire: p, members: map[uint32]*member{}}
	if old != nil {
		w.members, w.sends = old.members, old.sends
	}
	if err := d.ensurePair(w); err != nil {
		return &Error{"make the device of", p.Name, err}
	}
	if old != nil && old.outer == w.outer {
		w.written = old.written
	} else if old != nil {
		if err := d.forget(old); err != nil {
			return &Error{"make the device of", p.Name, err}
		}
	}
	d.wires[p.Name] = w
	for _, m := range w.members {
		if err := d.Datapath.SetPseudowire(w.below(m.Tunnel)); err != nil {
			return err
		}
		if err := d.join(w, m); err != nil {
			return err
		}
	}
	return d.steer(w)
}

// sessionsOf are a pseudowire's, that which sends last.
func (d *Datapath) sessionsOf(name string) (all []pseudowire.Session) {
	for _, id := range slices.Sorted(maps.Keys(d.sessions)) {
		if s := d.sessions[id]; s.Pseudowire == name {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(x, y pseudowire.Session) int { return rank(x) - rank(y) })
	return all
}

func rank(s pseudowire.Session) int {
	if s.Transmit {
		return 1
	}
	return 0
}

// RemovePseudowires removes them with all their sessions.
func (d *Datapath) RemovePseudowires(names ...string) error {
	var below []string
	for _, name := range names {
		if w := d.wires[name]; w == nil || !w.Several {
			below = append(below, name)
		} else {
			for _, m := range w.members {
				below = append(below, w.below(m.Tunnel).Name)
			}
		}
	}
	if err := d.Datapath.RemovePseudowires(below...); err != nil {
		return err
	}
	for _, name := range names {
		if w := d.wires[name]; w != nil && w.Several {
			if err := d.removeSeveral(w); err != nil {
				return err
			}
		}
		delete(d.wires, name)
	}
	going := map[string]bool{}
	for _, name := range names {
		going[name] = true
	}
	maps.DeleteFunc(d.sessions, func(_ uint32, s pseudowire.Session) bool { return going[s.Pseudowire] })
	return nil
}

func (d *Datapath) removeSeveral(w *wire) error {
	clear(w.members)
	if err := errors.Join(d.removeLink(w.inner), d.forget(w)); err != nil {
		return &Error{"remove", w.Name, err}
	}
	return nil
}

// SetTunnel is the datapath's. It may make the devices of sessions anew.
func (d *Datapath) SetTunnel(t pseudowire.Tunnel) error {
	if err := d.Datapath.SetTunnel(t); err != nil {
		return err
	}
	for _, w := range d.wires {
		for _, m := range w.members {
			if m.Tunnel != t.Name {
				continue
			}
			if err := d.join(w, m); err != nil {
				return err
			}
			if err := d.steer(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveTunnel is the datapath's; its sessions go along, once nothing leaves over them.
func (d *Datapath) RemoveTunnel(name string) error {
	var errs []error
	for id, s := range d.sessions {
		if s.Tunnel == name {
			errs = append(errs, d.spare(id))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := d.Datapath.RemoveTunnel(name); err != nil {
		return err
	}
	for id, s := range d.sessions {
		if s.Tunnel == name {
			errs = append(errs, d.drop(id))
		}
	}
	return errors.Join(errs...)
}

// stays says whether a session of a pseudowire is there still when another has been set.
func stays(old, set *pseudowire.Session) bool { return set.Beside != 0 || old.Beside == set.LocalID }

// SetSession is the datapath's, of a pseudowire of its own where there are several: that one
// receives always.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	w := d.wires[s.Pseudowire]
	if w == nil || !w.Several {
		if err := d.Datapath.SetSession(s); err != nil {
			return err
		}
		if w == nil {
			maps.DeleteFunc(d.sessions, func(_ uint32, old pseudowire.Session) bool {
				return old.Pseudowire == s.Pseudowire && !stays(&old, &s)
			})
		} else {
			w.own = slices.DeleteFunc(w.own, func(id uint32) bool {
				old, ours := d.sessions[id]
				if ours = ours && old.Pseudowire == s.Pseudowire; ours && stays(&old, &s) && id != s.LocalID {
					return false
				}
				if ours {
					delete(d.sessions, id)
				}
				return true
			})
			w.own = append(w.own, s.LocalID)
		}
		d.sessions[s.LocalID] = s
		return nil
	}
	below := w.below(s.Tunnel)
	if err := d.Datapath.SetPseudowire(below); err != nil {
		return err
	}
	own := s
	own.Pseudowire, own.Transmit = below.Name, s.Beside == 0
	if err := d.Datapath.SetSession(own); err != nil {
		return err
	}
	if s.Beside != 0 { // it comes out of the other one's device
		d.sessions[s.LocalID] = s
		return nil
	}
	for id, m := range w.members {
		if m.Tunnel == s.Tunnel && id != s.LocalID { // it took the device over, or its place
			delete(w.members, id)
			delete(d.sessions, id)
		}
	}
	d.sessions[s.LocalID] = s
	m := w.members[s.LocalID]
	if m == nil {
		m = new(member)
		w.members[s.LocalID] = m
	}
	m.Session = s
	if err := d.join(w, m); err != nil {
		return err
	}
	w.choose(s)
	return d.steer(w)
}

// choose takes in whether a session may send: the last that was told to does.
func (w *wire) choose(s pseudowire.Session) {
	if s.Transmit {
		w.sends = s.LocalID
	}
	if m := w.members[w.sends]; m != nil && m.Transmit {
		return
	}
	w.sends = 0
	for _, id := range slices.Sorted(maps.Keys(w.members)) {
		if w.members[id].Transmit {
			w.sends = id
		}
	}
}

// DeviceIndex is the datapath's, where the device is a session's.
func (d *Datapath) DeviceIndex(name string) (index int, known bool) {
	if w := d.wires[name]; w != nil && w.Several {
		return w.inner, true
	}
	return d.Above.DeviceIndex(name)
}

// RemoveSession is the datapath's, once nothing leaves over it.
func (d *Datapath) RemoveSession(localID uint32) error {
	if err := d.spare(localID); err != nil {
		return err
	}
	if err := d.Datapath.RemoveSession(localID); err != nil {
		return err
	}
	return d.drop(localID)
}

// spare has nothing leave over a session that is to go.
func (d *Datapath) spare(id uint32) error {
	w := d.wires[d.sessions[id].Pseudowire]
	if w == nil || w.members[id] == nil {
		return nil
	}
	delete(w.members, id)
	w.choose(pseudowire.Session{})
	return d.steer(w)
}

// drop forgets a session that has gone.
func (d *Datapath) drop(id uint32) error {
	s := d.sessions[id]
	delete(d.sessions, id)
	for _, o := range d.sessions {
		if o.Pseudowire == s.Pseudowire && o.Tunnel == s.Tunnel {
			return nil
		}
	}
	if w := d.wires[s.Pseudowire]; w != nil && w.Several {
		return d.Datapath.RemovePseudowires(w.below(s.Tunnel).Name)
	}
	return nil
}

// Prune is the datapath's, and removes the pairs of pseudowires that were not set.
func (d *Datapath) Prune() error {
	d.settled = true
	errs := []error{d.Datapath.Prune(), d.prune()}
	for _, w := range d.wires {
		if w.Several {
			errs = append(errs, d.steer(w))
		}
	}
	return errors.Join(errs...)
}

// Refresh is the datapath's, which may make devices of sessions anew, and looks at what is
// attached.
func (d *Datapath) Refresh() error {
	errs := []error{d.Datapath.Refresh()}
	for _, name := range slices.Sorted(maps.Keys(d.wires)) {
		if w := d.wires[name]; w.Several {
			errs = append(errs, d.keep(w))
		}
	}
	return errors.Join(errs...)
}

// Repairs are the datapath's, and those of pairs and programs.
func (d *Datapath) Repairs() []drift.Repair {
	all := append(d.Datapath.Repairs(), d.strays.Repairs()...)
	for i := range all {
		all[i].Object, all[i].Thing = d.whole(all[i].Object), d.whole(all[i].Thing)
	}
	return all
}

// Heed is the datapath's, and of pairs and programs.
func (d *Datapath) Heed(held func(thing string) bool) {
	d.Datapath.Heed(func(thing string) bool { return held(d.whole(thing)) })
	d.strays.Heed(held)
}

// whole is what a repair is about: a pseudowire of the datapath below is part of one here.
func (d *Datapath) whole(object string) string {
	return pseudowire.ObjectOf(object, maps.Keys(d.wires))
}

// Global is the datapath's, with the frames that no session took.
func (d *Datapath) Global() (map[string]uint64, error) {
	all, err := d.Datapath.Global()
	if err != nil {
		return nil, err
	}
	lost, err := d.programs.Lost()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if lost > 0 {
		all = maps.Clone(all)
		if all == nil {
			all = map[string]uint64{}
		}
		all[pseudowire.DropNotTransmit] += lost
	}
	return all, nil
}

// Close gives up handles; what is attached stays.
func (d *Datapath) Close() error {
	d.nl.Close()
	d.programs.Close()
	return d.Datapath.Close()
}

// Cleanup removes everything of the datapath's, and all pairs.
func (d *Datapath) Cleanup() error {
	clear(d.wires)
	clear(d.sessions)
	err := d.prune()
	d.nl.Close()
	d.programs.Close()
	return errors.Join(err, d.Datapath.Cleanup())
}
