package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
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

// startBoth starts two sites and waits until all is up at both.
func startBoth(dc1, dc2 *place) {
	dc1.t.Helper()
	dc1.start()
	dc2.start()
	dc1.awaitUp()
	dc2.awaitUp()
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

// awaitUnsent waits until the site has tried to call, and could not.
func (p *place) awaitUnsent() {
	p.t.Helper()
	p.await("it tried to call", func(a *Agent) error {
		if len(a.unsent) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// A request that could not leave, because the site had no address at that moment, leaves when it gets one, and
// not when it would be repeated; whatever there is instead of a route then.
func TestCallsWhenItHasAnAddress(t *testing.T) {
	for _, instead := range []string{"", "unreachable", "prohibit", "throw"} {
		t.Run(nonempty(instead, "no")+" route", func(t *testing.T) {
			dc1, dc2 := wandering(t)
			if instead != "" {
				if out, err := dc2.ns.Run(t.Context(), "ip", "route", "add", instead, "default", "metric", "4000"); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			startBoth(dc1, dc2)
			dc2.readdress("")
			dc2.awaitUnsent()
			dc2.readdress("192.0.2.22")
			dc2.awaitAddress("192.0.2.22")
			for _, p := range []*place{dc1, dc2} {
				p.awaitUp()
			}
		})
	}
}

// A site that had no address for so long that its attempt came to nothing calls when it gets one, and not when
// the next attempt would be due.
func TestCallsWhenItHasAnAddressAtLast(t *testing.T) {
	dc1, dc2 := wandering(t)
	dc2.opt.Timers = control.Timers{
		Retransmit: 100 * time.Millisecond, RetransmitCap: 100 * time.Millisecond, MaxRetransmits: 9,
		OpenDelay: 10 * time.Millisecond, ReopenMin: time.Hour, ReopenMax: time.Hour, Linger: time.Second,
	}
	startBoth(dc1, dc2)
	dc2.readdress("")
	dc2.await("its attempt has come to nothing", func(a *Agent) error {
		if state := a.tunnels["gold/dc1"].state; state != control.ConnectionIdle || len(a.unsent) == 0 {
			return fmt.Errorf("%v, %v", state, a.unsent)
		}
		return nil
	})
	dc2.readdress("192.0.2.22")
	dc2.awaitAddress("192.0.2.22")
}

// A site whose address changes again before it has an answer begins again: to its peer the request that it has
// sent would be a replay from the next address.
func TestMovesAgainWhileItCalls(t *testing.T) {
	dc1, dc2 := wandering(t)
	startBoth(dc1, dc2)
	dc1.do(func() { // which answers nothing meanwhile
		for _, next := range []string{"192.0.2.22", "192.0.2.23"} {
			dc2.readdress(next)
			dc2.await("it has called from "+next, func(a *Agent) error {
				x := a.tunnels["gold/dc1"]
				if local, _, _ := a.transport.Path(a.control.Attempt(x.Key)); local.Addr().String() != next || len(a.unsent) > 0 {
					return fmt.Errorf("%v", local)
				}
				return nil
			})
		}
	})
	dc2.awaitAddress("192.0.2.23")
}

// That the connection before cannot be closed for want of its address is no reason to repeat the call that has
// left from the next one.
func TestFarewellIsNoCall(t *testing.T) {
	dc1, dc2 := wandering(t)
	startBoth(dc1, dc2)
	dc1.do(func() { // which answers nothing meanwhile
		var old control.Transmit
		dc2.do(func() {
			x := dc2.a.tunnels["gold/dc1"]
			_, remote, _ := dc2.a.transport.Path(x.dial)
			old = control.Transmit{Tunnel: x.Key, Connection: x.dial, Initiator: true, Path: control.Path{Remote: remote}}
		})
		for _, change := range [][]string{{"add", "192.0.2.22/25"}, {"del", "192.0.2.2/24"}} {
			if out, err := dc2.ns.Run(t.Context(), "ip", "addr", change[0], change[1], "dev", "eth0"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		dc2.await("it calls", func(a *Agent) error {
			if a.control.Attempt(old.Tunnel) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		dc2.do(func() {
			a := dc2.a
			failed := a.transport.Counters().TransmitFailed
			a.send(&parting{Transmit: old})
			if v := a.tunnelViews(a.counters())[0]; v.Retransmits > 0 || len(a.unsent) > 0 || a.transport.Counters().TransmitFailed == failed {
				t.Errorf("%d retransmits, unsent is that of %v", v.Retransmits, a.unsent)
			}
		})
	})
}

// Calls that cannot leave are tried with ever longer pauses, and nothing is saved anew for that.
func TestCallsInVainAreRare(t *testing.T) {
	dc1, dc2 := wandering(t)
	const longestPause = 80 * time.Millisecond
	startBoth(dc1, dc2)
	dc2.readdress("")
	dc2.awaitUnsent()
	look := func() os.FileInfo {
		t.Helper()
		entries, err := filepath.Glob(filepath.Join(dc2.opt.StateDir, "tunnels", "*"))
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v, %v", entries, err)
		}
		info, err := os.Stat(entries[0])
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	dc2.do(func() {
		a := dc2.a
		a.opt.Timers.Retransmit, a.callPause = longestPause, 0
		for _, want := range []time.Duration{10, 20, 40, 80, 80} {
			before := look()
			if a.callAgain(); a.callPause != want*time.Millisecond || len(a.unsent) == 0 {
				t.Errorf("the pause is %v, want %v ms; unsent %v", a.callPause, want, a.unsent)
			}
			if after := look(); !os.SameFile(before, after) || after.Size() != before.Size() {
				t.Error("the tunnel's state was written")
			}
		}
		for _, tt := range []struct {
			what string
			news ways
			due  bool
			soon bool
		}{
			{"nothing of interest", ways{}, false, false},
			{"a route to others", ways{routes: map[netip.Prefix]bool{netip.MustParsePrefix("198.51.100.0/24"): true}}, false, false},
			{"a rule", ways{others: true}, true, false},
			{"a route to the peer", ways{routes: map[netip.Prefix]bool{netip.MustParsePrefix("192.0.2.0/24"): true}}, true, true},
			{"an address", ways{came: true}, true, true},
		} {
			a.called, a.callRest, a.callPause = time.Now(), time.Time{}, time.Hour
			call := newLook()
			a.planCall(call, tt.news)
			if soon := call.due && time.Until(call.at) < time.Minute; call.due != tt.due || soon != tt.soon {
				t.Errorf("%s: it calls: %v, in %v", tt.what, call.due, time.Until(call.at))
			}
			call.Stop()
		}
	})
}

// An early call is not kept waiting by a late one that is planned, nor put off by a later one.
func TestTheEarlierTimeHolds(t *testing.T) {
	l := newLook()
	defer l.Stop()
	for _, tt := range []struct{ wait, want time.Duration }{{time.Hour, time.Hour}, {time.Minute, time.Minute}, {time.Hour, time.Minute}} {
		l.after(tt.wait, time.Time{})
		if got := time.Until(l.at).Round(time.Second); got != tt.want {
			t.Errorf("after %v: in %v, want %v", tt.wait, got, tt.want)
		}
	}
}

// What happens to neighbours, qdiscs, filters and links of ours opens no way, nor does what can be used on one
// link only, or not yet.
func TestNewsThatOpenWays(t *testing.T) {
	address := func(kind nl.HeaderType, addr string, flags byte) nl.Message {
		m := addressGone(map[uint16]string{unix.IFA_ADDRESS: addr})
		m.Header.Type, m.Data[2] = kind, flags
		return m
	}
	link := func(m nl.Message, flags uint32) nl.Message {
		binary.NativeEndian.PutUint32(m.Data[8:], flags)
		return m
	}
	const usable = unix.IFF_UP | unix.IFF_RUNNING
	for _, tt := range []struct {
		what         string
		news         []nl.Message
		came, others bool
	}{
		{"a neighbour", []nl.Message{{Header: nl.Header{Type: unix.RTM_NEWNEIGH}, Data: make([]byte, 12)}}, false, false},
		{"a qdisc", []nl.Message{{Header: nl.Header{Type: unix.RTM_NEWQDISC}, Data: make([]byte, 20)}}, false, false},
		{"a filter", []nl.Message{filtered(unix.RTM_DELTFILTER, 7)}, false, false},
		{"an address that goes", []nl.Message{address(unix.RTM_DELADDR, "192.0.2.2", 0)}, false, false},
		{"an address", []nl.Message{address(unix.RTM_NEWADDR, "192.0.2.2", 0)}, true, false},
		{"an IPv4 address of the link", []nl.Message{address(unix.RTM_NEWADDR, "169.254.10.2", 0)}, true, false},
		{"an IPv6 address of the link", []nl.Message{address(unix.RTM_NEWADDR, "fe80::2", 0)}, false, false},
		{"an address that others may have", []nl.Message{address(unix.RTM_NEWADDR, "2001:db8::2", unix.IFA_F_TENTATIVE)}, false, false},
		{"one that is used nonetheless", []nl.Message{address(unix.RTM_NEWADDR, "2001:db8::2", unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC)}, true, false},
		{"a link without carrier", []nl.Message{link(linkMessage(unix.RTM_NEWLINK, 0, "wan0", 0), unix.IFF_UP)}, false, false},
		{"a link that comes up", []nl.Message{link(linkMessage(unix.RTM_NEWLINK, 0, "wan0", 0), usable)}, false, true},
		{"a device of ours that comes up", []nl.Message{link(aliased(unix.RTM_NEWLINK, 7, "pw-a", "pwd:pseudowire:a"), usable)}, false, false},
	} {
		var n news
		for _, m := range tt.news {
			n.add(m)
		}
		if n.ways.came != tt.came || n.ways.others != tt.others {
			t.Errorf("%s: an address %v, others %v", tt.what, n.ways.came, n.ways.others)
		}
	}
	var n news
	n.add(link(linkMessage(unix.RTM_NEWLINK, 0, "wan0", 0), usable))
	n.ways = ways{}
	if n.add(link(linkMessage(unix.RTM_NEWLINK, 0, "wan0", 0), usable)); n.ways.others {
		t.Error("what happens to a link that is up opens a way")
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
	startBoth(dc1, dc2)
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

// A datapath that does not let go of a tunnel that begins anew is a fault, until it takes the next one.
func TestTunnelThatDoesNotGo(t *testing.T) {
	dc1, dc2 := wandering(t)
	startBoth(dc1, dc2)
	dc2.do(func() {
		a := dc2.a
		for kind, dp := range a.datapaths {
			a.datapaths[kind] = &clinging{dp}
		}
		a.beginAnew(a.tunnels["gold/dc1"])
		a.settle(time.Now())
		if a.faults.now["tunnel gold/dc1"] == "" {
			t.Error("nothing is wrong with the tunnel")
		}
	})
	dc2.awaitUp()
	dc2.do(func() {
		if fault := dc2.a.faults.now["tunnel gold/dc1"]; fault != "" {
			t.Errorf("%s, though the datapath has taken it", fault)
		}
	})
}

// clinging lets go of no tunnel.
type clinging struct{ pseudowire.Datapath }

func (c *clinging) RemoveTunnel(string) error { return errRefused }

// A tunnel that is found missing twice before the datapath has let go of it begins anew once.
func TestBeginsAnewOnce(t *testing.T) {
	dc1, dc2 := wandering(t)
	startBoth(dc1, dc2)
	dc2.do(func() {
		a := dc2.a
		missing := &pseudowire.TunnelsGoneError{Names: []string{"gold/dc1"}}
		a.renew(missing)
		first := a.control.Attempt("gold/dc1")
		a.renew(missing)
		if second := a.control.Attempt("gold/dc1"); first == 0 || second != first {
			t.Errorf("attempt %d, then %d", first, second)
		}
		a.settle(time.Now())
		if a.renew(missing); a.control.Attempt("gold/dc1") == first {
			t.Error("it does not begin anew when it is missing again")
		}
	})
}
