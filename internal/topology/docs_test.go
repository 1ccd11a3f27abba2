package topology

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The tables of the reference are written from the tables that the parser reads by.
func TestReferenceIsFresh(t *testing.T) {
	const page = "../../docs/topology.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{"codes": codesBlock()}
	for _, o := range append(objects(), configObjects()...) {
		blocks["keys "+o.name] = keysBlock(o)
	}
	text := string(data)
	for name, block := range blocks {
		begin, end := "<!-- "+name+" -->\n", "<!-- end -->\n"
		from := strings.Index(text, begin)
		if from < 0 {
			t.Errorf("%s has no block %q", page, name)
			continue
		}
		from += len(begin)
		length := strings.Index(text[from:], end)
		if length < 0 {
			t.Errorf("the block %q of %s does not end", name, page)
			continue
		}
		text = text[:from] + block + text[from+length:]
	}
	golden(t, page, text)
}

// keysBlock is the table of an object's keys.
func keysBlock(o *object) string {
	var b strings.Builder
	b.WriteString("\n| Key | Value | Default | |\n|---|---|---|---|\n")
	for _, f := range o.fields {
		standard := f.standard
		switch {
		case f.required:
			standard = "required"
		case standard == "":
			standard = "-"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.key, cell(typeCell(f.shape)), cell(standard), cell(f.about))
	}
	b.WriteString("\n")
	return b.String()
}

// typeCell is the shape in words.
func typeCell(s shape) string {
	if k, ok := s.(scalar); ok && len(k.usable) > 0 {
		return "`" + strings.Join(k.usable, "`, `") + "`"
	}
	return s.describe()
}

func codesBlock() string {
	var b strings.Builder
	b.WriteString("\n| Code | Meaning |\n|---|---|\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.code, cell(c.meaning))
	}
	b.WriteString("\n")
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// A key is there once in its object, and the reference says something about it.
func TestSchema(t *testing.T) {
	for _, o := range append(objects(), configObjects()...) {
		seen := map[string]bool{}
		for _, f := range o.fields {
			if seen[f.key] || f.about == "" || f.shape == nil || (f.required && f.standard != "") {
				t.Errorf("%s: key %s is there twice or lacks something: %+v", o.name, f.key, f)
			}
			seen[f.key] = true
			if f.key != "apiVersion" && f.key != strings.ToLower(f.key) {
				t.Errorf("%s: key %s is not in lower case", o.name, f.key)
			}
		}
	}
}
