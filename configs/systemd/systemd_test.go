// Package systemd tests the unit and what belongs to it.
package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// units are those that there are.
var units = []string{"pwd.service", "pwd-hold.service"}

// analyze runs systemd-analyze on a copy of a unit whose programs are there.
func analyze(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	unit, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), name)
	unit = bytes.ReplaceAll(unit, []byte("/usr/libexec/pwd/pwd"), []byte("/bin/true"))
	if err := os.WriteFile(copied, unit, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, append(args, copied)...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", args[0], err, out)
	}
	return out
}

// systemd understands every line. (It says what it thinks of other units, too.)
func TestVerify(t *testing.T) {
	for _, unit := range units {
		for line := range bytes.Lines(analyze(t, unit, "verify", "--man=no", "--recursive-errors=no")) {
			if bytes.Contains(line, []byte(unit+":")) {
				t.Errorf("%s", line)
			}
		}
	}
}

// The units are exposed to no more than they need, of 10.
func TestSecurity(t *testing.T) {
	for unit, most := range map[string]float64{"pwd.service": 2.5, "pwd-hold.service": 1} {
		out := analyze(t, unit, "security", "--offline=true", "--no-pager")
		found := regexp.MustCompile(`Overall exposure level for ` + regexp.QuoteMeta(unit) + `: ([0-9.]+)`).FindSubmatch(out)
		if found == nil {
			t.Fatalf("no exposure level:\n%s", out)
		}
		level, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil || level > most {
			t.Errorf("exposure level of %s %s: %v\n%s", unit, found[1], err, out)
		}
		t.Logf("exposure level of %s %s", unit, found[1])
	}
}

// The daemon has three capabilities, whoever edits the unit.
func TestCapabilities(t *testing.T) {
	unit, err := os.ReadFile("pwd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW", "CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW",
		"NoNewPrivileges=yes", "User=pwd", "Type=notify",
	} {
		if !strings.Contains(string(unit), "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// The files beside it are understood, too.
func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		tool string
		args []string
	}{
		{"systemd-sysusers", []string{"sysusers.conf"}},
		{"systemd-tmpfiles", []string{"--create", "tmpfiles.conf"}},
	} {
		t.Run(tt.tool, func(t *testing.T) {
			tool, err := exec.LookPath(tt.tool)
			if err != nil {
				t.Skip(tt.tool + " is not installed")
			}
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			// In a root of its own, with the user that the other file makes.
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"passwd": "pwd:x:990:990::/:/bin/false\n", "group": "pwd:x:990:\n"} {
				if tt.tool == "systemd-sysusers" {
					break
				}
				if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"--root=" + root}, tt.args[:len(tt.args)-1]...)
			file, err := filepath.Abs(tt.args[len(tt.args)-1])
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(tool, append(args, file)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if tt.tool == "systemd-sysusers" {
				b, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
				if err != nil || !bytes.HasPrefix(b, []byte("pwd:")) {
					t.Errorf("%s, %v", b, err)
				}
				return
			}
			info, err := os.Stat(filepath.Join(root, "sys/fs/bpf/pwd"))
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}
