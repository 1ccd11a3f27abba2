package tcbpf

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const asChild = "TCBPF_CAPABILITIES"

// dropTo leaves the calling thread, and what it executes, these capabilities.
func dropTo(caps ...int) error {
	var keep [2]uint32
	for _, c := range caps {
		keep[c/32] |= 1 << (c % 32)
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep[c/32]&(1<<(c%32)) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // unknown to this kernel
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: keep[0], Permitted: keep[0]},
		{Effective: keep[1], Permitted: keep[1]},
	}
	_, _, errno := unix.Syscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// inChild runs a test again in a process that has the capabilities and a network
// namespace of its own, and no others.
func inChild(t *testing.T, caps ...int) {
	t.Helper()
	needRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), asChild+"=1")
	done := make(chan error)
	var out []byte
	go func() {
		// The thread is not used again: it ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = dropTo(caps...)
		}
		if err == nil {
			out, err = cmd.CombinedOutput()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Every program loads, and everything else works, with the capabilities that the
// daemon has.
func TestCapabilities(t *testing.T) {
	if os.Getenv(asChild) == "" {
		inChild(t, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF)
		return
	}
	if err := unix.Access("/proc/1/root", unix.R_OK); err == nil {
		t.Fatal("capabilities were not dropped")
	}
	d, err := Open(Options{})
	must(t, err)
	s := newPseudowires(1)
	must(t, d.SetPseudowire(s[0].pw))
	must(t, d.Prune())
	must(t, d.Cleanup())
}

// Without them the error says which are missing.
func TestCapabilitiesMissing(t *testing.T) {
	if os.Getenv(asChild) == "" {
		inChild(t, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
		return
	}
	if _, err := Open(Options{}); !errors.Is(err, ErrPermission) {
		t.Fatalf("opened without CAP_BPF: %v", err)
	}
}
