package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

// explainSyntax reports why the text is not YAML. The library knows the line at
// best, and often the wrong one; so a scan of our own looks for the mistakes that
// people make, and only what it does not find is told in the library's words.
func (s *source) explainSyntax(text []byte, err error) {
	last := firstFailingLine(text, err)
	l := lint{source: s, anchors: map[string]bool{}}
	// A mistake found further down is not the one that the library stumbled over,
	// unless that is only the end of a text whose brackets are still open.
	if f := l.run(last); f != nil && (f.at.line <= last || l.open) {
		if f.other.line > 0 {
			s.clash(f.code, f.at, f.message, f.other, f.otherMessage, f.help)
			return
		}
		s.fault(f.code, f.at, f.message, f.help)
		return
	}
	at := spot{line: last, column: 1}
	if last <= len(s.lines) {
		line := s.lines[last-1]
		at.column += len(line) - len(strings.TrimLeft(line, " "))
	}
	s.fault(CodeSyntax, at, "this is not YAML: "+libraryMessage(err), "look at this line and the one before it: indentation, colons, quotes, brackets")
}

var libraryPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// libraryMessage is the library's error without its name and line.
func libraryMessage(err error) string { return libraryPrefix.ReplaceAllString(err.Error(), "") }

// firstFailingLine is the first line with which the text fails as it fails as a
// whole: the library reads ahead by a few characters only.
func firstFailingLine(text []byte, err error) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	offset := make([]int, len(lines)+1)
	for i, line := range lines {
		offset[i+1] = offset[i] + len(line)
	}
	failure := func(count int) string {
		decoder := yaml.NewDecoder(bytes.NewReader(text[:offset[count]]))
		for {
			var document yaml.Node
			switch err := decode(decoder, &document); {
			case errors.Is(err, io.EOF):
				return ""
			case err != nil:
				return err.Error()
			}
		}
	}
	if len(lines) == 1 {
		return 1
	}
	count := sort.Search(len(lines), func(i int) bool { return failure(i) == err.Error() })
	return min(max(1, count), len(lines))
}

// lint scans text that is known not to be YAML for what is wrong with it.
type lint struct {
	*source
	anchors map[string]bool
	levels  []level
	// opened is set after a line that has a block below it: `key:` or `-`.
	opened bool
	// block is the indentation of the key of a block scalar (| or >), -1 outside.
	block int
	// text is a line below a key that is not a key itself: right if it is the
	// key's value, wrong if keys follow.
	text *finding
	// brackets that are open, and the indentation of the line with the first one.
	brackets []bracket
	indent   int
	// open says that there are open brackets at the end of the line that run was given.
	open bool
}

// level is one open block collection.
type level struct {
	column int
	list   bool
}

type bracket struct {
	open rune
	at   spot
	// colon is set after a key in braces, until the comma.
	colon bool
}

// finding is what a lint found.
type finding struct {
	code          Code
	at            spot
	message, help string
	other         spot
	otherMessage  string
}

var blockKey = regexp.MustCompile(`^[A-Za-z0-9_.-]+:( |$)`)

// run is the first fault of the text, nil if there is none that it knows. It
// notes whether brackets are open at the end of the line `last`.
func (l *lint) run(last int) *finding {
	l.block = -1
	for i, line := range l.lines {
		if f := l.line(i+1, line); f != nil {
			return f
		}
		if i+1 == last {
			l.open = len(l.brackets) > 0
		}
	}
	if len(l.brackets) > 0 {
		return l.unclosed()
	}
	return nil
}

func (l *lint) unclosed() *finding {
	b := l.brackets[len(l.brackets)-1]
	return &finding{code: CodeUnclosed, at: b.at, message: fmt.Sprintf("this %c is not closed", b.open), help: fmt.Sprintf("close it with %c", closing(b.open))}
}

func closing(open rune) rune {
	if open == '{' {
		return '}'
	}
	return ']'
}

