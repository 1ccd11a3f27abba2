package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// pair starts both sites with one topology and waits until all is up.
func pair(t *testing.T, text string) (dc1, dc2 *place) {
	t.Helper()
	dc1, dc2 = places(t)
	for _, p := range []*place{dc1, dc2} {
		p.write(text)
		p.start()
	}
	dc1.awaitUp()
	dc2.awaitUp()
	return dc1, dc2
}

// However a daemon ends, the next one goes on with the same sessions, and neither
// its peer nor its datapath notices.
func TestSessionsOutliveTheDaemon(t *testing.T) {
	for _, killed := range []bool{true, false} {
		for _, datapath := range []string{"ebpf", "kernel"} {
			t.Run(fmt.Sprintf("killed %v, %s", killed, datapath), func(t *testing.T) {
				text := topo(gold, fmt.Sprintf("a: {tunnel: gold, datapath: %s, attach: {dc1: {interface: eth1}, dc2: {interface: eth1}}}\n", datapath))
				text = strings.ReplaceAll(text, "ports: [eth1]", "ports: []")
				dc1, dc2 := places(t)
				dc1.mortal = killed
				for _, p := range []*place{dc1, dc2} {
					p.write(text)
					p.start()
				}
				dc1.awaitUp()
				dc2.awaitUp()
				ids, heard := dc1.sessionIDs(), dc2.told("pseudowire a")
				dc1.shut()
				dc1.turns.reset(0)
				dc1.start()
				dc1.awaitUp()
				if diff := cmp.Diff(ids, dc1.sessionIDs()); diff != "" {
					t.Errorf("the sessions' IDs before and after:\n%s", diff)
				}
				for _, call := range dc1.turns.calls {
					if strings.HasPrefix(call, "remove") {
						t.Errorf("the restart called for: %s", call)
					}
				}
				// A HELLO each way shows that both have the connection.
				dc1.apply(text)
				if diff := cmp.Diff(heard, dc2.told("pseudowire a")); diff != "" {
					t.Errorf("the peer noticed:\n%s", diff)
				}
			})
		}
	}
}

// The port that the first packet leaves from is in the state before it leaves.
func TestPortIsSavedBeforeItIsUsed(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, wireTo("a", "gold", 7)))
	dial := func(a *Agent) (id uint32, port uint16) {
		for _, c := range a.control.Connections() {
			local, _, _ := a.transport.Path(c.LocalID)
			return c.LocalID, local.Port()
		}
		return 0, 0
	}
	a := p.make()
	p.within(func() error {
		if err := a.start(); err != nil {
			return err
		}
		a.settle(time.Now())
		deadline, _ := a.control.Deadline()
		a.control.Advance(deadline)
		a.drain(deadline)
		a.openSockets()
		a.save()
		return nil // and killed before it is sent
	})
	id, port := dial(a)
	if id == 0 || port == 0 {
		t.Fatalf("connection %d on port %d", id, port)
	}
	a.Close()
	again := p.make()
	defer again.Close()
	if gotID, gotPort := dial(again); gotID != id || gotPort != port {
		t.Errorf("after the restart connection %d on port %d, before %d on %d", gotID, gotPort, id, port)
	}
}

// A socket that could not be opened is in the state as soon as it could.
func TestLatePortIsSaved(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, wireTo("a", "gold", 7)))
	addr := &netlink.Addr{IPNet: netlink.NewIPNet([]byte{192, 0, 2, 1})}
	eth0 := p.linkBy("eth0")
	addrs, err := p.ns.Netlink().AddrList(eth0, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	*addr = addrs[0]
	if err := p.ns.Netlink().AddrDel(eth0, addr); err != nil {
		t.Fatal(err)
	}
	p.start()
	saved := func() (ports []uint16) {
		records, _, err := p.a.store.tunnels()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			for _, s := range r.Sockets {
				if s.Local.Port() != 0 {
					ports = append(ports, s.Local.Port())
				}
			}
		}
		return ports
	}
	p.await("an attempt has been made", func(a *Agent) error {
		if t := a.tunnels["gold/dc2"]; t.silent.IsZero() {
			return fmt.Errorf("none")
		}
		return nil
	})
	p.do(func() {
		if ports := saved(); len(ports) > 0 {
			t.Errorf("ports %v without an address", ports)
		}
	})
	addr.Label = ""
	if err := p.ns.Netlink().AddrAdd(eth0, addr); err != nil {
		t.Fatal(err)
	}
	p.await("the port is saved", func(a *Agent) error {
		if len(saved()) == 0 {
			return fmt.Errorf("no port in the state")
		}
		return nil
	})
}

