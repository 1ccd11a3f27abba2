// Beside runs commands beside each other, and shows what they say as if they had run one after the other:
// that of the first as it comes, that of each other one whole, when the first and it have ended. It fails if one
// of them fails, after all of them. SIGINT and SIGTERM go to all of them, and to what they have started.
//
//	beside make test -- nice make lint
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	commands := split(os.Args[1:])
	if len(commands) == 0 {
		fmt.Fprintln(os.Stderr, "usage: beside COMMAND [ARG...] [-- COMMAND [ARG...]]...")
		os.Exit(2)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// A shell that is ended tells nobody.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "beside:", err)
		os.Exit(1)
	}
	if err := run(commands, os.Stdout, signals); err != nil {
		fmt.Fprintln(os.Stderr, "beside:", err)
		os.Exit(1)
	}
}

// split gives the commands between "--", without empty ones.
func split(args []string) [][]string {
	var all [][]string
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			i = len(args)
		}
		if i > 0 {
			all = append(all, args[:i])
		}
		if i == len(args) {
			return all
		}
		args = args[i+1:]
	}
}

// command is one that runs.
type command struct {
	name   string
	cmd    *exec.Cmd
	output *os.File // what it has said; nil is that it was said at once
	began  time.Time
	took   time.Duration
	err    error
}

// run runs them all; a signal ends them.
func run(commands [][]string, out *os.File, signals <-chan os.Signal) error {
	var all []*command
	ended := make(chan *command)
	for i, args := range commands {
		c := &command{name: strings.Join(args, " "), cmd: exec.Command(args[0], args[1:]...), began: time.Now()}
		to := out
		if i > 0 {
			f, err := os.CreateTemp("", "beside-")
			if err != nil {
				return err
			}
			os.Remove(f.Name())
			defer f.Close()
			c.output, to = f, f
		}
		c.cmd.Stdout, c.cmd.Stderr = to, to
		// With a group of its own a signal gets to all that it has started.
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		all = append(all, c)
		if c.err = c.cmd.Start(); c.err != nil {
			go func() { ended <- c }()
			continue
		}
		go func() {
			c.err = c.cmd.Wait()
			c.took = time.Since(c.began)
			ended <- c
		}()
	}
	return show(all, out, ended, signals)
}

// show waits for the commands, says what they have said, and returns which failed.
func show(all []*command, out io.Writer, ended <-chan *command, signals <-chan os.Signal) error {
	var waiting []*command // for the first, to say what they have said
	first := false
	for range all {
		var c *command
		for c == nil {
			select {
			case c = <-ended:
			case s := <-signals:
				for _, c := range all {
					if c.cmd.Process != nil {
						syscall.Kill(-c.cmd.Process.Pid, s.(syscall.Signal))
					}
				}
			}
		}
		waiting = append(waiting, c)
		if first = first || c == all[0]; !first {
			continue
		}
		if i := slices.Index(waiting, all[0]); i > 0 {
			waiting[0], waiting[i] = waiting[i], waiting[0]
		}
		for _, c := range waiting {
			if err := c.say(out); err != nil {
				return err
			}
		}
		waiting = nil
	}
	var errs []error
	for _, c := range all {
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, c.err))
		}
	}
	return errors.Join(errs...)
}

// say shows what a command has said, if that was not done yet, and what it took.
func (c *command) say(w io.Writer) error {
	if c.output != nil {
		fmt.Fprintf(w, "\n==> %s\n", c.name)
		if _, err := c.output.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(w, c.output); err != nil {
			return err
		}
	}
	verdict := "ok"
	if c.err != nil {
		verdict = "FAILED: " + c.err.Error()
	}
	processors := time.Duration(0)
	if s := c.cmd.ProcessState; s != nil {
		processors = s.UserTime() + s.SystemTime()
	}
	_, err := fmt.Fprintf(w, "--- %s: %.0f s, %.0f s of processors; %s\n", c.name, c.took.Seconds(), processors.Seconds(), verdict)
	return err
}
