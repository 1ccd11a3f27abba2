package agent

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// What the topology wants of a pseudowire and its tunnel is signalled, and reaches
// the datapath of both ends.
func TestServiceReachesTheDatapath(t *testing.T) {
	dc1, dc2 := places(t)
	doc := "classes: {voice: {dscp: ef}}\n" + topo("gold: {sites: [dc1, dc2], class: voice}\n",
		`a: {tunnel: gold, type: ethernet-vlan, sequencing: all, agi: 9, mtu: 1400, attach: {dc1: {bridge: br-lan, vlan: 7}, dc2: {bridge: br-lan, vlan: 8}}}`)
	for _, p := range []*place{dc1, dc2} {
		p.can = everything
		p.write(doc)
		p.start()
	}
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
		for _, s := range p.kernel.copySessions() {
			if s.DSCP != 46 || s.ReceiveSequencing != l2tpv3.SequencingAll || s.TransmitSequencing != l2tpv3.SequencingAll ||
				s.ReceiveSublayer != l2tpv3.SublayerDefault || s.TransmitSublayer != l2tpv3.SublayerDefault {
				t.Errorf("%s: session %+v", p.site, s)
			}
		}
		p.do(func() {
			vlan := map[string]uint16{"dc1": 7, "dc2": 8}[p.site]
			if w := p.kernel.pseudowires["a"]; w.VLAN != vlan || !w.KeepTag || w.MTU != 1400 {
				t.Errorf("%s: pseudowire %+v", p.site, w)
			}
			for _, tn := range p.kernel.tunnels {
				if !tn.ECN {
					t.Errorf("%s: tunnel %+v", p.site, tn)
				}
			}
		})
		if classes, err := p.a.Classes(t.Context()); err != nil || len(classes) != 1 || classes[0].DSCP != 46 {
			t.Errorf("%s: classes %+v, %v", p.site, classes, err)
		}
	}
}

// Congestion marks are passed on by tunnels that may, and all of whose pseudowires can.
func TestECNIsAnnouncedWhereAllCan(t *testing.T) {
	p := lone(t)
	p.can = everything
	p.start()
	for _, tt := range []struct {
		tunnels, pseudowires string
		want                 bool
	}{
		{gold, "", true},
		{gold, wireTo("a", "gold", 7), true},
		{"gold: {sites: [dc1, dc2], ecn: false}\n", wireTo("a", "gold", 7), false},
		{gold, wireTo("a", "gold", 7) + "b: {tunnel: gold, datapath: kernel, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n", false},
		{gold + "silver: {sites: [dc1, dc2]}\n", wireTo("a", "gold", 7) + "b: {tunnel: silver, datapath: kernel, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n", true},
	} {
		p.mustApply(topo(tt.tunnels, tt.pseudowires))
		p.do(func() {
			for _, c := range p.a.control.Connections() {
				if c.Tunnel.Name == "gold/dc2" && c.Tunnel.ECN != tt.want {
					t.Errorf("%s%s: announced %v", tt.tunnels, tt.pseudowires, c.Tunnel.ECN)
				}
			}
		})
	}
}

// What a datapath cannot is said, with what to do.
func TestWhatDatapathsCannot(t *testing.T) {
	p := lone(t)
	p.write(topo(gold+"whole: {sites: [dc1, dc2], df: true}\n", ""))
	p.start()
	with := func(change func(*wire)) *wire {
		w := &wire{Pseudowire: &topology.Pseudowire{Name: "a", Peer: "dc2", Tunnel: "gold/dc2", Type: l2tpv3.Ethernet}}
		change(w)
		return w
	}
	tagged := func(here, there uint16) func(*wire) {
		return func(w *wire) { w.Type, w.Attachment.VLAN, w.PeerVLAN = l2tpv3.EthernetVLAN, here, there }
	}
	for _, tt := range []struct {
		wire *wire
		want string // of the kernel's; the other one can
	}{
		{with(func(*wire) {}), ""},
		{with(func(w *wire) { w.Sequencing = l2tpv3.SequencingAll }), "look at sequence numbers: remove `sequencing:`, or use another `datapath:`"},
		{with(func(w *wire) { w.DSCP = 46 }), "set the DSCP of packets: remove `class:` of the tunnel, or use another `datapath:`"},
		{with(func(w *wire) { w.Tunnel = "whole/dc2" }), "keep packets from being fragmented: remove `df: true` of tunnel whole, or use `datapath: ebpf`"},
		{with(tagged(0, 0)), ""},
		{with(tagged(7, 7)), ""},
		{with(tagged(7, 8)), "give tags another number (VLAN 7 here, it is 8 at dc2): use one VLAN at both ends, `type: ethernet`, or `datapath: ebpf`"},
		{with(tagged(7, 0)), "give tags another number (VLAN 7 here, that of dc2 is not known): use one VLAN at both ends, `type: ethernet`, or `datapath: ebpf`"},
	} {
		p.do(func() {
			able := &fakeDatapath{kind: pseudowire.EBPF, can: everything}
			if err := p.a.able(tt.wire, able); err != nil {
				t.Errorf("%+v: %v", tt.wire.Pseudowire, err)
			}
			got := ""
			if err := p.a.able(tt.wire, &fakeDatapath{kind: pseudowire.Kernel, bare: true}); err != nil {
				got = strings.TrimPrefix(err.Error(), "the kernel datapath of this host cannot ")
			}
			if got != tt.want {
				t.Errorf("%+v: %s", tt.wire.Pseudowire, got)
			}
		})
	}
}

