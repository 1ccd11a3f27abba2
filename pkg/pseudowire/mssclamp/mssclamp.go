// Package mssclamp lowers the MSS of TCP connections through the devices of a datapath
// that does not do so by itself, the kernel's l2tp_eth: with segments that fit the underlay
// no outer packet of theirs is fragmented (RFC 4459, Section 3.5). It is an eBPF program at
// both hooks of each device, which goes with the device.
package mssclamp

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
	"github.com/pwd-project/pwd/pkg/underlay"
)

const (
	filterName = "pwd_clamp"
	// leastRoom is the least MTU that IPv4 knows (RFC 791, Section 3.2).
	leastRoom  = 68
	defaultMTU = 1500
)

// ErrUnsupported is what an error of Wrap matches where the kernel cannot load the program.
var ErrUnsupported = ebpf.ErrNotSupported

// Options of a clamp. The zero value is usable.
type Options struct {
	// Logger gets why a device goes without; nil discards it.
	Logger *slog.Logger
}

// Datapath is another one whose devices are clamped. A device that cannot be is logged
// and carries frames all the same.
type Datapath struct {
	pseudowire.Above
	log   *slog.Logger
	clamp *bpf.Clamp
	nl    *netlink.Handle
	// devices finds those of pseudowires.
	devices *tcfilter.Devices

	pseudowires map[string]pseudowire.Pseudowire
	tunnels     map[string]pseudowire.Tunnel
	sessions    map[uint32]*session
	// carriers are the local IDs of pseudowires' sessions.
	carriers map[string]uint32
	// paths are the path MTUs that were looked up, by tunnel; Refresh and another tunnel of the name look again.
	paths map[string]underlay.MTU
}

// session is one that was set, the device that is clamped for it, and to what.
type session struct {
	pseudowire.Session
	device uint32
	room   uint32
}

// Wrap clamps the devices of a datapath, in the namespace of the calling thread. On an
// error the datapath is as it was, and the caller's.
func Wrap(dp pseudowire.Datapath, o Options) (*Datapath, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink for the MSS clamp: %w", err)
	}
	devices, err := tcfilter.OpenDevices()
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("MSS clamp: %w", err)
	}
	clamp, err := bpf.LoadClamp()
	if err != nil {
		nl.Close()
		return nil, errors.Join(err, devices.Close())
	}
	return &Datapath{
		Above: pseudowire.Above{Datapath: dp}, log: o.Logger, clamp: clamp, nl: nl, devices: devices, paths: map[string]underlay.MTU{},
		pseudowires: map[string]pseudowire.Pseudowire{}, tunnels: map[string]pseudowire.Tunnel{}, sessions: map[uint32]*session{}, carriers: map[string]uint32{},
	}, nil
}

// SetPseudowire is the datapath's; its session is clamped anew.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	if err := d.Datapath.SetPseudowire(p); err != nil {
		return err
	}
	d.pseudowires[p.Name] = p
	if s := d.sessions[d.carriers[p.Name]]; s != nil {
		d.apply(s)
	}
	return nil
}

// RemovePseudowires is the datapath's, their sessions go along.
func (d *Datapath) RemovePseudowires(names ...string) error {
	if err := d.Datapath.RemovePseudowires(names...); err != nil {
		return err
	}
	for _, name := range names {
		delete(d.pseudowires, name)
		d.forget(d.carriers[name])
	}
	return nil
}

// SetTunnel is the datapath's; its sessions are clamped anew.
func (d *Datapath) SetTunnel(t pseudowire.Tunnel) error {
	if err := d.Datapath.SetTunnel(t); err != nil {
		return err
	}
	if d.tunnels[t.Name] != t {
		delete(d.paths, t.Name)
	}
	d.tunnels[t.Name] = t
	d.each(func(s *session) bool { return s.Tunnel == t.Name })
	return nil
}

// RemoveTunnel is the datapath's.
func (d *Datapath) RemoveTunnel(name string) error {
	if err := d.Datapath.RemoveTunnel(name); err != nil {
		return err
	}
	delete(d.tunnels, name)
	delete(d.paths, name)
	for id, s := range d.sessions {
		if s.Tunnel == name {
			d.forget(id)
		}
	}
	return nil
}

// SetSession is the datapath's, and clamps its device.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	if err := d.Datapath.SetSession(s); err != nil {
		return err
	}
	if id := d.carriers[s.Pseudowire]; id != s.LocalID {
		d.forget(id) // it took the device over
	}
	known := d.sessions[s.LocalID]
	if known == nil {
		known = new(session)
		d.sessions[s.LocalID] = known
	}
	if known.Pseudowire != s.Pseudowire {
		delete(d.carriers, known.Pseudowire)
	}
	known.Session = s
	d.carriers[s.Pseudowire] = s.LocalID
	d.apply(known)
	return nil
}

// RemoveSession is the datapath's.
func (d *Datapath) RemoveSession(localID uint32) error {
	if err := d.Datapath.RemoveSession(localID); err != nil {
		return err
	}
	d.forget(localID)
	return nil
}

