package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	// batch is how many packets are taken in before what they caused is saved and sent.
	batch = 64
	// recheck is how often what could not be done is tried again without an event.
	recheck = 10 * time.Second
	// teardownLimit is how long a stop waits for peers to acknowledge their StopCCN.
	teardownLimit = 3 * time.Second
)

// Run is the daemon's life: until ctx ends, or something fails that it cannot
// go on without. ready is called when the topology is being carried out.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	defer close(a.stopped)
	kernel, err := watchKernel(ctx, a.log)
	if err != nil {
		a.Close()
		return err
	}
	if err := a.start(ctx); err != nil {
		a.leave()
		return err
	}
	a.settle(time.Now())
	ready()
	err = a.loop(ctx, kernel)
	return errors.Join(err, a.leave())
}

func (a *Agent) loop(ctx context.Context, kernel <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	again := time.NewTicker(recheck)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-a.transport.Packets():
			if !ok {
				return errors.New("the transport ended")
			}
			a.receive(time.Now(), p)
		case <-timer.C:
			a.advance(time.Now())
		case <-kernel:
			a.observe()
		case <-again.C:
			a.observe()
		case f := <-a.commands:
			f()
		case <-a.reload:
			a.readAgain()
		}
		now := time.Now()
		a.settle(now)
		if d, ok := a.control.Deadline(); ok {
			timer.Reset(max(0, d.Sub(now)))
		} else {
			timer.Reset(time.Hour)
		}
	}
}

// do has f done by Run's goroutine.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.commands <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.stopped:
		return errStopping
	}
	<-done
	return nil
}

var errStopping = errors.New("the daemon is stopping")

// receive takes one packet and those that are waiting behind it.
func (a *Agent) receive(now time.Time, p transport.Packet) {
	for range batch {
		a.take(now, p)
		select {
		case next, ok := <-a.transport.Packets():
			if !ok {
				return
			}
			p = next
		default:
			return
		}
	}
}

