// Package nsp is the native service processing of pseudowires (pseudowire.Service) for any
// datapath: eBPF programs at both hooks of each device that has some, which go with the
// device. It filters, pushes, pops and rewrites tags and limits storms.
//
// Where maps are pinned, what is known of the stations behind a device, what was counted and
// where limits are outlive the process, for as long as the programs are at the device.
package nsp

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

const (
	tpid8021Q  = 0x8100
	tpid8021AD = 0x88a8
)

// ErrUnsupported is what an error of Wrap matches where the kernel cannot load the programs.
var ErrUnsupported = ebpf.ErrNotSupported

// Options of the services. The zero value is usable.
type Options struct {
	// BPFDir is where maps are pinned; it has to be on a bpffs. If it is not, or empty, they
	// are not.
	BPFDir string
}

// Datapath is another one whose pseudowires have services.
type Datapath struct {
	pseudowire.Above
	strays   drift.Log
	programs *bpf.NSP
	nl       *netlink.Handle
	devices  *tcfilter.Devices
	// pins is the directory of this namespace's pins, empty without a bpffs.
	pins string

	wires map[string]*wire
	// sessions are the pseudowires' that sent last: whose counters have what was refused.
	sessions map[string]uint32
}

// wire is a pseudowire and how its device is. device is 0 before that was looked at. bare says that
// there was none: one that comes has no programs of an earlier process.
type wire struct {
	pseudowire.Pseudowire
	device  uint32
	bare    bool
	service pseudowire.Service
}

// Wrap gives services to the pseudowires of a datapath, in the namespace of the calling
// thread. On an error the datapath is as it was, and the caller's.
func Wrap(dp pseudowire.Datapath, o Options) (*Datapath, error) {
	pins, err := bpf.PinDir(o.BPFDir)
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink for native service processing: %w", err)
	}
	devices, err := tcfilter.OpenDevices()
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("native service processing: %w", err)
	}
	programs, err := bpf.LoadNSP(pins, string(dp.Kind()))
	if err != nil {
		nl.Close()
		return nil, errors.Join(err, devices.Close())
	}
	return &Datapath{Above: pseudowire.Above{Datapath: dp}, programs: programs, nl: nl, devices: devices, pins: pins, wires: map[string]*wire{}, sessions: map[string]uint32{}}, nil
}

// Abilities are the datapath's, and services.
func (d *Datapath) Abilities() pseudowire.Abilities {
	can := d.Datapath.Abilities()
	can.Services = true
	return can
}

// SetPseudowire is the datapath's, and sets the service. A device that comes with the
// session gets it then.
func (d *Datapath) SetPseudowire(p pseudowire.Pseudowire) error {
	if err := check(&p.Service); err != nil {
		return fmt.Errorf("pseudowire %s: %w", p.Name, err)
	}
	if err := d.Datapath.SetPseudowire(p); err != nil {
		return err
	}
	w := d.wires[p.Name]
	if w == nil || w.Device != p.Device {
		w = new(wire)
		d.wires[p.Name] = w
	}
	w.Pseudowire = p
	return d.apply(w, true)
}

// SetSession is the datapath's; its device may have come with it.
func (d *Datapath) SetSession(s pseudowire.Session) error {
	if err := d.Datapath.SetSession(s); err != nil {
		return err
	}
	if _, known := d.sessions[s.Pseudowire]; s.Transmit || !known {
		d.sessions[s.Pseudowire] = s.LocalID
	}
	if w := d.wires[s.Pseudowire]; w != nil {
		return d.apply(w, false)
	}
	return nil
}

// RemoveSession is the datapath's.
func (d *Datapath) RemoveSession(localID uint32) error {
	if err := d.Datapath.RemoveSession(localID); err != nil {
		return err
	}
	maps.DeleteFunc(d.sessions, func(_ string, id uint32) bool { return id == localID })
	return nil
}

