package tcbpf

import (
	"errors"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// resynchronise is how many packets behind the expected one, in sequence among
// themselves, make the receiver go on from there: a peer that has lost its state, as
// opposed to packets that were late (RFC 3931, Appendix C).
const resynchronise = 8

// createState makes what the programs keep of a session, unless it is there: its
// counters, and the numbers of its packets. RFC 3931, Section 4.6: they begin at 0.
func (d *Datapath) createState(s *pseudowire.Session) error {
	if err := d.objs.Counts.Create(s.LocalID); err != nil {
		return err
	}
	if s.TransmitSequencing != l2tpv3.SequencingNone {
		if err := d.objs.Numbers.Create(s.LocalID, new(uint64)); err != nil {
			return err
		}
	}
	if s.ReceiveSequencing != l2tpv3.SequencingNone {
		return d.objs.Orders.Create(s.LocalID, &bpf.Order{Resync: resynchronise})
	}
	return nil
}

func (d *Datapath) deleteState(localID uint32) error {
	return errors.Join(d.objs.Counts.Delete(localID), d.objs.Numbers.Delete(localID), d.objs.Orders.Delete(localID))
}
