package topology

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Severity says whether a diagnostic stands in the way.
type Severity string

const (
	// SeverityError makes a file unusable.
	SeverityError Severity = "error"
	// SeverityWarning is worth reading; the file can be used.
	SeverityWarning Severity = "warning"
)

// Place is a position in a file and the line that it is in.
type Place struct {
	File string
	// Line and Column count from 1, Column in characters.
	Line, Column int
	// Source is the line's text, made printable; of a very long line the part
	// around Column. Caret is the position of Column in Source, from 1.
	Source string
	Caret  int
}

// String is the place as file:line:column.
func (p Place) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Diagnostic is one fault of a file, at its place, with what to do about it.
type Diagnostic struct {
	Place
	Severity Severity
	// Code names the kind of fault and never changes its meaning.
	Code Code
	// Path leads to the value, as "pseudowires.tenant-a.attach.dc1.vlan"; empty
	// where the fault is not one value's.
	Path string
	// Message says what is wrong, Help how to mend it. Neither ends in a full stop.
	Message, Help string
	// Other is a second place that the fault is about, nil if there is none;
	// OtherMessage says what is there, as "first used here".
	Other        *Place
	OtherMessage string
}

// Text is the diagnostic without its excerpts: path and message.
func (d Diagnostic) Text() string {
	if d.Path == "" {
		return d.Message
	}
	return d.Path + ": " + d.Message
}

// String is the diagnostic as it is shown to people, several lines, the last
// one ended:
//
//	two-sites.yaml:31:35: error: pseudowires.tenant-a.attach.dc1.vlan: 4095 is out of range [PW0106]
//	      dc1: {bridge: br-lan, vlan: 4095}
//	                                  ^
//	help: use a number from 1 to 4094
func (d Diagnostic) String() string {
	var b strings.Builder
	excerpt(&b, d.Place, string(d.Severity), d.Text()+" ["+string(d.Code)+"]")
	if d.Other != nil {
		excerpt(&b, *d.Other, "note", d.OtherMessage)
	}
	if d.Help != "" {
		fmt.Fprintf(&b, "help: %s\n", d.Help)
	}
	return b.String()
}

// excerpt writes one place with a message, the source line and the caret.
func excerpt(b *strings.Builder, p Place, severity, message string) {
	fmt.Fprintf(b, "%s: %s: %s\n", p, severity, message)
	if strings.TrimSpace(p.Source) == "" {
		return
	}
	fmt.Fprintf(b, "%s\n", p.Source)
	// Tabs stay tabs, so that the caret stands where the terminal puts the
	// character above it.
	column := 1
	for _, r := range p.Source {
		if column == p.Caret {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
		column++
	}
	b.WriteString("^\n")
}

// Diagnostics are the faults of one file, in the order of their places.
type Diagnostics []Diagnostic

// HasErrors reports whether one of them is an error.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == SeverityError })
}

// Err is an *InvalidError if one of the diagnostics is an error, else nil.
func (ds Diagnostics) Err() error {
	if !ds.HasErrors() {
		return nil
	}
	return &InvalidError{Diagnostics: ds}
}

// Format writes all of them as they are shown to people, an empty line between
// two. It fails only if w does.
func (ds Diagnostics) Format(w io.Writer) error {
	_, err := io.WriteString(w, ds.String())
	return err
}

// String is what Format writes.
func (ds Diagnostics) String() string {
	shown := make([]string, len(ds))
	for i, d := range ds {
		shown[i] = d.String()
	}
	return strings.Join(shown, "\n")
}

// sort puts the diagnostics in the order of the file, which is the order in
// which a person mends them.
func (ds Diagnostics) sort() {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// InvalidError is the error of a file that cannot be used.
type InvalidError struct{ Diagnostics Diagnostics }

// Error is the first error and how many more there are, in one line.
func (e *InvalidError) Error() string {
	var first string
	errors := 0
	for _, d := range e.Diagnostics {
		if d.Severity != SeverityError {
			continue
		}
		if errors == 0 {
			first = fmt.Sprintf("%s: %s", d.Place, d.Text())
		}
		errors++
	}
	switch errors {
	case 0:
		return "invalid file"
	case 1:
		return first
	case 2:
		return first + " (and 1 more error)"
	}
	return fmt.Sprintf("%s (and %d more errors)", first, errors-1)
}
