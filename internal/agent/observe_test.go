package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// poll waits for what gives no event.
func (p *place) poll(what string, cond func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), soon)
	defer cancel()
	if err := netlab.Poll(ctx, what, cond); err != nil {
		p.t.Fatal(err)
	}
}

// looked waits until the kernel's events up to now have been looked at.
func (p *place) looked() {
	p.t.Helper()
	var before time.Time
	p.do(func() { before = p.a.rest })
	nothing := netlink.NewLinkAttrs()
	nothing.Name = "x" + fmt.Sprint(time.Now().UnixNano()%1e9)
	link := &netlink.Veth{LinkAttrs: nothing, PeerName: "y" + nothing.Name[1:]}
	if err := p.ns.Netlink().LinkAdd(link); err != nil {
		p.t.Fatal(err)
	}
	p.poll("the daemon looked", func() error {
		var after time.Time
		p.do(func() { after = p.a.rest })
		if after.Equal(before) {
			return errors.New("not yet")
		}
		return nil
	})
}

// A peer that does not answer is asked for ever, and told of once.
func TestSilentPeerIsToldOfOnce(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.await("many attempts came to nothing", func(a *Agent) error {
		if f := a.control.Connections()[0].Failures; f < 10 {
			return fmt.Errorf("%d", f)
		}
		return nil
	})
	st := p.status()
	tunnel, wire := st.Tunnels[0].Reason, st.Pseudowires[0].Reason
	if !strings.HasPrefix(tunnel, "no answer from 192.0.2.2:1701 since ") {
		t.Errorf("the tunnel's reason: %q", tunnel)
	}
	if want := "waiting for dc2: tunnel gold is not established: " + tunnel; wire != want {
		t.Errorf("the pseudowire's reason: %q, want %q", wire, want)
	}
	if told := p.told("tunnel gold/dc2"); len(told) != 1 || told[0] != "warning not established: "+tunnel {
		t.Errorf("told %q", told)
	}
	if told := p.told("pseudowire a"); len(told) != 0 {
		t.Errorf("told %q", told)
	}
}

// Where a daemon has ended its host still answers: what to do is to start it.
func TestEndedPeerIsToldFromAFirewall(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.opt.Timers.MaxRetransmits = 20 // so that a busy machine is not taken for a peer that has gone
		p.write(docA)
		p.start()
	}
	dc1.awaitUp()
	dc1.signalled(func(c *control.Tunnel) { c.Hello = 50 * time.Millisecond })
	dc2.shut()
	dc1.await("it is said what to do", func(a *Agent) error {
		x := a.tunnels["gold/dc2"]
		if next := a.next(x); x.state == control.ConnectionEstablished || !strings.HasPrefix(next, "start pwd at dc2: 192.0.2.2 answers that nothing listens") {
			return fmt.Errorf("%v, %s: %s", x.state, x.why(), next)
		}
		return nil
	})
	var lost *api.Event
	events, _ := dc1.a.events.since(0)
	for _, e := range events {
		if e.Object == "tunnel gold/dc2" && e.Message == "down" {
			lost = &e
		}
	}
	if lost == nil || lost.Cause == nil || lost.Cause.Kind != "peer-silent" || lost.Cause.By != "here" || lost.Cause.Message == "" || lost.Cause.Sent != 21 {
		t.Errorf("told %+v", lost)
	}
	dc2.start()
	dc1.awaitUp()
	if told := dc1.told("tunnel gold/dc2"); !strings.HasPrefix(told[len(told)-1], "info established: it was down for ") {
		t.Errorf("told %q", told)
	}
}

// A peer that answers and refuses gives its own reason.
func TestRefusalIsTheReason(t *testing.T) {
	dc1, dc2 := places(t)
	dc1.write(topo("gold: {sites: [dc1, dc2]}\nsilver: {sites: [dc1, dc2]}\n", wireTo("a", "silver", 7)))
	dc2.write(topo(gold, wireTo("b", "gold", 8)))
	dc1.start()
	dc2.start()
	dc1.await("silver is refused", func(a *Agent) error {
		if r := a.tunnels["silver/dc2"].why(); !strings.Contains(r, "StopCCN") {
			return errors.New(r)
		}
		return nil
	})
	if told := dc1.told("tunnel silver/dc2"); len(told) == 0 || strings.Contains(told[len(told)-1], "no answer") {
		t.Errorf("told %q", told)
	}
}

