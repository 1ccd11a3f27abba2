package agent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// causeView is a cause as the API has it, nil for the regular course of things.
func causeView(c control.Cause) *api.Cause {
	if c.Kind == control.CauseNone {
		return nil
	}
	v := &api.Cause{Kind: c.Kind.String(), By: c.By.String(), Sent: c.Sent, Result: c.Result.Result, Error: uint16(c.Result.Error), Text: c.Result.Message}
	if c.Message != 0 {
		v.Message = c.Message.String()
	}
	if r := c.Result; r.Result != 0 {
		table := l2tpv3.StopCCN
		if c.Message.IsSession() {
			table = l2tpv3.CDN
		}
		r.Message = ""
		v.Meaning = r.Describe(table)
	}
	return v
}

func transitions(history []control.Transition) []api.Transition {
	out := make([]api.Transition, 0, len(history))
	for _, t := range history {
		v := api.Transition{Time: t.Time, From: t.From, Event: t.Event, To: t.To, Reason: t.Reason, Cause: causeView(t.Cause), Times: t.Times}
		if first := t.First; !first.IsZero() {
			v.First = &first
		}
		out = append(out, v)
	}
	return out
}

// next is what to do about a tunnel that is not established, or whose peer does not
// answer any more; empty where nothing but time is needed.
func (a *Agent) next(t *tunnel) string {
	if t.fault != nil {
		return "see what is said of the secret"
	}
	if t.Local.IsValid() && !onThisHost(t.Local) {
		return fmt.Sprintf("%s is not an address of this host: is it %s's, and is this %s (--site)?", t.Local, a.opt.Site, a.opt.Site)
	}
	switch t.cause.Kind {
	case control.CauseSecret:
		if len(t.SecretFiles) == 0 {
			return fmt.Sprintf("%s has a secret for this tunnel and this site has none: give both the same secret-file", t.Peer)
		}
		if t.cause.By == control.Peer {
			return fmt.Sprintf("this site has a secret for this tunnel and %s has none: give both the same secret-file", t.Peer)
		}
		return fmt.Sprintf("give %s the same secret as is in %s here", t.Peer, strings.Join(t.SecretFiles, " and "))
	case control.CauseNotAuthorized:
		return fmt.Sprintf("compare the topology files of both sites (`pwctl status` at each shows the hash of what is applied): %s", by(t.cause, t.Peer, "refuses this site", "it is refused here"))
	case control.CauseName:
		return "apply the same topology file at both sites: they do not know the same tunnels"
	case control.CauseShutdown:
		if t.cause.By == control.Peer {
			return fmt.Sprintf("start pwd at %s again, if it is to run, with this tunnel in its topology", t.Peer)
		}
		return ""
	case control.CauseDuplicate, control.CauseReplaced, control.CauseConfiguration:
		return ""
	case control.CauseClosed:
		return fmt.Sprintf("`pwctl events` at %s says why it closed the tunnel", t.Peer)
	case control.CauseTimeout, control.CauseProtocol, control.CauseMismatch:
		return fmt.Sprintf("`pwctl capture %s` shows the messages, `pwctl events` at %s its side", t.Key, t.Peer)
	}
	switch a.trouble(t) {
	case unix.ECONNREFUSED:
		if t.Foreign {
			return a.reach(t) + " It answers that nothing listens there (ICMP)."
		}
		return fmt.Sprintf("start pwd at %s: %s answers that nothing listens on UDP port %d there (ICMP)", t.Peer, t.Remote, l2tpv3.Port)
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EHOSTDOWN:
		return a.reach(t) + " The network says that there is no way: nobody has that address, or a firewall refuses." + a.suspect()
	}
	return a.reach(t) + a.suspect()
}

// onThisHost says whether an interface has the address; where that cannot be known, it has.
func onThisHost(address netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().WithZone("") == address.Unmap()
	})
}

// trouble is what the network has said of a tunnel's packets lately, while the peer does
// not answer. It may be forged: it is told, and changes nothing.
func (a *Agent) trouble(t *tunnel) error {
	if !t.Remote.IsValid() || t.cause.Kind != control.CauseSilent && t.cause.Kind != control.CauseWaiting {
		return nil
	}
	sockets := []uint32{t.dial}
	for _, carried := range t.set {
		sockets = append(sockets, carried.LocalID)
	}
	var last *transport.Trouble
	for _, id := range sockets {
		if x := a.transport.Trouble(id); x != nil && (last == nil || x.At.After(last.At)) {
			last = x
		}
	}
	if last == nil || time.Since(last.At) > recently {
		return nil
	}
	return last.Err
}

func by(c control.Cause, peer, peers, ours string) string {
	if c.By == control.Peer {
		return peer + " " + peers
	}
	return ours
}

// reach is what to look at where a peer does not answer.
func (a *Agent) reach(t *tunnel) string {
	way := fmt.Sprintf("UDP port %d", l2tpv3.Port)
	if t.Encapsulation == l2tpv3.IP {
		way = "IP protocol 115"
	}
	switch {
	case !t.Remote.IsValid():
		return fmt.Sprintf("is pwd running at %s, has it the same secret, and does %s get through from there to %s?", t.Peer, way, t.Local)
	case t.Foreign:
		return fmt.Sprintf("is %s set up as docs/interop.md says, and does %s get through to %s?", t.Peer, way, t.Remote)
	}
	return fmt.Sprintf("is pwd running at %s, and does %s get through to %s?", t.Peer, way, t.Remote)
}

// recently is for how long a stranger is worth a word.
const recently = 2 * time.Minute

// suspect names an address that asks for a connection and is no peer's: it may be
// the peer's that is waited for.
func (a *Agent) suspect() string {
	if addr, ok := a.drops.suspect(time.Now().Add(-recently)); ok {
		return fmt.Sprintf(" Requests come from %s, an address that no tunnel has: is it that one?", addr)
	}
	return ""
}

// remedy is what to do about a pseudowire that is not up.
func (a *Agent) remedy(w *wire) string {
	switch {
	case w.ready:
		return ""
	case w.withheld != nil:
		return nonempty(w.withheld.Fix, fmt.Sprintf("`pwctl undrain %s` when the work is done", w.withheld.Name))
	case w.standby:
		return fmt.Sprintf("`pwctl status` at %s says why", w.Peer)
	}
	r := w.current()
	if t := a.tunnels[r.Tunnel]; t != nil && t.state != control.ConnectionEstablished {
		return "" // it is the tunnel that has something to be done about
	}
	switch {
	case w.fault != nil || w.attachFault != nil:
		return ""
	case r.state == control.SessionEstablished && r.remote&l2tpv3.CircuitActive == 0:
		return fmt.Sprintf("`pwctl get attachments` at %s says what is wrong with its attachment", w.Peer)
	}
	switch r.cause.Kind {
	case control.CauseUnknown:
		return fmt.Sprintf("apply the topology with %s at %s, too", w.Name, w.Peer)
	case control.CauseType:
		return fmt.Sprintf("give %s the same type at both ends", w.Name)
	case control.CauseMismatch, control.CauseNotAuthorized:
		return fmt.Sprintf("make the two ends of %s agree: apply the same topology file at both sites", w.Name)
	case control.CauseDataPlane:
		if r.cause.By == control.Peer {
			return fmt.Sprintf("`pwctl status` at %s says what its data plane lacks", w.Peer)
		}
	case control.CauseTimeout, control.CauseProtocol, control.CauseClosed:
		return fmt.Sprintf("`pwctl events` at %s shows its side", w.Peer)
	}
	return ""
}
