package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// kernel stands for a datapath that makes a device for each session: one end of a veth pair,
// whose other end is the peer's.
type kernel struct {
	pseudowire.Datapath
	b           *bench
	pseudowires map[string]pseudowire.Pseudowire
	sessions    map[uint32]pseudowire.Session
}

func (*kernel) Kind() pseudowire.Kind { return pseudowire.Kernel }

func (*kernel) Abilities() pseudowire.Abilities   { return pseudowire.Abilities{} }
func (*kernel) SetTunnel(pseudowire.Tunnel) error { return nil }
func (*kernel) Prune() error                      { return nil }
func (*kernel) Close() error                      { return nil }
func (*kernel) Cleanup() error                    { return nil }
func (*kernel) Refresh() error                    { return nil }
func (*kernel) Repairs() []drift.Repair           { return nil }
func (*kernel) Heed(func(string) bool)            {}
func (*kernel) Global() (map[string]uint64, error) {
	return map[string]uint64{pseudowire.DropNotTransmit: 1}, nil
}
func (k *kernel) SetPseudowire(p pseudowire.Pseudowire) error {
	k.pseudowires[p.Name] = p
	return nil
}

func (k *kernel) RemovePseudowires(names ...string) error {
	for id, s := range k.sessions {
		if slices.Contains(names, s.Pseudowire) {
			if err := k.RemoveSession(id); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		delete(k.pseudowires, name)
	}
	return nil
}

func (k *kernel) RemoveTunnel(name string) error {
	for id, s := range k.sessions {
		if s.Tunnel == name {
			if err := k.RemoveSession(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *kernel) SetSession(s pseudowire.Session) error {
	p, known := k.pseudowires[s.Pseudowire]
	if !known {
		return fmt.Errorf("pseudowire %s is not set", s.Pseudowire)
	}
	for id, old := range k.sessions {
		switch {
		case old.Pseudowire != s.Pseudowire:
		case id == s.LocalID && old.RemoteID == s.RemoteID:
			k.sessions[id] = s
			return nil
		default:
			if err := k.RemoveSession(id); err != nil {
				return err
			}
		}
	}
	mine, far := k.b.lab.Veth(k.b.ns, p.Device, k.b.hosts, fmt.Sprintf("far%d", s.LocalID))
	k.b.far[s.LocalID] = far.Silent().Up()
	mine.Silent().Up()
	k.sessions[s.LocalID] = s
	return k.b.lab.Err()
}

func (k *kernel) RemoveSession(id uint32) error {
	if far := k.b.far[id]; far != nil {
		far.Delete()
	}
	delete(k.b.far, id)
	delete(k.sessions, id)
	return k.b.lab.Err()
}

// bench is a pseudowire's device in a bridge, and what is on either side.
//
//	lan ─ bridge ─ pw-x ┬ far1
//	                    └ far2
type bench struct {
	t         *testing.T
	lab       *netlab.Lab
	ns, hosts *netlab.Namespace
	lan       *netlab.Link
	far       map[uint32]*netlab.Link
	below     *kernel
	d         *Datapath
	serial    byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, lab: netlab.New(t), far: map[uint32]*netlab.Link{}}
	b.ns, b.hosts = b.lab.Namespace("site"), b.lab.Namespace("others")
	port, lan := b.lab.Veth(b.ns, "port", b.hosts, "lan")
	b.ns.Bridge("br0", port.Silent().Up()).Silent()
	b.lan = lan.Silent().Up()
	b.below = &kernel{b: b, pseudowires: map[string]pseudowire.Pseudowire{}, sessions: map[uint32]pseudowire.Session{}}
	b.open()
	return b
}

// open is a new process, of which all is set that there is. That of before has ended, the kernel's sessions with it.
func (b *bench) open() {
	b.t.Helper()
	for id := range b.below.sessions {
		b.must(b.below.RemoveSession(id))
	}
	clear(b.below.pseudowires)
	b.do(func() (err error) { b.d, err = Wrap(b.below, Options{}); return err })
	b.d.settled = true
	d := b.d
	b.t.Cleanup(func() { d.Close() })
}

// restart is a new process beside which the kernel's sessions went on.
func (b *bench) restart() {
	b.t.Helper()
	b.must(b.d.Close())
	b.do(func() (err error) { b.d, err = Wrap(b.below, Options{}); return err })
	d := b.d
	b.t.Cleanup(func() { d.Close() })
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) do(f func() error) {
	b.t.Helper()
	b.must(b.ns.Do(f))
}

func (b *bench) pseudowire(several bool) {
	b.t.Helper()
	b.do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x", Several: several})
	})
}

func (b *bench) session(id uint32, tunnel string, transmit bool) {
	b.t.Helper()
	b.do(func() error {
		return b.d.SetSession(pseudowire.Session{Pseudowire: "x", Tunnel: tunnel, LocalID: id, RemoteID: id, Transmit: transmit})
	})
}

// attach puts the device into the bridge, as one that has just been made.
func (b *bench) attach() {
	b.t.Helper()
	b.ns.Link("pw-x").Master(b.ns.Link("br0")).Up()
	b.must(b.lab.Err())
}

// carrier waits for the device to have one, or not.
func (b *bench) carrier(want bool) {
	b.t.Helper()
	b.must(b.ns.WaitLink(b.within(), "pw-x", fmt.Sprintf("has a carrier: %v", want), func(l netlink.Link) bool {
		return l != nil && (l.Attrs().OperState == netlink.OperUp) == want
	}))
}

func (b *bench) within() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bench) frame() []byte {
	b.serial++
	return slices.Concat(bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 1, 0x88, 0xb5, b.serial}, make([]byte, 49))
}

