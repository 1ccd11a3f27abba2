package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// PinDir is where below dir the pins of the calling thread's network namespace are: several
// daemons may have the same bpffs. It is empty if dir is on none.
func PinDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	on, err := onBPFFS(dir)
	if err != nil || !on {
		return "", err
	}
	namespace, err := os.Readlink("/proc/thread-self/ns/net") // net:[4026531840]
	if err != nil {
		return "", fmt.Errorf("look up the network namespace: %w", err)
	}
	number := strings.Trim(strings.TrimPrefix(namespace, "net:"), "[]")
	return filepath.Join(dir, "net-"+number), nil
}

// onBPFFS says whether dir is, or would be once made, on a bpffs.
func onBPFFS(dir string) (bool, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		if err == nil {
			return int64(fs.Type) == unix.BPF_FS_MAGIC, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, unix.ENOENT) || parent == dir {
			return false, fmt.Errorf("look at %s: %w", dir, err)
		}
		dir = parent
	}
}

// Part is whose maps are pinned, beside those of others.
type Part string

const (
	// PartDatapath are those of Load.
	PartDatapath Part = ""
	// PartPacing are those of LoadPacing.
	PartPacing Part = "pacing"
)

// PartNSP are those of LoadNSP for a datapath.
func PartNSP(datapath string) Part { return Part("nsp-" + datapath) }

// layouts is how the directories of maps are named below that of pins, one for each Layout.
const layouts = "maps-"

// pinned is where a part's maps are, empty without a directory.
func pinned(dir string, part Part) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, layouts+strconv.Itoa(Layout), string(part))
}

// RemovePins unpins a part's maps in a directory, unless its name is empty, and removes what
// directories that leaves empty, the one that it is in included. What others have stays.
func RemovePins(dir string, part Part) error {
	found, err := removePart(dir, part, func(string) bool { return true })
	if found && err == nil && os.Remove(dir) == nil {
		_ = os.Remove(filepath.Dir(dir)) // unless it is a mount, or not empty
	}
	return err
}

// RemoveOtherLayouts unpins a part's maps of another Layout: of a version before, or of a later
// one that was taken back. Programs that are still attached keep theirs.
func RemoveOtherLayouts(dir string, part Part) error {
	this := filepath.Base(pinned(dir, PartDatapath))
	_, err := removePart(dir, part, func(layout string) bool { return layout != this })
	return err
}

// removePart unpins a part's maps in directories of layouts, and says whether there were any.
func removePart(dir string, part Part, concerned func(layout string) bool) (found bool, err error) {
	if dir == "" {
		return false, nil
	}
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("look for pinned maps: %w", err)
	}
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), layouts) || !concerned(e.Name()) {
			continue
		}
		removed, err := unpinAll(filepath.Join(dir, e.Name(), string(part)))
		if err != nil {
			return found, err
		}
		found = found || removed
		// Other parts may be in it.
		_ = os.Remove(filepath.Join(dir, e.Name()))
	}
	return found, nil
}

// unpinAll unpins what is in a directory, and says whether it was there; what is deeper stays.
func unpinAll(dir string) (bool, error) {
	pins, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for pinned maps: %w", err)
	}
	for _, pin := range pins {
		if pin.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, pin.Name())); err != nil {
			return true, fmt.Errorf("unpin maps: %w", err)
		}
	}
	_ = os.Remove(dir)
	return true, nil
}

// loadOver puts a collection into the kernel. Maps that are pinned in a directory, unless its
// name is empty, are taken over if they fit: it returns their names.
func loadOver(spec *ebpf.CollectionSpec, dir, what string) (*ebpf.Collection, map[string]bool, error) {
	replaced := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range replaced {
			m.Close()
		}
	}()
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, &LoadError{"make a directory for maps", err}
		}
		if err := pinnedMaps(dir, spec, replaced); err != nil {
			return nil, nil, err
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replaced})
	if err != nil {
		return nil, nil, &LoadError{"load " + what, err}
	}
	tookOver := map[string]bool{}
	for name := range replaced {
		tookOver[name] = true
	}
	return c, tookOver, nil
}

// pin pins the maps that were not taken over in a directory, unless its name is empty.
func pin(c *ebpf.Collection, dir string, tookOver map[string]bool) error {
	for name, m := range c.Maps {
		if dir == "" || tookOver[name] {
			continue
		}
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			return &LoadError{"pin map " + name, err}
		}
	}
	return nil
}

// pinnedMaps opens what maps of spec are pinned in dir. One that does not fit is
// unpinned: a map of its name is made anew.
func pinnedMaps(dir string, spec *ebpf.CollectionSpec, into map[string]*ebpf.Map) error {
	for name, mapSpec := range spec.Maps {
		path := filepath.Join(dir, name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if errors.Is(err, os.ErrPermission) {
			return &LoadError{"open the map " + path, err}
		}
		if err == nil && mapSpec.Compatible(m) == nil {
			into[name] = m
			continue
		}
		if err == nil {
			m.Close()
		}
		if err := os.Remove(path); err != nil {
			return &LoadError{"unpin a map that does not fit, " + path, err}
		}
	}
	return nil
}
