package topology

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

// Measures of a drawing, in its units: what a character of the font takes, and a line of a box.
const (
	svgCharacter, svgLine    = 7.3, 22.0
	svgHead, svgPad, svgEdge = 30.0, 12.0, 20.0
	// svgBow is how far tunnels of one pair of sites are apart.
	svgBow = 34.0
)

// svgBox is a site: its name, and below that a line for each of its attachment circuits.
type svgBox struct {
	GraphSite
	circuits   []Circuit
	x, y, w, h float64
}

// row is the middle of the line of a circuit, or of the site's name.
func (b *svgBox) row(c *Circuit) float64 {
	if c != nil {
		for i := range b.circuits {
			if b.circuits[i] == *c {
				return b.y + svgHead + (float64(i)+0.5)*svgLine
			}
		}
	}
	return b.y + svgHead/2
}

// SVG is the graph as a drawing: boxes for the sites, side by side if there are two and in
// a circle if there are more, thick lines for the tunnels and thin ones for the pseudowires.
func (g Graph) SVG() string {
	boxes, width, height := g.lay()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %[1]f %[2]f" font-family="monospace" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", html.EscapeString(g.Name))
	var lines, words strings.Builder
	at := map[string]*svgBox{}
	for i := range boxes {
		at[boxes[i].Name] = &boxes[i]
	}
	where := 0.5 // where on a line its words are; in a circle lines cross in the middle
	if len(boxes) > 2 {
		where = 0.4
	}
	draw := func(from, to *svgBox, y1, y2, bow float64, style, title string) {
		out, in := 1.0, -1.0 // to the right of the one, from the left of the other
		switch {
		case from.x >= to.x+to.w:
			out, in = -1, 1
		case to.x < from.x+from.w && from.x+from.w/2 < width/2: // one above the other, lines within the circle
			in = 1
		case to.x < from.x+from.w:
			out = -1
		}
		x1, x2 := from.x+from.w/2+out*from.w/2, to.x+to.w/2+in*to.w/2
		reach := max(50, math.Abs(x2-x1)/3)
		c1, c2 := x1+out*reach, x2+in*reach
		fmt.Fprintf(&lines, `<path d="M %.0f %.0f C %.0f %.0f %.0f %.0f %.0f %.0f" fill="none" %s/>`+"\n", x1, y1, c1, y1-bow, c2, y2-bow, x2, y2, style)
		fmt.Fprintf(&words, `<text x="%.0f" y="%.0f" text-anchor="middle" stroke="white" stroke-width="4" paint-order="stroke" fill="black">%s</text>`+"\n",
			bezier(where, x1, c1, c2, x2), bezier(where, y1, y1-bow, y2-bow, y2)+4, html.EscapeString(title))
	}
	pairs := map[[2]string]int{}
	for _, t := range g.Tunnels {
		pair := [2]string{min(t.From, t.To), max(t.From, t.To)}
		draw(at[t.From], at[t.To], at[t.From].row(nil), at[t.To].row(nil), float64(pairs[pair])*svgBow, `stroke="#7a9cc6" stroke-width="5"`, t.title())
		pairs[pair]++
	}
	for _, p := range g.Pseudowires {
		from, to := at[p.From.Site], at[p.To.Site]
		draw(from, to, from.row(&p.From), to.row(&p.To), 0, `stroke="#b4532a" stroke-width="1.5"`, p.title())
	}
	b.WriteString(lines.String())
	for i := range boxes {
		boxes[i].draw(&b)
	}
	b.WriteString(words.String() + "</svg>\n")
	return b.String()
}

// bezier is a point of a cubic curve.
func bezier(t, a, b, c, d float64) float64 {
	s := 1 - t
	return s*s*s*a + 3*s*s*t*b + 3*s*t*t*c + t*t*t*d
}

func (b *svgBox) draw(to *strings.Builder) {
	dash := ""
	if b.Foreign {
		dash = ` stroke-dasharray="6 3"`
	}
	fmt.Fprintf(to, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="4" fill="#f4f4f0" stroke="black"%s/>`+"\n", b.x, b.y, b.w, b.h, dash)
	fmt.Fprintf(to, `<text x="%.0f" y="%.0f" font-weight="bold">%s</text>`+"\n", b.x+svgPad, b.row(nil)+4, html.EscapeString(b.title()))
	for _, c := range b.circuits {
		fmt.Fprintf(to, `<text x="%.0f" y="%.0f">%s</text>`+"\n", b.x+svgPad, b.row(&c)+4, html.EscapeString(c.Words))
	}
}

// lay gives every site its place, and the drawing its size.
func (g Graph) lay() (boxes []svgBox, width, height float64) {
	long := 0
	for _, t := range g.Tunnels {
		long = max(long, utf8.RuneCountInString(t.title()))
	}
	for _, p := range g.Pseudowires {
		long = max(long, utf8.RuneCountInString(p.title()))
	}
	gap := float64(long)*svgCharacter + 60
	wide, high := 0.0, 0.0
	for _, s := range g.Sites {
		b := svgBox{GraphSite: s, circuits: g.circuits(s.Name)}
		longest := utf8.RuneCountInString(s.title())
		for _, c := range b.circuits {
			longest = max(longest, utf8.RuneCountInString(c.Words))
		}
		b.w, b.h = float64(longest)*svgCharacter+2*svgPad, svgHead+float64(len(b.circuits))*svgLine+svgPad/2
		wide, high = max(wide, b.w), max(high, b.h)
		boxes = append(boxes, b)
	}
	above := svgEdge
	if len(boxes) == 2 {
		above += svgBow * 3 / 4 * float64(max(0, len(g.Tunnels)-1)) // how high the last one bows
	}
	radius := 0.0
	if len(boxes) > 2 {
		radius = (max(wide, high) + gap) / (2 * math.Sin(math.Pi/float64(len(boxes))))
	}
	for i := range boxes {
		b := &boxes[i]
		switch {
		case len(boxes) > 2:
			sin, cos := math.Sincos(2*math.Pi*float64(i)/float64(len(boxes)) - math.Pi/2)
			b.x, b.y = svgEdge+wide/2+1.5*radius*(1+cos)-b.w/2, above+high/2+radius*(1+sin)-b.h/2
		case i == 1:
			b.x, b.y = svgEdge+boxes[0].w+gap, above
		default:
			b.x, b.y = svgEdge, above
		}
		width, height = max(width, b.x+b.w+svgEdge), max(height, b.y+b.h+svgEdge)
	}
	return boxes, width, height
}
