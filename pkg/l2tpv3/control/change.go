package control

import (
	"fmt"
	"slices"
	"strings"
)

// TunnelChange is what SaveTunnel would give for a tunnel, without the parts that
// are still as they were when the tunnel was last saved. It makes saving after
// every message affordable for a tunnel with many sessions.
type TunnelChange struct {
	// TunnelState has the sessions that changed only. Queues of connections are
	// without the messages that connectionState.Kept counts, and History is empty
	// if it is the same.
	TunnelState
	// Gone are the names of sessions that were removed.
	Gone []string `json:"gone,omitempty"`
}

// SaveChange gives what changed in a tunnel since the last SaveTunnel or
// SaveChange, to be merged into what was saved then; false if there is none of
// that name.
func (e *Endpoint) SaveChange(name string) (TunnelChange, bool) {
	t := e.tunnels[name]
	if t == nil {
		return TunnelChange{}, false
	}
	c := TunnelChange{TunnelState: t.saveHead(), Gone: t.gone}
	if t.log.saved {
		c.History = nil
	}
	for i, x := range t.saveOrder() {
		kept := x.rel.saved()
		c.Connections[i].Kept, c.Connections[i].Queue = kept, c.Connections[i].Queue[kept:]
	}
	slices.SortFunc(t.unsaved, func(a, b *session) int { return strings.Compare(a.cfg.Name, b.cfg.Name) })
	for _, x := range t.unsaved {
		if t.sessions[x.cfg.Name] == x {
			c.Sessions = append(c.Sessions, x.save())
		}
	}
	t.wasSaved()
	return c, true
}

// wasSaved notes that all of the tunnel's state has been given away.
func (t *tunnel) wasSaved() {
	for _, x := range t.unsaved {
		x.unsaved = false
	}
	t.unsaved, t.gone, t.log.saved = nil, nil, true
	for _, c := range t.saveOrder() {
		for i := range c.rel.queue {
			c.rel.queue[i].saved = true
		}
	}
}

// saved counts the messages at the head of the queue that have been saved.
func (r *reliable) saved() int {
	if n := slices.IndexFunc(r.queue, func(m outgoing) bool { return !m.saved }); n >= 0 {
		return n
	}
	return len(r.queue)
}

// Merge makes the state be what it was when the change was taken, if it is what
// was saved before that. The error is a *StateError: the two do not belong together.
func (s *TunnelState) Merge(c TunnelChange) error {
	before := *s
	*s = c.TunnelState
	if len(s.History) == 0 {
		s.History = before.History
	}
	s.Connections = slices.Clone(c.Connections)
	for i := range s.Connections {
		if err := s.Connections[i].merge(before.Connections); err != nil {
			return &StateError{s.Config.Name, err.Error()}
		}
	}
	s.Sessions = before.Sessions
	for _, name := range c.Gone {
		if i, found := s.find(name); found {
			s.Sessions = slices.Delete(s.Sessions, i, i+1)
		}
	}
	for _, x := range c.Sessions {
		if i, found := s.find(x.Config.Name); found {
			s.Sessions[i] = x
		} else {
			s.Sessions = slices.Insert(s.Sessions, i, x)
		}
	}
	return nil
}

// find is where a session is among those of the state, or would be.
func (s *TunnelState) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.Sessions, name, func(x sessionState, name string) int { return strings.Compare(x.Config.Name, name) })
}

// merge completes the queue with the messages that it had before, and has kept.
func (c *connectionState) merge(before []connectionState) error {
	if c.Kept == 0 {
		return nil
	}
	i := slices.IndexFunc(before, func(b connectionState) bool { return b.LocalID == c.LocalID })
	if i < 0 {
		return fmt.Errorf("connection %d was not there before", c.LocalID)
	}
	old := before[i].Queue
	first := int(c.First - before[i].First)
	if c.Kept < 0 || c.Kept > len(old) || first > len(old)-c.Kept {
		return fmt.Errorf("connection %d has kept messages that it did not have", c.LocalID)
	}
	c.Queue = append(slices.Clone(old[first:first+c.Kept]), c.Queue...)
	c.Kept = 0
	return nil
}
