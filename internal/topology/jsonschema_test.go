package topology

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The schemas in configs/ are those of the parser.
func TestJSONSchemasAreFresh(t *testing.T) {
	golden(t, "../../configs/topology.schema.json", string(JSONSchema()))
	golden(t, "../../configs/config.schema.json", string(ConfigJSONSchema()))
}

func compileSchema(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plain is a YAML tree as other readers of YAML 1.2 see it, and the schema with them.
func plain(n *node) any {
	switch {
	case n.kind == mappingNode:
		m := map[string]any{}
		for _, e := range n.entries {
			m[e.key.text] = plain(e.value)
		}
		return m
	case n.kind == listNode:
		l := []any{}
		for _, item := range n.items {
			l = append(l, plain(item))
		}
		return l
	case n.null:
		return nil
	case n.quoted:
		return n.text
	case n.text == "true" || n.text == "false":
		return n.text == "true"
	case json.Valid([]byte(n.text)) && n.number:
		return json.Number(n.text)
	}
	return n.text
}

func tree(t *testing.T, file string) (value any, diagnostics Diagnostics) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, text, ok := newSource(filepath.Base(file), data)
	if !ok {
		return nil, s.finish()
	}
	root := s.parseTree(text)
	if root == nil {
		return nil, s.finish()
	}
	return plain(root), s.finish()
}

// What the parser takes, the schema does too.
func TestJSONSchemaTakesWhatTheParserTakes(t *testing.T) {
	schema := compileSchema(t, JSONSchema())
	files := slices.Concat(glob(t, "testdata/good/*.yaml"), glob(t, "testdata/warnings/*.yaml"), glob(t, "../../examples/*.yaml"))
	for _, file := range files {
		if value, _ := tree(t, file); value != nil {
			if err := schema.Validate(value); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	config := compileSchema(t, ConfigJSONSchema())
	value, _ := tree(t, "../../configs/pwd.yaml")
	if err := config.Validate(value); err != nil {
		t.Errorf("configs/pwd.yaml: %v", err)
	}
}

// What the parser refuses for the form of a single value, the schema does too; but not what a
// pattern cannot say.
func TestJSONSchemaRefusesWhatTheParserRefuses(t *testing.T) {
	schema := compileSchema(t, JSONSchema())
	codes := []Code{CodeUnknownKey, CodeMissingKey, CodeWrongKind, CodeNotOneOf, CodeNumber, CodeName,
		CodeAddress, CodeDuration, CodeRate, CodeInterface, CodeNoValue, CodeVersion, CodeCount, CodeRouterID, CodeEndID}
	unsayable := []string{
		// addresses and times by their value
		"address-broadcast", "address-has-a-port", "address-link-local", "address-loopback", "address-mapped", "address-multicast",
		"address-unspecified", "router-id-zero", "hello-too-long", "hello-too-short",
		// what the file spells and the value does not show
		"end-id-octal",
		// keys that depend on others
		"address-missing", "attach-no-keys", "attach-nothing", "tunnel-missing", "tunnels-without-purpose", "sites-empty", "underlays-empty",
		"pcp-word-in-list", "dscp-copy-in-list", "vlan-range-backwards",
	}
	refused := 0
	for _, file := range glob(t, "testdata/broken/*.yaml") {
		_, diagnostics := parseFile(t, file)
		if !slices.ContainsFunc(diagnostics, func(d Diagnostic) bool { return slices.Contains(codes, d.Code) }) {
			continue
		}
		value, _ := tree(t, file)
		if value == nil {
			continue // no YAML
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		err := schema.Validate(value)
		if known := slices.Contains(unsayable, name); err == nil != known {
			t.Errorf("%s: the schema says %v; listed as what it cannot say: %v", name, err, known)
		}
		refused++
	}
	if refused < 40 {
		t.Errorf("only %d broken topologies were looked at", refused)
	}
}
