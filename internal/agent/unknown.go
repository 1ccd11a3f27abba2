package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

const (
	// unknownFor is how long it is told that a peer asks for what this site does not have, after it
	// asked last. It asks again within a minute (control.Timers.ReopenMax).
	unknownFor = 3 * time.Minute
	// maxUnknown bounds what is remembered of peers.
	maxUnknown = 64
)

// unknowns are the pseudowires that peers ask for and this site does not have, and when they did last:
// as a rule a peer has a newer topology, or an older one.
type unknowns map[control.SessionUnknown]time.Time

// forget drops those that nobody has asked for lately.
func (u unknowns) forget(now time.Time) {
	maps.DeleteFunc(u, func(_ control.SessionUnknown, last time.Time) bool { return now.Sub(last) > unknownFor })
}

// have drops what is not unknown any more.
func (u unknowns) have(p *topology.Pseudowire) {
	maps.DeleteFunc(u, func(s control.SessionUnknown, _ time.Time) bool {
		return s.AGI == string(p.AGI) && (s.End == string(p.EndID) || s.End == string(p.LocalEndID))
	})
}

// sessionUnknown notes that a peer asks for a pseudowire that is not in the topology in force here, and
// tells it the first time.
func (a *Agent) sessionUnknown(now time.Time, s control.SessionUnknown) {
	a.unknowns.forget(now)
	if _, known := a.unknowns[s]; known {
		a.unknowns[s] = now
		return
	}
	if len(a.unknowns) >= maxUnknown {
		return
	}
	a.unknowns[s] = now
	a.tell(api.Event{Severity: "info", Object: "tunnel " + s.Tunnel, Message: "a pseudowire of the peer's is not known here",
		Reason: a.unknownWords(s), Next: a.unknownNext(s)})
}

// unknownNotes say what peers ask for in vain.
func (a *Agent) unknownNotes(now time.Time) (notes []string) {
	a.unknowns.forget(now)
	for s := range a.unknowns {
		notes = append(notes, fmt.Sprintf("tunnel %s: %s; %s", s.Tunnel, a.unknownWords(s), a.unknownNext(s)))
	}
	slices.Sort(notes)
	return notes
}

func (a *Agent) unknownWords(s control.SessionUnknown) string {
	of := ""
	if s.AGI != "" {
		of = " in the group " + topology.EndIDWords([]byte(s.AGI))
	}
	return fmt.Sprintf("%s asks for a pseudowire with the end ID %s%s (%s), which the topology here does not have",
		a.peerOf(s), topology.EndIDWords([]byte(s.End)), of, s.Type)
}

func (a *Agent) unknownNext(s control.SessionUnknown) string {
	return fmt.Sprintf("apply the same topology here and at %s", a.peerOf(s))
}

// peerOf is the site that asks.
func (a *Agent) peerOf(s control.SessionUnknown) string {
	if t := a.tunnels[s.Tunnel]; t != nil {
		return t.Peer
	}
	return "the peer"
}
