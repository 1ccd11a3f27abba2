package control

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// SCCRQs that may be of a tunnel whose peer calls from anywhere are tried against the
// secrets of such tunnels before anything else is done with them: each costs the
// verification of digests, and anybody can send one (Section 4.3: "MAY rate-limit [...]
// SCCRQ messages"). Within one retransmission interval there are budgets, apart from
// each other.
const (
	// fromSource is for one address, or one /64 of IPv6, which one sender has: who
	// floods uses up his own part and keeps nobody else out. Peers' addresses have
	// no other limit.
	fromSource = 8
	// strangers is for all addresses that no peer has together, because they can be
	// forged. Each request is tried against every such tunnel.
	strangers = 64
	// namedStrangers is for those of them that have the Host Name of such a peer, and are
	// tried against its tunnel only: who does not know the names cannot use it up.
	namedStrangers = 1024
)

// callers counts what has been tried in the present interval. It has no more
// sources than peers and strangers may try: one is only noted when something of it is tried.
type callers struct {
	since        time.Time
	tried, named int
	sources      map[netip.Addr]uint8
}

// caller is who sends a request, as far as its address and its words tell.
type caller struct {
	addr netip.Addr
	// known says that the address is a peer's, named that the Host Name is.
	known, named bool
}

// admit takes one of what the source may still do, and one of what all may. If
// there is none it says which of the limits it is; what is refused costs nothing
// of either.
func (c *callers) admit(now time.Time, interval time.Duration, from caller) (limit counter, ok bool) {
	// A clock that was set back begins a new interval, too.
	if passed := now.Sub(c.since); passed >= interval || passed < 0 || c.sources == nil {
		if c.sources == nil {
			c.sources = make(map[netip.Addr]uint8, strangers)
		}
		clear(c.sources)
		c.since, c.tried, c.named = now, 0, 0
	}
	s := source(from.addr)
	n := c.sources[s]
	switch {
	case n >= fromSource:
		return countLimitedSource, false
	case from.known:
	case from.named && c.named >= namedStrangers, !from.named && c.tried >= strangers:
		return countLimitedStranger, false
	case from.named:
		c.named++
	default:
		c.tried++
	}
	c.sources[s] = n + 1
	return 0, true
}

// source is what one sender may have all of: an address of IPv4, a /64 of IPv6.
func source(a netip.Addr) netip.Addr {
	if a = a.Unmap(); !a.Is6() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// directory is what is known of who may call.
type directory struct {
	// addresses are those of peers; of a tunnel whose peer calls from anywhere, the one
	// that it has called from before, with the secret.
	addresses map[netip.Addr]struct{}
	// names are the Host Names of peers that call from anywhere, if there are any peers
	// that do.
	names   map[string]struct{}
	dynamic bool
}

// known is the directory, made anew after a change.
func (e *Endpoint) known() *directory {
	if e.peers == nil {
		d := &directory{addresses: map[netip.Addr]struct{}{}, names: map[string]struct{}{}}
		for _, t := range e.tunnels {
			switch {
			case t.removed:
			case !t.dynamic():
				d.addresses[t.cfg.Remote] = struct{}{}
			default:
				d.dynamic = true
				if t.caller.IsValid() {
					d.addresses[t.caller] = struct{}{}
				}
				if t.cfg.PeerHostName != "" {
					d.names[t.cfg.PeerHostName] = struct{}{}
				}
			}
		}
		e.peers = d
	}
	return e.peers
}

// called notes where the peer of a tunnel has proven to be.
func (t *tunnel) called(from netip.Addr) {
	if t.dynamic() && t.caller != from {
		t.caller, t.e.peers = from, nil
	}
}

// Callers are the addresses that peers were last heard at which call from anywhere.
func (e *Endpoint) Callers() (addrs []netip.Addr) {
	for _, t := range e.tunnels {
		if t.dynamic() && t.caller.IsValid() {
			addrs = append(addrs, t.caller)
		}
	}
	return addrs
}

// mayCall reports whether a datagram without a connection is to be tried against
// the tunnels whose peers call from anywhere: there are such, it is what one of
// them may send, and there have not been too many. What it counts as if it is not
// is limit. With a host it is to be tried against tunnels of that Host Name only.
func (e *Endpoint) mayCall(d Datagram, known bool) (limit counter, host string, may bool) {
	if !e.known().dynamic {
		return countUnknownPeer, "", false
	}
	// Section 5.4.1: the Message Type AVP is the first.
	const kind = 12 + 6
	if len(d.Payload) < kind+2 {
		return countUnknownPeer, "", false
	}
	switch l2tpv3.MessageType(binary.BigEndian.Uint16(d.Payload[kind:])) {
	case l2tpv3.SCCRQ, l2tpv3.StopCCN:
	default:
		return countUnknownPeer, "", false
	}
	from := caller{addr: d.Remote.Addr(), known: known}
	name := peekHostName(d.Payload)
	_, from.named = e.known().names[string(name)]
	if limit, may = e.callers.admit(e.now, e.timers.Retransmit, from); may && from.named && !known {
		host = string(name)
	}
	return limit, host, may
}

// peekLimit bounds what is read of a message before it is known to be anybody's: the
// Host Name is one of the first AVPs of an SCCRQ.
const peekLimit = 1024

// peekHostName finds the Host Name AVP of a message that may hold anything. It is nil if
// there is none within reach, or a hidden one.
func peekHostName(b []byte) []byte {
	const flags, hiddenBit, length = 6, 0x4000, 0x3ff
	for b = b[min(12, len(b)):min(peekLimit, len(b))]; len(b) >= flags; {
		head := binary.BigEndian.Uint16(b)
		n := int(head & length)
		if n < flags || n > len(b) {
			return nil
		}
		if binary.BigEndian.Uint16(b[2:]) == 0 && l2tpv3.AVPType(binary.BigEndian.Uint16(b[4:])) == l2tpv3.AVPHostName {
			if head&hiddenBit != 0 {
				return nil
			}
			return b[flags:n]
		}
		b = b[n:]
	}
	return nil
}
