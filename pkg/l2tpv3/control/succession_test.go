package control

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// between is a session of two hosts of one implementation, whose data planes can each what
// is said.
func between(t *testing.T, seed uint64, can ...func(*Session)) *network {
	t.Helper()
	n := newNetwork(t, seed)
	n.tunnel("gold")
	n.session("gold", "tenant-a")
	for i, h := range n.hosts {
		can[i%len(can)](&h.sessions[0])
		h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
		h.start()
	}
	if !n.until(10*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	return n
}

func succeeds(s *Session) { s.CanSucceed = true }

func changesAndSucceeds(s *Session) { s.CanChangeCookies, s.CanSucceed = true, true }

// TestSuccession: both ends have other IDs and other cookies, and what they had is over
// when nothing of it is under way any more.
func TestSuccession(t *testing.T) {
	for name, can := range map[string][]func(*Session){
		"both can":                    {succeeds},
		"the one that begins":         {succeeds, changesAndSucceeds},
		"the one that is asked":       {changesAndSucceeds, succeeds},
		"both, at the same time":      {succeeds, succeeds, nil},
		"each in its own way at once": {changesAndSucceeds, succeeds, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := between(t, 1, can[:min(len(can), 2)]...)
			a, b := n.hosts[0], n.hosts[1]
			was := a.e.Sessions()[0]
			for i, h := range n.hosts {
				if i == 0 || len(can) == 3 {
					if err := h.e.ChangeCookie(n.now, h.tunnels[0].Name, "tenant-a"); err != nil {
						t.Fatal(err)
					}
				}
			}
			a.drain()
			b.drain()
			n.run(5 * time.Second)
			is := a.e.Sessions()[0]
			if is.LocalID == was.LocalID || is.RemoteID == was.RemoteID ||
				bytes.Equal(is.LocalCookie, was.LocalCookie) || bytes.Equal(is.RemoteCookie, was.RemoteCookie) {
				t.Errorf("the session is still %d/%d %x/%x, was %d/%d %x/%x", is.LocalID, is.RemoteID, is.LocalCookie, is.RemoteCookie,
					was.LocalID, was.RemoteID, was.LocalCookie, was.RemoteCookie)
			}
			if !is.ChangingCookie || is.AwaitingCookie || len(a.data) != 2 || a.data[was.LocalID].Transmit {
				t.Errorf("changing %v, awaiting %v, data plane %+v", is.ChangingCookie, is.AwaitingCookie, a.data)
			}
			if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); !errors.Is(err, ErrChanging) {
				t.Errorf("again at once: %v", err)
			}
			n.run(20 * time.Second)
			for _, h := range n.hosts {
				if s := h.e.Sessions()[0]; s.ChangingCookie || len(h.data) != 1 || len(h.e.sessions) != 1 {
					t.Errorf("%s: changing %v, data plane %+v", h.name, s.ChangingCookie, h.data)
				}
			}
			if !n.up() {
				t.Error(n.disagreement())
			}
		})
	}
}

// TestSuccessionRefused: where the peer, or a data plane, cannot, the session stays as it is.
func TestSuccessionRefused(t *testing.T) {
	cannot := func(*Session) {}
	for name, row := range map[string]struct {
		peer func(*Session)
		// refuses is whose data plane it is that cannot.
		refuses [2]bool
		reason  string
	}{
		"the peer's data plane cannot at all": {cannot, [2]bool{}, "dc2 cannot go over to a new cookie, the old one stays"},
		"ours fails":                          {succeeds, [2]bool{true, false}, "the data plane refused a new cookie, the old one stays: refused by the test"},
		"the peer's fails":                    {succeeds, [2]bool{false, true}, "dc2 cannot go over to a new cookie, the old one stays"},
		"both fail":                           {succeeds, [2]bool{true, true}, "the data plane refused a new cookie, the old one stays: refused by the test"},
	} {
		t.Run(name, func(t *testing.T) {
			n := between(t, 1, succeeds, row.peer)
			a := n.hosts[0]
			was := a.e.Sessions()[0]
			for i, h := range n.hosts {
				h.refuses = func(o *InstallSession) bool { return row.refuses[i] && o.Beside != 0 }
			}
			for range 2 {
				if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
					t.Fatal(err)
				}
				a.drain()
				n.run(time.Minute)
				is := a.e.Sessions()[0]
				if is.LocalID != was.LocalID || !bytes.Equal(is.LocalCookie, was.LocalCookie) || is.AwaitingCookie || is.Reason != row.reason {
					t.Errorf("session %d, was %d; awaiting %v; %q", is.LocalID, was.LocalID, is.AwaitingCookie, is.Reason)
				}
				for _, h := range n.hosts {
					if len(h.data) != 1 || len(h.e.sessions) != 1 {
						t.Errorf("%s: data plane %+v", h.name, h.data)
					}
				}
				if !n.up() {
					t.Fatal(n.disagreement())
				}
			}
		})
	}
}

