package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pwd-project/pwd/test/vm"
	"github.com/pwd-project/pwd/test/vm/job"
)

// machines measures in virtual machines with kernels of these series, all at once: each
// has one CPU of this machine's, and in each all is compared with what is measured there.
func (o options) machines(ctx context.Context, series []string) ([]*kernelResult, error) {
	results, errs := make([]*kernelResult, len(series)), make([]error, len(series))
	if len(series) > 0 {
		if err := vm.Install(os.Stderr, vm.HarnessTools...); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	for i, name := range series {
		wg.Go(func() {
			if results[i], errs[i] = o.machine(ctx, name); errs[i] != nil {
				errs[i] = fmt.Errorf("kernel %s: %w", name, errs[i])
			}
		})
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// machine measures in a virtual machine with a kernel of that series.
func (o options) machine(ctx context.Context, series string) (*kernelResult, error) {
	i := slices.IndexFunc(vm.Releases, func(r vm.Release) bool { return r.Series == series })
	if i < 0 {
		return nil, errors.New("there is no such kernel; see -kernels")
	}
	kernel, err := vm.Fetch(vm.Releases[i], os.Stderr)
	if err != nil {
		return nil, err
	}
	share, err := os.MkdirTemp("", "pwd-bench-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(share)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	step := job.Step{
		Name: "bench", Dir: dir, Limit: 40 * time.Minute,
		// The machine has its CPUs from one thread: two would wait for each other.
		Args: []string{self, "-inside", "-bin", bin, "-out", job.Dir, "-cpus", "1", "-each", o.each.String(),
			"-rounds", fmt.Sprint(o.rounds), "-only", o.only, "-measure", o.what, "-beside", o.beside, fmt.Sprintf("-apart=%v", o.apart)},
	}
	if o.verbose {
		step.Args = append(step.Args, "-v")
	}
	say("booting Linux %s", series)
	results, err := vm.Machine{Kernel: kernel, Share: share, Output: os.Stdout}.Run(ctx, step)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Status != 0 {
			return nil, fmt.Errorf("exit status %d %s", r.Status, r.Reason)
		}
	}
	b, err := os.ReadFile(filepath.Join(share, "bench.json"))
	if err != nil {
		return nil, err
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read what the machine wrote: %w", err)
	}
	if len(r.Kernels) != 1 {
		return nil, fmt.Errorf("the machine wrote results of %d kernels", len(r.Kernels))
	}
	return r.Kernels[0], nil
}
