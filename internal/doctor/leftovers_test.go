package doctor

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// closed has some files, and folders with all that is in them, refuse to be looked at.
type closed struct {
	fstest.MapFS
	names []string
}

func (c closed) refuse(op, name string) error {
	if slices.ContainsFunc(c.names, func(n string) bool { return name == n || strings.HasPrefix(name, n+"/") }) {
		return &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
	}
	return nil
}

func (c closed) Open(name string) (fs.File, error) {
	if err := c.refuse("open", name); err != nil {
		return nil, err
	}
	return c.MapFS.Open(name)
}

func (c closed) ReadFile(name string) ([]byte, error) {
	if err := c.refuse("open", name); err != nil {
		return nil, err
	}
	return c.MapFS.ReadFile(name)
}

func (c closed) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := c.refuse("open", name); err != nil {
		return nil, err
	}
	return c.MapFS.ReadDir(name)
}

func (c closed) Stat(name string) (fs.FileInfo, error) {
	if err := c.refuse("stat", name); err != nil {
		return nil, err
	}
	return c.MapFS.Stat(name)
}

func (c closed) Lstat(name string) (fs.FileInfo, error) {
	if err := c.refuse("lstat", name); err != nil {
		return nil, err
	}
	return c.MapFS.Lstat(name)
}

func (c closed) ReadLink(name string) (string, error) {
	if err := c.refuse("readlink", name); err != nil {
		return "", err
	}
	return c.MapFS.ReadLink(name)
}

// ofLeftovers are the findings about them.
func ofLeftovers(t *testing.T, h *Host, s *Site) []Finding {
	return slices.DeleteFunc(Examine(t.Context(), *h, *s), func(f Finding) bool { return f.Check != "leftovers" })
}

// What is in this network namespace is not held against a daemon that is in another one, or may be.
func TestAnotherNetworkNamespace(t *testing.T) {
	for _, tt := range []struct {
		name      string
		spoil     func(h *Host, s *Site, files fstest.MapFS)
		what, fix string
	}{
		{"another one", func(_ *Host, _ *Site, files fstest.MapFS) { link(files, "proc/7/ns/net", "net:[2]") },
			"the daemon is in another network namespace", "nsenter -t 7 -n pwctl doctor"},
		{"a process that cannot be seen", func(_ *Host, s *Site, _ fstest.MapFS) { s.PID = 0 },
			"the daemon's process cannot be seen from here", "nsenter -t PID -n pwctl doctor"},
		{"a process that may not be looked at", func(h *Host, _ *Site, files fstest.MapFS) {
			h.Files = closed{files, []string{"proc/7/ns/net"}}
		}, "readlink proc/7/ns/net: permission denied", "as root"},
		{"a process that has gone", func(_ *Host, _ *Site, files fstest.MapFS) { delete(files, "proc/7/ns/net") },
			"file does not exist", "in the daemon's network namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s, files, _ := well()
			for name, text := range map[string]string{
				"sys/class/net/pw-old/ifalias":   "pwd:pseudowire:old",
				"sys/class/net/pwb-eth9/ifalias": "pwd:bridge:pwb-eth9",
				"proc/7/fdinfo/4":                "prog_id:\t41\n",
				"var/lib/pwd/generation.json":    `{"site": "dc9", "number": 12}`,
			} {
				files[name] = &fstest.MapFile{Data: []byte(text)}
			}
			h.Attached = func() ([]Attached, error) {
				return []Attached{{Interface: "eth0", Kind: "bpf", Hook: "ingress", Name: "pwd_decap", Program: 17}}, nil
			}
			if found := ofLeftovers(t, h, s); len(found) != 4 {
				t.Fatalf("in the daemon's namespace: %q", lines(found))
			}
			tt.spoil(h, s, files)
			found := ofLeftovers(t, h, s)
			if len(found) != 1 || found[0].Level != Note || !strings.Contains(found[0].What, tt.what) || !strings.Contains(found[0].Fix, tt.fix) {
				t.Errorf("%+v", found)
			}
		})
	}
}

// A network namespace that cannot be seen from here has not gone.
func TestPinsOfNamespacesThatCannotBeSeen(t *testing.T) {
	for name, spoil := range map[string]func(h *Host, files fstest.MapFS){
		"a container's processes":  func(_ *Host, files fstest.MapFS) { link(files, "proc/self/ns/pid", "pid:[4026532201]") },
		"an unknown PID namespace": func(_ *Host, files fstest.MapFS) { delete(files, "proc/self/ns/pid") },
		"a user's own processes":   func(_ *Host, files fstest.MapFS) { delete(files, "proc/1/ns/net") },
		"processes of others":      func(h *Host, files fstest.MapFS) { h.Files = closed{files, []string{"proc/77/ns/net"}} },
	} {
		t.Run(name, func(t *testing.T) {
			h, s, files, _ := well()
			namespaces(files)
			files["sys/fs/bpf/pwd/net-4/maps-3/tunnels"] = &fstest.MapFile{}
			if found := ofLeftovers(t, h, s); len(found) != 1 || !strings.Contains(found[0].Fix, "rm -r ") {
				t.Fatalf("where all can be seen: %+v", found)
			}
			spoil(h, files)
			if found := ofLeftovers(t, h, s); len(found) != 0 {
				t.Errorf("%+v", found)
			}
		})
	}
}