// RemovePseudowires is the datapath's, whose devices take the programs along.
func (d *Datapath) RemovePseudowires(names ...string) error {
	if err := d.Datapath.RemovePseudowires(names...); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		w := d.wires[name]
		delete(d.wires, name)
		delete(d.sessions, name)
		if w != nil && w.device != 0 && w.service != (pseudowire.Service{}) {
			errs = append(errs, d.programs.Delete(w.device))
		}
	}
	return errors.Join(errs...)
}

// Classify is the datapath's, of a frame whose tags have come off as the service takes them off.
func (d *Datapath) Classify(name string, frame pseudowire.Frame) (pseudowire.Classified, error) {
	if w := d.wires[name]; w != nil && w.Service.Push {
		tags := 1
		if w.Service.Inner != 0 {
			tags = 2
		}
		for range tags {
			frame = popped(frame)
		}
	}
	return d.Above.Classify(name, frame)
}

// popped is a frame without its first tag, if it has one.
func popped(f pseudowire.Frame) pseudowire.Frame {
	if len(f.Octets) < 18 {
		return f
	}
	if tpid := binary.BigEndian.Uint16(f.Octets[12:]); tpid != tpid8021Q && tpid != tpid8021AD {
		return f
	}
	if !f.Popped {
		f.Popped, f.PCP = true, f.Octets[14]>>5
	}
	f.Octets = slices.Concat(f.Octets[:12], f.Octets[16:])
	return f
}

// Counters are the datapath's, with what services have dropped.
func (d *Datapath) Counters() (map[uint32]pseudowire.Counters, error) {
	all, err := d.Datapath.Counters()
	if err != nil {
		return nil, err
	}
	for name, id := range d.sessions {
		c, known := all[id]
		w := d.wires[name]
		if !known || w == nil || w.device == 0 || w.service == (pseudowire.Service{}) {
			continue
		}
		refused, err := d.programs.Refused(w.device)
		if err != nil {
			return nil, err
		}
		if len(refused) == 0 {
			continue
		}
		c.Drops = maps.Clone(c.Drops)
		if c.Drops == nil {
			c.Drops = map[string]uint64{}
		}
		for reason, n := range refused {
			c.Drops[reasons[reason]] += n
		}
		all[id] = c
	}
	return all, nil
}

var reasons = map[bpf.Refused]string{
	bpf.PolicedBroadcast: pseudowire.DropBroadcast,
	bpf.PolicedMulticast: pseudowire.DropMulticast,
	bpf.PolicedUnknown:   pseudowire.DropUnknownUnicast,
	bpf.RefusedVLAN:      pseudowire.DropWrongVLAN,
	bpf.RefusedGroup:     pseudowire.DropLinkLocal,
	bpf.RefusedError:     pseudowire.DropError,
	bpf.Policed:          pseudowire.DropPoliced,
}

// Close gives up handles; what is attached stays.
func (d *Datapath) Close() error { return errors.Join(d.Datapath.Close(), d.close()) }

// Cleanup is the datapath's, and removes pins; the programs go with the devices.
func (d *Datapath) Cleanup() error {
	return errors.Join(d.Datapath.Cleanup(), bpf.RemovePins(d.pins, d.part()), d.close())
}

// part is whose maps ours are: each datapath's are apart.
func (d *Datapath) part() bpf.Part { return bpf.PartNSP(string(d.Kind())) }

// Prune is the datapath's, and then forgets devices that have no service.
func (d *Datapath) Prune() error {
	if err := d.Datapath.Prune(); err != nil {
		return err
	}
	return errors.Join(d.prune(), bpf.RemoveOtherLayouts(d.pins, d.part()))
}

func (d *Datapath) prune() error {
	served, err := d.served()
	if err != nil {
		return err
	}
	devices, err := d.programs.Devices()
	if err != nil {
		return err
	}
	var errs []error
	for _, device := range devices {
		if !served[device] {
			errs = append(errs, d.programs.Delete(device))
		}
	}
	return errors.Join(errs...)
}