// The peer hears of the attachment circuit's state, and of nothing else that
// happens to links.
func TestCircuitFollowsTheInterface(t *testing.T) {
	dc1, dc2 := pair(t, docA)
	ids := dc1.sessionIDs()
	eth1 := dc1.linkBy("eth1")
	if err := dc1.ns.Netlink().LinkSetDown(eth1); err != nil {
		t.Fatal(err)
	}
	dc2.await("it heard that the circuit is down", func(a *Agent) error {
		if r := a.why(a.wires["a"]); !strings.HasPrefix(r, "dc1 reports its attachment circuit as ") {
			return errors.New(r)
		}
		return nil
	})
	if r := dc1.status().Pseudowires[0].Reason; r != "no port of bridge br-lan has a carrier" {
		t.Errorf("dc1's reason: %q", r)
	}
	if err := dc1.ns.Netlink().LinkSetUp(eth1); err != nil {
		t.Fatal(err)
	}
	dc1.awaitUp()
	dc2.awaitUp()
	if diff := cmp.Diff(ids, dc1.sessionIDs()); diff != "" {
		t.Errorf("sessions before and after:\n%s", diff)
	}
}

// What somebody takes away is made again; what nobody touched is left alone.
func TestDevicesAreMadeAgain(t *testing.T) {
	text := topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8)+"c: {tunnel: gold, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n")
	dc1, _ := pair(t, text)
	dc1.looked()
	was := dc1.links()
	for _, name := range []string{"pw-a", "br-lan", "pwb-eth2"} {
		dc1.turns.reset(0)
		if err := dc1.ns.Netlink().LinkDel(dc1.linkBy(name)); err != nil {
			t.Fatal(err)
		}
		dc1.poll(name+" is there again", func() error {
			links := strings.Join(linesWithout(dc1.links(), "x", "y"), "\n")
			if want := strings.Join(linesWithout(was, "x", "y"), "\n"); links != want {
				return errors.New(cmp.Diff(lines(want), lines(links)))
			}
			return nil
		})
		for _, call := range dc1.turns.calls {
			// To look at a device that something happened to is to set it: that changes what differs.
			if !strings.HasPrefix(call, "set pseudowire ") {
				t.Errorf("%s was removed, and there was a call to %s", name, call)
			}
		}
	}
	dc1.awaitUp()
}

func linesWithout(text string, prefixes ...string) (kept []string) {
	for _, line := range lines(text) {
		if !strings.HasPrefix(line, prefixes[0]) && !strings.HasPrefix(line, prefixes[1]) {
			kept = append(kept, line)
		}
	}
	return kept
}

