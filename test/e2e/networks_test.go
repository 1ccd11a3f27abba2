package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// mesh is sites of one network around a switch, with a host behind each.
//
//	host 0 ── eth1 dc1 eth0 ──┐
//	host 1 ── eth1 dc2 eth0 ──┼── underlay
//	host 2 ── eth1 dc3 eth0 ──┘
type mesh struct {
	t     *testing.T
	lab   *netlab.Lab
	sites []*site.Site
	hosts []*netlab.Link
	addr  []netip.Addr
}

// buildMesh draws it and starts the daemons; also is a further line of the network's,
// wires how many pseudowires each site then has.
func buildMesh(t *testing.T, also string, wires [3]int) *mesh {
	t.Helper()
	m := drawMesh(t, 3, also)
	m.start()
	for i, s := range m.sites {
		if err := s.AwaitUp(within(t, 2*upWithin), 2, wires[i]); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *mesh) start() {
	m.t.Helper()
	for _, s := range m.sites {
		if err := s.Start(); err != nil {
			m.t.Fatal(err)
		}
	}
}

// drawing is what a mesh can be otherwise.
type drawing struct {
	sites    int
	also     string // a further line of the network's
	datapath string
	// vlans has the bridges filter VLANs, and the network in another one at each site.
	vlans bool
}

// vlan is the network's at a site.
func (d drawing) vlan(site int) uint16 {
	if !d.vlans {
		return 0
	}
	return uint16(100 * (site + 1))
}

// drawMesh draws it for some number of sites.
func drawMesh(t *testing.T, sites int, also string) *mesh {
	t.Helper()
	return drawing{sites: sites, also: also, datapath: datapaths()[0][0]}.draw(t)
}

func (d drawing) draw(t *testing.T) *mesh {
	t.Helper()
	sites, also := d.sites, d.also
	dir := t.TempDir()
	m := &mesh{t: t, lab: netlab.New(t), sites: make([]*site.Site, sites), hosts: make([]*netlab.Link, sites), addr: make([]netip.Addr, sites)}
	file := filepath.Join(dir, "topology.yaml")
	text := "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: mesh}\nsites:\n"
	attach, names := "", ""
	for i := range m.sites {
		aware, in := "", ""
		if d.vlans {
			aware, in = ", vlan-aware: true", fmt.Sprintf(", vlan: %d", d.vlan(i))
		}
		text += fmt.Sprintf("  dc%d: {address: 192.0.2.%d, bridges: {br-lan: {ports: [eth1]%s}}}\n", i+1, i+1, aware)
		attach += fmt.Sprintf("      dc%d: {bridge: br-lan%s}\n", i+1, in)
		names += fmt.Sprintf(", dc%d", i+1)
	}
	text += "tunnels:\n  core: {sites: [" + names[2:] + "]}\nnetworks:\n  office:\n    tunnel: core\n" + also + "    attach:\n" + attach
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	underlay := m.lab.Namespace("underlay")
	var ports []*netlab.Link
	for i := range m.sites {
		name := fmt.Sprintf("dc%d", i+1)
		s := &site.Site{
			Name: name, NS: m.lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: file,
			Flags: []string{"--datapath", d.datapath}, Links: []string{"eth0", "eth1"},
		}
		m.sites[i] = s
		t.Cleanup(s.Close)
		port, nic := m.lab.Veth(underlay, fmt.Sprintf("port%d", i), s.NS, "eth0")
		ports = append(ports, port.Silent().Up())
		if inVM {
			nic.Feature("tx-checksum-*", false)
		}
		nic.Addr(fmt.Sprintf("192.0.2.%d/24", i+1)).Up()
		m.addr[i] = netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		lan, host := m.lab.Veth(s.NS, "eth1", m.lab.Namespace(fmt.Sprintf("host %d", i)), "eth0")
		lan.Silent().Up()
		if host.Silent(); d.vlans {
			host.Tagged(d.vlan(i))
		}
		m.hosts[i] = host.Addr(m.addr[i].String() + "/24").Up()
	}
	underlay.Bridge("switch", ports...).Silent().Up()
	return m
}

// Twenty sites with one topology file: 190 tunnels and as many pseudowires. Every site
// reaches the next and the farthest.
func TestTwentySites(t *testing.T) {
	if inVM {
		t.Skip("too much for a virtual machine")
	}
	const sites = 20
	m := drawMesh(t, sites, "")
	begin := time.Now()
	m.start()
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, 2*time.Minute), sites-1, sites-1); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d sites, %d tunnels, %[2]d pseudowires: all up after %v", sites, sites*(sites-1)/2, time.Since(begin).Round(time.Second/10))
	for i, h := range m.hosts {
		for _, k := range []int{(i + 1) % sites, (i + sites/2) % sites} {
			r, err := h.NS.Ping(within(t, 30*time.Second), m.addr[k], netlab.PingOptions{Count: 1})
			if err != nil || r.Lost() > 0 {
				t.Errorf("host %d to host %d: %d of %d lost, %v", i, k, r.Lost(), r.Sent, err)
			}
		}
	}
	t.Logf("and heard each other after %v", time.Since(begin).Round(time.Second/10))
	for i, s := range m.sites {
		if err := s.Daemon.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop site %d: %v", i, err)
		}
	}
	for i, s := range m.sites {
		if err := s.Daemon.Wait(within(t, time.Minute)); err != nil {
			t.Errorf("site %d: %v", i, err)
		}
	}
	t.Logf("and ended after %v", time.Since(begin).Round(time.Second/10))
}

