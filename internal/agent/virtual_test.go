package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// virtual is a site on a host without a kernel.
type virtual struct {
	t            testing.TB
	site         string
	addr         netip.Addr
	ether        *ether
	opt          Options
	land         *land
	ebpf, kernel *kernel
	fate         *fate

	a *Agent
	// stop ends the daemon, as ends gives its error: nil, a crashed, or another.
	stop context.CancelFunc
	ends chan error
}

func newEther() *ether { return &ether{hosts: map[netip.Addr]*memorySockets{}} }

func newVirtual(t testing.TB, e *ether, site, addr, dir string) *virtual {
	v := &virtual{
		t: t, site: site, addr: netip.MustParseAddr(addr), ether: e,
		land: &land{bridges: map[string]bridge.Bridge{}, attachments: map[string]bridge.Attachment{}},
		ebpf: newKernel(), kernel: newKernel(), fate: &fate{},
	}
	v.opt = Options{
		Site: site, StateDir: filepath.Join(dir, site), Version: "test", Timers: control.Timers{ReopenMax: 15 * time.Second}, Logger: slog.New(slog.DiscardHandler),
		Datapaths: []Opener{
			{Kind: pseudowire.EBPF, Open: func() (pseudowire.Datapath, error) { return v.datapath(pseudowire.EBPF, v.ebpf), nil }},
			{Kind: pseudowire.Kernel, Open: func() (pseudowire.Datapath, error) { return v.datapath(pseudowire.Kernel, v.kernel), nil }},
		},
	}
	return v
}

func (v *virtual) datapath(kind pseudowire.Kind, k *kernel) pseudowire.Datapath {
	can := func(a *pseudowire.Abilities) {
		everything(a)
		a.Services, a.Priority, a.CrossConnects = true, true, kind == pseudowire.EBPF
	}
	return &fatedDatapath{fate: v.fate, fakeDatapath: &fakeDatapath{kind: kind, can: can, kernel: k, turns: new(turns), bare: kind == pseudowire.Kernel,
		named: map[string]bool{}, carried: map[string]bool{}, live: map[uint32]bool{}}}
}

// device says whether a pseudowire's device is there.
func (v *virtual) device(name string) bool {
	for _, k := range []*kernel{v.ebpf, v.kernel} {
		k.mu.Lock()
		for _, p := range k.pseudowires {
			there := k == v.ebpf
			for _, s := range k.sessions {
				there = there || s.Pseudowire == p.Name
			}
			if p.Device == name && there {
				k.mu.Unlock()
				return true
			}
		}
		k.mu.Unlock()
	}
	return false
}

// openHost is Agent.openAll.
func (v *virtual) openHost(a *Agent) error {
	a.kernel = &watcher{wake: make(chan struct{}, 1)}
	if err := a.openStandard(); err != nil {
		return err
	}
	a.bridges = &fatedCircuits{t: v.t, fate: v.fate, land: v.land, device: v.device, named: map[string]bool{}, attached: map[string]bool{}}
	a.shaper = &fatedShaper{v.fate, v.land}
	a.transport = v.ether.open(v.addr)
	a.control = a.newControl()
	return nil
}

// start runs a daemon, and returns once it is ready, or has ended.
func (v *virtual) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ends := make(chan struct{}), make(chan error, 1)
	v.stop, v.ends = cancel, ends
	go func() { ends <- v.live(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
		return nil
	case err := <-ends:
		v.stop = nil
		cancel()
		return err
	}
}

// live is a daemon's life.
func (v *virtual) live(ctx context.Context, ready func()) (err error) {
	a := newAgent(v.opt)
	a.host, a.disk = v.openHost, v.fate.step
	defer func() {
		if r := recover(); r != nil {
			c, is := r.(crashed)
			if !is {
				panic(r)
			}
			a.Close()
			err = fmt.Errorf("killed at %q", c.at)
		}
	}()
	if _, err := a.begun(); err != nil {
		return err
	}
	v.a = a
	return a.Run(ctx, ready)
}

// shut ends the daemon, if it runs.
func (v *virtual) shut() {
	if v.stop == nil {
		return
	}
	v.stop()
	v.stop = nil
	if err := <-v.ends; err != nil {
		v.t.Errorf("%s: %v", v.site, err)
	}
}

// dead says whether the daemon has died, and forgets it then.
func (v *virtual) dead() bool {
	select {
	case <-v.ends:
		v.stop()
		v.stop = nil
		return true
	default:
		return false
	}
}

// apply is pwctl apply -y.
func (v *virtual) apply(text string) error {
	_, err := v.a.Apply(context.Background(), api.ApplyRequest{Name: "t.yaml", Document: text, Disruptive: true})
	return err
}

