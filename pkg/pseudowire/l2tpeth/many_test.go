package l2tpeth

import (
	"fmt"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// What is asked of the kernel grows with the sessions that there is something to do about, and
// with no others.
func TestRequestsOfMany(t *testing.T) {
	const many = 50
	k, d := newFake(t)
	pw := func(i int) pseudowire.Pseudowire {
		return pseudowire.Pseudowire{Name: fmt.Sprint("t", i), Device: fmt.Sprint("pw-t", i)}
	}
	session := func(i int) pseudowire.Session {
		s := session1
		s.Pseudowire, s.LocalID, s.RemoteID = pw(i).Name, uint32(100+i), uint32(200+i)
		return s
	}
	each := func(do func(i int) error) error {
		for i := range many {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	}
	setAll := func() error { return each(func(i int) error { return trySet(d, pw(i), session(i)) }) }
	var names []string
	for i := range many {
		names = append(names, pw(i).Name)
	}
	set(t, d, gold)
	for _, c := range []struct {
		what string
		do   func() error
		// each are the requests for every session, once those for all.
		each, once int
	}{
		// The session, a look at its device, what makes that silent, and that it is up.
		{"set", setAll, 4, 0},
		{"set again", setAll, 3, 0},
		{"a look at the ways", d.RefreshWays, 0, 0},
		{"a look at all", d.Refresh, 0, 1},
		{"the counters", func() error { _, err := d.Counters(); return err }, 0, 1},
		{"taken over", func() error {
			d = k.datapath()
			if err := d.SetTunnel(gold); err != nil {
				return err
			}
			return setAll()
		}, 2, 1},
		// Sessions and links are listed.
		{"what is left of others", d.Prune, 0, 2},
		{"one with another MTU", func() error {
			p := pw(7)
			p.MTU = 1400
			return d.SetPseudowire(p)
		}, 0, 3},
		{"removed", func() error { return d.RemovePseudowires(names...) }, 2, 0},
	} {
		k.asked = 0
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if most := c.each*many + c.once; k.asked > most {
			t.Errorf("%s: %d requests, more than %d for each of %d and %d for all", c.what, k.asked, c.each, many, c.once)
		}
	}
}
