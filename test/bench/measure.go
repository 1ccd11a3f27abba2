package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// measure is one thing that is measured of each carrier.
type measure struct {
	// name is short; about is it in words, with the unit that values are divided by scale for.
	name, about, unit string
	scale             float64
	less              bool // less is better
	run               func(route, cpus, time.Duration) (sample, error)
}

const (
	tcpOne = "tcp-1"
	udp64  = "udp-64"
)

var measures = []measure{
	{name: tcpOne, about: "TCP, one stream", unit: "Gbit/s", scale: 1e9, run: func(p route, c cpus, d time.Duration) (sample, error) { return tcp(p, 1, c, d) }},
	{name: "tcp-8", about: "TCP, 8 streams", unit: "Gbit/s", scale: 1e9, run: func(p route, c cpus, d time.Duration) (sample, error) { return tcp(p, 8, c, d) }},
	{name: udp64, about: "UDP, 64 octets", unit: "1000 datagrams/s", scale: 1e3, run: func(p route, c cpus, d time.Duration) (sample, error) { return udp(p, 64, c, d) }},
	{name: "udp-1400", about: "UDP, 1400 octets", unit: "1000 datagrams/s", scale: 1e3, run: func(p route, c cpus, d time.Duration) (sample, error) { return udp(p, 1400, c, d) }},
	{name: "latency", about: "request and response, 64 octets", unit: "µs", scale: 1e-6, less: true, run: latency},
}

// placement is where senders and receivers run.
type placement struct {
	count int
	cpus  cpus
}

// placements of a machine: all on one CPU; senders on one, receivers on another.
func placements() []placement {
	all := []placement{{1, cpus{0, 0}}, {2, cpus{0, 1}}}
	return all[:min(runtime.NumCPU(), 2)]
}

// plan says how much to measure.
type plan struct {
	Each     time.Duration // each measurement
	Rounds   int           // of every measurement; the carriers of a round are a pair, or more
	Measures []measure
	CPUs     []int
	Apart    bool   // the underlay does not put together what it receives
	Beside   string // another folder of programs, "" for none
	Only     func(carrier string) bool
}

// measureAll measures all carriers of this machine. In each round each carrier has its
// turn, one right after the other, so that what else the machine does is the same for all.
func measureAll(ctx context.Context, p plan, bin string, say func(string, ...any), log func(string)) (r *kernelResult, err error) {
	all, err := available()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pwd-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var beds []*bed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	r = &kernelResult{Kernel: kernelRelease(), Machine: machineName(), Started: time.Now().UTC().Truncate(time.Second), Load: load(), Each: p.Each.Seconds(), Rounds: p.Rounds}
	if p.Beside != "" {
		all = append(all, besides(all)...)
	}
	for _, c := range all {
		if !p.Only(c.name) {
			continue
		}
		c.apart = p.Apart
		if err := os.MkdirAll(filepath.Join(dir, c.name), 0o755); err != nil {
			return nil, err
		}
		b, err := newBed(ctx, c, p.bin(c, bin), dir, log)
		if err != nil {
			return nil, err
		}
		beds = append(beds, b)
		r.Carriers = append(r.Carriers, carrierInfo{c.name, c.about})
	}
	say("%d carriers stand: %.0f s of measurements follow", len(beds), p.seconds(len(beds)))
	for round := range p.Rounds {
		for _, m := range p.Measures {
			for _, at := range placements() {
				if !slices.Contains(p.CPUs, at.count) {
					continue
				}
				for i := range beds {
					b := beds[(i+round)%len(beds)]
					if err := ctx.Err(); err != nil {
						return nil, err
					}
					s, err := m.run(b.route, at.cpus, p.Each)
					// On a busy machine a receiver may not have run at all.
					for each := p.Each; errors.Is(err, errNothing) && each < time.Minute; {
						each *= 4
						s, err = m.run(b.route, at.cpus, each)
					}
					if err != nil {
						return nil, fmt.Errorf("%s over %s: %w", m.about, b.carrier.name, err)
					}
					r.add(b.carrier.name, m.name, at.count, s)
				}
			}
		}
		say("round %d of %d done", round+1, p.Rounds)
	}
	return r, nil
}

// bin is the folder of a carrier's programs.
func (p plan) bin(c carrier, bin string) string {
	if strings.HasSuffix(c.name, beside) {
		return p.Beside
	}
	return bin
}

// seconds are how long it will take, about.
func (p plan) seconds(carriers int) float64 {
	n := 0
	for _, at := range placements() {
		if slices.Contains(p.CPUs, at.count) {
			n++
		}
	}
	return float64(carriers*n*len(p.Measures)*p.Rounds) * (p.Each + warmUp + 50*time.Millisecond).Seconds()
}
