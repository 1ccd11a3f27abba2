package cli

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestLasted(t *testing.T) {
	for seconds, want := range map[int64]string{
		-5: "0s", 0: "0s", 1: "1s", 59: "59s", 60: "1m", 61: "1m1s", 192: "3m12s", 3599: "59m59s", 3600: "1h", 3601: "1h",
		11520: "3h12m", 86399: "23h59m", 86400: "1d", 86400 + 59*60: "1d", 4*86400 + 3*3600 + 1: "4d3h", 400 * 86400: "400d",
	} {
		if got := lasted(seconds); got != want {
			t.Errorf("%d s: %s, want %s", seconds, got, want)
		}
	}
}

func TestOctets(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1258291: "1.2 MiB",
		1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 1<<30 + 1<<29: "1.5 GiB", 1 << 40: "1.0 TiB", 1 << 50: "1.0 PiB",
		math.MaxUint64: "16.0 EiB",
	} {
		if got := octets(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	at := time.Unix(1000, 0)
	if got := ago(at, at.Add(-90*time.Second)); got != "1m30s" {
		t.Error(got)
	}
	if got := ago(at, time.Time{}); got != "-" {
		t.Error(got)
	}
}

// Block style as people write it; whatever could be read as something else than
// a string is quoted.
func TestYAML(t *testing.T) {
	for _, tt := range []struct{ json, yaml string }{
		{`null`, "null\n"},
		{`true`, "true\n"},
		{`-12`, "-12\n"},
		{`18446744073709551615`, "18446744073709551615\n"},
		{`0.5`, "0.5\n"},
		{`{}`, "{}\n"},
		{`[]`, "[]\n"},
		{`"text"`, "text\n"},
		{`{"b":1,"a":{"c":[]},"d":{}}`, "b: 1\na:\n  c: []\nd: {}\n"},
		{`[1,[2,[3]],[],{}]`, "- 1\n- - 2\n  - - 3\n- []\n- {}\n"},
		{`[{"a":1,"b":[{"c":2,"d":3},4]}]`, "- a: 1\n  b:\n    - c: 2\n      d: 3\n    - 4\n"},
		{`{"items":[]}`, "items: []\n"},
		{`{"":{"on":"off"},"1":"1"}`, "\"\":\n  \"on\": \"off\"\n\"1\": \"1\"\n"},
		{`["~","null","Null","NO","y","1e3","0x1f","-","- a","? b","a: b","a #b","#a","!t","&a","*a","{a","a, b","@a","%a","|",">","'"," a","a ","a  b",""]`,
			`- "~"
- "null"
- "Null"
- "NO"
- "y"
- "1e3"
- "0x1f"
- "-"
- "- a"
- "? b"
- "a: b"
- "a #b"
- "#a"
- "!t"
- "&a"
- "*a"
- "{a"
- "a, b"
- "@a"
- "%a"
- "|"
- ">"
- "'"
- " a"
- "a "
- "a  b"
- ""
`},
		{`["a b","br-lan vlan 100","pwd 0.1.0","a/b","waiting for dc2"]`, "- a b\n- br-lan vlan 100\n- pwd 0.1.0\n- a/b\n- waiting for dc2\n"},
		{`"a\"b\\c\nd\te\u0000\u001b\u007f\u0085\u2028\ufeff\ufffeé日𝄞\ue000"`, `"a\"b\\c\nd\te\x00\x1B\x7F\u0085\u2028\uFEFF\uFFFEé日𝄞\uE000"` + "\n"},
		{`"2026-11-22T13:30:00Z"`, "\"2026-11-22T13:30:00Z\"\n"},
		{`"<a> & b"`, "\"<a> & b\"\n"},
	} {
		var b strings.Builder
		if err := writeYAML(&b, json.RawMessage(tt.json)); err != nil || b.String() != tt.yaml {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", tt.json, err, b.String(), tt.yaml)
		}
	}
}

// Double quotes have the same escapes in Go, as far as they are used here; what
// is not quoted holds nothing that YAML gives a meaning.
func FuzzYAMLString(f *testing.F) {
	for _, s := range []string{"", "a b", "no", "A-", "a\x00", "\u2028", "1e3", "𝄞", "\U000e0001", "a\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := yamlString(s)
		if !strings.HasPrefix(got, `"`) {
			if got != s || strings.ContainsAny(s, ":#,[]{}&*!|>'\"%@`\n\t") || strings.TrimSpace(s) != s || strings.TrimLeft(s, "-?") != s {
				t.Errorf("%q is not quoted: %q", s, got)
			}
			return
		}
		back, err := strconv.Unquote(got)
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && (err != nil || back != want) {
			t.Errorf("%q becomes %s becomes %q (%v)", s, got, back, err)
		}
	})
}

// An answer that is printed leaves the terminal as it is, whatever is in it.
func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2J\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		if got := printable(s); strings.ContainsFunc(got, isControl) {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
