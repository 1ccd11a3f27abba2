package agent

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// A crossing that cannot be made is tried again, like everything else.
func TestCrossingIsMadeAgain(t *testing.T) {
	p := lone(t)
	p.can = func(a *pseudowire.Abilities) { a.CrossConnects = true }
	p.write(topo(gold, "c: {tunnel: gold, attach: {dc1: {interface: late0}, dc2: {interface: eth2}}}\n"))
	p.start()
	crossed := func() (port string) {
		p.kernel.mu.Lock()
		defer p.kernel.mu.Unlock()
		return p.kernel.pseudowires["c"].Port
	}
	if got := crossed(); got != "" {
		t.Fatalf("without the interface it is crossed with %q", got)
	}
	// The interface comes when the datapath can cross nothing.
	p.do(func() {
		p.a.datapaths[pseudowire.EBPF].(*fakeDatapath).refuses = func(pw pseudowire.Pseudowire) bool { return pw.Port != "" }
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "late0"
	if err := p.ns.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	p.poll("it is attached", func() (err error) {
		p.do(func() { p.a.retry(); err = p.a.wires["c"].attachFault })
		return err
	})
	p.do(func() {
		p.a.retry()
		if w := p.a.wires["c"]; w.crossed || !w.ill() {
			t.Errorf("crossed %v, to be tried again %v", w.crossed, w.ill())
		}
		p.a.datapaths[pseudowire.EBPF].(*fakeDatapath).refuses = nil
		p.a.retry()
		if w := p.a.wires["c"]; !w.crossed || w.ill() {
			t.Errorf("then crossed %v, to be tried again %v", w.crossed, w.ill())
		}
	})
	if got := crossed(); got != "late0" {
		t.Errorf("in the end it is crossed with %q", got)
	}
}
