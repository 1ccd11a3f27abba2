// Package vlan has sets of VLANs.
package vlan

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// First and Last are the least and the greatest VLAN (IEEE 802.1Q, Section 9.6).
const (
	First = 1
	Last  = 4094
)

// Set is a set of VLANs as text, like "100,200-210": in order, in ranges that are as
// long as can be, so that equal sets are equal as values. Of makes them; the zero value
// is the empty set.
type Set string

// Range is the VLANs from First to Last, both of them included.
type Range struct{ First, Last uint16 }

// Of is the set of all VLANs in the ranges. What is not a VLAN is left out.
func Of(ranges ...Range) Set {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b Range) int { return int(a.First) - int(b.First) })
	var merged []Range
	for _, r := range ranges {
		r.First, r.Last = max(r.First, First), min(r.Last, Last)
		if r.First > r.Last {
			continue
		}
		if n := len(merged); n > 0 && r.First <= merged[n-1].Last+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	words := make([]string, len(merged))
	for i, r := range merged {
		words[i] = r.String()
	}
	return Set(strings.Join(words, ","))
}

func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Ranges are those that make up the set.
func (s Set) Ranges() []Range {
	var ranges []Range
	for word := range strings.SplitSeq(string(s), ",") {
		first, last, is := strings.Cut(word, "-")
		if !is {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil {
			ranges = append(ranges, Range{uint16(from), uint16(to)})
		}
	}
	return ranges
}

// All are the VLANs of the set, in order.
func (s Set) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for _, r := range s.Ranges() {
			for id := r.First; id >= First && id <= min(r.Last, Last); id++ {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// Overlaps says whether a VLAN is in both sets.
func (s Set) Overlaps(t Set) bool {
	for _, a := range s.Ranges() {
		for _, b := range t.Ranges() {
			if a.First <= b.Last && b.First <= a.Last {
				return true
			}
		}
	}
	return false
}
