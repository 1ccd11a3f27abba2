//go:build vm

package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// The package, installed by dpkg in the machine with the kernel's L2TP: its service runs there under
// systemd with little power, and comes back from a restart and from a kill.
func TestPackage(t *testing.T) {
	if out, err := exec.Command("modprobe", "-a", "l2tp_eth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bin := os.Getenv("PWD_BIN")
	deb, err := os.ReadFile(filepath.Join(bin, "pwd_0.0.1.deb"))
	if err != nil {
		t.Fatal(err)
	}
	n := draw(t)
	m := boot(t, n.near)
	m.ownDatabase()
	m.install(deb)
	m.write("/etc/pwd/pwd.yaml", "root:pwd", "640", []byte(configuration+"datapath: kernel\n"))
	m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(topology))
	m.write("/etc/pwd/gold.secret", "pwd:pwd", "600", []byte("a secret of both\n"))
	peer := startPeer(t, n.far, bin, "--datapath", "kernel")
	m.run("systemctl", "start", "pwd.service")
	m.awaitHealthy(0)
	littlePower(t, m)
	for _, end := range []func(){
		func() { m.run("systemctl", "restart", "pwd.service") },
		func() { m.run("kill", "-9", strconv.Itoa(m.daemon())) },
	} {
		before := m.daemon()
		end()
		m.awaitHealthy(before)
	}
	if err := peer.AwaitUp(within(t), 1, 1); err != nil {
		t.Fatal(err)
	}
}
