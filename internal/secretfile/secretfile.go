// Package secretfile reads the files of shared secrets for package topology, which
// is pure.
package secretfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/topology"
)

var (
	errRelative   = errors.New("its name is relative, and it is not known to what")
	errNotRegular = errors.New("it is no regular file")
)

// In reads files whose names are relative to dir, the folder of the topology file.
// With an empty dir only absolute names will do.
func In(dir string) topology.ReadSecret {
	return func(name string) (topology.SecretText, error) {
		found := topology.SecretText{Path: name}
		if !filepath.IsAbs(name) {
			if dir == "" {
				return found, errRelative
			}
			found.Path = filepath.Join(dir, name)
		}
		var err error
		found.Text, found.Mode, err = read(found.Path)
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // the path is said already
		}
		return found, err
	}
}

// read reads as much of a regular file as shows that it is too long, without
// waiting for anybody.
func read(path string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errNotRegular
	}
	text, err := io.ReadAll(io.LimitReader(f, topology.MaxSecret+2))
	return text, info.Mode(), err
}
