package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pwd-project/pwd/test/vm/job"
)

// Machine says what to boot.
type Machine struct {
	Kernel *Kernel
	// CPUs and Memory (MiB) of the machine; 0 is 2 and 2048.
	CPUs, Memory int
	// Accel is QEMU's accelerator; "" is "tcg,thread=single", which runs
	// everywhere. With a thread for each CPU, one may run instructions that another
	// has just patched (Linux does that to turn static branches): kernels crash.
	Accel string
	// Steady has the machine's time go by its instructions, 500 million a second, and so what it
	// measures not depend on how busy the host is. Only while it is idle the host's time counts. Linux 6.1 does
	// not boot so.
	Steady bool
	// Share is a folder that commands find, writable, at job.Dir; "" is a temporary one.
	Share string
	// Output is where the commands' standard output and error go; their lines
	// are not mixed with the kernel's.
	Output io.Writer
}

// MachineError says that a machine ended before its job was done, or that its
// kernel complained.
type MachineError struct {
	Kernel string
	// Reason in words; Console the end of what the kernel said.
	Reason, Console string
}

func (e *MachineError) Error() string {
	return fmt.Sprintf("vm: kernel %s: %s; its console:\n%s", e.Kernel, e.Reason, e.Console)
}

// Run boots the machine, carries the steps out and returns their results. The
// error is a *MachineError, the context's, or of the host; that a step failed
// is in its result and no error.
func (m Machine) Run(ctx context.Context, steps ...job.Step) ([]job.Result, error) {
	dir, err := os.MkdirTemp("", "pwd-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	share := m.Share
	if share == "" {
		share = filepath.Join(dir, "share")
		if err := os.Mkdir(share, 0o755); err != nil {
			return nil, err
		}
	}
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeInitrd(ctx, initrd, steps); err != nil {
		return nil, err
	}
	console := filepath.Join(dir, "console")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.qemuArgs(initrd, console, share)...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = m.Output, &stderr
	// At the end of its standard input QEMU would take the port for disconnected,
	// and writes to it would block: this one ends with the process.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	runErr := cmd.Run()
	log, _ := os.ReadFile(console)
	if err := ctx.Err(); err != nil {
		return nil, &MachineError{m.Kernel.Package, "stopped: " + context.Cause(ctx).Error(), tail(log)}
	}
	if runErr != nil {
		return nil, fmt.Errorf("qemu-system-x86_64: %w: %s", runErr, bytes.TrimSpace(stderr.Bytes()))
	}
	results, err := job.Read(share)
	switch {
	case err != nil:
		return nil, &MachineError{m.Kernel.Package, "ended before its first command did", tail(log)}
	case len(results) < len(steps):
		return results, &MachineError{m.Kernel.Package, "ended while " + steps[len(results)].Name + " ran", tail(log)}
	}
	if c := complaint(log); c != "" {
		return results, &MachineError{m.Kernel.Package, "the kernel complained: " + c, tail(log)}
	}
	return results, nil
}

// writeInitrd builds process 1 for the machine and packs it.
func (m Machine) writeInitrd(ctx context.Context, to string, steps []job.Step) error {
	init := to + "-init"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/pwd-project/pwd/test/vm/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if b, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build test/vm/init: %w: %s", err, b)
	}
	b, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeInitramfs(f, m.Kernel, b, job.Job{Modules: m.Kernel.Modules, Env: m.env(), Steps: steps}); err != nil {
		return err
	}
	return f.Close()
}

// env is what commands in the machine see: little of the host's, so that a run
// depends on nothing that one person has set.
func (m Machine) env() []string {
	env := []string{
		"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "TERM=dumb", "LANG=C.UTF-8",
		"PWD_VM=" + m.Kernel.Series,
	}
	if ci, ok := os.LookupEnv("CI"); ok {
		env = append(env, "CI="+ci)
	}
	return env
}

// cpu is all that QEMU emulates but what costs more than it gives: with erms copies and cleared
// pages go octet by octet, smap ends a translated block at each access to a process's memory,
// la57 has a further level of page tables, mpx and pku more to save with each process.
const cpu = "max,erms=off,smap=off,la57=off,mpx=off,pku=off"

func (m Machine) qemuArgs(initrd, console, share string) []string {
	or := func(n, def int) string {
		if n == 0 {
			n = def
		}
		return strconv.Itoa(n)
	}
	accel := m.Accel
	if accel == "" {
		accel = "tcg,thread=single"
	}
	args := []string{
		"-accel", accel, "-cpu", cpu, "-smp", or(m.CPUs, 2), "-m", or(m.Memory, 2048),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-net", "none",
		"-kernel", m.Kernel.Image, "-initrd", initrd,
		// An oops ends the machine at once instead of letting tests go on in a broken
		// kernel. On a busy host the kernel's test of its timer fails, not the timer. RCU looks for the
		// end of a grace period at each tick: namespaces, which wait for many, go sooner.
		"-append", "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic mitigations=off no_timer_check " +
			"rcutree.jiffies_till_first_fqs=0 rcutree.jiffies_till_next_fqs=1",
		"-serial", "file:" + console,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=out,signal=off",
		"-device", "virtserialport,chardev=out,name=" + job.PortName,
		"-virtfs", "local,path=/,security_model=none,readonly=on,multidevs=remap,mount_tag=" + job.RootTag,
		"-virtfs", "local,path=" + share + ",security_model=none,multidevs=remap,mount_tag=" + job.ShareTag,
	}
	if m.Steady {
		args = append(args, "-icount", "shift=1") // 2^1 ns for each instruction
	}
	return args
}

// complaints are what a kernel says when something in it went wrong that need
// not end it.
var complaints = []string{
	"BUG:", "WARNING:", "Oops", "Kernel panic", "general protection fault", "refcount_t:",
	"unregister_netdevice: waiting", "soft lockup", "hung_task", "blocked for more than",
}

// complaint returns the first line of a console that is one, or "".
func complaint(console []byte) string {
	for line := range strings.Lines(string(console)) {
		if slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(line, c) }) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// tail returns the last lines of a console.
func tail(console []byte) string {
	lines := strings.Split(strings.ReplaceAll(string(console), "\r", ""), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// bootTime is how long a machine may take on a busy host besides its steps.
const bootTime = 90 * time.Second

// Limit is how long a machine may take over those steps.
func Limit(steps []job.Step) time.Duration {
	sum := bootTime
	for _, s := range steps {
		sum += s.Limit
	}
	return sum
}
