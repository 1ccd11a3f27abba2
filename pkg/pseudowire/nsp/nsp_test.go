package nsp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// bare is a datapath whose devices are there already.
type bare struct {
	pseudowire.Datapath
	kind pseudowire.Kind
	// stuck is the error of Prune.
	stuck error
}

func (bare) Abilities() pseudowire.Abilities           { return pseudowire.Abilities{} }
func (b bare) Kind() pseudowire.Kind                   { return b.kind }
func (bare) SetPseudowire(pseudowire.Pseudowire) error { return nil }
func (bare) RemovePseudowires(...string) error         { return nil }
func (bare) SetSession(pseudowire.Session) error       { return nil }
func (bare) RemoveSession(uint32) error                { return nil }
func (bare) Close() error                              { return nil }
func (b bare) Prune() error                            { return b.stuck }
func (bare) Cleanup() error                            { return nil }
func (bare) Counters() (map[uint32]pseudowire.Counters, error) {
	return map[uint32]pseudowire.Counters{7: {TransmittedFrames: 1}, 8: {}}, nil
}

// bench is a device in a bridge, and hosts on either side.
//
//	lan ─ bridge ─ pw-lan ─ far
type bench struct {
	t        *testing.T
	lab      *netlab.Lab
	ns       *netlab.Namespace
	hosts    *netlab.Namespace
	lan, far *netlab.Link
	d        *Datapath
	bpfDir   string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	lab := netlab.New(t)
	b := &bench{t: t, lab: lab, ns: lab.Namespace("one"), hosts: lab.Namespace("two")}
	hosts := b.hosts
	device, far := lab.Veth(b.ns, "pw-lan", hosts, "far")
	port, lan := lab.Veth(b.ns, "port", hosts, "lan")
	b.ns.Bridge("br0", device.Silent(), port.Silent()).Silent()
	device.Up()
	port.Up()
	b.far, b.lan = far.Silent().Up(), lan.Silent().Up()
	bpffs := t.TempDir()
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bpffs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b.bpfDir = filepath.Join(bpffs, "pwd")
	b.open()
	return b
}

// second is another pseudowire's device, in no bridge, and its far end.
func (b *bench) second() *netlab.Link {
	b.t.Helper()
	device, far := b.lab.Veth(b.ns, "pw-two", b.hosts, "far2")
	device.Silent().Up()
	b.do(func() error { return b.d.SetSession(pseudowire.Session{Pseudowire: "two", LocalID: 8, Transmit: true}) })
	return far.Silent().Up()
}

// open is a new process.
func (b *bench) open() {
	b.t.Helper()
	if err := b.ns.Do(func() (err error) {
		b.d, err = Wrap(bare{kind: pseudowire.EBPF}, Options{BPFDir: b.bpfDir})
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	d := b.d
	b.t.Cleanup(func() { d.Close() })
	b.do(func() error { return b.d.SetSession(pseudowire.Session{Pseudowire: "lan", LocalID: 7, Transmit: true}) })
}

func (b *bench) do(f func() error) {
	b.t.Helper()
	if err := b.ns.Do(f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) set(s pseudowire.Service) {
	b.t.Helper()
	b.do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", Service: s})
	})
}

// filters is how many of ours are at the device.
func (b *bench) filters() int {
	b.t.Helper()
	n := 0
	link, err := b.ns.Netlink().LinkByName("pw-lan")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		list, err := b.ns.Netlink().FilterList(link, parent)
		if err != nil {
			continue // no qdisc
		}
		for _, f := range list {
			if f.Attrs().Priority == tcfilter.PriorityService {
				n++
			}
		}
	}
	return n
}

func (b *bench) drops() map[string]uint64 {
	b.t.Helper()
	var all map[uint32]pseudowire.Counters
	b.do(func() (err error) { all, err = b.d.Counters(); return err })
	return all[7].Drops
}

var (
	here      = []byte{2, 0, 0, 0, 0, 1}
	there     = []byte{2, 0, 0, 0, 0, 2}
	broadcast = bytes.Repeat([]byte{0xff}, 6)
	multicast = []byte{1, 0, 0x5e, 0, 0, 1}
	unknown   = []byte{2, 0, 0, 0, 0, 9}
)

func frame(to, from []byte, payload ...byte) []byte {
	return slices.Concat(to, from, []byte{0x88, 0xb5}, payload, make([]byte, 46))
}

