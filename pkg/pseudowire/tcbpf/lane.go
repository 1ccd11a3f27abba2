package tcbpf

import (
	"fmt"
	"slices"
)

// The slow lane is a veth pair, one for all pseudowires: frames that the
// encapsulation program cannot carry go into its entry, which has no offloads,
// and come out of its exit with their checksums finished and in segments, where
// the fragmentation program takes them (bpf/lane.h).
const (
	laneEntry = "pwd-lane-in"
	laneExit  = "pwd-lane-out"
	// The kernel's longest packet, as of a frame of several segments.
	laneMTU = 65535
)

func (d *Datapath) openLane() error {
	p, err := d.ensurePair(pairSpec{inner: laneEntry, outer: laneExit, alias: aliasLane, innerMTU: laneMTU, outerMTU: laneMTU})
	if err != nil {
		return err
	}
	features, err := d.features.active(p.inner)
	if err != nil {
		return err
	}
	off := slices.DeleteFunc(features, func(f string) bool { return !finishes(f) })
	if err := d.features.set(p.inner, off, false); err != nil {
		return err
	}
	if features, err = d.features.active(p.inner); err != nil {
		return err
	}
	if slices.ContainsFunc(features, finishes) {
		return fmt.Errorf("%s keeps offloads: %v", laneEntry, features)
	}
	d.lane = p
	// The program first: what comes out is never the host's.
	if d.active {
		if err := d.attach(p.outer, d.laneHook()); err != nil {
			return err
		}
	}
	if err := d.setUp(p.outer, &d.lane.outerUp, true); err != nil {
		return err
	}
	return d.setUp(p.inner, &d.lane.innerUp, true)
}
