package e2e

import (
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

var everyCell = flag.Bool("cells", false, "TestEveryCellSignalled has all combinations in virtual machines, too")

// signalledCell is a pseudowire between two daemons.
type signalledCell struct {
	name, tunnel, options string
	numbered, sublayer    bool
	cookie                int
}

// signalledTunnels are all kinds of them, by name.
var signalledTunnels = map[string]string{
	"udp4":      "underlay: {dc1: four, dc2: four}, encapsulation: udp, udp-checksum: off",
	"udp4-csum": "underlay: {dc1: four, dc2: four}, encapsulation: udp, udp-checksum: on",
	"ip4":       "underlay: {dc1: four, dc2: four}, encapsulation: ip",
	"udp6":      "underlay: {dc1: six, dc2: six}, encapsulation: udp, udp-checksum: off",
	"udp6-csum": "underlay: {dc1: six, dc2: six}, encapsulation: udp, udp-checksum: on",
	"ip6":       "underlay: {dc1: six, dc2: six}, encapsulation: ip",
}

// signalledCells are all combinations of what a session can be asked for, in each kind of tunnel. Sequencing takes
// a sublayer (RFC 3931, Section 5.4.4), and what the kernel cannot do is not among them: sequencing of other than IP packets alone,
// a sublayer one way only. In a virtual machine each kind of tunnel has
// a third of them: every length of cookie and every sublayer, and two kinds have each combination of these.
func signalledCells() (all []signalledCell) {
	for i, tunnel := range slices.Sorted(maps.Keys(signalledTunnels)) {
		for k, cookie := range []int{0, 4, 8} {
			for n, l2 := range []string{"sublayer: none", "sublayer: default", "sequencing: all"} {
				if inVM && !*everyCell && (i+k+n)%3 != 0 {
					continue
				}
				all = append(all, signalledCell{
					name: fmt.Sprintf("c%d", len(all)), tunnel: tunnel, options: fmt.Sprintf("cookie: %d, %s", cookie, l2),
					cookie: cookie, sublayer: l2 != "sublayer: none", numbered: l2 == "sequencing: all",
				})
			}
		}
	}
	return all
}

func (c *signalledCell) String() string { return c.tunnel + ", " + c.options }

// TestEveryCellSignalled: what two daemons agree on, in a virtual machine one with the eBPF datapath and one with the
// kernel's, is what packets then have, in every combination: small frames and some that leave in fragments, each way, arrive octet for octet.
func TestEveryCellSignalled(t *testing.T) {
	beside(t)
	pairs := datapaths()
	w := build(t, network{datapaths: pairs[len(pairs)-1]})
	for i := range w.underlay {
		w.sites[i].NS.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		w.underlay[i].Addr(fmt.Sprintf("2001:db8::%d/64", i+1))
	}
	cells := signalledCells()
	w.write(signalledText(cells))
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, upWithin), len(signalledTunnels), len(cells)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d pseudowires in %d tunnels are up after %v", len(cells), len(signalledTunnels), time.Since(began).Round(time.Second))
	for from := range w.sites {
		w.exchangeCells(cells, from)
	}
	for i, s := range w.sites {
		sessions, err := s.Client().Sessions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range sessions {
			for reason, n := range x.Drops {
				if reason != "fragmented" && reason != "reassembled" && n > 0 {
					t.Errorf("%s, %s: %d frames of %s", s.Name, x.Pseudowire, n, reason)
				}
			}
			if w.network.datapaths[i] == "ebpf" && (x.Drops["fragmented"] == 0 || x.Drops["reassembled"] == 0) {
				t.Errorf("%s, %s: nothing was in fragments: %v", s.Name, x.Pseudowire, x.Drops)
			}
		}
	}
}

func signalledText(cells []signalledCell) string {
	var bridges, tunnels, wires []string
	for name, options := range signalledTunnels {
		tunnels = append(tunnels, fmt.Sprintf("  %s: {sites: [dc1, dc2], %s}\n", name, options))
	}
	for _, c := range cells {
		bridges = append(bridges, "br-"+c.name+": {}")
		wires = append(wires, fmt.Sprintf("  %s: {tunnel: %s, %s, attach: {dc1: {bridge: br-%[1]s}, dc2: {bridge: br-%[1]s}}}\n", c.name, c.tunnel, c.options))
	}
	text := "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: cells}\nsites:\n"
	for i := 1; i <= 2; i++ {
		text += fmt.Sprintf("  dc%d: {underlays: {four: {address: 192.0.2.%[1]d}, six: {address: \"2001:db8::%[1]d\"}}, bridges: {%[2]s}}\n", i, strings.Join(bridges, ", "))
	}
	return text + "tunnels:\n" + strings.Join(tunnels, "") + "pseudowires:\n" + strings.Join(wires, "")
}