// A device has programs for as long as its pseudowire has a service, also over the end of
// the process.
func TestPrograms(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{Broadcast: 10}}
	b.set(pseudowire.Service{})
	if n := b.filters(); n != 0 {
		t.Errorf("%d programs without a service", n)
	}
	b.set(limited)
	if n := b.filters(); n != 2 {
		t.Errorf("%d programs with one", n)
	}
	b.open()
	b.set(limited)
	if n := b.filters(); n != 2 {
		t.Errorf("%d programs after the process ended", n)
	}
	b.open()
	b.set(pseudowire.Service{})
	if n := b.filters(); n != 0 {
		t.Errorf("%d programs where the service went with the process", n)
	}
}

// A device that comes with the session gets its programs then, each time that it is made anew.
func TestDeviceComesWithSession(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{Broadcast: 10}}
	for range 2 {
		device, err := b.ns.Netlink().LinkByName("pw-lan")
		if err == nil {
			err = b.ns.Netlink().LinkDel(device)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.set(limited)
		b.lab.Veth(b.ns, "pw-lan", b.hosts, "far")
		b.do(func() error { return b.d.SetSession(pseudowire.Session{Pseudowire: "lan", LocalID: 7, Transmit: true}) })
		if n := b.filters(); n != 2 {
			t.Errorf("%d programs", n)
		}
	}
	b.set(pseudowire.Service{})
	if n := b.filters(); n != 0 {
		t.Errorf("%d programs without a service", n)
	}
}

// A pseudowire without a service costs no request, once it is known that an earlier process gave it none.
func TestNothingIsAskedWithoutAService(t *testing.T) {
	b := newBench(t)
	b.set(pseudowire.Service{})
	before := b.d.devices.Asked()
	b.set(pseudowire.Service{})
	b.do(func() error { return b.d.SetSession(pseudowire.Session{Pseudowire: "lan", LocalID: 7, Transmit: true}) })
	if n := b.d.devices.Asked() - before; n != 0 {
		t.Errorf("%d devices were looked up", n)
	}
}

