package bridge

import "time"

// A loop shows in what a bridge learns: the same frames arrive at two of its ports
// again and again, and their sender's address moves to and fro between those.
// A machine that moves does so once.
const (
	// loopMoves back to a port where the address was before, within loopWindow,
	// make a loop.
	loopMoves  = 5
	loopWindow = 2 * time.Second
	// loopAddresses are watched at once; more only in the place of those that have not moved
	// for loopWindow.
	loopAddresses = 4096
)

// Loops finds loops in Moves. It is a pure state machine of one goroutine; the zero
// value has seen nothing.
type Loops struct {
	seen map[place]*wanderer
	// order has those seen, the one that was looked at longest ago first, and some that are
	// not seen any more.
	order []entry
}

// entry is an address in a bridge as it was seen: another wanderer there is another entry's.
type entry struct {
	place
	wanderer *wanderer
}

// place is an address in a bridge.
type place struct {
	address Address
	vlan    uint16
	bridge  int
}

// wanderer is where an address was, and how often it went back and forth.
type wanderer struct {
	port, before int
	since        time.Time // of the first of returns
	returns      int
}

// Loop is a loop that was found: an address that is behind two ports in turn.
type Loop struct {
	Address       Address
	VLAN          uint16
	Bridge        int
	Port, Another int
}

// SamePlace says whether another loop is between the same two ports, in the same VLAN: by whichever
// address it shows, it is one.
func (l Loop) SamePlace(o Loop) bool {
	return l.Bridge == o.Bridge && l.VLAN == o.VLAN &&
		(l.Port == o.Port && l.Another == o.Another || l.Port == o.Another && l.Another == o.Port)
}

// Moved takes one move and says whether it shows a loop. After that the address
// is watched anew.
func (l *Loops) Moved(now time.Time, m Move) (Loop, bool) {
	key := place{m.Address, m.VLAN, m.Bridge}
	w := l.seen[key]
	switch {
	case m.Forgotten:
		delete(l.seen, key)
		return Loop{}, false
	case w == nil:
		l.remember(now, key, m.Port)
		return Loop{}, false
	case w.port == m.Port:
		return Loop{}, false
	}
	back := w.before == m.Port
	w.before, w.port = w.port, m.Port
	if !back || now.Sub(w.since) > loopWindow {
		w.since, w.returns = now, 0
	}
	if !back {
		return Loop{}, false
	}
	if w.returns++; w.returns < loopMoves {
		return Loop{}, false
	}
	delete(l.seen, key)
	return Loop{m.Address, m.VLAN, m.Bridge, w.port, w.before}, true
}

func (l *Loops) remember(now time.Time, key place, port int) {
	if l.seen == nil {
		l.seen = map[place]*wanderer{}
	}
	l.forgetOne(now)
	if len(l.seen) < loopAddresses {
		w := &wanderer{port: port, since: now}
		l.seen[key] = w
		l.order = append(l.order, entry{key, w})
	}
}

// forgetOne makes room for one more, if there is one that has not moved for long among the
// next few: a flood of addresses is not to cost a walk over all of them each. Those that have gone
// already leave the order with it.
func (l *Loops) forgetOne(now time.Time) {
	for range 4 {
		if len(l.order) < loopAddresses {
			return
		}
		e := l.order[0]
		l.order[0] = entry{}
		l.order = l.order[1:]
		switch {
		case l.seen[e.place] != e.wanderer:
			// It has gone already.
		case now.Sub(e.wanderer.since) > loopWindow:
			delete(l.seen, e.place)
		default:
			l.order = append(l.order, e)
		}
	}
}

// Port is the name of a link, as a Loop or a Move has it, and the pseudowire whose device
// that is; both are empty if there is none.
func (m *Manager) Port(index int) (name, pseudowire string) {
	if m.nl == nil {
		return "", ""
	}
	l, err := m.nl.linkByIndex(index)
	if err != nil || l == nil {
		return "", ""
	}
	return l.name, m.devices[l.name]
}
