package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/test/site"
)

var churnFlag = flag.Duration("churn", 4*time.Second, "for how long TestChurn has pseudowires come and go")

// TestChurn: pseudowires come, go and change at both sites, the peer's daemon ends and is
// killed, the path between them goes away, the file is read again, the API is watched. When
// all is as it was in the beginning, the daemon that ran through all of it uses as much as then.
func TestChurn(t *testing.T) {
	beside(t)
	if inVM {
		t.Skip("it has nothing to do with the kernel's version")
	}
	w := build(t, network{raw: true})
	w.write(w.many(3, 0))
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, upWithin), 1, 3); err != nil {
			t.Fatal(err)
		}
	}
	c := &churn{world: w, r: rand.New(rand.NewPCG(1, 3))}
	c.rest()
	for range 4 { // what is made once, and kept
		c.turn()
	}
	before := c.rest()
	turns, end := 0, time.Now().Add(*churnFlag)
	for ; time.Now().Before(end); turns++ {
		c.turn()
		if turns%200 == 199 {
			t.Logf("after %d turns: %v", turns+1, c.rest())
		}
	}
	after := c.rest()
	t.Logf("%d turns\nbefore: %v\nafter:  %v", turns, before, after)
	slack := usage{descriptors: 3, goroutines: 5, heap: 8 << 20}
	for _, x := range []struct {
		what          string
		is, was, more int
	}{
		{"descriptors", after.descriptors, before.descriptors, slack.descriptors},
		{"goroutines", after.goroutines, before.goroutines, slack.goroutines},
		{"octets of heap", after.heap, before.heap, slack.heap},
	} {
		if x.is > x.was+x.more {
			t.Errorf("%d %s, before %d", x.is, x.what, x.was)
		}
	}
	if after.objects != before.objects {
		t.Errorf("there is\n%s\nand before there was\n%s", after.objects, before.objects)
	}
}

// usage is what the daemon of dc1 uses.
type usage struct {
	descriptors, goroutines int
	// heap is what was in use after the last collection, in octets.
	heap    int
	objects string
}

type churn struct {
	*world
	r     *rand.Rand
	rests int
}

// turn is one thing that happens.
func (c *churn) turn() {
	s, peer := c.sites[0], c.sites[1]
	switch c.r.IntN(10) {
	case 0:
		if err := peer.Stop(within(c.t, time.Minute)); err != nil {
			c.t.Fatal(err)
		}
		c.startPeer()
	case 1:
		peer.Daemon.Kill()
		c.startPeer()
	case 2:
		c.link(false)
		c.pause()
		c.link(true)
	case 3:
		if *churnFlag < time.Minute {
			return // it waits for what the peer does not know yet
		}
		n := c.r.IntN(6)
		_, _ = c.sites[c.r.IntN(2)].Client().Apply(within(c.t, time.Minute), api.ApplyRequest{Name: "many.yaml", Document: c.many(n, c.r.IntN(n+1)), Disruptive: true})
	case 4:
		ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Millisecond)
		defer cancel()
		_ = s.Client().Events(ctx, 0, true, func(api.Event) error { return nil })
	case 5:
		_, _ = s.Client().Status(c.t.Context())
		_, _ = s.Client().History(c.t.Context())
		_, _ = s.Client().MACs(c.t.Context())
	default:
		n := c.r.IntN(6)
		c.write(c.many(n, c.r.IntN(n+1)))
		for _, x := range c.sites {
			if c.r.IntN(3) == 0 {
				continue // the two disagree for a while
			}
			if err := x.Daemon.Signal(syscall.SIGHUP); err != nil {
				c.t.Fatal(err)
			}
		}
		c.pause()
	}
}

func (c *churn) pause() { time.Sleep(time.Duration(c.r.IntN(300)) * time.Millisecond) }

// startPeer starts the peer's daemon and waits until it answers: one that is killed before
// it has made anything is no test.
func (c *churn) startPeer() {
	c.t.Helper()
	if err := c.sites[1].Start(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.sites[1].Await(within(c.t, time.Minute), "it answers", func(*api.Status) error { return nil }); err != nil {
		c.t.Fatal(err)
	}
}

// link sets the underlay of dc1 up or down.
func (c *churn) link(up bool) {
	c.t.Helper()
	nl := c.sites[0].NS.Netlink()
	l, err := nl.LinkByName("eth0")
	if err == nil && up {
		err = nl.LinkSetUp(l)
	} else if err == nil {
		err = nl.LinkSetDown(l)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// rest has both sites be as in the beginning, and measures dc1.
func (c *churn) rest() usage {
	c.t.Helper()
	// The file is carried out without a look at what comes up: two sites that were told
	// different things would take back what they are told one after the other.
	c.rests++
	c.write(c.many(3, 0) + fmt.Sprintf("# %d\n", c.rests))
	for _, s := range c.sites {
		if err := s.Daemon.Signal(syscall.SIGHUP); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, s := range c.sites {
		err := s.Await(within(c.t, 2*time.Minute), "its file is in force", func(st *api.Status) error {
			if len(st.Tunnels) != 1 || len(st.Pseudowires) != 3 || st.FileDiffers {
				return fmt.Errorf("%d tunnels and %d pseudowires, and the file differs is %v", len(st.Tunnels), len(st.Pseudowires), st.FileDiffers)
			}
			return site.AllUp(st)
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.sites[0].Client().Close() // idle connections are descriptors
	pid := c.sites[0].Daemon.Cmd.Process.Pid
	var u usage
	for i := range 5 {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			c.t.Fatal(err)
		}
		m := c.metrics()
		heap := int(m["go_memstats_next_gc_bytes"]) / 2
		if i == 0 {
			u = usage{len(fds), int(m["go_goroutines"]), heap, ""}
		}
		u.descriptors, u.goroutines, u.heap = min(u.descriptors, len(fds)), min(u.goroutines, int(m["go_goroutines"])), min(u.heap, heap)
		time.Sleep(20 * time.Millisecond)
	}
	u.objects = c.objects()
	return u
}

// metrics are those of dc1 that have no labels.
func (c *churn) metrics() map[string]float64 {
	c.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.sites[0].Socket())
	}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://pwd/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	m := make(map[string]float64)
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			m[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return m
}
