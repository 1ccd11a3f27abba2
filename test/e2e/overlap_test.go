package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// overlap is three sites that four networks join, a full mesh each. Hosts of all networks
// at a site have the same MAC and IP address.
//
//	red host 1   ── eth1 dc1 eth0 ──┐
//	green host 1 ── eth2            │
//	 …                              ├── underlay
//	red host 2   ── eth1 dc2 eth0 ──┤
//	 …                              │
//	red host 3   ── eth1 dc3 eth0 ──┘
//
// With trunks the hosts of a site are behind one port, each in its network's VLAN, which is
// another one at every site.
type overlap struct {
	t     *testing.T
	lab   *netlab.Lab
	sites [3]*site.Site
	ports map[string][3]*port // by network
	// places is where each network's addresses are: the index of a site.
	places map[string]map[string]int
	// serial numbers the frames.
	serial uint32
}

// port is where a host's frames go in and come out.
type port struct {
	link *netlab.Link
	vlan uint16 // of its frames, 0 for none
	got  *netlab.Capture
}

var overlapping = []string{"red", "green", "blue", "black"}

func addressOf(site int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(site + 1)}) }

func macOf(site int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(site + 1)} }

// buildOverlap draws it and starts the daemons. The last site has no bridges of its own:
// there the networks are attached to interfaces.
func buildOverlap(t *testing.T, datapath string, trunks bool) *overlap {
	t.Helper()
	dir := t.TempDir()
	o := &overlap{t: t, lab: netlab.New(t), ports: map[string][3]*port{}, places: map[string]map[string]int{}}
	file := filepath.Join(dir, "topology.yaml")
	underlay := o.lab.Namespace("underlay")
	var ends []*netlab.Link
	sites, networks := "", map[string]string{}
	for i := range o.sites {
		name := fmt.Sprintf("dc%d", i+1)
		s := &site.Site{
			Name: name, NS: o.lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: file,
			Flags: []string{"--datapath", datapath}, Links: []string{"eth0", "eth1", "eth2", "eth3", "eth4"},
		}
		o.sites[i] = s
		t.Cleanup(s.Close)
		end, nic := o.lab.Veth(underlay, fmt.Sprintf("port%d", i), s.NS, "eth0")
		ends = append(ends, end.Silent().Up())
		if datapath == "kernel" {
			nic.Feature("tx-checksum-*", false)
		}
		nic.Addr(fmt.Sprintf("192.0.2.%d/24", i+1)).Up()
		bridges := ""
		var trunk *netlab.Link
		for k, n := range overlapping {
			var at *port
			if trunks {
				if trunk == nil {
					trunk = o.host(s, "eth1", "hosts", i)
				}
				at = &port{link: trunk, vlan: uint16(100*(i+1) + k)}
				networks[n] += fmt.Sprintf("      %s: {bridge: br-lan, vlan: %d}\n", name, at.vlan)
				bridges = "br-lan: {ports: [eth1], vlan-aware: true}"
			} else {
				eth := fmt.Sprintf("eth%d", k+1)
				at = &port{link: o.host(s, eth, n, i).Addr(addressOf(i).String() + "/24")}
				if i == len(o.sites)-1 {
					networks[n] += fmt.Sprintf("      %s: {interface: %s}\n", name, eth)
				} else {
					bridges += fmt.Sprintf("br-%s: {ports: [%s]}, ", n, eth)
					networks[n] += fmt.Sprintf("      %s: {bridge: br-%s}\n", name, n)
				}
			}
			all := o.ports[n]
			all[i] = at
			o.ports[n] = all
		}
		sites += fmt.Sprintf("  %s: {address: 192.0.2.%d, bridges: {%s}}\n", name, i+1, strings.TrimSuffix(bridges, ", "))
	}
	underlay.Bridge("switch", ends...).Silent().Up()
	text := "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: overlap}\nsites:\n" + sites + "tunnels:\n  core: {sites: [dc1, dc2, dc3]}\nnetworks:\n"
	for _, n := range overlapping {
		text += "  " + n + ":\n    tunnel: core\n    attach:\n" + networks[n]
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range o.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range o.sites {
		if err := s.AwaitUp(within(t, 2*upWithin), 2, 2*len(overlapping)); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// host is a host's interface behind one of a site's.
func (o *overlap) host(s *site.Site, eth, name string, i int) *netlab.Link {
	lan, nic := o.lab.Veth(s.NS, eth, o.lab.Namespace(fmt.Sprintf("%s host %d", name, i+1)), "eth0")
	lan.Silent().Up()
	return nic.Silent().Address(macOf(i).String()).Up()
}

// capture begins to look at every port.
func (o *overlap) capture() {
	o.t.Helper()
	for _, n := range overlapping {
		for _, p := range o.ports[n] {
			var err error
			p.got, err = p.link.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return p.vlan == 0 || vlanOf(f.Data) == p.vlan }})
			if err != nil {
				o.t.Fatal(err)
			}
		}
	}
}

