package topology

import (
	"bytes"
	"encoding/json"
	"strings"
)

// form is a JSON Schema, draft 7: what editors know best.
type form map[string]any

// The JSON Schemas of the two files, from the shapes that the parser reads by.
// They know the keys and the form of each value, not what values mean together.

// JSONSchema is the topology file's, as indented JSON.
func JSONSchema() []byte { return jsonSchema("topology", topologyObject) }

// ConfigJSONSchema is the configuration file's, as indented JSON.
func ConfigJSONSchema() []byte { return jsonSchema("config", configObject) }

func jsonSchema(name string, root *object) []byte {
	f := former{definitions: form{}}
	top := f.of(root)
	top["$schema"] = "http://json-schema.org/draft-07/schema#"
	top["$id"] = "https://github.com/pwd-project/pwd/configs/" + name + ".schema.json"
	top["title"] = "pwd " + root.name
	top["definitions"] = f.definitions
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(top); err != nil {
		panic("topology: a JSON Schema of literals cannot be encoded: " + err.Error())
	}
	return b.Bytes()
}

// former collects the definitions of objects.
type former struct{ definitions form }

func (f former) of(s shape) form {
	switch s := s.(type) {
	case *object:
		if _, ok := f.definitions[s.name]; !ok {
			f.definitions[s.name] = nil // it may refer to itself
			f.definitions[s.name] = f.object(s)
		}
		return form{"allOf": []form{{"$ref": "#/definitions/" + s.name}}}
	case table:
		out := form{"type": []string{"object", "null"}, "additionalProperties": f.of(s.of)}
		if s.name.form != nil {
			out["propertyNames"] = s.name.form
		}
		return out
	case list:
		out := form{"type": "array", "items": f.of(s.of)}
		if s.least > 0 {
			out["minItems"] = s.least
		}
		if s.most > 0 {
			out["maxItems"] = s.most
		}
		if s.unique {
			out["uniqueItems"] = true
		}
		if s.orOne {
			return form{"anyOf": []form{f.of(s.of), out}}
		}
		return out
	case scalar:
		out := form{}
		for key, value := range s.form {
			out[key] = value
		}
		if len(out) == 0 {
			out["type"] = []string{"string", "number", "boolean"}
		}
		return out
	}
	return form{}
}

func (f former) object(o *object) form {
	properties, required := form{}, []string{}
	for _, field := range o.fields {
		p := f.of(field.shape)
		p["description"] = strings.ReplaceAll(field.about, "`", "")
		p["markdownDescription"] = field.about
		if field.standard != "" {
			p["markdownDescription"] = field.about + "\n\nDefault: " + field.standard
		}
		properties[field.key] = p
		if field.required {
			required = append(required, field.key)
		}
	}
	out := form{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["type"], out["required"] = "object", required
	}
	return out
}

// The forms of scalars, where the type says more than "a single value".

func pattern(p string) form { return form{"type": "string", "pattern": p} }

// spelled are words; YAML readers make booleans of true and false.
func spelled(words []string) form {
	values := []any{}
	for _, w := range words {
		values = append(values, w)
		if w == "true" || w == "false" {
			values = append(values, w == "true")
		}
	}
	return form{"enum": values}
}

func anyOf(forms ...form) form { return form{"anyOf": forms} }

func between(least, most int64) form {
	return form{"type": "integer", "minimum": least, "maximum": most}
}