// An interface that is missing is a reason, not a failure, and is used when it comes.
func TestMissingInterfacesAreAwaited(t *testing.T) {
	p := lone(t)
	text := strings.Replace(topo(gold, wireTo("a", "gold", 7)+"c: {tunnel: gold, attach: {dc1: {interface: late0}, dc2: {interface: eth2}}}\n"),
		"br-lan: {ports: [eth1]}", "br-lan: {ports: [late1]}", 1)
	p.write(text)
	p.start()
	st := p.status()
	problems := fmt.Sprint(st.Problems)
	for _, want := range []string{"{bridge br-lan bridge: interface late1, wanted by bridge br-lan, is not there", "{pseudowire c down: bridge: interface late0"} {
		if !strings.Contains(problems, want) {
			t.Errorf("problems %s, want %s", problems, want)
		}
	}
	// A daemon that starts without them has not left anything over for it.
	p.shut()
	p.change = func(a *Agent) {
		if a.unclean {
			t.Error("what is missing counts as left over")
		}
	}
	p.start()
	used := func() {
		t.Helper()
		for _, name := range []string{"late0", "late1"} {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			if err := p.ns.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer" + name}); err != nil {
				t.Fatal(err)
			}
			for _, n := range []string{name, "peer" + name} {
				if err := p.ns.Netlink().LinkSetUp(p.linkBy(n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.poll("both are used", func() error {
			for _, v := range p.status().Problems {
				if strings.HasPrefix(v.Object, "bridge") || strings.Contains(v.What, "late") {
					return fmt.Errorf("%+v", v)
				}
			}
			return nil
		})
		for _, want := range []string{"late0 in pwb-late0, up", "late1 in br-lan, up", "pw-c in pwb-late0, up, ours"} {
			if !strings.Contains(p.links(), want) {
				t.Errorf("no %q in:\n%s", want, p.links())
			}
		}
	}
	used()
	// One that vanishes is missing again, and another of its name takes its place.
	for _, name := range []string{"late0", "late1"} {
		if err := p.ns.Netlink().LinkDel(p.linkBy(name)); err != nil {
			t.Fatal(err)
		}
	}
	p.poll("both are missed", func() error {
		circuits, err := p.a.Attachments(t.Context())
		missed := fmt.Sprint(p.status().Problems, circuits)
		for _, want := range []string{"interface late1, wanted by bridge br-lan, is not there", "interface late0 is not there"} {
			if !strings.Contains(missed, want) {
				return fmt.Errorf("%s, want %s, %v", missed, want, err)
			}
		}
		return nil
	})
	used()
}

// An address of an interface that is attached is warned of, once, when the interface is taken.
func TestAddressedInterfacesAreWarnedOf(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, "c: {tunnel: gold, attach: {dc1: {interface: late0}, dc2: {interface: eth2}}}\n"))
	p.start()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "peerlate0"
	if err := p.ns.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "temporary"}); err != nil {
		t.Fatal(err)
	}
	address, err := netlink.ParseAddr("203.0.113.5/24")
	if err != nil {
		t.Fatal(err)
	}
	link := p.linkBy("temporary")
	if err := errors.Join(p.ns.Netlink().AddrAdd(link, address), p.ns.Netlink().LinkSetName(link, "late0")); err != nil {
		t.Fatal(err)
	}
	p.poll("it is warned of", func() error {
		for _, e := range p.told("pseudowire c") {
			if strings.HasPrefix(e, "warning interface late0 has an IP address") {
				return nil
			}
		}
		return fmt.Errorf("told %q", p.told("pseudowire c"))
	})
	p.do(func() { _ = p.a.attach(p.a.wires["c"]) })
	if told := strings.Join(p.told("pseudowire c"), "\n"); strings.Count(told, "has an IP address") != 1 {
		t.Errorf("told %s", told)
	}
}

// The status tells of addresses that come after an interface was taken, for a pseudowire or as a port of a bridge, as long
// as they are there; one of the host's other interfaces is nothing to tell.
func TestAddressesThatComeLaterAreTold(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, "c: {tunnel: gold, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n"))
	p.start()
	notes := func() (told []string) {
		for _, n := range p.status().Notes {
			if strings.Contains(n, "has an IP address") {
				told = append(told, n)
			}
		}
		return told
	}
	if told := notes(); len(told) > 0 {
		t.Errorf("told without one: %q", told)
	}
	p.ns.Link("eth1").Addr("203.0.113.1/24")
	p.ns.Link("eth2").Addr("203.0.113.2/24")
	p.ns.Link("eth3").Addr("203.0.113.3/24")
	if told := notes(); len(told) != 2 || !strings.HasPrefix(told[0], "interface eth2 of pseudowire c has") || !strings.Contains(told[1], "eth1 has an IP address, and is a port of bridge br-lan") {
		t.Errorf("told %q", told)
	}
	for _, name := range []string{"eth1", "eth2"} {
		if out, err := p.ns.Run(t.Context(), "ip", "address", "flush", "dev", name); err != nil {
			t.Fatal(err, out)
		}
	}
	if told := notes(); len(told) > 0 {
		t.Errorf("told of what has gone: %q", told)
	}
}

// Whatever happens to links that are none of ours calls for nothing, and a burst
// of events is one look.
func TestOthersLinksAreLeftAlone(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.looked()
	p.turns.reset(0)
	looks := 0
	p.do(func() {
		p.a.bridges = &countedBridges{p.a.bridges, &looks}
		for i := range 100 {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("other%d", i)
			if err := p.ns.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("rehto%d", i)}); err != nil {
				t.Error(err)
			}
		}
	})
	p.looked()
	if looks > 0 || len(p.turns.calls) > 0 {
		t.Errorf("%d looks at the bridges, calls %q", looks, p.turns.calls)
	}
}

