package topology

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/steer"
)

// checkMirrored checks what both ends of everything have to agree on, or the
// sites would not find each other.
func checkMirrored(t interface{ Errorf(string, ...any) }, topology *Topology) {
	sites := map[string]*Local{}
	for _, name := range topology.Managed() {
		l, diagnostics := topology.Local(name)
		if l == nil || len(diagnostics) > 0 {
			t.Errorf("site %s: %s", name, diagnostics)
			return
		}
		sites[name] = l
	}
	for name, l := range sites {
		sorted := slices.IsSortedFunc(l.Bridges, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) }) &&
			slices.IsSortedFunc(l.Tunnels, func(a, b Tunnel) int { return cmp.Compare(a.Key, b.Key) }) &&
			slices.IsSortedFunc(l.Pseudowires, func(a, b Pseudowire) int { return cmp.Compare(a.Name, b.Name) })
		if !sorted || l.Site != name || l.Topology != topology.Name {
			t.Errorf("site %s: not sorted, or of another: %+v", name, l)
		}
		keys, devices, endIDs := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for _, tn := range l.Tunnels {
			if tn.Foreign {
				if sites[tn.Peer] != nil || keys[tn.Key] || tn.RouterID == 0 {
					t.Errorf("site %s, tunnel %+v", name, tn)
				}
				keys[tn.Key] = true
				continue
			}
			peer := find(sites[tn.Peer].Tunnels, func(o Tunnel) bool { return o.Key == tn.Name+"/"+name })
			mirrored := peer != nil && !keys[tn.Key] && tn.Key == tn.Name+"/"+tn.Peer && peer.Peer == name &&
				peer.HostName == tn.PeerHostName && peer.PeerHostName == tn.HostName &&
				peer.Local == tn.Remote && peer.Remote == tn.Local && peer.Local != peer.Remote && (tn.Local.IsValid() && tn.Remote.IsValid() || len(tn.SecretFiles) > 0) &&
				peer.Class == tn.Class && peer.ECN == tn.ECN && peer.Checksum == tn.Checksum && peer.Digest == tn.Digest && peer.Hide == tn.Hide && slices.Equal(peer.SecretFiles, tn.SecretFiles) &&
				peer.Hello == tn.Hello && peer.Encapsulation == tn.Encapsulation &&
				tn.RouterID != 0 && tn.RouterID != peer.RouterID
			if !mirrored {
				t.Errorf("site %s, tunnel %+v\nits peer has %+v", name, tn, peer)
			}
			keys[tn.Key] = true
		}
		for _, p := range l.Pseudowires {
			if sites[p.Peer] == nil {
				if !keys[p.Tunnel] || devices[p.Device] {
					t.Errorf("site %s: pseudowire %+v", name, p)
				}
				devices[p.Device] = true
				continue
			}
			peer := find(sites[p.Peer].Pseudowires, func(o Pseudowire) bool { return o.Name == mirrored(p, name) })
			if peer == nil || !keys[p.Tunnel] || devices[p.Device] || endIDs[identity(p)] {
				t.Errorf("site %s: pseudowire %+v\nits peer has %+v", name, p, peer)
				continue
			}
			// All but where it is, and whom it is towards, is the same.
			there := *peer
			there.Name, there.Device, there.Peer, there.Tunnel, there.Attachment, there.PeerVLAN = p.Name, p.Device, p.Peer, p.Tunnel, p.Attachment, p.PeerVLAN
			carrier, _, _ := strings.Cut(p.Tunnel, "/")
			there.Standby = nil
			for _, r := range peer.Standby {
				t, _, _ := strings.Cut(r.Tunnel, "/")
				there.Standby = append(there.Standby, Ride{t + "/" + p.Peer, r.DSCP, r.Marking})
			}
			there.Steer = nil
			for _, r := range peer.Steer {
				rule := steer.Rule{Match: r.Match}
				for _, key := range r.Tunnels {
					t, _, _ := strings.Cut(key, "/")
					rule.Tunnels = append(rule.Tunnels, t+"/"+p.Peer)
				}
				there.Steer = append(there.Steer, rule)
			}
			if r := peer.Redundancy; r != nil { // one of them leads
				there.Redundancy = &Redundancy{r.Revertive, r.Hold, !r.Leads}
			}
			if peer.Peer != name || peer.Tunnel != carrier+"/"+name || !reflect.DeepEqual(there, p) || p.Type == l2tpv3.EthernetVLAN && p.PeerVLAN != peer.Attachment.VLAN {
				t.Errorf("site %s: pseudowire %+v\nits peer has %+v", name, p, peer)
			}
			if (p.Attachment.Bridge == "") == (p.Attachment.Interface == "") {
				t.Errorf("site %s: pseudowire %s attaches %+v", name, p.Name, p.Attachment)
			}
			devices[p.Device], endIDs[identity(p)] = true, true
		}
	}
}

