package topology

import (
	"fmt"
	"slices"
	"strings"
)

// A shape says what a value of the file may be. The shapes in schema.go are the
// one list of keys there is: the parser reads by it, the reference page is
// written from it.
type shape interface {
	// describe is the shape in a few words, for messages and the reference.
	describe() string
	// read takes the node at a path to a value, nil if it was faulty and has
	// been said to be.
	read(s *source, path string, n *node) any
}

// scalar is a single value.
type scalar struct {
	words string
	parse func(s *source, at spot, n *node) (any, bool)
	// form is what the JSON Schema says of it.
	form form
	// usable are the words that it can be, for the reference.
	usable []string
}

func (k scalar) describe() string { return k.words }

func (k scalar) read(s *source, path string, n *node) any {
	at := n.at(path)
	if n.kind != scalarNode {
		help := "write " + k.words + " after the colon"
		if n.kind == listNode {
			help = "write one value, without brackets"
		}
		s.fault(CodeWrongKind, at, fmt.Sprintf("this is %s, but has to be %s", n.kind, k.words), help)
		return nil
	}
	if n.null {
		s.fault(CodeNoValue, at, "there is no value", "write "+k.words+", or remove the key")
		return nil
	}
	v, ok := k.parse(s, at, n)
	if !ok {
		return nil
	}
	return v
}

// at is the node's spot, as the value of a path.
func (n *node) at(path string) spot { return spot{path, n.line, n.column} }

// list is a sequence of values; it reads to a []item.
type list struct {
	of shape
	// least and most bound the number of entries; most 0 is no bound.
	least, most int
	// orOne allows a single value without brackets.
	orOne bool
	// unique forbids an entry that is there already.
	unique bool
}

// item is one entry of a list.
type item struct {
	at    spot
	value any
}

func (l list) describe() string {
	if l.orOne {
		return l.of.describe() + ", or a list of them"
	}
	return "a list, each entry " + l.of.describe()
}

func (l list) read(s *source, path string, n *node) any {
	if n.kind != listNode {
		if l.orOne {
			if v := l.of.read(s, path, n); v != nil {
				return []item{{n.at(path), v}}
			}
			return nil
		}
		help := "write it in brackets: [a, b]"
		if n.kind == scalarNode && !n.null {
			help = "write it in brackets: [" + printable(n.text) + "]"
		}
		s.fault(CodeWrongKind, n.at(path), fmt.Sprintf("this is %s, but has to be %s", n.kind, l.describe()), help)
		return nil
	}
	if count := len(n.items); count < l.least || (l.most > 0 && count > l.most) {
		wanted := fmt.Sprintf("at least %d", l.least)
		more := "add to it"
		if count > l.least {
			more = "remove some"
			wanted = fmt.Sprintf("at most %d", l.most)
		}
		s.fault(CodeCount, n.at(path), fmt.Sprintf("the list has %s; it has to have %s", counted(count, "entry", "entries"), wanted), more)
		return nil
	}
	items, whole := []item{}, true
	for i, child := range n.items {
		if s.full() {
			return nil
		}
		at := child.at(fmt.Sprintf("%s[%d]", path, i))
		v := l.of.read(s, at.path, child)
		if v == nil {
			whole = false
			continue
		}
		items = append(items, item{at, v})
	}
	if l.unique && !distinct(s, items) || !whole {
		return nil
	}
	return items
}

