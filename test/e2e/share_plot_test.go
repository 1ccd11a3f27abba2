package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// plotted are the runs of the plot: on a host all rates, in a virtual machine both datapaths
// and shapers, at a rate that it carries.
func plotted() []panel {
	if inVM {
		var all []panel
		for _, datapath := range []string{"ebpf", "kernel"} {
			all = append(all, panel{rate: vmRate, datapath: datapath, shaper: "htb", lanes: capped},
				panel{rate: vmRate, datapath: datapath, shaper: "edt", lanes: fitting})
		}
		return all
	}
	var all []panel
	for _, rate := range []uint64{1e6, 10e6, 100e6, 1e9} {
		all = append(all, panel{rate: rate, datapath: "ebpf", shaper: "htb", lanes: capped})
	}
	return all
}

// vmRate is what an emulated machine carries, in datagrams of 1400 octets.
const vmRate = 1e6

// Three senders of which each could fill the link come and go; the plot shows what each
// got. Not run unless asked for: -share-plot FILE.
func TestSharePlot(t *testing.T) {
	if *sharePlot == "" {
		return
	}
	const (
		length = 16 * time.Second
		every  = 250 * time.Millisecond
	)
	// When each sends, by the number of its sample.
	times := [3][2]int{{24, 44}, {12, 56}, {0, 64}}
	var panels []panel
	for _, p := range plotted() {
		t.Run(p.title(), func(t *testing.T) {
			s := newShared(t, p.datapath)
			s.shaper, s.frequency = p.shaper, 100
			s.narrow(p.rate*21/20, max(64<<10, int(p.rate/8/100)))
			s.write(p.rate, p.lanes)
			s.start()
			senders := map[int]*sender{}
			for i := range int(length / every) {
				for k, at := range times {
					if i == at[0] {
						senders[k] = s.send(k, p.sent(), buffer(p.rate))
					}
					if i == at[1] {
						senders[k].stop()
					}
				}
				each, sum := s.rates(t.Context(), p.lanes, every)
				p.samples = append(p.samples, append(each, sum))
			}
			panels = append(panels, p)
			for k := range times {
				senders[k].stop()
				s.send(k, p.sent(), buffer(p.rate))
			}
			s.judge(p.rate, p.lanes, 5*time.Second)
			if !inVM {
				s.write(p.rate, greedy)
				s.apply()
				s.judge(p.rate, greedy, 5*time.Second)
			}
		})
	}
	if err := os.WriteFile(*sharePlot, []byte(plot(panels, every)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// panel is one run: samples of what each lane got, and the sum.
type panel struct {
	rate             uint64
	datapath, shaper string
	lanes            []lane
	samples          [][]float64
}

// sent is what the datagrams are made for: long ones in a virtual machine, which does not
// make many.
func (p *panel) sent() uint64 {
	if inVM {
		return 10 * p.rate
	}
	return p.rate
}

func (p *panel) title() string {
	if inVM {
		return bits(p.rate) + ", " + p.datapath + ", " + p.shaper
	}
	return bits(p.rate)
}

// heading is the title, with the last class's ceiling where it has one: departure times
// keep ceilings that the link has room for.
func (p *panel) heading() string {
	if last := p.lanes[len(p.lanes)-1]; last.ceiling < 100 {
		return fmt.Sprintf("%s (%s: ceiling %d %%)", p.title(), last.class, last.ceiling)
	}
	return p.title()
}

var colours = map[string]string{"voice": "#c0392b", "storage": "#2471a3", "bulk": "#7d8b99"}

// plot draws the panels, two in a row.
func plot(panels []panel, every time.Duration) string {
	const width, height, left, top, gapX, gapY = 380, 200, 70, 60, 90, 70
	var b strings.Builder
	rows := (len(panels) + 1) / 2
	w, h := left+2*width+gapX+30, top+rows*(height+gapY)+20
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", w, h)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", w, h)
	x := left
	for _, l := range capped {
		fmt.Fprintf(&b, `<line x1="%d" y1="20" x2="%d" y2="20" stroke="%s" stroke-width="3"/><text x="%d" y="24">%s: %d %% guaranteed, ceiling %d %%</text>`+"\n",
			x, x+24, colours[l.class], x+30, l.class, l.rate, l.ceiling)
		x += 300
	}
	for i, p := range panels {
		x0, y0 := float64(left+i%2*(width+gapX)), float64(top+i/2*(height+gapY))
		px := func(sample int) float64 { return x0 + width*float64(sample)/float64(len(p.samples)) }
		py := func(share float64) float64 { return y0 + height*(1-min(share, 1.1)/1.1) }
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-weight="bold">%s</text>`+"\n", x0, y0-8, p.heading())
		fmt.Fprintf(&b, `<rect x="%.0f" y="%.0f" width="%d" height="%d" fill="none" stroke="#888"/>`+"\n", x0, y0, width, height)
		for percent := 0; percent <= 100; percent += 20 {
			y := py(float64(percent) / 100)
			fmt.Fprintf(&b, `<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%g</text>`+"\n",
				x0, y, x0+width, y, x0-6, y+4, float64(p.rate)/1e6*float64(percent)/100)
		}
		for second := 0; second*int(time.Second) <= len(p.samples)*int(every); second += 4 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%.0f" text-anchor="middle">%d s</text>`+"\n", px(second*int(time.Second/every)), y0+height+16, second)
		}
		fmt.Fprintf(&b, `<text transform="translate(%.0f %.0f) rotate(-90)" text-anchor="middle">mbit/s</text>`+"\n", x0-50, y0+height/2)
		draw := func(k int, style string) {
			fmt.Fprintf(&b, `<polyline fill="none" %s points="`, style)
			for n, s := range p.samples {
				share := s[k] / float64(p.rate)
				fmt.Fprintf(&b, "%.1f,%.1f %.1f,%.1f ", px(n), py(share), px(n+1), py(share))
			}
			b.WriteString(`"/>` + "\n")
		}
		draw(len(p.lanes), `stroke="#222" stroke-dasharray="3 3"`)
		for k, l := range p.lanes {
			draw(k, fmt.Sprintf(`stroke="%s" stroke-width="2"`, colours[l.class]))
		}
	}
	for i, line := range []string{
		"What came over the link: octets of outer packets, the link's header included; dashed: the sum.",
		"Each sender could fill the link: bulk from 0 s on, storage from 3 to 14 s, voice from 6 to 11 s (and what waited then).",
	} {
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", left, h-28+16*i, line)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
