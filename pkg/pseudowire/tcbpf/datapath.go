package tcbpf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/spread"
)

// Options of a Datapath.
type Options struct {
	// BPFDir is where maps and attachments are pinned; it has to be on a bpffs.
	// If it is not, or empty, attachments still outlive the process.
	BPFDir string
	// Hold is how long packets ahead of a missing one are held in sessions that ask for
	// order (RFC 3931, Appendix C); 0 is 10 ms, negative is not at all: those that come
	// late are dropped then.
	Hold time.Duration
	// Resynchronise is how many packets behind the expected one, in sequence among
	// themselves, make the receiver go on from there: a peer that has lost its state, as
	// opposed to packets that were late (Appendix C); 0 is 8.
	Resynchronise int
	// Logger takes what is worth knowing; nil for none.
	Logger *slog.Logger
}

// Datapath implements pseudowire.Datapath.
type Datapath struct {
	drift.Log
	log  *slog.Logger
	nl   *netlink.Handle
	objs *bpf.Objects

	// hold and resync are those of the options; keeper is nil as long as no session
	// asks for order.
	hold   time.Duration
	resync uint32
	keeper *keeper

	features *featureSocket
	groups   *groupSocket
	lane     pair
	// reassembled sends packets into the slow lane, marked as such.
	reassembled int

	pseudowires map[string]*device
	tunnels     map[string]*tunnel
	sessions    map[uint32]*session
	// members are the sessions of each pseudowire, by its name.
	members map[string]map[uint32]*session

	// pins is the directory of this namespace's pins, empty without a bpffs.
	pins string
	// withoutTCX is set once the kernel was found to have none.
	withoutTCX bool
	// active is set once what is set takes effect at once, taken once nothing is to be taken
	// over any more (see Prune).
	active, taken bool

	// installed counts sessions, to know the newest.
	installed uint64
	// undelivered are packets that Deliver could not get into the slow lane.
	undelivered uint64
	// inputs are the underlay links that have the decapsulation program.
	inputs map[int]bool
	// ports are the links whose attachment circuits are cross-connected.
	ports map[int]bool
}

var _ pseudowire.Datapath = (*Datapath)(nil)

// device is a pseudowire and what the kernel has of it.
type device struct {
	pseudowire.Pseudowire
	pair    pair
	written *bpf.Transmit // what the map has
	// steering is as written too.
	steering steering
	crossed  crossing
	refused  bool // it was told that it cannot be cross-connected
	// apart says that the device takes frames of one segment only; unknown at first
	// is what an earlier process had it take.
	apart, unknown bool
	// writtenApart is apart when written was.
	writtenApart bool
}

type tunnel struct {
	pseudowire.Tunnel
	path   path
	inputs map[int]bool // links where its packets can come in
	flow   bpf.Flow
	// written is the flow's value in the map, nil if it is not there.
	written *uint32
}

type session struct {
	pseudowire.Session
	order   uint64
	written *bpf.Receive // what the map has
}

// Open loads the programs into the kernel, for the calling thread's network
// namespace. It fails with ErrKernel where the kernel is too old.
func Open(opts Options) (*Datapath, error) {
	d := &Datapath{
		log:         opts.Logger,
		hold:        max(0, cmp.Or(opts.Hold, defaultHold)),
		resync:      uint32(cmp.Or(opts.Resynchronise, defaultResync)),
		pseudowires: map[string]*device{},
		tunnels:     map[string]*tunnel{},
		sessions:    map[uint32]*session{},
		members:     map[string]map[uint32]*session{},
		inputs:      map[int]bool{},
		ports:       map[int]bool{},
		reassembled: -1,
	}
	if d.log == nil {
		d.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if err := d.open(opts.BPFDir); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Datapath) open(dir string) (err error) {
	if d.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return &Error{Op: "open netlink", Err: err}
	}
	if d.features, err = openFeatures(); err != nil {
		return &Error{Op: "open", Err: err}
	}
	if d.groups, err = openGroups(); err != nil {
		return &Error{Op: "open", Err: err}
	}
	if d.reassembled, err = openPacket(bpf.LaneReassembled); err != nil {
		return &Error{Op: "open", Err: err}
	}
	if d.pins, err = bpf.PinDir(dir); err != nil {
		return &Error{Op: "open", Object: dir, Err: err}
	}
	if d.pins == "" && dir != "" {
		d.log.Warn("no bpffs: nothing is pinned, attachments are filters", "directory", dir)
	}
	if d.objs, err = bpf.Load(d.pins); err != nil {
		return loadError(err)
	}
	old, err := d.leftovers()
	if err != nil {
		return &Error{Op: "look for what is left over", Err: err}
	}
	d.active, d.taken = !old, !old
	if err := d.openLane(); err != nil {
		return &Error{Op: "set up the slow lane", Err: err}
	}
	return nil
}

