package agent

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

const (
	// dropInterval is how often one peer's messages that were dropped for one reason
	// are logged.
	dropInterval = time.Minute
	// maxStrangers is how many prefixes of strangers are told apart, and loudStrangers
	// how many of them are logged by themselves in one interval.
	maxStrangers  = 64
	loudStrangers = 4
)

// dropWords say what was wrong with messages that were dropped.
var dropWords = map[string]string{
	"malformed":          "no control message: header or AVP lengths are wrong",
	"unknown-connection": "for a control connection that is not here (of before a restart, perhaps)",
	"unknown-peer":       "a request from an address that no tunnel has",
	"wrong-peer":         "for a control connection with another address",
	"wrong-port":         "from another port than the connection's",
	"wrong-version":      "of L2TP version 2",
	"wrong-nr":           "acknowledges what was never sent",
	"unauthenticated":    "its digest does not fit the secret here",
	"unexpected":         "neither a request nor of a connection",
	"out-of-window":      "further ahead than the receive window",
	"overload":           "more than can be answered: the peer does not acknowledge",
	"limited-request":    "more requests at once than are answered",
	"limited-source":     "more requests at once than are looked at from one source",
	"limited-stranger":   "more requests at once than are looked at from strangers",
	"refused-request":    "a request that was refused",
}

// dropKey is what messages that were dropped are told apart by: whose they are and
// why. Whose is a tunnel or, where that cannot be said, a peer's address.
type dropKey struct{ whose, reason string }

// dropCount is how many there have been since it was last logged.
type dropCount struct {
	since time.Time
	n     uint64
	last  netip.AddrPort
}

// stranger is what came from one prefix since the daemon began.
type stranger struct {
	prefix  netip.Prefix
	last    netip.Addr
	seen    time.Time
	reasons map[string]uint64
	// fresh are those that were not logged, asks that the last was a request.
	fresh uint64
	asked time.Time
}

// drops tells of control messages that were dropped: by tunnel and reason a line at
// once, and then one in an interval with the number of those between; of strangers
// the same by prefix, and of all together one line. Its memory is bounded, whatever comes.
type drops struct {
	log    *slog.Logger
	counts map[dropKey]*dropCount
	// strangers are by prefix; others have no place there any more.
	strangers map[netip.Prefix]*stranger
	others    stranger
	// begun is when the present interval of strangers began; loud counts its lines.
	begun time.Time
	loud  int
}

func newDrops(log *slog.Logger) drops {
	return drops{log: log, counts: map[dropKey]*dropCount{}, strangers: map[netip.Prefix]*stranger{}, others: stranger{reasons: map[string]uint64{}}}
}

// discarded is told by the control machine of each message that came in vain.
func (a *Agent) discarded(d control.Discard) {
	now, whose := time.Now(), ""
	from := d.Datagram.Remote.Addr().Unmap()
	switch {
	case d.Tunnel != "":
		whose = "tunnel " + d.Tunnel
	case a.isPeer(from):
		whose = "peer " + from.String()
	default:
		a.drops.stranger(now, d)
		return
	}
	a.drops.add(now, whose, d)
}

// isPeer says whether an address is one of the topology's.
func (a *Agent) isPeer(addr netip.Addr) bool {
	if a.peersDue || a.peers == nil {
		a.notePeers()
	}
	return a.peers[addr]
}

func (d *drops) add(now time.Time, whose string, m control.Discard) {
	key := dropKey{whose, m.Reason}
	c := d.counts[key]
	if c == nil {
		// Tunnels and peers are the topology's, the reasons a few: this is bounded.
		c = &dropCount{since: now}
		d.counts[key] = c
		args := []any{"object", whose, "reason", m.Reason, "from", m.Datagram.Remote, "what", dropWords[m.Reason]}
		if m.Answer != "" {
			args = append(args, "answer", m.Answer)
		}
		d.log.Warn("control message dropped; more are counted, not logged, for a minute", args...)
		return
	}
	c.n, c.last = c.n+1, m.Datagram.Remote
}

// prefixOf is what strangers are summed by.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

