// Command init is process 1 of the test machine: it makes the host's file system
// the root, read-only under a tmpfs, runs the steps of a job.Job in it, and
// switches the machine off.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/test/vm/job"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "steps" {
		if err := steps(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			os.Exit(1)
		}
		return
	}
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot makes the root, then runs this program again for the steps: process 1
// has to reap what daemons under test leave behind, which os/exec would steal
// from.
func boot() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"devtmpfs", "/dev", "devtmpfs", 0, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := loadModules(job.ModuleDir); err != nil {
		return err
	}
	b, err := os.ReadFile(job.File)
	if err != nil {
		return err
	}
	var j job.Job
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("%s: %w", job.File, err)
	}
	if err := makeRoot(j); err != nil {
		return err
	}
	output, err := openPort(job.PortName)
	if err != nil {
		return err
	}
	p, err := os.StartProcess("/run/init", []string{"init", "steps"}, &os.ProcAttr{
		Dir: "/", Env: j.Env,
		// The console is the kernel's; commands have a port of their own.
		Files: []*os.File{os.Stdin, output, output},
	})
	if err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == p.Pid {
			return err
		}
	}
}

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.fstype, m.target, err)
	}
	return nil
}

func loadModules(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		if err := unix.InitModule(b, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", f.Name(), err)
		}
	}
	return nil
}

// makeRoot mounts the host's root with a writable layer over it and makes that
// the root of every process, kernel threads included: modules then load by
// themselves as on any host.
func makeRoot(j job.Job) error {
	const p9 = "trans=virtio,version=9p2000.L,msize=524288"
	for _, m := range []mount{
		{job.RootTag, "/host", "9p", unix.MS_RDONLY, p9 + ",cache=loose"},
		{"tmpfs", "/layer", "tmpfs", 0, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, d := range []string{"/layer/upper", "/layer/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, m := range []mount{
		{"overlay", "/root", "overlay", 0, "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"},
		{"tmpfs", "/root/run", "tmpfs", 0, "mode=755"},
		{job.ShareTag, "/root" + job.Dir, "9p", 0, p9},
		{"/proc", "/root/proc", "", unix.MS_MOVE, ""},
		{"/sys", "/root/sys", "", unix.MS_MOVE, ""},
		{"/dev", "/root/dev", "", unix.MS_MOVE, ""},
		{"devpts", "/root/dev/pts", "devpts", 0, ""},
		{"tmpfs", "/root/dev/shm", "tmpfs", 0, ""},
		{"bpf", "/root/sys/fs/bpf", "bpf", 0, ""},
		{"cgroup2", "/root/sys/fs/cgroup", "cgroup2", 0, ""},
		{"debugfs", "/root/sys/kernel/debug", "debugfs", 0, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{"/init": "/root/run/init", job.File: "/root/run/job.json"} {
		if err := copyFile(from, to); err != nil {
			return err
		}
	}
	release, err := os.ReadFile("/root/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	const modules = "/root/usr/lib/modules"
	if err := os.MkdirAll(modules, 0o755); err != nil {
		return err
	}
	link := filepath.Join(modules, strings.TrimSpace(string(release)))
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	if err := os.Symlink(j.Modules, link); err != nil {
		return err
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return unix.Sethostname([]byte("pwd-vm"))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// openPort opens the virtio port of that name. A port can be open once: commands
// write to it through this program.
func openPort(name string) (*os.File, error) {
	const class = "/sys/class/virtio-ports"
	// The port appears when the host has answered the driver: shortly after its
	// module was loaded.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ports, _ := os.ReadDir(class)
		for _, p := range ports {
			b, _ := os.ReadFile(filepath.Join(class, p.Name(), "name"))
			if strings.TrimSpace(string(b)) != name {
				continue
			}
			// Blocking, so that what is written has reached the host when the
			// machine is switched off.
			fd, err := unix.Open("/dev/"+p.Name(), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("open port %s: %w", name, err)
			}
			return os.NewFile(uintptr(fd), name), nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio port %q", name)
		}
	}
}

// steps runs the job's steps, one after the other, and leaves their results.
func steps() error {
	b, err := os.ReadFile("/run/job.json")
	if err != nil {
		return err
	}
	var j job.Job
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	var results []job.Result
	for _, s := range j.Steps {
		results = append(results, run(s, j.Env))
		if err := job.Write(job.Dir, results); err != nil {
			return err
		}
	}
	return nil
}

// noTests is what a test binary says when its pattern matches nothing.
var noTests = []byte("testing: warning: no tests to run")

func run(s job.Step, env []string) job.Result {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if s.Limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Limit)
	}
	defer cancel()
	watch := &watcher{w: os.Stdout, want: noTests}
	cmd := exec.CommandContext(ctx, s.Args[0], s.Args[1:]...)
	cmd.Dir, cmd.Env = s.Dir, slices.Concat(env, s.Env)
	cmd.Stdout, cmd.Stderr = watch, watch
	// A daemon that outlives its step must not hold the job up.
	cmd.WaitDelay = 2 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := job.Result{Name: s.Name, Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Status, r.Reason = 124, fmt.Sprintf("not done within %v", s.Limit)
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Status, r.Reason = 128+int(ws.Signal()), ws.Signal().String()
		}
	case errors.Is(err, exec.ErrWaitDelay):
		r.Status, r.Reason = 1, "left processes behind that hold its output open"
	case err != nil:
		r.Status, r.Reason = 127, err.Error()
	case s.Tests && watch.seen:
		r.Status, r.Reason = 1, "ran no test"
	}
	return r
}

// watcher passes writes on and notes whether it saw a line.
type watcher struct {
	w    io.Writer
	want []byte
	seen bool
}

func (w *watcher) Write(b []byte) (int, error) {
	w.seen = w.seen || bytes.Contains(b, w.want)
	return w.w.Write(b)
}