// Kind is EBPF.
func (d *Datapath) Kind() pseudowire.Kind { return pseudowire.EBPF }

// Abilities: without a session the device has no carrier.
func (d *Datapath) Abilities() pseudowire.Abilities {
	return pseudowire.Abilities{
		RewritesTags: true, DeviceWithoutSession: true, Several: true, Steers: true, IP: true, Sequencing: true,
		SublayerPerDirection: true, ChangesCookies: true, Succeeds: true, DSCP: true, Marking: true, ECN: true, Priority: true, Checksum: true, DF: true,
		CrossConnects: true,
	}
}

// SetPseudowire makes the pseudowire's veth pair.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	fail := func(err error) error {
		e := &Error{Op: "set up the devices of pseudowire", Object: p.Name, Hint: hintFull(err), Err: err}
		if errors.Is(err, ErrForeignDevice) {
			e.Hint = "remove or rename that device, or choose another name for the pseudowire"
		}
		return e
	}
	if p.MTU == 0 {
		p.MTU = defaultMTU
	}
	if err := checkPseudowire(p); err != nil {
		return fail(err)
	}
	old := d.pseudowires[p.Name]
	if old != nil && old.Device != p.Device {
		if err := d.RemovePseudowires(p.Name); err != nil {
			return err
		}
		old = nil
	}
	outer := pseudowire.OuterDevice(p.Name, p.Device)
	spec := pairSpec{
		inner: p.Device, innerAlt: altName("pw-", p.Name, p.Device), innerMTU: p.MTU,
		outer: outer, outerAlt: altName("pwo-", p.Name, outer), outerMTU: p.MTU + roomForTags,
		alias: aliasPrefix + p.Name,
	}
	if old != nil {
		err := errors.Join(d.rename(old.pair.inner, spec.inner, spec.alias), d.rename(old.pair.outer, spec.outer, spec.alias))
		if err != nil {
			return fail(err)
		}
	}
	pair, err := d.ensurePair(spec)
	if err != nil {
		return fail(err)
	}
	if old != nil {
		d.strayed(old, &spec, pair)
	}
	if pair.made {
		d.gather(pair)
		d.attachEnter(pair)
	}
	if err := d.setUp(pair.inner, &pair.innerUp, true); err != nil {
		return fail(err)
	}
	dev := &device{Pseudowire: p, pair: pair, unknown: !pair.made}
	switch {
	case old != nil && old.pair.outer == pair.outer:
		dev.written, dev.apart, dev.unknown, dev.crossed, dev.steering, dev.writtenApart = old.written, old.apart, old.unknown, old.crossed, old.steering, old.writtenApart
	case old != nil: // somebody removed the devices
		if err := d.setCrossing(old, crossing{}); err != nil {
			return fail(err)
		}
		if err := d.deleteTransmit(old); err != nil {
			return fail(err)
		}
	}
	d.pseudowires[p.Name] = dev
	if d.active {
		if err := d.keep(pair.outer, outer, d.encapHook(), "pseudowire "+p.Name, old != nil && !pair.made); err != nil {
			return fail(err)
		}
	}
	if err := d.apply(dev); err != nil {
		return fail(err)
	}
	return nil
}

