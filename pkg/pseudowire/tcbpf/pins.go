package tcbpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pinDir is where this network namespace's pins are: several daemons may have
// the same bpffs. It is empty if dir is on none.
func pinDir(dir string) (string, error) {
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

// removePins removes all pins, and the directory of the options if that leaves
// it empty.
func (d *Datapath) removePins() error {
	if d.pins == "" {
		return nil
	}
	if err := os.RemoveAll(d.pins); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	if err := os.Remove(filepath.Dir(d.pins)); err != nil {
		d.log.Debug("directory for pins stays", "err", err) // a mount, or not empty
	}
	return nil
}
