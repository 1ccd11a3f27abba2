package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

type (
	// PaceKey is a class of an interface.
	PaceKey = pacingPaceKey
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

	paces      Table[PaceKey, Pace]
	clocks     Table[PaceKey, Departures]
	collection *ebpf.Collection
}

// LoadPacing puts the program into the kernel. With a directory, which has to be on a bpffs,
// maps are pinned under it and used again, as by Load: clocks go on, and packets that wait
// in fq with the times of a process before leave before those that come. Without, what is
// attached keeps its maps, and clocks begin anew.
func LoadPacing(dir string) (*Pacing, error) {
	spec, err := loadPacing()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	dir = pinned(dir, PartPacing)
	p := new(Pacing)
	var tookOver map[string]bool
	if p.collection, tookOver, err = loadOver(spec, dir, "the pacing of classes"); err != nil {
		return nil, err
	}
	if err := pin(p.collection, dir, tookOver); err != nil {
		p.collection.Close()
		return nil, err
	}
	p.Program = p.collection.Programs[pacingProgPwdDepart]
	p.paces.m, p.clocks.m = p.collection.Maps[pacingMapPaces], p.collection.Maps[pacingMapClocks]
	return p, nil
}

// Close gives up the handles. What is attached or pinned stays.
func (p *Pacing) Close() error {
	p.collection.Close()
	return nil
}

// Put sets how the packets of a class leave. What has its time already keeps it.
func (p *Pacing) Put(class PaceKey, pace *Pace) error {
	if err := p.clocks.Create(class, new(Departures)); err != nil {
		return err
	}
	return p.paces.Put(class, pace)
}

// Delete has the packets of a class leave at once, and forgets what was counted.
func (p *Pacing) Delete(class PaceKey) error {
	if err := p.paces.Delete(class); err != nil {
		return err
	}
	return p.clocks.Delete(class)
}

// Classes are those that were put, by an earlier process too if it pinned them.
func (p *Pacing) Classes() ([]PaceKey, error) { return p.clocks.Keys() }

// Departures are those of a class that was put.
func (p *Pacing) Departures(class PaceKey) (Departures, error) {
	d, err := p.clocks.Get(class)
	if err != nil {
		return d, fmt.Errorf("class %d of interface %d: %w", class.Number, class.Ifindex, err)
	}
	return d, nil
}
