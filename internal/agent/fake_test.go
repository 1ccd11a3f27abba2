package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// errRefused is what a fake says whose turn it is to fail.
var errRefused = errors.New("refused by the test")

// turns counts the calls that change something, and has one of them fail.
type turns struct {
	mu     sync.Mutex
	n      int
	failAt int
	// failFrom has this call and all later ones fail; 0 none.
	failFrom int
	calls    []string
}

// take is one call; nil lets it go on.
func (c *turns) take(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.calls = append(c.calls, fmt.Sprintf(format, args...))
	if c.n == c.failAt || c.failFrom != 0 && c.n >= c.failFrom {
		return errRefused
	}
	return nil
}

// reset begins to count anew.
func (c *turns) reset(failAt int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n, c.failAt, c.calls = 0, failAt, nil
}

// kernel is what of a fake datapath outlives the process.
type kernel struct {
	mu          sync.Mutex
	pseudowires map[string]pseudowire.Pseudowire
	tunnels     map[string]pseudowire.Tunnel
	sessions    map[uint32]pseudowire.Session
	received    map[uint32]uint64
}

func newKernel() *kernel {
	return &kernel{
		pseudowires: map[string]pseudowire.Pseudowire{}, tunnels: map[string]pseudowire.Tunnel{},
		sessions: map[uint32]pseudowire.Session{}, received: map[uint32]uint64{},
	}
}

// fakeDatapath carries no frames: it makes veth pairs and remembers.
type fakeDatapath struct {
	kind   pseudowire.Kind
	ns     *netlab.Namespace
	kernel *kernel
	turns  *turns
	// bare devices come with the session and have no tag: as the kernel's l2tp_eth.
	bare bool
	// can, if set, gives or takes abilities.
	can func(*pseudowire.Abilities)
	// refuses, if set, says which pseudowires cannot be set.
	refuses func(pseudowire.Pseudowire) bool

	// removing, if set, is called when a session is to go.
	removing func()

	named, carried map[string]bool
	live           map[uint32]bool
}

var _ pseudowire.Datapath = (*fakeDatapath)(nil)

func (d *fakeDatapath) Kind() pseudowire.Kind { return d.kind }
func (d *fakeDatapath) Abilities() pseudowire.Abilities {
	a := pseudowire.Abilities{RewritesTags: !d.bare, DeviceWithoutSession: !d.bare, Several: !d.bare}
	if d.can != nil {
		d.can(&a)
	}
	return a
}

func (d *fakeDatapath) Repairs() []drift.Repair { return nil }
func (d *fakeDatapath) Heed(func(string) bool)  {}

func (d *fakeDatapath) add(device string) error {
	if d.ns == nil {
		return nil // a host without a kernel
	}
	nl := d.ns.Netlink()
	if _, err := nl.LinkByName(device); err == nil {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	if err := nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "o" + device[1:]}); err != nil {
		return err
	}
	l, err := nl.LinkByName(device)
	if err != nil {
		return err
	}
	return errors.Join(nl.LinkSetAlias(l, "pwd:fake:"+device), nl.LinkSetUp(l))
}

func (d *fakeDatapath) del(device string) error {
	if d.ns == nil {
		return nil
	}
	nl := d.ns.Netlink()
	l, err := nl.LinkByName(device)
	if err != nil {
		return nil
	}
	return nl.LinkDel(l)
}

func (d *fakeDatapath) SetPseudowire(p pseudowire.Pseudowire) error {
	if err := d.turns.take("set pseudowire %s vlan %d", p.Name, p.VLAN); err != nil {
		return err
	}
	if d.refuses != nil && d.refuses(p) {
		return errRefused
	}
	d.named[p.Name] = true
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.kernel.pseudowires[p.Name] = p
	if d.bare {
		return nil
	}
	return d.add(p.Device)
}

