//go:build vm

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// keptRate is what a machine carries that is emulated, one processor at a time. What a frame
// is lost by, a moment without socket or session, is the same at any rate.
const keptRate = 500

// The kernel's tunnels hang on sockets of the daemon. With a holder beside it frames flow on
// while it is killed and replaced, and nobody notices: over IP, and without a control connection.
// Over UDP with one it is tested under systemd, in test/service.
func TestKernelRestartLosesNothing(t *testing.T) {
	w := build(t, network{datapaths: [2]string{"kernel", "kernel"}})
	w.write(strings.NewReplacer(
		"gold: {sites: [dc1, dc2]}", "gold: {sites: [dc1, dc2], encapsulation: ip}",
		"silver: {sites: [dc1, dc2]}", "silver: {sites: [dc1, dc2], static: {dc1: {connection-id: 10, port: 5000}, dc2: {connection-id: 20, port: 6000}}}",
		"    tunnel: silver\n", "    tunnel: silver\n    static: {dc1: {session-id: 100, cookie: \"a1a2a3a4\"}, dc2: {session-id: 200}}\n",
	).Replace(w.text("")))
	for _, s := range w.sites {
		if err := s.StartHolder(); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	all := []flows{w.flows(w.a, netlab.FlowOptions{Rate: keptRate, Size: 200}), w.flows(w.b, netlab.FlowOptions{Rate: keptRate, Size: 200})}
	await := func() {
		for _, f := range all {
			f.await(t, keptRate/5)
		}
	}
	await()
	before := w.kept()
	for ctx := within(t, upWithin); strings.Contains(before, "NO-CARRIER") && ctx.Err() == nil; {
		before = w.kept() // the kernel tells of carriers late
	}
	for i, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s := w.sites[i]
		if err := s.Daemon.Signal(how); err != nil {
			t.Fatal(err)
		}
		<-s.Daemon.Exited()
		await() // without a daemon
		s.Bin = w.copyOfPrograms()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		w.awaitUp()
		await()
	}
	for _, f := range all {
		f.stop(t)
	}
	if after := w.kept(); after != before {
		t.Errorf("the kernel's tunnels, sessions and devices were\n%s\nand are\n%s", before, after)
	}
}

// kept is what a restart is not to change.
func (w *world) kept() string {
	w.t.Helper()
	all := ""
	for _, s := range w.sites {
		for _, command := range []string{
			"ip l2tp show tunnel", "ip l2tp show session", "ip -br link show", "bridge link show",
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
