package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A path that does not carry what it is taken for, while nobody says so, is found out; the
// datapath is told, and people are, and again when it is over.
func TestBlackHoleIsFound(t *testing.T) {
	for _, encapsulation := range []string{"udp", "ip"} {
		t.Run(encapsulation, func(t *testing.T) {
			dc1, dc2 := places(t)
			// What is longer than the receiving end's MTU a veth pair drops.
			mtu := func(n int) {
				if err := dc2.ns.Netlink().LinkSetMTU(dc2.linkBy("eth0"), n); err != nil {
					t.Fatal(err)
				}
			}
			mtu(1400)
			text := strings.Replace(docA, "sites: [dc1, dc2]", "sites: [dc1, dc2], encapsulation: "+encapsulation, 1)
			for _, p := range []*place{dc1, dc2} {
				p.can = everything
				p.change = func(a *Agent) { a.probeWait = 100 * time.Millisecond }
				p.write(text)
				p.start()
			}
			dc1.awaitUp()
			told := func() int {
				dc1.kernel.mu.Lock()
				defer dc1.kernel.mu.Unlock()
				return dc1.kernel.tunnels["gold/dc2"].PathMTU
			}
			// A veth pair allows for a tag.
			const least, most = 1400, 1404
			lookAt(dc1, "the path is known", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.told < least || p.told > most {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if got := told(); got < least || got > most {
				t.Errorf("the datapath was told %d", got)
			}
			if st := dc1.status().Tunnels[0]; st.PathMTU != told() || !st.BlackHole {
				t.Errorf("status: path MTU %d, black hole %v", st.PathMTU, st.BlackHole)
			}
			if events := strings.Join(dc1.told("tunnel gold/dc2"), "\n"); !strings.Contains(events, "warning packets of more than 1400 octets are lost on the way") {
				t.Errorf("told %s", events)
			}
			lookAt(dc2, "the other way is as it was taken for", func(a *Agent) error {
				if p := a.tunnels["gold/dc1"].probe; p.cap != 0 || p.carried != p.believed || p.believed != least {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if encapsulation == "ip" {
				return
			}
			// The next process goes on with it, and does not tell it again.
			dc1.shut()
			dc1.start()
			dc1.do(func() {
				if p := dc1.a.tunnels["gold/dc2"].probe; p.cap != told() || p.told != p.cap {
					t.Errorf("after a restart: %+v", p)
				}
			})
			if got := told(); got < least || got > most {
				t.Errorf("after a restart the datapath was told %d", got)
			}
			dc1.awaitUp()
			mtu(1500)
			lookAt(dc1, "all is carried", func(a *Agent) error {
				if p := a.tunnels["gold/dc2"].probe; p.told != 0 || p.cap != 0 {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if got := told(); got != 0 {
				t.Errorf("then the datapath was told %d", got)
			}
		})
	}
}

// lookAt has a daemon look at its paths until cond is nil. Answers that are there count at
// once, and a path that was not answered in time, on a busy machine, is looked at once more.
func lookAt(p *place, what string, cond func(*Agent) error) {
	p.t.Helper()
	p.poll(what, func() (err error) {
		p.do(func() {
			for _, t := range p.a.tunnels {
				if answered, _ := p.a.control.ProbeAnswered(t.probe.connection); answered || t.probe.size == 0 {
					t.probe.next = time.Time{}
				}
			}
			p.a.probePaths(time.Now())
			err = cond(p.a)
		})
		return err
	})
}