func (l *lint) line(number int, line string) *finding {
	content := strings.TrimLeft(line, " \t")
	indent := len(line) - len(content)
	if content == "" || content[0] == '#' || (number == 1 && content[0] == '%') {
		return nil
	}
	if l.block >= 0 {
		if indent > l.block {
			return nil
		}
		l.block = -1
	}
	if tab := strings.IndexByte(line[:indent], '\t'); tab >= 0 && len(l.brackets) == 0 {
		return &finding{code: CodeTab, at: spot{line: number, column: tab + 1}, message: "a tab in the indentation", help: "YAML wants spaces: replace the tab by two of them"}
	}
	if len(l.brackets) > 0 {
		if indent <= l.indent && blockKey.MatchString(content) {
			return l.unclosed()
		}
		return l.flow(number, []rune(line), indent)
	}
	if indent == 0 && (strings.HasPrefix(content, "---") || content == "...") {
		l.levels, l.opened = nil, true
		return nil
	}
	l.indent = indent
	return l.blockLine(number, []rune(line), indent)
}

// blockLine looks at a line outside of brackets.
func (l *lint) blockLine(number int, line []rune, column int) *finding {
	entry := false
	for column+1 < len(line) && line[column] == '-' && line[column+1] == ' ' || column+1 == len(line) && line[column] == '-' {
		if f := l.enter(number, column, true); f != nil {
			return f
		}
		l.opened, entry = true, true
		column++
		for column < len(line) && line[column] == ' ' {
			column++
		}
		if column == len(line) {
			return nil
		}
	}
	colon, f := l.key(number, line, column)
	if f != nil {
		return f
	}
	if colon < 0 {
		if entry {
			l.opened = false
			return l.scalar(number, line, column)
		}
		return l.keyless(number, line, column)
	}
	if l.text != nil && column+1 >= l.text.at.column {
		return l.text
	}
	l.text = nil
	if f := l.enter(number, column, false); f != nil {
		return f
	}
	return l.value(number, line, colon+1)
}

// enter checks that a key or a list entry may stand at the column.
func (l *lint) enter(number, column int, list bool) *finding {
	at := spot{line: number, column: column + 1}
	wrong := func(message, help string) *finding {
		return &finding{code: CodeIndentation, at: at, message: message, help: help}
	}
	left := -1
	for len(l.levels) > 0 && l.levels[len(l.levels)-1].column > column {
		left = l.levels[len(l.levels)-1].column
		l.levels, l.opened = l.levels[:len(l.levels)-1], false
	}
	if len(l.levels) == 0 && left >= 0 && column > 0 {
		return wrong("this line is indented less than the first one, but not to the margin", "begin it where the lines of its kind begin")
	}
	top := level{column: -1}
	if len(l.levels) > 0 {
		top = l.levels[len(l.levels)-1]
	}
	switch {
	case column > top.column && top.column >= 0 && left >= 0:
		return wrong("this line is indented like none above it", fmt.Sprintf("begin it at column %d or at column %d", top.column+1, left+1))
	case column > top.column && top.column >= 0 && !l.opened:
		return wrong("this line is indented deeper than the one above, which has a value already", fmt.Sprintf("begin it at column %d, or remove the value above", top.column+1))
	case column > top.column:
		l.levels = append(l.levels, level{column, list})
	case list && !top.list && l.opened:
		// A list may stand at the column of its own key.
		l.levels = append(l.levels, level{column, true})
	case !list && top.list:
		l.levels = l.levels[:len(l.levels)-1]
		if len(l.levels) == 0 || l.levels[len(l.levels)-1].column != column {
			return wrong("a key stands where the entries of a list are", "begin the line with `- `, or indent it like the key of the list")
		}
	case list && !top.list:
		return wrong("a list entry stands where keys are", "indent it below the key of the list, and leave that without a value")
	}
	l.opened = false
	return nil
}

// key finds the colon that ends the key at the column, -1 if there is none.
func (l *lint) key(number int, line []rune, column int) (int, *finding) {
	if line[column] == '{' || line[column] == '[' {
		return -1, nil
	}
	if line[column] == '"' || line[column] == '\'' {
		end, f := l.quoted(number, line, column)
		if f != nil {
			return -1, f
		}
		for end < len(line) && line[end] == ' ' {
			end++
		}
		if end < len(line) && line[end] == ':' {
			return end, nil
		}
		return -1, nil
	}
	for i := column; i < len(line); i++ {
		if line[i] == '#' && i > 0 && line[i-1] == ' ' {
			break
		}
		if line[i] == ':' && (i+1 == len(line) || line[i+1] == ' ' || line[i+1] == '\t') {
			return i, nil
		}
	}
	return -1, nil
}