// A site whose address changes calls; the other one waits for it, and says so.
func TestDynamicSite(t *testing.T) {
	dc1, dc2 := places(t)
	doc := strings.Replace(topo("gold: {sites: [dc1, dc2], secret-file: gold.secret, hello: 1s}\n", wireTo("a", "gold", 7)), "address: 192.0.2.2", "address: dynamic", 1)
	for _, p := range []*place{dc1, dc2} {
		p.secret("gold.secret", "shared")
		p.write(doc)
	}
	dc1.start()
	st := dc1.status()
	if len(st.Tunnels) != 1 || st.Tunnels[0].Reason != "waiting for dc2 to call" || st.Tunnels[0].Remote != "any address" {
		t.Errorf("tunnels %+v", st.Tunnels)
	}
	if want := "is pwd running at dc2, has it the same secret, and does UDP port 1701 get through from there to 192.0.2.1?"; st.Problems[0].Fix != want {
		t.Errorf("advice %q", st.Problems[0].Fix)
	}
	dc2.start()
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	if st := dc2.status(); !strings.HasPrefix(st.Tunnels[0].Local, "192.0.2.2:") || st.Tunnels[0].Remote != "192.0.2.1:1701" {
		t.Errorf("tunnels %+v", st.Tunnels)
	}
	nl := dc2.ns.Netlink()
	underlay := dc2.linkBy("eth0")
	for _, change := range []struct {
		what    string
		address string
	}{{"new", "192.0.2.22/24"}, {"again", "192.0.2.23/24"}} {
		old, err := nl.AddrList(underlay, netlink.FAMILY_V4)
		if err != nil || len(old) != 1 {
			t.Fatal(old, err)
		}
		next, err := netlink.ParseAddr(change.address)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(nl.AddrDel(underlay, &old[0]), nl.AddrAdd(underlay, next)); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*place{dc1, dc2} {
			p.await("the tunnel has gone over to the "+change.what+" address", func(a *Agent) error {
				v := a.tunnelViews(a.counters())[0]
				if at := v.Local + " " + v.Remote; v.State != "established" || !strings.Contains(at, next.IP.String()) {
					return fmt.Errorf("%s, %s: %s", v.State, at, v.Reason)
				}
				return nil
			})
			p.awaitUp()
		}
	}
}

// Two sites that are foreign to each other, as others' routers are, come together by
// their host names and end IDs, and under whichever numbers they call.
func TestForeignPeer(t *testing.T) {
	for _, numbers := range []l2tpv3.Numbers{l2tpv3.StandardNumbers, l2tpv3.CiscoNumbers} {
		t.Run(numbers.String(), func(t *testing.T) { testForeignPeer(t, numbers) })
	}
}

