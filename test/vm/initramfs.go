package vm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/test/vm/job"
)

// bootModules are what process 1 needs before it sees the host's file system.
var bootModules = []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}

// writeInitramfs writes the archive that a kernel unpacks into memory: process
// 1, its job, and the modules it boots with.
func writeInitramfs(w io.Writer, k *Kernel, init []byte, j job.Job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	cw := &cpioWriter{w: w}
	cw.dir("dev")
	cw.dir(strings.TrimPrefix(job.ModuleDir, "/"))
	cw.file("init", 0o755, init)
	cw.file(strings.TrimPrefix(job.File, "/"), 0o644, b)
	files, err := moduleFiles(k.Modules, bootModules)
	if err != nil {
		return err
	}
	for i, f := range files {
		b, err := readModule(filepath.Join(k.Modules, f))
		if err != nil {
			return err
		}
		cw.file(path.Join(strings.TrimPrefix(job.ModuleDir, "/"), fmt.Sprintf("%02d-%s", i, path.Base(f))), 0o644, b)
	}
	return cw.close()
}

// readModule returns a module, unpacked.
func readModule(file string) ([]byte, error) {
	if !strings.HasSuffix(file, ".xz") {
		return os.ReadFile(file)
	}
	b, err := exec.Command("xz", "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", file, err)
	}
	return b, nil
}

// moduleFiles returns the files of the named modules and of what they depend
// on, in the order to load them in. Those built into the kernel have none.
func moduleFiles(dir string, names []string) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(dep)) {
		file, needs, _ := strings.Cut(line, ":")
		// modules.dep lists what a module needs in the reverse order.
		all := append([]string{file}, strings.Fields(needs)...)
		slices.Reverse(all)
		lines[moduleName(file)] = all
	}
	for line := range strings.Lines(string(builtin)) {
		lines[moduleName(strings.TrimSpace(line))] = nil
	}
	var files []string
	for _, n := range names {
		needs, ok := lines[n]
		if !ok {
			return nil, fmt.Errorf("no module %s in %s", n, dir)
		}
		for _, f := range needs {
			if !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
	return files, nil
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// cpioWriter writes an archive in the "newc" form that the kernel reads
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error
// sticks.
type cpioWriter struct {
	w   io.Writer
	ino int
	err error
}

func (c *cpioWriter) dir(name string)                            { c.entry(name, 0o040755, nil) }
func (c *cpioWriter) file(name string, mode uint32, data []byte) { c.entry(name, 0o100000|mode, data) }

func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.ino++
	var b bytes.Buffer
	b.WriteString("070701")
	// ino, mode, uid, gid, nlink, mtime, filesize, device and rdevice (major,
	// minor each), length of the name with its NUL, checksum (unused).
	for _, v := range []uint32{uint32(c.ino), mode, 0, 0, 1, 0, uint32(len(data)), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		fmt.Fprintf(&b, "%08X", v)
	}
	b.WriteString(name + "\x00")
	pad4(&b)
	b.Write(data)
	pad4(&b)
	_, c.err = c.w.Write(b.Bytes())
}

func pad4(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
