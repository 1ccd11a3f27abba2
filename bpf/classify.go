package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// SteerWay is the key of one of several ways out of a pseudowire, by the ifindex of its outer end.
// It is none where the ifindex is out of bounds.
func SteerWay(outer, index int) (key uint32, ok bool) {
	if outer <= 0 || outer >= wayBit>>wayShift || index < 0 || index >= 1<<wayShift {
		return 0, false
	}
	return wayBit | uint32(outer)<<wayShift | uint32(index), true
}

const (
	wayBit   = 0x04000000
	wayShift = 3
)

// The limits and special values of Steer, as in steer.h.
const (
	MaxWays  = 8
	MaxRules = 64
	// NoRule is the rule of frames that none matches.
	NoRule = MaxRules

	SteerPopped = 0x01

	FamilyNone = 0x01
	FamilyIPv4 = 0x02
	FamilyIPv6 = 0x04
)

// Why a frame that is classified would not leave.
const (
	LostVLAN      = 0x100
	LostState     = 0x200
	LostNeighbour = 0x400
)

// Classified is what would become of a frame.
type Classified struct {
	// Rule is the index of the rule that matches, NoRule for none.
	Rule uint32
	// TOS is the outer packet's octet in IPv4, its traffic class in IPv6.
	TOS uint8
	// Refused says why it would not leave: Lost*, 0 for nothing.
	Refused uint32
	// Priority is the outer packet's, Session the local session ID.
	Priority, Session uint32
}

// skBuff is struct __sk_buff as far as the answer.
type skBuff struct {
	Len, PktType, Mark, QueueMapping, Protocol, VLANPresent, VLANTCI, VLANProto, Priority uint32
	IngressIfindex, Ifindex, TCIndex                                                      uint32
	CB                                                                                    [5]uint32
	Rest                                                                                  [31]uint32
}

// Asked is a frame that is only asked about.
type Asked struct {
	// Octets are the frame's from its destination address on.
	Octets []byte
	// Popped says that a tag has come off it, whose priority bits were PCP.
	Popped bool
	PCP    uint8
}

// Classify asks the program what would become of a frame that comes to the outer end of a
// pseudowire. Nothing is sent or counted.
func (o *Objects) Classify(outer uint32, frame Asked) (Classified, error) {
	cb, err := foretell(o.classify, outer, frame)
	return Classified{Rule: cb[0], TOS: uint8(cb[2]), Refused: cb[2] &^ 0xff, Priority: cb[3], Session: cb[4]}, err
}

// foretell runs a program on a frame that comes to an outer end, and returns its answer.
func foretell(p *ebpf.Program, outer uint32, frame Asked) (cb [5]uint32, err error) {
	in, out := skBuff{Mark: outer}, skBuff{}
	if frame.Popped {
		in.CB[0] = 1 + uint32(frame.PCP)
	}
	data := make([]byte, len(frame.Octets)+256)
	code, err := p.Run(&ebpf.RunOptions{Data: frame.Octets, DataOut: data, Context: in, ContextOut: &out, Repeat: 1})
	if errors.Is(err, unix.EINVAL) {
		return cb, fmt.Errorf("the kernel takes no frame of %d octets for one: it wants the headers whole: %w", len(frame.Octets), err)
	}
	if err != nil {
		return cb, fmt.Errorf("run the classifier: %w", err)
	}
	if code != 0 {
		return cb, fmt.Errorf("the program says %d: there is no session that frames leave over, or the frame has too many tags", int32(code))
	}
	return out.CB, nil
}
