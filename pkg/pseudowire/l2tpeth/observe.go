package l2tpeth

import (
	"errors"
	"strings"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Counters of the sessions that were set and that the kernel has, by local ID.
// Octets are those of the frames.
func (d *Datapath) Counters() (map[uint32]pseudowire.Counters, error) {
	sessions, err := d.l2tp.sessions()
	if err != nil {
		return nil, &OpError{"count", "sessions", err}
	}
	out := map[uint32]pseudowire.Counters{}
	for _, k := range sessions {
		if s := d.sessions[k.id]; s != nil && s.spec.connID == k.connID {
			out[k.id] = counters(k.stats, s.Session, d.tunnels[s.Tunnel].Encapsulation)
		}
	}
	return out, nil
}

// counters of a session. The kernel counts octets with the L2TP header, in both directions.
func counters(k stats, s pseudowire.Session, e l2tpv3.Encapsulation) pseudowire.Counters {
	headers := func(frames uint64, cookie []byte, sublayer l2tpv3.L2SpecificSublayer) uint64 {
		return frames * uint64(l2tpv3.DataHeader{Cookie: cookie, Sublayer: sublayer}.Length(e))
	}
	// What is wrong about a packet received is its cookie, its sequence number or, in
	// no counter of its own, that it is older than the last one, or too short.
	rest := k.rxErrors - min(k.rxErrors, k.rxCookieDiscards+k.rxSeqDiscards)
	sequence := k.rxSeqDiscards
	if s.ReceiveSublayer == l2tpv3.SublayerDefault {
		sequence, rest = sequence+rest, 0
	}
	return pseudowire.Counters{
		ReceivedFrames:    k.rxPackets,
		ReceivedOctets:    k.rxBytes - headers(k.rxPackets, s.LocalCookie, s.ReceiveSublayer),
		TransmittedFrames: k.txPackets,
		TransmittedOctets: k.txBytes - headers(k.txPackets, s.RemoteCookie, s.TransmitSublayer),
		Drops: map[string]uint64{
			pseudowire.DropWrongCookie:   k.rxCookieDiscards,
			pseudowire.DropOutOfSequence: sequence,
			pseudowire.DropError:         k.txErrors + rest,
		},
	}
}

// Global counts the data packets that the tunnels' sockets got because the kernel
// knew no session of theirs, and those that it found malformed.
func (d *Datapath) Global() (map[string]uint64, error) {
	tunnels, err := d.l2tp.tunnels()
	if err != nil {
		return nil, &OpError{"count", "tunnels", err}
	}
	ours := map[uint32]bool{}
	for _, t := range d.tunnels {
		ours[t.LocalID] = true
	}
	var invalid uint64
	for _, t := range tunnels {
		if ours[t.id] {
			invalid += t.stats.rxInvalid
		}
	}
	return map[string]uint64{pseudowire.DropUnknownSession: d.delivered, pseudowire.DropError: invalid}, nil
}

// SessionTaken reports whether the namespace has a session of that local ID in
// any tunnel, ours or not: over UDP the kernel's sessions share one space of IDs
// with all others on the host. The kernel only lists them all, so a list is good for a
// while: who asks knows the IDs that were given since to ours.
func (d *Datapath) SessionTaken(id uint32) (bool, error) {
	if now := time.Now(); d.takenAt.IsZero() || now.Sub(d.takenAt) >= takenFor {
		sessions, err := d.l2tp.sessions()
		if err != nil {
			return false, &OpError{"list", "sessions", err}
		}
		d.taken, d.takenAt = make(map[uint32]bool, len(sessions)), now
		for _, s := range sessions {
			d.taken[s.id] = true
		}
	}
	return d.taken[id] || d.sessions[id] != nil, nil
}

// takenFor is how long a list of sessions is good for.
const takenFor = time.Second

// Prune removes sessions whose devices carry our alias but that were not set,
// and the tunnels that this leaves empty. A process that ended took its own
// with it; there are some only if another one holds their socket.
func (d *Datapath) Prune() error {
	if err := d.removeLeftovers(func(kernelSession) bool { return true }); err != nil {
		return &OpError{"remove", "what was left behind", err}
	}
	return nil
}

// removeLeftovers removes sessions that are ours, that match, and that were not
// set, and the tunnels that lost their last session by that.
func (d *Datapath) removeLeftovers(match func(kernelSession) bool) error {
	sessions, err := d.l2tp.sessions()
	if err != nil {
		return err
	}
	links, err := d.links.all()
	if err != nil {
		return err
	}
	ours := map[string]link{}
	for _, l := range links {
		if strings.HasPrefix(l.alias, aliasPrefix) {
			ours[l.name] = l
		}
	}
	keep, empty := map[uint32]bool{}, map[uint32]bool{}
	for _, t := range d.tunnels {
		keep[t.LocalID] = true
	}
	for _, k := range sessions {
		l, marked := ours[k.ifName]
		set := d.sessions[k.id] != nil && d.sessions[k.id].spec.connID == k.connID
		if k.ifName == "" || !marked || set || !match(k) {
			keep[k.connID] = true
			continue
		}
		if err := d.deleteSession(k.connID, k.id, l.index); err != nil {
			return err
		}
		empty[k.connID] = true
	}
	for id := range empty {
		if !keep[id] {
			if err := d.deleteTunnel(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Cleanup removes everything that is ours, from earlier runs too, and closes.
func (d *Datapath) Cleanup() error {
	var errs []error
	for name := range d.tunnels {
		errs = append(errs, d.RemoveTunnel(name))
	}
	clear(d.pseudowires)
	errs = append(errs, d.Prune(), d.Close())
	return errors.Join(errs...)
}
