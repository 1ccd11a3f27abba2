//go:build vm

package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/bundle"
	"github.com/pwd-project/pwd/pkg/qos"
	"github.com/pwd-project/pwd/pkg/steer"
	"github.com/pwd-project/pwd/test/steermodel"
)

// Frames leave over that tunnel of the kernel's L2TP which the rules say, whole and in order, and
// are counted there and in the tunnel's class; the program says the same when it is asked. While
// rules change, and tunnels go down and come back, none is lost.
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
	var shaper *qos.Manager
	if err := a.lcce.Do(func() (err error) {
		if shaper, err = qos.Open(nil, ""); err != nil {
			return err
		}
		classes := []qos.Class{{Number: 5, Rate: 100e6}, {Number: 6, Rate: 100e6}, {Number: 7, Rate: 100e6}}
		return shaper.Set([]qos.Interface{{Index: a.wan.Index, Classes: classes}})
	}); err != nil {
		t.Fatal(err)
	}
	defer shaper.Close()
	pw := pseudowire.Pseudowire{Name: "spread", Device: "pw-spread", Several: true}
	a.must("set pseudowire", func(dp pseudowire.Datapath) error { return dp.SetPseudowire(pw) })
	names := []string{}
	const first = 0x7000
	var all []pseudowire.Session
	for i, x := range tunnels {
		names = append(names, x.Name)
		s := pseudowire.Session{Tunnel: x.Name, Pseudowire: pw.Name, LocalID: first + uint32(i), RemoteID: first + uint32(i), Transmit: true, Priority: qos.Handle(uint16(5 + i))}
		a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(s) })
		all = append(all, s)
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
	var inClass map[uint16]qos.Counters
	if err := a.lcce.Do(func() (err error) { inClass, err = shaper.Counters(a.wan.Index); return err }); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		if got := inClass[uint16(5+i)].Frames; got != sent[first+i] {
			t.Errorf("class %d counts %d packets, %d were sent over session %#x", 5+i, got, sent[first+i], first+i)
		}
		if got := counters[first+i].TransmittedFrames; got != sent[first+i] || got == 0 {
			t.Errorf("session %#x counts %d frames, %d were sent", first+i, got, sent[first+i])
		}
	}
	steerAbout(ctx, t, a, b, pw, all)
}

// steerAbout sends numbered frames while rules change and tunnels go down and come back, and wants
// each to leave once.
func steerAbout(ctx context.Context, t *testing.T, a, b *site, pw pseudowire.Pseudowire, sessions []pseudowire.Session) {
	t.Helper()
	const count = 500
	c, err := b.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return sessionOf(f.Data)&^3 == sessions[0].LocalID && binary.BigEndian.Uint16(f.Data[frameAt+12:]) == 0x88b5
	}})
	if err != nil {
		t.Fatal(err)
	}
	device, done := a.lcce.Link(pw.Device), make(chan error, 1)
	go func() {
		var err error
		for i := range count {
			f := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, byte(i >> 8), byte(i)}, make([]byte, 48)...)
			err = errors.Join(err, device.Send(f))
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		done <- err
	}()
	for i := range 12 {
		s := sessions[i%len(sessions)]
		pw.Steer = &pseudowire.Steer{Tunnels: pw.Steer.Tunnels, Rules: []steer.Rule{{Tunnels: []string{s.Tunnel}}}}
		a.must("set rules", func(dp pseudowire.Datapath) error { return dp.SetPseudowire(pw) })
		for _, on := range []bool{false, true} {
			s.Transmit = on
			a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(s) })
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitCount(ctx, count); err != nil {
		t.Error(err)
	}
	packets, err := c.Stop()
	seen, over := map[string]bool{}, map[uint32]bool{}
	for _, p := range packets {
		seen[string(p.Data[frameAt:])], over[sessionOf(p.Data)] = true, true
	}
	if err != nil || len(packets) != count || len(seen) != count || len(over) < 2 {
		t.Errorf("of %d frames %d left, %d different ones, over %d sessions, %v", count, len(packets), len(seen), len(over), err)
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
