package l2tpv3

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The wire knows no sockets, no clock and no files, and needs nothing that is not
// in the standard library.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	forbidden := map[string]string{
		"net": "no sockets", "net/netip": "no addresses", "os": "no files", "syscall": "no system calls",
		"time": "no clock", "unsafe": "no tricks with memory", "math/rand": "no randomness", "crypto/rand": "no randomness",
		"sync": "nothing runs at once",
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := forbidden[path]; why != "" {
				t.Errorf("%s imports %s: %s in this package", name, path, why)
			}
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s, which is not in the standard library", name, path)
			}
		}
	}
}
