package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// wandering is two sites, the second one with an address that changes, which sends nothing again by a timer.
func wandering(t *testing.T) (dc1, dc2 *place) {
	t.Helper()
	dc1, dc2 = places(t)
	dc2.opt.Timers.Retransmit, dc2.opt.Timers.RetransmitCap = time.Hour, time.Hour
	doc := strings.Replace(topo("gold: {sites: [dc1, dc2], secret-file: gold.secret, hello: 1h}\n", wireTo("a", "gold", 7)), "address: 192.0.2.2", "address: dynamic", 1)
	for _, p := range []*place{dc1, dc2} {
		p.secret("gold.secret", "shared")
		p.write(doc)
	}
	return dc1, dc2
}

// readdress replaces the address of the underlay, where there is one, by another, where one is given.
func (p *place) readdress(next string) {
	p.t.Helper()
	nl, underlay := p.ns.Netlink(), p.linkBy("eth0")
	old, err := nl.AddrList(underlay, netlink.FAMILY_V4)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range old {
		if err := nl.AddrDel(underlay, &old[i]); err != nil {
			p.t.Fatal(err)
		}
	}
	if next == "" {
		return
	}
	addr, err := netlink.ParseAddr(next + "/24")
	if err == nil {
		err = nl.AddrAdd(underlay, addr)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) awaitAddress(addr string) {
	p.t.Helper()
	p.await("the tunnel has gone over to "+addr, func(a *Agent) error {
		v := a.tunnelViews(a.counters())[0]
		if v.State != "established" || !strings.HasPrefix(v.Local, addr+":") {
			return fmt.Errorf("%s, %s: %s", v.State, v.Local, v.Reason)
		}
		return nil
	})
}

// A request that could not leave, because the site had no address at that moment, leaves when it gets one, and
// not when it would be repeated.
func TestCallsWhenItHasAnAddress(t *testing.T) {
	dc1, dc2 := wandering(t)
	dc1.start()
	dc2.start()
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	dc2.readdress("")
	dc2.await("it tried to call", func(a *Agent) error {
		if len(a.unsent) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	dc2.readdress("192.0.2.22")
	dc2.awaitAddress("192.0.2.22")
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
}

// A site whose address changes has called its peer before its datapath lets go of the first device: kernels
// take their time over that.
func TestCallsBeforeItLetsGo(t *testing.T) {
	dc1, dc2 := wandering(t)
	var states []string
	dc2.removing = func() {
		states = append(states, fmt.Sprintf("%v, %d packets to send", dc2.a.tunnels["gold/dc1"].state, len(dc2.a.outbox)))
	}
	dc1.start()
	dc2.start()
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	dc2.readdress("192.0.2.22")
	dc2.awaitAddress("192.0.2.22")
	dc2.awaitUp()
	dc2.do(func() {
		if want := "[wait-ctl-reply, 0 packets to send]"; fmt.Sprint(states) != want {
			t.Errorf("when sessions went the connections were %v, want %s", states, want)
		}
	})
}

// What is looked at in the kernel waits for sessions that are being set up, for a while.
func TestLooksWaitForCalls(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		state control.SessionState
		since time.Duration
		want  bool
	}{
		{control.SessionIdle, 0, false},
		{control.SessionWaitReply, quiet, true},
		{control.SessionWaitConnect, quiet, true},
		{control.SessionWaitReply, longest, false}, // the peer says nothing
		{control.SessionEstablished, quiet, false},
	} {
		a := &Agent{wires: map[string]*wire{"a": {Pseudowire: &topology.Pseudowire{}, since: now.Add(-tt.since), rides: []*ride{{state: tt.state}}}}}
		if got := a.settingUp(now); got != tt.want {
			t.Errorf("%v for %v: sessions are being set up: %v", tt.state, tt.since, got)
		}
	}
	l := newLook()
	defer l.Stop()
	l.after(time.Hour, time.Time{})
	for _, tt := range []struct {
		after time.Duration
		busy  bool
		want  bool
	}{{quiet, true, false}, {longest, true, true}, {longest, false, true}} {
		if got := l.begin(l.since.Add(tt.after), tt.busy); got != tt.want {
			t.Errorf("after %v, busy %v: it looks: %v", tt.after, tt.busy, got)
		}
		l.after(time.Hour, time.Time{})
	}
}
