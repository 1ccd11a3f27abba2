package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Suppressions are the requests of one device that crossed no pseudowire (suppress.c).
type Suppressions = suppressSuppressions

// Suppression are the programs that answer address resolution for a network, in the kernel.
type Suppression struct {
	// Into is for the egress of a pseudowire's device, Out for its ingress.
	Into, Out *ebpf.Program
	// Counts by ifindex of the device.
	Counts Table[uint32, Suppressions]

	stations   Table[suppressStationKey, uint32]
	collection *ebpf.Collection
}

// LoadSuppression puts the programs into the kernel, with maps of their own. Nothing is pinned:
// what is attached keeps the programs and their maps. lifetime is for how long an address is
// answered for after its host has last said whose it is.
func LoadSuppression(lifetime time.Duration) (*Suppression, error) {
	spec, err := loadSuppress()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	return loadSuppressionSpec(spec, lifetime)
}

func loadSuppressionSpec(spec *ebpf.CollectionSpec, lifetime time.Duration) (*Suppression, error) {
	if err := spec.Variables[suppressVarLifetime].Set(uint64(lifetime)); err != nil {
		return nil, &LoadError{"set the lifetime of neighbours", err}
	}
	s := new(Suppression)
	var err error
	if s.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, &LoadError{"load the suppression of address resolution", err}
	}
	programs, maps := s.collection.Programs, s.collection.Maps
	s.Into, s.Out = programs[suppressProgPwdAnswer], programs[suppressProgPwdLearn]
	s.Counts.m, s.stations.m = maps[suppressMapCounts], maps[suppressMapStations]
	return s, nil
}

// Close gives up the handles. What is attached stays.
func (s *Suppression) Close() error {
	s.collection.Close()
	return nil
}

// Station is the device that a MAC address is behind.
func (s *Suppression) Station(mac [6]byte, vlan uint16) (device uint32, known bool, err error) {
	device, err = s.stations.Get(suppressStationKey{Mac: mac, Vlan: vlan})
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, false, nil
	}
	return device, err == nil, err
}

// Forget has a MAC address behind no device.
func (s *Suppression) Forget(mac [6]byte, vlan uint16) error {
	return s.stations.Delete(suppressStationKey{Mac: mac, Vlan: vlan})
}

// ForgetAll has all MAC addresses behind a device behind none; 0 is every device.
func (s *Suppression) ForgetAll(device uint32) error {
	keys, err := s.stations.Keys()
	for range 4 { // the programs change it meanwhile
		if !errors.Is(err, ebpf.ErrIterationAborted) {
			break
		}
		keys, err = s.stations.Keys()
	}
	if err != nil {
		return fmt.Errorf("list the stations: %w", err)
	}
	for _, k := range keys {
		behind, known, err := s.Station(k.Mac, k.Vlan)
		if err != nil {
			return err
		}
		if known && (device == 0 || behind == device) {
			if err := s.stations.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}
