package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

var update = flag.Bool("update", false, "write docs/tags.md anew")

// tagCase is a pseudowire of its own, on interfaces and bridges of its own: what its ends
// attach.
type tagCase struct {
	title string
	kind  string // the type, if it is not ethernet
	// at are the keys of both ends; PORT is the interface, BRIDGE the bridge with it in it.
	at [2]string
	// bridge are keys of the bridge.
	bridge string
	// also are attachments to the same interfaces of another pseudowire.
	also [2]string
}

var tagCases = []tagCase{
	{title: "A whole port: frames as they are", at: [2]string{"interface: PORT", "interface: PORT"}},
	{title: "A VLAN, translated", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT, vlan: 200"}},
	{title: "A VLAN and a whole port: popped", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT"}},
	{title: "A VLAN of a bridge, translated", at: [2]string{"bridge: BRIDGE, vlan: 100", "bridge: BRIDGE, vlan: 200"}},
	{title: "A VLAN and untagged frames", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT, untagged: true"}},
	{title: "Untagged frames, the VLANs of the port being others'", at: [2]string{"interface: PORT, untagged: true", "interface: PORT, untagged: true"}, also: [2]string{"interface: PORT, vlans: [100, 102]", "interface: PORT, vlans: [100-102]"}},
	{title: "Several VLANs", at: [2]string{"interface: PORT, vlans: [100, 200-210]", "interface: PORT, vlans: [100, 200-210]"}},
	{title: "Several VLANs, fewer at the other end", at: [2]string{"interface: PORT, vlans: [100-210]", "interface: PORT, vlans: [200]"}},
	{title: "Several VLANs and untagged frames", at: [2]string{"interface: PORT, vlans: [100], untagged: true", "interface: PORT, vlans: [100], untagged: true"}},
	{title: "Several VLANs and a whole port", at: [2]string{"interface: PORT, vlans: [100]", "interface: PORT"}},
	{title: "Several VLANs of a bridge", at: [2]string{"bridge: BRIDGE, vlans: [100, 200-210]", "bridge: BRIDGE, vlans: [100, 200-210]"}},
	{title: "Untagged frames of a bridge", at: [2]string{"bridge: BRIDGE, untagged: true", "bridge: BRIDGE, untagged: true"}},
	{title: "QinQ: two tags, popped and pushed", at: [2]string{"interface: PORT, vlan: 100, inner-vlan: 20", "interface: PORT, vlan: 300, inner-vlan: 30"}},
	{title: "QinQ and a VLAN: two tags become one", at: [2]string{"interface: PORT, vlan: 100, inner-vlan: 20", "interface: PORT, vlan: 200"}},
	{title: "QinQ: an inner tag under any outer one, or one of several", at: [2]string{"interface: PORT, inner-vlan: 20", "interface: PORT, vlans: [100, 200], inner-vlan: 20"}},
	{title: "802.1ad: a service tag, popped and pushed", at: [2]string{"interface: PORT, vlan: 100, tag-protocol: 802.1ad", "interface: PORT, vlan: 300, tag-protocol: 802.1ad"}},
	{title: "802.1ad: a service tag pushed on tagged frames", at: [2]string{"interface: PORT", "interface: PORT, vlan: 300, tag-protocol: 802.1ad"}},
	{title: "802.1ad: both tags, popped and pushed", at: [2]string{"interface: PORT, vlan: 100, inner-vlan: 20, tag-protocol: 802.1ad", "interface: PORT, vlan: 200, inner-vlan: 21"}},
	{title: "802.1ad: several service tags", at: [2]string{"interface: PORT, vlans: [100, 200], tag-protocol: 802.1ad", "interface: PORT, vlans: [100, 200], tag-protocol: 802.1ad"}},
	{title: "Ethernet VLAN: the tag stays on, the number is rewritten", kind: "ethernet-vlan", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT, vlan: 200"}},
	{title: "Ethernet VLAN: a service tag where it comes out", kind: "ethernet-vlan", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT, vlan: 200, tag-protocol: 802.1ad"}},
	{title: "Ethernet VLAN: several VLANs", kind: "ethernet-vlan", at: [2]string{"interface: PORT, vlans: [100, 200]", "interface: PORT, vlans: [100, 200]"}},
	{title: "Priority bits: a number", at: [2]string{"interface: PORT, vlan: 100, pcp: 3", "interface: PORT, vlan: 200, pcp: 6"}},
	{title: "Priority bits: mapped", at: [2]string{"interface: PORT, pcp: [1, 0, 2, 3, 4, 7, 6, 5]", "interface: PORT, vlans: [100, 200], pcp: [0, 0, 0, 0, 4, 4, 4, 4]"}},
	{title: "Priority bits: from the DSCP", at: [2]string{"interface: PORT, vlan: 100, inner-vlan: 20, pcp: dscp", "interface: PORT, vlan: 200, pcp: dscp"}},
	{title: "Priority bits: mapped on an Ethernet VLAN pseudowire", kind: "ethernet-vlan", at: [2]string{"interface: PORT, vlan: 100", "interface: PORT, vlan: 200, pcp: [0, 1, 2, 3, 4, 0, 6, 7]"}},
}

// groupCases are pseudowires of which is said which link-local groups they carry, both of
// whose ends are the same.
var groupCases = []struct {
	tagCase
	want []int // from a to b
}{
	{tagCase{at: [2]string{"interface: PORT", "interface: PORT"}}, []int{0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	{tagCase{at: [2]string{"interface: PORT, link-local: [lldp]", "interface: PORT"}}, []int{14}},
	{tagCase{at: [2]string{"interface: PORT", "interface: PORT, link-local: [lacp, 802.1x]"}}, []int{2, 3}},
	{tagCase{at: [2]string{"interface: PORT, link-local: none", "interface: PORT"}}, nil},
	{tagCase{at: [2]string{"bridge: BRIDGE", "bridge: BRIDGE"}}, []int{0}},
	{tagCase{at: [2]string{"bridge: BRIDGE", "bridge: BRIDGE"}, bridge: "link-local: [lacp, lldp]"}, []int{0, 2, 14}},
	{tagCase{at: [2]string{"bridge: BRIDGE, link-local: [lacp]", "bridge: BRIDGE"}, bridge: "link-local: all"}, []int{2}},
}

// tagFrames are sent into both ends of each case: their tags, and what they have inside.
var tagFrames = []struct {
	words string
	tags  []byte
	inner []byte
	// onBridge is not set of frames that bridges treat as they like: those that filter VLANs
	// take a priority tag off.
	onBridge bool
}{
	{"untagged", nil, other, true},
	{"untagged IPv4 of DSCP EF", nil, ef, true},
	{"priority tag, PCP 5", tag(0x8100, 5, 0), other, false},
	{"VLAN 100, PCP 5", tag(0x8100, 5, 100), other, true},
	{"VLAN 100, IPv4 of DSCP EF", tag(0x8100, 0, 100), ef, true},
	{"VLAN 101", tag(0x8100, 0, 101), other, true},
	{"VLAN 200, PCP 1 and DEI", []byte{0x81, 0, 0x30, 200}, other, true},
	{"VLAN 100 over 20", slices.Concat(tag(0x8100, 5, 100), tag(0x8100, 2, 20)), other, true},
	{"VLAN 100 over 21", slices.Concat(tag(0x8100, 0, 100), tag(0x8100, 0, 21)), other, true},
	{"VLAN 200 over 20", slices.Concat(tag(0x8100, 0, 200), tag(0x8100, 0, 20)), other, true},
	{"VLAN 200 over 21", slices.Concat(tag(0x8100, 0, 200), tag(0x8100, 0, 21)), other, true},
	{"VLAN 300 over 30", slices.Concat(tag(0x8100, 0, 300), tag(0x8100, 0, 30)), other, true},
	{"service VLAN 100", tag(0x88a8, 0, 100), other, false},
	{"service VLAN 100 over 20", slices.Concat(tag(0x88a8, 4, 100), tag(0x8100, 0, 20)), other, false},
	{"service VLAN 200", tag(0x88a8, 0, 200), other, false},
	{"service VLAN 300 over 21", slices.Concat(tag(0x88a8, 0, 300), tag(0x8100, 0, 21)), other, false},
}

func tag(tpid uint16, pcp byte, vlan uint16) []byte {
	return []byte{byte(tpid >> 8), byte(tpid), pcp<<5 | byte(vlan>>8), byte(vlan)}
}

// What frames have behind their tags: an EtherType for experiments, and an IPv4 header.
var (
	other = []byte{0x88, 0xb5, 'p', 'w'}
	ef    = []byte{0x08, 0x00, 0x45, 46 << 2, 0, 21, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
)

// tagFrame is a frame of the table; its last octet tells it from the others.
func tagFrame(i int) []byte {
	f := tagFrames[i]
	b := slices.Concat(destinations[0], source, f.tags, f.inner)
	if bytes.Equal(f.inner, ef) {
		sum := sum16(b[len(b)-20:])
		b[len(b)-10], b[len(b)-9] = byte(sum>>8), byte(sum)
	}
	return append(b, byte(i))
}

// layout is a frame in hexadecimal, its parts apart.
func layout(f []byte) string {
	parts := []string{fmt.Sprintf("%x", f[:6]), fmt.Sprintf("%x", f[6:12])}
	f = f[12:]
	for len(f) > 4 && (f[0] == 0x81 && f[1] == 0 || f[0] == 0x88 && f[1] == 0xa8) {
		parts, f = append(parts, fmt.Sprintf("%x", f[:4])), f[4:]
	}
	return strings.Join(append(parts, fmt.Sprintf("%x", f[:2]), fmt.Sprintf("%x", f[2:])), " ")
}

// tagWorld has an interface for each case at each site, and a host behind it.
type tagWorld struct {
	t     *testing.T
	sites [2]*site.Site
	hosts [][2]*netlab.Link
}

const tagWays = "AB"

func buildTags(t *testing.T, datapaths [2]string) *tagWorld {
	t.Helper()
	dir := t.TempDir()
	lab := netlab.New(t)
	w := &tagWorld{t: t}
	cases := slices.Clone(tagCases)
	for _, c := range groupCases {
		cases = append(cases, c.tagCase)
	}
	file := filepath.Join(dir, "topology.yaml")
	var bridges [2]string
	for i := range w.sites {
		name := fmt.Sprintf("dc%d", i+1)
		links := []string{"eth0"}
		for k := range cases {
			links = append(links, fmt.Sprintf("p%d", k))
		}
		w.sites[i] = &site.Site{
			Name: name, NS: lab.Namespace(name), Bin: bin, Dir: filepath.Join(dir, name), Topology: file,
			Flags: []string{"--datapath", datapaths[i]}, Links: links,
		}
		t.Cleanup(w.sites[i].Close)
	}
	a, b := lab.Veth(w.sites[0].NS, "eth0", w.sites[1].NS, "eth0")
	a.Feature("tx-checksum-*", false).Addr("192.0.2.1/24").Up()
	b.Feature("tx-checksum-*", false).Addr("192.0.2.2/24").Up()
	// All hosts of a site are in one namespace: none has an address.
	hosts := [2]*netlab.Namespace{lab.Namespace("hosts a"), lab.Namespace("hosts b")}
	pseudowires := ""
	for k, c := range cases {
		var ends [2]*netlab.Link
		for i := range ends {
			port, nic := lab.Veth(w.sites[i].NS, fmt.Sprintf("p%d", k), hosts[i], fmt.Sprintf("h%d", k))
			port.Silent().Up()
			ends[i] = nic.Silent().Up()
			if strings.Contains(c.at[i], "BRIDGE") {
				bridges[i] += fmt.Sprintf("br%d: {ports: [p%d]%s}, ", k, k, strings.TrimSuffix(", "+c.bridge, ", "))
			}
		}
		w.hosts = append(w.hosts, ends)
		pseudowires += tagPseudowire(fmt.Sprintf("case-%d", k), c.kind, k, c.at)
		if c.also[0] != "" {
			pseudowires += tagPseudowire(fmt.Sprintf("also-%d", k), "", k, c.also)
		}
	}
	text := fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: tags}
sites:
  dc1: {address: 192.0.2.1, bridges: {%s}}
  dc2: {address: 192.0.2.2, bridges: {%s}}
tunnels:
  gold: {sites: [dc1, dc2]}
pseudowires:
%s`, bridges[0], bridges[1], pseudowires)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.sites {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.sites {
		if err := s.AwaitUp(within(t, 2*upWithin), 1, strings.Count(pseudowires, "tunnel:")); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func tagPseudowire(name, kind string, k int, at [2]string) string {
	text := fmt.Sprintf("  %s:\n    tunnel: gold\n", name)
	if kind != "" {
		text += "    type: " + kind + "\n"
	}
	place := strings.NewReplacer("PORT", fmt.Sprintf("p%d", k), "BRIDGE", fmt.Sprintf("br%d", k))
	return text + fmt.Sprintf("    attach:\n      dc1: {%s}\n      dc2: {%s}\n", place.Replace(at[0]), place.Replace(at[1]))
}

// sends says whether a frame is part of a case.
func (c *tagCase) sends(i int) bool {
	return tagFrames[i].onBridge || !strings.Contains(c.at[0]+c.at[1], "BRIDGE")
}

// rows sends the frames of a case one way and says what came out, a row for each: wanted
// are those that are to be waited for, nil for as many as come.
func (w *tagWorld) rows(k, from int, wanted map[int]string) map[int]string {
	w.t.Helper()
	c, err := w.hosts[k][1-from].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		w.t.Fatal(err)
	}
	var frames [][]byte
	for i := range tagFrames {
		if tagCases[k].sends(i) {
			frames = append(frames, tagFrame(i))
		}
	}
	if err := w.hosts[k][from].Send(frames...); err != nil {
		w.t.Fatal(err)
	}
	read := func(frames []netlab.Frame) map[int]string {
		got := map[int]string{}
		for _, f := range frames {
			i := int(f.Data[len(f.Data)-1])
			if got[i] != "" {
				got[i] += " and "
			}
			got[i] += layout(f.Data)
		}
		return got
	}
	if w.t.Failed() {
		wanted = nil // to say what else there is, and not wait for it
	}
	_, err = c.Wait(within(w.t, upWithin), "the frames of the case", func(frames []netlab.Frame) bool {
		got := read(frames)
		for i := range wanted {
			if got[i] == "" {
				return false
			}
		}
		return true
	})
	if err != nil {
		w.t.Errorf("case %q from %c: %v\n%s", tagCases[k].title, tagWays[from], err, w.drops(k))
	}
	return read(c.Frames())
}

// drops are what both sites counted of a case.
func (w *tagWorld) drops(k int) string {
	var b strings.Builder
	for _, s := range w.sites {
		all, err := s.Client().Pseudowires(w.t.Context())
		if err != nil {
			fmt.Fprintln(&b, s.Name, err)
		}
		for _, p := range all {
			if p.Name == fmt.Sprintf("case-%d", k) {
				fmt.Fprintf(&b, "%s: %d frames received, %d sent, dropped %v\n", s.Name, p.ReceivedFrames, p.TransmittedFrames, p.Drops)
			}
		}
	}
	return b.String()
}

// groups are the link-local groups that a case carries, each with a frame of its own; those
// wanted are waited for.
func (w *tagWorld) groups(k int, wanted []int) []int {
	w.t.Helper()
	hosts := w.hosts[len(tagCases)+k]
	c, err := hosts[1].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		w.t.Fatal(err)
	}
	var sent [][]byte
	for octet := range byte(16) {
		inside := other
		if octet == 1 {
			inside = []byte{0x88, 0x08, 0, 1} // MAC pause
		}
		sent = append(sent, slices.Concat([]byte{0x01, 0x80, 0xc2, 0, 0, octet}, source, inside, make([]byte, 46)))
	}
	// The last frame, which is of no such group, shows that the others have had their time.
	last := slices.Concat(destinations[1], source, other, make([]byte, 46))
	if err := hosts[0].Send(append(sent, last)...); err != nil {
		w.t.Fatal(err)
	}
	read := func(frames []netlab.Frame) (groups []int, ended bool) {
		for _, f := range frames {
			if bytes.Equal(f.Data, last) {
				ended = true
			} else {
				groups = append(groups, int(f.Data[5]))
			}
		}
		slices.Sort(groups)
		return groups, ended
	}
	frames, err := c.Wait(within(w.t, upWithin), "the frames of the case", func(frames []netlab.Frame) bool {
		groups, ended := read(frames)
		return ended && len(groups) >= len(wanted)
	})
	if err != nil {
		w.t.Errorf("link-local groups, case %d: %v", k, err)
	}
	groups, _ := read(frames)
	return groups
}

const tagsFile = "../../docs/tags.md"

// What becomes of every kind of tag is what docs/tags.md says.
func TestTags(t *testing.T) {
	onOneKernel(t, "6.12")
	beside(t)
	// In a machine the last pair, which has both.
	for _, d := range datapaths()[len(datapaths())-1:] {
		t.Run(d[0]+"-"+d[1], func(t *testing.T) {
			w := buildTags(t, d)
			got := tagsDocument(func(k, from int) map[int]string { return w.rows(k, from, expectedTags(k, from)) },
				func(k int) []int { return w.groups(k, groupCases[k].want) })
			if *update && !inVM {
				if err := os.WriteFile(tagsFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := tagsDocument(expectedTags, func(k int) []int { return groupCases[k].want })
			if got != want {
				t.Errorf("frames came out otherwise than they are to:\n%s", differences(want, got))
			}
			if inVM {
				return // the file is not there
			}
			written, err := os.ReadFile(tagsFile)
			if err != nil {
				t.Fatal(err)
			}
			if string(written) != got {
				t.Errorf("docs/tags.md is stale: run go test ./test/e2e -run TestTags -update\n%s", differences(string(written), got))
			}
		})
	}
}

// differences are the lines of two texts of which one has not got the other's.
func differences(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	title := ""
	for i := range max(len(w), len(g)) {
		var x, y string
		if i < len(w) {
			x = w[i]
		}
		if i < len(g) {
			y = g[i]
		}
		if strings.HasPrefix(x, "##") {
			title = x
		}
		if x != y && b.Len() < 4000 {
			fmt.Fprintf(&b, "%s\n- %s\n+ %s\n", title, x, y)
		}
	}
	return b.String()
}