// TestSuccessionUnderWay: whatever the network and the daemons do, and whatever data planes
// refuse, an end sends nothing that the other's data plane does not accept, now and ten seconds on.
func TestSuccessionUnderWay(t *testing.T) {
	for seed := range uint64(20) {
		n := between(t, seed, succeeds, []func(*Session){succeeds, changesAndSucceeds}[seed%2])
		n.loss, n.duplication = 0.2, 0.1
		n.delay = func() time.Duration { return time.Duration(n.rand.IntN(300)) * time.Millisecond }
		r := rand.New(rand.NewPCG(seed, 5))
		refusing := false
		for _, h := range n.hosts {
			// What is refused is to receive by another label, or to send by one that is received by.
			h.refuses = func(o *InstallSession) bool {
				was, known := h.data[o.LocalID]
				return refusing && (o.Beside != 0 && !known || o.Beside == 0 && known && was.Beside != 0) && r.IntN(3) == 0
			}
		}
		changes, ends := 0, map[uint32]bool{}
		for range 4000 {
			n.run(50 * time.Millisecond)
			for _, h := range n.hosts {
				checkAccepted(t, h)
			}
			h := n.hosts[r.IntN(2)]
			switch {
			case r.IntN(100) == 0:
				refusing = r.IntN(4) == 0
				err := h.e.ChangeCookie(n.now, h.tunnels[0].Name, "tenant-a")
				if err != nil && !errors.Is(err, ErrChanging) && !errors.Is(err, ErrNotEstablished) {
					t.Fatal(err)
				}
				h.drain()
			case r.IntN(400) == 0:
				h.start() // with what it has saved
			}
			if id := n.hosts[0].e.Sessions()[0].LocalID; id != 0 && !ends[id] {
				ends[id] = true
				changes++
			}
		}
		n.loss, n.duplication, refusing = 0, 0, false
		n.run(5 * time.Minute)
		if !n.up() || changes < 5 {
			t.Fatalf("seed %d: %s, %d changes", seed, n.disagreement(), changes)
		}
		for _, h := range n.hosts {
			if s := h.e.Sessions()[0]; s.ChangingCookie || len(h.data) != 1 || len(h.e.sessions) != 1 {
				t.Errorf("seed %d: %s is still changing: %v, %+v", seed, h.name, s.ChangingCookie, h.data)
			}
		}
	}
}

// TestSuccessionStays: a data plane that receives by the next label and cannot send by it leaves the session
// as it was, not anew; what comes by either is received until both ends know.
func TestSuccessionStays(t *testing.T) {
	for name, refuses := range map[string][2]bool{"one end": {true, false}, "the other": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			n := between(t, 1, succeeds)
			n.loss = 0.3
			a := n.hosts[0]
			was := a.e.Sessions()[0]
			refusals := 0
			for i, h := range n.hosts {
				h.refuses = func(o *InstallSession) bool {
					refused := refuses[i] && o.Beside == 0 && h.data[o.LocalID].Beside != 0 && !bytes.Equal(o.LocalCookie, was.LocalCookie) && !bytes.Equal(o.LocalCookie, was.RemoteCookie)
					if refused {
						refusals++
					}
					return refused
				}
			}
			if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
				t.Fatal(err)
			}
			a.drain()
			for end := n.now.Add(3 * time.Minute); n.next(end); {
				for _, h := range n.hosts {
					checkAccepted(t, h)
					if s := h.e.Sessions()[0]; s.State != SessionEstablished {
						t.Fatalf("%s: %v: %s", h.name, s.State, s.Reason)
					}
				}
			}
			if is := a.e.Sessions()[0]; refusals == 0 || is.LocalID != was.LocalID || is.RemoteID != was.RemoteID || is.ChangingCookie {
				t.Errorf("%d refused, session %d/%d, was %d/%d, changing %v", refusals, is.LocalID, is.RemoteID, was.LocalID, was.RemoteID, is.ChangingCookie)
			}
			if !n.up() {
				t.Error(n.disagreement())
			}
		})
	}
}

