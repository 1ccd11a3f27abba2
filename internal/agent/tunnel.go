package agent

import (
	"errors"
	"fmt"
	"maps"
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

// tunnel is what the agent knows of one tunnel.
type tunnel struct {
	topology.Tunnel
	// state is the control connection's, reason why it is so.
	state  control.ConnectionState
	reason string
	cause  control.Cause
	// lost is when it was last established, zero before that and while it is.
	lost time.Time
	// silent is since when nothing has been heard of the peer that is asked; zero
	// if it answers.
	silent time.Time
	// dial is the connection of the last attempt with a socket of its own, calls the address that it has first
	// had there.
	dial  uint32
	calls netip.Addr
	// told is the last failure that was told, so that each is told once; see failure.
	told string
	// pathMTU is that of the path to the peer when it was last looked at; 0 before.
	pathMTU int
	// probe looks whether the path carries what it is taken for.
	probe pathProbe
	// fault is why the control machine was not told of the tunnel.
	fault error
	// socket is that of one without a control connection, since is since when it has been in its state;
	// zero for others.
	socket transport.ConnectionState
	since  time.Time
	// set is what each datapath was told of it last.
	set map[pseudowire.Kind]pseudowire.Tunnel
	// unsure are those that failed to take what they were told last.
	unsure map[pseudowire.Kind]bool
}

// carrier is a tunnel in a datapath.
type carrier struct {
	kind   pseudowire.Kind
	tunnel string
}

// shuttingDown clears a control connection that is no longer wanted (RFC 3931,
// Section 5.4.2: StopCCN 6).
var shuttingDown = l2tpv3.ResultCode{Result: l2tpv3.StopCCNShutdown}

// setTunnel makes a tunnel what the topology says. One whose secrets could not be
// read stays as it is, or nothing at all if it is new: it is shown, and tried again.
func (a *Agent) setTunnel(t *topology.Tunnel) error {
	known := a.tunnels[t.Key]
	if known == nil {
		known = &tunnel{}
		known.probe.cap, known.probe.told = a.pathCaps[t.Key], a.pathCaps[t.Key]
		delete(a.pathCaps, t.Key)
		a.tunnels[t.Key] = known
	}
	known.Tunnel, known.fault, a.resignal, a.peersDue = *t, nil, true, true
	a.watchChanged = true
	if t.Static != nil || t.Foreign {
		known.probe = pathProbe{} // there is nobody who could be asked again
	}
	if t.Static != nil {
		return a.setStaticTunnel(known)
	}
	a.closeStaticTunnel(known)
	if len(t.SecretFiles) > 0 && len(t.Secrets) == 0 {
		known.fault = errNoSecret
		return nil
	}
	err := a.control.SetTunnel(time.Now(), control.Tunnel{
		Name: t.Key, Encapsulation: t.Encapsulation, Local: t.Local, Remote: t.Remote,
		HostName: t.HostName, PeerHostName: t.PeerHostName, Peer: t.Peer, RouterID: t.RouterID,
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet, l2tpv3.EthernetVLAN},
		Hello:        t.Hello, ECN: t.ECN, Foreign: t.Foreign, Numbers: t.Numbers,
		Secrets: octets(t.Secrets), Digest: t.Digest, Hide: t.Hide,
	})
	if err != nil {
		return err
	}
	return errors.Join(a.recarry(known), a.review(t.Key))
}

// recarry tells the datapaths that have sessions of a tunnel what can change under them.
func (a *Agent) recarry(t *tunnel) error {
	for kind, c := range t.set {
		dp := a.datapaths[kind]
		if dp == nil || c.Encapsulation != t.Encapsulation {
			continue
		}
		can := dp.Abilities()
		checksum, df := t.Checksum && can.Checksum, t.DF && can.DF
		if c.Checksum == checksum && c.DF == df && c.PathMTU == t.probe.cap && !t.unsure[kind] {
			continue
		}
		c.Checksum, c.DF, c.PathMTU = checksum, df, t.probe.cap
		err := error(nil)
		if kind == pseudowire.Kernel {
			c.Socket, err = a.transport.Socket(c.LocalID)
		}
		if err == nil {
			err = dp.SetTunnel(c)
		}
		if err != nil {
			if t.unsure == nil {
				t.unsure = make(map[pseudowire.Kind]bool)
			}
			t.unsure[kind] = true
			return err
		}
		t.set[kind] = c
		delete(t.unsure, kind)
		delete(a.carried, carrier{kind, t.Key})
	}
	return nil
}

