//go:build vm

package service

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The kernel's datapath under systemd: its file descriptor store has the sockets over a
// crash and an upgrade, and the holder's service over a stop and a start.
func TestKernelDatapath(t *testing.T) {
	if out, err := exec.Command("modprobe", "-a", "l2tp_eth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bin := os.Getenv("PWD_BIN")
	// Into the virtual machine's own root, which is gone after it; the one with systemd is a layer over it.
	for from, to := range map[string]string{
		filepath.Join(bin, "pwd"): "/usr/libexec/pwd/pwd", filepath.Join(bin, "pwctl"): "/usr/bin/pwctl",
		"../../configs/systemd/pwd.service":      "/etc/systemd/system/pwd.service",
		"../../configs/systemd/pwd-hold.service": "/etc/systemd/system/pwd-hold.service",
		"../../configs/systemd/sysusers.conf":    "/etc/sysusers.d/pwd.conf",
	} {
		if out, err := exec.Command("install", "-D", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	n := draw(t)
	m := boot(t, n.near)
	m.run("systemd-sysusers", "pwd.conf")
	m.run("install", "-d", "-o", "root", "-g", "pwd", "-m", "0750", "/etc/pwd")
	m.write("/etc/pwd/pwd.yaml", "root:pwd", "640", []byte(configuration+"datapath: kernel\n"))
	m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(topology))
	m.write("/etc/pwd/gold.secret", "pwd:pwd", "600", []byte("a secret of both\n"))
	peer := startPeer(t, n.far, bin, "--datapath", "kernel")
	m.run("systemctl", "start", "pwd.service")
	m.awaitHealthy(0)
	if err := peer.AwaitUp(within(t), 1, 1); err != nil {
		t.Fatal(err)
	}
	if out := m.run("pwctl", "doctor"); !strings.Contains(out, "file descriptor store: yes") || !strings.Contains(out, "holder: yes") {
		t.Errorf("the doctor says:\n%s", out)
	}
	if kept := m.property("NFileDescriptorStore"); kept != "1" {
		t.Errorf("systemd keeps %s descriptors", kept)
	}

	for _, c := range []struct {
		name string
		do   func()
	}{
		{"kill -9", func() { m.run("kill", "-9", strconv.Itoa(m.daemon())) }},
		{"a stop and a start", func() {
			m.run("systemctl", "stop", "pwd.service")
			m.run("systemctl", "start", "pwd.service")
		}},
		{"an upgrade with a holder that has nothing", func() {
			m.run("systemctl", "stop", "pwd-hold.service")
			m.run("sh", "-c", "cp /usr/libexec/pwd/pwd /usr/libexec/pwd/new && mv /usr/libexec/pwd/new /usr/libexec/pwd/pwd")
			m.run("systemctl", "restart", "pwd.service")
		}},
	} {
		t.Run(c.name+" loses nothing", func(t *testing.T) {
			before := m.daemon()
			// As much as an emulated machine carries.
			flow, err := n.hosts[0].Flow(n.hosts[1], netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: 1000, Size: 200})
			if err != nil {
				t.Fatal(err)
			}
			c.do()
			m.awaitHealthy(before)
			if err := flow.WaitReceived(within(t), 200); err != nil {
				t.Fatal(err)
			}
			r, err := flow.Stop()
			if err != nil || r.Lost()+r.Duplicated+r.Damaged > 0 {
				t.Errorf("%v, %v\n%s", r, err, m.run("journalctl", "--no-pager", "-n", "40", "-u", "pwd"))
			}
			t.Log(r)
		})
	}
	if log := m.run("journalctl", "--no-pager", "-u", "pwd"); strings.Contains(log, "no saved connection's") {
		t.Errorf("sockets were closed:\n%s", log)
	}
}
