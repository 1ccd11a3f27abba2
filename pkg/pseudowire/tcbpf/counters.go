package tcbpf

import (
	"fmt"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Global counts what belongs to no session.
func (d *Datapath) Global() (map[string]uint64, error) {
	sum, err := d.objs.Global.Sum()
	if err != nil {
		return nil, &Error{Op: "read counters", Err: err}
	}
	sum[bpf.Error] += d.undelivered
	return byReason(sum[:]), nil
}

// Counters of all sessions.
func (d *Datapath) Counters() (map[uint32]pseudowire.Counters, error) {
	all := make(map[uint32]pseudowire.Counters, len(d.sessions))
	for id := range d.sessions {
		sum, err := d.objs.Counts.Sum(id)
		if err != nil {
			return nil, &Error{Op: "read counters of session", Object: fmt.Sprint(id), Err: err}
		}
		all[id] = pseudowire.Counters{
			ReceivedFrames:    sum.Received.Frames,
			ReceivedOctets:    sum.Received.Octets,
			TransmittedFrames: sum.Transmitted.Frames,
			TransmittedOctets: sum.Transmitted.Octets,
			Drops:             byReason(sum.Events[:]),
		}
	}
	return all, nil
}

var reasons = [bpf.Events]string{
	bpf.WrongCookie:    pseudowire.DropWrongCookie,
	bpf.UnknownSession: pseudowire.DropUnknownSession,
	bpf.Oversize:       pseudowire.DropOversize,
	bpf.NoNeighbour:    pseudowire.DropNoNeighbour,
	bpf.NotEstablished: pseudowire.DropNotTransmit,
	bpf.WrongVLAN:      pseudowire.DropWrongVLAN,
	bpf.Error:          pseudowire.DropError,
	bpf.Fragmented:     pseudowire.CountFragmented,
	bpf.OutOfSequence:  pseudowire.DropOutOfSequence,
	bpf.Congestion:     pseudowire.DropCongestion,
	bpf.Reassembled:    pseudowire.CountReassembled,
}

func byReason(events []uint64) map[string]uint64 {
	m := map[string]uint64{}
	for e, n := range events {
		if n != 0 {
			m[reasons[e]] = n
		}
	}
	return m
}
