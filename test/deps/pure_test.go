package deps

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// clocks are the functions of package time that read a clock or wait for one.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

// impurities of a file: what could start something, block, or read the time.
func impurities(fset *token.FileSet, f *ast.File) (found []string) {
	note := func(n ast.Node, what string) { found = append(found, fset.Position(n.Pos()).String()+": "+what) }
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			note(n, "a go statement")
		case *ast.SelectStmt:
			note(n, "a select statement")
		case *ast.ChanType:
			note(n, "a channel")
		case *ast.SendStmt:
			note(n, "a send")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				note(n, "a receive")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
				note(n, "time."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// The control machine starts nothing, waits for nothing and reads no clock: its owner does.
func TestControlIsPure(t *testing.T) {
	dir := filepath.Join(top(t), "pkg/l2tpv3/control")
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		read++
		for _, i := range f.Imports {
			if i.Path.Value == `"time"` && i.Name != nil {
				t.Errorf("%s: package time under another name hides the clock", fset.Position(i.Pos()))
			}
		}
		for _, found := range impurities(fset, f) {
			t.Error(found)
		}
	}
	if read == 0 {
		t.Errorf("no file in %s", dir)
	}
}

func TestImpurities(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{"go f()", "a go statement"},
		{"<-c", "a receive"},
		{"c <- 1", "a send"},
		{"select {}", "a select statement"},
		{"var c chan int", "a channel"},
		{"_ = time.Now()", "time.Now"},
		{"time.AfterFunc(0, f)", "time.AfterFunc"},
		{"_ = time.Second; _ = t.Now(); x = -y", ""},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package x\nfunc _() { "+tt.body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		switch found := impurities(fset, f); {
		case tt.want == "" && len(found) > 0:
			t.Errorf("%s: %v", tt.body, found)
		case tt.want != "" && (len(found) != 1 || !strings.HasSuffix(found[0], tt.want)):
			t.Errorf("%s: %v, want %s", tt.body, found, tt.want)
		}
	}
}