func octets(secrets []topology.Secret) [][]byte {
	var all [][]byte
	for _, s := range secrets {
		all = append(all, s)
	}
	return all
}

func (a *Agent) removeTunnel(key string) error {
	now := time.Now()
	a.control.RemoveTunnel(now, key, shuttingDown)
	a.drain(now)
	for kind, dp := range a.datapaths {
		if err := dp.RemoveTunnel(key); err != nil {
			return err
		}
		delete(a.carried, carrier{kind, key})
	}
	if t := a.tunnels[key]; t != nil {
		a.closeStaticTunnel(t)
	}
	delete(a.tunnels, key)
	delete(a.unsent, key)
	delete(a.strayed, key)
	a.drops.forget(key)
	a.faults.forget("tunnel " + key)
	a.peersDue = true
	return nil
}

// carry tells a datapath of a session's tunnel, if it does not know yet.
func (a *Agent) carry(dp pseudowire.Datapath, s control.InstallSession) error {
	local, remote, ok := a.transport.Path(s.Connection)
	if !ok {
		return fmt.Errorf("the control connection of tunnel %s has no socket: is its address on this host?", s.Tunnel)
	}
	t := pseudowire.Tunnel{
		Name: s.Tunnel, LocalID: s.Connection, RemoteID: s.RemoteConnection,
		Encapsulation: a.tunnels[s.Tunnel].Encapsulation, Local: local, Remote: remote, Socket: -1,
		ECN: s.ECN, Checksum: a.tunnels[s.Tunnel].Checksum && dp.Abilities().Checksum,
		DF: a.tunnels[s.Tunnel].DF && dp.Abilities().DF, PathMTU: a.tunnels[s.Tunnel].probe.cap,
	}
	if dp.Kind() == pseudowire.Kernel {
		var err error
		if t.Socket, err = a.transport.Socket(s.Connection); err != nil {
			return err
		}
	}
	key := carrier{dp.Kind(), s.Tunnel}
	if a.carried[key] == t {
		return nil
	}
	delete(a.carried, key)
	if err := dp.SetTunnel(t); err != nil {
		return err
	}
	a.carried[key] = t
	a.faults.set("tunnel "+s.Tunnel, nil)
	if t.Socket >= 0 {
		a.unsaved[s.Tunnel] = true // which socket it is
		a.staticsDue = a.staticsDue || a.tunnels[s.Tunnel].Static != nil
	}
	if known := a.tunnels[s.Tunnel]; known.set == nil {
		known.set = map[pseudowire.Kind]pseudowire.Tunnel{dp.Kind(): t}
	} else {
		known.set[dp.Kind()] = t
	}
	return nil
}

// redial has tunnels begin anew whose connection has an address that is not this
// host's any more: at a site with a dynamic one. failed is what Transport.Refresh said.
func (a *Agent) redial(failed error) {
	var moved []*tunnel
	for _, gone := range absentees(failed) {
		for _, c := range a.control.Connections() {
			t := a.tunnels[c.Tunnel.Name]
			if c.LocalID != gone.Connection || c.State != control.ConnectionEstablished || t == nil || t.Local.IsValid() {
				continue
			}
			a.event("warning", "tunnel "+t.Key, "begins anew", "its address "+gone.Local.Addr().String()+" is not on this host any more")
			moved = append(moved, t)
		}
	}
	a.beginAnew(moved...)
}

