package topology

import (
	"encoding/xml"
	"path/filepath"
	"strings"
	"testing"
)

// The drawings of the examples; a line for each site, tunnel, circuit and pseudowire.
func TestGraph(t *testing.T) {
	for _, file := range glob(t, "../../examples/*.yaml") {
		topology, diagnostics := parseFile(t, file)
		if topology == nil {
			t.Fatal(diagnostics)
		}
		base := "testdata/graph/" + strings.TrimSuffix(filepath.Base(file), ".yaml")
		g := topology.Graph()
		golden(t, base+".mermaid", g.Mermaid())
		golden(t, base+".dot", g.Dot())
		drawing := g.SVG()
		golden(t, base+".svg", drawing)
		if err := xml.Unmarshal([]byte(drawing), new(struct{})); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
}
