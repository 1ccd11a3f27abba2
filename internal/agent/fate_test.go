package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/qos"
)

// What is in this file and in ether_test.go and virtual_test.go is a host without a kernel: whole daemons run on it in virtual
// time (testing/synctest), with their files, and any step of theirs can be made to fail.

// errFate is how a step fails that was made to.
var errFate = errors.New("made to fail by the test")

// crashed is what a daemon dies of that is made to.
type crashed struct{ at string }

// end is how a step ends that is picked.
type end string

const (
	refused  end = "refused"       // it fails, and has done nothing
	lost     end = "done and lost" // it has been done, and fails
	killed   end = "killed before" // the daemon dies before it
	killedIn end = "killed after"  // the daemon dies after it
)

// fate counts the steps of a daemon that change something, and picks one.
type fate struct {
	mu    sync.Mutex
	steps []string
	pick  int
	how   end
}

// watch begins to count anew: the step with that number, from 1, ends that way; 0 is none.
func (f *fate) watch(pick int, how end) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps, f.pick, f.how = nil, pick, how
}

// seen are the steps since watch.
func (f *fate) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.steps)
}

func (f *fate) step(what string, do func() error) error {
	f.mu.Lock()
	f.steps = append(f.steps, what)
	how := end("")
	if len(f.steps) == f.pick {
		how = f.how
	}
	f.mu.Unlock()
	switch how {
	case refused:
		return errFate
	case killed:
		panic(crashed{what})
	}
	err := do()
	switch how {
	case lost:
		return errFate
	case killedIn:
		panic(crashed{what})
	}
	return err
}

// carries says that a tunnel has sessions.
func (k *kernel) carries(tunnel string) bool {
	for _, s := range k.sessions {
		if s.Tunnel == tunnel {
			return true
		}
	}
	return false
}

// fatedDatapath is a datapath whose steps are counted.
type fatedDatapath struct {
	*fakeDatapath
	fate *fate
}

func (d *fatedDatapath) SetPseudowire(p pseudowire.Pseudowire) error {
	return d.fate.step("set pseudowire "+p.Name, func() error { return d.fakeDatapath.SetPseudowire(p) })
}

func (d *fatedDatapath) RemovePseudowires(names ...string) error {
	return d.fate.step("remove pseudowires "+strings.Join(names, " "), func() error { return d.fakeDatapath.RemovePseudowires(names...) })
}

func (d *fatedDatapath) SetTunnel(t pseudowire.Tunnel) error {
	return d.fate.step("set tunnel "+t.Name, func() error { return d.fakeDatapath.SetTunnel(t) })
}

func (d *fatedDatapath) RemoveTunnel(name string) error {
	return d.fate.step("remove tunnel "+name, func() error { return d.fakeDatapath.RemoveTunnel(name) })
}

func (d *fatedDatapath) SetSession(s pseudowire.Session) error {
	return d.fate.step("set session of "+s.Pseudowire, func() error { return d.fakeDatapath.SetSession(s) })
}

func (d *fatedDatapath) RemoveSession(id uint32) error {
	return d.fate.step("remove session", func() error { return d.fakeDatapath.RemoveSession(id) })
}

func (d *fatedDatapath) Prune() error {
	return d.fate.step("prune", d.fakeDatapath.Prune)
}

// land is what of bridges and attachment circuits outlives the process.
type land struct {
	mu          sync.Mutex
	bridges     map[string]bridge.Bridge
	attachments map[string]bridge.Attachment
	shaped      []qos.Interface
	// blocked are the ports that do not forward, blocks all that is said of that unless it is nil; kept counts how
	// often a bridge was told to keep an address, looks has the pseudowires whose LANs were looked for at once.
	blocked map[string]bool
	blocks  []string
	kept    int
	looks   []string
}

// fatedCircuits are attachment circuits in memory whose steps are counted. Interfaces
// are there whose names begin with eth, but for eth9.
type fatedCircuits struct {
	noCircuits
	t    testing.TB
	fate *fate
	land *land
	// device says whether a pseudowire's device is there.
	device func(name string) bool

	named, attached map[string]bool
}

func (c *fatedCircuits) SetBlocked(name string, blocked bool) error {
	c.land.mu.Lock()
	defer c.land.mu.Unlock()
	if c.land.blocked == nil {
		c.land.blocked = map[string]bool{}
	}
	c.land.blocked[name] = blocked
	if c.land.blocks != nil {
		c.land.blocks = append(c.land.blocks, fmt.Sprint(name, " ", blocked))
	}
	return nil
}

func (c *fatedCircuits) SetKept(string, bridge.Address, bool) error {
	c.land.mu.Lock()
	defer c.land.mu.Unlock()
	c.land.kept++
	return nil
}

func (c *fatedCircuits) Sides(names ...string) (map[string][]bridge.Side, error) {
	c.land.mu.Lock()
	defer c.land.mu.Unlock()
	c.land.looks = append(c.land.looks, strings.Join(slices.Sorted(slices.Values(names)), " "))
	sides := map[string][]bridge.Side{}
	for _, name := range names {
		sides[name] = nil
	}
	return sides, c.fate.step("look for the LANs", func() error { return nil })
}