func TestInvalid(t *testing.T) {
	for _, s := range []pseudowire.Service{
		{Push: true}, {Untagged: true}, {Filter: true, Inner: 5}, {Filter: true, VLANs: "1-2", Rewrite: true},
		{Filter: true, VLANs: "1", Inner: 4095}, {Filter: true, VLANs: "1", Push: true, Rewrite: true},
	} {
		if check(&s) == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	if s := (pseudowire.Service{Filter: true, VLANs: vlan.Of(vlan.Range{First: 7, Last: 7}), Push: true, Inner: 8}); check(&s) != nil {
		t.Errorf("%+v is refused", s)
	}
}

// storm sends n frames from one link to the other and how many came, once the last one
// has, which no limit is for.
func (b *bench) storm(from, to *netlab.Link, n int, f, last []byte) (passed int, took time.Duration) {
	b.t.Helper()
	c, err := to.Capture(netlab.CaptureOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Stop()
	begin := time.Now()
	for range n / 100 {
		if err := from.Send(slices.Repeat([][]byte{f}, 100)...); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := from.Send(last); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	frames, err := c.Wait(ctx, "the last frame", func(frames []netlab.Frame) bool {
		return slices.ContainsFunc(frames, func(x netlab.Frame) bool { return bytes.HasPrefix(x.Data, last) })
	})
	took = time.Since(begin)
	if err != nil {
		b.t.Error(err)
	}
	for _, x := range frames {
		if bytes.HasPrefix(x.Data, f) {
			passed++
		}
	}
	return passed, took
}

// Of a storm as many frames pass as the limit allows for the time that it takes, and those
// of 100 ms; the others are counted; limits change while it goes on.
func TestStormControl(t *testing.T) {
	const n, limit = 2000, 200
	shared := newBench(t)
	for _, kind := range []struct {
		name    string
		f, last []byte
		limits  pseudowire.Limits
		reason  string
	}{
		{"broadcast", frame(broadcast, here), frame(multicast, here), pseudowire.Limits{Broadcast: limit}, pseudowire.DropBroadcast},
		{"multicast", frame(multicast, here), frame(broadcast, here), pseudowire.Limits{Multicast: limit}, pseudowire.DropMulticast},
		{"unknown unicast", frame(unknown, here), frame(broadcast, here), pseudowire.Limits{UnknownUnicast: limit}, pseudowire.DropUnknownUnicast},
	} {
		for _, way := range []struct {
			name     string
			from, to *netlab.Link
		}{{"into", shared.lan, shared.far}, {"out", shared.far, shared.lan}} {
			t.Run(kind.name+" "+way.name, func(t *testing.T) {
				b := *shared
				b.t = t
				b.set(pseudowire.Service{Limits: kind.limits})
				before := b.drops()[kind.reason]
				passed, took := b.storm(way.from, way.to, n, kind.f, kind.last)
				if most := int((took.Seconds()+0.1)*limit) + 2; passed < 10 || passed > most {
					t.Errorf("%d of %d frames passed in %v, want 10 to %d", passed, n, took, most)
				}
				if policed := int(b.drops()[kind.reason] - before); policed != n-passed {
					t.Errorf("%d frames counted as %s, %d did not pass", policed, kind.reason, n-passed)
				}
				b.set(pseudowire.Service{Limits: pseudowire.Limits{Broadcast: 1e6}})
				if passed, _ := b.storm(way.from, way.to, 100, kind.f, kind.last); passed != 100 {
					t.Errorf("%d of 100 frames passed when the limit was gone", passed)
				}
			})
		}
	}
}

// An address that has sent a frame the other way is known: frames to it have no limit.
func TestKnownUnicast(t *testing.T) {
	b := newBench(t)
	b.set(pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}})
	if passed, _ := b.storm(b.far, b.lan, 100, frame(multicast, there), frame(broadcast, there)); passed != 100 {
		t.Fatalf("%d of 100 multicast frames came out", passed)
	}
	if passed, _ := b.storm(b.lan, b.far, 500, frame(there, here), frame(broadcast, here)); passed != 500 {
		t.Errorf("%d of 500 frames to an address that is known passed", passed)
	}
}

// stations are the addresses of some.
func stations(first, n int) (all [][]byte) {
	for i := range n {
		all = append(all, []byte{2, 1, 0, byte((first + i) >> 16), byte((first + i) >> 8), byte(first + i)})
	}
	return all
}

// speak has each of some stations send a frame.
func speak(t *testing.T, from *netlab.Link, all [][]byte) {
	t.Helper()
	var frames [][]byte
	for _, s := range all {
		frames = append(frames, frame(multicast, s))
	}
	for chunk := range slices.Chunk(frames, 100) {
		if err := from.Send(chunk...); err != nil {
			t.Fatal(err)
		}
	}
}

// known says how many of some stations frames reach without a limit.
func (b *bench) known(all [][]byte) int {
	b.t.Helper()
	before := b.drops()[pseudowire.DropUnknownUnicast]
	for _, s := range all {
		if err := b.lan.Send(frame(s, here)); err != nil {
			b.t.Fatal(err)
		}
	}
	b.storm(b.lan, b.far, 0, frame(unknown, here), frame(broadcast, here))
	return len(all) - int(b.drops()[pseudowire.DropUnknownUnicast]-before)
}

// Stations stay known over the end of the process, and a flood of addresses in another
// pseudowire makes none of them unknown. What was counted is not forgotten either.
func TestStationsStayKnown(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}}
	b.set(limited)
	all := stations(0, 1000)
	speak(t, b.far, all)
	if n := b.known(all); n != len(all) {
		t.Errorf("%d of %d stations are known", n, len(all))
	}
	far2 := b.second()
	b.do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "two", Device: "pw-two", Service: limited})
	})
	speak(t, far2, stations(0, 100000))
	if n := b.known(all); n != len(all) {
		t.Errorf("after a flood in another pseudowire %d of %d stations are known", n, len(all))
	}
	// The limit lets one of each 100 ms pass, and a first one.
	if n := b.known(stations(2000, 100)); n > 5 {
		t.Errorf("%d of 100 stations that nobody has heard of are known", n)
	}
	drops := b.drops()[pseudowire.DropUnknownUnicast]
	b.open()
	b.set(limited)
	b.do(b.d.Prune)
	if n := b.drops()[pseudowire.DropUnknownUnicast]; n != drops {
		t.Errorf("%d drops were counted, %d after the process ended", drops, n)
	}
	if n := b.known(all); n != len(all) {
		t.Errorf("after the process ended %d of %d stations are known", n, len(all))
	}
}

// kept are the devices that something is kept for.
func (b *bench) kept() []uint32 {
	b.t.Helper()
	devices, err := b.d.programs.Devices()
	if err != nil {
		b.t.Fatal(err)
	}
	return devices
}

// A service that went, or came with another device, while there was no process leaves nothing
// behind; what a pseudowire with a service has stays, though its device cannot be served now.
func TestServicesGoWithoutProcess(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}}
	two := func(s pseudowire.Service) {
		b.do(func() error {
			return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "two", Device: "pw-two", Service: s})
		})
	}
	b.set(limited)
	b.second()
	two(limited)
	if n := len(b.kept()); n != 2 {
		t.Fatalf("something is kept for %d devices, want 2", n)
	}
	b.open()
	b.set(pseudowire.Service{})
	two(limited)
	b.do(b.d.Prune)
	if got, want := b.kept(), []uint32{uint32(b.ns.Link("pw-two").Index)}; !slices.Equal(got, want) {
		t.Errorf("something is kept for the devices %v, want %v", got, want)
	}
	b.open()
	b.d.wires["two"] = &wire{Pseudowire: pseudowire.Pseudowire{Name: "two", Device: "pw-two", Service: limited}}
	b.do(b.d.Prune)
	if n := len(b.kept()); n != 1 {
		t.Errorf("a device that is to have a service lost what it had: %d devices are kept", n)
	}
	b.open()
	b.do(b.d.Prune)
	if got := b.kept(); len(got) != 0 {
		t.Errorf("something is kept for the devices %v where no pseudowire is set", got)
	}
}