// TestSuccessionEnds: whatever an end forgets of a succession on the way, as a version does that knows none, the other
// waits for it for half a minute and no longer, and another attempt succeeds.
func TestSuccessionEnds(t *testing.T) {
	for forgetful := range 2 {
		for after := 1; after <= 8; after++ {
			t.Run(fmt.Sprintf("%d forgets after %d", forgetful+1, after), func(t *testing.T) {
				n := between(t, 1, succeeds)
				a := n.hosts[0]
				begin := a.e.Sessions()[0]
				count := 0
				n.arrived = func(packet) { count++ }
				if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
					t.Fatal(err)
				}
				a.drain()
				n.until(time.Second, func() bool { return count >= after })
				n.arrived = nil
				n.hosts[forgetful].forgetSuccession()
				n.run(time.Minute)
				if !n.up() {
					t.Fatal(n.disagreement())
				}
				for _, h := range n.hosts {
					if s := h.e.Sessions()[0]; s.ChangingCookie || s.AwaitingCookie || len(h.data) != 1 || len(h.e.sessions) != 1 {
						t.Errorf("%s: changing %v, awaiting %v, data plane %+v", h.name, s.ChangingCookie, s.AwaitingCookie, h.data)
					}
				}
				if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
					t.Fatal(err)
				}
				a.drain()
				n.run(time.Minute)
				if is := a.e.Sessions()[0]; !n.up() || is.LocalID == begin.LocalID || is.ChangingCookie {
					t.Errorf("%s; session %d, was %d; changing %v", n.disagreement(), is.LocalID, begin.LocalID, is.ChangingCookie)
				}
			})
		}
	}
}

// forgetSuccession starts the daemon again without what it has saved of a succession; the data plane loses
// what it does not know.
func (h *host) forgetSuccession() {
	for name, tunnel := range h.disk.tunnels {
		tunnel.Sessions = slices.Clone(tunnel.Sessions)
		for i := range tunnel.Sessions {
			x := &tunnel.Sessions[i]
			x.Next, x.Past, x.Said, x.Heard, x.Followed, x.Returned, x.Succession = nil, nil, false, false, false, false, 0
		}
		h.disk.tunnels[name] = tunnel
	}
	h.start()
	maps.DeleteFunc(h.data, func(id uint32, _ InstallSession) bool { return h.e.sessions[id] == nil })
}

// TestSuccessionUnanswered: a data plane that never says what has become of the other session has the session stay.
func TestSuccessionUnanswered(t *testing.T) {
	for name, mute := range map[string]func(*InstallSession) bool{
		"to receive": func(o *InstallSession) bool { return o.Beside != 0 },
		"to send":    func(o *InstallSession) bool { return o.Beside == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 2 {
				n := between(t, 1, succeeds)
				a := n.hosts[0]
				was := a.e.Sessions()[0]
				n.hosts[i].mute = mute
				if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
					t.Fatal(err)
				}
				a.drain()
				for end := n.now.Add(time.Minute); n.next(end); {
					checkAccepted(t, n.hosts[0])
					checkAccepted(t, n.hosts[1])
				}
				if is := a.e.Sessions()[0]; !n.up() || is.LocalID != was.LocalID || is.ChangingCookie {
					t.Errorf("%s; session %d, was %d; changing %v", n.disagreement(), is.LocalID, was.LocalID, is.ChangingCookie)
				}
			}
		})
	}
}

// checkAccepted looks at what a host sends, if the other has the session.
func checkAccepted(t *testing.T, h *host) {
	t.Helper()
	for _, d := range h.data {
		if !d.Transmit {
			continue
		}
		p, ok := h.peer.data[d.RemoteID]
		for _, other := range h.peer.data {
			if _, ours := h.data[other.RemoteID]; ours && !ok {
				t.Fatalf("%s sends to session %d; %s has %+v", h.name, d.RemoteID, h.peer.name, h.peer.data)
			}
		}
		if ok && p.RemoteID == d.LocalID && !bytes.Equal(d.RemoteCookie, p.LocalCookie) && !bytes.Equal(d.RemoteCookie, p.PreviousCookie) {
			t.Fatalf("%s sends %x; %s accepts %x and %x", h.name, d.RemoteCookie, h.peer.name, p.LocalCookie, p.PreviousCookie)
		}
	}
}