// Whose state it is has to be known: nobody's is looked at where no folder is, and nothing removes a site's that has
// nothing here.
func TestStateOfAnotherDaemon(t *testing.T) {
	h, s, files, _ := well()
	files["var/lib/pwd/generation.json"] = &fstest.MapFile{Data: []byte(`{"site": "dc9", "number": 12}`)}
	if found := ofLeftovers(t, h, s); len(found) != 1 || strings.Contains(found[0].Fix, "cleanup") {
		t.Errorf("beside a daemon: %+v", found)
	}
	h.StateDir = ""
	if found := ofLeftovers(t, h, s); len(found) != 0 {
		t.Errorf("beside a daemon, without its folder: %+v", found)
	}
	*s = Site{Err: errors.New("pwd is not running")}
	found := ofLeftovers(t, h, s)
	if len(found) != 1 || strings.Contains(found[0].What+found[0].Fix, "dc9") || strings.Contains(found[0].Fix, "cleanup") || !strings.Contains(found[0].Fix, "--state-dir") {
		t.Errorf("without a daemon and its folder: %+v", found)
	}
	for _, f := range Examine(t.Context(), *h, *s) {
		if strings.Contains(f.Fix, "--cleanup") {
			t.Errorf("%+v", f)
		}
	}
}

// Nothing is called clean that could not be looked at.
func TestLeftoversThatMayNotBeSeen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(h *Host, files fstest.MapFS)
		what  string
	}{
		{"interfaces", func(h *Host, _ fstest.MapFS) {
			h.Aliases = func() (map[string]string, error) { return nil, syscall.EPERM }
		}, "the aliases of interfaces: operation not permitted"},
		{"qdiscs", func(h *Host, _ fstest.MapFS) { h.Attached = func() ([]Attached, error) { return nil, syscall.EPERM } },
			"what is attached to interfaces: operation not permitted"},
		{"pins", func(h *Host, files fstest.MapFS) { h.Files = closed{files, []string{"sys/fs/bpf/pwd"}} },
			"what is pinned: open sys/fs/bpf/pwd: permission denied"},
		{"pins of this namespace", func(h *Host, files fstest.MapFS) { h.Files = closed{files, []string{"sys/fs/bpf/pwd/net-1"}} },
			"what is pinned: stat sys/fs/bpf/pwd/net-1: permission denied"},
		{"state", func(h *Host, files fstest.MapFS) { h.Files = closed{files, []string{"var/lib/pwd"}} },
			"the state in /var/lib/pwd: open var/lib/pwd/generation.json: permission denied"},
		{"sockets", func(h *Host, files fstest.MapFS) { h.Files = closed{files, []string{"proc/net/unix"}} },
			"whether a daemon runs: open proc/net/unix: permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s, files, _ := well()
			*s = Site{Err: errors.New("pwd is not running")}
			for _, device := range []string{"pw-lan", "br-lan"} {
				delete(files, "sys/class/net/"+device+"/ifalias")
			}
			if found := ofLeftovers(t, h, s); len(found) != 1 || found[0].Level != OK {
				t.Fatalf("where all can be seen: %+v", found)
			}
			tt.spoil(h, files)
			found := ofLeftovers(t, h, s)
			if len(found) != 1 || found[0].Level != Note || found[0].What != "what is left over was not looked at in full: "+tt.what || !strings.Contains(found[0].Fix, "as root") {
				t.Errorf("%+v", found)
			}
		})
	}
}

// Without the aliases a daemon's own programs cannot be told from others'.
func TestAliasesThatMayNotBeSeenBesideADaemon(t *testing.T) {
	h, s, _, _ := well()
	h.Aliases = func() (map[string]string, error) { return nil, syscall.EPERM }
	h.Attached = func() ([]Attached, error) {
		return []Attached{{Interface: "pw-lan", Kind: "bpf", Hook: "ingress", Name: "pwd_encap", Program: 19}}, nil
	}
	if found := ofLeftovers(t, h, s); len(found) != 1 || found[0].Level != Note || !strings.Contains(found[0].Fix, "as root") {
		t.Errorf("%+v", found)
	}
}
