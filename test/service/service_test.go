// Package service tests the package as an administrator uses it: installed with dpkg
// on a host with systemd, run as a service, replaced and removed, with another site's
// daemon as its peer and traffic all the while.
//
//	 host 0            machine                     dc2             host 1
//	eth0 ─────── eth1  systemd  eth0 ───────── eth0  pwd  eth1 ─────── eth0
//	198.51.100.1       pwd.service                               198.51.100.2
package service

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

const topology = `apiVersion: pwd/v1
kind: Topology
metadata: {name: service}
sites:
  dc1: {address: 192.0.2.1}
  dc2: {address: 192.0.2.2}
tunnels:
  gold: {sites: [dc1, dc2], secret-file: gold.secret}
pseudowires:
  lan: {tunnel: gold, attach: {dc1: {interface: eth1}, dc2: {interface: eth1}}}
`

const configuration = `apiVersion: pwd/v1
kind: Config
site: dc1
topology: /etc/pwd/topology.yaml
metrics: 127.0.0.1:9705
`

// packages are the .deb of two versions.
func packages(t *testing.T) (debs [2][]byte, versions [2]string) {
	t.Helper()
	versions = [2]string{"0.0.1", "0.0.2"}
	for i, v := range versions {
		out, err := exec.Command("make", "-C", "../..", "package", "VERSION="+v).CombinedOutput()
		if err != nil {
			t.Fatalf("make package: %v\n%s", err, out)
		}
		files, err := filepath.Glob("../../out/pwd_" + v + "*.deb")
		if err != nil || len(files) != 1 {
			t.Fatalf("packages %q, %v", files, err)
		}
		if debs[i], err = os.ReadFile(files[0]); err != nil {
			t.Fatal(err)
		}
	}
	return debs, versions
}

func TestService(t *testing.T) {
	debs, versions := packages(t)
	n := draw(t)
	peer := startPeer(t, n.far, "../../bin")

	m := boot(t, n.near)
	m.install(debs[0])
	m.write("/etc/pwd/pwd.yaml", "root:pwd", "640", []byte(configuration))
	// The secret is root's, and systemd gives it to the daemon.
	m.write("/etc/gold.secret", "root", "600", []byte("a secret of both\n"))
	m.run("mkdir", "/etc/systemd/system/pwd.service.d")
	m.write("/etc/systemd/system/pwd.service.d/secret.conf", "root", "644", []byte("[Service]\nLoadCredential=gold.secret:/etc/gold.secret\n"))
	m.run("systemctl", "daemon-reload")
	topology := strings.Replace(topology, "gold.secret", "/run/credentials/pwd.service/gold.secret", 1)
	m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(topology))
	m.run("systemctl", "start", "pwd.service")
	m.awaitHealthy(0)
	if err := peer.AwaitUp(within(t), 1, 1); err != nil {
		t.Fatal(err)
	}

	t.Run("it runs with little power", func(t *testing.T) { littlePower(t, m) })
	t.Run("metrics", func(t *testing.T) {
		out := m.run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9705; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
		if !strings.Contains(out, `pwd_pseudowire_state{peer="dc2",pseudowire="lan",state="up"} 1`) {
			t.Error(out)
		}
	})
	for _, c := range []struct {
		name string
		// do ends or replaces the daemon, or has it read its files.
		do  func()
		new bool
	}{
		{"reload", func() { m.run("systemctl", "reload", "pwd.service") }, false},
		{"restart", func() { m.run("systemctl", "restart", "pwd.service") }, true},
		{"stop and start", func() {
			m.run("systemctl", "stop", "pwd.service")
			if out := m.run("systemctl", "is-active", "pwd-hold.service"); out != "active\n" {
				t.Errorf("the holder is %s", out)
			}
			m.run("systemctl", "start", "pwd.service")
		}, true},
		{"kill -9", func() { m.run("kill", "-9", strconv.Itoa(m.daemon())) }, true},
		{"upgrade", func() { m.install(debs[1]) }, true},
		{"downgrade", func() { m.install(debs[0]) }, true},
	} {
		t.Run(c.name+" loses nothing", func(t *testing.T) {
			before := m.daemon()
			flow, err := n.hosts[0].Flow(n.hosts[1], netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: 10000, Size: 200})
			if err != nil {
				t.Fatal(err)
			}
			c.do()
			if c.new {
				m.awaitHealthy(before)
			} else if now := m.daemon(); now != before {
				t.Errorf("the daemon is another process: %d, then %d", before, now)
			}
			if err := flow.WaitReceived(within(t), 5000); err != nil {
				t.Fatal(err)
			}
			r, err := flow.Stop()
			if err != nil || r.Lost()+r.Duplicated+r.Damaged > 0 {
				t.Errorf("%v, %v", r, err)
			}
			t.Log(r)
		})
	}
	if out := m.run("pwctl", "status"); !strings.Contains(out, "pwd "+versions[0]) {
		t.Errorf("after the downgrade:\n%s", out)
	}

	t.Run("a broken topology changes nothing", func(t *testing.T) {
		m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(strings.Replace(topology, "tunnel: gold", "tunel: gold", 1)))
		m.run("systemctl", "restart", "pwd.service")
		if out, err := m.try("pwctl", "status"); err == nil || !strings.Contains(out, "pseudowire") && !strings.Contains(out, "lan") || !strings.Contains(out, "topology file") {
			t.Errorf("status: %v\n%s", err, out)
		}
		if log := m.run("journalctl", "--no-pager", "-u", "pwd"); !strings.Contains(log, "topology.yaml:10:9: error: pseudowires.lan.tunel: unknown key") {
			t.Errorf("the log does not name the mistake:\n%s", log)
		}
		m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(topology))
		before := m.daemon()
		m.run("systemctl", "reload", "pwd.service")
		if m.awaitHealthy(0); m.daemon() != before {
			t.Error("a reload is no restart")
		}
	})

	t.Run("it is removed with all that it made", func(t *testing.T) { purged(t, m, n) })
}