// A device that a datapath has for a part of a pseudowire, as for a session that has taken another one's place, is
// the pseudowire's: what happens to it has the pseudowire set again.
func TestDevicesOfPartsAreLookedAt(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	for _, alias := range []string{"a~0000002a", "a+gold+dc2", "a+gold+dc2~0000002a"} {
		p.looked()
		p.turns.reset(0)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "part"
		link := &netlink.Veth{LinkAttrs: attrs, PeerName: "trap"}
		if err := p.ns.Netlink().LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		if err := p.ns.Netlink().LinkSetAlias(link, "pwd:pseudowire:"+alias); err != nil {
			t.Fatal(err)
		}
		if err := p.ns.Netlink().LinkSetMTU(link, 1400); err != nil {
			t.Fatal(err)
		}
		p.poll(alias+" has the pseudowire set again", func() (err error) {
			p.do(func() {
				if !slices.ContainsFunc(p.turns.calls, func(call string) bool { return strings.HasPrefix(call, "set pseudowire a ") }) {
					err = fmt.Errorf("calls %q", p.turns.calls)
				}
			})
			return err
		})
		if err := p.ns.Netlink().LinkDel(link); err != nil {
			t.Fatal(err)
		}
	}
}

type countedBridges struct {
	circuits
	looks *int
}

func (b *countedBridges) Refresh() error { *b.looks++; return b.circuits.Refresh() }

// linkMessage is what the kernel says of a link.
func linkMessage(kind nl.HeaderType, family uint8, name string, master uint32) nl.Message {
	data := make([]byte, unix.SizeofIfInfomsg)
	data[0] = family
	attrs := []nl.Attribute{{Type: unix.IFLA_IFNAME, Data: append([]byte(name), 0)}}
	if master != 0 {
		attrs = append(attrs, nl.Attribute{Type: unix.IFLA_MASTER, Data: binary.NativeEndian.AppendUint32(nil, master)})
	}
	b, err := nl.MarshalAttributes(attrs)
	if err != nil {
		panic(err)
	}
	return nl.Message{Header: nl.Header{Type: kind}, Data: append(data, b...)}
}

// addressGone is a message of an address that goes, with those attributes.
func addressGone(attrs map[uint16]string) nl.Message {
	e := nl.NewAttributeEncoder()
	for _, kind := range slices.Sorted(maps.Keys(attrs)) {
		e.Bytes(kind, netip.MustParseAddr(attrs[kind]).AsSlice())
	}
	b, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return nl.Message{Header: nl.Header{Type: unix.RTM_DELADDR}, Data: append(make([]byte, unix.SizeofIfAddrmsg), b...)}
}

