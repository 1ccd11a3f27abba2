package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What is between these lines of a document is this program's.
const (
	begin = "<!-- make bench-publish writes from here -->\n"
	end   = "<!-- to here -->\n"
)

// publish puts the results in a folder into the documents below root.
func publish(from, root string) error {
	b, err := os.ReadFile(filepath.Join(from, "bench.json"))
	if err != nil {
		return fmt.Errorf("%w (run `make bench` first)", err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(from, "bench.json"), err)
	}
	if len(r.Kernels) == 0 {
		return fmt.Errorf("%s holds no results", filepath.Join(from, "bench.json"))
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "performance.svg"), []byte(r.svg()), 0o644); err != nil {
		return err
	}
	for file, content := range map[string]string{"docs/performance.md": r.markdown(), "README.md": r.quote()} {
		if err := replace(filepath.Join(root, file), content); err != nil {
			return err
		}
	}
	return nil
}

// quote is what the README says of the result: of one CPU, bridged, and of small packets
// cross-connected as well.
func (r *result) quote() string {
	var chosen []outcome
	for _, o := range r.outcomes() {
		if o.cpus == 1 && (o.of == ebpfUDP || o.measure == udp64) {
			chosen = append(chosen, o)
		}
	}
	var kernels []string
	for _, k := range r.Kernels {
		kernels = append(kernels, k.Kernel)
	}
	return fmt.Sprintf("Measured on %s, on Linux %s:\n\n%s%s", r.Kernels[0].Started.Format("2006-01-02"), strings.Join(kernels, ", "), r.caveat(), outcomeTable(chosen))
}

// replace writes content between the two lines of a document.
func replace(file, content string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(b), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		return fmt.Errorf("%s lacks the lines %q and %q", file, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+strings.TrimRight(content, "\n")+"\n\n"+end+after), 0o644)
}
