package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that was started in a namespace.
type Process struct {
	Label string
	Cmd   *exec.Cmd

	exited chan struct{}
	err    error // valid when exited is closed

	mu      sync.Mutex
	lines   []string
	partial []byte
	changed chan struct{}
	log     func(string)
}

// Start starts a program in the namespace. It sees the namespace's /sys and BPF
// file system, is the leader of a process group of its own (so a terminal's ^C does
// not reach it), and is killed when the lab is closed or this process
// ends. Its outputs, where cmd sets none, are kept, and logged by the line with the label before them.
func (ns *Namespace) Start(label string, cmd *exec.Cmd) (*Process, error) {
	if err := ns.lab.Err(); err != nil {
		return nil, err
	}
	p := &Process{Label: label, Cmd: cmd, exited: make(chan struct{}), changed: make(chan struct{}), log: ns.lab.log}
	if cmd.Stdout == nil {
		cmd.Stdout = p
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes longer
	if err := ns.onKeeper(cmd.Start); err != nil {
		return nil, fmt.Errorf("netlab: start %s in %s: %w", label, ns.Name, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.mu.Lock()
		if len(p.partial) > 0 {
			p.line(string(p.partial))
			p.partial = nil
		}
		p.mu.Unlock()
		close(p.exited)
	}()
	ns.lab.onClose(func() { p.Kill() })
	return p, nil
}

// Write takes the program's output; it is for exec.Cmd.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partial = append(p.partial, b...)
	for {
		line, rest, found := bytes.Cut(p.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		p.line(string(line))
		p.partial = append([]byte(nil), rest...)
	}
}

// line records one line; the caller holds the lock.
func (p *Process) line(s string) {
	p.lines = append(p.lines, s)
	close(p.changed)
	p.changed = make(chan struct{})
	p.log(p.Label + ": " + s)
}

// Output is what the program wrote so far, whole lines.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == 0 {
		return ""
	}
	return strings.Join(p.lines, "\n") + "\n"
}

// WaitLine waits for a line of output that contains text, old ones included, and returns it.
func (p *Process) WaitLine(ctx context.Context, text string) (string, error) {
	for seen := 0; ; {
		p.mu.Lock()
		lines, changed := p.lines, p.changed
		p.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if strings.Contains(lines[seen], text) {
				return lines[seen], nil
			}
		}
		select {
		case <-changed:
		case <-p.exited:
			if p.mu.Lock(); len(p.lines) > seen {
				p.mu.Unlock()
				continue
			}
			p.mu.Unlock()
			return "", fmt.Errorf("netlab: %s ended before it wrote %q: %w", p.Label, text, p.exit())
		case <-ctx.Done():
			return "", fmt.Errorf("netlab: %s did not write %q: %w", p.Label, text, ctx.Err())
		}
	}
}

// exit is how the program ended, never nil.
func (p *Process) exit() error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Signal sends the program a signal.
func (p *Process) Signal(s os.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("netlab: send %v to %s: %w", s, p.Label, err)
	}
	return nil
}

// Wait waits for the end of the program: nil if it was with exit status 0, an *exec.ExitError if not.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("netlab: %s: %w", p.Label, p.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("netlab: %s has not ended: %w", p.Label, ctx.Err())
	}
}

// Kill kills the program and what it started, at once, and waits for the end.
func (p *Process) Kill() {
	select {
	case <-p.exited:
		return
	default:
	}
	syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// Run runs a program in the namespace to its end and returns what it wrote to
// standard output. A failure is an error with what it wrote to standard error;
// it wraps an *exec.ExitError.
func (ns *Namespace) Run(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := ns.Start(filepath.Base(name), cmd)
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	p.Kill()
	if err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return stdout.String(), err
	}
	return stdout.String(), nil
}
