package control

import (
	"net/netip"
	"time"
)

// Of SCCRQs from addresses that no tunnel has, so many are tried against the secrets
// of tunnels whose peers may call from anywhere, within one retransmission interval:
// each costs the verification of a digest for each such tunnel, and anybody can send
// one (Section 4.3: "MAY rate-limit [...] SCCRQ messages").
const (
	// fromSource is for one address, or one /64 of IPv6, which one sender has: who
	// floods uses up his own part and keeps nobody else out.
	fromSource = 8
	// strangers is for all together: addresses can be forged.
	strangers = 64
)

// callers counts what has been tried in the present interval. It has no more
// sources than strangers: one is only noted when something of it is tried.
type callers struct {
	since   time.Time
	tried   int
	sources map[netip.Addr]uint8
}

// admit takes one of what the source may still do, and one of what all may. If
// there is none it says which of the limits it is; what is refused costs nothing
// of either.
func (c *callers) admit(now time.Time, interval time.Duration, from netip.Addr) (limit counter, ok bool) {
	// A clock that was set back begins a new interval, too.
	if passed := now.Sub(c.since); passed >= interval || passed < 0 || c.sources == nil {
		if c.sources == nil {
			c.sources = make(map[netip.Addr]uint8, strangers)
		}
		clear(c.sources)
		c.since, c.tried = now, 0
	}
	s := source(from)
	n := c.sources[s]
	switch {
	case n >= fromSource:
		return countLimitedSource, false
	case c.tried >= strangers:
		return countLimitedStranger, false
	}
	c.sources[s], c.tried = n+1, c.tried+1
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
