package control

import (
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// TestBreakTie has every combination of Sections 5.4.3 and 5.4.4.
func TestBreakTie(t *testing.T) {
	value := func(first, last byte) *l2tpv3.TieBreaker { return &l2tpv3.TieBreaker{0: first, 7: last} }
	for _, row := range []struct {
		name        string
		ours, peers *l2tpv3.TieBreaker
		want        tie
	}{
		{"ours is lower", value(0, 1), value(0, 2), wins},
		{"ours is higher", value(0, 2), value(0, 1), loses},
		{"the same", value(7, 7), value(7, 7), equal},
		{"only ours", value(0xff, 0xff), nil, wins},
		{"only the peer's", nil, value(0xff, 0xff), loses},
		{"none", nil, nil, noBreaker},
		{"unsigned", value(0x7f, 0xff), value(0x80, 0), wins},
		{"the first octet counts most", value(1, 0), value(0, 0xff), loses},
	} {
		if got := breakTie(row.ours, row.peers); got != row.want {
			t.Errorf("%s: %v, not %v", row.name, got, row.want)
		}
	}
	// The two ends never both win, nor both lose.
	opposite := map[tie]tie{wins: loses, loses: wins, equal: equal, noBreaker: noBreaker}
	for _, a := range []*l2tpv3.TieBreaker{nil, value(0, 0), value(0, 1), value(1, 0)} {
		for _, b := range []*l2tpv3.TieBreaker{nil, value(0, 0), value(0, 1), value(1, 0)} {
			if breakTie(b, a) != opposite[breakTie(a, b)] {
				t.Errorf("%v and %v: %v and %v", a, b, breakTie(a, b), breakTie(b, a))
			}
		}
	}
}
