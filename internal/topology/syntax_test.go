package topology

import (
	"fmt"
	"strings"
	"testing"
)

// What stands before a mistake, and is none, is not taken for it.
func TestExplainSyntax(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"after a block scalar", "a: |\n  b: c: d\n  \t'e\nf: g: h\n", "4:5 PW0015 a second colon in one line"},
		{"after a folded scalar in a list", "a:\n  - >\n    x: y: z\n  - b: @\n", "4:8 PW0005 text without quotes cannot begin with @"},
		{"after text in two lines", "a: b\n  c\nd: [e\n", "3:4 PW0014 this [ is not closed"},
		{"after brackets in three lines", "a: {\n  b: [c,\n      d], e: 'f' }\ng: h: i\n", "4:5 PW0015 a second colon in one line"},
		{"after a list at the column of its key", "a:\n- b\n- c: d\n  e: f\ng\n", "5:1 PW0015 a colon is missing after g"},
		{"after comments with everything in them", "# {[\"'\n#\ta: b: c\na: b # c: d: {\n  # @\ne: *f\n", "5:4 PW0010 there is no anchor &f above"},
		{"after quotes with everything in them", "a: \"{: }\\\" '\"\nb: '[: ''\"'\nc: }\n", "3:4 PW0014 this } closes nothing"},
		{"after quoted keys", "\"a: b\": c\n'd' : e\nf: \"g\" \"h\"\n", "3:8 PW0014 there is text after the closing quote"},
		{"after anchors", "a: &b {c: &d e}\nf: *b\ng: *d\nh: *i\n", "4:4 PW0010 there is no anchor &i above"},
		{"in a second document", "a: b\n---\nc\nd: e\n", "3:1 PW0015 a colon is missing after c"},
		{"in braces over lines", "a: {b: c,\n    d: e\nf: g\n", "1:4 PW0014 this { is not closed"},
		{"in braces without a comma", "a: {b: c,\n    d: e\n    f: g}\n", "3:5 PW0005 a comma is missing before f"},
		{"a key less indented than the first", "  a: b\nc: d\n", "2:1 PW0005 this is not YAML: did not find expected <document start>"},
		{"a list entry after a value", "a: b\n  - c\n  - d: e\n", "2:3 PW0007 this line is indented deeper than the one above, which has a value already"},
		{"an entry of another column", "a:\n    - b: c\n  - d: e\n", "3:3 PW0007 this line is indented like none above it"},
		{"a dedent between two levels", "a:\n  b:\n      c: d\n    e: f\n", "4:5 PW0007 this line is indented like none above it"},
		{"a directive alone", "%YAML 1.1\na: b\n", "2:1 PW0005 this is not YAML: mapping values are not allowed in this context"},
		{"wide characters before it", "a: {\"日本\": é, ö: @}\n", "1:17 PW0005 text without quotes cannot begin with @"},
	} {
		t.Run(test.name, func(t *testing.T) {
			topology, diagnostics := Parse("x", []byte(test.text))
			if topology != nil || len(diagnostics) != 1 {
				t.Fatalf("got %v,\n%s", topology, diagnostics)
			}
			d := diagnostics[0]
			if got := fmt.Sprintf("%d:%d %s %s", d.Line, d.Column, d.Code, d.Message); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A topology of a thousand pseudowires.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: large}\nsites:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.2}\ntunnels:\n  t: {sites: [a, b]}\npseudowires:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  pw%d:\n    tunnel: t\n    attach:\n      a: {interface: eth1, vlan: %d}\n      b: {interface: eth1, vlan: %d}\n", i, i+1, i+2)
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		topology, diagnostics := Parse("large.yaml", data)
		if len(diagnostics) > 0 {
			b.Fatal(diagnostics)
		}
		if l, _ := topology.Local("a"); len(l.Pseudowires) != 1000 {
			b.Fatal(len(l.Pseudowires))
		}
	}
}
