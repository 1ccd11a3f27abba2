package agent

import (
	"errors"

	"github.com/pwd-project/pwd/pkg/bridge"
)

// suppressor is a datapath that answers address resolution (pseudowire.Pseudowire.Suppress). It
// learns where hosts are from what they say of addresses; what else bridges learn it is told.
type suppressor interface {
	Moved(address [6]byte, vlan uint16, bridge, port int, forgotten bool) error
	ForgetAll() error
	Suppressed(pseudowire string) (n uint64, is bool, err error)
}

func (a *Agent) suppressors(f func(suppressor) error) error {
	var errs []error
	for _, dp := range a.datapaths {
		if s, ok := dp.(suppressor); ok {
			errs = append(errs, f(s))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) stationMoved(v bridge.Move) error {
	return a.suppressors(func(s suppressor) error { return s.Moved(v.Address, v.VLAN, v.Bridge, v.Port, v.Forgotten) })
}

func (a *Agent) stationsMissed() error { return a.suppressors(suppressor.ForgetAll) }

// suppressed is how many requests a pseudowire did not carry, nil if it suppresses none.
func (a *Agent) suppressed(w *wire) *uint64 {
	s, ok := a.datapaths[w.kind].(suppressor)
	if !ok || !w.Suppress {
		return nil
	}
	n, is, err := s.Suppressed(w.Name)
	if err != nil {
		a.log.Debug("cannot read what was suppressed", "pseudowire", w.Name, "err", err)
	}
	if !is || err != nil {
		return nil
	}
	return &n
}