func testForeignPeer(t *testing.T, numbers l2tpv3.Numbers) {
	dc1, dc2 := places(t)
	const file = `apiVersion: pwd/v1
kind: Topology
metadata: {name: %[1]s}
sites:
  %[1]s: {address: %[2]s, bridges: {br-lan: {ports: [eth1]}}}
  box: {address: %[3]s, managed: false, host-name: %[4]s, numbers: %[10]v}
tunnels: {%[5]s: {sites: [%[1]s, box]}}
pseudowires:
  %[6]s:
    tunnel: %[5]s
    end-id: %[7]s
    attach:
      %[1]s: {bridge: br-lan}
      box: {end-id: %[8]s, cookie: %[9]d}
`
	dc1.write(fmt.Sprintf(file, "dc1", "192.0.2.1", "192.0.2.2", "theirs.dc2", "ours", "a", "1", "2", 4, numbers))
	dc2.write(fmt.Sprintf(file, "dc2", "192.0.2.2", "192.0.2.1", "ours.dc1", "theirs", "b", "2", "1", 0, numbers))
	dc1.start()
	if fix := dc1.status().Problems[0].Fix; !strings.HasPrefix(fix, "is box set up as docs/interop.md says, and does UDP port 1701 get through to 192.0.2.2?") {
		t.Errorf("advice %q", fix)
	}
	dc2.start()
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	if v, _ := dc1.a.Tunnels(t.Context()); len(v) != 1 || (v[0].PeerNumbers == "cisco") != (numbers == l2tpv3.CiscoNumbers) {
		t.Errorf("tunnels %+v", v)
	}
	for _, s := range dc1.kernel.copySessions() {
		if len(s.LocalCookie) != 4 || len(s.RemoteCookie) != 0 {
			t.Errorf("session %+v", s)
		}
	}
	// Nothing runs at a foreign site.
	dc1.shut()
	dc1.opt.Site, dc1.opt.StateDir = "box", filepath.Join(t.TempDir(), "state")
	if err := dc1.try(); err == nil || !strings.Contains(err.Error(), "site box is foreign") {
		t.Errorf("start at a foreign site: %v", err)
	}
}

