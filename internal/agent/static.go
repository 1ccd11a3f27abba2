package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Tunnels without a control connection, and their pseudowires: what the control machine says
// of others is said of them here. A tunnel is established as long as it has a socket, a
// session as soon as it is in its datapath.

// errNoCookie is why a static pseudowire is not there.
var errNoCookie = errors.New("its cookie cannot be read from its file")

// staticWords says of a static pseudowire that is up what that is worth.
const staticWords = "static: nothing tells whether the peer is there"

// setStaticTunnel opens a tunnel's socket. One that cannot be opened (yet) is no failure: it
// is shown, and tried again.
func (a *Agent) setStaticTunnel(t *tunnel) error {
	now := time.Now()
	if _, signals := a.control.SaveTunnel(t.Key); signals { // until now
		// Not otherwise: at a start the sessions of others wait there for their pseudowires.
		a.control.RemoveTunnel(now, t.Key, shuttingDown)
		a.drain(now)
	}
	x := t.Static
	want := transport.ConnectionState{
		Connection: x.LocalID, Encapsulation: t.Encapsulation, Connected: true,
		Local: netip.AddrPortFrom(t.Local, x.LocalPort), Remote: netip.AddrPortFrom(t.Remote, x.RemotePort),
	}
	if t.socket != want {
		for _, c := range a.control.Connections() {
			if c.LocalID == x.LocalID {
				return fmt.Errorf("tunnel %s: the connection ID %d is that of tunnel %s by chance: choose another", t.Name, x.LocalID, c.Tunnel.Name)
			}
		}
		a.closeStaticTunnel(t)
		t.socket = want
		t.reason = ""
		if a.leftStatic(want) {
			// The kernel's tunnel hangs on it.
		} else if err := a.transport.Restore(transport.State{Connections: []transport.ConnectionState{want}}); err != nil {
			t.reason = err.Error()
		}
	}
	for _, w := range a.wires {
		if r := w.on(t.Key); r != nil {
			r.signalled = false
		}
	}
	a.lookAtStatic(t)
	return errors.Join(a.recarry(t), a.review(t.Key))
}

// closeStaticTunnel closes the socket of one that had no control connection.
func (a *Agent) closeStaticTunnel(t *tunnel) {
	if t.socket.Connection == 0 {
		return
	}
	a.transport.Release(t.socket.Connection)
	a.staticsDue = true
	t.socket, t.state, t.reason = transport.ConnectionState{}, control.ConnectionIdle, ""
}

// lookAtStatic notes whether a static tunnel has its socket.
func (a *Agent) lookAtStatic(t *tunnel) {
	state := control.ConnectionIdle
	if _, _, open := a.transport.Path(t.socket.Connection); open {
		state = control.ConnectionEstablished
	}
	if state == t.state {
		return
	}
	t.state, t.since, a.resignal = state, time.Now(), true
	if state == control.ConnectionEstablished {
		t.reason = ""
		a.event("info", "tunnel "+t.Key, "open", staticWords)
	} else {
		a.event("warning", "tunnel "+t.Key, "down", t.why())
	}
	a.changed.signal()
}

// lookAtStatics looks at all of them, after their sockets were tried again.
func (a *Agent) lookAtStatics() {
	for _, t := range a.tunnels {
		if t.Static != nil {
			a.lookAtStatic(t)
		}
	}
}

// setStatic has a static pseudowire's session in its datapath. Without a socket there is none:
// the tunnel tells why.
func (a *Agent) setStatic(w *wire, r *ride) error {
	t, x := a.tunnels[r.Tunnel], w.Static
	r.signalled = false
	if t == nil || t.Static == nil || t.state != control.ConnectionEstablished {
		return nil
	}
	err := a.installStatic(w, r, t)
	r.state, r.remote, r.reason = control.SessionEstablished, l2tpv3.CircuitActive, ""
	if err != nil {
		r.state, r.remote, r.reason = control.SessionIdle, 0, err.Error()
		return fmt.Errorf("static session %d of pseudowire %s: %w", x.LocalID, w.Name, err)
	}
	r.signalled = true
	return nil
}