var colonWithoutSpace = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*):(\S+)`)

// keyless looks at a line without a key: a text, or the next line of one, or a
// mistake.
func (l *lint) keyless(number int, line []rune, column int) *finding {
	inMapping := len(l.levels) > 0 && !l.levels[len(l.levels)-1].list && column <= l.levels[len(l.levels)-1].column
	if !strings.ContainsRune("{}[]\"'&*@`%,", line[column]) {
		f := withoutColon(spot{line: number, column: column + 1}, string(line[column:]))
		if inMapping {
			return f
		}
		if l.opened && l.text == nil {
			l.text = f
		}
	}
	return l.scalar(number, line, column)
}

// withoutColon is what is wrong with text that should have been a key.
func withoutColon(at spot, text string) *finding {
	if m := colonWithoutSpace.FindStringSubmatch(text); m != nil {
		return &finding{code: CodeColon, at: at, message: "a space is missing after the colon", help: fmt.Sprintf("write `%s: %s`", m[1], m[2])}
	}
	word := text // of blanks that are none to YAML
	if words := strings.Fields(text); len(words) > 0 {
		word = words[0]
	}
	return &finding{code: CodeColon, at: at, message: fmt.Sprintf("a colon is missing after %s", printable(word)), help: fmt.Sprintf("write `%s:`", word)}
}

// value looks at what comes after a colon.
func (l *lint) value(number int, line []rune, from int) *finding {
	for from < len(line) && (line[from] == ' ' || line[from] == '\t') {
		from++
	}
	if from == len(line) || line[from] == '#' {
		l.opened = true
		return nil
	}
	if line[from] == '-' && from+1 < len(line) && line[from+1] == ' ' {
		return &finding{code: CodeSyntax, at: spot{line: number, column: from + 1}, message: "a list cannot begin on the line of its key", help: "begin it on the next line, or write it in brackets: [a, b]"}
	}
	return l.scalar(number, line, from)
}

// scalar looks at a value that begins at the position, to the end of the line.
func (l *lint) scalar(number int, line []rune, from int) *finding {
	at := spot{line: number, column: from + 1}
	switch line[from] {
	case '|', '>':
		l.block = l.indent
		return nil
	case '&':
		end := l.anchor(line, from)
		return l.value(number, line, end)
	case '*':
		return l.aliasAt(number, line, from)
	case '{', '[', '}', ']':
		return l.flow(number, line, from)
	case '"', '\'':
		end, f := l.quoted(number, line, from)
		if f != nil {
			return f
		}
		for end < len(line) && (line[end] == ' ' || line[end] == '\t') {
			end++
		}
		if end < len(line) && line[end] != '#' {
			return &finding{code: CodeUnclosed, at: spot{line: number, column: end + 1}, message: "there is text after the closing quote", help: "put all of the text in one pair of quotes"}
		}
		return nil
	case '@', '`', '%', ',':
		return &finding{code: CodeSyntax, at: at, message: fmt.Sprintf("text without quotes cannot begin with %c", line[from]), help: "put it in quotes"}
	}
	for i := from; i < len(line); i++ {
		if line[i] == '#' && line[i-1] == ' ' {
			break
		}
		if line[i] == ':' && (i+1 == len(line) || line[i+1] == ' ') {
			return &finding{code: CodeColon, at: spot{line: number, column: i + 1}, message: "a second colon in one line", help: "put the text in quotes, or begin a new line for the second key"}
		}
	}
	return nil
}

// anchor notes an anchor and returns the position after it.
func (l *lint) anchor(line []rune, from int) int {
	end := wordEnd(line, from+1)
	l.anchors[string(line[from+1:end])] = true
	return end
}

func (l *lint) aliasAt(number int, line []rune, from int) *finding {
	end := wordEnd(line, from+1)
	if name := string(line[from+1 : end]); !l.anchors[name] {
		return &finding{code: CodeAlias, at: spot{line: number, column: from + 1}, message: fmt.Sprintf("there is no anchor &%s above", name), help: "put text that begins with * in quotes, or set the anchor first"}
	}
	return nil
}

func wordEnd(line []rune, from int) int {
	for from < len(line) && !strings.ContainsRune(" \t,[]{}", line[from]) {
		from++
	}
	return from
}