func checkPseudowire(p pseudowire.Pseudowire) error {
	switch {
	case p.Device == "" || len(p.Device) > maxDeviceName:
		return fmt.Errorf("device name %q: %w", p.Device, ErrInvalid)
	case p.MTU < leastMTU || p.MTU > maxMTU:
		return fmt.Errorf("MTU %d is not in %d to %d: %w", p.MTU, leastMTU, maxMTU, ErrInvalid)
	case p.VLAN > 4094 || p.PortVLAN > 4094:
		return fmt.Errorf("VLAN %d: %w", p.VLAN, ErrInvalid)
	}
	if err := spread.Check(p.Steer); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

// RemovePseudowires removes the pseudowires' devices; their sessions stay, without
// a device.
func (d *Datapath) RemovePseudowires(names ...string) error {
	var links []int
	for _, name := range names {
		dev := d.pseudowires[name]
		if dev == nil {
			continue
		}
		if err := d.setCrossing(dev, crossing{}); err != nil {
			return &Error{Op: "remove pseudowire", Object: name, Err: err}
		}
		links = append(links, dev.pair.inner)
	}
	if err := d.removeLinks(links); err != nil {
		return &Error{Op: "remove pseudowires", Object: strings.Join(names, ", "), Err: err}
	}
	for _, name := range names {
		if dev := d.pseudowires[name]; dev != nil {
			if err := d.forget(dev); err != nil {
				return &Error{Op: "remove pseudowire", Object: name, Err: err}
			}
		}
	}
	return nil
}

// forget takes out of the maps and the pins what is of a pseudowire whose devices have gone.
func (d *Datapath) forget(dev *device) error {
	if err := d.unpin(dev.pair.outer); err != nil {
		return err
	}
	if err := d.deleteTransmit(dev); err != nil {
		return err
	}
	delete(d.pseudowires, dev.Name)
	for _, s := range d.members[dev.Name] {
		if err := d.objs.Sessions.Delete(s.LocalID); err != nil {
			return err
		}
		s.written = nil
	}
	return nil
}

// SetTunnel takes the addresses of a control connection.
func (d *Datapath) SetTunnel(t pseudowire.Tunnel) error {
	fail := func(err error) error {
		e := &Error{Op: "set tunnel", Object: t.Name, Hint: hintFull(err), Err: err}
		if errors.Is(err, ErrUnderlay) {
			e.Hint = "use the kernel's datapath for it, or route the peer over an Ethernet, WireGuard, PPP or tun link"
		}
		return e
	}
	if t.Encapsulation != l2tpv3.UDP && t.Encapsulation != l2tpv3.IP {
		return fail(fmt.Errorf("encapsulation %v: %w", t.Encapsulation, ErrInvalid))
	}
	if !t.Local.IsValid() || !t.Remote.IsValid() || t.Local.Addr().IsUnspecified() ||
		t.Local.Addr().Unmap().Is4() != t.Remote.Addr().Unmap().Is4() {
		return fail(fmt.Errorf("addresses %v and %v: %w", t.Local, t.Remote, ErrInvalid))
	}
	if overIP(&t) {
		t.Local, t.Remote = netip.AddrPortFrom(t.Local.Addr(), 0), netip.AddrPortFrom(t.Remote.Addr(), 0)
	}
	next := &tunnel{Tunnel: t, flow: flowOf(&t), inputs: map[int]bool{}}
	next.Socket = -1 // the stack puts fragments together; the socket is the owner's
	if old := d.tunnels[t.Name]; old != nil {
		if old.flow == next.flow {
			next.inputs, next.path, next.written = old.inputs, old.path, old.written
		} else if err := d.deleteTunnel(old); err != nil {
			return fail(err)
		}
	}
	d.tunnels[t.Name] = next
	if err := d.findWay(next); err != nil {
		return fail(err)
	}
	if d.active {
		if err := d.writeTunnel(next); err != nil {
			return fail(err)
		}
		if err := d.attachInputs(next); err != nil {
			return fail(err)
		}
		// Where it came in before, perhaps.
		if err := d.detachUnused(); err != nil {
			return fail(err)
		}
	}
	if err := d.applyTunnel(t.Name); err != nil {
		return fail(err)
	}
	return nil
}

// RemoveTunnel forgets a tunnel. Its sessions are to be removed before.
func (d *Datapath) RemoveTunnel(name string) error {
	t := d.tunnels[name]
	if t == nil {
		return nil
	}
	if err := d.deleteTunnel(t); err != nil {
		return &Error{Op: "remove tunnel", Object: name, Err: err}
	}
	delete(d.tunnels, name)
	if err := d.detachUnused(); err != nil {
		return &Error{Op: "remove tunnel", Object: name, Err: err}
	}
	return nil
}

// SetSession installs a session or changes one.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	fail := func(err error) error {
		return &Error{Op: "install session", Object: fmt.Sprintf("%d of pseudowire %s", s.LocalID, s.Pseudowire), Hint: hintFull(err), Err: err}
	}
	if d.tunnels[s.Tunnel] == nil {
		return fail(fmt.Errorf("tunnel %q: %w", s.Tunnel, ErrUnknown))
	}
	dev := d.pseudowires[s.Pseudowire]
	if dev == nil {
		return fail(fmt.Errorf("pseudowire %q: %w", s.Pseudowire, ErrUnknown))
	}
	if err := checkSession(s); err != nil {
		return fail(err)
	}
	next := &session{Session: s}
	old := d.sessions[s.LocalID]
	if old != nil {
		next.order, next.written = old.order, old.written
	} else {
		d.installed++
		next.order = d.installed
	}
	next.LocalCookie = slices.Clone(s.LocalCookie)
	next.PreviousCookie = slices.Clone(s.PreviousCookie)
	next.RemoteCookie = slices.Clone(s.RemoteCookie)
	if err := d.createState(&s); err != nil {
		return fail(err)
	}
	if old != nil {
		delete(d.members[old.Pseudowire], s.LocalID)
	}
	d.sessions[s.LocalID] = next
	if d.members[s.Pseudowire] == nil {
		d.members[s.Pseudowire] = map[uint32]*session{}
	}
	d.members[s.Pseudowire][s.LocalID] = next
	if err := d.apply(dev); err != nil {
		return fail(err)
	}
	if old != nil && old.Pseudowire != s.Pseudowire {
		if err := d.applyIfKnown(old.Pseudowire); err != nil {
			return fail(err)
		}
	}
	return nil
}