func (d *drops) stranger(now time.Time, m control.Discard) {
	if now.Sub(d.begun) >= dropInterval {
		d.begun, d.loud = now, 0
	}
	from := m.Datagram.Remote.Addr()
	p := prefixOf(from)
	s := d.strangers[p]
	first := s == nil
	if first {
		if len(d.strangers) >= maxStrangers && !d.evict(now) {
			s = &d.others
		} else {
			s = &stranger{prefix: p, reasons: map[string]uint64{}}
			d.strangers[p] = s
		}
	}
	s.last, s.seen = from, now
	s.reasons[m.Reason]++
	if m.Reason == "unknown-peer" {
		s.asked = now
	}
	if first && s != &d.others && d.loud < loudStrangers {
		d.loud++
		d.log.Warn("control message of a stranger dropped; more are counted, not logged, for a minute",
			"from", m.Datagram.Remote, "reason", m.Reason, "what", dropWords[m.Reason])
		return
	}
	s.fresh++
}

// evict makes room where one has been silent for an interval. What it did is added
// to the others'.
func (d *drops) evict(now time.Time) bool {
	var oldest *stranger
	for _, s := range d.strangers {
		if oldest == nil || s.seen.Before(oldest.seen) {
			oldest = s
		}
	}
	if now.Sub(oldest.seen) < dropInterval {
		return false
	}
	for reason, n := range oldest.reasons {
		d.others.reasons[reason] += n
	}
	d.others.fresh += oldest.fresh
	delete(d.strangers, oldest.prefix)
	return true
}

// tick logs what was only counted, where its interval is over.
func (d *drops) tick(now time.Time) {
	for key, c := range d.counts {
		switch {
		case now.Sub(c.since) < dropInterval:
		case c.n == 0:
			delete(d.counts, key) // the next is news again
		default:
			d.log.Warn("control messages dropped", "object", key.whose, "reason", key.reason, "more", c.n,
				"in", now.Sub(c.since).Round(time.Second), "last", c.last, "what", dropWords[key.reason])
			c.since, c.n = now, 0
		}
	}
	if d.begun.IsZero() || now.Sub(d.begun) < dropInterval {
		return
	}
	var more uint64
	var top []string
	for _, s := range d.byFresh() {
		if more += s.fresh; len(top) < loudStrangers && s.fresh > 0 {
			top = append(top, fmt.Sprintf("%s: %d", s.name(), s.fresh))
		}
		s.fresh = 0
	}
	if more > 0 {
		d.log.Warn("control messages of strangers dropped", "more", more, "in", now.Sub(d.begun).Round(time.Second), "most", strings.Join(top, ", "))
	}
	d.begun, d.loud = now, 0
}

func (s *stranger) name() string {
	if !s.prefix.IsValid() {
		return "elsewhere"
	}
	return s.prefix.String()
}

// byFresh are all, who did most since the last line first.
func (d *drops) byFresh() []*stranger {
	all := append(slices.Collect(maps.Values(d.strangers)), &d.others)
	slices.SortFunc(all, func(a, b *stranger) int {
		return cmp.Or(cmp.Compare(b.fresh, a.fresh), cmp.Compare(a.name(), b.name()))
	})
	return all
}

// suspect is the last address that no tunnel has and that asked for a connection
// after a time.
func (d *drops) suspect(after time.Time) (netip.Addr, bool) {
	var last *stranger
	for _, s := range d.strangers {
		if s.asked.After(after) && (last == nil || s.asked.After(last.asked)) {
			last = s
		}
	}
	if last == nil {
		return netip.Addr{}, false
	}
	return last.last, true
}

// views are the strangers, the last first, and at the end those that are not told apart.
func (d *drops) views() []api.Stranger {
	var out []api.Stranger
	for _, s := range d.strangers {
		out = append(out, api.Stranger{Prefix: s.prefix.String(), Last: s.last.String(), Seen: s.seen, Reasons: maps.Clone(s.reasons)})
	}
	slices.SortFunc(out, func(a, b api.Stranger) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.Prefix, b.Prefix)) })
	if len(d.others.reasons) > 0 {
		out = append(out, api.Stranger{Seen: d.others.seen, Reasons: maps.Clone(d.others.reasons)})
	}
	return out
}

// forget drops what is known of a tunnel that is gone.
func (d *drops) forget(tunnel string) {
	maps.DeleteFunc(d.counts, func(k dropKey, _ *dropCount) bool { return k.whose == "tunnel "+tunnel })
}