// served are the devices that have a service, or are to have one: what could not be done yet may
// go on as an earlier process left it.
func (d *Datapath) served() (map[uint32]bool, error) {
	served := map[uint32]bool{}
	for _, w := range d.wires {
		if w.Service == (pseudowire.Service{}) && w.service == (pseudowire.Service{}) {
			continue
		}
		served[w.device] = true
		device, err := d.devices.Index(w.Device)
		if err != nil {
			return nil, err
		}
		if device != 0 {
			served[uint32(device)] = true
		}
	}
	return served, nil
}

func (d *Datapath) close() error {
	d.nl.Close()
	return errors.Join(d.devices.Close(), d.programs.Close())
}

// apply makes a pseudowire's device as it is to be. look has it look whether the programs are
// still there where that should be so.
func (d *Datapath) apply(w *wire, look bool) error {
	none := pseudowire.Service{}
	if w.Service == none && w.service == none && (w.bare || w.device != 0) {
		return nil // whatever device there is by now has had no programs
	}
	index, err := d.index(w, look)
	if err != nil {
		return err
	}
	if index == 0 { // not yet, or not any more
		w.bare = true
		return nil
	}
	device, link := uint32(index), tcfilter.Numbered(index, w.Device)
	if device == w.device && w.Service == w.service {
		if look {
			return d.keep(w, link)
		}
		return nil
	}
	if w.device != 0 && device != w.device && w.service != none {
		// The device was made anew under another number.
		if err := d.programs.Delete(w.device); err != nil {
			return err
		}
	}
	fresh := device != w.device || w.service == none
	switch {
	case w.Service != none:
		if fresh {
			if err := d.begin(w, link); err != nil {
				return err
			}
		}
		value := valueOf(&w.Service)
		if err := d.programs.Put(device, &value); err != nil {
			if fresh {
				err = errors.Join(err, d.programs.Delete(device))
			}
			return err
		}
		if fresh {
			// Those of an earlier process give way.
			err = d.attach(link)
		}
	case w.device != device || w.service != none:
		if !w.bare || w.service != none {
			err = d.detach(link) // also what an earlier process has left
		}
		if err == nil && w.service != none {
			err = d.programs.Delete(device)
		}
	}
	if err != nil {
		return err
	}
	w.device, w.bare, w.service = device, false, w.Service
	return nil
}

// index is the number of a pseudowire's device: the datapath below knows that of a session that has just been set.
func (d *Datapath) index(w *wire, look bool) (int, error) {
	if index, known := d.DeviceIndex(w.Name); known && !look {
		return index, nil
	}
	return d.devices.Index(w.Device)
}

// begin forgets what maps have of a device at which the programs of no earlier process are.
func (d *Datapath) begin(w *wire, link netlink.Link) error {
	if !w.bare {
		there, err := tcfilter.Attached(d.nl, link, at(netlink.HANDLE_MIN_INGRESS))
		if err != nil || there {
			return err
		}
	}
	return d.programs.Delete(uint32(link.Attrs().Index))
}

// keep attaches the programs again if somebody has taken one off.
func (d *Datapath) keep(w *wire, link netlink.Link) error {
	if w.service == (pseudowire.Service{}) {
		return nil
	}
	for f := range d.hooks() {
		there, err := tcfilter.Attached(d.nl, link, f)
		if err != nil {
			return err
		}
		if !there && !d.strays.Held("pseudowire "+w.Name) {
			err := d.attach(link)
			d.strays.Add("pseudowire "+w.Name, "the program pwd_nsp was detached from "+w.Device, "attached again", err)
			return err
		}
	}
	return nil
}

// Repairs are the datapath's, and those of programs.
func (d *Datapath) Repairs() []drift.Repair {
	return append(d.Datapath.Repairs(), d.strays.Repairs()...)
}

// Heed is the datapath's, and of programs.
func (d *Datapath) Heed(held func(thing string) bool) {
	d.Datapath.Heed(held)
	d.strays.Heed(held)
}

