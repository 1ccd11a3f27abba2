//go:build vm

package e2e

import "testing"

// The kernel's datapath over IPv6, where no router fragments: that long packets are lost is
// found out and told, and TCP's segments are made to fit. It takes most of a minute, and is run by
// its name alone.
func TestKernelBlackHole(t *testing.T) {
	const hole = 1400
	w := build(t, network{ipv6: true, hole: hole, datapaths: [2]string{"kernel", "kernel"}}).start()
	w.knowsPath(hole)
	if got := w.warnings(w.sites[0].Client(), "tunnel gold/dc2"); got != "packets of more than 1400 octets are lost on the way" {
		t.Errorf("warned of %q", got)
	}
	w.transfer(w.a, 0, 1<<20)
	w.transfer(w.b, 1, 1<<20)
}
