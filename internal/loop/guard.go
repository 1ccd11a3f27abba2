// Package loop protects the networks of a site against loops that are closed behind it: something
// else than a pseudowire joins its LAN with another site's.
//
// A loop shows in addresses that move to and fro between the ports of a bridge (Suspect). What moves
// says that there is a loop, not where: frames that it brings around move addresses at sites that have
// no part in it. So what moves only stops the frames for a moment, and has the site send probes into its
// LAN. Bridges of sites let none into a pseudowire: a site that hears another's probe from its LAN is
// joined with it. From who is joined with whom each site decides the same (decide), and it takes
// that back when it hears no more probes.
//
// Where nobody answers (a foreign site, a bridge that lets no probes through) what goes on moving has
// a pseudowire blocked for a time, after a wait that is another at each site, so that one of
// them acts and the others see that nothing moves any more.
//
// A Guard is a pure state machine: it is given the time and the randomness.
package loop

import (
	"maps"
	"slices"
	"time"
)

const (
	// Listen is for how long a pseudowire is held that addresses move to and fro on, so that
	// probes get through. It is kept from forwarding, and nobody is told.
	Listen = time.Second
	// silence without a probe says that a site is joined no more. One that is heard again within as long was joined
	// all the time, and its probes come now and then: the next silence has to be twice as long, longestSilence at most.
	silence        = 4 * time.Second
	longestSilence = time.Minute
	// probeSoon is between probes while there is something to find out, probeLater when
	// all is known.
	probeSoon, probeLater = 200 * time.Millisecond, 500 * time.Millisecond
	// maxWait is the longest wait before a pseudowire is blocked for something that goes on
	// moving; what has not moved for calm after its end does not go on.
	maxWait, calm = 3 * time.Second, time.Second
	// aside is for how much longer a site waits that a loop is not closed behind: those that it is
	// closed behind see to it first, busy with its frames as they are. What has not moved for quiet they have seen to.
	aside, quiet = 8 * time.Second, 3 * time.Second
	// bursts of what moves, each after a rest of more than quiet and less than sparse, are a loop that nobody sees to.
	bursts = 3
	sparse = 30 * time.Second
	// maxHeard bounds what strangers can make a site remember.
	maxHeard = 256
	// patience is after how long without anything that moves all begins anew.
	patience = 10 * time.Second
	// settles is how long it takes after something was blocked until frames that are
	// still on their way have arrived.
	settles = time.Second
	// hold is for how long a pseudowire is blocked then, twice as long each further
	// time within forget, up to doublings times.
	hold      = time.Minute
	doublings = 4
	// LongestHold is for how long at most.
	LongestHold = hold << doublings
	forget      = time.Hour
)

// Guard is what a site knows of the loops of one network. It is one goroutine's.
type Guard struct {
	site   string
	random func(limit time.Duration) time.Duration

	heard map[string]hearing
	// fallen are those that were heard until lately.
	fallen   map[string]fallen
	suspects map[accused]*suspect
	// kept are those that were blocked by an earlier daemon, until what is to be known has been heard.
	kept map[string]Block
	// blocked is what was decided last, settled when frames have arrived that were on their way then.
	blocked map[string]Block
	settled time.Time
	// active is until when probes are sent at least, fresh until when they are sent often,
	// next when the next one is.
	active, fresh, next time.Time
	// due is when Advance was to be called.
	due time.Time
}

// hearing is what was heard of a joined site. silence is how long it must not be heard to be joined no more.
type hearing struct {
	reaches map[string]bool
	at      time.Time
	port    string
	silence time.Duration
	// since is from when on it was heard without a silence of the shortest length.
	since time.Time
}

// fallen is a site that has fallen silent, and for how long it had not been heard then.
type fallen struct {
	at      time.Time
	silence time.Duration
}

// accused is a pseudowire, by its peer, that addresses move to and fro on: from and to the LAN or, for
// a bystander, another pseudowire. The two are nothing to each other.
type accused struct {
	peer      string
	bystander bool
}

// suspect is what is known of one.
type suspect struct {
	what   string
	last   time.Time
	strike int
	// held is until when it is held, due the end of a wait, until when it is blocked.
	held, due, until time.Time
	count            int // of the times that it was blocked
	bursts           int
}

