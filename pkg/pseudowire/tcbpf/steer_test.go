package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/test/steermodel"
)

// steered is a site with three tunnels to its peer: gold, silver and lead.
func steered(t testing.TB, set setting, rules []steer.Rule, change func(*pseudowire.Pseudowire)) (*site, *tap) {
	t.Helper()
	var b *site
	b, far := upAgainstTap(t, set, func(s *site) {
		s.session.Priority = 0x10001
		s.session.DSCP = 46
	})
	b.do(func() {
		for i, name := range []string{"silver/peer", "lead/peer"} {
			tun, s := b.tunnel, b.session
			tun.Name, s.Tunnel = name, name
			tun.LocalID, tun.RemoteID = tun.LocalID+uint32(i)+1, tun.RemoteID+uint32(i)+1
			tun.Local = netip.AddrPortFrom(tun.Local.Addr(), tun.Local.Port())
			tun.Remote = netip.AddrPortFrom(tun.Remote.Addr(), uint16(40001+i))
			s.LocalID, s.RemoteID = s.LocalID+0x100*uint32(i+1), s.RemoteID+0x100*uint32(i+1)
			s.DSCP, s.Priority = uint8(10*(i+1)), uint32(0x10002+i)
			must(t, b.dp.SetTunnel(tun))
			must(t, b.dp.SetSession(s))
		}
		b.pw.Several, b.pw.Steer = true, &pseudowire.Steer{Tunnels: []string{tunnelName, "silver/peer", "lead/peer"}, Rules: rules}
		if change != nil {
			change(&b.pw)
		}
		must(t, b.dp.SetPseudowire(b.pw))
	})
	return b, far
}

// What the program makes of thousands of frames is what the rules say: those that match and
// those that nearly do, with two tags, options, extension headers, of fragments, cut off.
func TestSteerByRules(t *testing.T) {
	r := newRand()
	for _, set := range []struct {
		name string
		pop  int
		keep bool
	}{{"a whole port", 0, false}, {"a VLAN that is taken off", 5, false}, {"a VLAN that stays on", 5, true}} {
		t.Run(set.name, func(t *testing.T) {
			s, _ := steered(t, setting{cookie: 8}, nil, func(p *pseudowire.Pseudowire) { p.VLAN, p.KeepTag = uint16(set.pop), set.keep })
			tunnels := s.pw.Steer.Tunnels
			hits, taken := map[int]int{}, map[string]int{}
			for range 60 {
				rules := steermodel.MakeRules(r, tunnels)
				s.pw.Steer = &pseudowire.Steer{Tunnels: tunnels, Rules: rules}
				s.do(func() { must(t, s.dp.SetPseudowire(s.pw)) })
				for range 60 {
					f := steermodel.MakeFrame(r, set.pop, set.keep)
					checkSteered(t, s, &f, rules, hits, taken)
				}
			}
			if hits[-1] == 0 || hits[0] == 0 || len(hits) < 6 || len(taken) != 3 {
				t.Errorf("how often each rule: %v, each tunnel: %v", hits, taken)
			}
		})
	}
}

func checkSteered(t *testing.T, s *site, f *steermodel.Frame, rules []steer.Rule, hits map[int]int, taken map[string]int) {
	t.Helper()
	want := slices.IndexFunc(rules, func(r steer.Rule) bool { return f.Matches(&r.Match) })
	tunnels := s.pw.Steer.Tunnels[2:]
	if want >= 0 {
		tunnels = rules[want].Tunnels
	}
	var got pseudowire.Classified
	var err error
	s.do(func() { got, err = s.dp.Classify(pseudowireName, pseudowire.Frame{Octets: f.Octets}) })
	if err != nil {
		t.Fatalf("%x: %v", f.Octets, err)
	}
	if got.Rule != want || !slices.Contains(tunnels, got.Tunnel) || got.Dropped != "" {
		t.Errorf("frame %x: %+v\nit is %+v\nrule %d (tunnels %v) of %v", f.Octets, got, f, want, tunnels, rules)
	}
	marks := map[string][2]uint32{tunnelName: {46, 0x10001}, "silver/peer": {10, 0x10002}, "lead/peer": {20, 0x10003}}
	if m := marks[got.Tunnel]; uint32(got.DSCP) != m[0] || got.Priority != m[1] {
		t.Errorf("over %s with DSCP %d and priority %#x", got.Tunnel, got.DSCP, got.Priority)
	}
	hits[got.Rule]++
	taken[got.Tunnel]++
}

