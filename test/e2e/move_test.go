package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// guest is a virtual machine that moves between the first two sites of a mesh: a namespace
// with an interface at both, of which it uses one at a time, with one MAC and IP address.
type guest struct {
	m    *mesh
	ns   *netlab.Namespace
	addr netip.Addr
	// nic is its interface, away bridges that lead nowhere, one for each way: in one both
	// would close a loop for a moment.
	nic  *netlab.Link
	away [2]*netlab.Link
	// at are its ways to the sites, ports their other ends.
	at, ports [2]*netlab.Link
}

const guestMAC = "02:00:00:00:00:09"

// board makes it, at the first site.
func (d drawing) board(m *mesh) *guest {
	m.t.Helper()
	g := &guest{m: m, ns: m.lab.Namespace("vm"), addr: netip.MustParseAddr("198.51.100.9")}
	for i := range g.at {
		g.at[i], g.ports[i] = m.lab.Veth(g.ns, fmt.Sprintf("eth%d", i), m.sites[i].NS, "eth9")
		g.ports[i].Silent().Master(m.sites[i].NS.Link("br-lan"))
		if d.vlans {
			if said, err := m.sites[i].NS.Run(m.t.Context(), "bridge", "vlan", "add", "dev", "eth9", "vid", fmt.Sprint(d.vlan(i)), "pvid", "untagged"); err != nil {
				m.t.Fatalf("%v\n%s", err, said)
			}
		}
		g.ports[i].Up()
		g.at[i].Silent()
	}
	// The kernel may take a second to notice that a carrier came: all links have theirs all
	// the time, the bridge by a port that leads nowhere.
	carrier, nowhere := m.lab.Veth(g.ns, "carrier", g.ns, "nowhere")
	nowhere.Silent().Up()
	g.nic = g.ns.Bridge("nic", carrier.Silent().Up(), g.at[0].Up()).Silent().Address(guestMAC).Addr(g.addr.String() + "/24").Up()
	g.away = [2]*netlab.Link{g.ns.Bridge("away0").Silent(), g.ns.Bridge("away1", g.at[1].Up()).Silent()}
	return g
}

// move takes it to the other site, where it says so as hypervisors do: one frame, with an
// ARP announcement.
func (g *guest) move() []byte {
	g.m.t.Helper()
	g.at[0].Master(g.away[0])
	g.at[1].Master(g.nic)
	ip := g.addr.As4()
	f := slices.Concat(bytes.Repeat([]byte{0xff}, 6), g.nic.MAC, []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1}, g.nic.MAC, ip[:], make([]byte, 6), ip[:], make([]byte, 18))
	if err := g.nic.Send(f); err != nil {
		g.m.t.Fatal(err)
	}
	return f
}

// A virtual machine moves to another site during a TCP transfer and a flow of datagrams to
// it, between bridges of which some filter VLANs: what is sent to it comes after its first
// frame from there, and nothing goes to where it was any more.
func TestHostMoves(t *testing.T) {
	kinds := []drawing{{sites: 3, datapath: "ebpf"}}
	if inVM {
		kinds = eachOnOneKernel([]drawing{{sites: 3, datapath: "kernel", vlans: true}, {sites: 3, datapath: "ebpf", vlans: true}})
	}
	for _, d := range kinds {
		t.Run(fmt.Sprintf("%s, VLANs %v", d.datapath, d.vlans), func(t *testing.T) {
			for n := 1; ; n++ {
				var gap time.Duration
				t.Run(fmt.Sprint("attempt ", n), func(t *testing.T) { gap = d.guestMoves(t) })
				switch {
				case t.Failed() || gap <= moveGap || inVM: // an emulated machine has other times
					return
				case n == attempts:
					t.Errorf("a gap of more than %v %d times in succession", moveGap, n)
					return
				}
				t.Logf("again: the machine may have been busy")
			}
		})
	}
}

// moveGap is what is promised: from the first frame at the new site to the first one for it there.
const moveGap = 50 * time.Millisecond