// Block is why a pseudowire must not forward.
type Block struct {
	// Joined is a site whose LAN is this site's, heard behind Port: the pseudowire's peer, or
	// the one that forwards for both.
	Joined, Port string
	// What moves, and Until, are set where nobody was heard.
	What  string
	Until time.Time
}

// Verdict is what is to be done.
type Verdict struct {
	// Blocked are those that must not forward, Held those that must not for a moment, by peer.
	Blocked map[string]Block
	Held    map[string]bool
	// Probe says that one is to be sent now.
	Probe bool
	// Next is when Advance is to be called again, zero for never.
	Next time.Time
}

// New makes the guard of a network of a site. random gives a duration below its argument.
func New(site string, random func(time.Duration) time.Duration) *Guard {
	return &Guard{site: site, random: random, heard: map[string]hearing{}, fallen: map[string]fallen{}, suspects: map[accused]*suspect{}, kept: map[string]Block{}, blocked: map[string]Block{}}
}

// Keep takes up what an earlier daemon had blocked: it stays so while probes are listened for.
func (g *Guard) Keep(now time.Time, peer string, b Block) {
	g.kept[peer] = b
	g.wake(now)
}

// wake has probes sent, often at first.
func (g *Guard) wake(now time.Time) {
	if now.After(g.active) {
		g.fresh, g.next = now.Add(silence), now
	}
	g.active = now.Add(silence)
}

// Listens says whether probes are to be listened for.
func (g *Guard) Listens(now time.Time) bool {
	return !now.After(g.active) || len(g.heard) > 0 || len(g.kept) > 0
}

// Heard takes a probe of another site, from the LAN, behind the port of that name. It reports whether
// Advance is to be called at once: for a site that was not heard before.
func (g *Guard) Heard(now time.Time, p Probe, port string) bool {
	if p.Site == g.site {
		return false
	}
	h, known := g.heard[p.Site]
	if !known && len(g.heard) >= maxHeard {
		return false
	} else if !known {
		g.fresh, g.next = now.Add(silence), now // it is to hear of us, and soon
	}
	if !known {
		h.silence, h.since = silence, now
		if f, is := g.fallen[p.Site]; is && now.Sub(f.at) <= silence {
			h.silence = min(2*f.silence, longestSilence)
		}
	}
	if known && now.Sub(h.at) >= silence {
		h.since = now
	} else if now.Sub(h.since) >= 10*h.silence {
		h.silence = silence // what was lost for a while is forgotten
	}
	g.heard[p.Site] = hearing{p.Reaches, now, port, h.silence, h.since}
	return !known
}

// Suspect takes that addresses move to and fro between the pseudowires to the given peers, or between
// the LAN and the pseudowire of one peer. what says it in words.
func (g *Guard) Suspect(now time.Time, what string, peers ...string) {
	g.wake(now)
	if now.Before(g.settled) || slices.ContainsFunc(peers, func(p string) bool { _, is := g.blocked[p]; return is }) {
		return // it is open already: this is old news
	}
	// One of two is enough to open it.
	who := accused{slices.Max(peers), len(peers) > 1}
	s := g.suspects[who]
	if s == nil {
		s = &suspect{}
		g.suspects[who] = s
	}
	if now.Sub(s.last) > forget {
		s.count = 0
	}
	gap := now.Sub(s.last)
	if gap > patience || who.bystander && gap > quiet {
		s.strike = 0
	}
	if gap > sparse {
		s.bursts = 0
	} else if gap > quiet {
		s.bursts++
	}
	s.what, s.last = what, now
	switch {
	case s.bursts > bursts && gap > quiet && g.random(maxWait) <= maxWait/2:
		// Another site may see it as well: by chance one blocks it, or the other with the next.
		s.block(now)
	case s.strike == 0:
		s.strike, s.held = 1, now.Add(Listen)
		if who.bystander {
			s.held = time.Time{} // it is closed behind those two, who will see to it
			s.due = now.Add(Listen + aside)
		}
	case now.Before(s.held) || s.strike == 1 && now.Before(s.due):
	case s.strike == 1 || now.After(s.due.Add(calm)):
		s.strike, s.due = 2, now.Add(g.random(maxWait))
	case !now.Before(s.due):
		s.block(now)
	}
}

