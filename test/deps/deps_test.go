// Package deps tests what no compiler checks: which package may import which,
// that the control machine cannot block, and that the tree is fit to be published.
package deps

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pwd-project/pwd"

// rule says what packages may import. Patterns are import paths, those of this
// module without its name before them; "x/..." is x and all below, "std" the standard library.
type rule struct {
	// of are the packages it is about, but not those of except.
	of, except []string
	// only, unless empty, are the imports allowed; never are not, even if in only.
	only, never []string
	// deep looks at imports of imports, too.
	deep bool
	why  string
}

var rules = []rule{
	{
		of: []string{"pkg/...", "bpf"}, never: []string{"internal/...", "cmd/...", "test/..."}, deep: true,
		why: "pkg is for others to import, bpf belongs to it",
	},
	{
		of: []string{"pkg/l2tpv3"}, only: []string{"std"},
		never: []string{"net", "net/http", "os", "os/...", "io/fs", "time", "sync", "sync/...", "context", "runtime", "runtime/...", "syscall", "unsafe", "crypto/rand", "math/rand", "math/rand/..."},
		why:   "the wire is octets in, values out: no input, output, clock or randomness",
	},
	{
		of: []string{"pkg/l2tpv3/control"}, only: []string{"std", "pkg/l2tpv3"},
		never: []string{"net", "net/http", "os", "os/...", "io/fs", "sync", "sync/...", "context", "runtime", "runtime/...", "syscall", "unsafe", "crypto/rand", "math/rand", "math/rand/..."},
		why:   "the control machine is pure: its owner gives it the time, the randomness and the packets",
	},
	{
		of: []string{"pkg/vlan", "pkg/drift"}, only: []string{"std"},
		why: "numbers, and words",
	},
	{
		of: []string{"pkg/steer"}, only: []string{"std", "pkg/vlan"},
		why: "rules are values: datapaths carry them out",
	},
	{
		of: []string{"pkg/l2tpv3/transport"}, only: []string{"std", "pkg/l2tpv3", "pkg/l2tpv3/control", "pkg/underlay", "github.com/vishvananda/netlink", "golang.org/x/sys/unix"},
		why: "sockets around the control machine, and no more",
	},
	{
		of: []string{"pkg/underlay"}, only: []string{"std", "github.com/vishvananda/netlink", "golang.org/x/sys/unix"},
		why: "sockets, datapaths and shaping ask it, which know nothing of each other",
	},
	{
		of: []string{"pkg/pseudowire"}, only: []string{"std", "pkg/drift", "pkg/l2tpv3", "pkg/steer", "pkg/vlan"},
		why: "what a pseudowire is does not depend on what carries it",
	},
	{
		of: []string{"pkg/pseudowire/...", "bpf"}, never: []string{"pkg/bridge", "pkg/qos", "pkg/l2tpv3/control", "pkg/l2tpv3/transport"}, deep: true,
		why: "a datapath knows nothing of what is above it, nor of signalling",
	},
	{
		of: []string{"pkg/bridge"}, never: []string{"pkg/pseudowire/...", "pkg/l2tpv3/...", "bpf", "github.com/cilium/ebpf/..."}, deep: true,
		why: "an attachment circuit cannot tell the datapaths apart",
	},
	{
		of: []string{"pkg/qos"}, only: []string{"std", "bpf", "pkg/drift", "pkg/pseudowire/tcfilter", "pkg/underlay", "github.com/vishvananda/netlink/...", "golang.org/x/sys/unix"},
		why: "shaping knows of handles and rates, not of tunnels",
	},
	{
		of: []string{"pkg/pseudowire/l2tpeth"}, never: []string{"bpf", "github.com/cilium/ebpf/...", "pkg/pseudowire/tcbpf"}, deep: true,
		why: "the kernel's datapath works where eBPF does not",
	},
	{
		of: []string{"..."}, except: []string{"cmd/pwd", "pkg/pseudowire/...", "test/..."}, never: []string{"pkg/pseudowire/l2tpeth", "pkg/pseudowire/tcbpf"},
		why: "only the daemon's main chooses datapaths; all else knows the interface",
	},
	{
		of: []string{"..."}, except: []string{"internal/topology"}, never: []string{"gopkg.in/yaml.v3"},
		why: "the YAML library panics on some documents unless used with care, which is in one place",
	},
	{
		of: []string{"internal/loop"}, only: []string{"std"},
		never: []string{"net", "net/http", "os", "os/...", "syscall", "math/rand", "math/rand/..."},
		why:   "sites have to decide the same: what they decide from is given to them",
	}, {
		of: []string{"internal/topology", "internal/plan"}, only: []string{"std", "pkg/l2tpv3", "pkg/steer", "pkg/vlan", "gopkg.in/yaml.v3", "internal/topology"},
		never: []string{"net", "net/http", "os", "os/...", "syscall"},
		why:   "what is wanted and the way there are pure values",
	},
	{
		of: []string{"cmd/pwctl"}, never: []string{"internal/agent", "pkg/l2tpv3/control", "pkg/l2tpv3/transport", "pkg/bridge", "github.com/cilium/ebpf/...", "github.com/vishvananda/..."}, deep: true,
		why: "pwctl does everything through the daemon's API",
	},
	{
		of: []string{"cmd/..."}, never: []string{"testing", "internal/netlab", "internal/api/apitest", "test/...", "pgregory.net/rapid", "github.com/google/go-cmp/..."}, deep: true,
		why: "what is for tests is not shipped",
	},
	{
		of: []string{"..."}, never: []string{"C"},
		why: "programs are static and are built without a C compiler",
	},
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
	GoFiles    []string
	Error      *struct{ Err string }
}

