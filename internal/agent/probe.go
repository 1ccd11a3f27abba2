package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	// defaultProbeWait is for how long the answer to a probe is waited for, probeTries how many
	// are to be lost (RFC 8899, Section 5.1.1: MAX_PROBES is 3).
	defaultProbeWait = time.Second
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
	// size is what is asked about, 0 for nothing now; tries is how often it was.
	size, tries int
	// carried and lost are the longest that is known to arrive, and the shortest that is not.
	carried, lost int
	// sure says that believed was lost while shorter ones were not, again.
	sure bool
	// cap is what the datapath is told, 0 for nothing: believed is right, or cannot be
	// looked at.
	cap int
	// told is the last cap that people were told of.
	told int
	// next is when there is something to do.
	next time.Time
}

// probed says that a tunnel's path is to be looked at: where the datapath fragments by
// itself, and may have fragments be as short as they have to, and the peer can be asked.
func (t *tunnel) probed() bool {
	_, ours := t.set[pseudowire.EBPF]
	return ours && t.Static == nil && !t.Foreign && t.state == control.ConnectionEstablished
}

// nextProbe is when the next path is to be looked at, false for never.
func (a *Agent) nextProbe() (next time.Time, ok bool) {
	for _, t := range a.tunnels {
		if at := t.probe.next; t.probed() && (!ok || at.Before(next)) {
			next, ok = at, true
		}
	}
	return next, ok
}

// probePaths looks at the paths whose turn it is.
func (a *Agent) probePaths(now time.Time) {
	for _, t := range a.tunnels {
		if t.probed() && !now.Before(t.probe.next) {
			a.probePath(now, t)
		}
	}
}

// probePath goes on with one path: the believed MTU is asked about first, and if that is
// lost and the least one is not, those between. What cannot be found out changes nothing.
func (a *Agent) probePath(now time.Time, t *tunnel) {
	p := &t.probe
	carrier := t.set[pseudowire.EBPF]
	if believed := a.transport.PathMTU(carrier.LocalID); carrier.LocalID != p.connection || believed != p.believed {
		*p = pathProbe{connection: carrier.LocalID, believed: believed, cap: p.cap, told: p.told}
	}
	if p.believed == 0 {
		p.next = now.Add(a.probeWait)
		return
	}
	if p.size == 0 {
		p.size, p.tries, p.carried, p.lost, p.sure = p.believed, 0, 0, 0, false
	} else if p.tries > 0 {
		answered, valid := a.control.ProbeAnswered(p.connection)
		switch {
		case answered:
			p.carried = p.size
		case !valid:
			p.tries-- // something else was sent, which the answer may be to
		case p.tries >= probeTries:
			p.lost = p.size
		}
		if answered || valid && p.tries >= probeTries {
			p.size, p.tries = p.following(), 0
			a.believe(t)
		}
	}
	if p.size == 0 {
		p.next = now.Add(probeAgain)
		a.tellPath(t)
		return
	}
	p.next = now.Add(a.probeWait)
	if a.control.Probe(now, p.connection, p.size-probeOverhead(carrier)) {
		p.tries++
	} else {
		p.next = now.Add(probeBusy)
	}
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

// believe has the datapath send what is known to arrive so far. Where nothing is
// known all stays as it is.
func (a *Agent) believe(t *tunnel) {
	p, found := &t.probe, 0
	switch {
	case p.carried == 0 || !p.sure && p.carried < p.believed || p.size == p.believed:
		return // nothing is known yet
	case p.carried < p.believed:
		found = p.carried
	}
	if found == p.cap {
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
		a.event("warning", object, fmt.Sprintf("packets of more than %d octets are lost on the way", p.cap),
			fmt.Sprintf("the path's MTU is taken for %d, and no router says that it is not; what is longer leaves in fragments", p.believed))
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