// mirrored is what the peer calls the pseudowire, at which the site is the peer.
func mirrored(p Pseudowire, site string) string {
	if p.Network != "" {
		return p.Network + "/" + site
	}
	return p.Name
}

// identity is what an ICRQ names a pseudowire by.
func identity(p Pseudowire) string {
	return fmt.Sprintf("%s %v %q %q", p.Tunnel, p.Type, p.AGI, p.EndID)
}

func find[T any](all []T, is func(T) bool) *T {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return &all[i]
	}
	return nil
}

// Topologies made to be right: they are read without an error, and their ends agree.
func TestEndsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawTopology(t)
		topology, diagnostics := Parse("drawn.yaml", []byte(text))
		if diagnostics.HasErrors() {
			t.Fatalf("%s\n%s", text, diagnostics)
		}
		checkMirrored(t, topology)
	})
}

// drawTopology is the text of a topology without an error.
func drawTopology(t *rapid.T) string {
	var b strings.Builder
	name := rapid.StringMatching(`[a-z]([a-z0-9-]{0,30}[a-z0-9])?`).Filter(func(s string) bool {
		_, unclear := (&node{text: s}).ambiguous()
		return !unclear
	})
	sites := rapid.SliceOfNDistinct(name, 2, 6, rapid.ID).Draw(t, "sites")
	six := rapid.Bool().Draw(t, "IPv6")
	dynamic, foreign := false, ""
	fmt.Fprintf(&b, "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: drawn}\nclasses: {bulk: {dscp: af11}}\nsites:\n")
	for i, s := range sites {
		address := fmt.Sprintf("192.0.2.%d", i+1)
		if six {
			address = fmt.Sprintf("2001:db8::%d", i+1)
		}
		switch {
		case i == 1 && rapid.Bool().Draw(t, "dynamic"):
			address, dynamic = "dynamic", true
		case i == 2 && rapid.Bool().Draw(t, "foreign"):
			foreign = s
			fmt.Fprintf(&b, "  %s: {address: %s, managed: false, host-name: %s, numbers: %s}\n", s, address, rapid.StringMatching(`"[a-z.]+"`).Draw(t, "host name"),
				rapid.SampledFrom([]string{"standard", "cisco"}).Draw(t, "numbers"))
			continue
		}
		fmt.Fprintf(&b, "  %s:\n    address: %s\n    bridges: {br-lan: {ports: [eth1]}}\n", s, address)
		if rapid.Bool().Draw(t, "has a router ID") {
			fmt.Fprintf(&b, "    router-id: %d\n", i+1)
		}
	}
	b.WriteString("tunnels:\n")
	tunnels := rapid.SliceOfNDistinct(name, 1, 5, rapid.ID).Draw(t, "tunnels")
	members := map[string][]string{}
	for _, tn := range tunnels {
		members[tn] = rapid.Permutation(sites).Draw(t, "order")[:rapid.IntRange(2, len(sites)).Draw(t, "members")]
		also := rapid.SampledFrom([]string{"", ", encapsulation: ip", ", class: bulk, ecn: false", ", udp-checksum: on", ", df: true"}).Draw(t, "also")
		if dynamic || rapid.Bool().Draw(t, "authenticated") {
			also += ", secret-file: a, digest: sha1"
		}
		fmt.Fprintf(&b, "  %s: {sites: [%s]%s}\n", tn, strings.Join(members[tn], ", "), also)
	}
	b.WriteString("pseudowires:\n")
	devices := map[string]bool{}
	for i, p := range rapid.SliceOfNDistinct(name, 0, 12, rapid.ID).Draw(t, "pseudowires") {
		if devices[DeviceName(p)] {
			continue
		}
		devices[DeviceName(p)] = true
		tn := rapid.SampledFrom(tunnels).Draw(t, "tunnel")
		ends := rapid.Permutation(members[tn]).Draw(t, "ends")
		also := rapid.SampledFrom([]string{"agi: 7", "sequencing: all", "sublayer: default", "type: ethernet-vlan"}).Draw(t, "also")
		fmt.Fprintf(&b, "  %s:\n    tunnel: %s\n    cookie: %d\n    %s\n    attach:\n", p, tn, rapid.SampledFrom([]int{0, 4, 8}).Draw(t, "cookie"), also)
		for _, s := range ends[:2] {
			if s == foreign {
				fmt.Fprintf(&b, "      %s: {%s}\n", s, rapid.SampledFrom([]string{"", "cookie: 0", fmt.Sprintf("end-id: %d", i)}).Draw(t, "foreign end"))
				continue
			}
			circuit := rapid.SampledFrom([]string{"bridge: br-lan", "interface: eth2"}).Draw(t, "circuit")
			fmt.Fprintf(&b, "      %s: {%s, vlan: %d}\n", s, circuit, i+1)
		}
	}
	return b.String()
}

