package deps

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unfit are octets that have no place in a published tree. They are put together here so that this file does not have them.
var unfit = []struct{ text, why string }{
	{"/wo" + "rk/", "a path of somebody's machine"},
	{"/ho" + "me/", "a path of somebody's machine"},
	{"/fa" + "rm/", "a path of somebody's machine"},
	{"TO" + "DO", "unfinished"},
	{"FIX" + "ME", "unfinished"},
	{"XX" + "X", "unfinished"},
}

// ours says whether a file of the tree is the project's: made, not built or downloaded.
func ours(path string, e fs.DirEntry) bool {
	name := e.Name()
	if e.IsDir() {
		return path == "." || path != "bin" && path != "out" && (!strings.HasPrefix(name, ".") || name == ".ci") && name != "testdata"
	}
	// In a linked work tree .git is a file.
	return name != "LICENSE" && name != ".git" && !strings.HasSuffix(name, ".sum")
}

// No file names a place of the machine it was written or built on, the compiled eBPF programs included, and none says that it is not finished.
func TestTree(t *testing.T) {
	root, read := os.DirFS(top(t)), 0
	err := fs.WalkDir(root, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !ours(path, e) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		read++
		for _, u := range unfit {
			if before, _, found := bytes.Cut(b, []byte(u.text)); found {
				t.Errorf("%s:%d: %q: %s", path, bytes.Count(before, []byte("\n"))+1, u.text, u.why)
			}
		}
		if info, err := e.Info(); err == nil && info.Size() > 1<<20 {
			t.Errorf("%s: %d KiB", path, info.Size()>>10)
		}
		return nil
	})
	if err != nil || read == 0 {
		t.Errorf("%d files read in %s: %v", read, filepath.Clean(top(t)), err)
	}
}

// What the licences have to say is there: Apache 2.0 for all, and a choice of two for what is linked with the kernel.
func TestLicences(t *testing.T) {
	license, err := os.ReadFile(filepath.Join(top(t), "LICENSE"))
	if err != nil || !bytes.Contains(license, []byte("Apache License")) || !bytes.Contains(license, []byte("Version 2.0, January 2004")) {
		t.Errorf("LICENSE is not the Apache License 2.0: %v", err)
	}
	var sources []string
	for _, pattern := range []string{"bpf/*.c", "bpf/*.h"} {
		files, err := filepath.Glob(filepath.Join(top(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, files...)
	}
	if len(sources) == 0 {
		t.Error("no C sources in bpf")
	}
	for _, path := range sources {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(b), "\n")
		if !strings.Contains(first, "SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause") {
			t.Errorf("%s: the first line is %q, without its SPDX-License-Identifier", filepath.Base(path), first)
		}
	}
}
