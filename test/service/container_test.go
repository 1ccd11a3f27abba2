//go:build packages

package service

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The image works as the head of its Containerfile says, with buildah and podman of the
// host. The stage that compiles is not run, as its base is in a registry: what it makes
// comes from the same make target here.
//
//	go test -tags packages -run TestContainer ./test/service
func TestContainer(t *testing.T) {
	context := t.TempDir()
	if out, err := exec.Command("make", "-C", "../..", "install-image", "DESTDIR="+context+"/image").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := draw(t)
	peer := startPeer(t, n.far, "../../bin")
	m := boot(t, n.near)
	// What this host's sandbox wants besides, and no other.
	podman := func(args ...string) []string {
		return append([]string{"podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}, args...)
	}
	containerfile, err := filepath.Abs("../../configs/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	m.run("mkdir", "-p", "/opt/context/image")
	archive, err := exec.Command("tar", "-C", context+"/image", "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	m.write("/opt/image.tar", "root", "600", archive)
	m.run("tar", "-C", "/opt/context/image", "-xf", "/opt/image.tar")
	m.run("buildah", "--storage-driver", "vfs", "bud", "--isolation", "chroot", "--build-context", "build=/opt/context", "-f", containerfile, "-t", "pwd", "/opt/context")
	m.run("mkdir", "-p", "/etc/pwd", "/run/pwd")
	m.write("/etc/pwd/pwd.yaml", "root", "600", []byte(configuration))
	m.write("/etc/pwd/topology.yaml", "root", "600", []byte(topology))
	m.write("/etc/pwd/gold.secret", "root", "600", []byte("a secret of both\n"))

	m.run(podman(append([]string{"run", "-d", "--name", "pwd", "--cgroups", "disabled", "--log-driver", "k8s-file",
		"--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1000:1000"}, documented(t, containerfile)...)...)...)
	pwctl := podman("exec", "pwd", "/usr/bin/pwctl", "status")
	healthy := func(what string) {
		t.Helper()
		if err := netlab.Poll(within(t), what, func() error {
			_, err := m.try(pwctl...)
			return err
		}); err != nil {
			out, _ := m.try(pwctl...)
			log, _ := m.try(podman("logs", "pwd")...)
			t.Fatalf("%v\n%s\n%s", err, out, log)
		}
	}
	healthy("a healthy daemon")
	if err := peer.AwaitUp(within(t), 1, 1); err != nil {
		t.Fatal(err)
	}
	if out := m.run("env", "PWCTL_SOCKET=/run/pwd/pwd.sock", peer.Bin+"/pwctl", "status"); !strings.Contains(out, "datapath ebpf") {
		t.Errorf("on the host:\n%s", out)
	}
	if out := m.run("sh", "-c", "ls -d /sys/fs/bpf/pwd/net-*/maps-*"); out == "" {
		t.Error("nothing is pinned on the host's bpffs")
	}
	if out := m.run("cat", "/proc/sys/net/ipv6/conf/pw-lan/disable_ipv6"); out != "1\n" {
		t.Errorf("IPv6 of pw-lan is not disabled: %s", out)
	}
	flow, err := n.hosts[0].Flow(n.hosts[1], netip.MustParseAddr("198.51.100.2"), netlab.FlowOptions{Rate: 10000, Size: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range [][]string{{"stop", "pwd"}, {"kill", "pwd"}} {
		m.run(podman(how...)...)
		if err := flow.WaitReceived(within(t), 2000); err != nil { // without a daemon
			t.Fatal(err)
		}
		m.run(podman("start", "pwd")...)
		healthy("a healthy daemon after podman " + how[0])
	}
	if err := flow.WaitReceived(within(t), 2000); err != nil {
		t.Fatal(err)
	}
	r, err := flow.Stop()
	if err != nil || r.Lost()+r.Duplicated+r.Reordered+r.Damaged > 0 {
		t.Errorf("%v, %v", r, err)
	}
	t.Log(r)

	m.run(podman("stop", "pwd")...)
	run := documented(t, containerfile)
	m.run(podman(append(append([]string{"run", "--rm", "--cgroups", "disabled", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1000:1000"}, run...),
		"--config", "/etc/pwd/pwd.yaml", "--cleanup")...)...)
	if links, err := n.near.Links(); err != nil || len(links) != 2 {
		t.Errorf("left: %q, %v", links, err)
	}
}

// documented are the arguments of `podman run` in the head of a Containerfile.
func documented(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "#   podman run ")
	text, _, ends := strings.Cut(text, "\n#\n")
	if !found || !ends {
		t.Fatalf("no podman run in\n%s", b)
	}
	return strings.Fields(strings.NewReplacer("\\\n#", " ").Replace(text))
}