// sessionOf is the session ID of an outer packet over UDP, of the first fragment of one too.
func sessionOf(b []byte) uint32 { return binary.BigEndian.Uint32(b[14+20+8+4:]) }

// Frames leave over the session that their rule names, whole ones and those in fragments, over
// the bridge and cross-connected; one that goes down is stood in for by the next.
func TestSteerOnTheWire(t *testing.T) {
	for _, crossed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crossed %v", crossed), func(t *testing.T) {
			rules := []steer.Rule{{Tunnels: []string{tunnelName}, Match: steer.Match{PCP: []uint8{5}}}, {Tunnels: []string{"silver/peer"}, Match: steer.Match{EtherTypes: []uint16{0x88b5}}}}
			a, far := steered(t, setting{cookie: 8, tagRoom: 16, mtu: 1400, crossed: crossed}, rules, nil)
			in := openPort(t, a.host, "eth0")
			expect := func(what string, frame []byte, session uint32, packets int) {
				t.Helper()
				in.send(frame)
				for i := range packets {
					got := far.outer()
					if got == nil {
						t.Fatalf("%s: packet %d does not come", what, i)
					}
					if fragmented := binary.BigEndian.Uint16(got[14+6:])&0x1fff != 0; !fragmented && sessionOf(got) != session {
						t.Errorf("%s: session %#x, not %#x", what, sessionOf(got), session)
					}
				}
			}
			gold := a.session.RemoteID
			silver, lead := gold+0x100, gold+0x200
			frame := func(n int, tags []byte, ethertype uint16) []byte {
				b := append([]byte{2, 0x70, 0x77, 0x64, 0, 2}, station[:]...)
				b = binary.BigEndian.AppendUint16(append(b, tags...), ethertype)
				return append(b, bytes.Repeat([]byte{0x5a}, n)...)
			}
			pcp5 := []byte{0x81, 0, 0xa0, 7}
			all := func(suffix string, first, second, third uint32) {
				t.Helper()
				for _, n := range []int{60, 1480} {
					expect("rule 1"+suffix, frame(n, pcp5, 0x88b6), first, 1+n/1000)
					expect("rule 2"+suffix, frame(n, nil, 0x88b5), second, 1+n/1000)
					expect("no rule"+suffix, frame(n, nil, 0x88b6), third, 1+n/1000)
				}
			}
			all("", gold, silver, lead)
			setTransmit := func(tunnel string, on bool) {
				t.Helper()
				a.do(func() {
					for _, s := range a.dp.sessions {
						if s.Tunnel == tunnel {
							next := s.Session
							next.Transmit = on
							must(t, a.dp.SetSession(next))
							return
						}
					}
				})
			}
			setTransmit("silver/peer", false)
			all(" while silver is down", gold, lead, lead)
			setTransmit("lead/peer", false)
			all(" while silver and lead are down", gold, gold, gold)
			setTransmit("lead/peer", true)
			setTransmit("silver/peer", true)
			// A flow that is under way goes over in its first pause.
			expect("a flow under way", frame(60, nil, 0x88b5), gold, 1)
			expect("a flow under way", frame(60, nil, 0x88b5), gold, 1)
			time.Sleep(2 * flowPause)
			expect("a flow after a pause", frame(60, nil, 0x88b5), silver, 1)
			expect("a flow after a pause", frame(60, nil, 0x88b5), silver, 1)
		})
	}
}

// flowPause is FLOW_PAUSE of steer.h.
const flowPause = 200 * time.Millisecond
