//go:build vm

package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/bundle"
	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/test/steermodel"
)

// Frames leave over that tunnel of the kernel's L2TP which the rules say, whole and in order, and
// are counted there; the program says the same when it is asked.
func TestKernelSteering(t *testing.T) {
	a, b := twoSites(t, plain)
	below := a.dp
	if err := a.lcce.Do(func() (err error) { a.dp, err = bundle.Wrap(below, bundle.Options{}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.do(func(dp pseudowire.Datapath) error { return dp.Cleanup() }); err != nil {
			t.Error(err)
		}
	})
	tunnels := []pseudowire.Tunnel{a.tunnel, a.tunnel, a.tunnel}
	for i := range tunnels[1:] {
		x := &tunnels[i+1]
		x.Name, x.LocalID, x.RemoteID = []string{"t/second", "t/third"}[i], uint32(33+i), uint32(44+i)
		a.connect(x, b, l2tpv3.UDP, 0)
		a.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(*x) })
	}
	pw := pseudowire.Pseudowire{Name: "spread", Device: "pw-spread", Several: true}
	a.must("set pseudowire", func(dp pseudowire.Datapath) error { return dp.SetPseudowire(pw) })
	names := []string{}
	const first = 0x7000
	for i, x := range tunnels {
		names = append(names, x.Name)
		s := pseudowire.Session{Tunnel: x.Name, Pseudowire: pw.Name, LocalID: first + uint32(i), RemoteID: first + uint32(i), Transmit: true}
		a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(s) })
	}
	a.must("prune", func(dp pseudowire.Datapath) error { return dp.Prune() })
	device := a.lcce.Link(pw.Device)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r := rand.New(rand.NewPCG(5, 6))
	sent := map[uint32]uint64{}
	for range 12 {
		rules := steermodel.MakeRules(r, names)
		pw.Steer = &pseudowire.Steer{Tunnels: names, Rules: rules}
		a.must("set rules", func(dp pseudowire.Datapath) error { return dp.SetPseudowire(pw) })
		c, err := b.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { id := sessionOf(f.Data); return id >= first && id < first+3 }})
		if err != nil {
			t.Fatal(err)
		}
		var want []steermodel.Frame
		var sessions []uint32
		for range 40 {
			f := steermodel.MakeFrame(r, 0, false)
			var got pseudowire.Classified
			a.must("classify", func(dp pseudowire.Datapath) (err error) {
				got, err = dp.(pseudowire.Classifier).Classify(pw.Name, pseudowire.Frame{Octets: f.Octets})
				return err
			})
			rule, may := slices.IndexFunc(rules, func(r steer.Rule) bool { return f.Matches(&r.Match) }), names[2:]
			if rule >= 0 {
				may = rules[rule].Tunnels
			}
			if got.Rule != rule || !slices.Contains(may, got.Tunnel) || names[got.Session-first] != got.Tunnel {
				t.Errorf("frame %x: %+v; it is %+v, rule %d (tunnels %v)", f.Octets, got, f, rule, may)
			}
			want, sessions = append(want, f), append(sessions, got.Session)
			sent[got.Session]++
			if err := device.Send(f.Octets); err != nil {
				t.Fatal(err)
			}
		}
		packets, err := c.WaitCount(ctx, len(want))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range want {
			if p := packets[i].Data; sessionOf(p) != sessions[i] || !bytes.Equal(p[frameAt:], f.Octets) {
				t.Errorf("frame %d, %x, for session %#x: %x", i, f.Octets, sessions[i], p)
			}
		}
		if _, err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	var counters map[uint32]pseudowire.Counters
	a.must("counters", func(dp pseudowire.Datapath) (err error) { counters, err = dp.Counters(); return err })
	for i := range uint32(3) {
		if got := counters[first+i].TransmittedFrames; got != sent[first+i] || got == 0 {
			t.Errorf("session %#x counts %d frames, %d were sent", first+i, got, sent[first+i])
		}
	}
}

// frameAt is where the frame is in a packet over UDP and IPv4 without a cookie, as on the wire.
const frameAt = 14 + 20 + 8 + 8

// sessionOf is the session ID of such a packet, 0 of others.
func sessionOf(b []byte) uint32 {
	if len(b) < frameAt || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[14+9] != 17 {
		return 0
	}
	return binary.BigEndian.Uint32(b[frameAt-4:])
}