func (s *suspect) block(now time.Time) {
	s.until = now.Add(hold << min(s.count, doublings))
	s.strike, s.bursts, s.count = 0, 0, s.count+1
}

// Release forgets that pseudowires are blocked for a time.
func (g *Guard) Release(peer string) {
	delete(g.kept, peer)
	delete(g.blocked, peer)
	for who, s := range g.suspects {
		if who.peer == peer {
			s.until = time.Time{}
		}
	}
}

// excuse makes up for a call of Advance that is late: what could not be heard meanwhile is not silence.
func (g *Guard) excuse(now time.Time) {
	if g.due.IsZero() || !now.After(g.due) {
		return
	}
	late := now.Sub(g.due)
	shift := func(t, latest time.Time) time.Time {
		if t = t.Add(late); t.After(latest) {
			return latest
		}
		return t
	}
	for site, h := range g.heard {
		h.at = shift(h.at, now)
		g.heard[site] = h
	}
	g.active, g.fresh = shift(g.active, now.Add(silence)), shift(g.fresh, now.Add(silence))
}

// Advance decides, from what is known now. peers are those of the site in the network, and
// whether it gets through to each.
func (g *Guard) Advance(now time.Time, peers map[string]bool) Verdict {
	g.excuse(now)
	maps.DeleteFunc(g.fallen, func(_ string, f fallen) bool { return now.Sub(f.at) > silence })
	maps.DeleteFunc(g.heard, func(site string, h hearing) bool {
		silent := now.Sub(h.at) >= h.silence
		if silent {
			g.fallen[site] = fallen{now, h.silence}
		}
		return silent
	})
	maps.DeleteFunc(g.suspects, func(_ accused, s *suspect) bool { return now.Sub(s.last) > forget && now.After(s.until) })
	if len(g.heard) > 0 {
		g.active = now.Add(silence)
	}
	if now.After(g.active) || len(g.heard) > 0 && now.After(g.fresh.Add(-silence+Listen)) {
		clear(g.kept) // what there is to hear has been heard
	}
	v := Verdict{Blocked: maps.Clone(g.kept), Held: map[string]bool{}}
	joined := make(map[string]map[string]bool, len(g.heard))
	for site, h := range g.heard {
		joined[site] = h.reaches
	}
	for peer, other := range decide(g.site, peers, joined) {
		v.Blocked[peer] = Block{Joined: other, Port: g.heard[other].port}
	}
	var times []time.Time
	if now.Before(g.settled) {
		// More is blocked at once, but nothing else changes before: probes cannot make it flap.
		for peer, b := range g.blocked {
			if _, is := peers[peer]; is && b.Joined != "" {
				v.Blocked[peer] = b
			}
		}
		times = append(times, g.settled)
	}
	for who, s := range g.suspects {
		peer := who.peer
		if _, is := peers[peer]; !is {
			continue
		}
		b, is := v.Blocked[peer]
		if now.Before(s.until) && (!is || b.Joined == "" && b.Until.Before(s.until)) {
			v.Blocked[peer] = Block{What: s.what, Until: s.until}
		}
		if now.Before(s.held) {
			v.Held[peer] = true
		}
		times = append(times, s.until, s.held)
	}
	maps.DeleteFunc(v.Held, func(peer string, _ bool) bool { _, is := v.Blocked[peer]; return is })
	if !maps.Equal(v.Blocked, g.blocked) {
		g.settled = now.Add(settles)
	}
	g.blocked = v.Blocked
	if g.Listens(now) {
		if v.Probe = !now.Before(g.next); v.Probe {
			every := probeLater
			if now.Before(g.fresh) {
				every = probeSoon
			}
			g.next = now.Add(every)
		}
		times = append(times, g.next)
	}
	for _, t := range times {
		if t.After(now) && (v.Next.IsZero() || t.Before(v.Next)) {
			v.Next = t
		}
	}
	g.due = v.Next
	return v
}

// Idle says that there is nothing to know or do.
func (g *Guard) Idle(now time.Time) bool {
	return !g.Listens(now) && len(g.suspects) == 0 && len(g.blocked) == 0
}
