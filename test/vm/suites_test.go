package vm

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// byHand are tests of virtual machines that no suite runs; they say why.
var byHand = map[string]bool{"TestKernelBlackHole": true}

// What is built for virtual machines alone is run there by some suite: nothing else would.
func TestEveryTestHasASuite(t *testing.T) {
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]*regexp.Regexp{}
	for _, s := range Suites {
		run[s.Package] = regexp.MustCompile(s.Run)
	}
	found := 0
	for _, folder := range []string{"cmd", "internal", "pkg", "bpf", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(source, []byte("//go:build vm\n")) {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			in, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				f, is := d.(*ast.FuncDecl)
				if !is || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" || byHand[f.Name.Name] {
					continue
				}
				found++
				if pattern := run[in]; pattern == nil || !pattern.MatchString(f.Name.Name) {
					t.Errorf("%s: no suite runs %s", in, f.Name.Name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 30 {
		t.Errorf("only %d tests were looked at", found)
	}
}
