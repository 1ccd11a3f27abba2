package vm

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Release is a stock Debian kernel to test on.
type Release struct {
	// Series is how people name it: "6.1".
	Series string
	// Package is the Debian package that results are known for; Pattern matches
	// it and its successors, which are taken where the archive has it no more.
	Package string
	Pattern *regexp.Regexp
}

// Releases are the kernels that everything is tested on.
var Releases = []Release{
	{"6.1", "linux-image-6.1.0-56-amd64", regexp.MustCompile(`^linux-image-6\.1\.0-\d+-amd64$`)},
	{"6.12", "linux-image-6.12.113+deb12-amd64", regexp.MustCompile(`^linux-image-6\.12\.\d+\+deb12-amd64$`)},
}

// Kernel is an unpacked kernel.
type Kernel struct {
	Series, Package string
	// Image is the file to boot; Modules the folder with modules.dep.
	Image, Modules string
}

// CacheDir is where kernels are kept: pwd-test in the user's cache folder.
func CacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "pwd-test")
}

// Fetch returns the kernel of a release: from the cache, else from Debian's
// archive, by apt-get. What it downloads it says on log.
func Fetch(r Release, log io.Writer) (*Kernel, error) {
	if k, err := cached(r.Series, r.Package); err == nil {
		return k, nil
	}
	pkg, err := available(r, log)
	if err == nil {
		if k, err := cached(r.Series, pkg); err == nil {
			return k, nil
		}
		if err = download(pkg, log); err == nil {
			return cached(r.Series, pkg)
		}
	}
	// Without an archive, an older or newer kernel of the series serves as well.
	for _, p := range cachedPackages(r.Pattern) {
		if k, err := cached(r.Series, p); err == nil {
			return k, nil
		}
	}
	return nil, &DownloadError{r, err}
}

func cached(series, pkg string) (*Kernel, error) {
	dir := filepath.Join(CacheDir(), pkg)
	release := strings.TrimPrefix(pkg, "linux-image-")
	k := &Kernel{
		Series: series, Package: pkg,
		Image:   filepath.Join(dir, "boot", "vmlinuz-"+release),
		Modules: filepath.Join(dir, "lib", "modules", release),
	}
	for _, f := range []string{k.Image, filepath.Join(k.Modules, "modules.dep")} {
		if _, err := os.Stat(f); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// cachedPackages that match, newest first.
func cachedPackages(pattern *regexp.Regexp) []string {
	entries, _ := os.ReadDir(CacheDir())
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return newestFirst(names, pattern)
}

// newestFirst returns the names that match, sorted by the numbers in them.
func newestFirst(names []string, pattern *regexp.Regexp) []string {
	var out []string
	for _, n := range names {
		if pattern.MatchString(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return slices.Compare(numbers(b), numbers(a)) })
	return slices.Compact(out)
}

var digits = regexp.MustCompile(`\d+`)

func numbers(s string) []int {
	var out []int
	for _, d := range digits.FindAllString(s, -1) {
		n, _ := strconv.Atoi(d)
		out = append(out, n)
	}
	return out
}

// DownloadError says that no kernel of a release could be had.
type DownloadError struct {
	Release Release
	Err     error
}

func (e *DownloadError) Error() string {
	return fmt.Sprintf("vm: no kernel %s: %v; it takes a Debian package like %s from an archive that apt-get reaches",
		e.Release.Series, e.Err, e.Release.Package)
}

func (e *DownloadError) Unwrap() error { return e.Err }

// available is the package that the archive has of a release: the one asked
// for, else the newest that matches.
func available(r Release, log io.Writer) (string, error) {
	has := func(pkg string) bool {
		out, err := exec.Command("apt-cache", "madison", pkg).Output()
		return err == nil && len(out) > 0
	}
	if has(r.Package) {
		return r.Package, nil
	}
	fmt.Fprintln(log, "vm: apt-get update")
	if err := apt("", io.Discard, "update"); err != nil {
		return "", err
	}
	if has(r.Package) {
		return r.Package, nil
	}
	out, err := exec.Command("apt-cache", "pkgnames", "linux-image-"+r.Series+".").Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache pkgnames: %w", err)
	}
	for _, name := range newestFirst(strings.Fields(string(out)), r.Pattern) {
		if has(name) {
			fmt.Fprintf(log, "vm: the archive has %s no more; taking %s\n", r.Package, name)
			return name, nil
		}
	}
	return "", errors.New("the archive has none")
}

// download puts a kernel's package, unpacked, into the cache.
func download(pkg string, log io.Writer) error {
	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(CacheDir(), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(log, "vm: download %s to %s\n", pkg, CacheDir())
	if err := apt(tmp, io.Discard, "download", pkg); err != nil {
		// Lists that are old name versions that the archive has replaced.
		fmt.Fprintln(log, "vm: apt-get update")
		if err := errors.Join(apt("", io.Discard, "update"), apt(tmp, io.Discard, "download", pkg)); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d files", pkg, len(debs))
	}
	unpacked := filepath.Join(tmp, "unpacked")
	if err := unpack(debs[0], unpacked); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(debs[0]), err)
	}
	// One of two that run at once comes first; the other's is the same.
	if err := os.Rename(unpacked, filepath.Join(CacheDir(), pkg)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// unwanted folders of modules: most of a kernel's size, for hardware that the
// machine has not got.
var unwanted = []string{
	"sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging", "drivers/iio",
	"drivers/scsi", "drivers/usb", "drivers/video", "drivers/comedi", "drivers/platform",
	"drivers/net/ethernet", "drivers/net/wireless", "drivers/net/usb", "net/mac80211", "net/wireless",
}

// wanted reports whether a file of a kernel's package is unpacked.
func wanted(name string) bool {
	parts := strings.Split(path.Clean(strings.TrimPrefix(name, "./")), "/")
	switch {
	case parts[0] == "boot":
		return len(parts) == 2 && (strings.HasPrefix(parts[1], "vmlinuz-") || strings.HasPrefix(parts[1], "config-"))
	case len(parts) < 4 || parts[0] != "lib" || parts[1] != "modules":
		return false
	case parts[3] != "kernel":
		return true
	}
	module := strings.Join(parts[4:], "/")
	return !slices.ContainsFunc(unwanted, func(d string) bool { return strings.HasPrefix(module, d+"/") })
}

// unpack writes what is wanted of a kernel's package to dir and indexes its modules.
func unpack(deb, dir string) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	release, err := extract(out, dir)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, stderr.Bytes())
	}
	if b, err := exec.Command("depmod", "-b", dir, release).CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, b)
	}
	return nil
}

// extract writes the wanted regular files of a tar archive below dir and returns
// the kernel's release.
func extract(r io.Reader, dir string) (release string, err error) {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if release == "" {
				return "", errors.New("no modules in it")
			}
			// What follows the archive's end has to be read for its writer to end.
			_, err = io.Copy(io.Discard, r)
			return release, err
		}
		if err != nil {
			return "", err
		}
		if h.Typeflag != tar.TypeReg || !wanted(h.Name) || !filepath.IsLocal(h.Name) {
			continue
		}
		if parts := strings.Split(path.Clean(h.Name), "/"); parts[0] == "lib" {
			release = parts[2]
		}
		to := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		f, err := os.Create(to)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(f, tr)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
}