// A cookie is replaced without another session, and both are accepted until the
// peer sends the new one; who cannot is said.
func TestCookiesAreRotated(t *testing.T) {
	dc1, dc2 := places(t)
	doc := topo(gold+"iron: {sites: [dc1, dc2]}\n", wireTo("a", "gold", 7)+
		"bare: {tunnel: gold, cookie: 0, attach: {dc1: {bridge: br-lan, vlan: 8}, dc2: {bridge: br-lan, vlan: 8}}}\n"+
		"l2tp: {tunnel: iron, datapath: kernel, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n")
	for _, p := range []*place{dc1, dc2} {
		p.can = everything
		p.write(doc)
		p.start()
	}
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	id := dc1.sessionIDs()["a"]
	before := dc1.kernel.copySessions()[id]
	got, err := dc1.a.RotateCookies(t.Context(), api.RotateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Rotation{
		{Pseudowire: "a", Peer: "dc2", Result: "done"},
		{Pseudowire: "bare", Peer: "dc2", Result: "failed", Reason: "it has no cookie (`cookie: 0`)"},
		{Pseudowire: "l2tp", Peer: "dc2", Result: "failed", Reason: "its datapath cannot change a cookie under way"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	after := dc1.kernel.copySessions()[id]
	if bytes.Equal(after.LocalCookie, before.LocalCookie) || !bytes.Equal(after.PreviousCookie, before.LocalCookie) {
		t.Errorf("session %+v before, %+v after", before, after)
	}
	theirs := dc2.kernel.copySessions()[dc2.sessionIDs()["a"]]
	if !bytes.Equal(theirs.RemoteCookie, after.LocalCookie) || !bytes.Equal(theirs.LocalCookie, before.RemoteCookie) {
		t.Errorf("the peer's session %+v, ours %+v", theirs, after)
	}
	again, err := dc1.a.RotateCookies(t.Context(), api.RotateRequest{Pseudowires: []string{"a"}})
	if err != nil || len(again) != 1 || again[0].Reason != "it is being changed already: try again in some seconds" {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := dc1.a.RotateCookies(t.Context(), api.RotateRequest{Pseudowires: []string{"a", "none"}}); err == nil {
		t.Error("a pseudowire that is not there has another cookie")
	}
}

// Where a datapath cannot change a cookie another session takes the place of one; the pseudowire
// is up all along, and a daemon that ends on the way goes on.
func TestSessionsAreSucceeded(t *testing.T) {
	dc1, dc2 := places(t)
	doc := topo(gold, wireTo("a", "gold", 7))
	for _, p := range []*place{dc1, dc2} {
		p.can = func(a *pseudowire.Abilities) { a.Succeeds = true }
		p.write(doc)
		p.start()
	}
	for _, p := range []*place{dc1, dc2} {
		p.awaitUp()
	}
	was := dc1.sessionIDs()["a"]
	before := dc1.kernel.copySessions()[was]
	got, err := dc1.a.RotateCookies(t.Context(), api.RotateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.Rotation{{Pseudowire: "a", Peer: "dc2", Result: "done"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	check := func() {
		t.Helper()
		is := dc1.sessionIDs()["a"]
		all := dc1.kernel.copySessions()
		after, old := all[is], all[was]
		if is == was || bytes.Equal(after.LocalCookie, before.LocalCookie) || bytes.Equal(after.RemoteCookie, before.RemoteCookie) ||
			!after.Transmit || after.Beside != 0 || old.Transmit || old.Beside != is || !bytes.Equal(old.LocalCookie, before.LocalCookie) {
			t.Errorf("before %+v; after %+v, beside it %+v", before, after, old)
		}
		theirs := dc2.kernel.copySessions()[dc2.sessionIDs()["a"]]
		if theirs.RemoteID != is || !bytes.Equal(theirs.RemoteCookie, after.LocalCookie) || !bytes.Equal(theirs.LocalCookie, after.RemoteCookie) {
			t.Errorf("the peer's session %+v, ours %+v", theirs, after)
		}
	}
	check()
	dc1.shut()
	dc1.start()
	dc1.awaitUp()
	check()
}

// Whether data has UDP checksums, and whether it may be fragmented, changes under a
// session, which stays.
func TestTunnelChangesLive(t *testing.T) {
	dc1, dc2 := places(t)
	doc := func(also string) string {
		return topo("gold: {sites: [dc1, dc2]"+also+"}\n", wireTo("a", "gold", 7)+
			"b: {tunnel: gold, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n")
	}
	for _, p := range []*place{dc1, dc2} {
		p.can = everything
		p.write(doc(""))
		p.start()
	}
	dc1.awaitUp()
	dc2.awaitUp()
	sessions := func() []api.Session {
		all, err := dc1.a.Sessions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := sessions()
	for _, tt := range []struct {
		also         string
		checksum, df bool
	}{
		{"", false, false}, {", udp-checksum: on", true, false}, {", udp-checksum: off, df: true", false, true},
		{", udp-checksum: on, df: true", true, true}, {", df: false", false, false},
	} {
		dc1.mustApply(doc(tt.also))
		dc1.do(func() {
			for kind, dp := range dc1.a.datapaths {
				got := dp.(*fakeDatapath).kernel.tunnels["gold/dc2"]
				if got.Checksum != tt.checksum || got.DF != tt.df {
					t.Errorf("%s: the %s datapath was told %v and %v", tt.also, kind, got.Checksum, got.DF)
				}
			}
		})
		after := sessions()
		for i := range before {
			if len(after) != len(before) || after[i].LocalSessionID != before[i].LocalSessionID || after[i].State != before[i].State {
				t.Errorf("%s: sessions %+v, before %+v", tt.also, after, before)
			}
		}
	}
}

// What the path to the peer takes is shown, as it changes, and then looked at.
func TestPathMTUIsShown(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.write(topo(gold, wireTo("a", "gold", 7)))
		p.start()
	}
	dc1.awaitUp()
	nl := dc1.ns.Netlink()
	underlay, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var want, told []string
	for i, mtu := range []int{1500, 1400, 1600} {
		if err := nl.LinkSetMTU(underlay, mtu); err != nil {
			t.Fatal(err)
		}
		dc1.await("the tunnel shows the path's MTU", func(a *Agent) error {
			if v := a.tunnelViews(a.counters())[0]; v.PathMTU != mtu {
				return fmt.Errorf("it is %d, want %d", v.PathMTU, mtu)
			}
			return nil
		})
		dc1.do(func() {
			probe := &dc1.a.tunnels["gold/dc2"].probe
			probe.next = time.Now().Add(time.Hour)
			dc1.a.lookAtPaths()
			if i > 0 && !probe.next.IsZero() {
				t.Error("whether it carries that is not looked at")
			}
		})
		dc1.do(dc1.a.lookAtPaths) // nothing is new
		if i > 0 {
			want = append(want, fmt.Sprintf("path MTU is %d", mtu))
		}
	}
	err = dc1.a.Events(t.Context(), 0, false, func(e api.Event) error {
		if strings.HasPrefix(e.Message, "path MTU") {
			told = append(told, e.Message)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
