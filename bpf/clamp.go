package bpf

import "github.com/cilium/ebpf"

// Clamp is the MSS clamp alone, in the kernel.
type Clamp struct {
	// Program is for both hooks of a device, as a classifier.
	Program *ebpf.Program
	// Rooms are the longest IP packets that untagged frames may carry, by ifindex.
	Rooms Table[uint32, uint32]

	collection *ebpf.Collection
}

// LoadClamp puts the MSS clamp into the kernel. Nothing is pinned: what is attached keeps
// the program and its map.
func LoadClamp() (*Clamp, error) {
	spec, err := loadObject()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	for name := range spec.Programs {
		if name != objectProgPwdClamp {
			delete(spec.Programs, name)
		}
	}
	for name := range spec.Maps {
		if name != objectMapClamps && name != objectMapScratches {
			delete(spec.Maps, name)
		}
	}
	c := new(Clamp)
	if c.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, &LoadError{"load the MSS clamp", err}
	}
	c.Program, c.Rooms.m = c.collection.Programs[objectProgPwdClamp], c.collection.Maps[objectMapClamps]
	return c, nil
}

// Close gives up the handles. What is attached stays.
func (c *Clamp) Close() error {
	c.collection.Close()
	return nil
}

// withoutClamp leaves out what the eBPF datapath has in its own programs.
func withoutClamp(spec *ebpf.CollectionSpec) {
	delete(spec.Programs, objectProgPwdClamp)
	delete(spec.Maps, objectMapClamps)
}
