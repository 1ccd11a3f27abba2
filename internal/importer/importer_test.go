package importer

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/topology"
)

var update = flag.Bool("update", false, "write what the tests get into their files")

// What is imported is what it was made for, and a valid topology.
func TestImport(t *testing.T) {
	for file, read := range map[string]func(string) (*Definition, error){
		"ip.txt": IPL2TP, "ip.json.txt": IPL2TP, "vyos.set": VyOS, "vyos.boot": VyOS,
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			d, err := read(string(text))
			if err != nil {
				t.Fatal(err)
			}
			got := d.Topology(Options{Sublayer: "default"})
			golden := filepath.Join("testdata", file+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("go test ./internal/importer -update (-want +got):\n%s", diff)
			}
			parsed, found := topology.Parse(file, []byte(got))
			if parsed == nil || found.HasErrors() {
				t.Fatalf("%s\n%s", found, got)
			}
			site := parsed.Managed()[0]
			local, found := parsed.Local(site)
			if local == nil {
				t.Fatal(found)
			}
			for _, p := range local.Pseudowires {
				if p.Static == nil {
					t.Errorf("%s is not static", p.Name)
				}
			}
		})
	}
}

// The text and the JSON of ip say the same.
func TestFormsAgree(t *testing.T) {
	var got []string
	for _, file := range []string{"testdata/ip.txt", "testdata/ip.json.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := IPL2TP(string(text))
		if err != nil {
			t.Fatal(err)
		}
		d.Notes = nil
		d.Links(`[{"ifname":"lan","master":"br-old"},{"ifname":"eth0"}]`)
		got = append(got, d.Topology(Options{Site: "Dc 1", Sublayer: "none"}))
	}
	if got[0] != got[1] {
		t.Error(cmp.Diff(got[0], got[1]))
	}
	for _, want := range []string{"  dc-1:\n", "{bridge: br-old}", "br-old: {external: true}", "sequencing: all"} {
		if !strings.Contains(got[0], want) {
			t.Errorf("no %q in\n%s", want, got[0])
		}
	}
}

// No two peers have the same name, and each has the one that it would have alone.
func TestPeersHaveNamesOfTheirOwn(t *testing.T) {
	addresses := []string{
		"192.0.2.1", "192.0.2.11", "2001:db8::1", "2001:db8::1:2", "2001:db8:1::2", "2001:db8:1:2::", "2001:db8::", "::1", "1::", "1:2:3:4::", "1.2.3.4",
		"2001:db8:1:2:3:4:5:6", "2001:db8:0:1::6", "2001:db8::1:0:0:6",
	}
	text := func(addresses ...string) string {
		var b strings.Builder
		for i, a := range addresses {
			fmt.Fprintf(&b, "set interfaces l2tpv3 l2tpeth%[1]d source-address 198.51.100.1\nset interfaces l2tpv3 l2tpeth%[1]d remote %[2]s\n", i, a)
			for _, id := range []string{"tunnel-id", "peer-tunnel-id", "session-id", "peer-session-id"} {
				fmt.Fprintf(&b, "set interfaces l2tpv3 l2tpeth%d %s %d\n", i, id, i+1)
			}
		}
		return b.String()
	}
	site := regexp.MustCompile(`(?m)^  (\S+): \{address: "(.*)", managed: false\}$`)
	names := func(addresses ...string) map[string]string {
		d, err := VyOS(text(addresses...))
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for _, m := range site.FindAllStringSubmatch(d.Topology(Options{Site: "peer-192-0-2-1"}), -1) {
			if all[m[1]] != "" {
				t.Errorf("%s is %s and %s", m[1], all[m[1]], m[2])
			}
			all[m[1]] = m[2]
		}
		return all
	}
	all := names(addresses...)
	if len(all) != len(addresses) {
		t.Errorf("%d names for %d addresses: %v", len(all), len(addresses), all)
	}
	for _, a := range addresses {
		for name := range names(a) {
			if all[name] != a {
				t.Errorf("%s is %s alone, and that is %s among others", a, name, all[name])
			}
		}
	}
	if all["peer-192-0-2-1"] != "" || all["far-peer-192-0-2-1"] != "192.0.2.1" {
		t.Errorf("one with this host's name: %v", all)
	}
}

// What older releases say, and what is not said.
func TestVyOSOfAllAges(t *testing.T) {
	const old = `interfaces {
    l2tpv3 l2tpeth10 {
        bridge-group {
            bridge br0
        }
        encapsulation ip
        local-ip 172.18.202.10
        peer-session-id 110
        peer-tunnel-id 10
        remote-ip 172.18.202.110
        session-id 111
        tunnel-id 11
    }
}
/* === vyatta-config-version: "bridge@1:ipsec@5" === */
`
	const now = `set interfaces bridge br0 member interface l2tpeth10
set interfaces l2tpv3 l2tpeth10 encapsulation 'ip'
set interfaces l2tpv3 l2tpeth10 peer-session-id '110'
set interfaces l2tpv3 l2tpeth10 peer-tunnel-id '10'
set interfaces l2tpv3 l2tpeth10 remote '172.18.202.110'
set interfaces l2tpv3 l2tpeth10 session-id '111'
set interfaces l2tpv3 l2tpeth10 source-address '172.18.202.10'
set interfaces l2tpv3 l2tpeth10 tunnel-id '11'
`
	var got []string
	for _, text := range []string{old, now} {
		d, err := VyOS(text)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Topology(Options{Sublayer: "default"}))
	}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"    mtu: 1488\n", "{bridge: br0}", "the MTU of l2tpeth10 is VyOS's, 1488"} {
		if !strings.Contains(got[0], want) {
			t.Errorf("no %q in\n%s", want, got[0])
		}
	}
}

func TestRefused(t *testing.T) {
	for text, read := range map[string]func(string) (*Definition, error){
		"":                             IPL2TP,
		"bash: ip: command not found":  IPL2TP,
		"[{}":                          IPL2TP,
		"Tunnel 1, encap UDP\n":        IPL2TP,
		"interfaces {\n":               VyOS,
		"}\n":                          VyOS,
		"hello\n":                      VyOS,
		"set interfaces l2tpv3 'x\n":   VyOS,
		"set interfaces ethernet eth0": VyOS,
	} {
		if d, err := read(text); err == nil {
			t.Errorf("%q: %+v", text, d)
		}
	}
}

func FuzzImport(f *testing.F) {
	for _, file := range []string{"ip.txt", "ip.json.txt", "vyos.set", "vyos.boot"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(string) (*Definition, error){IPL2TP, VyOS} {
			if d, err := read(text); err == nil {
				d.Topology(Options{Sublayer: "default"})
			}
		}
	})
}