func (d *fakeDatapath) RemovePseudowires(names ...string) error {
	for _, name := range names {
		if err := d.turns.take("remove pseudowire %s", name); err != nil {
			return err
		}
		if err := d.removePseudowire(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *fakeDatapath) removePseudowire(name string) error {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	p, ok := d.kernel.pseudowires[name]
	delete(d.kernel.pseudowires, name)
	if !ok {
		return nil
	}
	return d.del(p.Device)
}

func (d *fakeDatapath) SetTunnel(t pseudowire.Tunnel) error {
	if err := d.turns.take("set tunnel %s", t.Name); err != nil {
		return err
	}
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.kernel.tunnels[t.Name], d.carried[t.Name] = t, true
	return nil
}

func (d *fakeDatapath) RemoveTunnel(name string) error {
	if err := d.turns.take("remove tunnel %s", name); err != nil {
		return err
	}
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	delete(d.kernel.tunnels, name)
	return nil
}

func (d *fakeDatapath) SetSession(s pseudowire.Session) error {
	if err := d.turns.take("set session of %s", s.Pseudowire); err != nil {
		return err
	}
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.kernel.sessions[s.LocalID], d.live[s.LocalID] = s, true
	if d.bare {
		return d.add(d.kernel.pseudowires[s.Pseudowire].Device)
	}
	return nil
}

func (d *fakeDatapath) RemoveSession(id uint32) error {
	if err := d.turns.take("remove session %d", id); err != nil {
		return err
	}
	if d.removing != nil {
		d.removing()
	}
	return d.removeSession(id)
}

func (d *fakeDatapath) removeSession(id uint32) error {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	s := d.kernel.sessions[id]
	delete(d.kernel.sessions, id)
	delete(d.live, id)
	if d.bare {
		return d.del(d.kernel.pseudowires[s.Pseudowire].Device)
	}
	return nil
}

func (d *fakeDatapath) Refresh() error                      { return nil }
func (d *fakeDatapath) Deliver(netip.AddrPort, []byte) bool { return false }
func (d *fakeDatapath) Global() (map[string]uint64, error)  { return nil, nil }
func (d *fakeDatapath) Close() error                        { return nil }
func (d *fakeDatapath) Cleanup() error {
	clear(d.named)
	clear(d.carried)
	clear(d.live)
	return d.Prune()
}

func (d *fakeDatapath) Counters() (map[uint32]pseudowire.Counters, error) {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	all := map[uint32]pseudowire.Counters{}
	for id := range d.kernel.sessions {
		all[id] = pseudowire.Counters{ReceivedFrames: d.kernel.received[id]}
	}
	return all, nil
}

func (d *fakeDatapath) Prune() error {
	var errs []error
	for id := range d.kernel.copySessions() {
		if !d.live[id] {
			errs = append(errs, d.removeSession(id))
		}
	}
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	maps.DeleteFunc(d.kernel.tunnels, func(name string, _ pseudowire.Tunnel) bool { return !d.carried[name] })
	for name, p := range d.kernel.pseudowires {
		if !d.named[name] {
			delete(d.kernel.pseudowires, name)
			errs = append(errs, d.del(p.Device))
		}
	}
	return errors.Join(errs...)
}

func (k *kernel) copySessions() map[uint32]pseudowire.Session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.sessions)
}

// text is what the datapath has, without the IDs that chance gave.
func (k *kernel) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for _, p := range k.pseudowires {
		lines = append(lines, fmt.Sprintf("pseudowire %s %s vlan %d mtu %d keep tag %v", p.Name, p.Device, p.VLAN, p.MTU, p.KeepTag))
	}
	for _, t := range k.tunnels {
		lines = append(lines, "tunnel "+t.Name)
	}
	for _, s := range k.sessions {
		lines = append(lines, fmt.Sprintf("session of %s on %s, cookie %d, transmit %v", s.Pseudowire, s.Tunnel, len(s.LocalCookie), s.Transmit))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// watchedBridges are the real ones, whose calls take turns; no two pseudowires
// may ever be attached at one place.
type watchedBridges struct {
	circuits
	t     testing.TB
	turns *turns
	now   map[string]bridge.Attachment
}

func (b *watchedBridges) SetBridge(x bridge.Bridge) error {
	if err := b.turns.take("set bridge %s", x.Name); err != nil {
		return err
	}
	return b.circuits.SetBridge(x)
}

func (b *watchedBridges) RemoveBridge(name string) error {
	if err := b.turns.take("remove bridge %s", name); err != nil {
		return err
	}
	return b.circuits.RemoveBridge(name)
}

func (b *watchedBridges) SetAttachment(x bridge.Attachment) error {
	if err := b.turns.take("attach %s to %s%s vlan %d", x.Pseudowire, x.Bridge, x.Interface, x.VLAN); err != nil {
		return err
	}
	b.now[x.Pseudowire] = x
	for name, o := range b.now {
		if name != x.Pseudowire && o.Bridge == x.Bridge && o.Interface == x.Interface && o.VLAN == x.VLAN {
			b.t.Errorf("%s and %s are attached at one place: %+v", name, x.Pseudowire, x)
		}
	}
	return b.circuits.SetAttachment(x)
}

func (b *watchedBridges) RemoveAttachment(names ...string) error {
	for _, name := range names {
		if err := b.turns.take("detach %s", name); err != nil {
			return err
		}
		delete(b.now, name)
	}
	return b.circuits.RemoveAttachment(names...)
}