// ours keeps a test's frames: the bridges of tests speak, too.
func ours(f *netlab.Frame) bool { return len(f.Data) > 14 && f.Data[12] == 0x88 && f.Data[13] == 0xb5 }

// passes wants a frame from the LAN to come out of one session and of no other, and one from
// each session to reach the LAN.
func (b *bench) passes(sends uint32) {
	b.t.Helper()
	captures := map[uint32]*netlab.Capture{}
	for id, far := range b.far {
		c, err := far.Capture(netlab.CaptureOptions{Keep: ours})
		b.must(err)
		captures[id] = c
	}
	out := b.frame()
	b.must(b.lan.Send(out))
	if _, err := captures[sends].WaitCount(b.within(), 1); err != nil {
		b.t.Error(err)
	}
	for id, c := range captures {
		frames, err := c.Stop()
		b.must(err)
		for _, f := range frames {
			if id != sends || !bytes.Equal(f.Data, out) {
				b.t.Errorf("session %d sent % x", id, f.Data)
			}
		}
	}
	for id, far := range b.far {
		c, err := b.lan.Capture(netlab.CaptureOptions{Keep: ours})
		b.must(err)
		in := b.frame()
		b.must(far.Send(in))
		if _, err := c.WaitCount(b.within(), 1); err != nil {
			b.t.Errorf("from session %d: %v", id, err)
		}
		frames, err := c.Stop()
		b.must(err)
		if len(frames) != 1 || !bytes.Equal(frames[0].Data, in) {
			b.t.Errorf("from session %d came %d frames", id, len(frames))
		}
	}
}

