package succession

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// ErrUnsupported is what an error of Wrap matches where the kernel cannot load the programs.
var ErrUnsupported = ebpf.ErrNotSupported

// ErrSublayer says that a session has a sublayer, and so no successor.
var ErrSublayer = errors.New("a session with an L2-Specific Sublayer has no successor: use `sublayer: none`, or `datapath: ebpf`")

// Error is an operation that failed.
type Error struct {
	// Op is what was to be done, as "receive beside"; Pseudowire what to.
	Op, Pseudowire string
	Err            error
}

func (e *Error) Error() string {
	return fmt.Sprintf("succession: %s pseudowire %s: %v", e.Op, e.Pseudowire, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Options of a Datapath. The zero value is usable.
type Options struct {
	// Logger gets what went wrong without failing an operation; nil discards it.
	Logger *slog.Logger
}

// Datapath is another one, whose sessions can have successors.
type Datapath struct {
	pseudowire.Above
	log   *slog.Logger
	nl    *netlink.Handle
	wires map[string]*wire
	// settled is set by Prune: before that, programs of an earlier process may be there.
	settled bool
	strays  drift.Log
}

// wire is a pseudowire as it was set.
type wire struct {
	pseudowire.Pseudowire
	// holder is the session that the pseudowire's device is of, as the datapath has it; its
	// LocalID is 0 if there is none.
	holder pseudowire.Session
	// members are the sessions that were set, by local ID. Those beside the holder have
	// devices of their own.
	members map[uint32]pseudowire.Session
	// sends is the local ID of the session that sends, 0 if none does.
	sends uint32
	// device is the index of the pseudowire's device that programs name, 0 if none does.
	device int
	// leaves is where the program at the pseudowire's device sends frames: a local ID, 0 for
	// nowhere, if looked says that this is known.
	leaves uint32
	looked bool
}

// Wrap makes it so for a datapath, in the namespace of the calling thread. On an error the
// datapath is as it was, and the caller's.
func Wrap(dp pseudowire.Datapath, o Options) (*Datapath, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := tcfilter.Redirect(redirects, 1, true)
	if err != nil {
		return nil, fmt.Errorf("succession: %w", err)
	}
	p.Close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("succession: open rtnetlink: %w", err)
	}
	return &Datapath{Above: pseudowire.Above{Datapath: dp}, log: o.Logger, nl: nl, wires: map[string]*wire{}}, nil
}

// Abilities are the datapath's, and successors.
func (d *Datapath) Abilities() pseudowire.Abilities {
	can := d.Datapath.Abilities()
	can.Succeeds = true
	return can
}

// beside is the pseudowire of the datapath below that has a session beside the holder. No name in a
// topology has a tilde.
func (w *wire) beside(id uint32) pseudowire.Pseudowire {
	return pseudowire.Pseudowire{
		Name:   pseudowire.PartOf(w.Name, "~", fmt.Sprintf("%08x", id)),
		Device: deviceOf(id),
		MTU:    w.MTU, IgnoreICMP: w.IgnoreICMP,
		StayDown: true,
	}
}

func deviceOf(id uint32) string { return fmt.Sprintf("pwr-%08x", id) }

// others are the sessions beside the holder.
func (w *wire) others() (ids []uint32) {
	for _, id := range slices.Sorted(maps.Keys(w.members)) {
		if id != w.holder.LocalID {
			ids = append(ids, id)
		}
	}
	return ids
}

// SetPseudowire is the datapath's, and looks at what is attached. With another device the session that carries is alone again.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	w := d.wires[p.Name]
	if w == nil {
		if err := d.Datapath.SetPseudowire(p); err != nil {
			return err
		}
		d.wires[p.Name] = &wire{Pseudowire: p, members: map[uint32]pseudowire.Session{}}
		return nil
	}
	var anew []pseudowire.Session
	if w.Device != p.Device && len(w.others()) > 0 {
		anew = d.sessionsOf(w)
		if err := d.RemovePseudowires(p.Name); err != nil {
			return err
		}
		w = &wire{members: map[uint32]pseudowire.Session{}}
	}
	if err := d.Datapath.SetPseudowire(p); err != nil {
		return err
	}
	w.Pseudowire = p
	d.wires[p.Name] = w
	for _, id := range w.others() {
		if err := d.Datapath.SetPseudowire(w.beside(id)); err != nil {
			return err
		}
	}
	for _, s := range anew {
		if err := d.SetSession(s); err != nil {
			return err
		}
	}
	if len(w.others()) > 0 {
		return d.keep(w)
	}
	return nil
}

