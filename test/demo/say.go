package main

import (
	"fmt"
	"strings"
	"time"
)

// say writes a line, indented; what it tells of has happened and was checked.
func say(format string, args ...any) {
	fmt.Printf("  "+format+"\n", args...)
}

func heading(title string) {
	fmt.Printf("\n%s\n", title)
}

// quote shows another program's output as it is.
func quote(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Print("  | " + strings.TrimRight(line, "\n") + "\n")
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }

func gigabits(bitsPerSecond float64) string { return fmt.Sprintf("%.2f Gbit/s", bitsPerSecond/1e9) }

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
