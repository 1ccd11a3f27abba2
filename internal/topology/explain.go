package topology

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Explanation is what there is to know of one key of a file.
type Explanation struct {
	// Path is the way to it, names that the file chooses in capitals.
	Path string `json:"path"`
	// Type is what its value can be.
	Type     string `json:"type"`
	Required bool   `json:"required"`
	// Default is what holds where it is absent, in words; empty if nothing is said.
	Default string `json:"default,omitempty"`
	About   string `json:"about"`
	// Example is the key in its place, with a value; empty for the file itself.
	Example string `json:"example,omitempty"`
	// Keys are those below it.
	Keys []ExplainedKey `json:"keys,omitempty"`
}

// ExplainedKey is a key below the one explained.
type ExplainedKey struct {
	Key      string `json:"key"`
	Type     string `json:"type"`
	Required bool   `json:"required"`
	About    string `json:"about"`
}

// UnknownPathError says that a file has no such key.
type UnknownPathError struct {
	// At is what there is of the path, Key what there is not below it.
	At, Key string
	// Suggestion is what was probably meant, a whole path; Known are the keys there.
	Suggestion string
	Known      []string
}

func (e *UnknownPathError) Error() string {
	where := "the file"
	if e.At != "" {
		where = e.At
	}
	return fmt.Sprintf("%s has no key %s", where, printable(e.Key))
}

// Help is what to do.
func (e *UnknownPathError) Help() string {
	if e.Suggestion != "" {
		return "did you mean " + e.Suggestion + "?"
	}
	if len(e.Known) == 0 {
		return "there is nothing below " + e.At
	}
	return "keys there: " + strings.Join(e.Known, ", ")
}

// placeholders are names for what the file chooses.
var placeholders = map[string]string{
	"SITE": "dc1", "TUNNEL": "gold", "PSEUDOWIRE": "tenant-a", "NETWORK": "storage", "CLASS": "voice", "UNDERLAY": "wan1", "BRIDGE": "br-lan", "PAIR": "dc1-dc2",
}

// samples are values of keys, for those whose words do not give one.
var samples = map[string]string{
	"apiVersion": "pwd/v1", "name": "two-sites", "address": "192.0.2.1", "router-id": "192.0.2.1", "rate": "100mbit", "ceiling": "1gbit", "police": "100mbit",
	"host-name": "cisco.example", "ports": "[eth1]", "link-local": "[lacp, lldp]", "dscp": "ef", "priority": "1", "queue": "1000",
	"sites": "[dc1, dc2]", "hello": "10s", "secret-file": "gold.secret", "class": "voice", "tunnel": "gold", "tunnels": "[gold, silver]", "active": "gold",
	"standby": "[silver]", "hold": "30s", "end-id": "7", "agi": `"tenants"`, "cookie": "8", "mtu": "1500", "max-macs": "1000", "hub": "dc1",
	"broadcast": "1000pps", "multicast": "1000pps", "unknown-unicast": "1000pps", "bridge": "br-lan", "interface": "eth1", "vlan": "100",
	"vlans": "[100, 200-210]", "inner-vlan": "10", "pcp": "keep", "steer.pcp": "[5, 6, 7]", "steer": "[{tunnel: gold}]", "connection-id": "10", "port": "5000", "session-id": "100",
	"cookie-file": "lan.cookie", "site": "dc1", "topology": "/etc/pwd/topology.yaml", "run-dir": "/run/pwd", "state-dir": "/var/lib/pwd",
	"bpf-dir": "/sys/fs/bpf/pwd", "metrics": "127.0.0.1:9705", "retransmit": "1s", "max-retransmits": "10", "owner": "pwd", "group": "netops",
	"users": "[alice]", "groups": "[netadmin]",
}

