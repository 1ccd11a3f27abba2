package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is the daemon where this is set.
const asDaemon = "PWD_TEST_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A SIGHUP does not end a daemon that has just begun: not before it has read as much as
// its configuration.
func TestHangupAtTheStart(t *testing.T) {
	config := filepath.Join(t.TempDir(), "pwd.yaml")
	if err := unix.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(os.Args[0], "--config", config, "--check")
	daemon.Env = append(os.Environ(), asDaemon+"=1")
	var out bytes.Buffer
	daemon.Stdout, daemon.Stderr = &out, &out
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer daemon.Process.Kill()
	// It opens once the daemon is about to read it.
	w, err := os.OpenFile(config, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("apiVersion: pwd/v1\nkind: Config\nsite: dc1\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := daemon.Wait(); err != nil || !strings.Contains(out.String(), "valid") {
		t.Errorf("%v\n%s", err, &out)
	}
}