// Refresh is the datapath's, and looks at the MTUs of the ways to the peers.
func (d *Datapath) Refresh() error {
	err := d.Datapath.Refresh()
	clear(d.paths)
	d.each(func(*session) bool { return true })
	return err
}

// RefreshWays is the datapath's; where the MTU of a way is another, its sessions are clamped anew.
func (d *Datapath) RefreshWays() error {
	err := d.Above.RefreshWays()
	before := maps.Clone(d.paths)
	clear(d.paths)
	for name, t := range d.tunnels {
		if path, looked := d.path(&t); looked != nil || path != before[name] {
			d.each(func(s *session) bool { return s.Tunnel == name })
		}
	}
	return err
}

// Close gives up handles; what is attached stays.
func (d *Datapath) Close() error { return errors.Join(d.Datapath.Close(), d.close()) }

// Cleanup is the datapath's: the programs go with the devices.
func (d *Datapath) Cleanup() error { return errors.Join(d.Datapath.Cleanup(), d.close()) }

func (d *Datapath) close() error {
	d.nl.Close()
	return errors.Join(d.devices.Close(), d.clamp.Close())
}

func (d *Datapath) each(concerned func(*session) bool) {
	for _, s := range d.sessions {
		if concerned(s) {
			d.apply(s)
		}
	}
}

func (d *Datapath) forget(id uint32) {
	s := d.sessions[id]
	if s == nil {
		return
	}
	delete(d.sessions, id)
	if d.carriers[s.Pseudowire] == id {
		delete(d.carriers, s.Pseudowire)
	}
	if s.device == 0 {
		return
	}
	if err := d.clamp.Rooms.Delete(s.device); err != nil {
		d.log.Warn("cannot take a device from the MSS clamp", "pseudowire", s.Pseudowire, "err", err)
	}
}

// apply clamps a session's device, if that differs from how it is.
func (d *Datapath) apply(s *session) {
	p, known := d.pseudowires[s.Pseudowire]
	t, there := d.tunnels[s.Tunnel]
	if !known || !there {
		return
	}
	if err := d.set(s, &p, &t); err != nil {
		d.log.Warn("TCP through a device may be sent in fragments: its MSS is not clamped", "device", p.Device, "err", err)
	}
}

func (d *Datapath) set(s *session, p *pseudowire.Pseudowire, t *pseudowire.Tunnel) error {
	index, err := d.index(p)
	if err == nil && index == 0 {
		err = unix.ENODEV
	}
	if err != nil {
		return err
	}
	path, err := d.path(t)
	if err != nil {
		return err
	}
	device := uint32(index)
	room := uint32(roomOf(p, t, &s.Session, path))
	if s.device == device && s.room == room {
		return nil
	}
	if s.device != 0 && s.device != device {
		// The device was made anew under another number.
		if err := d.clamp.Rooms.Delete(s.device); err != nil {
			return err
		}
	}
	if err := d.clamp.Rooms.Put(device, &room); err != nil {
		return err
	}
	if s.device != device {
		if err := d.attach(index); err != nil {
			return err
		}
	}
	s.device, s.room = device, room
	return nil
}

// index is the number of a pseudowire's device: the datapath below, which made it, need not ask the kernel.
func (d *Datapath) index(p *pseudowire.Pseudowire) (int, error) {
	if index, known := d.DeviceIndex(p.Name); known {
		return index, nil
	}
	return d.devices.Index(p.Device)
}

// path is the longest packet that is known to get to the peer, 0 if there is no way. Many sessions
// share one: it is looked up once.
func (d *Datapath) path(t *pseudowire.Tunnel) (underlay.MTU, error) {
	path, known := d.paths[t.Name]
	if known {
		return path, nil
	}
	path, _, err := underlay.PathMTU(d.nl, t.Local.Addr(), t.Remote.Addr())
	if err != nil {
		return underlay.MTU{}, err
	}
	path = path.AtMost(t.PathMTU)
	d.paths[t.Name] = path
	return path, nil
}

// roomOf is the longest IP packet that untagged frames can carry in one outer packet
// and through the device.
func roomOf(p *pseudowire.Pseudowire, t *pseudowire.Tunnel, s *pseudowire.Session, path underlay.MTU) int {
	room := p.MTU
	if room == 0 {
		room = defaultMTU
	}
	longest := path.Heard
	if p.IgnoreICMP && t.Remote.Addr().Unmap().Is4() { // over IPv6 the kernel goes by them in any case
		longest = path.Given
	}
	if longest > 0 {
		room = min(room, longest-pseudowire.Overhead(t, s))
	}
	return max(room, leastRoom)
}

func (d *Datapath) attach(device int) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		f := tcfilter.Filter{Parent: parent, Priority: tcfilter.PriorityClamp, Name: filterName}
		if err := tcfilter.Attach(d.nl, device, f, d.clamp.Program); err != nil {
			return err
		}
	}
	return nil
}
