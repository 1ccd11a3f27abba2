package cli_test

import (
	"os"
	"testing"
)

func TestGraph(t *testing.T) {
	for format, file := range map[string]string{"": "two-sites.mermaid", " -o mermaid": "two-sites.mermaid", " -o dot": "two-sites.dot", " -o svg": "two-sites.svg"} {
		text, err := os.ReadFile("../topology/testdata/graph/" + file)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "/nonexistent/pwd.sock", command{args: "graph -f ../../examples/two-sites.yaml" + format}, want{stdout: string(text)})
	}
}
