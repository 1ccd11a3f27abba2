//go:build vm

package service

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// They are small, for the suite; 100, 50 and 10000 show that it was not luck. An emulated
// machine keeps to no rate: what it did is in the log.
var (
	longFlag   = flag.Bool("long", false, "have TestKernelDatapath do more of what takes its time")
	killsFlag  = flag.Int("kills", 1, "how often TestKernelDatapath kills the daemon")
	othersFlag = flag.Int("others", 3, "how many other pseudowires TestKernelDatapath adds, changes and removes")
	idleFlag   = flag.Duration("idle", time.Second, "how long TestKernelDatapath sends while nothing happens")
	rateFlag   = flag.Int("rate", 2000, "packets a second that TestKernelDatapath sends, if the machine can")
)

// kernelSites are a service and its peer, both on the kernel's datapath.
type kernelSites struct {
	t    *testing.T
	n    *network
	m    *machine
	peer *site.Site
	bin  string
	// others is how many more pseudowires there are on the same tunnel, of what MTU.
	others, mtu int
	secrets     string
}

// install puts programs of that folder in the place of those that are there.
func (k *kernelSites) install(from string) {
	k.t.Helper()
	// Into the virtual machine's own root, which is gone after it; the one with systemd is a layer over it.
	for _, name := range []string{"libexec/pwd/pwd", "bin/pwctl"} {
		b, err := os.ReadFile(filepath.Join(from, filepath.Base(name)))
		if err != nil {
			k.t.Fatal(err)
		}
		k.m.run("mkdir", "-p", "/usr/libexec/pwd")
		k.m.write("/usr/"+name+".new", "root", "755", b)
		k.m.run("mv", "/usr/"+name+".new", "/usr/"+name)
	}
}

func (k *kernelSites) text() string {
	var others strings.Builder
	for i := range k.others {
		fmt.Fprintf(&others, "  other-%d: {tunnel: gold, mtu: %d, attach: {dc1: {bridge: br-other, vlan: %d}, dc2: {bridge: br-other, vlan: %d}}}\n", i, k.mtu, 1000+i, 2000+i)
	}
	return strings.NewReplacer(
		"192.0.2.1}", "192.0.2.1, bridges: {br-other: {}}}", "192.0.2.2}", "192.0.2.2, bridges: {br-other: {}}}",
		"gold.secret", k.secrets,
	).Replace(topology) + others.String()
}

// apply puts what k says in force at both sites, and waits until all of it is up.
func (k *kernelSites) apply() {
	k.t.Helper()
	text := []byte(k.text())
	k.m.write("/etc/pwd/topology.yaml", "root:pwd", "640", text)
	k.m.run("systemctl", "reload", "pwd.service")
	if err := os.WriteFile(k.peer.Topology, text, 0o644); err != nil {
		k.t.Fatal(err)
	}
	if out, err := k.peer.Pwctl(within(k.t), "apply", "-y", "-f", k.peer.Topology); err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
	k.m.awaitHealthy(0)
	if err := k.peer.AwaitUp(within(k.t), 1, 1+k.others); err != nil {
		k.t.Fatal(err)
	}
}