// Of several sessions one sends and all receive; the device stays while they come, change
// and go, and has a carrier as long as one sends.
func TestOneSends(t *testing.T) {
	b := newBench(t)
	b.pseudowire(true)
	b.attach()
	b.carrier(false)
	index := b.ns.Link("pw-x").Index
	b.session(1, "gold/dc2", true)
	b.session(2, "silver/dc2", false)
	b.carrier(true)
	b.passes(1)
	// Over to the other one, first on there, then off here.
	b.session(2, "silver/dc2", true)
	b.passes(2)
	b.session(1, "gold/dc2", false)
	b.passes(2)
	// A session in a tunnel takes the place of that before.
	b.session(3, "gold/dc2", true)
	b.passes(3)
	b.do(func() error { return b.d.RemoveSession(3) })
	b.passes(2)
	// The tunnel's session is made anew, under the daemon's feet.
	b.do(func() error { return b.d.SetTunnel(pseudowire.Tunnel{Name: "silver/dc2"}) })
	b.passes(2)
	b.pseudowire(true)
	b.passes(2)
	b.do(func() error { return b.d.RemoveTunnel("silver/dc2") })
	b.carrier(false)
	if now := b.ns.Link("pw-x").Index; now != index {
		t.Errorf("the device was made anew: %d, it was %d", now, index)
	}
	b.do(func() error { return b.d.RemovePseudowires("x") })
	b.nothing()
}

// nothing wants no device of the pseudowire's to be left.
func (b *bench) nothing() {
	b.t.Helper()
	links, err := b.ns.Links()
	b.must(err)
	if slices.ContainsFunc(links, func(name string) bool { return name[:2] == "pw" }) {
		b.t.Errorf("left are %q", links)
	}
}

// What others change is put back, and told.
func TestDrift(t *testing.T) {
	b := newBench(t)
	b.pseudowire(true)
	b.attach()
	b.session(1, "gold", true)
	b.session(2, "silver", false)
	b.carrier(true)
	b.do(b.d.Refresh)
	w := b.d.wires["x"]
	for _, device := range []string{"pwo-x", w.below("gold").Device} {
		b.detach(device)
	}
	b.do(b.d.Refresh)
	b.passes(1)
	b.ns.Link("pwo-x").Down()
	b.do(b.d.Refresh)
	b.carrier(true)
	b.passes(1)
	if r := b.d.Repairs(); len(r) != 3 {
		t.Errorf("repairs %+v", r)
	}
	// The datapath below has made a session's device anew.
	b.must(b.below.RemoveSession(1))
	b.do(func() error {
		return b.below.SetSession(pseudowire.Session{Pseudowire: w.below("gold").Name, Tunnel: "gold", LocalID: 1, RemoteID: 1})
	})
	b.do(b.d.Refresh)
	b.passes(1)
	// A restart goes on with what is there until all sessions are.
	b.restart()
	b.pseudowire(true)
	b.passes(1)
	b.session(1, "gold", true)
	b.do(b.d.Prune)
	b.passes(1)
	// Without one that is used there is no carrier.
	b.restart()
	b.pseudowire(true)
	b.do(b.d.Prune)
	b.carrier(false)
}

// detach takes what is attached off a device.
func (b *bench) detach(device string) {
	b.t.Helper()
	l, err := b.ns.Netlink().LinkByName(device)
	b.must(err)
	filters, err := b.ns.Netlink().FilterList(l, netlink.HANDLE_MIN_INGRESS)
	b.must(err)
	for _, f := range filters {
		b.must(b.ns.Netlink().FilterDel(f))
	}
}

// That the program was put back is told where it was: not while nothing carries.
func TestDriftWithoutCarrier(t *testing.T) {
	b := newBench(t)
	b.pseudowire(true)
	b.attach()
	b.session(1, "gold", true)
	b.do(b.d.Prune)
	b.session(1, "gold", false)
	b.carrier(false)
	b.detach("pwo-x")
	b.do(b.d.Refresh)
	if r := b.d.Repairs(); len(r) != 0 {
		t.Errorf("repairs %+v", r)
	}
	b.session(1, "gold", true)
	b.carrier(true)
	b.passes(1)
}

