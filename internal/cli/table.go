package cli

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
)

// SGR sequences. Each is as long as every other, so that text/tabwriter, which
// counts their octets as width, still aligns a column in which every cell has one.
const (
	plain  = "\x1b[39m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// paint is the colour of a state or a severity.
func paint(state string) string {
	switch state {
	case "established", "up", "healthy", "add", "repaired":
		return green
	case "connecting", "signalling", "standby", "warning", "change":
		return yellow
	case "down", "degraded", "error", "remove", "failed", "contested":
		return red
	}
	return plain
}

// coloured is text in the colour of state if on.
func coloured(on bool, state, text string) string {
	if !on {
		return text
	}
	return paint(state) + text + reset
}

// table is rows of cells under a header.
type table struct {
	header []string
	rows   [][]string
	// state is the column that has a colour; -1 for none.
	state int
}

// write prints the table, aligned, without trailing spaces.
func (t table) write(w io.Writer, colour bool) error {
	var buf bytes.Buffer
	tw := tabwriter.NewWriter(&buf, 0, 8, 2, ' ', 0)
	line := func(cells []string) {
		for i, cell := range cells {
			if i > 0 {
				io.WriteString(tw, "\t")
			}
			// A tab, a line feed or an escape from elsewhere must not break the table.
			cell = printable(cell)
			if i == t.state {
				cell = coloured(colour, cell, cell)
			}
			io.WriteString(tw, cell)
		}
		io.WriteString(tw, "\n")
	}
	if len(t.header) > 0 {
		line(t.header)
	}
	for _, row := range t.rows {
		line(row)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for l := range strings.Lines(buf.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(l, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printable is s with control characters, which a peer may have sent in a reason
// or a host name, made visible.
func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			b.WriteString(escaped(r))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// isControl covers C0, DEL, C1, and what turns the direction of writing.
func isControl(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
