package main

import (
	"fmt"
	"html"
	"strings"
)

// The plot: for each kernel a row of panels, one for each measure, in each a bar for
// each carrier and number of CPUs.
const (
	barHeight   = 9
	rowHeight   = 2*barHeight + 6
	labelWidth  = 108
	panelWidth  = 160
	panelGap    = 22
	titleHeight = 44
)

// colours of one CPU and of two, and of carriers of this project.
var colours = map[bool][2]string{false: {"#b9c2cc", "#7d8894"}, true: {"#8fc7a5", "#2f8f5b"}}

func ours(carrier string) bool {
	return strings.HasPrefix(carrier, "ebpf-") || strings.HasPrefix(carrier, "kernel-")
}

// svg is the result as a drawing.
func (r *result) svg() string {
	width := labelWidth + len(measures)*(panelWidth+panelGap) + 10
	height := 10
	for _, k := range r.Kernels {
		height += titleHeight + len(k.Carriers)*rowHeight + 26
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="10">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	y := 10
	for _, k := range r.Kernels {
		y = k.draw(&b, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func text(b *strings.Builder, x, y int, attributes, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d"%s>%s</text>`+"\n", x, y, attributes, html.EscapeString(s))
}

// draw draws one kernel's panels from y on and returns where they end.
func (k *kernelResult) draw(b *strings.Builder, y int) int {
	title := fmt.Sprintf("Linux %s, %s, %s", k.Kernel, k.Machine, k.Started.Format("2006-01-02"))
	if k.Virtual {
		title += ", emulated"
	}
	counts := k.cpuCounts()
	legend := "light: one CPU; dark: two; whiskers: quartiles"
	if len(counts) == 1 {
		legend = "whiskers: quartiles"
	}
	text(b, 4, y+10, ` font-size="12" font-weight="bold"`, title)
	text(b, 640, y+10, ` fill="#666"`, legend)
	top := y + titleHeight
	for i, c := range k.Carriers {
		text(b, 4, top+i*rowHeight+barHeight+4, "", c.Name)
	}
	for i, m := range measures {
		k.panel(b, m, labelWidth+i*(panelWidth+panelGap), top, counts)
	}
	return top + len(k.Carriers)*rowHeight + 26
}

func (k *kernelResult) panel(b *strings.Builder, m measure, x, top int, counts []int) {
	more := "more is better"
	if m.less {
		more = "less is better"
	}
	text(b, x, top-16, ` font-weight="bold"`, m.about)
	text(b, x, top-5, ` fill="#666"`, m.unit+", "+more)
	longest := 0.0
	for _, p := range k.Points {
		if p.Measure == m.name {
			longest = max(longest, p.spread(value).high)
		}
	}
	if longest == 0 {
		return
	}
	at := func(v float64) float64 { return v / longest * (panelWidth - 34) }
	for i, c := range k.Carriers {
		for j, cpus := range counts {
			p := k.point(c.Name, m.name, cpus)
			if p == nil {
				continue
			}
			s := p.spread(value)
			y := top + i*rowHeight + j*(barHeight+1)
			colour := colours[ours(c.Name)][(2-len(counts)+j)%2]
			fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y, at(s.median), barHeight, colour)
			fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#333"/>`+"\n", float64(x)+at(s.low), float64(y)+barHeight/2.0, float64(x)+at(s.high))
			number := s.over(m.scale)
			format := "%.2f"
			if number.median >= 20 {
				format = "%.0f"
			}
			text(b, x+int(at(s.high))+3, y+barHeight-1, ` font-size="8"`, fmt.Sprintf(format, number.median))
		}
	}
}
