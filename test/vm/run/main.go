// Command run boots Debian kernels in QEMU and runs one command, or the test
// suites, in them. See package vm.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pwd-project/pwd/test/vm"
	"github.com/pwd-project/pwd/test/vm/job"
)

func main() {
	var o options
	flag.StringVar(&o.kernels, "kernels", "", "comma-separated series of the kernels to boot; default all for -suites, else the newest")
	flag.BoolVar(&o.suites, "suites", false, "run the test suites")
	flag.StringVar(&o.only, "only", "", "of the suites, only those whose package contains this")
	flag.StringVar(&o.run, "run", "", "of their tests, only those that match this pattern")
	flag.BoolVar(&o.verbose, "v", false, "name each test")
	flag.DurationVar(&o.limit, "limit", 0, "time for one command (default 5m), or for one suite (default its own)")
	flag.StringVar(&o.args, "args", "", "further arguments of the tests, as '-kills 100'")
	flag.IntVar(&o.machine.CPUs, "cpus", 0, "CPUs of a machine (default 2)")
	flag.IntVar(&o.machine.Memory, "memory", 0, "MiB of memory of a machine (default 2048)")
	flag.StringVar(&o.machine.Accel, "accel", "", "QEMU's accelerator (default tcg,thread=single)")
	flag.BoolVar(&o.machine.Steady, "steady", false, "have a machine's time go by its instructions, 500 million a second, however busy the host is")
	flag.BoolVar(&o.serial, "serial", false, "one kernel after the other")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: run [flags] -suites\n       run [flags] COMMAND [ARG...]     one COMMAND alone is given to bash")
		flag.PrintDefaults()
	}
	flag.Parse()
	if o.suites == (flag.NArg() > 0) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := o.main(ctx, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	os.Exit(status)
}

type options struct {
	kernels, only, run      string
	args                    string
	suites, verbose, serial bool
	limit                   time.Duration
	machine                 vm.Machine
}

// main returns the exit status: of the command, or 1 if a suite failed.
func (o options) main(ctx context.Context, args []string) (int, error) {
	releases, err := o.releases()
	if err != nil {
		return 2, err
	}
	tmp, err := os.MkdirTemp("", "pwd-vm-run-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(tmp)
	// Tests run their own binary as other users, too.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return 1, err
	}
	var steps, newest []job.Step
	var tools []vm.Tool
	if o.suites {
		steps, newest, tools, err = o.build(ctx, tmp)
	} else {
		steps, err = o.command(args)
	}
	if err != nil {
		return 1, err
	}
	if err := vm.Install(os.Stderr, append(vm.HarnessTools, tools...)...); err != nil {
		return 1, err
	}
	var work []machine
	for _, r := range releases {
		m := machine{o.machine, o.share(r, steps, newest)}
		if m.Kernel, err = vm.Fetch(r, os.Stderr); err != nil {
			return 1, err
		}
		if len(m.steps) > 0 {
			work = append(work, m)
		}
	}
	return o.boot(ctx, work)
}

// machine is one to boot, and what it has to do.
type machine struct {
	vm.Machine
	steps []job.Step
}

// share is what a kernel has to do of what all do, and of what the newest does alone.
func (o options) share(r vm.Release, steps, newest []job.Step) []job.Step {
	if o.kernels == "" && r.Series != vm.Releases[len(vm.Releases)-1].Series {
		return steps
	}
	return slices.Concat(steps, newest)
}

func (o options) releases() ([]vm.Release, error) {
	if o.kernels == "" && o.suites {
		return vm.Releases, nil
	}
	if o.kernels == "" {
		return vm.Releases[len(vm.Releases)-1:], nil
	}
	var out []vm.Release
	for series := range strings.SplitSeq(o.kernels, ",") {
		i := slices.IndexFunc(vm.Releases, func(r vm.Release) bool { return r.Series == series })
		if i < 0 {
			return nil, fmt.Errorf("no kernel %q; there are %s", series, seriesOf(vm.Releases))
		}
		out = append(out, vm.Releases[i])
	}
	return out, nil
}

func seriesOf(releases []vm.Release) string {
	var names []string
	for _, r := range releases {
		names = append(names, r.Series)
	}
	return strings.Join(names, ", ")
}

func (o options) command(args []string) ([]job.Step, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	name := strings.Join(args, " ")
	if len(args) == 1 {
		args = []string{"bash", "-c", args[0]}
	}
	limit := o.limit
	if limit == 0 {
		limit = 5 * time.Minute
	}
	return []job.Step{{Name: name, Args: args, Dir: dir, Limit: limit}}, nil
}