// absentees are the errors of connections whose address is not there.
func absentees(failed error) (all []*transport.Error) {
	if joined, ok := failed.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			all = append(all, absentees(err)...)
		}
		return all
	}
	if gone, ok := errors.AsType[*transport.Error](failed); ok && gone.Connection != 0 && errors.Is(failed, transport.ErrAddressNotPresent) {
		return []*transport.Error{gone}
	}
	return nil
}

// beginAnew closes tunnels' connections, or their sockets where they have none, and opens others: the requests
// are ready before the first datapath has to let go of anything.
func (a *Agent) beginAnew(tunnels ...*tunnel) {
	now := time.Now()
	for _, t := range tunnels {
		a.control.RemoveTunnel(now, t.Key, shuttingDown)
		a.carryAll(now)
		for _, w := range a.wires {
			r := w.on(t.Key)
			if r == nil {
				continue
			}
			if w.Static != nil {
				a.closeRide(now, w, r)
			}
			r.signalled = false
		}
		for kind, dp := range a.datapaths {
			delete(a.carried, carrier{kind, t.Key})
			delete(t.set, kind)
			a.ending[t.Key] = true
			a.later(func() {
				if err := dp.RemoveTunnel(t.Key); err != nil {
					a.faults.set("tunnel "+t.Key, err) // until it is made anew with its next session
				}
			})
		}
		if t.Static != nil {
			a.letGo()
		}
		a.closeStaticTunnel(t)
	}
	for _, t := range tunnels {
		a.faults.set("tunnel "+t.Key, a.setTunnel(&t.Tunnel))
		a.carryAll(now)
		a.resignal = true
	}
}

// renew begins tunnels anew that somebody has removed from a datapath.
func (a *Agent) renew(refreshed error) {
	gone, ok := errors.AsType[*pseudowire.TunnelsGoneError](refreshed)
	if !ok {
		return
	}
	var begin []*tunnel
	for _, name := range gone.Names {
		if t := a.tunnels[name]; t != nil && !a.ending[name] { // it has begun anew and is still to go from there
			begin = append(begin, t)
		}
	}
	a.beginAnew(begin...)
}

// wantData says of which sessions over IP data messages are to be handed on: those
// of a datapath that leaves outer fragments to the stack. The kernel's does not,
// and its sessions' packets would come in copies.
func (a *Agent) wantData() {
	a.dataDue = false
	var ids []uint32
	for id, s := range a.sessions {
		if t := a.tunnels[s.Tunnel]; t != nil && a.overIP(s.Tunnel) && s.datapath.Kind() != pseudowire.Kernel {
			ids = append(ids, id)
		}
	}
	a.faults.set("data sockets", a.transport.SetDataSessions(ids))
}

// wantPeers says where peers are: what comes from there goes before what comes from
// anywhere.
func (a *Agent) wantPeers() {
	a.peersDue = false
	a.notePeers()
	a.transport.SetPeers(append(a.control.Callers(), slices.Collect(maps.Keys(a.peers))...))
}

// notePeers has the addresses that the topology gives to peers.
func (a *Agent) notePeers() {
	a.peers = make(map[netip.Addr]bool, len(a.tunnels))
	for _, t := range a.tunnels {
		if t.Remote.IsValid() {
			a.peers[t.Remote] = true
		}
	}
}

// overIP says that a tunnel's packets are, or may have been, of protocol 115.
func (a *Agent) overIP(name string) bool {
	t := a.tunnels[name]
	return t == nil || t.Encapsulation == l2tpv3.IP
}