func there(name string) bool { return strings.HasPrefix(name, "eth") && name != "eth9" }

func (c *fatedCircuits) SetBridge(b bridge.Bridge) error {
	return c.fate.step("set bridge "+b.Name, func() error {
		c.land.mu.Lock()
		defer c.land.mu.Unlock()
		c.named[b.Name], c.land.bridges[b.Name] = true, b
		var errs []error
		for _, p := range b.Ports {
			if !there(p) {
				errs = append(errs, &bridge.NotPresentError{Interface: p, For: "bridge " + b.Name})
			}
		}
		return errors.Join(errs...)
	})
}

// What is to go is forgotten first, as by bridge.Manager: if it cannot be removed it is
// Prune's.
func (c *fatedCircuits) RemoveBridge(name string) error {
	if !c.named[name] {
		return nil
	}
	delete(c.named, name)
	return c.fate.step("remove bridge "+name, func() error {
		c.land.mu.Lock()
		defer c.land.mu.Unlock()
		delete(c.land.bridges, name)
		return nil
	})
}

func (c *fatedCircuits) SetAttachment(a bridge.Attachment) error {
	return c.fate.step("attach "+a.Pseudowire, func() error {
		c.land.mu.Lock()
		defer c.land.mu.Unlock()
		at := cmp.Or(a.Bridge, a.Interface)
		if o := c.land.attachments[a.Pseudowire]; o.Bridge != a.Bridge || o.Interface != a.Interface {
			delete(c.land.attachments, a.Pseudowire)
		}
		if _, made := c.land.bridges[at]; !made && !there(at) {
			return &bridge.NotPresentError{Interface: at, For: "pseudowire " + a.Pseudowire}
		}
		if !c.device(a.Device) {
			return &bridge.NotPresentError{Interface: a.Device, For: "pseudowire " + a.Pseudowire}
		}
		c.attached[a.Pseudowire], c.land.attachments[a.Pseudowire] = true, a
		for name, o := range c.land.attachments {
			same := o.Bridge == a.Bridge && o.Interface == a.Interface && o.VLAN == a.VLAN && o.VLANs == a.VLANs && o.Untagged == a.Untagged
			if name != a.Pseudowire && same && !a.Isolated && !a.Stacked {
				c.t.Errorf("%s and %s are attached at one place: %+v", name, a.Pseudowire, a)
			}
		}
		return nil
	})
}

func (c *fatedCircuits) Release(devices []string) error {
	return c.fate.step("release devices", func() error {
		c.land.mu.Lock()
		defer c.land.mu.Unlock()
		maps.DeleteFunc(c.land.attachments, func(_ string, a bridge.Attachment) bool { return slices.Contains(devices, a.Device) })
		return nil
	})
}

func (c *fatedCircuits) RemoveAttachment(names ...string) error {
	for _, name := range names {
		if !c.attached[name] {
			continue
		}
		delete(c.attached, name)
		err := c.fate.step("detach "+name, func() error {
			c.land.mu.Lock()
			defer c.land.mu.Unlock()
			delete(c.land.attachments, name)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *fatedCircuits) AttachmentStates(...string) map[string]bridge.State {
	c.land.mu.Lock()
	defer c.land.mu.Unlock()
	states := make(map[string]bridge.State)
	for name, a := range c.land.attachments {
		_, made := c.land.bridges[cmp.Or(a.Bridge, a.Interface)]
		states[name] = bridge.State{Up: (made || there(a.Interface)) && c.device(a.Device), Reason: "not all of it is there"}
	}
	return states
}

func (c *fatedCircuits) Prune() error {
	return c.fate.step("prune bridges", func() error {
		c.land.mu.Lock()
		defer c.land.mu.Unlock()
		maps.DeleteFunc(c.land.bridges, func(name string, _ bridge.Bridge) bool { return !c.named[name] })
		maps.DeleteFunc(c.land.attachments, func(name string, _ bridge.Attachment) bool { return !c.attached[name] })
		return nil
	})
}

func (c *fatedCircuits) Cleanup() error {
	clear(c.named)
	clear(c.attached)
	return c.Prune()
}

// fatedShaper notes what is shaped.
type fatedShaper struct {
	fate *fate
	land *land
}

func (s *fatedShaper) Egress(netip.Addr, netip.Addr) (int, error)    { return 1, nil }
func (s *fatedShaper) Counters(int) (map[uint16]qos.Counters, error) { return nil, nil }
func (s *fatedShaper) Repairs() []drift.Repair                       { return nil }
func (s *fatedShaper) Heed(func(string) bool)                        {}
func (s *fatedShaper) Cleanup() error                                { return s.Set(nil) }
func (s *fatedShaper) Close()                                        {}
func (s *fatedShaper) Set(i []qos.Interface) error {
	return s.fate.step("shape", func() error {
		s.land.mu.Lock()
		defer s.land.mu.Unlock()
		s.land.shaped = i
		return nil
	})
}
