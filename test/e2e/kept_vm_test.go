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
const keptRate = 1000

// The kernel's tunnels hang on sockets of the daemon. With a holder beside it frames flow on
// while it is stopped, killed and replaced, and nobody notices.
func TestKernelRestartLosesNothing(t *testing.T) {
	// Over UDP it is tested under systemd, in test/service.
	for encapsulation, how := range map[string]syscall.Signal{"ip": syscall.SIGKILL} {
		t.Run(encapsulation, func(t *testing.T) {
			w := build(t, network{datapaths: [2]string{"kernel", "kernel"}})
			w.write(w.over(encapsulation))
			for _, s := range w.sites {
				if err := s.StartHolder(); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			before := w.kept()
			f := w.flows(w.a, netlab.FlowOptions{Rate: keptRate, Size: 200})
			f.await(t, keptRate/5)
			for _, s := range w.sites {
				if err := s.Daemon.Signal(how); err != nil {
					t.Fatal(err)
				}
				<-s.Daemon.Exited()
				f.await(t, keptRate/5) // without a daemon
				s.Bin = w.copyOfPrograms()
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				w.awaitUp()
				f.await(t, keptRate/5)
			}
			f.stop(t)
			if after := w.kept(); after != before {
				t.Errorf("the kernel's tunnels, sessions and devices were\n%s\nand are\n%s", before, after)
			}
		})
	}
}

// over is the topology with another encapsulation.
func (w *world) over(encapsulation string) string {
	return strings.ReplaceAll(w.text(""), "{sites: [dc1, dc2]}", "{sites: [dc1, dc2], encapsulation: "+encapsulation+"}")
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