// escapes are the characters that can follow a backslash in double quotes (YAML
// 1.2, Section 5.7).
const escapes = "0abt\tnvfre \"/\\N_LPxuU"

// quoted returns the position after the quote's end, which has to be in the line.
func (l *lint) quoted(number int, line []rune, from int) (int, *finding) {
	quote := line[from]
	for i := from + 1; i < len(line); i++ {
		switch {
		case quote == '"' && line[i] == '\\':
			if i++; i < len(line) && !strings.ContainsRune(escapes, line[i]) {
				return 0, &finding{code: CodeSyntax, at: spot{line: number, column: i}, message: fmt.Sprintf("\\%c means nothing in quotes", line[i]), help: `write \\ for a backslash, or use single quotes`}
			}
		case line[i] != quote:
		case quote == '\'' && i+1 < len(line) && line[i+1] == quote:
			i++
		default:
			return i + 1, nil
		}
	}
	return 0, &finding{code: CodeUnclosed, at: spot{line: number, column: from + 1}, message: fmt.Sprintf("this %c is not closed in its line", quote), help: "close the quote"}
}

// flow looks at brackets and what is in them, from the position to the end of the line.
func (l *lint) flow(number int, line []rune, from int) *finding {
	start := true
	for i := from; i < len(line); i++ {
		at := spot{line: number, column: i + 1}
		c := line[i]
		if len(l.brackets) == 0 && i > from && c != ' ' && c != '\t' {
			return l.afterFlow(number, line, i)
		}
		switch {
		case c == ' ' || c == '\t':
			continue
		case c == '#' && (i == 0 || line[i-1] == ' '):
			return nil
		case start && (c == '"' || c == '\''):
			end, f := l.quoted(number, line, i)
			if f != nil {
				return f
			}
			i = end - 1
		case start && c == '&':
			i = l.anchor(line, i) - 1
			continue
		case start && c == '*':
			if f := l.aliasAt(number, line, i); f != nil {
				return f
			}
			i = wordEnd(line, i+1) - 1
		case start && (c == '@' || c == '`' || c == '%'):
			return &finding{code: CodeSyntax, at: at, message: fmt.Sprintf("text without quotes cannot begin with %c", c), help: "put it in quotes"}
		case c == '{' || c == '[':
			l.brackets = append(l.brackets, bracket{open: c, at: at})
			start = true
			continue
		case c == '}' || c == ']':
			if f := l.close(c, at); f != nil {
				return f
			}
		case c == ',':
			if n := len(l.brackets); n > 0 {
				l.brackets[n-1].colon = false
			}
			start = true
			continue
		case c == ':' && (i+1 == len(line) || strings.ContainsRune(" \t,[]{}", line[i+1])):
			b := &l.brackets[len(l.brackets)-1]
			if b.colon {
				word := i
				for word > 0 && !strings.ContainsRune(" \t,[]{}", line[word-1]) {
					word--
				}
				return &finding{code: CodeSyntax, at: spot{line: number, column: word + 1}, message: "a comma is missing before " + printable(string(line[word:i])), help: "put a comma between two keys in braces"}
			}
			b.colon = b.open == '{'
			start = true
			continue
		}
		start = false
	}
	return nil
}

// close takes the last bracket off.
func (l *lint) close(c rune, at spot) *finding {
	n := len(l.brackets)
	if n == 0 {
		return &finding{code: CodeUnclosed, at: at, message: fmt.Sprintf("this %c closes nothing", c), help: "remove it, or add the bracket that it closes"}
	}
	b := l.brackets[n-1]
	if closing(b.open) != c {
		return &finding{
			code: CodeUnclosed, at: at, message: fmt.Sprintf("this %c does not match the %c before it", c, b.open), help: fmt.Sprintf("close that with %c first", closing(b.open)),
			other: b.at, otherMessage: "opened here",
		}
	}
	l.brackets = l.brackets[:n-1]
	return nil
}

// afterFlow looks at what follows the last closing bracket.
func (l *lint) afterFlow(number int, line []rune, i int) *finding {
	at := spot{line: number, column: i + 1}
	switch c := line[i]; c {
	case '#', ':':
		return nil
	case '}', ']':
		return l.close(c, at)
	}
	return &finding{code: CodeUnclosed, at: at, message: "there is text after the closing bracket", help: "remove it, or begin a new line"}
}