// take hands control messages to the control machine, and to the datapaths what
// the stack had to put together from outer fragments.
func (a *Agent) take(now time.Time, p transport.Packet) {
	if p.Control {
		a.control.Receive(now, control.Datagram{Path: p.Path, Payload: p.Payload})
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
	if now.Sub(a.lastLook) >= time.Second {
		a.lastLook = now
		a.listen(now)
	}
	a.control.Advance(now)
}

func (a *Agent) listen(now time.Time) {
	for kind, dp := range a.datapaths {
		counters, err := dp.Counters()
		if err != nil {
			a.log.Warn("cannot read counters", "datapath", kind, "err", err)
			continue
		}
		for id, c := range counters {
			w := a.sessions[id]
			if w == nil || a.heard[id] == c.ReceivedFrames {
				continue
			}
			a.heard[id] = c.ReceivedFrames
			a.control.Heard(now, w.session.Connection)
		}
	}
}

// settle carries out what the control machine asks for, saves what changed, and
// only then lets packets leave.
func (a *Agent) settle(now time.Time) {
	for {
		out, ok := a.control.Next()
		if !ok {
			break
		}
		a.carryOut(now, out)
	}
	a.save()
	for _, out := range a.outbox {
		a.send(out)
	}
	a.outbox = a.outbox[:0]
}

func (a *Agent) carryOut(now time.Time, out control.Output) {
	switch out := out.(type) {
	case control.Transmit, control.Released:
		a.outbox = append(a.outbox, out)
	case control.Connected:
		if err := a.transport.Connect(out); err != nil {
			a.log.Warn("cannot connect socket", "connection", out.Connection, "remote", out.Path.Remote, "err", err)
		}
	case control.InstallSession:
		if err := a.install(out); err != nil {
			a.log.Error("cannot install session", "pseudowire", out.Name, "tunnel", out.Tunnel, "err", err)
			a.control.InstallFailed(now, out.LocalID, err)
		}
	case control.RemoveSession:
		a.uninstall(out)
	case control.ConnectionChanged:
		a.connectionChanged(out)
	case control.SessionChanged:
		a.sessionChanged(out)
	}
}

func (a *Agent) send(out control.Output) {
	switch out := out.(type) {
	case control.Transmit:
		// Delivery is reliable: what fails here is sent again, and an unreachable peer
		// is no news.
		if err := a.transport.Transmit(out); err != nil {
			a.log.Debug("cannot send", "connection", out.Connection, "remote", out.Path.Remote, "err", err)
		}
	case control.Released:
		a.transport.Release(out.Connection)
	}
}

// install puts a session into its pseudowire's datapath, and its device into
// the attachment circuit where the device comes with the session.
func (a *Agent) install(s control.InstallSession) error {
	w := a.wires[s.Name]
	if w == nil {
		return fmt.Errorf("pseudowire %s is not in the topology", s.Name)
	}
	if w.fault != nil {
		return w.fault
	}
	dp, err := a.datapath(w.kind)
	if err != nil {
		return err
	}
	local, remote, ok := a.transport.Path(s.Connection)
	if !ok {
		return fmt.Errorf("control connection %d has no socket", s.Connection)
	}
	socket, err := a.transport.Socket(s.Connection)
	if err != nil {
		socket = -1
	}
	if err := dp.SetTunnel(pseudowire.Tunnel{
		Name: s.Tunnel, LocalID: s.Connection, RemoteID: s.RemoteConnection,
		Encapsulation: l2tpv3.UDP, Local: local, Remote: remote, Socket: socket,
	}); err != nil {
		return err
	}
	if err := dp.SetSession(pseudowire.Session{
		Tunnel: s.Tunnel, Pseudowire: s.Name, LocalID: s.LocalID, RemoteID: s.RemoteID,
		LocalCookie: s.LocalCookie, RemoteCookie: s.RemoteCookie,
		ReceiveSublayer: s.ReceiveSublayer, TransmitSublayer: s.TransmitSublayer,
		Transmit: s.Transmit,
	}); err != nil {
		return err
	}
	if w.session.LocalID != s.LocalID {
		delete(a.sessions, w.session.LocalID)
	}
	w.session = s
	a.sessions[s.LocalID] = w
	if !dp.DeviceWithoutSession() {
		a.attach(w)
	}
	return nil
}

func (a *Agent) uninstall(out control.RemoveSession) {
	w := a.sessions[out.LocalID]
	if w == nil {
		return
	}
	delete(a.sessions, out.LocalID)
	delete(a.heard, out.LocalID)
	dp := a.datapaths[w.kind]
	if err := dp.RemoveSession(out.LocalID); err != nil {
		a.log.Error("cannot remove session", "pseudowire", out.Name, "err", err)
	}
	if w.session.LocalID == out.LocalID {
		w.session = control.InstallSession{}
	}
}

// leave is the end of Run: connections and the datapath stay as they are, or go
// if the configuration says so.
func (a *Agent) leave() error {
	var errs []error
	if a.opt.OnStopTeardown {
		errs = append(errs, a.teardown(context.Background()))
	} else {
		now := time.Now()
		a.control.HalfOpenClose(now)
		a.settle(now)
	}
	return errors.Join(append(errs, a.Close())...)
}

// teardown closes everything in view of the peers, then removes it.
func (a *Agent) teardown(ctx context.Context) error {
	var errs []error
	if _, err := a.execute(a.difference(nil)); err != nil {
		errs = append(errs, err)
	}
	a.hangUp(ctx, time.Now())
	for _, dp := range a.datapaths {
		errs = append(errs, dp.Cleanup())
	}
	clear(a.datapaths)
	errs = append(errs, a.bridges.Cleanup(), a.store.clear())
	return errors.Join(errs...)
}

// hangUp waits, for a while, until the peers have acknowledged what closes
// their connections.
func (a *Agent) hangUp(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, teardownLimit)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for a.settle(now); a.unacknowledged(); a.settle(now) {
		select {
		case <-ctx.Done():
			return
		case p, ok := <-a.transport.Packets():
			if !ok {
				return
			}
			now = time.Now()
			a.receive(now, p)
		case <-timer.C:
			now = time.Now()
			a.control.Advance(now)
		}
		if d, ok := a.control.Deadline(); ok {
			timer.Reset(max(0, d.Sub(now)))
		}
	}
}

// unacknowledged says whether a peer has yet to acknowledge a message.
func (a *Agent) unacknowledged() bool {
	for _, t := range a.control.Save().Tunnels {
		for _, c := range t.Connections {
			if len(c.Queue) > 0 {
				return true
			}
		}
	}
	return false
}

// localAddresses are those that listeners are needed on.
func (a *Agent) localAddresses() []netip.Addr {
	seen := make(map[netip.Addr]bool)
	var addrs []netip.Addr
	if a.local == nil {
		return nil
	}
	for _, t := range a.local.Tunnels {
		if !seen[t.Local] {
			seen[t.Local] = true
			addrs = append(addrs, t.Local)
		}
	}
	return addrs
}