// sessionsOf are a pseudowire's, the one that carries first.
func (d *Datapath) sessionsOf(w *wire) []pseudowire.Session {
	all := slices.Collect(maps.Values(w.members))
	slices.SortFunc(all, func(a, b pseudowire.Session) int { return int(int64(a.Beside) - int64(b.Beside)) })
	return all
}

// RemovePseudowires removes them with all their sessions.
func (d *Datapath) RemovePseudowires(names ...string) error {
	var all []string
	for _, name := range names {
		all = append(all, name)
		if w := d.wires[name]; w != nil {
			for _, id := range w.others() {
				all = append(all, w.beside(id).Name)
			}
		}
	}
	if err := d.Datapath.RemovePseudowires(all...); err != nil {
		return err
	}
	for _, name := range names {
		delete(d.wires, name)
	}
	return nil
}

// SetTunnel is the datapath's. It may make the devices of sessions anew.
func (d *Datapath) SetTunnel(t pseudowire.Tunnel) error {
	if err := d.Datapath.SetTunnel(t); err != nil {
		return err
	}
	for _, w := range d.wires {
		if w.holder.LocalID == 0 || w.holder.Tunnel != t.Name || len(w.others()) == 0 {
			continue
		}
		w.looked = false
		if err := d.join(w); err != nil {
			return err
		}
	}
	return nil
}

// RemoveTunnel is the datapath's; its sessions go along.
func (d *Datapath) RemoveTunnel(name string) error {
	if err := d.Datapath.RemoveTunnel(name); err != nil {
		return err
	}
	var beside []string
	for _, w := range d.wires {
		if w.holder.Tunnel != name {
			continue
		}
		for _, id := range w.others() {
			beside = append(beside, w.beside(id).Name)
		}
		w.forget()
	}
	return d.Datapath.RemovePseudowires(beside...)
}

func (w *wire) forget() {
	clear(w.members)
	w.holder, w.sends, w.device, w.leaves, w.looked = pseudowire.Session{}, 0, 0, 0, false
}

// SetSession is the datapath's, for the first of a pseudowire's; one beside it gets a device of
// its own. One that stands beside none ends the others, but for those that are beside it.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	w := d.wires[s.Pseudowire]
	if w == nil {
		return d.Datapath.SetSession(s) // which says what is wrong about that
	}
	if err := d.makeRoom(w, &s); err != nil {
		return err
	}
	if w.holder.LocalID == 0 {
		if err := d.findHolder(w, &s); err != nil {
			return &Error{"take over the device of", w.Name, err}
		}
	}
	if s.LocalID != w.holder.LocalID {
		if err := d.setBeside(w, s); err != nil {
			return err
		}
	}
	w.members[s.LocalID] = s
	w.choose(&s)
	if s.LocalID == w.holder.LocalID {
		was := w.holder
		w.holder = s
		want := d.held(w)
		if err := d.Datapath.SetSession(want); err != nil {
			w.holder = was // what the kernel has is to be told from what it was to have
			return err
		}
		w.holder = want
	}
	return d.join(w)
}

// makeRoom ends the sessions that a new one takes the device from.
func (d *Datapath) makeRoom(w *wire, s *pseudowire.Session) error {
	if _, known := w.members[s.LocalID]; known || s.Beside != 0 {
		return nil
	}
	for id, m := range w.members {
		if m.Beside == s.LocalID {
			continue
		}
		if err := d.RemoveSession(id); err != nil {
			return err
		}
	}
	return nil
}

// findHolder has the session be the one that the device is of, unless an earlier process made
// it beside another one.
func (d *Datapath) findHolder(w *wire, s *pseudowire.Session) error {
	if d.settled { // no earlier process's session is there any more
		w.holder = *s
		return nil
	}
	_, err := d.nl.LinkByName(deviceOf(s.LocalID))
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		w.holder = *s
		return nil
	case err != nil:
		return err
	}
	there, ok, err := d.SessionBehind(w.Name)
	if err != nil {
		return err
	}
	if !ok || there.LocalID == s.LocalID || there.Tunnel != s.Tunnel {
		w.holder = *s
		return nil
	}
	if err := d.Datapath.SetSession(there); err != nil {
		return err
	}
	w.holder = there
	return nil
}

// held is the holder as it is to be: there for as long as any of the sessions sends, and deaf
// if it is none of them. Before Prune it may still become one of them, and the peer may be sending by it:
// what an earlier process left hearing goes on to hear.
func (d *Datapath) held(w *wire) pseudowire.Session {
	s := w.holder
	_, live := w.members[s.LocalID]
	s.Deaf, s.Beside = !live && (d.settled || s.Deaf), 0
	s.Transmit = slices.ContainsFunc(slices.Collect(maps.Values(w.members)), func(m pseudowire.Session) bool { return m.Transmit })
	return s
}

