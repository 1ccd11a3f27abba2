//go:build packages

package service

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The .rpm does what the .deb does, with Debian's rpm and without dependencies, which that
// does not know: it is installed, upgraded under traffic, and erased.
//
//	go test -tags packages -run TestRPM ./test/service
func TestRPM(t *testing.T) {
	var rpms [2][]byte
	for i, v := range []string{"0.0.1", "0.0.2"} {
		if out, err := exec.Command("make", "-C", "../..", "package", "VERSION="+v).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile("../../out/pwd-" + v + "-1.x86_64.rpm")
		if err != nil {
			t.Fatal(err)
		}
		rpms[i] = b
	}
	n := draw(t)
	peer := startPeer(t, n.far, "../../bin")
	m := boot(t, n.near)
	rpm := func(i int, how string) {
		t.Helper()
		m.write("/opt/pwd.rpm", "root", "600", rpms[i])
		m.run("rpm", how, "--nodeps", "/opt/pwd.rpm")
	}
	rpm(0, "--install")
	m.write("/etc/pwd/pwd.yaml", "root:pwd", "640", []byte(configuration))
	m.write("/etc/pwd/topology.yaml", "root:pwd", "640", []byte(topology))
	m.write("/etc/pwd/gold.secret", "pwd:pwd", "600", []byte("a secret of both\n"))
	m.run("systemctl", "start", "pwd.service")
	m.awaitHealthy(0)
	if err := peer.AwaitUp(within(t), 1, 1); err != nil {
		t.Fatal(err)
	}
	littlePower(t, m)
	flow, err := n.hosts[0].Flow(n.hosts[1], netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: 10000, Size: 200})
	if err != nil {
		t.Fatal(err)
	}
	before := m.daemon()
	rpm(1, "--upgrade")
	m.awaitHealthy(before)
	if err := flow.WaitReceived(within(t), 5000); err != nil {
		t.Fatal(err)
	}
	if r, err := flow.Stop(); err != nil || r.Lost()+r.Duplicated+r.Reordered+r.Damaged > 0 {
		t.Errorf("the upgrade: %v, %v", r, err)
	} else {
		t.Log(r)
	}
	if out := m.run("pwctl", "status"); !strings.Contains(out, "pwd 0.0.2") {
		t.Errorf("after the upgrade:\n%s", out)
	}
	m.run("rpm", "--erase", "pwd")
	if links, err := n.near.Links(); err != nil || len(links) != 2 {
		t.Errorf("left: %q, %v", links, err)
	}
	m.gone("/sys/fs/bpf/pwd", "/usr/libexec/pwd", "/run/pwd/pwd.sock", "/run/pwd-hold/hold.sock")
}
