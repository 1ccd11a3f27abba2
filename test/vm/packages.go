package vm

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Tool is a command that a test needs, and the Debian package it comes in.
type Tool struct{ Command, Package string }

// HarnessTools are what it takes to boot a machine.
var HarnessTools = []Tool{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"modprobe", "kmod"},
	{"depmod", "kmod"},
	{"xz", "xz-utils"},
	{"ip", "iproute2"},
}

// Tools that tests in the machine run.
var (
	TShark  = Tool{"tshark", "tshark"}
	Tcpdump = Tool{"tcpdump", "tcpdump"}
	Iperf3  = Tool{"iperf3", "iperf3"}
	Ethtool = Tool{"ethtool", "ethtool"}
	PPP     = Tool{"pppd", "ppp"}
)

// MissingError names packages that are missing and could not be installed.
type MissingError struct {
	Packages []string
	Err      error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("vm: %v; as root: apt-get update && apt-get install -y %s", e.Err, strings.Join(e.Packages, " "))
}

func (e *MissingError) Unwrap() error { return e.Err }

// Install installs, by apt-get, the packages of those tools that are not on
// PATH, and says so on log.
func Install(log io.Writer, tools ...Tool) error {
	var missing []string
	for _, t := range tools {
		if _, err := lookPath(t.Command); err != nil && !slices.Contains(missing, t.Package) {
			missing = append(missing, t.Package)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return &MissingError{missing, fmt.Errorf("%s not installed, and this is not root", strings.Join(missing, ", "))}
	}
	fmt.Fprintln(log, "vm: apt-get install", strings.Join(missing, " "))
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	err := apt("", io.Discard, install...)
	if err != nil {
		fmt.Fprintln(log, "vm: apt-get update")
		if err = apt("", io.Discard, "update"); err == nil {
			err = apt("", io.Discard, install...)
		}
	}
	if err != nil {
		return &MissingError{missing, err}
	}
	return nil
}

// lookPath also looks where administrators' commands are, which a user's PATH may leave out.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err != nil {
			p, err = exec.LookPath(dir + name)
		}
	}
	return p, err
}

// apt runs apt-get in dir.
func apt(dir string, out io.Writer, args ...string) error {
	cmd := exec.Command("apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=120"}, args...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, &stderr
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