func checkSession(s pseudowire.Session) error {
	for _, cookie := range [][]byte{s.LocalCookie, s.RemoteCookie} {
		if n := len(cookie); n != 0 && n != 4 && n != 8 {
			return fmt.Errorf("cookie of %d octets: %w", n, ErrInvalid)
		}
	}
	for _, sublayer := range []l2tpv3.L2SpecificSublayer{s.ReceiveSublayer, s.TransmitSublayer} {
		if sublayer != l2tpv3.SublayerNone && sublayer != l2tpv3.SublayerDefault {
			return fmt.Errorf("L2-Specific Sublayer %d: %w", sublayer, ErrInvalid)
		}
	}
	if s.PreviousCookie != nil && len(s.PreviousCookie) != len(s.LocalCookie) {
		return fmt.Errorf("cookies of %d and before that of %d octets: %w", len(s.LocalCookie), len(s.PreviousCookie), ErrInvalid)
	}
	// RFC 3931, Section 5.4.4: sequencing needs a sublayer that can provide numbers.
	for _, x := range []struct {
		sequencing l2tpv3.DataSequencing
		sublayer   l2tpv3.L2SpecificSublayer
	}{{s.ReceiveSequencing, s.ReceiveSublayer}, {s.TransmitSequencing, s.TransmitSublayer}} {
		if x.sequencing > l2tpv3.SequencingAll || x.sequencing != l2tpv3.SequencingNone && x.sublayer == l2tpv3.SublayerNone {
			return fmt.Errorf("data sequencing %v with L2-Specific Sublayer %d: %w", x.sequencing, x.sublayer, ErrInvalid)
		}
	}
	if s.DSCP > 63 {
		return fmt.Errorf("DSCP %d: %w", s.DSCP, ErrInvalid)
	}
	if s.LocalID == 0 || s.RemoteID == 0 {
		return fmt.Errorf("session ID 0: %w", ErrInvalid)
	}
	return nil
}

// RemoveSession takes a session out. Frames leave over the pseudowire's next
// newest one, if there is one.
func (d *Datapath) RemoveSession(localID uint32) error {
	s := d.sessions[localID]
	if s == nil {
		return nil
	}
	fail := func(err error) error {
		return &Error{Op: "remove session", Object: fmt.Sprint(localID), Err: err}
	}
	delete(d.sessions, localID)
	delete(d.members[s.Pseudowire], localID)
	if !d.active {
		return nil // Prune will, with what else nobody names
	}
	if err := d.applyIfKnown(s.Pseudowire); err != nil {
		return fail(err)
	}
	if err := d.objs.Sessions.Delete(localID); err != nil {
		return fail(err)
	}
	if err := d.deleteState(localID, s.ReceiveSequencing != l2tpv3.SequencingNone); err != nil {
		return fail(err)
	}
	return nil
}

// Close gives up handles; the kernel objects stay.
func (d *Datapath) Close() error {
	var errs []error
	if d.keeper != nil {
		errs = append(errs, d.keeper.stop())
	}
	if d.features != nil {
		errs = append(errs, d.features.Close())
	}
	if d.groups != nil {
		errs = append(errs, d.groups.Close())
	}
	if d.reassembled >= 0 {
		errs = append(errs, unix.Close(d.reassembled))
	}
	if d.objs != nil {
		errs = append(errs, d.objs.Close())
	}
	if d.nl != nil {
		d.nl.Close()
	}
	return errors.Join(errs...)
}
