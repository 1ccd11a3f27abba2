package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Exit is where frames of a pseudowire with several sessions leave (spread.c).
type Exit = spreadExit

// ExitSteered is the flag of Exit: there are several ways, and rules for them.
const ExitSteered = 1

// Spread are the programs that give each frame of a pseudowire to one of its sessions'
// devices, in the kernel.
type Spread struct {
	// Program is for the ingress of a pseudowire's outer end.
	Program *ebpf.Program
	// Exits by ifindex of the outer end, and by SteerWay.
	Exits Table[uint32, Exit]
	// Steers are the rules of pseudowires, by ifindex of the outer end.
	Steers Table[uint32, Steer]

	lost       *ebpf.Map
	foretell   *ebpf.Program
	collection *ebpf.Collection
}

// LoadSpread puts the programs into the kernel. Nothing is pinned: what is attached keeps
// the programs and their maps.
func LoadSpread() (*Spread, error) {
	spec, err := loadSpread()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	s := new(Spread)
	if s.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, &LoadError{"load the choice of a session's device", err}
	}
	programs, maps := s.collection.Programs, s.collection.Maps
	s.Program, s.foretell = programs[spreadProgPwdSpread], programs[spreadProgPwdForetell]
	s.Exits.m, s.Steers.m = maps[spreadMapExits], maps[spreadMapSteers]
	s.lost = maps[spreadMapLost]
	return s, nil
}

// Lost are the frames that no session took.
func (s *Spread) Lost() (uint64, error) {
	var perCPU []uint64
	if err := s.lost.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read map %s: %w", s.lost, err)
	}
	sum := uint64(0)
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

// Close gives up the handles. What is attached stays.
func (s *Spread) Close() error {
	s.collection.Close()
	return nil
}

// Classify asks the program what would become of a frame that comes to the outer end of a
// pseudowire: by which rule, and over which session. Nothing
// is sent or counted.
func (s *Spread) Classify(outer uint32, frame Asked) (Classified, error) {
	cb, err := foretell(s.foretell, outer, frame)
	return Classified{Rule: cb[0], Session: cb[4]}, err
}
