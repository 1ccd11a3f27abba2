package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// writeYAML writes the JSON form of v as one block style YAML 1.2 document, the
// members in the order of v's fields. Strings that any YAML version could take
// for something else are quoted.
func writeYAML(w io.Writer, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	node, err := readNode(dec)
	if err != nil {
		return err
	}
	var b strings.Builder
	node.write(&b, 0, atStart)
	_, err = io.WriteString(w, b.String())
	return err
}

// node is a JSON value that keeps the order of members.
type node struct {
	scalar string
	object []member
	array  []node
	kind   json.Delim // '{', '[' or 0 for a scalar
}

type member struct {
	key   string
	value node
}

// readNode reads the next value of dec.
func readNode(dec *json.Decoder) (node, error) {
	tok, err := dec.Token()
	if err != nil {
		return node{}, err
	}
	switch t := tok.(type) {
	case json.Delim:
		n := node{kind: t}
		for dec.More() {
			if t == '{' {
				key, err := dec.Token()
				if err != nil {
					return node{}, err
				}
				value, err := readNode(dec)
				if err != nil {
					return node{}, err
				}
				n.object = append(n.object, member{key: key.(string), value: value})
				continue
			}
			value, err := readNode(dec)
			if err != nil {
				return node{}, err
			}
			n.array = append(n.array, value)
		}
		_, err := dec.Token() // the closing delimiter
		return n, err
	case string:
		return node{scalar: yamlString(t)}, nil
	case nil:
		return node{scalar: "null"}, nil
	}
	return node{scalar: fmt.Sprint(tok)}, nil // a json.Number or a bool
}

// place says what stands before a node on its line.
type place uint8

const (
	atStart  place = iota // nothing: the document, indented as wanted
	afterKey              // "key:"
	afterBar              // "- "
)

// write appends n with its lines indented by indent spaces.
func (n node) write(b *strings.Builder, indent int, where place) {
	pad := strings.Repeat(" ", indent)
	switch {
	case n.kind == '{' && len(n.object) > 0:
		for i, m := range n.object {
			switch {
			case i == 0 && where == afterKey:
				b.WriteString("\n" + pad)
			case i == 0 && where == afterBar:
			default:
				b.WriteString(pad)
			}
			b.WriteString(yamlString(m.key) + ":")
			m.value.write(b, indent+2, afterKey)
		}
		return
	case n.kind == '[' && len(n.array) > 0:
		for i, item := range n.array {
			switch {
			case i == 0 && where == afterKey:
				b.WriteString("\n" + pad)
			case i == 0 && where == afterBar:
			default:
				b.WriteString(pad)
			}
			b.WriteString("- ")
			item.write(b, indent+2, afterBar)
		}
		return
	}
	text := n.scalar
	switch n.kind {
	case '{':
		text = "{}"
	case '[':
		text = "[]"
	}
	if where == afterKey {
		b.WriteString(" ")
	}
	b.WriteString(text + "\n")
}

// yamlString is s as a plain scalar where every YAML version reads it as this
// string, else double-quoted.
func yamlString(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == 0xfeff || r == utf8.RuneError || !unicode.IsPrint(r):
			b.WriteString(escaped(r))
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}

// escaped is r as YAML, JSON and Go write it inside double quotes; \U is not
// JSON's.
func escaped(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08X`, r)
	}
	if r < 0x80 {
		return fmt.Sprintf(`\x%02X`, r)
	}
	return fmt.Sprintf(`\u%04X`, r)
}

// isPlain is narrow on purpose: words of letters, digits and a few signs, with
// single spaces between them, that begin with a letter and are no YAML 1.1 word.
func isPlain(s string) bool {
	switch strings.ToLower(s) {
	case "", "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i == 0:
			return false
		case c >= '0' && c <= '9', strings.IndexByte("-_./+()", c) >= 0:
		case c == ' ' && s[i-1] != ' ' && i+1 < len(s):
		default:
			return false
		}
	}
	return true
}
