package succession

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/suppress"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
)

// kernel stands for a datapath that makes a device for each session: one end of a veth pair,
// whose other end is the peer's. Its sessions outlive a process.
type kernel struct {
	pseudowire.Datapath
	b           *bench
	pseudowires map[string]pseudowire.Pseudowire
	sessions    map[uint32]pseudowire.Session
	// refuses is the session that cannot be made.
	refuses uint32
	// unready are sessions whose devices came up without what is to be there first.
	unready []uint32
	strays  drift.Log
	// disturbed is what one of this process's requests has done to sessions that were there: made
	// them deaf, or their device go down.
	disturbed []string
}

func (*kernel) Kind() pseudowire.Kind             { return pseudowire.Kernel }
func (*kernel) Abilities() pseudowire.Abilities   { return pseudowire.Abilities{} }
func (*kernel) SetTunnel(pseudowire.Tunnel) error { return nil }
func (*kernel) Prune() error                      { return nil }
func (*kernel) Close() error                      { return nil }
func (*kernel) Refresh() error                    { return nil }
func (k *kernel) Repairs() []drift.Repair         { return k.strays.Repairs() }
func (k *kernel) Heed(held func(string) bool)     { k.strays.Heed(held) }

func (k *kernel) Counters() (map[uint32]pseudowire.Counters, error) {
	all := map[uint32]pseudowire.Counters{}
	for id := range k.sessions {
		all[id] = pseudowire.Counters{}
	}
	return all, nil
}

func (k *kernel) SessionBehind(name string) (pseudowire.Session, bool, error) {
	for _, s := range k.sessions {
		if s.Pseudowire == name {
			return s, true, nil
		}
	}
	return pseudowire.Session{}, false, nil
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
	switch {
	case !known:
		return fmt.Errorf("pseudowire %s is not set", s.Pseudowire)
	case s.Beside != 0:
		return fmt.Errorf("session %d is beside another one", s.LocalID)
	case s.LocalID == k.refuses:
		return errors.New("refused by the test")
	}
	for id, old := range k.sessions {
		switch {
		case old.Pseudowire != s.Pseudowire:
		case id == s.LocalID && old.RemoteID == s.RemoteID:
			if s.Deaf && !old.Deaf || old.Transmit && !s.Transmit {
				k.disturbed = append(k.disturbed, fmt.Sprintf("session %d: deaf %v, transmit %v", id, s.Deaf, s.Transmit))
			}
			k.sessions[id] = s
			return k.up(id, p.Device)
		default:
			if err := k.RemoveSession(id); err != nil {
				return err
			}
		}
	}
	mine, far := k.b.lab.Veth(k.b.ns, p.Device, k.b.hosts, fmt.Sprintf("far%d", s.LocalID))
	k.b.far[s.LocalID] = far.Silent().Up()
	k.sessions[s.LocalID] = s
	// The qdisc is there before the device carries anything, as package mssclamp has it.
	l, err := k.b.ns.Netlink().LinkByName(p.Device)
	if err == nil {
		_, err = tcfilter.Claim(k.b.ns.Netlink(), l.Attrs().Index, arrival)
	}
	mine.Silent()
	if !p.StayDown {
		err = errors.Join(err, k.up(s.LocalID, p.Device))
	}
	return errors.Join(err, k.b.lab.Err())
}

// up has a session's device be up. That of one beside another is to have its program then.
func (k *kernel) up(id uint32, device string) error {
	nl := k.b.ns.Netlink()
	l, err := nl.LinkByName(device)
	if err != nil || l.Attrs().Flags&net.FlagUp != 0 {
		return err
	}
	there, err := tcfilter.Attached(nl, l, arrival)
	if !there && strings.HasPrefix(device, "pwr-") {
		k.unready = append(k.unready, id)
	}
	err = errors.Join(err, nl.LinkSetUp(l))
	// What is sent before is lost.
	k.b.far[id].Operational()
	k.b.ns.Link(device).Operational()
	return errors.Join(err, k.b.lab.Err())
}

