package main

import (
	"cmp"
	"slices"
	"time"
)

// result is all that one run found.
type result struct {
	Commit  string          `json:"commit,omitempty"`
	Kernels []*kernelResult `json:"kernels"`
}

// kernelResult is what was found on one kernel.
type kernelResult struct {
	Kernel  string    `json:"kernel"`
	Machine string    `json:"machine"`
	Virtual bool      `json:"virtual"` // an emulated machine, whose ratios count alone
	Started time.Time `json:"started"`
	// Load is the load average before: what else the machine was busy with.
	Load     float64       `json:"load"`
	Each     float64       `json:"secondsEach"`
	Busy     bool          `json:"busy,omitempty"` // values are by CPU time, not by the clock
	Rounds   int           `json:"rounds"`
	Carriers []carrierInfo `json:"carriers"`
	Points   []*point      `json:"points"`
}

// byCPUTime has values be by the time that the traffic had a CPU, where they are rates.
func (k *kernelResult) byCPUTime() {
	k.Busy = true
	for _, p := range k.Points {
		for i, s := range p.Samples {
			if s.PerCPUSecond != 0 {
				p.Samples[i].Value = s.PerCPUSecond
			}
		}
	}
}

type carrierInfo struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// point is one measure of one carrier, a sample for each round.
type point struct {
	Carrier string   `json:"carrier"`
	Measure string   `json:"measure"`
	CPUs    int      `json:"cpus"`
	Samples []sample `json:"samples"`
}

func (r *kernelResult) point(carrier, measure string, cpus int) *point {
	for _, p := range r.Points {
		if p.Carrier == carrier && p.Measure == measure && p.CPUs == cpus {
			return p
		}
	}
	return nil
}

func (r *kernelResult) add(carrier, measure string, cpus int, s sample) {
	p := r.point(carrier, measure, cpus)
	if p == nil {
		p = &point{Carrier: carrier, Measure: measure, CPUs: cpus}
		r.Points = append(r.Points, p)
	}
	p.Samples = append(p.Samples, s)
}

// cpuCounts are the numbers of CPUs that were measured with.
func (r *kernelResult) cpuCounts() []int {
	var n []int
	for _, p := range r.Points {
		if !slices.Contains(n, p.CPUs) {
			n = append(n, p.CPUs)
		}
	}
	slices.Sort(n)
	return n
}

// spread is a median with its quartiles.
type spread struct{ low, median, high float64 }

// spreadOf takes quantiles between the two nearest values.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 {
		x := q * float64(len(v)-1)
		i := int(x)
		if i+1 == len(v) {
			return v[i]
		}
		return v[i] + (x-float64(i))*(v[i+1]-v[i])
	}
	return spread{at(0.25), at(0.5), at(0.75)}
}

func (s spread) over(scale float64) spread {
	return spread{s.low / scale, s.median / scale, s.high / scale}
}

func (p *point) values(of func(sample) float64) []float64 {
	var v []float64
	for _, s := range p.Samples {
		v = append(v, of(s))
	}
	return v
}

func value(s sample) float64 { return s.Value }
func cpuOf(s sample) float64 { return s.CPU }
func p99Of(s sample) float64 { return s.P99 }

// ratios of two carriers, one for each round.
func (r *kernelResult) ratios(of, over, measure string, cpus int) []float64 {
	a, b := r.point(of, measure, cpus), r.point(over, measure, cpus)
	if a == nil || b == nil {
		return nil
	}
	var v []float64
	for i := range min(len(a.Samples), len(b.Samples)) {
		v = append(v, a.Samples[i].Value/b.Samples[i].Value)
	}
	return v
}

// goal is a ratio that has to be reached.
type goal struct {
	about             string
	measure, of, over string
	virtual           bool // in a virtual machine; else on the host
	least             float64
}

// goals are those of the design.
var goals = []goal{
	{"TCP, one stream, over the kernel's l2tp_eth", tcpOne, ebpfUDP, l2tpUDP, true, 3},
	{"TCP, one stream, over the kernel's VXLAN", tcpOne, ebpfUDP, vxlan, false, 1},
	{"TCP, one stream, over the kernel's VXLAN", tcpOne, ebpfUDP, vxlan, true, 1},
	{"TCP, one stream, over the bare underlay without TSO", tcpOne, ebpfUDP, bare, false, 0.8},
	{"UDP of 64 octets, over the kernel's l2tp_eth", udp64, ebpfUDP, l2tpUDP, true, 1.3},
	{"UDP of 64 octets, over the kernel's VXLAN", udp64, ebpfUDP, vxlan, false, 1.6},
}

// outcome is a goal with what was measured.
type outcome struct {
	goal
	kernel string
	cpus   int
	ratio  spread
}

func (o outcome) reached() bool { return o.ratio.median >= o.least }

// outcomes of all goals, of each variant of ours that was measured.
func (r *result) outcomes() []outcome {
	var all []outcome
	for _, k := range r.Kernels {
		for _, g := range goals {
			if g.virtual != k.Virtual {
				continue
			}
			for _, of := range []string{ebpfUDP, "ebpf-udp-port"} {
				g.of = of
				for _, cpus := range k.cpuCounts() {
					if v := k.ratios(g.of, g.over, g.measure, cpus); v != nil {
						all = append(all, outcome{g, k.Kernel, cpus, spreadOf(v)})
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b outcome) int { return cmp.Compare(a.kernel, b.kernel) })
	return all
}
