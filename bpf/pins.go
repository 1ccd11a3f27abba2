package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
