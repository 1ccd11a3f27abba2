//go:build vm

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// More show that it was not luck.
var rotations = flag.Int("rotations", 2, "how often TestKernelCookiesRotate has cookies change, each time once undisturbed and once while a daemon is killed")

// A session of the kernel's cannot be given another cookie: another session takes its place, and
// the device, its port of the bridge, and every frame stay. A daemon that is killed meanwhile
// goes on when it is back.
func TestKernelCookiesRotate(t *testing.T) {
	w := build(t, network{datapaths: [2]string{"kernel", "kernel"}})
	w.write(strings.NewReplacer(
		"gold: {sites: [dc1, dc2]}", "gold: {sites: [dc1, dc2], encapsulation: ip}\n  bronze: {sites: [dc1, dc2]}",
		"    tunnel: silver\n", "    tunnels: [silver, bronze]\n    steer: [{tunnel: silver}]\n",
	).Replace(w.text("")))
	for _, s := range w.sites {
		if err := s.StartHolder(); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	w.awaitOwn()
	all := []flows{w.flows(w.a, netlab.FlowOptions{Rate: *keptRate, Size: 200}), w.flows(w.b, netlab.FlowOptions{Rate: *keptRate, Size: 200})}
	await := func() {
		for _, f := range all {
			f.await(t, *keptRate/5)
		}
	}
	await()
	devices := w.ports()
	known := w.sessionIDs()
	for i := range *rotations {
		s, victim := w.sites[i%2], w.sites[rand.N(2)]
		before := w.sessionIDs()
		w.rotated(s, before, "tenant-a")
		begun := make(chan error, 1)
		go func() {
			_, err := s.Client().RotateCookies(within(t, patience), api.RotateRequest{Pseudowires: []string{"tenant-b"}})
			begun <- err
		}()
		time.Sleep(rand.N(*keptWithin)) // somewhere in that
		if err := victim.Daemon.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-victim.Daemon.Exited()
		await() // without a daemon
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was killed while %s rotated: %v", victim.Name, s.Name, <-begun)
		w.awaitOwn()
		w.rotated(s, before, "tenant-b")
		await()
	}
	for _, f := range all {
		f.stop(t)
	}
	if now := w.ports(); now != devices {
		t.Errorf("the devices were\n%s\nand are\n%s", devices, now)
	}
	for id := range w.sessionIDs() {
		if known[id] != "" {
			t.Errorf("%s is still there", id)
		}
	}
	w.partsAreRepaired()
	w.removesAll()
}

// Where one end's datapath is eBPF, which passes tenant-b's frames by the bridge, its sessions are succeeded as the kernel's
// at the other end are, whichever end begins; no frame is lost, bridged or not.
func TestCookiesRotateCrossed(t *testing.T) {
	onOneKernel(t, "6.12")
	w := build(t, network{datapaths: [2]string{"ebpf", "kernel"}}).start()
	crossed := func() {
		if !w.crossConnected(w.sites[0].Client(), "tenant-b") {
			t.Error("tenant-b is not cross-connected")
		}
	}
	crossed()
	all := []flows{w.flows(w.a, netlab.FlowOptions{Rate: *keptRate, Size: 200}), w.flows(w.b, netlab.FlowOptions{Rate: *keptRate, Size: 200})}
	await := func() {
		for _, f := range all {
			f.await(t, *keptRate/5)
		}
	}
	await()
	known := w.sessionIDs()
	for _, s := range w.sites {
		before := w.sessionIDs()
		for _, name := range []string{"tenant-b", "tenant-a"} {
			w.rotated(s, before, name)
			await()
		}
		crossed()
	}
	for _, f := range all {
		f.stop(t)
	}
	for id := range w.sessionIDs() {
		if known[id] != "" {
			t.Errorf("%s is still there", id)
		}
	}
}

// partsAreRepaired changes by hand the devices that sessions have beside their pseudowires', which is found, put
// back and told of the pseudowires as any drift; traffic passes again.
func (w *world) partsAreRepaired() {
	w.t.Helper()
	s := w.sites[0]
	var devices []string
	ctx := within(w.t, patience)
	if err := netlab.Poll(ctx, "each session has one device, and the two of tenant-b another", func() error {
		out, err := s.NS.Run(ctx, "sh", "-c", "ip -o link show | grep -oE 'pw[lr]-[0-9a-z]+'")
		if devices = strings.Fields(out); err == nil && len(devices) != 5 {
			err = fmt.Errorf("there are %q", devices)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	for _, device := range devices {
		for change, found := range map[string]string{"down": device + " was taken down", "mtu 1300": "the MTU of " + device + " was changed to 1300"} {
			begin := time.Now()
			if out, err := s.NS.Run(within(w.t, upWithin), "sh", "-c", "ip link set "+device+" "+change); err != nil {
				w.t.Fatal(err, out)
			}
			ctx := within(w.t, 20*time.Second)
			if err := netlab.Poll(ctx, "repaired and told: "+found, func() error {
				all, err := s.Client().Drift(ctx)
				for _, d := range all {
					if d.Found == found && d.Repaired && (d.Object == "pseudowire tenant-a" || d.Object == "pseudowire tenant-b") {
						return nil
					}
				}
				return errors.Join(err, fmt.Errorf("%+v", all))
			}); err != nil {
				w.t.Fatal(err)
			}
			w.t.Logf("%s: repaired and told after %v", found, time.Since(begin))
		}
	}
	w.echoes(w.t, w.a)
	w.echoes(w.t, w.b)
}

// rotated has another session take the place of each of a pseudowire's. Those that have just done so
// keep what they had for a while, and are asked again.
func (w *world) rotated(s *site.Site, before map[string]string, name string) {
	w.t.Helper()
	ctx := within(w.t, patience)
	if err := netlab.Poll(ctx, "all cookies of "+name+" change", func() error {
		same := 0
		for id, of := range w.sessionIDs() {
			if of == name && before[id] != "" {
				same++
			}
		}
		if same == 0 {
			return nil
		}
		all, err := s.Client().RotateCookies(ctx, api.RotateRequest{Pseudowires: []string{name}})
		return fmt.Errorf("%d have not, %+v, %v", same, all, err)
	}); err != nil {
		w.t.Error(err)
	}
}

// sessionIDs are those of both sites' sessions, with the names of their pseudowires.
func (w *world) sessionIDs() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, s := range w.sites {
		sessions, err := s.Client().Sessions(within(w.t, upWithin))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, x := range sessions {
			if x.LocalSessionID == 0 {
				continue // not yet
			}
			all[fmt.Sprintf("session %d of %s", x.LocalSessionID, s.Name)] = x.Pseudowire
		}
	}
	return all
}

// ports are the tenants' devices and those of their first sessions, with their numbers, and what bridges they are in.
// Those of later sessions (pwr-…) come and go.
func (w *world) ports() string {
	w.t.Helper()
	all := ""
	for _, s := range w.sites {
		out, err := s.NS.Run(within(w.t, upWithin), "sh", "-c", "ip -o link show | grep -E '^[0-9]+: pwl?-' | cut -d ' ' -f 1,2,8,9")
		if err != nil {
			w.t.Fatal(err)
		}
		all += out
	}
	return all
}

// removesAll applies a topology without pseudowires, of which nothing is left then.
func (w *world) removesAll() {
	w.t.Helper()
	head, _, _ := strings.Cut(w.text(""), "pseudowires:")
	if err := <-w.applyBoth(head); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range w.sites {
		ctx := within(w.t, upWithin)
		if err := netlab.Poll(ctx, "nothing is left at "+s.Name, func() error {
			out, err := s.NS.Run(ctx, "sh", "-c", "ip -o link show | grep -E ' pw[-lor]-?'; ip l2tp show session")
			if err == nil && out != "" {
				err = errors.New(out)
			}
			return err
		}); err != nil {
			w.t.Error(err)
		}
	}
}