// force puts a topology into force without a look at what comes of it.
func (v *virtual) force(text string) (err error) {
	d, err := parse("t.yaml", "", text, v.site)
	if err != nil {
		return err
	}
	derr := v.a.do(context.Background(), func() {
		if _, err = v.a.change(d); err == nil {
			err = v.a.commit()
		}
	})
	return errors.Join(derr, err)
}

// state is everything that the site has, without what chance or the clock gave.
func (v *virtual) state() string {
	var lines []string
	err := v.a.do(context.Background(), func() { lines = v.inside(v.a) })
	if err != nil {
		v.t.Fatalf("%s: %v", v.site, err)
	}
	if g, err := v.a.store.generation(); err != nil {
		v.t.Errorf("%s: %v", v.site, err)
	} else if g != nil {
		lines = append(lines, fmt.Sprintf("in the file %s %v", g.Hash, g.Confirm))
	}
	files, _ := filepath.Glob(filepath.Join(v.opt.StateDir, "tunnels", "*"))
	for _, f := range files {
		lines = append(lines, "file "+filepath.Base(f))
	}
	lines = append(lines, v.host()...)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// inside is what the daemon knows.
func (v *virtual) inside(a *Agent) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, c := range a.control.Connections() {
		add("connection %+v, established %v", c.Tunnel, c.State == control.ConnectionEstablished)
	}
	for _, s := range a.control.Sessions() {
		up := s.State == control.SessionEstablished
		one := len(ridesOf(a, s.Session.Name)) < 2
		if !up || !one {
			s.Session.Circuit = 0 // of several tunnels, which is used depends on what was before
		}
		add("session %+v, established %v", s.Session, up)
		if up && one {
			add("session %s on %s, remote %v, cookie %d", s.Session.Name, s.Session.Tunnel, s.Remote, len(s.LocalCookie))
		}
	}
	for name, w := range a.wires {
		p := *w.Pseudowire
		p.Redundancy = nil // a pointer
		if r := w.Redundancy; r != nil {
			add("wire %s: redundancy %+v", name, *r)
		}
		add("wire %s: %+v %v %v, vacated %v crossed %v ready %v standby %v", name, p, w.fault, w.attachFault, w.vacated && w.fault == nil, w.crossed, w.ready, w.standby)
		for _, r := range w.rides {
			if r.session == nil || len(w.rides) > 1 {
				r = &ride{Ride: r.Ride, signalled: r.signalled}
			}
			add("wire %s on %v: told %v signalled %v installed %v transmits %v", name, r.Ride, r.told, r.signalled, r.session != nil, r.transmits)
		}
	}
	for key, t := range a.tunnels {
		add("tunnel %s: %v %v", key, t.Tunnel, t.fault)
	}
	add("made %v, faults %v, unclean %v, %d sessions, %d heard, %d places, %d redundant", a.made, a.faults.now, a.unclean, len(a.sessions), len(a.heard), len(a.places), len(a.redundant))
	if g := a.generation; g != nil {
		add("in force %s %v", g.Hash, g.Confirm)
	}
	return lines
}

func ridesOf(a *Agent, name string) []*ride {
	if w := a.wires[name]; w != nil {
		return w.rides
	}
	return nil
}

// several says that a pseudowire has more than one session.
func (k *kernel) several(name string) bool {
	n := 0
	for _, s := range k.sessions {
		if s.Pseudowire == name {
			n++
		}
	}
	return n > 1
}

// host is what the daemon has made there.
func (v *virtual) host() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	v.land.mu.Lock()
	defer v.land.mu.Unlock()
	for _, b := range v.land.bridges {
		add("host has bridge %+v", b)
	}
	for _, at := range v.land.attachments {
		if !v.device(at.Device) {
			continue // a device that goes leaves its bridge
		}
		add("host has attachment %+v", at)
	}
	add("host shapes %v", v.land.shaped)
	for _, k := range []*kernel{v.ebpf, v.kernel} {
		k.mu.Lock()
		for _, p := range k.pseudowires {
			add("host has pseudowire %+v", p)
		}
		for _, t := range k.tunnels {
			if !k.carries(t.Name) {
				continue // what had sessions is kept for those to come, until the tunnel goes
			}
			t.LocalID, t.RemoteID, t.Local, t.Remote = 0, 0, netip.AddrPort{}, netip.AddrPort{}
			add("host has tunnel %+v", t)
		}
		for _, s := range k.sessions {
			add("host has session of %s on %s, cookies %d %d, sublayers %v %v, sequencing %v %v, priority %x, transmit %v", s.Pseudowire, s.Tunnel,
				len(s.LocalCookie), len(s.RemoteCookie), s.ReceiveSublayer, s.TransmitSublayer, s.ReceiveSequencing, s.TransmitSequencing, s.Priority, s.Transmit && !k.several(s.Pseudowire))
		}
		k.mu.Unlock()
	}
	return lines
}

// settle lets virtual time pass.
func settle(d time.Duration) { time.Sleep(d) }