// remake is what the kernel's datapath does with a session that somebody has deleted, or whose tunnel is made anew.
func (k *kernel) remake(id uint32) error {
	s := k.sessions[id]
	return errors.Join(k.RemoveSession(id), k.SetSession(s))
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
//	lan ─ bridge ─ pw-x ─ far1
//	                 ║
//	               pwr-… ─ far2
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

// newBench has session 1, whose device is in the bridge.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, lab: netlab.New(t), far: map[uint32]*netlab.Link{}}
	b.ns, b.hosts = b.lab.Namespace("site"), b.lab.Namespace("others")
	port, lan := b.lab.Veth(b.ns, "port", b.hosts, "lan")
	b.ns.Bridge("br0", port.Silent().Up()).Silent()
	b.lan = lan.Silent().Up()
	b.below = &kernel{b: b, pseudowires: map[string]pseudowire.Pseudowire{}, sessions: map[uint32]pseudowire.Session{}}
	b.open()
	b.must(b.d.Prune())
	b.pseudowire("pw-x")
	b.session(1, 0, true)
	b.ns.Link("pw-x").Master(b.ns.Link("br0")).Up()
	b.must(b.lab.Err())
	return b
}

// open is a new process: devices, sessions and programs are as they were.
func (b *bench) open() {
	b.t.Helper()
	if b.d != nil {
		b.must(b.d.Close())
	}
	clear(b.below.pseudowires)
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

func (b *bench) pseudowire(device string) {
	b.t.Helper()
	b.do(func() error { return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: device}) })
}

func made(id, beside uint32, transmit bool) pseudowire.Session {
	return pseudowire.Session{Pseudowire: "x", Tunnel: "gold", LocalID: id, RemoteID: id, Transmit: transmit, Beside: beside}
}

func (b *bench) session(id, beside uint32, transmit bool) {
	b.t.Helper()
	b.do(func() error { return b.d.SetSession(made(id, beside, transmit)) })
}

func (b *bench) remove(id uint32) {
	b.t.Helper()
	b.do(func() error { return b.d.RemoveSession(id) })
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
// each session that is not deaf to reach the LAN, once, by the device that it has had all along.
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
		if b.below.sessions[id].Deaf {
			continue
		}
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

// holds wants the sessions that there are, and which of them is deaf, 0 for none; and counters of the others.
func (b *bench) holds(deaf uint32, ids ...uint32) {
	b.t.Helper()
	counters, err := b.d.Counters()
	b.must(err)
	for _, id := range ids {
		s, there := b.below.sessions[id]
		if _, counted := counters[id]; !there || s.Deaf != (id == deaf) || counted == (id == deaf) {
			b.t.Errorf("session %d: there %v, deaf %v, counted %v", id, there, s.Deaf, counted)
		}
	}
	if len(b.below.sessions) != len(ids) {
		b.t.Errorf("there are %d sessions, not %v", len(b.below.sessions), ids)
	}
}

// succeed has a session take another one's place, as far as that is to get: 1 is both receive, 2
// is the new one sends, 3 is the old one is over.
func (b *bench) succeed(was, is uint32, far int) {
	b.t.Helper()
	b.session(is, was, false)
	if far > 1 {
		b.session(is, 0, true)
		b.session(was, is, false)
	}
	if far > 2 {
		b.remove(was)
	}
}

// The device stays, in its bridge, whatever session carries; what went before is deaf, or gone.
func TestSuccession(t *testing.T) {
	b := newBench(t)
	index := b.ns.Link("pw-x").Index
	b.passes(1)
	b.succeed(1, 2, 1)
	b.passes(1)
	b.holds(0, 1, 2)
	b.session(2, 0, true)
	b.session(1, 2, false)
	b.passes(2)
	b.holds(0, 1, 2)
	b.remove(1)
	b.passes(2)
	b.holds(1, 1, 2)
	b.succeed(2, 3, 2)
	b.passes(3)
	b.holds(1, 1, 2, 3)
	b.remove(2)
	b.passes(3)
	b.holds(1, 1, 3)
	// The peer's circuit goes, and comes back.
	b.session(3, 0, false)
	if b.below.sessions[1].Transmit {
		t.Error("the device is up while nothing sends")
	}
	b.session(3, 0, true)
	b.passes(3)
	b.pseudowire("pw-x")
	b.do(func() error { return b.d.SetTunnel(pseudowire.Tunnel{Name: "gold"}) })
	b.passes(3)
	if now := b.ns.Link("pw-x").Index; now != index {
		t.Errorf("the device was made anew: %d, it was %d", now, index)
	}
	b.remove(3)
	b.holds(0)
	b.nothing()
}

// Frames of both directions are all there, once and in order, while one session after the other takes
// the place of the one before. The far ends are ports that do not speak to each other, so
// that what comes by any of them comes to one host.
func TestSuccessionLosesNothing(t *testing.T) {
	b := newBench(t)
	far := b.hosts.Bridge("far").Silent()
	here, there := b.lab.Namespace("here"), b.lab.Namespace("there")
	port, nic := b.lab.Veth(b.hosts, "there", there, "eth0")
	port.Silent().Master(far).Up()
	nic.Silent().Addr("198.51.100.2/24").Up()
	b.hosts.Bridge("near", b.lan).Silent()
	port, nic = b.lab.Veth(b.hosts, "here", here, "eth0")
	port.Silent().Master(b.hosts.Link("near")).Up()
	nic.Silent().Addr("198.51.100.1/24").Up()
	joined := func(id uint32) {
		b.far[id].Master(far)
		l, err := b.hosts.Netlink().LinkByName(fmt.Sprintf("far%d", id))
		b.must(err)
		b.must(b.hosts.Netlink().LinkSetIsolated(l, true))
	}
	joined(1)
	b.must(b.lab.Err())
	out, err := here.Flow(there, netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: 10_000, Size: 200})
	b.must(err)
	in, err := there.Flow(here, netip.MustParseAddr("198.51.100.1"), netlab.FlowOptions{Rate: 10_000, Size: 200})
	b.must(err)
	await := func() {
		b.must(out.WaitReceived(b.within(), 200))
		b.must(in.WaitReceived(b.within(), 200))
	}
	await()
	for was := uint32(1); was <= 10; was++ {
		is := was + 1
		b.session(is, was, false)
		joined(is)
		await()
		b.session(is, 0, true)
		b.session(was, is, false)
		await() // the bridge has learned that the way back is by the new one, too
		if was == 5 {
			b.open() // a daemon that was killed
			b.pseudowire("pw-x")
			b.session(is, 0, true)
			b.session(was, is, false)
			b.must(b.d.Prune())
			await()
		}
		b.remove(was)
		await()
	}
	for _, f := range []*netlab.Flow{out, in} {
		r, err := f.Stop()
		if err != nil || r.Lost()+r.Duplicated+r.Damaged+r.Reordered > 0 {
			t.Errorf("%v, %v", r, err)
		} else {
			t.Log(r)
		}
	}
}

