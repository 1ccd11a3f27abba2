package tcbpf

import (
	"errors"
	"time"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	defaultHold   = 10 * time.Millisecond
	defaultResync = 8
)

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
	if s.ReceiveSequencing == l2tpv3.SequencingNone {
		return nil
	}
	if d.keeper == nil && d.hold > 0 {
		var err error
		if d.keeper, err = startKeeper(d.objs, d.lane.inner, d.hold); err != nil {
			return err
		}
	}
	return d.objs.Orders.Create(s.LocalID, &bpf.Order{Resync: d.resync, Hold: uint64(d.hold)})
}

// deleteState forgets all that; ordered says that frames of the session may be held.
func (d *Datapath) deleteState(localID uint32, ordered bool) error {
	errs := []error{d.objs.Counts.Delete(localID), d.objs.Numbers.Delete(localID), d.objs.Orders.Delete(localID)}
	if ordered {
		errs = append(errs, pruneTable(d.objs.Held, func(k bpf.TurnKey) bool { return k.Session != uint64(localID) }))
	}
	return errors.Join(errs...)
}