// While frames go from one session to the other, and back, none is lost or doubled.
func TestSwitchWithoutLoss(t *testing.T) {
	b := newBench(t)
	b.pseudowire(true)
	b.attach()
	b.session(1, "gold", true)
	b.session(2, "silver", false)
	b.carrier(true)
	// Both are one LAN at the far end.
	addr := "198.51.100.2"
	b.hosts.Bridge("peer", b.far[1], b.far[2]).Silent().Addr(addr + "/24").Up()
	const count = 2000
	c, err := b.hosts.Link("peer").Capture(netlab.CaptureOptions{Keep: ours})
	b.must(err)
	done := make(chan error, 1)
	go func() {
		for i := range count {
			f := append(slices.Concat(bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 1, 0x88, 0xb5, byte(i >> 8), byte(i)}), make([]byte, 48)...)
			if err := b.lan.Send(f); err != nil {
				done <- err
				return
			}
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		done <- nil
	}()
	for range 10 {
		b.session(2, "silver", true)
		b.session(1, "gold", false)
		b.session(1, "gold", true)
		b.session(2, "silver", false)
	}
	b.must(<-done)
	if _, err := c.WaitCount(b.within(), count); err != nil {
		t.Error(err)
	}
	frames, err := c.Stop()
	b.must(err)
	seen := map[string]bool{}
	for _, f := range frames {
		seen[string(f.Data)] = true
	}
	if len(frames) != count || len(seen) != count {
		t.Errorf("%d frames sent, %d came, %d different ones", count, len(frames), len(seen))
	}
}

// A pseudowire gets a second tunnel, and loses it again: its session stays, its device is
// another one. What an earlier process left is taken over, or removed.
func TestSeveralComeAndGo(t *testing.T) {
	b := newBench(t)
	b.pseudowire(false)
	b.session(1, "gold", true)
	b.attach()
	b.passes(1)
	b.pseudowire(true)
	b.attach()
	b.session(2, "silver", false)
	b.carrier(true)
	b.passes(1)
	b.do(func() error { return b.d.RemoveSession(2) })
	b.pseudowire(false)
	b.attach()
	b.passes(1)
	b.pseudowire(true)
	index := b.ns.Link("pw-x").Index

	b.open()
	b.pseudowire(true)
	b.attach()
	b.session(4, "gold", true)
	b.carrier(true)
	b.passes(4)
	if now := b.ns.Link("pw-x").Index; now != index {
		t.Errorf("the device was made anew: %d, it was %d", now, index)
	}
	b.open()
	b.d.settled = false // what an earlier process left is there until Prune
	b.pseudowire(false)
	b.session(5, "gold", true)
	b.attach()
	b.passes(5)
	b.pseudowire(true)
	b.open()
	b.do(b.d.Prune)
	b.nothing()
	b.pseudowire(true)
	b.open()
	b.do(b.d.Cleanup)
	b.nothing()
}

// What the topology says of the path holds for every session's pseudowire.
func TestSessionsHaveTheMTUThatIsGiven(t *testing.T) {
	b := newBench(t)
	set := func(mtu int) {
		b.do(func() error {
			return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x", Several: true, MTU: mtu, IgnoreICMP: mtu != 0})
		})
		for name, p := range b.below.pseudowires {
			if p.MTU != mtu || p.IgnoreICMP != (mtu != 0) {
				t.Errorf("MTU %d: %s has %d, does not heed routers: %v", mtu, name, p.MTU, p.IgnoreICMP)
			}
		}
	}
	set(1400)
	b.session(1, "gold", true)
	b.session(2, "silver", false)
	for _, mtu := range []int{1400, 0, 1300} {
		set(mtu)
	}
	if n := len(b.below.pseudowires); n != 2 {
		t.Errorf("%d pseudowires, want one for each session", n)
	}
}

// A device that is somebody else's is left alone, and said to be.
func TestForeignDevice(t *testing.T) {
	b := newBench(t)
	b.lab.Veth(b.ns, "pw-x", b.hosts, "theirs")
	b.must(b.lab.Err())
	err := b.ns.Do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x", Several: true})
	})
	if e := new(Error); !errors.As(err, &e) || e.Pseudowire != "x" {
		t.Errorf("%v", err)
	}
	if _, err := b.ns.Netlink().LinkByName("pw-x"); err != nil {
		t.Error(err)
	}
}
