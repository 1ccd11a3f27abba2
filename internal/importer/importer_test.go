package importer

import (
	"flag"
	"os"
	"path/filepath"
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
