package agent

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// maxRoutes bounds the routes whose destinations are noted: with more of them any peer may be meant.
const maxRoutes = 256

// ways is what changed in the kernel, since they were last looked at, that matters to calls: they may have lost
// their address, or have a way where there was none.
type ways struct {
	// left are addresses that are on one of the host's links no more.
	left map[netip.Addr]bool
	// came says that an address can be used that could not, routes are the destinations of those that came or went
	// (one that went may have forbidden what the next allows).
	came   bool
	routes map[netip.Prefix]bool
	// others says that something else may have opened a way: a rule for routes, or a link that came up.
	others bool
}

// addAddress notes an address that comes or goes (struct ifaddrmsg).
func (w *ways) addAddress(m netlink.Message) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return
	}
	var own netip.Addr
	for attrs.Next() {
		// Where a link has a peer, IFA_ADDRESS is the peer's.
		if kind := attrs.Type(); kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !own.IsValid() {
			own, _ = netip.AddrFromSlice(attrs.Bytes())
		}
	}
	switch flags := m.Data[2]; {
	case !own.IsValid():
	case m.Header.Type == unix.RTM_DELADDR:
		if w.left == nil {
			w.left = make(map[netip.Addr]bool)
		}
		w.left[own] = true
	case own.Is6() && own.IsLinkLocalUnicast():
	case flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC) == unix.IFA_F_TENTATIVE: // it comes again once it can be used
	default:
		w.came = true
	}
}

// addRoute notes the destination of a route (struct rtmsg).
func (w *ways) addRoute(m netlink.Message) {
	if len(m.Data) < unix.SizeofRtMsg {
		return
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
	if err != nil {
		return
	}
	to := netip.IPv4Unspecified()
	if m.Data[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	for attrs.Next() {
		if attrs.Type() == unix.RTA_DST {
			to, _ = netip.AddrFromSlice(attrs.Bytes())
		}
	}
	prefix, err := to.Prefix(int(m.Data[1]))
	switch {
	case err != nil:
	case len(w.routes) >= maxRoutes && !w.routes[prefix]:
		w.others = true
	case w.routes == nil:
		w.routes = map[netip.Prefix]bool{prefix: true}
	default:
		w.routes[prefix] = true
	}
}

// lead says that an address or a route has come by which the peer may be reached.
func (w *ways) lead(peer netip.Addr) bool {
	if w.came {
		return true
	}
	for to := range w.routes {
		if to.Contains(peer) {
			return true
		}
	}
	return false
}

// up says whether a link (struct ifinfomsg) can be used.
func up(m netlink.Message) bool {
	flags := binary.NativeEndian.Uint32(m.Data[8:])
	return m.Header.Type == unix.RTM_NEWLINK && flags&(unix.IFF_UP|unix.IFF_RUNNING) == unix.IFF_UP|unix.IFF_RUNNING
}

// noWay says that a packet has not left this host for want of a route, a link, an address or, as far as that
// is known, a neighbour; or because there is a route so that it does not.
func noWay(err error) bool {
	return errors.Is(err, transport.ErrAddressNotPresent) || slices.ContainsFunc([]error{
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.ENETDOWN, unix.EINVAL, unix.ENODEV,
	}, func(no error) bool { return errors.Is(err, no) })
}

// calls is what is to be called again, and when.
type calls struct {
	// gone says that a connection has an address that is not on this host any more. strayed are the attempts by
	// tunnel, with their connections, that have called from such a one: the peer takes their requests for
	// replays when they come from another. unsent are the tunnels whose last request has not left the host.
	gone    bool
	strayed map[string]uint32
	unsent  map[string]bool
	// callRest is when there may be calls again, called when there were the last; callPause is for how long
	// those wait for which there is no more than a chance.
	callRest, called time.Time
	callPause        time.Duration
}

// uprooted notes the tunnels to which it matters that addresses are on this host no more: they have their connection
// from there, or have called from there.
func (a *Agent) uprooted(left map[netip.Addr]bool) {
	if len(left) == 0 {
		return
	}
	for _, c := range a.control.Connections() {
		t := a.tunnels[c.Tunnel.Name]
		if t == nil || t.Local.IsValid() {
			continue
		}
		switch local, _, _ := a.transport.Path(c.LocalID); {
		case c.State == control.ConnectionEstablished:
			a.gone = a.gone || left[local.Addr()]
		case c.State == control.ConnectionWaitReply && t.dial == c.LocalID && left[t.calls]:
			a.strayed[t.Key] = c.LocalID
		}
	}
}

// planCall sets the timer of calls where news are about their ways: soon where an address or a route is there
// that was not; where there is only a chance, the later the more often that came to nothing.
func (a *Agent) planCall(call *look, w ways) {
	a.uprooted(w.left)
	lead := a.gone || len(a.strayed) > 0
	for name := range a.unsent {
		t := a.tunnels[name]
		lead = lead || t != nil && w.lead(t.Remote)
	}
	switch rest := a.called.Add(a.callPause); {
	case lead:
		a.callPause = 0
		call.after(moment, a.callRest)
	case w.others && len(a.unsent) > 0 && rest.Before(a.callRest):
		call.after(moment, a.callRest)
	case w.others && len(a.unsent) > 0:
		call.after(moment, rest)
	}
}

// callAgain has tunnels begin anew whose address has gone, and what could not leave leave now: little, and
// before everything else that is to be looked at.
func (a *Agent) callAgain() {
	begin := time.Now()
	anew := a.gone || len(a.strayed) > 0
	if a.gone {
		a.gone = false
		a.redial(a.transport.Refresh())
	}
	a.beginAnew(a.strays()...)
	for tunnel := range a.unsent {
		delete(a.unsent, tunnel)
		a.control.Resend(begin, tunnel)
	}
	if !anew { // what datapaths have to let go of is no measure
		a.settle(begin)
	}
	a.called = time.Now()
	a.callRest = a.called.Add(a.called.Sub(begin) * (share - 1))
	a.callPause = max(moment, min(2*a.callPause, cmp.Or(a.opt.Timers.Retransmit, time.Second)))
}

// strays are the tunnels whose attempts have strayed and are still in force.
func (a *Agent) strays() (all []*tunnel) {
	for name, connection := range a.strayed {
		if t := a.tunnels[name]; t != nil && a.control.Attempt(name) == connection {
			all = append(all, t)
		}
	}
	clear(a.strayed)
	return all
}