// exchangeCells sends frames through every pseudowire from one site to the other, which is to get just
// those, in packets as they were agreed on.
func (w *world) exchangeCells(cells []signalledCell, from int) {
	w.t.Helper()
	to := w.sites[1-from]
	devices := func(i int) map[string]string {
		st, err := w.sites[i].Client().Status(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		all := map[string]string{}
		for _, p := range st.Pseudowires {
			all[p.Name] = p.Device
		}
		return all
	}
	out, in := devices(from), devices(1-from)
	wire := &packetsByID{map[uint32]map[string]bool{}, map[uint32]bool{}}
	underlay, err := w.underlay[1-from].Capture(netlab.CaptureOptions{Keep: wire.take})
	if err != nil {
		w.t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{byte(from)})
	captures, sent := map[string]*netlab.Capture{}, map[string][][]byte{}
	for _, c := range cells {
		if captures[c.name], err = to.NS.Link(in[c.name]).Capture(netlab.CaptureOptions{Filter: fromSource}); err != nil {
			w.t.Fatal(err)
		}
		for kind, size := range []int{60, 400, 1514} { // the last is more than the underlay of 1500 octets takes
			sent[c.name] = append(sent[c.name], frameOf(random, size, kind, 0))
		}
		if err := w.sites[from].NS.Link(out[c.name]).Send(sent[c.name]...); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, c := range cells {
		if _, err := captures[c.name].WaitCount(within(w.t, 5*time.Second), len(sent[c.name])); err != nil {
			w.t.Errorf("%s: %v", &c, err)
		}
		frames, err := captures[c.name].Stop()
		if err != nil {
			w.t.Error(err)
		}
		w.compare(&lan{name: c.String()}, from, sent[c.name], frames)
	}
	if _, err := underlay.Stop(); err != nil {
		w.t.Error(err)
	}
	sessions, err := to.Client().Sessions(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range sessions {
		wire.check(w.t, cells, &x, from, w.network.datapaths[from])
	}
}

// packetsByID says what packets of each session had, by the session ID in them.
type packetsByID struct {
	kinds map[uint32]map[string]bool
	// numbered says so of packets with a sublayer; it means nothing of others.
	numbered map[uint32]bool
}

// take looks at whole packets.
func (p *packetsByID) take(f *netlab.Frame) bool {
	b := f.Data
	header, protocol := 34, 0
	switch {
	case len(b) < 62:
		return false
	case b[12] == 0x08 && b[13] == 0x00 && binary.BigEndian.Uint16(b[20:])&0x3fff == 0:
		protocol = int(b[23])
	case b[12] == 0x86 && b[13] == 0xdd:
		header, protocol = 54, int(b[20])
	}
	kind, at := "over IP", header
	switch {
	case protocol == 17 && b[header+8]&0x80 == 0: // no control message
		kind, at = "without a checksum", header+12
		if binary.BigEndian.Uint16(b[header+6:]) != 0 {
			kind = "with a checksum"
		}
	case protocol != 115:
		return false
	}
	id := binary.BigEndian.Uint32(b[at:])
	if p.kinds[id] == nil {
		p.kinds[id] = map[string]bool{}
	}
	p.kinds[id][kind] = true
	// The inner frame begins where its source address is.
	for _, n := range []int{0, 4, 8, 12} {
		if len(b) >= at+4+n+12 && string(b[at+4+n+6:at+4+n+12]) == string(source) {
			p.kinds[id][fmt.Sprintf("%d octets of cookie and sublayer", n)] = true
			p.numbered[id] = b[at+n]&0x40 != 0 // the S bit, where these end in a sublayer
		}
	}
	return false
}

// check compares them with what a session is to have. Checksums of the kernel's datapath are on always.
func (p *packetsByID) check(t *testing.T, cells []signalledCell, s *api.Session, from int, datapath string) {
	t.Helper()
	for _, c := range cells {
		if c.name != s.Pseudowire {
			continue
		}
		checksum := "without a checksum"
		switch {
		case strings.HasPrefix(c.tunnel, "ip"):
			checksum = "over IP"
		case datapath == "kernel" || strings.HasSuffix(c.tunnel, "-csum"):
			checksum = "with a checksum"
		}
		octets := c.cookie
		if c.sublayer {
			octets += 4
		}
		want := map[string]bool{checksum: true, fmt.Sprintf("%d octets of cookie and sublayer", octets): true}
		if got := p.kinds[s.LocalSessionID]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: packets from dc%d are %v, want %v", &c, from+1, got, want)
		}
		if got := p.numbered[s.LocalSessionID]; c.sublayer && got != c.numbered {
			t.Errorf("%s: packets from dc%d are numbered: %v", &c, from+1, got)
		}
	}
}