// shouts are the frames that a host sends, and where each is to come out.
type shouts struct {
	o *overlap
	// want are the frames that each port is to get, without their tags.
	want map[*port][][]byte
}

// send sends a frame in a network from a site, and notes where it has to come out: at the
// site where its destination has been learned, else at all others.
func (s *shouts) send(network string, from int, source, destination net.HardwareAddr, etherType uint16) {
	s.o.t.Helper()
	s.o.serial++
	f := slices.Concat(destination, source)
	f = binary.BigEndian.AppendUint16(f, etherType)
	payload := make([]byte, 50+s.o.serial%1400)
	switch etherType {
	case 0x0800:
		copy(payload, []byte{0x45, 0, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0, 64, 253, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2})
		binary.BigEndian.PutUint16(payload[10:], sum16(payload[:20]))
	case 0x86dd:
		copy(payload, []byte{0x60, 0, 0, 0, byte((len(payload) - 40) >> 8), byte(len(payload) - 40), 59, 64})
	}
	copy(payload[40:], fmt.Sprintf("%c%d %d", network[2], from, s.o.serial))
	f = append(f, payload...)

	places := s.o.places[network]
	at, known := places[destination.String()]
	for i, p := range s.o.ports[network] {
		if i != from && (!known || i == at) {
			s.want[p] = append(s.want[p], f)
		}
	}
	places[source.String()] = from
	p := s.o.ports[network][from]
	if p.vlan != 0 {
		f = slices.Concat(f[:12], []byte{0x81, 0, byte(p.vlan >> 8), byte(p.vlan)}, f[12:])
	}
	if err := p.link.Send(f); err != nil {
		s.o.t.Fatal(err)
	}
}

// await waits until every port has got its frames.
func (s *shouts) await() {
	s.o.t.Helper()
	for _, n := range overlapping {
		for i, p := range s.o.ports[n] {
			if _, err := p.got.WaitCount(within(s.o.t, upWithin), len(s.want[p])); err != nil {
				s.o.t.Errorf("%s at dc%d: %v", n, i+1, err)
			}
		}
	}
}

// Four networks join three sites, with the same MAC and IP addresses in all of them. What
// a host sends comes out at the ports where it belongs, once and as it was, and nowhere
// else: broadcasts, multicasts and unknown unicasts at all others of the network, what is
// known in it only where it is, whatever the other networks know about that address.
func TestOverlappingNetworks(t *testing.T) {
	beside(t)
	kinds := [][2]string{{"ebpf", "ports"}}
	if inVM {
		kinds = eachOnOneKernel([][2]string{{"kernel", "trunks"}, {"ebpf", "trunks"}})
	}
	for _, k := range kinds {
		t.Run(k[0]+", "+k[1], func(t *testing.T) {
			o := buildOverlap(t, k[0], k[1] == "trunks")
			o.everyFrame()
			if k[1] == "ports" {
				o.echoes()
			}
			o.showMACs()
		})
	}
}