// sampleOf is a value for a key, in one line.
func sampleOf(key string, s shape) string {
	switch s := s.(type) {
	case *object:
		var parts []string
		for _, f := range s.fields {
			if f.required {
				parts = append(parts, f.key+": "+sampleOf(f.key, f.shape))
			}
		}
		if len(parts) == 0 {
			f := s.fields[0]
			parts = []string{f.key + ": " + sampleOf(f.key, f.shape)}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case table:
		name := placeholders[s.key]
		value := sampleOf(strings.ToLower(s.key), s.of)
		if _, is := s.of.(*object); !is {
			value = placeholders[strings.ToUpper(key)]
		}
		return "{" + name + ": " + value + "}"
	case scalar:
		if s.words == cookieText.words {
			return `"0123456789abcdef"`
		}
		if len(s.usable) > 0 {
			return s.usable[0]
		}
		if form, ok := s.form["const"].(string); ok {
			return form
		}
		if sample := samples[key]; sample != "" {
			return sample
		}
		return sampleIn(s.words)
	case list:
		if sample := samples[key]; sample != "" {
			return sample
		}
		return "[" + sampleOf(key, s.of) + "]"
	}
	return samples[key]
}

// inWords are the ways in which the words of a shape have an example.
var inWords = regexp.MustCompile(`, as (\S+?)(?:,|$| )|^a (?:number|time) from (\S+) to `)

// sampleIn is the example that is in the words of a shape, a name if none is.
func sampleIn(words string) string {
	m := inWords.FindStringSubmatch(words)
	if m == nil {
		return "x"
	}
	return m[1] + m[2]
}

// Explain tells of a key of the topology, or with config of the daemon's configuration. The path
// is as `pseudowires.attach.vlan`; names that the file chooses may be in it or left out. The
// empty path is the file. The error is an *UnknownPathError.
func Explain(config bool, path string) (*Explanation, error) {
	e := &Explanation{Type: "a mapping", About: "The topology file: all sites, the tunnels between them and what those carry."}
	var at shape = topologyObject
	if config {
		at, e.About = configObject, "The daemon's own configuration, for `pwd --config FILE`."
	}
	var way, example []string
	words := strings.Split(strings.Trim(path, "."), ".")
	if path == "" {
		words = nil
	}
	for len(words) > 0 {
		word := words[0]
		switch s := at.(type) {
		case table:
			way, example = append(way, s.key), append(example, placeholders[s.key])
			o, is := s.of.(*object)
			if !is || word == s.key || o.field(word) == nil && (len(words) > 1 || s.name.names(word)) && !o.near(word, len(words)) {
				words = words[1:]
			}
			at = s.of
			e.Type, e.Default, e.Required = typeWords(s.of), "", false
			if is {
				e.About = "One " + strings.ToLower(s.key) + ": " + e.About
			}
		case *object:
			f := s.field(word)
			if f == nil {
				return nil, s.unknownPath(strings.Join(way, "."), word)
			}
			way, example, words = append(way, word), append(example, word), words[1:]
			at = f.shape
			e.Type, e.Default, e.Required, e.About = typeWords(f.shape), f.standard, f.required, f.about
			if l, is := at.(list); is {
				if o, is := l.of.(*object); is && len(words) > 0 {
					at = o
					example[len(example)-1] += "[]"
				}
			}
		default:
			return nil, &UnknownPathError{At: strings.Join(way, "."), Key: word}
		}
	}
	e.Path = strings.Join(way, ".")
	e.Keys = keysOf(at)
	if len(example) > 0 {
		key := way[len(way)-1]
		if of := strings.Join(way[max(0, len(way)-2):], "."); samples[of] != "" {
			key = of
		}
		e.Example = exampleOf(example, sampleOf(key, at))
	}
	return e, nil
}

// names says whether a word can be a name that the file chooses.
func (k scalar) names(word string) bool {
	_, ok := k.parse(&source{}, spot{}, &node{kind: scalarNode, text: word})
	return ok
}

// near says that a word is more likely a misspelt key of the object than a name: nothing
// follows it that could be a key.
func (o *object) near(word string, left int) bool {
	_, is := nearest(word, o.keys())
	return is && left == 1
}

func (o *object) field(key string) *field {
	if i := slices.IndexFunc(o.fields, func(f field) bool { return f.key == key }); i >= 0 {
		return &o.fields[i]
	}
	return nil
}

func (o *object) unknownPath(at, key string) *UnknownPathError {
	e := &UnknownPathError{At: at, Key: key, Known: o.keys()}
	if near, ok := nearest(key, o.keys()); ok {
		e.Suggestion = joined(at, near)
	} else if places := placesOf(key); len(places) > 0 {
		e.Suggestion = joined(places[0], key)
	}
	return e
}

// keysOf are the keys below a value.
func keysOf(s shape) []ExplainedKey {
	switch x := s.(type) {
	case table:
		return keysOf(x.of)
	case list:
		return keysOf(x.of)
	case *object:
		var keys []ExplainedKey
		for _, f := range x.fields {
			keys = append(keys, ExplainedKey{f.key, typeWords(f.shape), f.required, f.about})
		}
		return keys
	}
	return nil
}

// typeWords is the shape in words.
func typeWords(s shape) string {
	switch x := s.(type) {
	case scalar:
		if len(x.usable) > 0 {
			return strings.Join(x.usable, ", ")
		}
	case *object:
		return "a mapping"
	}
	return s.describe()
}

// exampleOf is a value at its place. What is below a word with brackets is in a list.
func exampleOf(way []string, value string) string {
	var b strings.Builder
	for i, word := range way {
		dash := ""
		if i > 0 && strings.HasSuffix(way[i-1], "[]") {
			dash = "- "
		}
		fmt.Fprintf(&b, "%s%s%s:", strings.Repeat("  ", i), dash, strings.TrimSuffix(word, "[]"))
		if i == len(way)-1 && value != "" {
			b.WriteString(" " + value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Paths are all that Explain can be asked for, names that the file chooses left out.
func Paths(config bool) []string {
	var paths []string
	var walk func(s shape, at string)
	walk = func(s shape, at string) {
		switch x := s.(type) {
		case table:
			walk(x.of, at)
		case list:
			walk(x.of, at)
		case *object:
			for _, f := range x.fields {
				path := joined(at, f.key)
				paths = append(paths, path)
				walk(f.shape, path)
			}
		}
	}
	if config {
		walk(configObject, "")
	} else {
		walk(topologyObject, "")
	}
	return paths
}