// State follows state: the LAN of a site fails, and at the others its pseudowire has no
// carrier, nothing is learned behind it any more, and the status says whose fault it is.
// When the LAN is there again all comes back.
func TestCircuitFails(t *testing.T) {
	beside(t)
	m := buildMesh(t, "", [3]int{2, 2, 2})
	if _, err := m.hosts[0].NS.Ping(within(t, 30*time.Second), m.addr[1], netlab.PingOptions{Count: 1}); err != nil {
		t.Fatal(err)
	}
	attrs, err := m.hosts[1].Attrs()
	if err != nil {
		t.Fatal(err)
	}
	mac := attrs.HardwareAddr.String()
	m.awaitMAC(0, mac, "dc2")
	m.hosts[1].Down()
	err = m.sites[0].Await(within(t, 30*time.Second), "the pseudowire to dc2 is down, by dc2's fault", func(st *api.Status) error {
		for _, p := range st.Pseudowires {
			if p.Peer != "dc2" {
				continue
			}
			if p.State != "down" || !strings.HasPrefix(p.Reason, "dc2 reports its attachment circuit as ") {
				return fmt.Errorf("%s is %s: %s", p.Name, p.State, p.Reason)
			}
			return m.sites[0].NS.WaitLink(within(t, 30*time.Second), p.Device, "has no carrier", func(l netlink.Link) bool {
				return l.Attrs().OperState != netlink.OperUp
			})
		}
		return errors.New("there is none")
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.sites[0].Client().MACs(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if x.Peer == "dc2" {
			t.Errorf("%+v is still known", x)
		}
	}
	m.hosts[1].Up()
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, 30*time.Second), 2, 2); err != nil {
			t.Error(err)
		}
	}
	err = netlab.Poll(within(t, 30*time.Second), "hosts reach each other", func() error {
		r, err := m.hosts[0].NS.Ping(within(t, 30*time.Second), m.addr[1], netlab.PingOptions{Count: 1})
		if err == nil && r.Lost() > 0 {
			err = errors.New("lost")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Every site of a network reaches every other, and each broadcast comes once: with a
// pseudowire for each pair, and by way of a hub.
func TestNetwork(t *testing.T) {
	beside(t)
	for name, n := range map[string]struct {
		also  string
		wires [3]int
	}{"full mesh": {"", [3]int{2, 2, 2}}, "hub": {"    hub: dc1\n", [3]int{2, 1, 1}}} {
		t.Run(name, func(t *testing.T) {
			m := buildMesh(t, n.also, n.wires)
			captures := [3]*netlab.Capture{}
			for i, h := range m.hosts {
				var err error
				if captures[i], err = h.Capture(netlab.CaptureOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			for i, h := range m.hosts {
				for k, to := range m.addr {
					if i == k {
						continue
					}
					r, err := h.NS.Ping(within(t, 30*time.Second), to, netlab.PingOptions{Count: 2})
					if err != nil || r.Lost() > 0 {
						t.Errorf("host %d to host %d: %d of %d lost, %v", i, k, r.Lost(), r.Sent, err)
					}
				}
			}
			for i, c := range captures {
				frames, err := c.Stop()
				if err != nil {
					t.Fatal(err)
				}
				// Each echo has its number: no frame is like another but one that came twice.
				seen := map[string]bool{}
				for _, f := range frames {
					if len(f.Data) < 24 || f.Data[12] != 0x08 || f.Data[13] != 0x00 || string(f.Data[:6]) != string(m.hosts[i].MAC) {
						continue
					}
					if seen[string(f.Data)] {
						t.Errorf("host %d: a frame came twice: % x", i, f.Data)
					}
					seen[string(f.Data)] = true
				}
				if len(seen) != 8 {
					t.Errorf("host %d got %d of its 8 echoes and replies", i, len(seen))
				}
			}
		})
	}
}

// awaitMAC waits until a site has an address behind the pseudowire to a peer, or has it
// itself where that is empty.
func (m *mesh) awaitMAC(i int, address, peer string) {
	m.t.Helper()
	ctx := within(m.t, 30*time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		all, err := m.sites[i].Client().MACs(ctx)
		k := slices.IndexFunc(all, func(x api.MAC) bool { return x.Address == address })
		if err == nil && k >= 0 && all[k].Peer == peer && all[k].Bridge == "br-lan" && (all[k].Pseudowire == "") == (peer == "") {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			m.t.Fatalf("dc%d does not have %s behind %q: %+v, %v", i+1, address, peer, all, err)
		}
	}
}