// A peer that does not come along is left as it is.
func TestNoSuccession(t *testing.T) {
	b := newBench(t)
	b.succeed(1, 2, 1)
	b.remove(2)
	b.passes(1)
	b.holds(0, 1)
	b.below.refuses = 3
	if err := b.ns.Do(func() error { return b.d.SetSession(made(3, 1, false)) }); err == nil {
		t.Error("a session that the kernel refuses")
	}
	numbered := made(4, 1, false)
	numbered.ReceiveSublayer, numbered.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	if err := b.ns.Do(func() error { return b.d.SetSession(numbered) }); !errors.Is(err, ErrSublayer) {
		t.Errorf("a session with a sublayer: %v", err)
	}
	b.remove(3)
	b.remove(4)
	b.passes(1)
	b.holds(0, 1)
	// Even when it has begun to send.
	b.succeed(1, 2, 2)
	b.session(1, 0, true)
	b.session(2, 1, false)
	b.passes(1)
	b.holds(0, 1, 2)
	b.remove(2)
	b.passes(1)
	b.holds(0, 1)
}

// A process that ends at any step is followed by one that goes on, whether what it had done was
// noted or not.
func TestRestart(t *testing.T) {
	for far := 1; far <= 3; far++ {
		for noted := 0; noted <= far; noted++ {
			t.Run(fmt.Sprintf("done %d, noted %d", far, noted), func(t *testing.T) {
				b := newBench(t)
				index := b.ns.Link("pw-x").Index
				b.succeed(1, 2, far)
				b.open()
				b.pseudowire("pw-x")
				sends := uint32(1)
				b.below.disturbed = nil
				switch noted {
				case 0:
					b.session(1, 0, true)
				case 1:
					b.session(1, 0, true)
					b.session(2, 1, false)
				case 2:
					b.session(2, 0, true)
					b.session(1, 2, false)
					sends = 2
				case 3:
					b.session(2, 0, true)
					sends = 2
				}
				// Until all is set that is wanted, nobody knows what is not: the peer may send by it.
				if len(b.below.disturbed) > 0 {
					t.Errorf("before Prune: %v", b.below.disturbed)
				}
				if noted == 0 { // Prune of the datapath below
					b.must(b.below.RemoveSession(2))
				}
				b.must(b.d.Prune())
				b.passes(sends)
				deaf := uint32(0)
				if noted == 3 {
					deaf = 1
				}
				if noted == 0 {
					b.holds(0, 1)
				} else {
					b.holds(deaf, 1, 2)
				}
				if now := b.ns.Link("pw-x").Index; now != index {
					t.Errorf("the device was made anew: %d, it was %d", now, index)
				}
				b.do(func() error { return b.d.RemoveTunnel("gold") })
				b.nothing()
			})
		}
	}
}

