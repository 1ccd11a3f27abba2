package service

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

var layerFlag = flag.String("layer", "", "a `folder` whose files go before this host's in machines, as those of another systemd")

// patience is for one thing to happen on a busy machine.
const patience = 2 * time.Minute

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// machine is a host with systemd as its process 1, in a network namespace of a lab.
type machine struct {
	t    *testing.T
	init string // the process ID of its process 1, as others see it
	// database is dpkg's folder, if it is another than the host's: to read all of that takes an
	// emulated machine long.
	database string
}

// boot starts a machine; it ends with the lab.
func boot(t *testing.T, ns *netlab.Namespace) *machine {
	t.Helper()
	p, err := ns.Start("machine", exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "--cgroup", "--ipc", "--uts",
		"sh", "./machine.sh", t.TempDir(), *layerFlag))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t}
	if err := netlab.Poll(within(t), "systemd runs", func() error {
		select {
		case <-p.Exited():
			return fmt.Errorf("the machine has ended: %s", p.Output())
		default:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.Cmd.Process.Pid))
		if err != nil {
			return err
		}
		if m.init = strings.TrimSpace(string(b)); m.init == "" {
			return errors.New("no process yet")
		}
		out, err := m.try("systemctl", "is-system-running")
		if state := strings.TrimSpace(out); state != "running" && state != "degraded" {
			return fmt.Errorf("systemd is %s, %w", state, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// try runs a program in the machine.
func (m *machine) try(args ...string) (string, error) { return m.tryWith(nil, args...) }

func (m *machine) tryWith(stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(within(m.t), "nsenter", append([]string{"--target", m.init, "--all", "--root", "--wd", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try of what has to succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		log, _ := m.try("journalctl", "--no-pager", "-n", "40", "-u", "pwd")
		m.t.Fatalf("%s: %v\n%s\n%s", strings.Join(args, " "), err, out, log)
	}
	return out
}

// write makes a file in the machine.
func (m *machine) write(path, owner, mode string, content []byte) {
	m.t.Helper()
	if out, err := m.tryWith(content, "sh", "-c", `cat >"$0" && chown "$1" "$0" && chmod "$2" "$0"`, path, owner, mode); err != nil {
		m.t.Fatalf("write %s: %v\n%s", path, err, out)
	}
}

// ownDatabase gives dpkg an empty one, of no other packages.
func (m *machine) ownDatabase() {
	m.t.Helper()
	m.database = "/opt/dpkg"
	m.run("mkdir", "-p", m.database+"/info", m.database+"/updates", m.database+"/triggers")
	m.write(m.database+"/status", "root", "644", nil)
}

// dpkg runs it. Triggers, as the manual pages' index, are the whole host's affair.
func (m *machine) dpkg(args ...string) {
	m.t.Helper()
	command := []string{"dpkg", "--no-triggers"}
	if m.database != "" {
		command = append(command, "--admindir="+m.database)
	}
	m.run(append(command, args...)...)
}

// install has dpkg do so with a .deb.
func (m *machine) install(deb []byte) {
	m.t.Helper()
	m.write("/opt/pwd.deb", "root", "600", deb)
	m.dpkg("--install", "/opt/pwd.deb")
}

// gone wants none of the files, folders and sockets to be there.
func (m *machine) gone(paths ...string) {
	m.t.Helper()
	for _, path := range paths {
		if out, err := m.try("ls", "-ld", path); err == nil || !strings.Contains(out, "No such file") {
			m.t.Errorf("left: %s, %v", out, err)
		}
	}
}

// systemd is its version.
func (m *machine) systemd() int {
	m.t.Helper()
	out := m.run("systemctl", "--version")
	var version int
	if _, err := fmt.Sscanf(out, "systemd %d", &version); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	return version
}

// property is what systemd says of the service.
func (m *machine) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--value", "-p", name, "pwd.service"))
}

// daemon is the process ID of the daemon, inside the machine.
func (m *machine) daemon() int {
	m.t.Helper()
	pid, err := strconv.Atoi(m.property("MainPID"))
	if err != nil || pid == 0 {
		m.t.Fatalf("the daemon's process: %d, %v\n%s", pid, err, m.run("journalctl", "--no-pager", "-n", "40"))
	}
	return pid
}

// awaitHealthy waits until the daemon that runs is another than before, and well.
func (m *machine) awaitHealthy(before int) {
	m.t.Helper()
	if err := netlab.Poll(within(m.t), "a healthy daemon", func() error {
		// pwctl is more to start, on an emulated machine.
		out, err := m.try("systemctl", "show", "--value", "-p", "MainPID", "-p", "ActiveState", "pwd.service")
		pid, state, _ := strings.Cut(strings.TrimSpace(out), "\n")
		if err != nil || pid == strconv.Itoa(before) || pid == "0" || state != "active" {
			return fmt.Errorf("the daemon's process is %s, %s, %w", pid, state, err)
		}
		if out, err := m.try("pwctl", "status"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		m.t.Fatalf("%v\n%s", err, m.run("journalctl", "--no-pager", "-n", "60", "-u", "pwd"))
	}
}
