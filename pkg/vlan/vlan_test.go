package vlan

import (
	"slices"
	"testing"
)

func TestSet(t *testing.T) {
	for _, c := range []struct {
		ranges []Range
		want   Set
	}{
		{nil, ""},
		{[]Range{{100, 100}}, "100"},
		{[]Range{{200, 210}, {100, 100}}, "100,200-210"},
		{[]Range{{10, 12}, {13, 13}, {11, 20}}, "10-20"},
		{[]Range{{0, 0}, {4095, 4095}, {5, 4}}, ""},
		{[]Range{{0, 5000}}, "1-4094"},
	} {
		s := Of(c.ranges...)
		if s != c.want {
			t.Errorf("Of(%v) = %q, want %q", c.ranges, s, c.want)
		}
		if again := Of(s.Ranges()...); again != s {
			t.Errorf("the ranges of %q make %q", s, again)
		}
	}
	if got := slices.Collect(Of(Range{3, 5}, Range{9, 9}).All()); !slices.Equal(got, []uint16{3, 4, 5, 9}) {
		t.Errorf("All gives %v", got)
	}
	if n := len(slices.Collect(Of(Range{1, 4094}).All())); n != 4094 {
		t.Errorf("there are %d VLANs", n)
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b Set
		want bool
	}{
		{"", "1-4094", false}, {"5", "5", true}, {"5", "6", false}, {"1-10,20", "11-19", false}, {"1-10,20", "19-30", true},
	} {
		if c.a.Overlaps(c.b) != c.want || c.b.Overlaps(c.a) != c.want {
			t.Errorf("%q and %q: overlap is not %v", c.a, c.b, c.want)
		}
	}
}