// guestMoves is one move, on a mesh of its own.
func (d drawing) guestMoves(t *testing.T) (gap time.Duration) {
	m := d.draw(t)
	m.start()
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, 2*upWithin), 2, 2); err != nil {
			t.Fatal(err)
		}
	}
	g := d.board(m)
	if r, err := g.ns.Ping(within(t, 30*time.Second), m.addr[2], netlab.PingOptions{Count: 2}); err != nil || r.Lost() > 0 {
		t.Fatalf("ping: %d of %d lost, %v", r.Lost(), r.Sent, err)
	}
	gap = g.moves()
	for i, peer := range []string{"dc2", "", "dc2"} {
		m.awaitMAC(i, guestMAC, peer)
	}
	if said, err := m.sites[1].Pwctl(within(t, 30*time.Second), "announce", "--all"); err != nil {
		t.Errorf("announce: %v\n%s", err, said)
	}
	return gap
}

func (g *guest) moves() time.Duration {
	t, far := g.m.t, g.m.hosts[2]
	t.Helper()
	// Datagrams to it, of which only those after the move count, are marked by their port.
	flow, err := far.NS.Flow(g.ns, g.addr, netlab.FlowOptions{Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	out := g.ns.Stream(within(t, 60*time.Second), far.NS, g.m.addr[2])
	in := far.NS.Stream(within(t, 60*time.Second), g.ns, g.addr)
	streams := map[string]*netlab.Stream{"from it": out, "to it": in}
	live := func() {
		t.Helper()
		if err := flow.WaitReceived(within(t, 30*time.Second), 50); err != nil {
			t.Fatal(err)
		}
		for name, s := range streams {
			if err := s.WaitReceived(within(t, 30*time.Second), 100_000); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	live()
	there, err := g.at[1].Capture(netlab.CaptureOptions{Outgoing: true})
	if err != nil {
		t.Fatal(err)
	}
	heard, err := far.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return isARP(f.Data) }})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	first := g.move()
	live()
	// The first frame after the move got through.
	if _, err := heard.Wait(within(t, 30*time.Second), "its first frame", func(all []netlab.Frame) bool {
		return slices.ContainsFunc(all, func(f netlab.Frame) bool { return bytes.HasSuffix(f.Data, first[12:]) && f.Time.After(began) })
	}); err != nil {
		t.Error(err)
	}
	before, err := g.ports[0].Attrs()
	if err != nil {
		t.Fatal(err)
	}
	live()
	after, err := g.ports[0].Attrs()
	if err != nil {
		t.Fatal(err)
	}
	// A handful that others sent to all may come there.
	if n := after.Statistics.TxPackets - before.Statistics.TxPackets; n > 10 {
		t.Errorf("%d frames went to where it was", n)
	}
	for name, s := range streams {
		r, err := s.Stop()
		if err != nil || !r.Same() {
			t.Errorf("transfer %s: %d octets sent, %d received, %v", name, r.Sent, r.Received, err)
		}
		t.Logf("transfer %s: %d octets", name, r.Received)
	}
	r, err := flow.Stop()
	if err != nil || r.Duplicated+r.Damaged > 0 {
		t.Errorf("flow: %v, %v", r, err)
	}
	t.Logf("flow to it: %v", r)
	frames, err := there.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return g.gap(frames)
}

func isARP(frame []byte) bool {
	at := 12
	if vlanOf(frame) != 0 {
		at += 4
	}
	return len(frame) > at+2 && binary.BigEndian.Uint16(frame[at:]) == 0x0806
}

// gap is from its first frame at the new site to the first datagram or segment that
// arrives there.
func (g *guest) gap(frames []netlab.Frame) time.Duration {
	g.m.t.Helper()
	sent := slices.IndexFunc(frames, func(f netlab.Frame) bool { return f.Outgoing && bytes.Equal(f.Data[6:12], g.nic.MAC) })
	if sent < 0 {
		g.m.t.Fatal("it sent nothing")
	}
	got := slices.IndexFunc(frames[sent:], func(f netlab.Frame) bool { return !f.Outgoing && bytes.Equal(f.Data[:6], g.nic.MAC) })
	if got < 0 {
		g.m.t.Fatal("nothing came for it")
	}
	gap := frames[sent+got].Time.Sub(frames[sent].Time)
	g.m.t.Logf("%v from its first frame there to the first one for it", gap.Round(time.Microsecond))
	if gap > 5*time.Second {
		g.m.t.Errorf("a gap of %v", gap)
	}
	return gap
}
