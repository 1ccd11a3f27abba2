package agent

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
)

// Until an apply is final the state directory has which devices it moves. A daemon that dies
// over it leaves them where they are, and the next one, to which the topology before is in
// force, puts others into their places: it takes them out of there first.

// underway is that file.
type underway struct {
	Version int      `json:"version"`
	Boot    string   `json:"boot"`
	Devices []string `json:"devices"`
}

const underwayFile = "underway.json"

// setOut notes the devices that steps put where they were not before. Of those that stay, or go, none
// can be where the topology before has another.
func (a *Agent) setOut(steps []plan.Step) error {
	u := underway{Version: stateVersion, Boot: a.boot}
	for _, s := range steps {
		if s.Kind != plan.Pseudowire {
			continue
		}
		was, _ := s.Before.(*topology.Pseudowire)
		is, _ := s.After.(*topology.Pseudowire)
		if is != nil && (was == nil || was.Device != is.Device || was.Attachment != is.Attachment || was.Isolated != is.Isolated) {
			u.Devices = append(u.Devices, is.Device)
		}
	}
	if len(u.Devices) == 0 {
		return nil
	}
	slices.Sort(u.Devices)
	u.Devices = slices.Compact(u.Devices)
	return a.store.replace(underwayFile, &u, true)
}

// arrive ends that. A note that stays makes the next start interrupt those pseudowires, no more.
func (a *Agent) arrive() {
	if err := a.store.remove(underwayFile); err != nil {
		a.log.Warn("cannot remove the note of an apply that is over", "err", err)
	}
}

// clearPlaces takes the devices that an apply was about, which an earlier daemon died over, out
// of their attachment circuits.
func (a *Agent) clearPlaces() error {
	var u underway
	switch err := a.store.read(underwayFile, &u); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.As(err, new(*DamagedError)): // by a loss of power: no device is left
		a.log.Warn("the note of an apply that was not finished is damaged, going on without it", "err", err)
	case err != nil:
		return err
	}
	if u.Boot == a.boot {
		a.log.Warn("the daemon ended while a topology was applied: the one before is in force", "devices", len(u.Devices))
		if err := a.bridges.Release(u.Devices); err != nil {
			return err
		}
	}
	return a.store.remove(underwayFile)
}