// Maps of another layout go once the datapath is pruned, and only those of this datapath's
// services.
func TestOtherLayoutsGo(t *testing.T) {
	b := newBench(t)
	b.set(pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}})
	other := filepath.Join(b.d.pins, "maps-1")
	of := func(part string) string { return filepath.Join(other, part, "services") }
	parts := []string{"nsp-ebpf", "nsp-kernel", "pacing", ""}
	for _, part := range parts {
		if err := os.MkdirAll(filepath.Dir(of(part)), 0o700); err != nil {
			t.Fatal(err)
		}
		// What is pinned there matters not.
		pin, err := b.d.programs.Into.Clone()
		if err != nil {
			t.Fatal(err)
		}
		defer pin.Close()
		if err := pin.Pin(of(part)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (all []string) {
		for _, part := range parts {
			if _, err := os.Stat(of(part)); err == nil {
				all = append(all, part)
			}
		}
		return all
	}
	stuck := errors.New("stuck")
	b.d.Above.Datapath = bare{kind: pseudowire.EBPF, stuck: stuck}
	if err := b.ns.Do(b.d.Prune); !errors.Is(err, stuck) {
		t.Errorf("prune: %v", err)
	}
	if got := left(); !slices.Equal(got, parts) {
		t.Errorf("before the datapath is pruned there are %q of %q", got, parts)
	}
	b.d.Above.Datapath = bare{kind: pseudowire.EBPF}
	b.do(b.d.Prune)
	if got := left(); !slices.Equal(got, parts[1:]) {
		t.Errorf("pinned are %q, want %q", got, parts[1:])
	}
}

// What maps have is of use for as long as the device and its programs are there.
func TestStaleState(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}}
	b.set(limited)
	b.second()
	b.do(func() error {
		return b.d.SetPseudowire(pseudowire.Pseudowire{Name: "two", Device: "pw-two", Service: limited})
	})
	all := stations(0, 100)
	speak(t, b.far, all)
	b.known(stations(200, 100))
	if n := len(b.kept()); n != 2 {
		t.Errorf("something is kept for %d devices, want 2", n)
	}
	two, err := b.ns.Netlink().LinkByName("pw-two")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ns.Netlink().LinkDel(two); err != nil {
		t.Fatal(err)
	}
	one, err := b.ns.Netlink().LinkByName("pw-lan")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ns.Netlink().QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: one.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.set(limited)
	b.do(b.d.Prune)
	if got := b.kept(); !slices.Equal(got, []uint32{uint32(one.Attrs().Index)}) {
		t.Errorf("something is kept for the devices %v, want %d", got, one.Attrs().Index)
	}
	if drops := b.drops(); len(drops) != 0 {
		t.Errorf("a new device begins with the drops %v", drops)
	}
	if n := b.known(all); n > 5 {
		t.Errorf("%d of %d stations are known that the device's programs have not heard", n, len(all))
	}
	b.do(b.d.Cleanup)
	if left, err := os.ReadDir(b.bpfDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v, %v", left, err)
	}
}

// What is known and counted is a datapath's own: it stays where another kind, which is not used
// any more, is cleared.
func TestAnotherDatapathGoes(t *testing.T) {
	b := newBench(t)
	limited := pseudowire.Service{Limits: pseudowire.Limits{UnknownUnicast: 1}}
	b.set(limited)
	all := stations(0, 100)
	speak(t, b.far, all)
	b.known(stations(200, 100))
	drops := b.drops()[pseudowire.DropUnknownUnicast]
	b.do(func() error {
		other, err := Wrap(bare{kind: pseudowire.Kernel}, Options{BPFDir: b.bpfDir})
		if err != nil {
			return err
		}
		return other.Cleanup()
	})
	b.open()
	b.set(limited)
	if n := b.drops()[pseudowire.DropUnknownUnicast]; drops == 0 || n != drops {
		t.Errorf("%d drops were counted, %d after the other datapath went", drops, n)
	}
	if n := b.known(all); n != len(all) {
		t.Errorf("%d of %d stations are known", n, len(all))
	}
	b.do(b.d.Cleanup)
	if left, err := os.ReadDir(b.bpfDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v, %v", left, err)
	}
}