// TestSuccessionOffers: what no end of this implementation says is no offer, and there is one at a time.
func TestSuccessionOffers(t *testing.T) {
	n := between(t, 1, succeeds)
	a := n.hosts[0]
	s := a.e.tunnels[a.tunnels[0].Name].sessions["tenant-a"]
	cookie := l2tpv3.AssignedCookie([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	for _, avps := range [][]l2tpv3.AVP{
		{l2tpv3.RemoteSessionID(s.localID), cookie},
		{l2tpv3.LocalSessionID(0), l2tpv3.RemoteSessionID(s.localID), cookie},
	} {
		s.t.receiveSession(s.t.conn, l2tpv3.NewMessage(l2tpv3.SLI, avps...))
		if s.succession.under() {
			t.Errorf("%v: goes over to %+v", avps, s.succession.next)
		}
	}
	for id := range uint32(100) {
		s.t.receiveSession(s.t.conn, l2tpv3.NewMessage(l2tpv3.SLI, l2tpv3.LocalSessionID(1000+id), l2tpv3.RemoteSessionID(s.localID), cookie))
	}
	installs := 0
	for out, more := a.e.Next(); more; out, more = a.e.Next() {
		if _, is := out.(*InstallSession); is {
			installs++
		}
	}
	if installs != 1 {
		t.Errorf("a hundred offers had %d sessions made", installs)
	}
}

// TestSuccessionOfAnOlderPeer: one that knows no succession takes the cookie of an offer for one of the session
// as it is, and says so. It is told the session's own.
func TestSuccessionOfAnOlderPeer(t *testing.T) {
	n := between(t, 1, succeeds)
	a := n.hosts[0]
	s := a.e.tunnels[a.tunnels[0].Name].sessions["tenant-a"]
	if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
		t.Fatal(err)
	}
	s.t.receiveSession(s.t.conn, l2tpv3.NewMessage(l2tpv3.SLI, l2tpv3.LocalSessionID(s.remoteID), l2tpv3.RemoteSessionID(s.localID),
		l2tpv3.AssignedCookie(s.succession.next.LocalCookie)))
	a.e.settle()
	told := false
	for out, more := a.e.Next(); more; out, more = a.e.Next() {
		x, is := out.(*Transmit)
		if !is {
			continue
		}
		told = told || bytes.Contains(x.Payload, s.localCookie)
	}
	if !told || s.succession.under() {
		t.Errorf("told of the session's cookie: %v; it still goes over to %+v", told, s.succession.next)
	}
}

// TestSuccessionThatMakesNoSense: no state that an end cannot have got to is taken up.
func TestSuccessionThatMakesNoSense(t *testing.T) {
	n := between(t, 1, succeeds)
	a := n.hosts[0]
	half := func() *label { return &label{LocalID: 7, LocalCookie: make([]byte, 8)} }
	whole := func() *label {
		return &label{LocalID: 7, RemoteID: 8, LocalCookie: make([]byte, 8), RemoteCookie: make([]byte, 8)}
	}
	for i, change := range []func(*sessionState){
		func(s *sessionState) { s.Next, s.Past = whole(), whole() },
		func(s *sessionState) { s.Past = half() },
		func(s *sessionState) { s.Next, s.Said = half(), true },
		func(s *sessionState) { s.Next, s.Heard = half(), true },
		func(s *sessionState) { s.Next, s.Followed = whole(), true },
		func(s *sessionState) { s.Next, s.Returned = whole(), true },
		func(s *sessionState) { s.Past, s.Returned = whole(), true },
		func(s *sessionState) { s.Said = true },
		func(s *sessionState) { s.Next = whole(); s.Next.LocalID = s.LocalID },
		func(s *sessionState) { s.Next = whole(); s.Next.RemoteCookie = nil },
	} {
		state := a.e.Save()
		change(&state.Tunnels[0].Sessions[0])
		if err := New(a.e.cfg).Restore(n.now, state); !errors.As(err, new(*StateError)) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestSuccessionIsRestored: also where one end alone has a cookie.
func TestSuccessionIsRestored(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	n.session("gold", "tenant-a")
	for i, h := range n.hosts {
		succeeds(&h.sessions[0])
		if i == 1 {
			h.sessions[0].CookieLength = 0
		}
		h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
		h.start()
	}
	if !n.until(10*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	a := n.hosts[0]
	if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
		t.Fatal(err)
	}
	if err := New(a.e.cfg).Restore(n.now, a.e.Save()); err != nil {
		t.Error(err)
	}
}
