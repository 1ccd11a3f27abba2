package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// No frame is dropped without being counted: where a program says that one is, it has just
// counted it, or handed it to what delivers in order.
func TestDropsAreCounted(t *testing.T) {
	sources, err := filepath.Glob("*.[ch]")
	if err != nil || len(sources) == 0 {
		t.Fatalf("sources %v, %v", sources, err)
	}
	drops := 0
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if !strings.Contains(line, "TC_ACT_SHOT") {
				continue
			}
			drops++
			const near = 5
			before := lines[max(0, i-near) : i+1]
			// Not those of another function.
			if end := slices.Index(before, "}"); end >= 0 {
				before = before[end:]
			}
			counts := slices.ContainsFunc(before, func(l string) bool {
				return strings.Contains(l, "count") || strings.Contains(l, "begin_turn(") || strings.Contains(l, "end_turn(") || strings.Contains(l, "deliver_first(")
			})
			if !counts {
				t.Errorf("%s:%d: a frame is dropped and not counted", name, i+1)
			}
		}
	}
	if drops < 10 {
		t.Errorf("only %d drops found", drops)
	}
}