// list is every package of the module and what it depends on, tests left out.
func list(t *testing.T) map[string]*listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Dir,Standard,Imports,GoFiles,Error", "./...")
	cmd.Dir, cmd.Env = top(t), append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	packages := map[string]*listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("read the output of go list: %v", err)
		}
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		packages[p.ImportPath] = p
	}
}

// top is the module's folder.
func top(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// short is an import path without the module's name.
func short(path string) string { return strings.TrimPrefix(path, module+"/") }

// match says whether an import path is meant by one of the patterns.
func match(patterns []string, path string, standard bool) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, all := strings.CutSuffix(p, "...")
		return p == "std" && standard || p == path || all && (strings.HasPrefix(path, below) || path == strings.TrimSuffix(below, "/"))
	})
}

// forbids says whether a package may not import another.
func (r rule) forbids(path string, standard bool) bool {
	return match(r.never, path, standard) || len(r.only) > 0 && !match(r.only, path, standard)
}

// offences are the ways, as "a > b > c", by which a package imports what the rule forbids.
func (r rule) offences(packages map[string]*listed, from string) (ways []string) {
	seen := map[string]bool{}
	var visit func(path, way string)
	visit = func(path, way string) {
		p := packages[path]
		if p == nil || p.Standard {
			return // what the standard library imports of itself is its own affair
		}
		for _, i := range p.Imports {
			if seen[i] {
				continue
			}
			seen[i] = true
			standard := packages[i] != nil && packages[i].Standard
			if r.forbids(short(i), standard) {
				ways = append(ways, way+" > "+short(i))
			} else if r.deep {
				visit(i, way+" > "+short(i))
			}
		}
	}
	visit(from, short(from))
	return ways
}

func TestImports(t *testing.T) {
	packages := list(t)
	for _, r := range rules {
		about := 0
		for path, p := range packages {
			if p.Standard || !strings.HasPrefix(path, module+"/") || !match(r.of, short(path), false) || match(r.except, short(path), false) {
				continue
			}
			about++
			for _, way := range r.offences(packages, path) {
				t.Errorf("%s\n\tbut %s", way, r.why)
			}
		}
		if about == 0 {
			t.Errorf("the rule for %v is about no package (%s)", r.of, r.why)
		}
	}
}

// The rules forbid what they say.
func TestRule(t *testing.T) {
	packages := map[string]*listed{
		"net":                     {ImportPath: "net", Standard: true},
		"fmt":                     {ImportPath: "fmt", Standard: true, Imports: []string{"os"}},
		"os":                      {ImportPath: "os", Standard: true},
		"example.org/x":           {ImportPath: "example.org/x", Imports: []string{"net"}},
		module + "/pkg/a":         {ImportPath: module + "/pkg/a", Imports: []string{"fmt", "example.org/x", module + "/pkg/b"}},
		module + "/pkg/b":         {ImportPath: module + "/pkg/b", Imports: []string{module + "/internal/c"}},
		module + "/internal/c":    {ImportPath: module + "/internal/c"},
		module + "/pkg/ab/deeper": {ImportPath: module + "/pkg/ab/deeper"},
	}
	for _, tt := range []struct {
		name string
		rule rule
		want []string
	}{
		{"allowed", rule{never: []string{"net"}}, nil},
		{"through another", rule{never: []string{"net"}, deep: true}, []string{"pkg/a > example.org/x > net"}},
		{"internal", rule{never: []string{"internal/..."}, deep: true}, []string{"pkg/a > pkg/b > internal/c"}},
		{"only the standard library", rule{only: []string{"std"}}, []string{"pkg/a > example.org/x", "pkg/a > pkg/b"}},
		{"in only and never", rule{only: []string{"std", "pkg/...", "example.org/x"}, never: []string{"fmt"}}, []string{"pkg/a > fmt"}},
		{"the standard library's own", rule{never: []string{"os"}, deep: true}, nil},
		{"a name that begins alike", rule{never: []string{"pkg/bb", "pkg/b/c", "example.org/..."}}, []string{"pkg/a > example.org/x"}},
	} {
		if got := tt.rule.offences(packages, module+"/pkg/a"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
