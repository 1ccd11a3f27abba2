package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// The numbers of users and groups that no host has.
const (
	lookers, changers = 641001, 641002
	alice, bob, carol = 642001, 642002, 642003
)

// Who may look and who may change is decided by what the kernel says of pwctl's process.
func TestAccess(t *testing.T) {
	beside(t)
	dir := t.TempDir()
	// Others have to get at the socket and at pwctl.
	for _, d := range []string{dir, filepath.Dir(dir), bin} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "pwd.yaml")
	const text = "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: t%d}\nsites:\n  dc1: {address: 192.0.2.1}\n"
	access := fmt.Sprintf("apiVersion: pwd/v1\nkind: Config\naccess:\n  group: %d\n  change: {users: [%d], groups: [%d]}\n", lookers, alice, changers)
	topology := filepath.Join(dir, "topology.yaml")
	for name, content := range map[string]string{config: access, topology: fmt.Sprintf(text, 1)} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lab := netlab.New(t)
	s := &site.Site{Name: "dc1", NS: lab.Namespace("dc1"), Bin: bin, Dir: filepath.Join(dir, "dc1"), Topology: topology, Flags: []string{"--config", config}}
	t.Cleanup(s.Close)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitUp(within(t, upWithin), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.Socket())
	if err != nil || info.Sys().(*syscall.Stat_t).Gid != lookers || info.Mode().Perm() != 0o660 {
		t.Fatalf("the socket: %v, %v", info, err)
	}
	for _, tt := range []struct {
		who         string
		user        uint32
		groups      []uint32
		look, apply int
	}{
		{"alice, who is named", alice, []uint32{alice, lookers}, 0, 0},
		{"bob, in the group that is named", bob, []uint32{bob, lookers, changers}, 0, 0},
		{"carol, who may look", carol, []uint32{carol, lookers}, 0, 10},
		{"a stranger", carol, []uint32{carol}, 10, 10},
	} {
		as := func(args ...string) (int, string) {
			cmd := exec.Command(filepath.Join(bin, "pwctl"), append([]string{"--socket", s.Socket()}, args...)...)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.user, Gid: tt.groups[0], Groups: tt.groups[1:]}}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			return cmd.ProcessState.ExitCode(), string(out)
		}
		if code, out := as("get", "tunnels"); code != tt.look {
			t.Errorf("%s looks: exit code %d, want %d\n%s", tt.who, code, tt.look, out)
		}
		if err := os.WriteFile(topology, fmt.Appendf(nil, text, tt.user), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out := as("apply", "-y", "-f", topology)
		if code != tt.apply {
			t.Errorf("%s applies: exit code %d, want %d\n%s", tt.who, code, tt.apply, out)
		}
		if tt.look == 0 && tt.apply == 10 && !strings.Contains(out, fmt.Sprintf("only root, the daemon's own user and %d, members of %d may change this site; you are uid %d", alice, changers, carol)) {
			t.Errorf("%s is told: %s", tt.who, out)
		}
	}
	history, err := s.Pwctl(t.Context(), "history")
	if err != nil || !strings.Contains(history, fmt.Sprintf("uid %d", bob)) {
		t.Errorf("history: %v\n%s", err, history)
	}
}
