package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

type (
	// Pace is how the packets of a class leave: Rate in bits a second, Horizon and Mark in
	// nanoseconds (pacing.c).
	Pace = pacingPace
	// Departures are when the next packet of a class leaves, by CLOCK_MONOTONIC in nanoseconds,
	// and what was given a time so far.
	Departures = pacingDepartures
)

// Pacing is the program that gives packets departure times, in the kernel.
type Pacing struct {
	// Program is for the egress of an underlay.
	Program *ebpf.Program

	paces      Table[uint32, Pace]
	clocks     Table[uint32, Departures]
	collection *ebpf.Collection
}

// LoadPacing puts the program into the kernel. Nothing is pinned: where it is attached it
// keeps its maps.
func LoadPacing() (*Pacing, error) {
	spec, err := loadPacing()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	p := new(Pacing)
	if p.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, &LoadError{"load the pacing of classes", err}
	}
	p.Program = p.collection.Programs[pacingProgPwdDepart]
	p.paces.m, p.clocks.m = p.collection.Maps[pacingMapPaces], p.collection.Maps[pacingMapClocks]
	return p, nil
}

// Close gives up the handles. What is attached stays.
func (p *Pacing) Close() error {
	p.collection.Close()
	return nil
}

// Put sets how the packets of a class leave. What has its time already keeps it.
func (p *Pacing) Put(class uint16, pace *Pace) error {
	if err := p.clocks.Create(uint32(class), new(Departures)); err != nil {
		return err
	}
	return p.paces.Put(uint32(class), pace)
}

// Delete has the packets of a class leave at once, and forgets what was counted.
func (p *Pacing) Delete(class uint16) error {
	if err := p.paces.Delete(uint32(class)); err != nil {
		return err
	}
	return p.clocks.Delete(uint32(class))
}

// Departures are those of a class that was put.
func (p *Pacing) Departures(class uint16) (Departures, error) {
	d, err := p.clocks.Get(uint32(class))
	if err != nil {
		return d, fmt.Errorf("class %d: %w", class, err)
	}
	return d, nil
}
