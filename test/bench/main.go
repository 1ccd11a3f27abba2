// Bench measures this project's datapaths side by side with the bare underlay and with
// what the kernel has for the same purpose, in one run: network namespaces for sites and
// hosts, real daemons, real traffic. With virtual machines it does so on their kernels, too,
// which have l2tp_eth.
//
// Each carrier has a network of its own, and all stand at once. In each round each has its
// turn, so ratios are of measurements next to each other; what is reported are medians
// of the rounds, with quartiles. bench.json, bench.md and bench.svg are written to the folder
// -out; with -publish they become those of docs/performance.md and README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	bin, beside, out, only, what, cpus, kernels string
	each                                        time.Duration
	rounds                                      int
	inside, verbose, publish, apart, busy       bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of pwd and pwctl")
	flag.StringVar(&o.beside, "beside", "", "another `folder` of pwd, to compare with: its carriers are named …-beside")
	flag.StringVar(&o.out, "out", "out/bench", "`folder` for the results")
	flag.DurationVar(&o.each, "each", time.Second, "length of each measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.StringVar(&o.only, "only", "", "only carriers that match one of these comma-separated patterns, as ebpf-*")
	flag.StringVar(&o.what, "measure", "", "only what matches one of these, as tcp-*")
	flag.BoolVar(&o.apart, "apart", false, "an underlay that does not put together what it receives (no GRO)")
	flag.BoolVar(&o.busy, "busy", false, "this machine is busy with other things: count by the time that the traffic had a CPU, not by the clock")
	flag.StringVar(&o.cpus, "cpus", "1,2", "numbers of CPUs to measure with")
	flag.StringVar(&o.kernels, "kernels", "host", "comma-separated: host, and series of kernels of virtual machines, as 6.1,6.12")
	flag.BoolVar(&o.inside, "inside", false, "this is a virtual machine: write bench.json alone")
	flag.BoolVar(&o.publish, "publish", false, "measure nothing: put the results in the folder -out into docs/ and README.md")
	flag.BoolVar(&o.verbose, "v", false, "show the daemons' logs")
	flag.Parse()
	if flag.NArg() > 0 || o.each <= 0 || o.rounds <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := o.main(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nbench: "+err.Error())
		os.Exit(1)
	}
}

func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

func (o options) main(ctx context.Context) error {
	if o.publish {
		return publish(o.out, ".")
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root: it makes network namespaces and loads eBPF programs. Try: sudo make bench")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	r := &result{Commit: commit()}
	names := strings.Split(o.kernels, ",")
	if i := slices.Index(names, "host"); i >= 0 {
		names = slices.Delete(names, i, i+1)
		k, err := o.here(ctx)
		if err != nil {
			return err
		}
		r.Kernels = append(r.Kernels, k)
	}
	machines, err := o.machines(ctx, names)
	if err != nil {
		return err
	}
	r.Kernels = append(r.Kernels, machines...)
	return r.write(o.out, !o.inside)
}

// here measures on this machine's kernel.
func (o options) here(ctx context.Context) (*kernelResult, error) {
	p := plan{Each: o.each, Rounds: o.rounds, Beside: o.beside, Apart: o.apart, Only: matching(o.only)}
	matches := matching(o.what)
	for _, m := range measures {
		if matches(m.name) {
			p.Measures = append(p.Measures, m)
		}
	}
	for n := range strings.SplitSeq(o.cpus, ",") {
		cpus, err := strconv.Atoi(n)
		if err != nil {
			return nil, fmt.Errorf("-cpus %s: not a number", n)
		}
		p.CPUs = append(p.CPUs, cpus)
	}
	log := func(string) {}
	if o.verbose {
		log = func(line string) { fmt.Println("  # " + line) }
	}
	k, err := measureAll(ctx, p, o.bin, say, log)
	if err != nil {
		return nil, err
	}
	k.Virtual = o.inside
	if o.busy {
		k.byCPUTime()
	}
	return k, nil
}

// matching says whether a name matches one of the patterns in a list; of none, all do.
func matching(patterns string) func(name string) bool {
	return func(name string) bool {
		for pattern := range strings.SplitSeq(patterns, ",") {
			if ok, _ := path.Match(pattern, name); ok || pattern == "" {
				return true
			}
		}
		return false
	}
}

// commit is what is measured, "" where git does not tell.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// write writes the result to a folder, with all that people read if they are to.
func (r *result) write(dir string, people bool) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	files := map[string]string{"bench.json": string(b) + "\n"}
	if people {
		files["bench.md"], files["bench.svg"] = r.markdown(), r.svg()
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if people {
		fmt.Print("\n" + r.markdown())
		say("written to %s: bench.md, bench.json, bench.svg", dir)
	}
	return nil
}
