package control

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestSuccessionOutage: an end that has gone over and hears of no other, because nothing gets through for a
// while, does not go back to what the other has forgotten.
func TestSuccessionOutage(t *testing.T) {
	for _, outage := range []time.Duration{20 * time.Second, 40 * time.Second} {
		t.Run(outage.String(), func(t *testing.T) {
			n := newNetwork(t, 0)
			n.tunnel("gold", func(x *Tunnel) { x.Hello = time.Minute })
			n.session("gold", "tenant-a")
			a, b := n.hosts[0], n.hosts[1]
			for _, h := range n.hosts {
				succeeds(&h.sessions[0])
				h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
				h.start()
			}
			if !n.until(10*time.Second, n.up) {
				t.Fatal(n.disagreement())
			}
			was := a.e.Sessions()[0]
			of := func(h *host) *session { return h.e.tunnels[h.tunnels[0].Name].sessions["tenant-a"] }
			if err := a.e.ChangeCookie(n.now, a.tunnels[0].Name, "tenant-a"); err != nil {
				t.Fatal(err)
			}
			a.drain()
			if !n.until(10*time.Second, func() bool { return of(b).succession.over() && !of(a).succession.followed }) {
				t.Fatal("neither is ahead of the other")
			}
			n.air = nil // what b has said is lost; what a has said it acknowledges once more
			n.until(3*time.Second, func() bool { return of(a).t.conn.rel.idle() })
			n.air, n.loss = nil, 1
			n.run(outage)
			n.loss = 0
			n.run(10 * time.Minute)
			if is := a.e.Sessions()[0]; !n.up() || is.LocalID == was.LocalID || is.ChangingCookie {
				t.Errorf("%s; session %d, was %d; changing %v", n.disagreement(), is.LocalID, was.LocalID, is.ChangingCookie)
			}
		})
	}
}

// TestSuccessionOfMany: where one direction loses messages, what a peer has to say of the last of many sessions
// waits for minutes behind what it says of others. No session ends for that.
func TestSuccessionOfMany(t *testing.T) {
	for _, c := range []struct {
		sessions    int
		there, back float64
		delay       time.Duration
	}{
		{50, 0, 0.2, 25 * time.Millisecond},
		{200, 0, 0.1, 25 * time.Millisecond},
		{200, 0.1, 0.1, 50 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d, %v and %v are lost", c.sessions, c.there, c.back), func(t *testing.T) {
			n := newNetwork(t, 3)
			n.tunnel("gold")
			for i := range c.sessions {
				n.session("gold", fmt.Sprintf("p%04d", i), succeeds)
			}
			for _, h := range n.hosts {
				h.noDisk = true
				h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
				h.start()
			}
			if !n.until(2*time.Minute, n.up) {
				t.Fatal(n.disagreement())
			}
			a := n.hosts[0]
			for _, h := range n.hosts {
				h.check = func(o Output) {
					if o, is := o.(*SessionChanged); is && o.To != SessionEstablished {
						t.Errorf("%s: session %s is %s: %s", h.name, o.Name, o.To, o.Reason)
					}
				}
			}
			n.delay = func() time.Duration { return c.delay }
			n.trace = func(h *host, _ Datagram) {
				if n.loss = c.there; h != a {
					n.loss = c.back
				}
			}
			was := a.e.Sessions()
			for _, s := range was {
				if err := a.e.ChangeCookie(n.now, s.Session.Tunnel, s.Session.Name); err != nil {
					t.Fatal(err)
				}
			}
			a.drain()
			n.run(15 * time.Minute)
			if !n.up() {
				t.Fatal(n.disagreement())
			}
			for i, is := range a.e.Sessions() {
				if is.LocalID == was[i].LocalID || is.ChangingCookie {
					t.Errorf("session %s: %d, was %d; changing %v", is.Session.Name, is.LocalID, was[i].LocalID, is.ChangingCookie)
				}
			}
		})
	}
}

// TestSuccessionAmongFaults: whatever is lost, refused and started again while cookies change, both ends agree
// when it is over.
func TestSuccessionAmongFaults(t *testing.T) {
	runs(t, 60, func(t testing.TB, seed uint64) {
		n := faulty(t, seed)
		n.run(15 * time.Minute)
		if !n.up() {
			t.Error(n.disagreement())
		}
		for _, h := range n.hosts {
			for _, s := range h.e.Sessions() {
				if s.AwaitingCookie {
					t.Errorf("%s: session %s still waits", h.name, s.Session.Name)
				}
			}
		}
	})
}

// faulty is a network in which much has gone wrong while cookies of its sessions changed, and nothing does any more.
func faulty(t testing.TB, seed uint64) *network {
	const sessions = 8
	n := newNetwork(t, seed)
	n.tunnel("gold", func(x *Tunnel) { x.Hello = time.Minute })
	for i := range sessions {
		n.session("gold", fmt.Sprint("p", i))
	}
	for i, h := range n.hosts {
		for j := range h.sessions {
			if succeeds(&h.sessions[j]); i == 1 && j%2 == 1 {
				changesAndSucceeds(&h.sessions[j])
			}
		}
		h.started = func(e *Endpoint) { e.cfg.VendorName = "pwd test" }
		h.start()
	}
	if !n.until(20*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	r := rand.New(rand.NewPCG(seed, 5))
	var loss [2]float64
	var back [2]time.Time
	refusing, restarts := false, seed%2 == 0
	n.duplication = 0.1
	n.delay = func() time.Duration { return time.Duration(r.IntN(300)) * time.Millisecond }
	n.trace = func(h *host, _ Datagram) {
		if n.loss = loss[0]; h == n.hosts[1] {
			n.loss = loss[1]
		}
	}
	for _, h := range n.hosts {
		h.refuses = func(o *InstallSession) bool {
			was, known := h.data[o.LocalID]
			return refusing && (o.Beside != 0 && !known || o.Beside == 0 && known && was.Beside != 0) && r.IntN(3) == 0
		}
	}
	for range 600 {
		n.run(time.Duration(r.IntN(1000)) * time.Millisecond)
		for i, h := range n.hosts {
			if h.down && !n.now.Before(back[i]) {
				h.start()
			}
		}
		i := r.IntN(2)
		h := n.hosts[i]
		switch k := r.IntN(60); {
		case k < 3 && !h.down:
			refusing = r.IntN(4) == 0
			for j := range sessions {
				if err := h.e.ChangeCookie(n.now, h.tunnels[0].Name, fmt.Sprint("p", j)); err != nil && !errors.Is(err, ErrChanging) && !errors.Is(err, ErrNotEstablished) {
					t.Fatal(err)
				}
			}
			h.drain()
		case k < 6:
			loss[i] = []float64{0, 0, 0.1, 0.3, 0.9, 1}[r.IntN(6)]
		case k == 6 && restarts && !h.down:
			h.crashAfter = h.steps + r.IntN(12)
			back[i] = n.now.Add(time.Duration(r.IntN(50000)) * time.Millisecond)
		case k == 7 && restarts && !h.down:
			h.down = true
			back[i] = n.now.Add(time.Duration(r.IntN(50000)) * time.Millisecond)
		}
	}
	for _, h := range n.hosts {
		if h.crashAfter = -1; h.down {
			h.start()
		}
	}
	loss, n.duplication, refusing = [2]float64{}, 0, false
	return n
}
