package agent

import (
	"maps"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// parting is a packet that waits to be sent, or a socket to be closed.
type parting struct {
	control.Transmit
	// released is the connection whose socket can go; 0 is a packet.
	released uint32
}

// batch is how many packets are taken in before what they caused is saved and sent.
const batch = 256

// receive takes the packets that are waiting.
func (a *Agent) receive(now time.Time) {
	for range batch {
		p, ok := a.transport.Take()
		if !ok {
			return
		}
		a.take(now, p)
	}
}

// take hands control messages to the control machine, and to the datapaths what
// the stack had to put together from outer fragments.
func (a *Agent) take(now time.Time, p transport.Packet) {
	if p.Control {
		a.answered(p.Connection)
		tunnel := a.control.Receive(now, control.Datagram{Path: p.Path, Payload: p.Payload})
		if len(a.taps) > 0 {
			a.tapReceived(now, tunnel, p.Path, p.Payload)
		}
		return
	}
	for _, dp := range a.datapaths {
		if dp.Deliver(p.Path.Remote, p.Payload) {
			return
		}
	}
}

// advance lets due timers fire. Received data is life (RFC 3931, Section 4.4),
// so the counters are read before a HELLO may be due.
func (a *Agent) advance(now time.Time) {
	if now.Sub(a.lastLook) >= a.lookEvery() {
		a.lastLook = now
		a.listen(now)
	}
	a.watch(now)
	a.probePaths(now)
	a.control.Advance(now)
}

// lookEvery is how old the last look at the counters may be when a HELLO is
// due: an eighth of the shortest interval, which is also its jitter, and a second at most.
func (a *Agent) lookEvery() time.Duration {
	every := time.Second
	if a.local == nil {
		return every
	}
	for _, t := range a.local.Tunnels {
		if t.Hello > 0 {
			every = min(every, t.Hello/8)
		}
	}
	return every
}

// listen tells the control machine of connections whose sessions have received
// data since the last look. The first look at a session only shows how much it
// had received before: counters can outlive the daemon, or begin anew under it.
func (a *Agent) listen(now time.Time) {
	for id, c := range a.counters() {
		s := a.sessions[id]
		if s == nil {
			continue
		}
		before, known := a.heard[id]
		a.heard[id] = c.ReceivedFrames
		if c.ReceivedFrames < before {
			before = 0
		}
		if known && c.ReceivedFrames > before {
			a.control.Heard(now, s.Connection)
		}
	}
}

// settle carries out what the control machine asks for, saves what changed, and
// only then lets packets leave. What has ended takes no more frames when the peer hears of it. Where tunnels begin
// anew the packets come first: a kernel takes its time over devices, and the peer can go on meanwhile.
func (a *Agent) settle(now time.Time) {
	a.carryAll(now)
	if a.resignal {
		a.faults.set("sessions", a.signal())
		a.carryAll(now)
	} else if len(a.attached) > 0 {
		if err := a.signalAttached(); err != nil { // what others lack is known
			a.faults.set("sessions", err)
		}
		a.carryAll(now)
	}
	a.decide(now)
	a.planWatch(now)
	if a.dataDue {
		a.wantData()
	}
	if a.peersDue {
		a.wantPeers()
	}
	if a.lanesDue {
		a.followSessions()
	}
	a.tellFailures()
	a.openSockets()
	a.save()
	if len(a.ending) == 0 {
		a.letGo()
	}
	for i := range a.outbox {
		a.send(&a.outbox[i])
	}
	clear(a.outbox)
	a.outbox = a.outbox[:0]
	a.letGo()
}

// drain carries out what the control machine asks for, and keeps for later what
// is to be sent.
func (a *Agent) drain(now time.Time) {
	a.carryAll(now)
	a.letGo()
}

// later has something go from a datapath once packets have left, or before something comes into one.
func (a *Agent) later(remove func()) { a.leaving = append(a.leaving, remove) }

// letGo has everything go now that is to.
func (a *Agent) letGo() {
	for _, remove := range a.leaving {
		remove()
	}
	clear(a.leaving)
	a.leaving = a.leaving[:0]
	clear(a.ending)
}

// carryAll is drain that leaves in the datapaths what is to go from there.
func (a *Agent) carryAll(now time.Time) {
	for {
		out, ok := a.control.Next()
		if !ok {
			return
		}
		a.carryOut(now, out)
	}
}

func (a *Agent) carryOut(now time.Time, out control.Output) {
	switch out := out.(type) {
	case *control.Transmit:
		a.outbox = append(a.outbox, parting{Transmit: *out})
	case *control.Released:
		a.outbox = append(a.outbox, parting{released: out.Connection})
	case *control.Connected:
		maps.DeleteFunc(a.carried, func(_ carrier, t pseudowire.Tunnel) bool { return t.LocalID == out.Connection }) // the socket may be another
		if err := a.transport.Connect(*out); err != nil {
			a.log.Warn("cannot connect socket, trying again", "connection", out.Connection, "remote", out.Path.Remote, "err", err)
		}
	case *control.InstallSession:
		if a.closing {
			return // what comes next removes it
		}
		if err := a.install(*out); err != nil {
			a.log.Debug("session not installed", "pseudowire", out.Name, "tunnel", out.Tunnel, "err", err)
			a.control.InstallFailed(now, out.LocalID, err)
			return
		}
		a.control.Installed(now, out)
	case *control.RemoveSession:
		a.uninstallLater(*out)
	case *control.ConnectionChanged:
		a.connectionChanged(*out)
	case *control.SessionChanged:
		a.sessionChanged(*out)
	case *control.SessionUnknown:
		a.sessionUnknown(now, *out)
	}
}

// openSockets opens those that the outbox needs: their ports belong into the
// state that is saved before the first packet leaves.
func (a *Agent) openSockets() {
	for _, out := range a.outbox {
		t := &out.Transmit
		if !t.Initiator || t.Connection == 0 {
			continue
		}
		if _, _, open := a.transport.Path(t.Connection); open {
			continue
		}
		// What fails here is tried again by Transmit.
		_ = a.transport.Restore(transport.State{Connections: []transport.ConnectionState{{
			Connection: t.Connection, Encapsulation: t.Path.Encapsulation, Initiator: true, Local: t.Path.Local, Remote: t.Path.Remote,
		}}})
		a.dialled(t.Tunnel, t.Connection)
	}
}

// dialled notes whose connection has a socket of its own now, if it has.
func (a *Agent) dialled(tunnel string, connection uint32) {
	local, _, open := a.transport.Path(connection)
	if !open {
		return
	}
	a.dials[connection] = tunnel
	a.unsaved[tunnel] = true
	if t := a.tunnels[tunnel]; t != nil && a.control.Attempt(tunnel) == connection {
		t.dial, t.calls = connection, local.Addr()
	}
}

func (a *Agent) send(out *parting) {
	if id := out.released; id != 0 {
		a.letGo() // the kernel's tunnel would go with the socket
		a.transport.Release(id)
		delete(a.dials, id)
		return
	}
	// Delivery is reliable: what fails here is sent again, and an unreachable peer
	// is no news.
	_, _, open := a.transport.Path(out.Connection)
	err := a.transport.Transmit(out.Transmit)
	calls := out.Connection != 0 && a.control.Attempt(out.Tunnel) == out.Connection
	switch {
	case err != nil:
		a.log.Debug("cannot send", "connection", out.Connection, "remote", out.Path.Remote, "err", err)
		if calls && noWay(err) {
			a.unsent[out.Tunnel] = true
		}
	case calls:
		delete(a.unsent, out.Tunnel)
		if !open && out.Initiator {
			a.dialled(out.Tunnel, out.Connection)
		}
	}
	if err == nil && len(a.taps) > 0 {
		a.tapSent(&out.Transmit)
	}
	a.control.Recycle(out.Payload)
}
