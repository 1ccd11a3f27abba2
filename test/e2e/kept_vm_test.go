//go:build vm

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// They are small, for the suite; 100, 50 and 5000 show that it was not luck: see docs/performance.md. What a
// frame is lost by, a moment without socket or session, is the same at any rate.
var (
	keptKills  = flag.Int("kept-kills", 2, "how often TestKernelRestartLosesNothing ends a daemon")
	keptOthers = flag.Int("kept-others", 1, "how many other pseudowires come, change and go in TestKernelRestartLosesNothing")
	keptWithin = flag.Duration("kept-within", 100*time.Millisecond, "how long after the beginning of an apply TestKernelRestartLosesNothing ends the daemon, at most")
	keptRate   = flag.Int("kept-rate", 500, "datagrams a second in each of the four flows of TestKernelRestartLosesNothing, if the machine can")
)

// The kernel's tunnels hang on sockets of the daemon. With a holder beside it frames flow on
// while it is killed and replaced, whatever it was about to do, and nobody notices: over IP, and
// without a control connection; over UDP the others are signalled, and change meanwhile.
func TestKernelRestartLosesNothing(t *testing.T) {
	w := build(t, network{datapaths: [2]string{"kernel", "kernel"}})
	own := strings.NewReplacer(
		"{br-lan: {ports: [eth1]}}", "{br-lan: {ports: [eth1]}, br-other: {}}",
		"gold: {sites: [dc1, dc2]}", "gold: {sites: [dc1, dc2], encapsulation: ip}",
		"silver: {sites: [dc1, dc2]}", "silver: {sites: [dc1, dc2], static: {dc1: {connection-id: 10, port: 5000}, dc2: {connection-id: 20, port: 6000}}}\n  bronze: {sites: [dc1, dc2]}",
		"    tunnel: silver\n", "    tunnel: silver\n    static: {dc1: {session-id: 100, cookie: \"a1a2a3a4\"}, dc2: {session-id: 200}}\n",
	).Replace(w.text(""))
	w.write(own)
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
	before := w.kept()
	for ctx := within(t, upWithin); strings.Contains(before, "NO-CARRIER") && ctx.Err() == nil; {
		before = w.kept() // the kernel tells of carriers late
	}
	others := []string{w.withOthers(own, *keptOthers, 1400), w.withOthers(own, *keptOthers, 1300), own}
	for i := range *keptKills {
		s, how := w.sites[i%2], syscall.SIGKILL
		if i == 1 {
			how = syscall.SIGTERM
		}
		applied := w.applyBoth(others[i%3])
		time.Sleep(rand.N(*keptWithin)) // somewhere in that
		if err := s.Daemon.Signal(how); err != nil {
			t.Fatal(err)
		}
		<-s.Daemon.Exited()
		await() // without a daemon
		if i > 1 {
			os.RemoveAll(s.Bin) // a hundred of them are more than the machine has room for
		}
		s.Bin = w.copyOfPrograms()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		w.awaitOwn()
		await()
	}
	if err := <-w.applyBoth(own); err != nil {
		t.Fatal(err)
	}
	w.awaitOwn()
	for _, f := range all {
		f.stop(t)
	}
	if after := w.kept(); after != before {
		t.Errorf("the kernel's sessions and devices were\n%s\nand are\n%s", before, after)
	}
}

// awaitOwn waits until the pseudowires of the two tenants are up, whatever others there are.
func (w *world) awaitOwn() {
	w.t.Helper()
	for _, s := range w.sites {
		if err := s.Await(within(w.t, patience), "both tenants' pseudowires are up", func(st *api.Status) error {
			up := 0
			for _, p := range st.Pseudowires {
				if strings.HasPrefix(p.Name, "tenant-") && p.State == "up" {
					up++
				}
			}
			if up < 2 {
				return fmt.Errorf("%d are", up)
			}
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// withOthers is a topology with n further pseudowires.
func (w *world) withOthers(own string, n, mtu int) string {
	var b strings.Builder
	b.WriteString(own)
	for i := range n {
		fmt.Fprintf(&b, "  other-%d: {tunnel: bronze, mtu: %d, attach: {dc1: {bridge: br-other, vlan: %d}, dc2: {bridge: br-other, vlan: %d}}}\n", i, mtu, 1000+i, 2000+i)
	}
	return b.String()
}

// applyBoth applies a topology at both sites, again where a daemon ends over it, and
// tells when it is in force.
func (w *world) applyBoth(text string) <-chan error {
	done := make(chan error, 1)
	ctx := within(w.t, patience)
	go func() {
		var errs []error
		for i, s := range w.sites {
			errs = append(errs, netlab.Poll(ctx, "the topology is applied at "+s.Name, func() error { return w.apply(i, text) }))
		}
		done <- errors.Join(errs...)
	}()
	return done
}

// kept is what a restart is not to change, of the tenants' sessions and devices.
func (w *world) kept() string {
	w.t.Helper()
	all := ""
	for _, s := range w.sites {
		for _, command := range []string{
			"ip l2tp show session", "ip -br link show | grep tenant-", "bridge link show | grep tenant-",
		} {
			out, err := s.NS.Run(within(w.t, upWithin), "sh", "-c", command)
			if err != nil {
				w.t.Fatalf("%s: %v", command, err)
			}
			all += out
		}
	}
	return all
}

// copyOfPrograms is a folder with the programs under test, as an upgrade leaves them.
func (w *world) copyOfPrograms() string {
	w.t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(w.topology), "programs-")
	if err != nil {
		w.t.Fatal(err)
	}
	if out, err := exec.Command("cp", filepath.Join(bin, "pwd"), filepath.Join(bin, "pwctl"), dir).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return dir
}
