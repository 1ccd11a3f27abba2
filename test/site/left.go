package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Left looks in the namespace for everything that a daemon can leave behind, and returns an error that lists it.
func (s *Site) Left() error {
	var found []error
	note := func(format string, args ...any) { found = append(found, fmt.Errorf(format, args...)) }
	links, err := s.NS.Netlink().LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" {
			continue
		}
		if !slices.Contains(s.Links, a.Name) {
			note("link %s", a.Name)
		}
		if a.MasterIndex != 0 {
			note("%s is still a bridge port", a.Name)
		}
		if a.Promisc != 0 {
			note("%s is still promiscuous", a.Name)
		}
		if a.Alias != "" {
			note("%s still has the alias %q", a.Name, a.Alias)
		}
		if a.Xdp != nil && a.Xdp.Attached {
			note("an XDP program on %s", a.Name)
		}
		qdiscs, err := s.NS.Netlink().QdiscList(l)
		if err != nil {
			return err
		}
		for _, q := range qdiscs {
			if q.Type() != "noqueue" {
				note("qdisc %s on %s", q.Type(), a.Name)
			}
		}
		if err := s.programs(a.Name, a.Index, note); err != nil {
			return err
		}
	}
	// The kernel's own iterators are at the top; what a daemon pins is in directories.
	root := s.NS.Root() + "/sys/fs/bpf"
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != root && (e.IsDir() || filepath.Dir(path) != root) {
			note("%s", path[len(s.NS.Root()):])
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(found...)
}

// programs looks for tcx programs on an interface, where the kernel has tcx.
func (s *Site) programs(name string, index int, note func(string, ...any)) error {
	return s.NS.Do(func() error {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
				return nil // before Linux 6.6
			}
			if err != nil {
				return fmt.Errorf("ask for the tcx programs of %s: %w", name, err)
			}
			if len(r.Programs) > 0 {
				note("%d tcx programs on %s", len(r.Programs), name)
			}
		}
		return nil
	})
}