// What is in the state and not in the topology is closed in view of the peer: a
// daemon died in the middle of an apply.
func TestWhatIsNotInTheTopologyIsClosed(t *testing.T) {
	silver := "silver: {sites: [dc1, dc2]}\n"
	small, large := topo(gold, wireTo("a", "gold", 7)), topo(gold+silver, wireTo("a", "gold", 7)+wireTo("b", "gold", 8)+wireTo("c", "silver", 9))
	dc1, dc2 := places(t)
	dc1.mortal = true
	dc1.write(small)
	dc1.start()
	first := *dc1.a.generation
	dc2.write(large)
	dc2.start()
	dc1.awaitUp()
	if _, err := dc1.apply(large); err != nil {
		t.Fatal(err)
	}
	dc1.awaitUp()
	dc2.awaitUp()
	ids := dc1.sessionIDs()
	dc1.shut()
	// The generation of before, as if the new one had not been written yet.
	s, err := openStore(dc1.opt.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.setGeneration(&first); err != nil {
		t.Fatal(err)
	}
	s.close()
	dc1.start()
	dc1.awaitUp()
	if got := dc1.sessionIDs(); len(got) != 1 || got["a"] != ids["a"] {
		t.Errorf("sessions %v, before %v: a was to stay, and nothing else", got, ids)
	}
	dc2.await("b and c have been closed", func(a *Agent) error {
		for _, name := range []string{"b", "c"} {
			if w := a.wires[name]; w.rides[0].state == control.SessionEstablished {
				return fmt.Errorf("%s is %v", name, w.rides[0].state)
			}
		}
		if w := a.wires["a"]; !w.ready {
			return fmt.Errorf("a: %s", a.why(w))
		}
		return nil
	})
	if text := dc1.kernel.text(); strings.Contains(text, "of b") || strings.Contains(text, "of c") || strings.Contains(text, "pw-b") || strings.Contains(text, "pw-c") {
		t.Errorf("left in the datapath:\n%s", text)
	}
	if links := dc1.links(); strings.Contains(links, "pw-b") || strings.Contains(links, "pw-c") {
		t.Errorf("left links:\n%s", links)
	}
}

// State that makes no sense is no reason not to start.
func TestSenselessStateIsSetUpAnew(t *testing.T) {
	dc1, dc2 := places(t)
	text := topo(gold, wireTo("a", "gold", 7))
	dc1.mortal = true
	dc1.write(text)
	dc2.write(text)
	dc1.start()
	dc2.start()
	dc1.awaitUp()
	dc1.shut()
	s, err := openStore(dc1.opt.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	records, _, err := s.tunnels()
	if err != nil {
		t.Fatal(err)
	}
	r := records["gold/dc2"]
	r.Control.Connections = append(r.Control.Connections, r.Control.Connections[0])
	if err := s.setTunnel("gold/dc2", r); err != nil {
		t.Fatal(err)
	}
	s.close()
	dc1.start()
	dc1.awaitUp()
	dc2.awaitUp()
}

// Half-open connections are closed at the end, the others stay.
func TestStopClosesWhatIsHalfOpen(t *testing.T) {
	p := lone(t)
	p.write(topo(gold, wireTo("a", "gold", 7)))
	p.start()
	p.await("an attempt has been made", func(a *Agent) error {
		if len(a.dials) == 0 {
			return fmt.Errorf("none")
		}
		return nil
	})
	began := time.Now()
	p.shut()
	if took := time.Since(began); took > time.Second {
		t.Errorf("the stop took %v", took)
	}
	a := p.make()
	defer a.Close()
	for _, c := range a.control.Connections() {
		if c.State != control.ConnectionIdle {
			t.Errorf("the next daemon finds it %v", c.State)
		}
	}
}
