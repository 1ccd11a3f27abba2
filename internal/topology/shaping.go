package topology

import (
	"fmt"
	"strings"
)

// shape reads what a class guarantees and allows.
func (b *builder) shape(c *class, rec *record) {
	rate, rateAt, _ := get[uint64](rec, "rate")
	ceiling, ceilingAt, _ := get[uint64](rec, "ceiling")
	priority, priorityAt, prefers := get[int64](rec, "priority")
	queue, queueAt, queues := get[int64](rec, "queue")
	c.Shape = Shape{Rate: rate, Ceiling: ceiling, Priority: uint8(priority), Queue: uint32(queue)}
	if c.Ceiling != 0 && c.Rate > c.Ceiling {
		b.clash(CodeRateSum, rateAt, fmt.Sprintf("the rate is above the ceiling: %s - %s = %s too much", bits(c.Rate), bits(c.Ceiling), bits(c.Rate-c.Ceiling)),
			ceilingAt, "the ceiling is here", "lower the rate, or raise the ceiling")
	}
	if rec == nil || rec.has("rate") || rec.has("ceiling") {
		return
	}
	const help = "add `rate:` or `ceiling:`, or remove the key"
	if prefers {
		b.fault(CodeUnshaped, priorityAt, "nothing of the class is shaped, so that nothing has a priority", help)
	}
	if queues {
		b.fault(CodeUnshaped, queueAt, "nothing of the class is shaped, so that nothing waits", help)
	}
}

// marking reads the DSCP: one, eight by the priority bits of a tag, or that inside.
func (b *builder) marking(c *class, rec *record) {
	list, _, ok := get[[]item](rec, "dscp")
	if !ok {
		return
	}
	if len(list) == 1 {
		switch v := list[0].value.(type) {
		case uint8:
			c.DSCP = v
		case copied:
			c.Marking.Copy = true
		}
		return
	}
	c.Marking.Mapped = true
	for i, it := range list {
		v, ok := it.value.(uint8)
		if !ok {
			b.fault(CodeNotOneOf, it.at, "a list of DSCPs has eight of them, one for each PCP", "write `dscp: copy` alone, or the DSCP for each PCP from 0 to 7")
			c.Marking = Marking{}
			return
		}
		c.Marking.Map[i] = v
	}
}

// checkRates compares what is guaranteed at each site with what its link carries.
func (b *builder) checkRates() {
	for _, s := range b.t.sites {
		for _, path := range s.ends() {
			if path.rate != 0 && !b.full() {
				b.checkRate(s, path)
			}
			if path.edt && !b.full() {
				b.checkEDT(s, path)
			}
		}
	}
}

// checkRate does so for one path; that of a site without underlays has no name.
func (b *builder) checkRate(s *site, path *underlay) {
	var guaranteed sumOf
	for _, t := range b.t.localTunnels(s) {
		if t.Rate != 0 && (t.Local == path.address || path.name == "") {
			guaranteed.add(t.Key, t.Rate)
		}
	}
	if guaranteed.sum > path.rate {
		b.fault(CodeRateSum, path.rateAt, fmt.Sprintf("%s carries %s, and more is guaranteed on it: %s",
			linkOf(s, path), bits(path.rate), guaranteed), "lower the `rate:` of classes: each of their tunnels, at each of its ends, has it to itself")
	}
}

func linkOf(s *site, path *underlay) string {
	if path.name != "" {
		return "underlay " + path.name + " of " + s.name
	}
	return "the link of " + s.name
}

// checkEDT finds what departure times cannot keep: each tunnel has its own, and knows nothing
// of the others. So what is guaranteed, or limited for several, is kept only where all their
// ceilings fit.
func (b *builder) checkEDT(s *site, path *underlay) {
	const help = "lower the `ceiling:` of classes, or have `shaper: htb`"
	var all, guaranteed sumOf
	pairs := map[string]*sumOf{}
	for _, t := range b.t.localTunnels(s) {
		if !t.Shapes() || t.Local != path.address && path.name != "" {
			continue
		}
		if t.Ceiling == 0 {
			b.fault(CodeShaper, path.edtAt, fmt.Sprintf("departure times (edt) keep ceilings alone, and tunnel %s is shaped and has none", t.Key),
				"give it a class with a `ceiling:`, or have `shaper: htb`")
			return
		}
		all.add(t.Key, t.Ceiling)
		if t.Rate != 0 {
			guaranteed.add(t.Key, t.Rate)
		}
		if t.PairRate != 0 {
			if pairs[t.Peer] == nil {
				pairs[t.Peer] = &sumOf{}
			}
			pairs[t.Peer].add(t.Key, t.Ceiling)
			if pairs[t.Peer].sum > t.PairRate {
				b.fault(CodeShaper, path.edtAt, fmt.Sprintf("departure times (edt) do not share what %s and %s may send each other, %s, and the ceilings are more: %s",
					s.name, t.Peer, bits(t.PairRate), pairs[t.Peer]), help)
				return
			}
		}
	}
	switch {
	case path.rate != 0 && all.sum > path.rate:
		b.fault(CodeShaper, path.edtAt, fmt.Sprintf("departure times (edt) do not share a link: %s carries %s, and the ceilings are more: %s",
			linkOf(s, path), bits(path.rate), all), help)
	case path.rate == 0 && guaranteed.sum != 0:
		b.fault(CodeShaper, path.edtAt, fmt.Sprintf("departure times (edt) keep a guarantee only where all ceilings fit into the link, and it is not said what %s carries; guaranteed: %s",
			linkOf(s, path), guaranteed), "add its `rate:`, or have `shaper: htb`")
	}
}

// sumOf is a sum of rates, with how it came about.
type sumOf struct {
	sum   uint64
	terms []string
}

func (s *sumOf) add(name string, rate uint64) {
	s.sum += rate
	s.terms = append(s.terms, name+" "+bits(rate))
}

func (s sumOf) String() string { return strings.Join(s.terms, " + ") + " = " + bits(s.sum) }

// bits is a rate as it is written in the file.
func bits(rate uint64) string {
	units := []string{"bit", "kbit", "mbit", "gbit", "tbit"}
	for len(units) > 1 && rate%1000 == 0 && rate != 0 {
		rate, units = rate/1000, units[1:]
	}
	return fmt.Sprintf("%d%s", rate, units[0])
}
