package topology

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// local reads a file that has no fault, and takes one site of it.
func local(t *testing.T, file, site string) *Local {
	t.Helper()
	topology, diagnostics := parseFile(t, file)
	if len(diagnostics) > 0 {
		t.Fatalf("%s", diagnostics)
	}
	l, diagnostics := topology.Local(site)
	if len(diagnostics) > 0 {
		t.Fatalf("%s", diagnostics)
	}
	return l
}

var addresses = cmpopts.EquateComparable(netip.Addr{})

func TestLocal(t *testing.T) {
	v4a, v4b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, test := range []struct {
		file, site string
		want       Local
	}{
		{"../../examples/two-sites.yaml", "dc1", Local{
			Topology: "two-sites", Site: "dc1",
			Bridges: []Bridge{{Name: "br-lan", Ports: []string{"eth1"}}},
			Tunnels: []Tunnel{
				{Key: "gold/dc2", Name: "gold", Peer: "dc2", ECN: true, Local: v4a, Remote: v4b, HostName: "gold.dc1", PeerHostName: "gold.dc2", RouterID: 0x694244f8, Hello: 10 * time.Second},
				{Key: "silver/dc2", Name: "silver", Peer: "dc2", ECN: true, Local: v4a, Remote: v4b, HostName: "silver.dc1", PeerHostName: "silver.dc2", RouterID: 0x65d26a1a, Hello: 10 * time.Second},
			},
			Pseudowires: []Pseudowire{
				{Name: "tenant-a", Peer: "dc2", Device: "pw-tenant-a", Tunnel: "gold/dc2", Type: l2tpv3.Ethernet, EndID: []byte("tenant-a"), CookieLength: 8, Attachment: Attachment{Bridge: "br-lan", VLAN: 100}},
				{Name: "tenant-b", Peer: "dc2", Device: "pw-tenant-b", Tunnel: "silver/dc2", Type: l2tpv3.Ethernet, EndID: []byte("tenant-b"), CookieLength: 8, Attachment: Attachment{Interface: "eth2"}},
			},
		}},
		{"../../examples/two-sites-ipv6.yaml", "dc2", Local{
			Topology: "two-sites-ipv6", Site: "dc2",
			Bridges: []Bridge{{Name: "br-old", External: true}},
			Tunnels: []Tunnel{
				// The pair has one tunnel: the site's own router ID.
				{Key: "gold/dc1", Name: "gold", Peer: "dc1", ECN: true, Local: netip.MustParseAddr("2001:db8:2::1"), Remote: netip.MustParseAddr("2001:db8:1::1"), HostName: "gold.dc2", PeerHostName: "gold.dc1", RouterID: 0xc0000202, Hello: 10 * time.Second},
			},
			Pseudowires: []Pseudowire{
				{Name: "tenant-a", Peer: "dc1", Device: "pw-tenant-a", Tunnel: "gold/dc1", Type: l2tpv3.Ethernet, EndID: []byte{0, 0, 0, 7}, CookieLength: 8, MTU: 1500, Attachment: Attachment{Bridge: "br-old"}},
			},
		}},
		{"../../examples/three-sites.yaml", "dc3", Local{
			Topology: "three-sites", Site: "dc3",
			Tunnels: []Tunnel{
				{Key: "core/dc1", Name: "core", Peer: "dc1", ECN: true, Local: netip.MustParseAddr("203.0.113.1"), Remote: v4a, HostName: "core.dc3", PeerHostName: "core.dc1", RouterID: 0x9b78bb38},
				{Key: "core/dc2", Name: "core", Peer: "dc2", ECN: true, Local: netip.MustParseAddr("203.0.113.1"), Remote: netip.MustParseAddr("198.51.100.1"), HostName: "core.dc3", PeerHostName: "core.dc2", RouterID: 0x9b78bb38},
			},
			Pseudowires: []Pseudowire{
				{Name: "blue", Peer: "dc2", Device: "pw-blue", Tunnel: "core/dc2", Type: l2tpv3.Ethernet, EndID: []byte("blue"), CookieLength: 8, Attachment: Attachment{Interface: "eth1", VLAN: 20}},
				{Name: "green", Peer: "dc1", Device: "pw-green", Tunnel: "core/dc1", Type: l2tpv3.Ethernet, EndID: []byte("green"), CookieLength: 8, Attachment: Attachment{Interface: "eth1", VLAN: 30}},
			},
		}},
		{"../../examples/foreign.yaml", "dc1", Local{
			Topology: "foreign", Site: "dc1",
			Tunnels: []Tunnel{
				{Key: "to-cisco/cisco", Name: "to-cisco", Peer: "cisco", ECN: true, Encapsulation: l2tpv3.IP, Local: v4a, Remote: netip.MustParseAddr("198.51.100.9"), HostName: "to-cisco.dc1", PeerHostName: "pe9", RouterID: 0xc0000201, SecretFiles: []string{"cisco.secret"}, Digest: l2tpv3.HMACSHA1, Foreign: true},
				{Key: "to-mikrotik/mikrotik", Name: "to-mikrotik", Peer: "mikrotik", ECN: true, Local: v4a, Remote: netip.MustParseAddr("203.0.113.9"), HostName: "to-mikrotik.dc1", RouterID: 0xc0000201, Hello: 30 * time.Second, Checksum: true, Foreign: true},
			},
			Pseudowires: []Pseudowire{
				{Name: "tenant-a", Peer: "cisco", Device: "pw-tenant-a", Tunnel: "to-cisco/cisco", Type: l2tpv3.Ethernet, EndID: []byte("10"), CookieLength: 8, Attachment: Attachment{Interface: "eth1", VLAN: 10}},
				{Name: "tenant-b", Peer: "mikrotik", Device: "pw-tenant-b", Tunnel: "to-mikrotik/mikrotik", Type: l2tpv3.Ethernet, EndID: []byte("branch"), CookieLength: 8, Attachment: Attachment{Interface: "eth1", VLAN: 20}},
			},
			SecretFiles: []SecretFile{{Tunnel: "to-cisco", Name: "cisco.secret", Path: "tunnels.to-cisco.secret-file"}},
		}},
		{"../../examples/dynamic-site.yaml", "branch", Local{
			Topology: "dynamic-site", Site: "branch",
			Bridges: []Bridge{{Name: "br-lan", Ports: []string{"eth1"}}},
			Tunnels: []Tunnel{
				{Key: "home/dc1", Name: "home", Peer: "dc1", ECN: true, Remote: v4a, HostName: "home.branch", PeerHostName: "home.dc1", RouterID: RouterID("home", "branch"), Hello: 10 * time.Second, SecretFiles: []string{"home.secret"}},
			},
			Pseudowires: []Pseudowire{
				{Name: "office", Peer: "dc1", Device: "pw-office", Tunnel: "home/dc1", Type: l2tpv3.Ethernet, EndID: []byte("office"), CookieLength: 8, Attachment: Attachment{Bridge: "br-lan"}},
			},
			SecretFiles: []SecretFile{{Tunnel: "home", Name: "home.secret", Path: "tunnels.home.secret-file"}},
		}},
		{"testdata/good/every-key.yaml", "b", Local{
			Topology: "2026-01-02", Site: "b",
			Bridges: []Bridge{
				{Name: "br-auto", VLANAware: VLANAuto},
				{Name: "br-off", Ports: []string{"eth3"}, VLANAware: VLANOff},
				{Name: "br-on", Ports: []string{"eth1", "eth2"}, VLANAware: VLANOn},
				{Name: "br-theirs", External: true},
			},
			Tunnels: []Tunnel{
				// Alone between b and c, so that b's router ID holds; not towards a.
				{Key: "all/a", Name: "all", Peer: "a", Class: "least", Encapsulation: l2tpv3.IP, SecretFiles: []string{"a b"}, Local: v4b, Remote: v4a, HostName: "all.b", PeerHostName: "all.a", RouterID: RouterID("all", "b"), Hello: 90 * time.Second},
				{Key: "all/c", Name: "all", Peer: "c", Class: "least", Encapsulation: l2tpv3.IP, SecretFiles: []string{"a b"}, Local: v4b, Remote: netip.MustParseAddr("192.0.2.3"), HostName: "all.b", PeerHostName: "all.c", RouterID: 4294967295, Hello: 90 * time.Second},
				{Key: "one/a", Name: "one", Peer: "a", ECN: true, Class: "best", Shape: Shape{1, 1e15, 7, 100000}, LinkRate: 1e15, SecretFiles: []string{"new", "/etc/pwd/old"}, Digest: l2tpv3.HMACSHA1, Hide: true, Local: v4b, Remote: v4a, HostName: "one.b", PeerHostName: "one.a", RouterID: RouterID("one", "b")},
			},
			Pseudowires: []Pseudowire{
				{Name: "number", AGI: []byte("tenant 7"), Sublayer: l2tpv3.SublayerDefault, DSCP: 46, Peer: "a", Device: "pw-number", Tunnel: "one/a", Type: l2tpv3.Ethernet, EndID: []byte{0, 0, 0, 7}, CookieLength: 0, MTU: 9216, Datapath: "kernel", Attachment: Attachment{Bridge: "br-on", VLAN: 4094}},
				{Name: "octets", AGI: []byte{0, 0, 0, 1}, Sequencing: l2tpv3.SequencingAll, Sublayer: l2tpv3.SublayerDefault, DSCP: 63, Peer: "c", Device: "pw-octets", Tunnel: "all/c", Type: l2tpv3.Ethernet, EndID: []byte{0xff, 0xff, 0xff, 0xff}, CookieLength: 8, Attachment: Attachment{Interface: "eth9", VLAN: 1}},
				{Name: "same-id-elsewhere", DSCP: 63, Peer: "c", Device: "pw-same-id-2ld4", Tunnel: "all/c", Type: l2tpv3.Ethernet, EndID: []byte{0, 0, 0, 7}, CookieLength: 8, Attachment: Attachment{Bridge: "br-auto"}},
				{Name: "text", DSCP: 46, Peer: "a", Device: "pw-text", Tunnel: "one/a", Type: l2tpv3.Ethernet, EndID: []byte("7"), CookieLength: 4, MTU: 1280, Datapath: "ebpf", Attachment: Attachment{Bridge: "br-theirs"}},
				{Name: "words", Sequencing: l2tpv3.SequencingNonIP, Sublayer: l2tpv3.SublayerDefault, PeerVLAN: 7, DSCP: 63, Peer: "a", Device: "pw-words", Tunnel: "all/a", Type: l2tpv3.EthernetVLAN, EndID: []byte("vc 7: east"), CookieLength: 8, Attachment: Attachment{Bridge: "br-on", VLAN: 1}},
			},
			Classes: []Class{{Name: "best", DSCP: 46, Shape: Shape{1, 1e15, 7, 100000}}, {Name: "least", DSCP: 63}},
			SecretFiles: []SecretFile{
				{Tunnel: "one", Name: "new", Path: "tunnels.one.secret-file[0]"},
				{Tunnel: "one", Name: "/etc/pwd/old", Path: "tunnels.one.secret-file[1]"},
				{Tunnel: "all", Name: "a b", Path: "tunnels.all.secret-file"},
			},
		}},
	} {
		t.Run(filepath.Base(test.file), func(t *testing.T) {
			got := local(t, test.file, test.site)
			if diff := cmp.Diff(&test.want, got, addresses, cmpopts.IgnoreFields(SecretFile{}, "At")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is written differently and means the same.
func TestSameMeaning(t *testing.T) {
	want := local(t, "testdata/good/plain.yaml", "dc1")
	for _, file := range []string{"testdata/good/anchors.yaml", "testdata/good/plain.json"} {
		if diff := cmp.Diff(want, local(t, file, "dc1"), addresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	plain, err := os.ReadFile("testdata/good/plain.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"byte order mark":           "\ufeff" + string(plain),
		"CRLF":                      strings.ReplaceAll(string(plain), "\n", "\r\n"),
		"CR":                        strings.ReplaceAll(string(plain), "\n", "\r"),
		"document markers":          "---\n" + string(plain) + "...\n",
		"YAML directive":            "%YAML 1.1\n---\n" + string(plain),
		"no newline at the end":     strings.TrimRight(string(plain), "\n"),
		"tunnel as a list":          strings.Replace(string(plain), "tunnel: gold", "tunnels: [gold]", 1),
		"defaults spelled out":      strings.Replace(string(plain), "tunnel: gold", "tunnel: gold\n    type: ethernet\n    sequencing: none\n    sublayer: none\n    cookie: 8\n    datapath: auto\n    end-id: tenant-a", 1),
		"site managed, udp":         strings.NewReplacer("address: 192.0.2.1", "address: 192.0.2.1\n    managed: true", "hello: 10s", "hello: 10s, encapsulation: udp").Replace(string(plain)),
		"another order of the ends": strings.Replace(string(plain), "sites: [dc1, dc2]", "sites: [dc2, dc1]", 1),
	} {
		topology, diagnostics := Parse("plain.yaml", []byte(text))
		if len(diagnostics) > 0 {
			t.Errorf("%s:\n%s", name, diagnostics)
			continue
		}
		got, _ := topology.Local("dc1")
		if diff := cmp.Diff(want, got, addresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Positions do not depend on how lines end.
func TestPositionsWithCRLF(t *testing.T) {
	text := "\ufeffapiVersion: pwd/v1\r\nkind: Topology\r\nmetadata: {name: x}\r\nsites:\r\n  dc1: {adress: 1}\r\n"
	_, diagnostics := Parse("crlf.yaml", []byte(text))
	want := "crlf.yaml:5:9: error: sites.dc1.adress: unknown key adress [PW0101]\n  dc1: {adress: 1}\n        ^\n"
	if got := diagnostics.String(); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s", got)
	}
}

// No daemon runs at a foreign site.
func TestForeignSite(t *testing.T) {
	topology, _ := parseFile(t, "../../examples/foreign.yaml")
	l, diagnostics := topology.Local("mikrotik")
	want := "foreign.yaml:24:3: error: sites.mikrotik: site mikrotik is foreign (`managed: false`): this daemon does not run there [PW0223]\n" +
		"  mikrotik:\n  ^\nhelp: name the site that this host is: dc1\n"
	if l != nil || diagnostics.String() != want {
		t.Errorf("got %v,\n%s", l, diagnostics)
	}
}

func TestUnknownSite(t *testing.T) {
	topology, _ := parseFile(t, "../../examples/three-sites.yaml")
	l, diagnostics := topology.Local("dc4")
	want := `three-sites.yaml:16:1: error: sites: there is no site dc4 [PW0201]
sites:
^
help: did you mean dc1? (sites: dc1, dc2, dc3)
`
	if l != nil || diagnostics.String() != want {
		t.Errorf("got %v,\n%s", l, diagnostics)
	}
	if diff := cmp.Diff([]string{"dc1", "dc2", "dc3"}, topology.Sites()); diff != "" {
		t.Error(diff)
	}
	err := diagnostics.Err()
	if err == nil || err.Error() != "three-sites.yaml:16:1: sites: there is no site dc4" {
		t.Errorf("error %v", err)
	}
}

// Every example is without fault, at each of its sites.
func TestExamples(t *testing.T) {
	for _, file := range glob(t, "../../examples/*.yaml") {
		topology, diagnostics := parseFile(t, file)
		if len(diagnostics) > 0 {
			t.Errorf("%s", diagnostics)
			continue
		}
		for _, site := range topology.Managed() {
			if l, diagnostics := topology.Local(site); l == nil || len(diagnostics) > 0 {
				t.Errorf("%s", diagnostics)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	data, err := os.ReadFile("../../configs/pwd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text string
		want Config
	}{
		{string(data), Config{
			OnStop: OnStopLeave, Site: "dc1", Topology: "/etc/pwd/topology.yaml", Datapath: "auto", LogLevel: "info",
			RunDir: "/run/pwd", StateDir: "/var/lib/pwd", BPFDir: "/sys/fs/bpf/pwd",
			Retransmit: time.Second, MaxRetransmits: 10,
		}},
		{"apiVersion: pwd/v1\nkind: Config\n", Config{OnStop: OnStopLeave}},
		{"apiVersion: pwd/v1\nkind: Config\non-stop: teardown\ntimers: {retransmit: 250ms}\n", Config{OnStop: OnStopTeardown, Retransmit: 250 * time.Millisecond}},
	} {
		got, diagnostics := ParseConfig("pwd.yaml", []byte(test.text))
		if len(diagnostics) > 0 || got != test.want {
			t.Errorf("got %+v\n%s", got, diagnostics)
		}
	}
}

func TestAccess(t *testing.T) {
	got, diagnostics := ParseConfig("pwd.yaml", []byte("apiVersion: pwd/v1\nkind: Config\naccess:\n  owner: 0\n  group: netops\n  change: {users: [alice, 1001], groups: wheel}\n"))
	want := &Access{Owner: "0", Group: "netops", ChangeUsers: []string{"alice", "1001"}, ChangeGroups: []string{"wheel"}}
	if diff := cmp.Diff(want, got.Access); diff != "" || len(diagnostics) > 0 {
		t.Errorf("(-want +got):\n%s%s", diff, diagnostics)
	}
	if got, diagnostics := ParseConfig("pwd.yaml", []byte("apiVersion: pwd/v1\nkind: Config\naccess: {group: \"a b\", change: {users: [-1]}}\n")); got.Access != nil || len(diagnostics) != 2 {
		t.Errorf("%+v\n%s", got.Access, diagnostics)
	}
}

// What a site says of its path holds as what an underlay says of it, and for tunnels that are shaped alone.
func TestPathOfATunnel(t *testing.T) {
	type path struct {
		underlay          string
		rate              uint64
		replaceQdisc, edt bool
	}
	of := func(u string, edt bool) path { return path{u, 1e7, true, edt} }
	for _, tt := range []struct {
		name, site, class string
		want              path
	}{
		{"short form", "address: 192.0.2.1, rate: 10mbit, qdisc: replace", "class: gold", of("", false)},
		{"short form, edt", "address: 192.0.2.1, rate: 10mbit, qdisc: replace, shaper: edt", "class: gold", of("", true)},
		{"underlay", "underlays: {fibre: {address: 192.0.2.1, rate: 10mbit, qdisc: replace}}", "class: gold", of("fibre", false)},
		{"underlay, edt", "underlays: {fibre: {address: 192.0.2.1, rate: 10mbit, qdisc: replace, shaper: edt}}", "class: gold", of("fibre", true)},
		{"nothing said", "address: 192.0.2.1", "class: gold", path{}},
		{"not shaped", "address: 192.0.2.1, rate: 10mbit, qdisc: replace", "hello: 1m", path{}},
	} {
		topology, diagnostics := Parse("t.yaml", []byte("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: t}\nsites: {a: {"+tt.site+"}, b: {address: 192.0.2.2}}\n"+
			"classes: {gold: {ceiling: 5mbit}}\ntunnels: {core: {sites: [a, b], "+tt.class+"}}\n"))
		if diagnostics.HasErrors() {
			t.Fatalf("%s: %s", tt.name, diagnostics)
		}
		l, _ := topology.Local("a")
		got := l.Tunnels[0]
		if is := (path{got.Underlay, got.LinkRate, got.ReplaceQdisc, got.EDT}); is != tt.want || got.Local != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("%s: %+v from %v, want %+v", tt.name, is, got.Local, tt.want)
		}
	}
}