func TestNewsAreWhatConcernsUs(t *testing.T) {
	names := func(s ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range s {
			m[n] = true
		}
		return m
	}
	neighbour := func(family uint8) nl.Message {
		return nl.Message{Header: nl.Header{Type: unix.RTM_NEWNEIGH}, Data: []byte{family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	}
	for _, tt := range []struct {
		name     string
		messages []nl.Message
		want     news
	}{
		{"nothing", nil, news{}},
		{"a link comes", []nl.Message{linkMessage(unix.RTM_NEWLINK, 0, "a", 0)}, news{links: names("a"), underlay: true}},
		{"a port changes", []nl.Message{linkMessage(unix.RTM_NEWLINK, 0, "a", 5)}, news{links: names("a"), ports: true, underlay: true}},
		{"a link goes", []nl.Message{linkMessage(unix.RTM_DELLINK, 0, "a", 0)}, news{links: names("a"), gone: names("a"), underlay: true}},
		{"a port leaves its bridge", []nl.Message{linkMessage(unix.RTM_DELLINK, unix.AF_BRIDGE, "a", 5)}, news{links: names("a"), ports: true, underlay: true}},
		{"a neighbour is resolved", []nl.Message{neighbour(unix.AF_INET)}, news{underlay: true}},
		{"a bridge learns", []nl.Message{neighbour(unix.AF_BRIDGE)}, news{}},
		{"a route", []nl.Message{{Header: nl.Header{Type: unix.RTM_NEWROUTE}, Data: make([]byte, 12)}}, news{underlay: true, ways: ways{routes: map[netip.Prefix]bool{netip.MustParsePrefix("0.0.0.0/0"): true}}}},
		{"a rule for routes", []nl.Message{{Header: nl.Header{Type: unix.RTM_NEWRULE}, Data: make([]byte, 12)}}, news{underlay: true, ways: ways{others: true}}},
		{"an address goes", []nl.Message{addressGone(map[uint16]string{unix.IFA_ADDRESS: "192.0.2.2", unix.IFA_LOCAL: "192.0.2.2"})},
			news{underlay: true, ways: ways{left: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.2"): true}}}},
		{"that of a link with a peer goes", []nl.Message{addressGone(map[uint16]string{unix.IFA_ADDRESS: "192.0.2.1", unix.IFA_LOCAL: "192.0.2.2"})},
			news{underlay: true, ways: ways{left: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.2"): true}}}},
		{"one of IPv6 goes", []nl.Message{addressGone(map[uint16]string{unix.IFA_ADDRESS: "2001:db8::2"})},
			news{underlay: true, ways: ways{left: map[netip.Addr]bool{netip.MustParseAddr("2001:db8::2"): true}}}},
		{"no address goes", []nl.Message{{Header: nl.Header{Type: unix.RTM_DELADDR}, Data: []byte{2}}}, news{underlay: true}},
		{"a filter goes", []nl.Message{{Header: nl.Header{Type: unix.RTM_DELTFILTER}, Data: make([]byte, 20)}}, news{underlay: true, attached: true}},
		{"nonsense", []nl.Message{{Header: nl.Header{Type: unix.RTM_NEWLINK}, Data: []byte{1, 2}}, {Header: nl.Header{Type: unix.RTM_NEWLINK}}}, news{underlay: true, attached: true}},
	} {
		var got news
		for _, m := range tt.messages {
			got.add(m)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(news{}, ways{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(news{}, "seen")); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

// Only what a session received since the last look is a sign of life; counters can
// be older than the daemon, and can begin anew.
func TestReceivedDataIsLife(t *testing.T) {
	dc1, _ := pair(t, docA)
	id := dc1.sessionIDs()["a"]
	begin := time.Now().Add(time.Hour)
	for i, s := range []struct {
		received uint64
		life     bool
	}{{1000, false}, {1000, false}, {1001, true}, {1001, false}, {0, false}, {5, true}, {5, false}, {3, true}} {
		now := begin.Add(time.Duration(i) * time.Second)
		dc1.kernel.mu.Lock()
		dc1.kernel.received[id] = s.received
		dc1.kernel.mu.Unlock()
		dc1.do(func() {
			if i == 0 {
				clear(dc1.a.heard)
			}
			dc1.a.listen(now)
			if heard := dc1.a.control.Connections()[0].Heard.Equal(now); heard != s.life {
				t.Errorf("%d: %d frames received: a sign of life %v, want %v", i, s.received, heard, s.life)
			}
		})
	}
}

func TestTimesAreGivenAsPeopleDo(t *testing.T) {
	now := time.Date(2026, 3, 5, 14, 0, 0, 0, time.UTC)
	for want, at := range map[string]time.Time{
		"13:59:01":            now.Add(-59 * time.Second),
		"2026-03-04 23:00:00": now.Add(-15 * time.Hour),
		"2025-03-05 14:00:00": now.AddDate(-1, 0, 0),
	} {
		if got := clock(now, at); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}

func TestTunnelsSayWhatTheyWaitFor(t *testing.T) {
	silent := time.Now()
	for _, tt := range []struct {
		tunnel tunnel
		want   string
	}{
		{tunnel{}, "not opened yet"},
		{tunnel{state: control.ConnectionWaitReply, silent: silent, reason: "waiting for dc2"}, "no answer from [2001:db8::2]:1701 since " + silent.Format("15:04:05")},
		{tunnel{state: control.ConnectionIdle, silent: silent, reason: "no answer: SCCRQ was sent 11 times"}, "no answer from [2001:db8::2]:1701 since " + silent.Format("15:04:05")},
		{tunnel{state: control.ConnectionIdle, reason: "the peer sent StopCCN"}, "the peer sent StopCCN"},
		{tunnel{state: control.ConnectionEstablished, reason: "SCCRP received"}, ""},
	} {
		tt.tunnel.Tunnel = topology.Tunnel{Name: "gold", Remote: netip.MustParseAddr("2001:db8::2")}
		if got := tt.tunnel.why(); got != tt.want {
			t.Errorf("%v, %q: %q, want %q", tt.tunnel.state, tt.tunnel.reason, got, tt.want)
		}
	}
}
