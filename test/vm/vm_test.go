package vm

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/test/vm/job"
)

func TestNewestFirst(t *testing.T) {
	names := []string{
		"linux-image-6.12.99+deb12-amd64",
		"linux-image-6.12.113+deb12-amd64",
		"linux-image-6.12.117+deb12-amd64",
		"linux-image-6.12.117+deb12-amd64-unsigned",
		"linux-image-6.12.117+deb12-amd64-dbg",
		"linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12-amd64",
		"linux-image-6.1.0-9-amd64",
		"linux-image-6.1.0-56-amd64",
		"linux-image-6.1.0-56-rt-amd64",
	}
	want := map[string][]string{
		"6.1":  {"linux-image-6.1.0-56-amd64", "linux-image-6.1.0-9-amd64"},
		"6.12": {"linux-image-6.12.117+deb12-amd64", "linux-image-6.12.113+deb12-amd64", "linux-image-6.12.99+deb12-amd64"},
	}
	for _, r := range Releases {
		if diff := cmp.Diff(want[r.Series], newestFirst(names, r.Pattern)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.Series, diff)
		}
		if !r.Pattern.MatchString(r.Package) {
			t.Errorf("the pattern of %s does not match %s", r.Series, r.Package)
		}
	}
}

func TestExtract(t *testing.T) {
	files := []struct {
		name string
		kept bool
	}{
		{"./boot/vmlinuz-6.1.0-56-amd64", true},
		{"./boot/config-6.1.0-56-amd64", true},
		{"./boot/System.map-6.1.0-56-amd64", false},
		{"./usr/share/doc/linux-image-6.1.0-56-amd64/copyright", false},
		{"./lib/modules/6.1.0-56-amd64/modules.builtin", true},
		{"./lib/modules/6.1.0-56-amd64/kernel/net/l2tp/l2tp_eth.ko", true},
		{"./lib/modules/6.1.0-56-amd64/kernel/drivers/net/veth.ko", true},
		{"./lib/modules/6.1.0-56-amd64/kernel/drivers/net/wireless/ath/ath.ko", false},
		{"./lib/modules/6.1.0-56-amd64/kernel/sound/soundcore.ko", false},
		{"./lib/modules/../../../escape", false},
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.name))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(f.name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	release, err := extract(&archive, dir)
	if err != nil || release != "6.1.0-56-amd64" {
		t.Fatalf("extract = %q, %v", release, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.name))
		if kept := err == nil && string(b) == f.name; kept != f.kept {
			t.Errorf("%s: kept %v, want %v", f.name, kept, f.kept)
		}
	}
}

func TestModuleFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.builtin": "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_pci.ko\n",
		"modules.dep": "kernel/net/9p/9pnet.ko.xz:\n" +
			"kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n" +
			"kernel/fs/9p/9p.ko.xz: kernel/fs/fscache/fscache.ko.xz kernel/fs/netfs/netfs.ko.xz kernel/net/9p/9pnet.ko.xz\n" +
			"kernel/drivers/char/virtio-rng.ko.xz:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := moduleFiles(dir, []string{"virtio_pci", "9pnet_virtio", "9p", "virtio_rng"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/net/9p/9pnet.ko.xz", "kernel/net/9p/9pnet_virtio.ko.xz",
		"kernel/fs/netfs/netfs.ko.xz", "kernel/fs/fscache/fscache.ko.xz", "kernel/fs/9p/9p.ko.xz",
		"kernel/drivers/char/virtio-rng.ko.xz",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := moduleFiles(dir, []string{"overlay"}); err == nil {
		t.Error("a module that is not there was found")
	}
}

func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	w := &cpioWriter{w: &b}
	w.dir("dev")
	w.file("init", 0o755, []byte("hello"))
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	//      magic  ino     mode    uid     gid     nlink   mtime   size    device          rdevice         name    check
	want := "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"0000000000000000" + "0000000000000000" + "00000004" + "00000000" + "dev\x00\x00\x00" +
		"070701" + "00000002" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"0000000000000000" + "0000000000000000" + "00000005" + "00000000" + "init\x00\x00" + "hello\x00\x00\x00" +
		"070701" + "00000003" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"0000000000000000" + "0000000000000000" + "0000000B" + "00000000" + "TRAILER!!!\x00\x00\x00\x00"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestComplaint(t *testing.T) {
	for _, tt := range []struct{ console, want string }{
		{"[    1.2] mtrr: your CPUs had inconsistent fixed MTRR settings\r\n", ""},
		{"[    0.1] a\r\n[    9.3] WARNING: CPU: 1 PID: 312 at net/core/dev.c:1 x\r\n[    9.4] more\r\n", "[    9.3] WARNING: CPU: 1 PID: 312 at net/core/dev.c:1 x"},
		{"[   70.0] unregister_netdevice: waiting for pw-a to become free. Usage count = 1\n", "[   70.0] unregister_netdevice: waiting for pw-a to become free. Usage count = 1"},
	} {
		if got := complaint([]byte(tt.console)); got != tt.want {
			t.Errorf("complaint(%q) = %q, want %q", tt.console, got, tt.want)
		}
	}
}

func TestResultsTravel(t *testing.T) {
	dir := t.TempDir()
	want := []job.Result{{Name: "a", Took: time.Second}, {Name: "b", Status: 124, Reason: "not done within 1s"}}
	if err := job.Write(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := job.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Each suite is a package with tests: one that was renamed must not be left out.
func TestSuites(t *testing.T) {
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Suites {
		if files, _ := filepath.Glob(filepath.Join(root, s.Package, "*_test.go")); len(files) == 0 {
			t.Errorf("%s: no tests", s.Package)
		}
		if s.Limit < time.Minute {
			t.Errorf("%s: limit %v is too short for a machine without hardware virtualisation", s.Package, s.Limit)
		}
	}
}
