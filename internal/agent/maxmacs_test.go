package agent

import (
	"fmt"
	"strings"
	"testing"
)

// Behind the pseudowires of a network no more addresses are learned than its limit, or few
// more; when some have gone it goes on.
func TestMaxMACs(t *testing.T) {
	const limit = 40
	dc1, _ := pair(t, strings.Replace(topo(gold, wireTo("a", "gold", 7)), "a: {tunnel", fmt.Sprintf("a: {max-macs: %d, tunnel", limit), 1))
	wire := dc1.ns.Link("ow-a").Silent().Up() // the datapath's end of the device
	dc1.ns.Link("pw-a").Operational()
	speak := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := wire.Send(append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, byte(i >> 8), byte(i), 0x88, 0xb5}, make([]byte, 46)...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	behind := func() (n int) {
		dc1.do(func() {
			all, err := dc1.a.bridges.MACs()
			if err != nil {
				t.Error(err)
			}
			for _, m := range all {
				if m.Pseudowire == "a" && m.Address[0] == 2 && m.Address[1] == 0 { // of those that speak below
					n++
				}
			}
		})
		return n
	}
	full := func(want bool) {
		t.Helper()
		dc1.poll(fmt.Sprintf("full: %v", want), func() error {
			told := false
			for _, p := range dc1.status().Problems {
				told = told || p.Object == "a" && strings.Contains(p.What, "no more addresses are learned behind it")
			}
			if told != want {
				return fmt.Errorf("the status says so: %v", told)
			}
			return nil
		})
	}
	speak(0, limit-1) // below it
	learned := func(want int) {
		t.Helper()
		dc1.poll(fmt.Sprintf("%d are learned", want), func() error {
			if n := behind(); n != want {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	}
	learned(limit - 1)
	speak(limit-1, limit+1)
	full(true)
	before := behind()
	speak(1000, 1100)
	if n := behind(); n != before {
		t.Errorf("%d are learned at the limit, then %d", before, n)
	}
	dc1.do(func() {
		if err := dc1.a.bridges.Flush("a"); err != nil {
			t.Error(err)
		}
	})
	full(false)
	speak(2000, 2010)
	learned(10)
}
