package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	// defaultProbeWait is for how long the answer to a probe is waited for at the least
	// (RFC 8899, Section 5.1.1: "MUST NOT be smaller than 1 second"), probeRounds of how many
	// round trips otherwise; probeTries is how many are to be lost (MAX_PROBES is 3).
	defaultProbeWait = time.Second
	probeRounds      = 4
	probeTries       = 3
	// probeBusy is when to look again at a connection that could not be asked over.
	probeBusy = 5 * time.Second
	// probeAgain is when a path is looked at again (Section 5.1.1: PMTU_RAISE_TIMER).
	probeAgain = 10 * time.Minute
	// probeLeast is what every path carries (RFC 8200, Section 5).
	probeLeast = 1280
)

// usualMTUs are what paths carry whose links are no plain Ethernet: with PPPoE, and in
// tunnels of several kinds.
var usualMTUs = []int{1300, 1340, 1360, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 2000, 4000, 8000, 8900, 9000}

// pathProbe is what is known of a path whose routers may not say what they do not carry
// (a black hole, RFC 2923, Section 2.1): the zero value is nothing yet.
type pathProbe struct {
	// connection is the control connection that is asked over, of whose path believed is
	// the MTU by what the host knows.
	connection uint32
	believed   int
	// heard is that, or less if routers said so when it was last begun to ask.
	heard int
	// size is what is asked about, 0 for nothing now; tries is how often it was, asked when
	// last.
	size, tries int
	asked       time.Time
	// carried and lost are the longest that is known to arrive, and the shortest that is not.
	carried, lost int
	// sure says that believed was lost while shorter ones were not, again.
	sure bool
	// cap is what the datapath is told, 0 for nothing: believed is right, or cannot be
	// looked at.
	cap int
	// told is the last cap that people were told of.
	told int
	// given says that nothing is to be found out, see fits.
	given bool
	// next is when there is something to do.
	next time.Time
}

// probed is what carries a tunnel whose path is to be looked at, false if it is not.
//
// A peer of another make is not asked, though it is to pass over AVPs that it does not know
// (RFC 3931, Section 5.2): one that does not ends the connection, every time, and one that has
// no room for so long a message does not answer, and gets fragments for that of all that
// would have got through.
//
// The kernel's datapath is asked about over IPv6 alone. Over IPv4 it has routers cut what is
// too long, and DF would be an option of the socket, over which the kernel sends nothing as long
// as a process sets one.
func (t *tunnel) probed() (pseudowire.Tunnel, bool) {
	if t.Static != nil || t.Foreign || t.state != control.ConnectionEstablished {
		return pseudowire.Tunnel{}, false
	}
	if c, carries := t.set[pseudowire.EBPF]; carries {
		return c, true
	}
	c, carries := t.set[pseudowire.Kernel]
	return c, carries && c.Remote.Addr().Unmap().Is6()
}