func (a *Agent) installStatic(w *wire, r *ride, t *tunnel) error {
	x := w.Static
	if x.Lacks() {
		return errNoCookie
	}
	if s := a.sessions[x.LocalID]; s != nil && s.wire != w {
		return fmt.Errorf("the session ID is that of pseudowire %s: choose another", s.wire.Name)
	}
	if old := r.session; old != nil && old.LocalID != x.LocalID {
		a.uninstall(control.RemoveSession{Tunnel: r.Tunnel, Name: w.Name, LocalID: old.LocalID})
	}
	return a.install(control.InstallSession{
		Tunnel: r.Tunnel, Name: w.Name, Connection: t.Static.LocalID, RemoteConnection: t.Static.RemoteID,
		LocalID: x.LocalID, RemoteID: x.RemoteID, LocalCookie: x.LocalCookie, RemoteCookie: x.RemoteCookie,
		ReceiveSublayer: w.Sublayer, TransmitSublayer: x.Sublayer,
		ReceiveSequencing: w.Sequencing, TransmitSequencing: x.Sequencing,
		DSCP: r.DSCP, Transmit: w.withheld == nil,
	})
}

// closeRide ends a pseudowire's session on a tunnel.
func (a *Agent) closeRide(now time.Time, w *wire, r *ride) {
	if w.Static == nil {
		a.control.RemoveSession(now, r.Tunnel, w.Name, administrative)
		a.drain(now)
		return
	}
	if r.session != nil {
		a.uninstall(control.RemoveSession{Tunnel: r.Tunnel, Name: w.Name, LocalID: r.session.LocalID})
	}
	r.state, r.remote, r.reason = control.SessionIdle, 0, ""
}

// staticStatus is a static tunnel as the control machine would have it.
func (t *tunnel) staticStatus() control.ConnectionStatus {
	return control.ConnectionStatus{State: t.state, LocalID: t.Static.LocalID, RemoteID: t.Static.RemoteID, Since: t.since}
}

// staticSessionViews are the sessions that are not signalled.
func (a *Agent) staticSessionViews(now time.Time, counters map[uint32]pseudowire.Counters) []api.Session {
	var views []api.Session
	for _, w := range a.wires {
		if w.Static == nil {
			continue
		}
		r := w.current()
		c := counters[w.Static.LocalID]
		views = append(views, api.Session{
			Tunnel: tunnelName(r.Tunnel), Pseudowire: w.Name, Peer: w.Peer, State: sessionWord(r.state),
			LocalSessionID: w.Static.LocalID, RemoteSessionID: w.Static.RemoteID, Reason: nonempty(r.reason, staticWords),
			SinceSeconds: seconds(now, w.since), LocalCircuit: w.status(r).String(), CookieOctets: len(w.Static.LocalCookie),
			ReceivedFrames: c.ReceivedFrames, ReceivedOctets: c.ReceivedOctets,
			TransmittedFrames: c.TransmittedFrames, TransmittedOctets: c.TransmittedOctets, Drops: c.Drops,
		})
	}
	return views
}

// keepCookies gives static pseudowires whose cookies could not be read those that they have.
func keepCookies(next, now *topology.Local) {
	for i := range next.Pseudowires {
		p := &next.Pseudowires[i]
		if p.Static == nil || !p.Static.Lacks() {
			continue
		}
		k := slices.IndexFunc(now.Pseudowires, func(o topology.Pseudowire) bool { return o.Name == p.Name && o.Static != nil })
		if k >= 0 {
			x := *p.Static
			x.LocalCookie, x.RemoteCookie = now.Pseudowires[k].Static.LocalCookie, now.Pseudowires[k].Static.RemoteCookie
			p.Static = &x
		}
	}
}
