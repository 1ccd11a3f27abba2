package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

const (
	// maxDepth bounds nesting; a topology needs six levels.
	maxDepth = 32
	// maxExpansion bounds the values that aliases add to those written out.
	maxExpansion = 10_000
)

// node is one value of the file with its position: what the rest of the package
// sees of YAML.
type node struct {
	kind         nodeKind
	line, column int
	// text of a scalar, quoted if it was written with quotes or as a block.
	text   string
	quoted bool
	// null is a scalar without a value; number one that YAML takes for a number
	// or a date when it is not quoted.
	null, number bool
	entries      []entry
	// refused counts the keys of a mapping that were faulty and left out.
	refused int
	items   []*node
	// size counts the values of the tree, aliases expanded.
	size int
}

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	mappingNode
	listNode
)

// entry is a key of a mapping and its value.
type entry struct{ key, value *node }

// String is the kind in the words of the messages.
func (k nodeKind) String() string {
	switch k {
	case mappingNode:
		return "a mapping"
	case listNode:
		return "a list"
	}
	return "a single value"
}

// parseTree reads the one document of a file, nil if that fails. The YAML
// library fills in yaml.Node and nothing else: decoding into other types is
// where version 3.0.1 panics.
func (s *source) parseTree(text []byte) *node {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := decode(decoder, &document); {
	case errors.Is(err, io.EOF):
		s.fault(CodeEmpty, spot{line: 1, column: 1}, "the file is empty", "start with `apiVersion: pwd/v1`")
		return nil
	case err != nil:
		s.explainSyntax(text, err)
		return nil
	case len(document.Content) != 1:
		s.fault(CodeEmpty, spot{line: 1, column: 1}, "the file is empty", "start with `apiVersion: pwd/v1`")
		return nil
	}
	switch err := decode(decoder, &second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		s.explainSyntax(text, err)
		return nil
	default:
		s.fault(CodeDocuments, spot{line: second.Line, column: second.Column}, "a second YAML document begins here", "keep one document in a file: remove the `---` before it, or split the file")
		return nil
	}
	c := converter{source: s, done: map[*yaml.Node]*node{}, open: map[*yaml.Node]bool{}}
	root := c.convert(document.Content[0], "", 0)
	if c.failed {
		return nil
	}
	if root.null {
		s.fault(CodeEmpty, spot{line: 1, column: 1}, "the file is empty", "start with `apiVersion: pwd/v1`")
		return nil
	}
	return root
}

// decode reads one document and turns a panic of the library into an error.
func decode(d *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML library cannot read this: %v", p)
		}
	}()
	return d.Decode(into)
}

// converter takes the library's nodes to ours and refuses what a topology does
// without. Faults that leave a tree worth looking at do not set failed.
type converter struct {
	*source
	done   map[*yaml.Node]*node
	open   map[*yaml.Node]bool
	added  int
	failed bool
}

// empty stands for a value that was refused.
func empty(y *yaml.Node) *node {
	return &node{line: y.Line, column: y.Column, null: true, size: 1}
}

func (c *converter) convert(y *yaml.Node, path string, depth int) *node {
	if y.Kind == yaml.AliasNode {
		return c.alias(y, path)
	}
	at := spot{path, y.Line, y.Column}
	if depth > maxDepth {
		c.fault(CodeDepth, spot{"", y.Line, y.Column}, fmt.Sprintf("nested more than %d levels deep", maxDepth), "close the brackets, or mend the indentation")
		c.failed = true
		return empty(y)
	}
	if y.Style&yaml.TaggedStyle != 0 {
		c.fault(CodeTag, at, fmt.Sprintf("the YAML tag %s is of no use here", printable(y.Tag)), "remove it; put text in quotes")
	}
	n := &node{line: y.Line, column: y.Column, size: 1}
	c.open[y] = true
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = mappingNode
		c.mapping(n, y, path, depth)
	case yaml.SequenceNode:
		n.kind = listNode
		for i, item := range y.Content {
			child := c.convert(item, fmt.Sprintf("%s[%d]", path, i), depth+1)
			n.items = append(n.items, child)
			n.size += child.size
		}
	default:
		c.scalar(n, y)
	}
	delete(c.open, y)
	c.done[y] = n
	return n
}

// alias is the value of its anchor; the tree shares it.
func (c *converter) alias(y *yaml.Node, path string) *node {
	at := spot{path, y.Line, y.Column}
	if c.open[y.Alias] {
		c.clash(CodeAlias, at, fmt.Sprintf("*%s is inside of what it stands for", y.Value), spot{"", y.Alias.Line, y.Alias.Column}, "the anchor is here", "write the value out")
		c.failed = true
		return empty(y)
	}
	n := c.done[y.Alias]
	if n == nil || c.failed {
		return empty(y)
	}
	if c.added += n.size; c.added > maxExpansion {
		c.fault(CodeAlias, at, fmt.Sprintf("aliases expand to more than %d values", maxExpansion), "write the values out")
		c.failed = true
		return empty(y)
	}
	return n
}

func (c *converter) scalar(n *node, y *yaml.Node) {
	n.text = y.Value
	n.quoted = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if n.quoted {
		return
	}
	switch y.Tag {
	case "!!null":
		n.null = true
	case "!!int", "!!float", "!!timestamp":
		n.number = true
	}
}

// mapping fills in the entries. Of a key that is there twice the first counts.
func (c *converter) mapping(n *node, y *yaml.Node, path string, depth int) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		at := spot{path, k.Line, k.Column}
		if k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			c.fault(CodeKeyKind, at, "a list or a mapping cannot be a key", "text with brackets in it needs quotes")
			n.refused++
			continue
		}
		if k.Tag == "!!merge" {
			c.fault(CodeMergeKey, at, "merge keys (<<) are not supported", "write the keys out, or use an anchor for a whole value: `a: &x {…}`, `b: *x`")
			n.refused++
			continue
		}
		at.path = joined(path, k.Value)
		if other, twice := first[k.Value]; twice {
			c.clash(CodeDuplicateKey, at, fmt.Sprintf("the key %s is there twice", printable(k.Value)), spot{"", other.Line, other.Column}, "first used here", "remove or rename one of them")
			n.refused++
			continue
		}
		first[k.Value] = k
		key := &node{size: 1}
		c.scalar(key, k)
		key.line, key.column = at.line, at.column
		child := c.convert(v, at.path, depth+1)
		n.entries = append(n.entries, entry{key, child})
		n.size += 1 + child.size
	}
}

// joined is the path of a key in the mapping at path.
func joined(path, key string) string {
	key = printable(key)
	if path == "" {
		return key
	}
	return path + "." + key
}