// What other layers take from a device that they have nothing at, after a restart, is their own: frames
// go on leaving by the session that carries before that is set again.
func TestOtherProgramsGo(t *testing.T) {
	b := newBench(t)
	b.succeed(1, 2, 3)
	b.open()
	b.do(func() error {
		quiet, err := suppress.Wrap(b.d, suppress.Options{})
		if err != nil {
			return err
		}
		t.Cleanup(func() { quiet.Close() })
		return quiet.SetPseudowire(pseudowire.Pseudowire{Name: "x", Device: "pw-x"})
	})
	b.passes(2)
}

// A new session that stands beside none takes the device, as ever.
func TestTakesOver(t *testing.T) {
	b := newBench(t)
	b.succeed(1, 2, 2)
	b.session(3, 0, true)
	b.holds(0, 3)
	b.succeed(3, 4, 3)
	b.pseudowire("pw-y")
	b.holds(0, 4)
	b.do(func() error { return b.d.RemovePseudowires("x") })
	b.nothing()
}

// Programs that others detach are attached again, and that is told.
func TestDrift(t *testing.T) {
	for what, look := range map[string]func(b *bench) func() error{
		"all": func(b *bench) func() error { return b.d.Refresh },
		"the pseudowire": func(b *bench) func() error {
			return func() error { return b.d.SetPseudowire(b.d.wires["x"].Pseudowire) }
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			b.succeed(1, 2, 3)
			for device, f := range map[string]tcfilter.Filter{"pw-x": departure, deviceOf(2): arrival} {
				nl := b.ns.Netlink()
				l, err := nl.LinkByName(device)
				b.must(err)
				b.must(tcfilter.Detach(nl, l, f))
			}
			b.do(look(b))
			if told := b.d.Repairs(); len(told) == 0 || !strings.Contains(told[0].Found, "was detached") {
				t.Errorf("told: %+v", told)
			}
			b.passes(2)
			b.do(look(b))
			if told := b.d.Repairs(); len(told) != 0 {
				t.Errorf("told for nothing: %+v", told)
			}
		})
	}
}

// What is found of the device of a session beside the first is told of the pseudowire, and left alone as that is.
func TestPartsAreTheirPseudowires(t *testing.T) {
	b := newBench(t)
	b.succeed(1, 2, 3)
	var asked []string
	b.d.Heed(func(thing string) bool { asked = append(asked, thing); return true })
	part := "pseudowire x~00000002"
	b.below.strays.Add(part, "pwr-00000002 was taken down", "brought up again", nil)
	if !b.below.strays.Held(part) || !slices.Equal(asked, []string{"pseudowire x"}) {
		t.Errorf("asked for %q", asked)
	}
	if told := b.d.Repairs(); len(told) != 1 || told[0].Object != "pseudowire x" || told[0].Thing != "pseudowire x" {
		t.Errorf("told %+v", told)
	}
}

// A device of a session beside the first takes nothing before it goes where it is to, whether it is made for the first time or
// again.
func TestDevicesAreReadyBeforeTheyAreUp(t *testing.T) {
	b := newBench(t)
	b.succeed(1, 2, 3)
	b.passes(2)
	b.do(func() error { return b.below.remake(2) })
	b.do(b.d.Refresh)
	b.passes(2)
	b.do(func() error { return b.below.remake(2) })
	b.do(func() error { return b.d.SetTunnel(pseudowire.Tunnel{Name: "gold"}) })
	b.passes(2)
	if len(b.below.unready) > 0 {
		t.Errorf("up too early: %v", b.below.unready)
	}
}

// nothing wants no device of the pseudowire's to be left.
func (b *bench) nothing() {
	b.t.Helper()
	links, err := b.ns.Netlink().LinkList()
	b.must(err)
	if i := slices.IndexFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "pw") }); i >= 0 {
		b.t.Errorf("left is %s", links[i].Attrs().Name)
	}
	if len(b.below.pseudowires) > 1 {
		b.t.Errorf("the datapath has %v", b.below.pseudowires)
	}
}
