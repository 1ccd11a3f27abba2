package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// macWatch knows since when each MAC address is where it is: the kernel's table
// tells only when it was last heard.
type macWatch struct {
	news  *bridge.Moves
	since map[macKey]sighting
	// behind counts the addresses behind each port.
	behind map[int]int
	// loops looks for them in the news; found are those that nothing was done about yet, one for
	// each place: a storm shows thousands by thousands of addresses.
	loops bridge.Loops
	found []bridge.Loop
	// moved, if set, is told of all news, missed of news that were lost.
	moved  func(bridge.Move) error
	missed func() error
}

type macKey struct {
	address bridge.Address
	vlan    uint16
	bridge  int
}

// sighting is the port that an address is behind, and since when.
type sighting struct {
	port int
	at   time.Time
}

// watchMACs begins to watch; what has been learned before counts from now.
func (a *Agent) watchMACs(c circuits) (*macWatch, error) {
	news, err := bridge.OpenMoves()
	if err != nil {
		return nil, err
	}
	m := &macWatch{news: news, since: make(map[macKey]sighting), behind: make(map[int]int), moved: a.stationMoved, missed: a.stationsMissed}
	if err := m.list(c); err != nil {
		news.Close()
		return nil, err
	}
	return m, nil
}

// wake holds a token when there is something to follow.
func (m *macWatch) wake() <-chan struct{} {
	if m == nil {
		return nil
	}
	return m.news.Wake
}

// follow takes in what has happened.
func (m *macWatch) follow(c circuits) error {
	moves, lost := m.news.Take()
	errs := m.take(time.Now(), moves)
	if lost {
		if m.missed != nil {
			errs = append(errs, m.missed())
		}
		errs = append(errs, m.list(c))
	}
	return errors.Join(errs...)
}

// take notes the news.
func (m *macWatch) take(now time.Time, moves []bridge.Move) (errs []error) {
	for _, v := range moves {
		if m.moved != nil {
			errs = append(errs, m.moved(v))
		}
		key := macKey{v.Address, v.VLAN, v.Bridge}
		if l, is := m.loops.Moved(now, v); is && !slices.ContainsFunc(m.found, l.SamePlace) {
			m.found = append(m.found, l)
		}
		switch old, known := m.since[key]; {
		case !v.Forgotten:
			m.see(key, v.Port, now)
		case known && old.port == v.Port:
			m.forget(key, old)
		}
	}
	return errs
}

// see notes that an address is behind a port, if that is news.
func (m *macWatch) see(key macKey, port int, now time.Time) {
	old, known := m.since[key]
	if known && old.port == port {
		return
	}
	if known {
		m.forget(key, old)
	}
	m.since[key] = sighting{port, now}
	m.behind[port]++
}

func (m *macWatch) forget(key macKey, s sighting) {
	delete(m.since, key)
	if m.behind[s.port]--; m.behind[s.port] <= 0 {
		delete(m.behind, s.port)
	}
}

// list takes the whole table in, and forgets what is not in it.
func (m *macWatch) list(c circuits) error {
	all, err := c.MACs()
	if err != nil {
		return err
	}
	now, there := time.Now(), make(map[macKey]bool, len(all))
	for _, x := range all {
		key := macKey{x.Address, x.VLAN, x.BridgeIndex}
		m.see(key, x.PortIndex, now)
		there[key] = true
	}
	for key, s := range m.since {
		if !there[key] {
			m.forget(key, s)
		}
	}
	return nil
}

// MACs implements api.Backend.
func (a *Agent) MACs(ctx context.Context) ([]api.MAC, error) {
	var views []api.MAC
	var err error
	if derr := a.do(ctx, func() { views, err = a.macViews() }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	return views, nil
}

func (a *Agent) macViews() ([]api.MAC, error) {
	if err := a.macs.follow(a.bridges); err != nil {
		return nil, err
	}
	a.closeLoops(time.Now())
	all, err := a.bridges.MACs()
	if err != nil {
		return nil, err
	}
	now, views := time.Now(), []api.MAC{}
	for _, m := range all {
		key := macKey{m.Address, m.VLAN, m.BridgeIndex}
		a.macs.see(key, m.PortIndex, now) // learned since the news were taken
		v := api.MAC{
			Address: m.Address.String(), Bridge: m.Bridge, VLAN: m.VLAN, Port: m.Port, Pseudowire: m.Pseudowire,
			SinceSeconds: int64(now.Sub(a.macs.since[key].at).Seconds()), IdleSeconds: int64(m.Idle.Seconds()),
		}
		if w := a.wires[m.Pseudowire]; w != nil {
			v.Peer = w.Peer
		}
		views = append(views, v)
	}
	return views, nil
}

// Announce tells peers which addresses are at this site. It implements api.Backend.
func (a *Agent) Announce(ctx context.Context, r api.AnnounceRequest) ([]api.Announcement, error) {
	var all []api.Announcement
	var err error
	if derr := a.do(ctx, func() { all, err = a.announce(r.Pseudowires) }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	return all, nil
}

// announce does so on the pseudowires named, or all. The error is an *api.Error.
func (a *Agent) announce(names []string) ([]api.Announcement, error) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(a.wires))
	}
	for _, name := range names {
		if a.wires[name] == nil {
			return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no pseudowire " + name}
		}
	}
	all := make([]api.Announcement, 0, len(names))
	for _, name := range names {
		w := a.wires[name]
		r := api.Announcement{Pseudowire: name, Peer: w.Peer}
		if !w.ready {
			r.Reason = nonempty(a.why(w), "it is not up")
			all = append(all, r)
			continue
		}
		n, err := a.bridges.Announce(name)
		r.Addresses = n
		if err != nil {
			r.Reason = err.Error()
		} else {
			a.event("info", "pseudowire "+name, fmt.Sprintf("%d addresses announced", n), "")
		}
		all = append(all, r)
	}
	return all, nil
}