// FuzzParse: whatever the file, no panic; a topology or an error; everything that
// is said has a place in the file and says what to do.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.yaml", "testdata/good/*.json", "../../examples/*.yaml", "../../configs/*.yaml"} {
		for _, file := range glob(f, pattern) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("1: x\n<<: {[a]: b}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		topology, diagnostics := Parse("fuzz.yaml", data)
		if (topology == nil) != diagnostics.HasErrors() {
			t.Fatalf("topology %v with\n%s", topology, diagnostics)
		}
		checkDiagnostics(t, data, diagnostics)
		if topology != nil {
			checkMirrored(t, topology)
		}
		config, diagnostics := ParseConfig("fuzz.yaml", data)
		if (config == Config{}) != diagnostics.HasErrors() {
			t.Fatalf("configuration %v with\n%s", config, diagnostics)
		}
		checkDiagnostics(t, data, diagnostics)
	})
}

func checkDiagnostics(t *testing.T, data []byte, diagnostics Diagnostics) {
	t.Helper()
	text := strings.TrimPrefix(string(data), "\ufeff")
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
	inside := func(p Place) bool {
		return p.Line >= 1 && p.Line <= len(lines) && p.Column >= 1 && p.Column <= utf8.RuneCountInString(lines[p.Line-1])+1
	}
	last := Place{}
	for _, d := range diagnostics {
		if !inside(d.Place) || (d.Other != nil && !inside(*d.Other)) {
			t.Errorf("not inside of the file:\n%s", d)
		}
		if d.Message == "" || d.Help == "" || !slices.ContainsFunc(codes, func(c codeMeaning) bool { return c.code == d.Code }) {
			t.Errorf("nothing to say:\n%s", d)
		}
		if d.Line < last.Line || d.Line == last.Line && d.Column < last.Column {
			t.Errorf("not in the order of the file:\n%s", diagnostics)
		}
		if shown := d.String(); !utf8.ValidString(shown) || strings.ContainsAny(shown, "\x1b\x00\r\x7f") {
			t.Errorf("not fit to be shown: %q", shown)
		}
		last = d.Place
	}
}