// nextProbe is when the next path is to be looked at, false for never.
func (a *Agent) nextProbe() (next time.Time, ok bool) {
	for _, t := range a.tunnels {
		if _, probed := t.probed(); !probed {
			continue
		}
		if at := t.probe.next; !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// probePaths looks at the paths whose turn it is.
func (a *Agent) probePaths(now time.Time) {
	for _, t := range a.tunnels {
		if carrier, probed := t.probed(); probed && !now.Before(t.probe.next) {
			a.probePath(now, t, carrier)
		}
	}
}

// probePath goes on with one path.
func (a *Agent) probePath(now time.Time, t *tunnel, carrier pseudowire.Tunnel) {
	p := &t.probe
	if believed := a.longestMTU(a.mtusGiven()[t.Key], carrier.LocalID); carrier.LocalID != p.connection || believed != p.believed {
		*p = pathProbe{connection: carrier.LocalID, believed: believed, cap: p.cap, told: p.told}
	}
	wait := max(a.probeWait, probeRounds*a.control.RTT(p.connection))
	if p.believed == 0 {
		p.next = now.Add(wait)
		return
	}
	if p.size == 0 {
		p.heard = a.transport.PathMTU(p.connection, true)
	}
	if a.fits(t, carrier) {
		// Nothing is to be found out.
		*p = pathProbe{connection: p.connection, believed: p.believed, heard: p.heard, given: true, next: now.Add(probeAgain)}
		return
	}
	p.given = false
	if p.look(now, wait, a.control.ProbeState(p.connection)) {
		a.believe(t)
	}
	switch {
	case p.size == 0:
		p.next = now.Add(probeAgain)
		a.tellPath(t)
	case now.Before(p.next):
	case a.control.Probe(now, p.connection, p.size-probeOverhead(carrier)):
		p.tries, p.asked, p.next = p.tries+1, now, now.Add(wait)
	default:
		p.next = now.Add(probeBusy)
	}
}

// fits says that the topology gives the MTU of every pseudowire in a tunnel, and that their packets
// are no longer than the path is taken to carry: who set it knows the path. Where it was found to carry less
// before, or routers say that it does, which anybody can forge, the peer's answers are to show it.
func (a *Agent) fits(t *tunnel, carrier pseudowire.Tunnel) bool {
	if t.probe.cap != 0 || t.probe.heard < t.probe.believed {
		return false
	}
	known := false
	for _, w := range a.wires {
		r := w.on(t.Key)
		if r == nil {
			continue
		}
		session := pseudowire.Session{RemoteCookie: make([]byte, w.CookieLength)}
		if s := r.session; s != nil {
			session.RemoteCookie, session.TransmitSublayer = s.RemoteCookie, s.TransmitSublayer
		}
		if w.MTU == 0 || w.MTU+pseudowire.Overhead(&carrier, &session) > t.probe.believed {
			return false
		}
		known = true
	}
	return known
}

// mtuGiven says of how many of the pseudowires in a tunnel the topology gives the MTU. Their packets are as
// long as the host's own links and routes allow, whatever routers say of the path, which anybody can forge. The
// kernel's datapath goes by what they say over IPv6 in any case.
type mtuGiven struct{ some, others bool }

// mtusGiven is that of every tunnel.
func (a *Agent) mtusGiven() map[string]mtuGiven {
	all := map[string]mtuGiven{}
	for _, w := range a.wires {
		for _, r := range w.rides {
			t := a.tunnels[r.Tunnel]
			if t == nil {
				continue
			}
			given := w.MTU != 0 && (w.kind != pseudowire.Kernel || !t.set[pseudowire.Kernel].Remote.Addr().Unmap().Is6())
			g := all[r.Tunnel]
			all[r.Tunnel] = mtuGiven{g.some || given, g.others || !given}
		}
	}
	return all
}

// longestMTU is the longest packet that leaves in one piece for some pseudowire of a tunnel, which the path is
// asked about; shortestMTU the longest that does for all. Both are what the host takes the path for.
func (a *Agent) longestMTU(g mtuGiven, connection uint32) int {
	return a.transport.PathMTU(connection, !g.some)
}

func (a *Agent) shortestMTU(g mtuGiven, connection uint32) int {
	return a.transport.PathMTU(connection, g.others || !g.some)
}

// hinted says that routers say less of a path than what is known of it, and than they did when it was last
// begun to ask.
func (p *pathProbe) hinted(heard int) bool {
	return p.size == 0 && heard != 0 && heard < p.heard && (p.cap == 0 || heard < p.cap)
}

// silent says that no router says less of a path than the host takes it for.
func (p *pathProbe) silent() bool { return p.believed != 0 && p.heard >= p.believed }

// remeasured has the paths of a pseudowire looked at anew whose MTU is another, or which is new
// where nothing was asked.
func (a *Agent) remeasured(w *wire, was *topology.Pseudowire) {
	for _, r := range w.rides {
		t := a.tunnels[r.Tunnel]
		if t != nil && (t.probe.given || was.Name != "" && was.MTU != w.MTU) {
			t.probe = pathProbe{cap: t.probe.cap, told: t.probe.told}
		}
	}
}

// look takes in what has become of what was asked, and says whether more is known then. The believed MTU is asked
// about first, and if that is lost and the least one is not, those between. What cannot be found
// out changes nothing. There is something to ask unless size is 0 or next is yet to come.
func (p *pathProbe) look(now time.Time, wait time.Duration, s control.ProbeState) (more bool) {
	if p.size == 0 {
		p.size, p.tries, p.carried, p.lost, p.sure = p.believed, 0, 0, 0, false
		return false
	}
	if p.tries == 0 {
		return false
	}
	need := 1
	if p.cap != 0 && p.size > p.cap {
		need = 2 // what was found out does not go for one answer
	}
	got, lost := s.Answers >= need, s.Valid && p.tries >= probeTries
	if !got && !lost {
		if !s.Valid {
			p.tries-- // something else was sent, which the answer may be to
		}
		return false
	}
	if last := p.asked.Add(2 * wait); s.Answers < s.Sent && now.Before(last) {
		p.next = last // answers that come until then are to this size, and to no other
		return false
	}
	if got {
		p.carried = p.size
	} else {
		p.lost = p.size
	}
	p.size, p.tries = p.following(), 0
	return true
}

// following is what to ask about next, 0 for nothing more.
func (p *pathProbe) following() int {
	switch {
	case p.carried == p.believed || p.lost == probeLeast || p.believed <= probeLeast:
		return 0
	case p.carried == 0:
		return probeLeast // is anything answered at all?
	case !p.sure:
		p.sure = true // if it is lost again: nobody was busy
		return p.believed
	}
	between := slices.DeleteFunc(slices.Clone(usualMTUs), func(n int) bool { return n <= p.carried || n >= p.lost })
	if len(between) == 0 {
		return 0
	}
	return between[len(between)/2]
}

// finds is the cap as far as it is known, false while nothing is.
func (p *pathProbe) finds() (cap int, known bool) {
	switch {
	case p.carried == 0 || !p.sure && p.carried < p.believed || p.size == p.believed:
		return 0, false
	case p.carried < p.believed:
		return p.carried, true
	}
	return 0, true
}

// believe has the datapath send what is known to arrive so far. Where nothing is
// known all stays as it is.
func (a *Agent) believe(t *tunnel) {
	p := &t.probe
	found, known := p.finds()
	if !known || found == p.cap {
		return
	}
	p.cap = found
	a.unsaved[t.Key] = true
	a.faults.set("path of tunnel "+t.Key, a.recarry(t))
}

// tellPath tells what was found out about a path, once.
func (a *Agent) tellPath(t *tunnel) {
	p, object := &t.probe, "tunnel "+t.Key
	if p.cap == p.told {
		return
	}
	if p.cap != 0 {
		silence := "" // what was heard is not taken for true
		if p.silent() {
			silence = ", and no router says that it is not"
		}
		a.event("warning", object, fmt.Sprintf("packets of more than %d octets are lost on the way", p.cap),
			fmt.Sprintf("the path's MTU is taken for %d%s; what is longer leaves in fragments", p.believed, silence))
	} else {
		a.event("info", object, fmt.Sprintf("packets of %d octets get through again", p.believed), fmt.Sprintf("not more than %d did", p.told))
	}
	p.told = p.cap
}

// pathCap is what a restart is to know.
func (a *Agent) pathCap(tunnel string) int {
	if t := a.tunnels[tunnel]; t != nil {
		return t.probe.cap
	}
	return 0
}

// probeOverhead is the outer headers of a control message.
func probeOverhead(t pseudowire.Tunnel) int {
	n := 20
	if t.Remote.Addr().Unmap().Is6() {
		n = 40
	}
	if t.Encapsulation == l2tpv3.UDP {
		return n + 8
	}
	return n + 4 // RFC 3931, Section 4.1.1.2: session ID 0
}