// choose takes in whether a session may send: the last that was told to does.
func (w *wire) choose(s *pseudowire.Session) {
	if s != nil && s.Transmit {
		w.sends = s.LocalID
	}
	if w.members[w.sends].Transmit {
		return
	}
	w.sends = 0
	for id, m := range w.members {
		if m.Transmit {
			w.sends = id
		}
	}
}

// setBeside makes a session with a device of its own, which receives whatever the other does.
func (d *Datapath) setBeside(w *wire, s pseudowire.Session) error {
	if s.ReceiveSublayer != l2tpv3.SublayerNone || s.TransmitSublayer != l2tpv3.SublayerNone {
		return &Error{"receive beside the session of", w.Name, ErrSublayer}
	}
	p := w.beside(s.LocalID)
	if err := d.Datapath.SetPseudowire(p); err != nil {
		return err
	}
	err := d.Datapath.SetSession(w.ownOf(s))
	if _, known := w.members[s.LocalID]; err != nil && !known {
		err = errors.Join(err, d.Datapath.RemovePseudowires(p.Name))
	}
	return err
}

// ownOf is a session beside the holder as the datapath below has it.
func (w *wire) ownOf(s pseudowire.Session) pseudowire.Session {
	s.Pseudowire, s.Transmit, s.Beside = w.beside(s.LocalID).Name, true, 0
	return s
}

// RemoveSession is the datapath's, once nothing leaves over it. The session that the device
// is of stays for as long as there is another one.
func (d *Datapath) RemoveSession(localID uint32) error {
	for _, w := range d.wires {
		s, known := w.members[localID]
		if !known {
			continue
		}
		delete(w.members, localID)
		if err := d.dismiss(w, localID); err != nil {
			w.members[localID] = s // so that it is tried again
			return err
		}
		return nil
	}
	return d.Datapath.RemoveSession(localID)
}

func (d *Datapath) dismiss(w *wire, localID uint32) error {
	w.choose(nil)
	if len(w.members) > 0 {
		if err := d.join(w); err != nil {
			return err
		}
		if localID == w.holder.LocalID {
			return nil
		}
		return d.Datapath.RemovePseudowires(w.beside(localID).Name)
	}
	if localID != w.holder.LocalID {
		if err := d.Datapath.RemovePseudowires(w.beside(localID).Name); err != nil {
			return err
		}
	}
	if err := d.Datapath.RemoveSession(w.holder.LocalID); err != nil {
		return err
	}
	w.forget()
	return nil
}

// Counters are the datapath's, without those of sessions that are kept for their devices.
func (d *Datapath) Counters() (map[uint32]pseudowire.Counters, error) {
	all, err := d.Datapath.Counters()
	for _, w := range d.wires {
		if _, live := w.members[w.holder.LocalID]; !live {
			delete(all, w.holder.LocalID)
		}
	}
	return all, err
}

// Prune is the datapath's, and makes sessions deaf that are there for their devices only.
func (d *Datapath) Prune() error {
	d.settled = true
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.wires)) {
		if w := d.wires[name]; w.holder.LocalID != 0 {
			errs = append(errs, d.join(w))
		}
	}
	return errors.Join(append(errs, d.Datapath.Prune())...)
}

// Refresh is the datapath's, which may make devices of sessions anew, and looks at what is
// attached.
func (d *Datapath) Refresh() error {
	errs := []error{d.Datapath.Refresh()}
	for _, name := range slices.Sorted(maps.Keys(d.wires)) {
		if w := d.wires[name]; len(w.others()) > 0 {
			errs = append(errs, d.keep(w))
		}
	}
	return errors.Join(errs...)
}

// Repairs are the datapath's, and those of programs.
func (d *Datapath) Repairs() []drift.Repair {
	all := append(d.Datapath.Repairs(), d.strays.Repairs()...)
	for i := range all {
		all[i].Object, all[i].Thing = d.whole(all[i].Object), d.whole(all[i].Thing)
	}
	return all
}

// Heed is the datapath's, and of programs.
func (d *Datapath) Heed(held func(thing string) bool) {
	d.Datapath.Heed(func(thing string) bool { return held(d.whole(thing)) })
	d.strays.Heed(held)
}

// whole is what a repair is about: a pseudowire of the datapath below is part of one here.
func (d *Datapath) whole(object string) string {
	return pseudowire.ObjectOf(object, maps.Keys(d.wires))
}

// Close gives up handles; what is attached stays.
func (d *Datapath) Close() error {
	d.nl.Close()
	return d.Datapath.Close()
}

// Cleanup is the datapath's: the programs go with the devices.
func (d *Datapath) Cleanup() error {
	clear(d.wires)
	d.nl.Close()
	return d.Datapath.Cleanup()
}