// distinct finds entries that are in the list twice.
func distinct(s *source, items []item) bool {
	first, ok := map[any]spot{}, true
	for _, it := range items {
		if other, twice := first[it.value]; twice {
			s.clash(CodeDuplicateItem, it.at, fmt.Sprintf("%v is in the list twice", it.value), other, "first used here", "remove one of them")
			ok = false
			continue
		}
		first[it.value] = it.at
	}
	return ok
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// table is a mapping from names that the file chooses to values of one shape;
// it reads to a []row in the order of the file. It may be empty.
type table struct {
	// key is as "SITE": what the keys are, in the reference's paths.
	key string
	// name checks a key.
	name scalar
	of   shape
}

// row is one entry of a table; its value is nil if it was faulty, and named is
// not set if its key was.
type row struct {
	name  string
	named bool
	at    spot
	value any
}

func (t table) describe() string { return "a mapping, a key for each " + strings.ToLower(t.key) }

func (t table) read(s *source, path string, n *node) any {
	if n.null {
		return []row{}
	}
	if n.kind != mappingNode {
		s.fault(CodeWrongKind, n.at(path), fmt.Sprintf("this is %s, but has to be %s", n.kind, t.describe()), "write the "+strings.ToLower(t.key)+"'s name and a colon, and below that its keys")
		return nil
	}
	rows := []row{}
	for _, e := range n.entries {
		if s.full() {
			return nil
		}
		at := e.key.at(joined(path, e.key.text))
		_, ok := t.name.parse(s, at, e.key)
		r := row{name: e.key.text, named: ok, at: at}
		if o, is := t.of.(*object); is {
			r.value = o.readAt(s, at, e.value)
		} else {
			r.value = t.of.read(s, at.path, e.value)
		}
		rows = append(rows, r)
	}
	for range n.refused {
		rows = append(rows, row{})
	}
	return rows
}

// object is a mapping with known keys; it reads to a *record.
type object struct {
	// name is what the reference calls it, where is the path to it.
	name, where string
	fields      []field
}

// field is one key of an object.
type field struct {
	key      string
	shape    shape
	required bool
	// standard is what holds where the key is absent, in words.
	standard string
	about    string
}

// record is an object that was read. It is damaged if keys of it were left out,
// so that nothing can be said about those that seem to be missing.
type record struct {
	at      spot
	values  map[string]value
	damaged bool
}

type value struct {
	// key and at are the spots of the key and of its value.
	key, at spot
	value   any
}

func (o *object) describe() string { return "a mapping with keys like " + o.fields[0].key }

func (o *object) read(s *source, path string, n *node) any { return o.readAt(s, n.at(path), n) }

// readAt reads the object; at is where missing keys are reported: its name, if it has one.
func (o *object) readAt(s *source, at spot, n *node) any {
	if n.kind != mappingNode && !n.null {
		s.fault(CodeWrongKind, n.at(at.path), fmt.Sprintf("this is %s, but has to be %s", n.kind, o.describe()), "keys here: "+listed(o.keys()))
		return nil
	}
	rec := &record{at: at, values: map[string]value{}, damaged: n.refused > 0}
	for _, e := range n.entries {
		if s.full() {
			return nil
		}
		key := e.key.at(joined(at.path, e.key.text))
		i := slices.IndexFunc(o.fields, func(f field) bool { return f.key == e.key.text })
		if i < 0 {
			meant := o.unknown(s, key, e)
			if _, ok := rec.values[meant]; !ok {
				// The key that was meant is there, with an unknown value.
				rec.values[meant] = value{key: key, at: key}
			}
			continue
		}
		f := o.fields[i]
		v := value{key: key, at: e.value.at(key.path)}
		if e.value.null {
			// A value that is not there has no place worth showing.
			n := *e.value
			n.line, n.column = key.line, key.column
			v.at = key
			v.value = f.shape.read(s, key.path, &n)
		} else {
			v.value = f.shape.read(s, key.path, e.value)
		}
		rec.values[f.key] = v
	}
	for _, f := range o.fields {
		if _, ok := rec.values[f.key]; f.required && !ok && !rec.damaged {
			s.fault(CodeMissingKey, at, fmt.Sprintf("the key %s is missing", f.key), fmt.Sprintf("add `%s:` with %s", f.key, f.shape.describe()))
		}
	}
	return rec
}

// unknown reports a key that the object does not have, and returns the one that
// was probably meant.
func (o *object) unknown(s *source, at spot, e entry) (meant string) {
	help := "keys here: " + listed(o.keys())
	before, after, hasColon := strings.Cut(e.key.text, ":")
	near, isNear := nearest(e.key.text, o.keys())
	switch {
	case hasColon && e.value.null && slices.Contains(o.keys(), before):
		// {vlan:100} is the key "vlan:100" without a value, and {vlan:} the key "vlan:".
		at.path = strings.TrimSuffix(at.path, ":"+after)
		if after == "" {
			s.fault(CodeNoValue, at, "there is no value", "write one after the colon and a space, or remove the key")
			return before
		}
		s.fault(CodeColon, at, "a space is missing after the colon", fmt.Sprintf("write `%s: %s`", before, after))
		return before
	case isNear:
		help = "did you mean " + near + "? (" + help + ")"
	default:
		if elsewhere := placesOf(e.key.text); len(elsewhere) > 0 {
			help = fmt.Sprintf("%s belongs under %s; %s", printable(e.key.text), strings.Join(elsewhere, " or "), help)
		}
	}
	s.fault(CodeUnknownKey, at, "unknown key "+printable(e.key.text), help)
	return near
}

func (o *object) keys() []string {
	var keys []string
	for _, f := range o.fields {
		keys = append(keys, f.key)
	}
	return keys
}

// has reports whether the key is there, faulty or not. In what was no object there
// are none.
func (r *record) has(key string) bool {
	if r == nil {
		return false
	}
	_, ok := r.values[key]
	return ok
}

// get is a key's value and where it is. ok is false where the key is absent or
// its value was faulty; then v is the zero value.
func get[T any](r *record, key string) (v T, at spot, ok bool) {
	if r == nil {
		return v, at, false
	}
	f := r.values[key]
	v, ok = f.value.(T)
	return v, f.at, ok
}

// rows are a table's; none where the key is absent or faulty.
func rows(r *record, key string) []row {
	v, _, _ := get[[]row](r, key)
	return v
}