// connectionChanged follows a tunnel's control connection. Attempts that fail
// again and again for one reason are told of once.
func (a *Agent) connectionChanged(c control.ConnectionChanged) {
	a.log.Debug("control connection", "tunnel", c.Tunnel, "from", c.From, "to", c.To, "reason", c.Reason)
	t := a.tunnels[c.Tunnel]
	if t == nil {
		return
	}
	t.state, t.reason, t.cause = c.To, c.Reason, c.Cause
	if c.Cause.Kind == control.CauseSecret {
		t.silent = time.Time{} // it is heard, and not believed
	}
	switch {
	case c.To == control.ConnectionEstablished:
		delete(a.unsent, c.Tunnel)                     // it may be the peer who has called
		a.peersDue = a.peersDue || !t.Remote.IsValid() // it may have called from elsewhere
		a.lives(t, c)
		t.probe.next = time.Time{} // it may be another path
	case c.From == control.ConnectionEstablished:
		t.told, t.lost = t.failure(), time.Now()
		a.tellTunnel("warning", t, "down", c.Reason)
	case c.To == control.ConnectionWaitReply:
		if t.silent.IsZero() && c.Cause.Kind != control.CauseSecret {
			t.silent = time.Now()
		}
		if c.From == c.To {
			a.failed = append(a.failed, t)
		}
	case c.To == control.ConnectionWaitConnect:
		t.silent = time.Time{}
	case c.To == control.ConnectionIdle:
		if c.From == c.To {
			t.silent = time.Time{} // it is the peer that asks
		}
		a.failed = append(a.failed, t)
	}
	a.changed.signal()
}

// lives tells that a tunnel is established, or what is news of one that is.
func (a *Agent) lives(t *tunnel, c control.ConnectionChanged) {
	switch {
	case c.From != c.To:
		reason := ""
		if !t.lost.IsZero() {
			reason = "it was down for " + time.Since(t.lost).Round(time.Second).String()
		}
		t.silent, t.told, t.lost = time.Time{}, "", time.Time{}
		a.event("info", "tunnel "+t.Key, "established", reason)
	case c.Cause.Kind == control.CauseSilent:
		a.tellTunnel("warning", t, "no answer", c.Reason)
	default:
		a.event("info", "tunnel "+t.Key, "answers again", "")
	}
}

func (a *Agent) tellTunnel(severity string, t *tunnel, message, reason string) {
	a.tell(api.Event{Severity: severity, Object: "tunnel " + t.Key, Message: message, Reason: reason, Cause: causeView(t.cause), Next: a.next(t)})
}

// failure is what a tunnel that is not established fails by. That a peer does not
// answer is the same each time, whatever it was that it was asked.
func (t *tunnel) failure() string {
	switch t.cause.Kind {
	case control.CauseSilent, control.CauseWaiting:
		return control.CauseSilent.String()
	}
	return t.reason
}

// tellFailures tells of the attempts that came to nothing, or will, if that is news.
// An attempt that made room for the peer's is followed by that at once.
func (a *Agent) tellFailures() {
	for _, t := range a.failed {
		if f := t.failure(); t.state <= control.ConnectionWaitReply && f != t.told && t.cause.Kind != control.CauseWaiting {
			t.told = f
			a.tellTunnel("warning", t, "not established", t.why())
		}
	}
	clear(a.failed)
	a.failed = a.failed[:0]
}

// answered notes a sign of life on the socket of an attempt.
func (a *Agent) answered(connection uint32) {
	if t := a.tunnels[a.dials[connection]]; t != nil && t.dial == connection {
		t.silent = time.Time{}
	}
}

// why says, in words for the operator, what a tunnel that is not established
// waits for.
func (t *tunnel) why() string {
	switch {
	case t.fault != nil:
		return t.fault.Error()
	case t.state == control.ConnectionEstablished && t.cause.Kind == control.CauseSilent:
		return t.reason
	case t.state == control.ConnectionEstablished:
		return ""
	case !t.silent.IsZero():
		whom := t.Remote.String()
		if t.Encapsulation == l2tpv3.UDP {
			whom = netip.AddrPortFrom(t.Remote, l2tpv3.Port).String()
		}
		return fmt.Sprintf("no answer from %s since %s", whom, clock(time.Now(), t.silent))
	}
	return nonempty(t.reason, "not opened yet")
}

// clock is a time as people say it: without the date if that is today's.
func clock(now, t time.Time) string {
	if now.YearDay() == t.YearDay() && now.Year() == t.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}