// The kernel's datapath under systemd: its file descriptor store has the sockets over a
// crash and an upgrade, and the holder's service over a stop and a start. Whatever is done to
// the site, the traffic of a pseudowire that it is not about loses nothing.
func TestKernelDatapath(t *testing.T) {
	if out, err := exec.Command("modprobe", "-a", "l2tp_eth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n := draw(t)
	k := &kernelSites{t: t, n: n, m: boot(t, n.near), bin: os.Getenv("PWD_BIN"), secrets: "gold.secret"}
	m := k.m
	k.install(k.bin)
	for from, to := range map[string]string{
		"pwd.service": "/etc/systemd/system/pwd.service", "pwd-hold.service": "/etc/systemd/system/pwd-hold.service", "sysusers.conf": "/etc/sysusers.d/pwd.conf",
	} {
		b, err := os.ReadFile(filepath.Join("../../configs/systemd", from))
		if err != nil {
			t.Fatal(err)
		}
		m.run("mkdir", "-p", filepath.Dir(to))
		m.write(to, "root", "644", b)
	}
	m.run("systemd-sysusers", "pwd.conf")
	m.run("install", "-d", "-o", "root", "-g", "pwd", "-m", "0750", "/etc/pwd")
	m.write("/etc/pwd/pwd.yaml", "root:pwd", "640", []byte(configuration+"datapath: kernel\n"))
	m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(k.text()))
	for _, name := range []string{"gold.secret", "new.secret"} {
		m.write("/etc/pwd/"+name, "pwd:pwd", "600", []byte("the "+name))
	}
	k.peer = startPeer(t, n.far, k.bin, "--datapath", "kernel")
	for _, name := range []string{"gold.secret", "new.secret"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(k.peer.Topology), name), []byte("the "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "start", "pwd.service")
	k.apply()
	if out := m.run("pwctl", "doctor"); !strings.Contains(out, "file descriptor store: yes") || !strings.Contains(out, "holder: yes") {
		t.Errorf("the doctor says:\n%s", out)
	}
	if kept := m.property("NFileDescriptorStore"); kept != "1" {
		t.Errorf("systemd keeps %s descriptors", kept)
	}

	cases := []struct {
		name string
		do   func()
	}{
		{"nothing", func() { time.Sleep(*idleFlag) }},
		{"a crash, again and again", func() {
			for range *killsFlag {
				m.run("systemctl", "reset-failed", "pwd.service") // it gives a service up that crashes that often
				k.replaced(func() { m.run("kill", "-9", strconv.Itoa(m.daemon())) })
			}
		}},
		{"a stop and a start", func() {
			k.replaced(func() {
				m.run("systemctl", "stop", "pwd.service")
				m.run("systemctl", "start", "pwd.service")
			})
		}},
		{"an upgrade with a holder that has nothing", func() {
			m.run("systemctl", "stop", "pwd-hold.service")
			k.upgrade(filepath.Join(k.bin, "upgrade"), "pwd v9.9.9")
		}},
		{"secrets that rotate", func() {
			for _, k.secrets = range []string{"[gold.secret, new.secret]", "new.secret"} {
				k.apply()
			}
		}},
		{"other pseudowires that come, change and go", func() {
			k.others, k.mtu = *othersFlag, 1400
			k.apply()
			k.mtu = 1300
			k.apply()
			k.others = 0
			k.apply()
		}},
	}
	if *longFlag {
		cases = append(cases, []struct {
			name string
			do   func()
		}{
			{"a downgrade", func() { k.upgrade(k.bin, "pwd devel") }},
			{"a restart", func() { k.replaced(func() { m.run("systemctl", "restart", "pwd.service") }) }},
			{"a stop and a start with the store alone, where that can outlive a stop,", func() {
				if m.systemd() < 254 {
					return
				}
				m.run("mkdir", "-p", "/etc/systemd/system/pwd.service.d")
				m.write("/etc/systemd/system/pwd.service.d/preserve.conf", "root", "644", []byte("[Service]\nFileDescriptorStorePreserve=yes\n"))
				// Of a unit that nothing refers to systemd 254 keeps nothing.
				m.run("systemctl", "add-wants", "basic.target", "pwd.service")
				m.run("systemctl", "stop", "pwd-hold.service")
				m.run("systemctl", "mask", "--runtime", "pwd-hold.service")
				k.replaced(func() {
					m.run("systemctl", "stop", "pwd.service")
					if kept := m.property("NFileDescriptorStore"); kept != "1" {
						t.Errorf("systemd keeps %s descriptors of the service that is stopped", kept)
					}
					m.run("systemctl", "start", "pwd.service")
				})
				m.run("systemctl", "unmask", "--runtime", "pwd-hold.service")
			}},
		}...)
	}
	for _, c := range cases {
		t.Run(c.name+" loses nothing", func(t *testing.T) {
			flow, err := n.hosts[0].Flow(n.hosts[1], netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: *rateFlag, Size: 200})
			if err != nil {
				t.Fatal(err)
			}
			c.do()
			if err := flow.WaitReceived(within(t), uint64(*rateFlag)/5); err != nil {
				t.Fatal(err)
			}
			r, err := flow.Stop()
			if err != nil || r.Lost()+r.Duplicated+r.Reordered+r.Damaged > 0 {
				t.Errorf("%v, %v\n%s", r, err, m.run("journalctl", "--no-pager", "-n", "40", "-u", "pwd"))
			}
			t.Log(r)
		})
	}
	if log := m.run("journalctl", "--no-pager", "-u", "pwd"); strings.Contains(log, "no saved connection's") {
		t.Errorf("sockets were closed:\n%s", log)
	}
}

// upgrade installs the programs of a folder and starts them, as a package does.
func (k *kernelSites) upgrade(from, version string) {
	k.t.Helper()
	k.install(from)
	k.replaced(func() { k.m.run("systemctl", "restart", "pwd.service") })
	if out := k.m.run("pwctl", "status"); !strings.Contains(out, version) {
		k.t.Errorf("after the installation of %s:\n%s", version, out)
	}
}

// replaced does what ends in another daemon, and waits for that.
func (k *kernelSites) replaced(do func()) {
	k.t.Helper()
	before := k.m.daemon()
	do()
	k.m.awaitHealthy(before)
}
