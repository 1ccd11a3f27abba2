package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

type (
	// Service is what happens to a pseudowire's frames beyond its datapath (service.h).
	Service = nspService
	// Refusals are the frames that were dropped for it, by Way and Refused.
	Refusals = nspRefusals
)

// Flags of Service.
const (
	ServiceFilter   = 1 << iota // not all frames are the pseudowire's, but only
	ServiceUntagged             // those without a tag
	ServiceTagged               // those with an outer tag among Vlans
	ServiceInner                // and with the tag Inner
	ServicePush                 // the tags come off on the way in, and are put on on the way out
	ServiceRewrite              // the first tag becomes Outer on the way out
	ServiceMapPCP               // PCPs on the way out are mapped by Pcp
	ServiceDSCPPCP              // they are those of the IP header inside
)

// Way is which way a frame goes.
type Way uint32

const (
	Into Way = 0 // the pseudowire
	Out  Way = 8 // of it
)

// Refused is why a frame was dropped.
type Refused uint32

const (
	PolicedBroadcast Refused = iota
	PolicedMulticast
	PolicedUnknown
	RefusedVLAN
	RefusedGroup
	RefusedError
	Policed
)

// PoliceShift is the unit of Service.Police: an octet takes that many nanoseconds, shifted.
const PoliceShift = 10

// kinds of frames that are limited.
const kinds = 3

// NSP are the programs of native service processing, in the kernel.
type NSP struct {
	// Into is for the egress of a pseudowire's device, Out for its ingress.
	Into, Out *ebpf.Program
	// Services by ifindex of the device.
	Services Table[uint32, Service]

	refused *ebpf.Map
	due     Table[uint32, uint64]
	// stations are tables of the stations that are known on either side of a device.
	stations *ebpf.Map
	table    *ebpf.MapSpec

	collection *ebpf.Collection
}

// LoadNSP puts the programs into the kernel. With a directory, which has to be on a bpffs,
// maps are pinned under it and used again, as by Load, apart for each datapath; what is
// attached keeps the programs.
func LoadNSP(dir, datapath string) (*NSP, error) {
	spec, err := loadNsp()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	return loadNSPSpec(spec, pinned(dir, PartNSP(datapath)))
}

func loadNSPSpec(spec *ebpf.CollectionSpec, dir string) (*NSP, error) {
	n := &NSP{table: spec.Maps[nspMapStations].InnerMap.Copy()}
	var err error
	var tookOver map[string]bool
	if n.collection, tookOver, err = loadOver(spec, dir, "the native service processing"); err != nil {
		return nil, err
	}
	if err := pin(n.collection, dir, tookOver); err != nil {
		n.collection.Close()
		return nil, err
	}
	programs, maps := n.collection.Programs, n.collection.Maps
	n.Into, n.Out = programs[nspProgPwdInto], programs[nspProgPwdOut]
	n.Services.m, n.refused, n.due.m, n.stations = maps[nspMapServices], maps[nspMapRefused], maps[nspMapDue], maps[nspMapStations]
	return n, nil
}

// Close gives up the handles. What is attached stays.
func (n *NSP) Close() error {
	n.collection.Close()
	return nil
}

// Put sets what happens to the frames of a device. Limits that stay go on without a gap. What is owed by a limit that
// changes is forgotten, once the new one is in force: no frame is taken by the old one on a clean slate.
func (n *NSP) Put(device uint32, s *Service) error {
	was, err := n.Services.Get(device)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	if err := create(n.refused, &device, make([]Refusals, cpus)); err != nil {
		return err
	}
	limits := limitsOf(device, &was, s)
	for _, l := range limits {
		if err := n.begin(l); err != nil {
			return err
		}
	}
	unknown := s.Interval[PolicedUnknown] != 0
	if unknown {
		if err := n.know(device, true); err != nil {
			return err
		}
	}
	if err := n.Services.Put(device, s); err != nil {
		return err
	}
	for _, l := range limits {
		if err := n.settle(l); err != nil {
			return errors.Join(err, n.Services.Put(device, &was)) // so that it is tried again
		}
	}
	if !unknown {
		return n.know(device, false)
	}
	return nil
}

// know has a device's table of stations be there or not.
func (n *NSP) know(device uint32, on bool) error {
	// Before Linux 6.8 a deletion waits for an RCU grace period, also of what is not there.
	var id uint32
	err := n.stations.Lookup(&device, &id)
	switch there := err == nil; {
	case err != nil && !errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("read map %s: %w", n.stations, err)
	case on == there:
		return nil
	case !on:
		return Table[uint32, uint32]{n.stations}.Delete(device)
	}
	table, err := ebpf.NewMap(n.table)
	if err != nil {
		return fmt.Errorf("make a table of stations: %w", err)
	}
	defer table.Close()
	return update(n.stations, &device, table, ebpf.UpdateAny)
}

// limit is one of a device's, as it was and as it is to be; 0 is none.
type limit struct {
	key     uint32
	was, is uint64
}

func limitsOf(device uint32, was, is *Service) []limit {
	all := []limit{{device<<4 | uint32(Out) | uint32(Policed), was.Police, is.Police}}
	for kind := range uint32(kinds) {
		for _, way := range []Way{Into, Out} {
			all = append(all, limit{device<<4 | uint32(way) | kind, was.Interval[kind], is.Interval[kind]})
		}
	}
	return all
}

// begin has the state of a limit that is to be be there.
func (n *NSP) begin(l limit) error {
	owed := uint64(0)
	switch {
	case l.is == 0:
		return nil
	case l.was == 0:
		return n.due.Put(l.key, &owed)
	}
	return n.due.Create(l.key, &owed)
}

// settle forgets what was owed by a limit that is another now, or none.
func (n *NSP) settle(l limit) error {
	owed := uint64(0)
	switch {
	case l.is == 0:
		return n.due.Delete(l.key)
	case l.was != 0 && l.was != l.is:
		return n.due.Put(l.key, &owed)
	}
	return nil
}

// Delete forgets a device.
func (n *NSP) Delete(device uint32) error {
	errs := []error{n.Services.Delete(device), Table[uint32, Refusals]{n.refused}.Delete(device), n.know(device, false),
		n.due.Delete(device<<4 | uint32(Out) | uint32(Policed))}
	for kind := range uint32(kinds) {
		errs = append(errs, n.due.Delete(device<<4|uint32(Into)|kind), n.due.Delete(device<<4|uint32(Out)|kind))
	}
	return errors.Join(errs...)
}

// Devices are those that something is kept for.
func (n *NSP) Devices() ([]uint32, error) {
	return Table[uint32, []Refusals]{n.refused}.Keys()
}

// Refused are how many frames of a device were dropped, by reason, both ways together.
func (n *NSP) Refused(device uint32) (map[Refused]uint64, error) {
	var perCPU []Refusals
	if err := n.refused.Lookup(&device, &perCPU); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("read map %s: %w", n.refused, err)
	}
	sum := map[Refused]uint64{}
	for _, r := range perCPU {
		for reason := PolicedBroadcast; reason <= Policed; reason++ {
			if v := r.Of[uint32(Into)+uint32(reason)] + r.Of[uint32(Out)+uint32(reason)]; v > 0 {
				sum[reason] += v
			}
		}
	}
	return sum, nil
}
