package main

import (
	"fmt"
	"strings"
)

// markdown is the result as tables.
func (r *result) markdown() string {
	var b strings.Builder
	if r.Commit != "" {
		fmt.Fprintf(&b, "Measured of commit %s.\n\n", r.Commit)
	}
	b.WriteString(r.caveat() + "### What has to be reached\n\n" + outcomeTable(r.outcomes()))
	for _, k := range r.Kernels {
		fmt.Fprintf(&b, "\n### Linux %s\n\n%s%s, %s; load average before %.2f. %d rounds of %.1f s for each value: the median, and the quartiles in brackets.%s\n",
			k.Kernel, k.Machine, map[bool]string{true: " (emulated by QEMU: ratios count, values do not)"}[k.Virtual],
			k.date(), k.Load, k.Rounds, k.Each,
			map[bool]string{true: " Seconds are those that the traffic had a CPU, not the clock's."}[k.Busy])
		for _, cpus := range k.cpuCounts() {
			k.table(&b, cpus)
		}
	}
	b.WriteString("\nThe carriers:\n\n")
	named := map[string]bool{}
	for _, k := range r.Kernels {
		for _, c := range k.Carriers {
			if !named[c.Name] {
				fmt.Fprintf(&b, "* `%s`: %s\n", c.Name, c.About)
			}
			named[c.Name] = true
		}
	}
	return b.String()
}

// caveat says that the machine was not idle, "" if it was.
func (r *result) caveat() string {
	busiest := 0.0
	for _, k := range r.Kernels {
		busiest = max(busiest, k.Load)
	}
	if busiest <= busy {
		return ""
	}
	return fmt.Sprintf("**Provisional**: the machine had other things to do (load average %.0f), which shows in the quartiles.\n\n", busiest)
}

// busy is a load average that other things than this must have caused.
const busy = 1.5

func (k *kernelResult) date() string { return k.Started.Format("2006-01-02 15:04 MST") }

func outcomeTable(outcomes []outcome) string {
	var b strings.Builder
	b.WriteString("| kernel | what | of | CPUs | at least | measured | |\n|---|---|---|---|---|---|---|\n")
	for _, o := range outcomes {
		verdict := "reached"
		if !o.reached() {
			verdict = "**falls short**"
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %d | %.1f × | %s × | %s |\n", o.kernel, o.about, o.of, o.cpus, o.least, o.ratio.text(), verdict)
	}
	return b.String()
}

func (k *kernelResult) table(b *strings.Builder, cpus int) {
	where := "One CPU for senders, receivers and all between them"
	if cpus == 2 {
		where = "Two CPUs, senders on one, receivers on the other"
	}
	fmt.Fprintf(b, "\n%s:\n\n| carrier |", where)
	for _, m := range measures {
		fmt.Fprintf(b, " %s (%s) |", m.about, m.unit)
	}
	b.WriteString(" latency, p99 (µs) | CPU s per Gbit, one stream |\n|---|" + strings.Repeat("---|", len(measures)+2) + "\n")
	for _, c := range k.Carriers {
		fmt.Fprintf(b, "| `%s` |", c.Name)
		for _, m := range measures {
			fmt.Fprintf(b, " %s |", k.point(c.Name, m.name, cpus).spread(value).over(m.scale).text())
		}
		fmt.Fprintf(b, " %s |", k.point(c.Name, "latency", cpus).spread(p99Of).over(1e-6).text())
		fmt.Fprintf(b, " %s |\n", k.point(c.Name, tcpOne, cpus).spread(cpuOf).text())
	}
}

// spread of a point; of none, zero.
func (p *point) spread(of func(sample) float64) spread {
	if p == nil {
		return spread{}
	}
	return spreadOf(p.values(of))
}

func (s spread) text() string {
	if s == (spread{}) {
		return "–"
	}
	format := "%.2f"
	switch {
	case s.median >= 100:
		format = "%.0f"
	case s.median >= 10:
		format = "%.1f"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median, s.low, s.high)
}
