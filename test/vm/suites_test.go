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

// noBounds are tests that run alone on a host alone: in a machine they set no bound, or only one for what hangs.
var noBounds = map[string]bool{"TestHostMoves": true, "TestManyPseudowires": true}

// What a suite has run alone is among its tests, and what runs alone on a host is among it.
func TestAlone(t *testing.T) {
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Suites {
		there := tests(t, filepath.Join(root, s.Package))
		run, alone := regexp.MustCompile(s.Run), regexp.MustCompile(s.Alone)
		for name := range strings.FieldsFuncSeq(s.Alone, func(r rune) bool { return strings.ContainsRune("^(|)$", r) }) {
			if !there[name] || !run.MatchString(name) || !alone.MatchString(name) {
				t.Errorf("%s: %s is not among its tests", s.Package, name)
			}
		}
		if s.Package != "test/e2e" {
			continue
		}
		onHost := regexp.MustCompile(aloneOnHost(t, filepath.Join(root, s.Package, "world_test.go")))
		for name := range there {
			if run.MatchString(name) && onHost.MatchString(name) && alone.MatchString(name) == noBounds[name] {
				t.Errorf("%s runs alone on a host", name)
			}
		}
	}
}

// tests are the names of the tests in a folder, whatever they are built for.
func tests(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			names[string(found[1])] = true
		}
	}
	return names
}

// aloneOnHost is the constant alone of test/e2e.
func aloneOnHost(t *testing.T, file string) string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(source), "\nconst alone = ")
	text, _, _ = strings.Cut(text, "\n\n")
	value, err := parser.ParseExpr(text)
	pattern := ""
	ast.Inspect(value, func(n ast.Node) bool {
		if s, is := n.(*ast.BasicLit); is && s.Kind == token.STRING {
			pattern += strings.Trim(s.Value, `"`)
		}
		return true
	})
	if err != nil || !found || pattern == "" {
		t.Fatalf("%s has no constant alone: %v", file, err)
	}
	return pattern
}

// Each part of a suite is run with the patterns that choose it, and together they are all of it.
func TestParts(t *testing.T) {
	for _, tt := range []struct {
		suite              Suite
		all, beside, alone string
	}{
		{Suite{}, "", "", "none"},
		{Suite{Run: "a|b"}, "-test.run a|b", "-test.run a|b", "none"},
		{Suite{Alone: "b"}, "", "-test.skip b", "-test.run b"},
		{Suite{Run: "a|b", Alone: "b"}, "-test.run a|b", "-test.run a|b -test.skip b", "-test.run b"},
	} {
		for part, want := range map[Part]string{All: tt.all, Beside: tt.beside, Only: tt.alone} {
			args, ok := tt.suite.patterns(part)
			if got := strings.Join(args, " "); ok && got != want || !ok && want != "none" {
				t.Errorf("%+v, part %q: %q, %v; want %q", tt.suite, part, got, ok, want)
			}
		}
	}
}