// purged has dpkg purge the package, and wants nothing of it to stay.
func purged(t *testing.T, m *machine, n *network) {
	m.dpkg("--purge", "pwd")
	links, err := n.near.Links()
	if err != nil || len(links) != 2 {
		t.Errorf("left: %q, %v", links, err)
	}
	if out, err := m.try("systemctl", "is-active", "pwd-hold.service"); err == nil {
		t.Errorf("the holder is %s", out)
	}
	m.gone("/sys/fs/bpf/pwd", "/var/lib/pwd", "/usr/libexec/pwd", "/usr/lib/systemd/system/pwd.service", "/run/pwd/pwd.sock", "/run/pwd-hold/hold.sock")
}

// network is what the tests draw.
type network struct {
	near, far *netlab.Namespace
	hosts     [2]*netlab.Namespace
}

func draw(t *testing.T) *network {
	t.Helper()
	lab := netlab.New(t)
	n := &network{near: lab.Namespace("dc1"), far: lab.Namespace("dc2")}
	underlay0, underlay1 := lab.Veth(n.near, "eth0", n.far, "eth0")
	// As on a wire, for the kernel's L2TP: nothing leaves with a checksum that is still to be computed.
	underlay0.Feature("tx-checksum-*", false).Addr("192.0.2.1/24").Up()
	underlay1.Feature("tx-checksum-*", false).Addr("192.0.2.2/24").Up()
	for i, ns := range []*netlab.Namespace{n.near, n.far} {
		n.hosts[i] = lab.Namespace(fmt.Sprintf("host %d", i))
		port, nic := lab.Veth(ns, "eth1", n.hosts[i], "eth0")
		port.Silent().Up()
		nic.Silent().Addr(fmt.Sprintf("198.51.100.%d/24", i+1)).Up()
	}
	return n
}

// startPeer starts the other site's daemon, from that folder.
func startPeer(t *testing.T, ns *netlab.Namespace, dir string, flags ...string) *site.Site {
	t.Helper()
	bin, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	file := filepath.Join(dir, "topology.yaml")
	for name, content := range map[string]string{"topology.yaml": topology, "gold.secret": "a secret of both\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &site.Site{Name: "dc2", NS: ns, Bin: bin, Dir: filepath.Join(dir, "dc2"), Topology: file, Flags: flags, Links: []string{"eth0", "eth1"}}
	t.Cleanup(s.Close)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// littlePower looks at what the daemon could do if somebody took it over.
func littlePower(t *testing.T, m *machine) {
	status := m.run("cat", fmt.Sprintf("/proc/%d/status", m.daemon()))
	field := func(name string) string {
		found := regexp.MustCompile(`(?m)^` + name + `:\s+(.*)$`).FindStringSubmatch(status)
		if found == nil {
			t.Fatalf("no %s in\n%s", name, status)
		}
		return found[1]
	}
	user := strings.TrimSpace(m.run("id", "-u", "pwd"))
	if uid := strings.Fields(field("Uid")); uid[0] != user || uid[1] != user || user == "0" {
		t.Errorf("it runs as %v, pwd is %s", uid, user)
	}
	// CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_BPF 39.
	const three = "0000008000003000"
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if got := field(set); got != three {
			t.Errorf("%s is %s, not the three capabilities %s", set, got, three)
		}
	}
	if field("NoNewPrivs") != "1" || field("Seccomp") != "2" {
		t.Errorf("NoNewPrivs %s, Seccomp %s", field("NoNewPrivs"), field("Seccomp"))
	}
	// By itself the path's mode says who may ask: root and the group.
	if out := strings.TrimSpace(m.run("stat", "-c", "%U:%G %a", "/run/pwd/pwd.sock")); out != "pwd:pwd 660" {
		t.Errorf("the socket is %s", out)
	}
	if out := strings.TrimSpace(m.run("stat", "-c", "%U:%G %a", "/run/pwd-hold", "/run/pwd-hold/hold.sock")); out != "pwd:pwd 700\npwd:pwd 600" {
		t.Errorf("the holder's folder and socket are %s", out)
	}
	holder := m.run("cat", "/proc/"+strings.TrimSpace(m.run("systemctl", "show", "--value", "-p", "MainPID", "pwd-hold.service"))+"/status")
	if !regexp.MustCompile(`(?m)^CapBnd:\s+0+$`).MatchString(holder) || !regexp.MustCompile(`(?m)^Uid:\s+`+user+`\s`).MatchString(holder) {
		t.Errorf("the holder is\n%s", holder)
	}
	score := m.run("systemd-analyze", "security", "--no-pager", "pwd.service")
	found := regexp.MustCompile(`Overall exposure level for pwd.service: ([0-9.]+)`).FindStringSubmatch(score)
	if found == nil {
		t.Fatal(score)
	}
	t.Log(found[0])
	if exposure, err := strconv.ParseFloat(found[1], 64); err != nil || exposure > 2.5 {
		t.Errorf("systemd-analyze security: %s, %v; 2.5 is the most", found[1], err)
	}
}