// build gives the steps of every kernel, those of the newest alone, and what both run.
func (o options) build(ctx context.Context, dir string) (steps, newest []job.Step, tools []vm.Tool, err error) {
	for _, s := range vm.Suites {
		if !strings.Contains(s.Package, o.only) {
			continue
		}
		if o.run != "" {
			s.Run = o.run
		}
		if o.limit != 0 {
			s.Limit = o.limit
		}
		s.Args = strings.Fields(o.args)
		step, err := vm.BuildSuite(ctx, s, dir, o.verbose, os.Stderr)
		if err != nil {
			return nil, nil, nil, err
		}
		if s.Newest {
			newest = append(newest, step)
		} else {
			steps = append(steps, step)
		}
		tools = append(tools, s.Tools...)
	}
	if len(steps)+len(newest) == 0 {
		return nil, nil, nil, fmt.Errorf("no suite's package contains %q", o.only)
	}
	return steps, newest, tools, nil
}

// boot runs every machine's steps in it and reports each as go test does.
func (o options) boot(ctx context.Context, machines []machine) (int, error) {
	var mu sync.Mutex
	var errs []error
	status := 0
	one := func(m machine) {
		prefix := ""
		if o.suites || len(machines) > 1 {
			prefix = fmt.Sprintf("%-5s| ", m.Kernel.Series)
		}
		out := &prefixWriter{w: os.Stdout, mu: &mu, prefix: prefix}
		m.Output = out
		ctx, cancel := context.WithTimeout(ctx, 2*vm.Limit(m.steps)) // a suite may run again
		defer cancel()
		results, err := m.Run(ctx, m.steps...)
		out.flush()
		failed := failedSteps(m.steps, results)
		if again := o.suites && err == nil && len(failed) == 1; again {
			mu.Lock()
			for _, r := range results {
				o.report(m, r)
			}
			fmt.Printf("again\t%s (kernel %s), alone\n", failed[0].Name, m.Kernel.Series)
			mu.Unlock()
			if results, err = m.Run(ctx, failed...); err == nil && len(failedSteps(failed, results)) == 0 {
				fmt.Printf("UNSTEADY\t%s (kernel %s) failed, and passed when it ran again alone: it depends on load or time; mend it\n", failed[0].Name, m.Kernel.Series)
			}
			out.flush()
		}
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			status = max(status, o.report(m, r))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	var wg sync.WaitGroup
	for _, m := range machines {
		if o.serial {
			one(m)
		} else {
			wg.Go(func() { one(m) })
		}
	}
	wg.Wait()
	return status, errors.Join(errs...)
}

// failedSteps are the steps whose result is a failure, or missing.
func failedSteps(steps []job.Step, results []job.Result) []job.Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s job.Step) bool {
		return slices.ContainsFunc(results, func(r job.Result) bool { return r.Name == s.Name && r.Status == 0 })
	})
}

// report prints one result and returns its part of the exit status.
func (o options) report(m machine, r job.Result) int {
	if !o.suites {
		if r.Reason != "" {
			fmt.Fprintf(os.Stderr, "vm: kernel %s: %s: %s\n", m.Kernel.Series, r.Name, r.Reason)
		}
		return r.Status
	}
	verdict, reason := "ok  ", ""
	if r.Status != 0 {
		verdict = "FAIL"
	}
	if r.Reason != "" {
		reason = ": " + r.Reason
	}
	fmt.Printf("%s\tgithub.com/pwd-project/pwd/%s (kernel %s)\t%.3fs%s\n", verdict, r.Name, m.Kernel.Series, r.Took.Seconds(), reason)
	return min(r.Status, 1)
}

// prefixWriter writes whole lines, each behind a prefix.
type prefixWriter struct {
	w      io.Writer
	mu     *sync.Mutex
	prefix string
	line   []byte
}

func (p *prefixWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prefix == "" {
		return p.w.Write(b)
	}
	for _, c := range b {
		p.line = append(p.line, c)
		if c == '\n' {
			if _, err := fmt.Fprintf(p.w, "%s%s", p.prefix, p.line); err != nil {
				return 0, err
			}
			p.line = p.line[:0]
		}
	}
	return len(b), nil
}

func (p *prefixWriter) flush() {
	if len(p.line) > 0 {
		p.Write([]byte{'\n'})
	}
}
