// Package man makes manual pages, man(7), of a command tree.
package man

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Page is what a page says besides the commands.
type Page struct {
	// Section of the manual, and the Version that it is about.
	Section int
	Version string
	// SeeAlso are other pages, as "pwd(8)".
	SeeAlso []string
}

// Pages are the manual pages of a command and all below it, by file name.
func (p Page) Pages(root *cobra.Command) map[string][]byte {
	pages := map[string][]byte{}
	p.walk(root, pages)
	return pages
}

func (p Page) walk(c *cobra.Command, pages map[string][]byte) {
	pages[fmt.Sprintf("%s.%d", name(c), p.Section)] = p.page(c)
	for _, sub := range documented(c) {
		p.walk(sub, pages)
	}
}

// documented are the commands below one that have a page.
func documented(c *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			all = append(all, sub)
		}
	}
	return all
}

// name is a command's page: pwctl-get-tunnels.
func name(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func (p Page) page(c *cobra.Command) []byte {
	w := new(roff)
	w.line(`.\" Made from the program's own commands.`)
	w.line(fmt.Sprintf(`.TH %s %d "" %s`, quote(strings.ToUpper(name(c))), p.Section, quote(p.Version)))
	w.line(".SH NAME")
	w.line(Escape(name(c)) + ` \- ` + Escape(c.Short))
	w.line(".SH SYNOPSIS")
	w.line(".B " + quote(c.UseLine()))
	if subs := documented(c); len(subs) > 0 && c.Runnable() {
		w.line(".br")
		w.line(".B " + quote(c.CommandPath()+" COMMAND"))
	}
	w.line(".SH DESCRIPTION")
	description := c.Long
	if description == "" {
		description = c.Short + "."
	}
	w.text(description)
	if subs := documented(c); len(subs) > 0 {
		w.line(".SH COMMANDS")
		for _, sub := range subs {
			w.item(name(sub)+"("+fmt.Sprint(p.Section)+")", sub.Short)
		}
	}
	w.flags(c.NonInheritedFlags(), "OPTIONS")
	w.flags(c.InheritedFlags(), "GLOBAL OPTIONS")
	if c.Example != "" {
		w.line(".SH EXAMPLES")
		w.verbatim(c.Example)
	}
	p.seeAlso(w, c)
	return w.Bytes()
}

func (p Page) seeAlso(w *roff, c *cobra.Command) {
	var also []string
	if c.HasParent() {
		also = append(also, fmt.Sprintf("%s(%d)", name(c.Parent()), p.Section))
	}
	also = append(also, p.SeeAlso...)
	if len(also) > 0 {
		w.line(".SH SEE ALSO")
		w.line(Escape(strings.Join(also, ", ")))
	}
}

// roff writes man(7) macros.
type roff struct{ bytes.Buffer }

func (w *roff) line(s string) { w.WriteString(s + "\n") }

func (w *roff) item(term, text string) {
	w.line(".TP")
	w.line(".B " + quote(term))
	w.line(Escape(text))
}

// text is paragraphs, apart by empty lines; one that is indented stays as it is.
func (w *roff) text(s string) {
	for i, paragraph := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		if i > 0 {
			w.line(".PP")
		}
		if strings.HasPrefix(paragraph, "  ") {
			w.verbatim(paragraph)
			continue
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			w.line(Escape(line))
		}
	}
}

func (w *roff) verbatim(s string) {
	w.line(".nf")
	for line := range strings.SplitSeq(s, "\n") {
		w.line(Escape(line))
	}
	w.line(".fi")
}

func (w *roff) flags(flags *pflag.FlagSet, title string) {
	first := true
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if first {
			w.line(".SH " + title)
			first = false
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if value != "" {
			term += " " + value
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && d != "0s" {
			usage += " (default " + d + ")"
		}
		w.item(term, usage)
	})
}

// Escape makes text that is no macro: backslashes and hyphens are themselves, and a
// line does not begin with a control character, and what is beyond ASCII is named, for pages have no encoding of their own.
func Escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// quote makes one argument of a macro.
func quote(s string) string { return `"` + strings.ReplaceAll(Escape(s), `"`, `\(dq`) + `"` }