func (o *overlap) everyFrame() {
	o.t.Helper()
	o.capture()
	s := &shouts{o, map[*port][][]byte{}}
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	// Each network has a guest besides, which the others do not know.
	guest := func(k int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 1, byte(k)} }
	for k, n := range overlapping {
		o.places[n] = map[string]int{}
		for i := range o.sites {
			s.send(n, i, macOf(i), all, 0x88b5)
		}
		s.send(n, k%len(o.sites), guest(k), all, 0x88b5)
	}
	s.await()
	to := []net.HardwareAddr{all, {0x01, 0x00, 0x5e, 0x00, 0x01, 0x17}, {0x33, 0x33, 0, 0, 0x01, 0x17}, {2, 0, 0, 0, 2, 0}}
	for i := range o.sites {
		to = append(to, macOf(i))
	}
	for k := range overlapping {
		to = append(to, guest(k))
	}
	for _, etherType := range []uint16{0x0800, 0x86dd, 0x0806, 0x88b5} {
		for _, d := range to {
			for _, n := range overlapping {
				for i := range o.sites {
					s.send(n, i, macOf(i), d, etherType)
				}
			}
		}
		s.await()
	}
	// What is under way too much has its time while these arrive.
	for _, n := range overlapping {
		for i := range o.sites {
			s.send(n, i, macOf(i), all, 0x88b5)
		}
	}
	s.await()
	frames := 0
	for _, n := range overlapping {
		for i, p := range o.ports[n] {
			got, err := p.got.Stop()
			if err != nil {
				o.t.Error(err)
			}
			frames += len(got)
			o.compare(fmt.Sprintf("%s at dc%d", n, i+1), s.want[p], got)
		}
	}
	o.t.Logf("%d frames sent, %d came out", o.serial, frames)
}

// compare wants exactly those frames, each once.
func (o *overlap) compare(where string, want [][]byte, got []netlab.Frame) {
	o.t.Helper()
	missing := map[string]bool{}
	for _, f := range want {
		missing[string(f)] = true
	}
	for _, f := range got {
		b := f.Data
		if vlanOf(b) != 0 {
			b = slices.Concat(b[:12], b[16:])
		}
		if !missing[string(b)] {
			o.t.Errorf("%s: a frame that does not belong there, or once too often: % x", where, f.Data[:min(len(f.Data), 80)])
		}
		delete(missing, string(b))
	}
	for f := range missing {
		o.t.Errorf("%s: a frame did not come: % x", where, f[:min(len(f), 80)])
	}
}

// echoes has all hosts of all networks ask each other at once, by the same addresses. Each
// gets the echoes and the replies that are its own, and no other packets.
func (o *overlap) echoes() {
	o.t.Helper()
	o.capture()
	const count = 3
	var all sync.WaitGroup
	for _, n := range overlapping {
		for i, p := range o.ports[n] {
			all.Go(func() {
				for k := range o.sites {
					if k == i {
						continue
					}
					r, err := p.link.NS.Ping(within(o.t, upWithin), addressOf(k), netlab.PingOptions{Count: count})
					if err != nil || r.Lost() > 0 {
						o.t.Errorf("%s: host %d to host %d: %d of %d lost, %v", n, i+1, k+1, r.Lost(), r.Sent, err)
					}
				}
			})
		}
	}
	all.Wait()
	for _, n := range overlapping {
		for i, p := range o.ports[n] {
			got, err := p.got.Stop()
			if err != nil {
				o.t.Error(err)
			}
			seen := map[string]bool{}
			for _, f := range got {
				switch binary.BigEndian.Uint16(f.Data[12:]) {
				case 0x0806: // asked again where an answer took long
				case 0x0800:
					if seen[string(f.Data)] || string(f.Data[:6]) != string(macOf(i)) {
						o.t.Errorf("%s at dc%d: a packet came twice, or is not for this host: % x", n, i+1, f.Data)
					}
					seen[string(f.Data)] = true
				default:
					o.t.Errorf("%s at dc%d: nobody sent % x", n, i+1, f.Data)
				}
			}
			if want := 2 * count * (len(o.sites) - 1); len(seen) != want {
				o.t.Errorf("%s at dc%d: %d echoes and replies, want %d", n, i+1, len(seen), want)
			}
		}
	}
}

// showMACs wants each site to tell where the hosts of each network are.
func (o *overlap) showMACs() {
	o.t.Helper()
	for i, s := range o.sites {
		all, err := s.Client().MACs(within(o.t, upWithin))
		if err != nil {
			o.t.Fatal(err)
		}
		for _, n := range overlapping {
			for k, peer := range o.sites {
				found := 0
				for _, m := range all {
					if k != i && m.Address == macOf(k).String() && m.Pseudowire == n+"/"+peer.Name && m.Peer == peer.Name {
						found++
					}
				}
				if k != i && found != 1 {
					o.t.Errorf("dc%d knows %v behind %s/%s %d times: %+v", i+1, macOf(k), n, peer.Name, found, all)
				}
			}
		}
	}
}