// Refresh is the datapath's, and looks at the programs.
func (d *Datapath) Refresh() error {
	errs := []error{d.Datapath.Refresh()}
	for _, name := range slices.Sorted(maps.Keys(d.wires)) {
		if w := d.wires[name]; w.service != (pseudowire.Service{}) {
			errs = append(errs, d.apply(w, true))
		}
	}
	return errors.Join(errs...)
}

// hooks of a device: the frames that go into the pseudowire leave the device.
func (d *Datapath) hooks() map[tcfilter.Filter]*ebpf.Program {
	return map[tcfilter.Filter]*ebpf.Program{at(netlink.HANDLE_MIN_EGRESS): d.programs.Into, at(netlink.HANDLE_MIN_INGRESS): d.programs.Out}
}

func at(parent uint32) tcfilter.Filter {
	return tcfilter.Filter{Parent: parent, Priority: tcfilter.PriorityService, Name: "pwd_nsp"}
}

func (d *Datapath) attach(link netlink.Link) error {
	for f, program := range d.hooks() {
		if err := tcfilter.Attach(d.nl, link.Attrs().Index, f, program); err != nil {
			return fmt.Errorf("native service processing: %w", err)
		}
	}
	return nil
}

func (d *Datapath) detach(link netlink.Link) error {
	for f := range d.hooks() {
		if err := tcfilter.Detach(d.nl, link, f); err != nil {
			return fmt.Errorf("native service processing: %w", err)
		}
	}
	return nil
}

// ErrInvalid says that a service contradicts itself.
var ErrInvalid = errors.New("native service processing: the service contradicts itself")

func check(s *pseudowire.Service) error {
	one := len(s.VLANs.Ranges()) == 1 && s.VLANs.Ranges()[0].First == s.VLANs.Ranges()[0].Last
	switch {
	case (s.Push || s.Rewrite) && (!s.Filter || s.Untagged || !one || s.Push && s.Rewrite):
		return fmt.Errorf("%w: one tag to push or to rewrite is wanted", ErrInvalid)
	case !s.Filter && (s.Untagged || s.VLANs != "" || s.Inner != 0):
		return fmt.Errorf("%w: tags without a filter", ErrInvalid)
	case s.Inner > 4094, s.Inner != 0 && s.VLANs == "":
		return fmt.Errorf("%w: inner VLAN %d", ErrInvalid, s.Inner)
	}
	return nil
}

// valueOf is a service as the programs have it.
func valueOf(s *pseudowire.Service) bpf.Service {
	v := bpf.Service{Groups: uint32(^s.RefusedGroups)}
	for flag, set := range map[uint32]bool{
		bpf.ServiceFilter: s.Filter, bpf.ServiceUntagged: s.Untagged, bpf.ServiceTagged: s.VLANs != "",
		bpf.ServiceInner: s.Inner != 0, bpf.ServicePush: s.Push, bpf.ServiceRewrite: s.Rewrite,
		bpf.ServiceMapPCP: s.PCP.Mapped, bpf.ServiceDSCPPCP: s.PCP.DSCP,
	} {
		if set {
			v.Flags |= flag
		}
	}
	v.Outer = uint32(cmp.Or(s.Protocol, tpid8021Q)) << 16
	for id := range s.VLANs.All() {
		v.Vlans[id>>6] |= 1 << (id & 63)
		if s.Push || s.Rewrite {
			v.Outer |= uint32(id)
		}
	}
	if s.Inner != 0 {
		v.Inner = tpid8021Q<<16 | uint32(s.Inner)
	}
	for from, to := range s.PCP.Map {
		v.Pcp |= uint32(to&7) << (4 * from)
	}
	for kind, limit := range []uint32{s.Limits.Broadcast, s.Limits.Multicast, s.Limits.UnknownUnicast} {
		if limit > 0 {
			v.Interval[kind] = uint64(1e9 / limit)
		}
	}
	if rate := s.Limits.Police; rate > 0 {
		v.Police = max(8e9<<bpf.PoliceShift/rate, 1)
	}
	return v
}
