package topology

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSize bounds what is read at all: 1,000 pseudowires take a fifth of it.
const maxSize = 1 << 20

// maxDiagnostics bounds what is said about one file.
const maxDiagnostics = 200

// source is a file's text, split into lines, and what was found wrong with it.
type source struct {
	name        string
	lines       []string
	diagnostics Diagnostics
	seen        map[string]bool
	// characters are those of the line that was last looked at: a file in one
	// line has all its faults there.
	characters     []rune
	charactersLine int
}

// spot is a position in a source, from 1, and the path of the value there.
type spot struct {
	path         string
	line, column int
}

// newSource takes a file's octets to text that YAML can be read from: without
// byte order mark, lines ended by LF alone. If it cannot be read the fault is
// in the source's diagnostics and ok is false.
func newSource(name string, data []byte) (s *source, text []byte, ok bool) {
	s = &source{name: name, seen: map[string]bool{}}
	start := spot{line: 1, column: 1}
	if len(data) > maxSize {
		s.fault(CodeTooLarge, start, fmt.Sprintf("the file has %d octets; 1 MiB (%d) is the limit", len(data), maxSize), "is this the file you meant?")
		return s, nil, false
	}
	if bytes.HasPrefix(data, []byte{0xfe, 0xff}) || bytes.HasPrefix(data, []byte{0xff, 0xfe}) {
		s.fault(CodeEncoding, start, "the file is UTF-16", "save it as UTF-8")
		return s, nil, false
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	s.lines = strings.Split(string(data), "\n")
	if !s.readable() {
		return s, nil, false
	}
	return s, data, true
}

// readable finds the first character that YAML does not allow, or that it takes
// for the end of a line where editors do not.
func (s *source) readable() bool {
	for i, line := range s.lines {
		column := 0
		for offset, r := range line {
			column++
			at := spot{line: i + 1, column: column}
			if r == utf8.RuneError {
				if _, size := utf8.DecodeRuneInString(line[offset:]); size == 1 {
					s.fault(CodeEncoding, at, fmt.Sprintf("octet 0x%02x is not UTF-8", line[offset]), "save the file as UTF-8")
					return false
				}
			}
			switch {
			case r == '\t', r >= ' ' && r < 0x7f:
			case r < ' ', r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
				s.fault(CodeEncoding, at, fmt.Sprintf("the character U+%04X is not allowed here", r), "remove it")
				return false
			}
		}
	}
	return true
}

// place is a spot with its excerpt, moved into the file if it lies outside.
func (s *source) place(at spot) Place {
	p := Place{File: s.name, Line: max(1, at.line), Column: max(1, at.column)}
	if len(s.lines) == 0 {
		p.Line, p.Column = 1, 1
		return p
	}
	p.Line = min(p.Line, len(s.lines))
	if s.charactersLine != p.Line {
		s.characters, s.charactersLine = []rune(withoutSecrets(s.lines[p.Line-1])), p.Line
	}
	line := s.characters
	p.Column = min(p.Column, len(line)+1)
	p.Source, p.Caret = excerptOf(line, p.Column)
	return p
}

// shownCookies are what may be cookies in a line: values of that key, and what looks like one.
var shownCookies = regexp.MustCompile(`(cookie["']?\s*:\s*["']?)([^\s,}"'#][^,}"'#]{4,})|(["'])((?:0[xX])?[0-9A-Fa-f]{8}(?:[0-9A-Fa-f]{8})?["'])`)

// shownSecrets are secrets themselves where the name of a file with one has to be: values of
// keys that there are not, as they are with other programs.
var shownSecrets = regexp.MustCompile(`(?i)((?:secret|password|passphrase|psk)["']?\s*:\s*)(?:(")([^"]*)|(')([^']*)|([^\s,}"'#{\[|>&*][^,}#]*))`)

// withoutSecrets is a line of the same length in which secrets and cookies cannot be read.
func withoutSecrets(line string) string {
	line = shownSecrets.ReplaceAllStringFunc(line, func(found string) string {
		m := shownSecrets.FindStringSubmatch(found)
		return m[1] + m[2] + m[4] + strings.Repeat("*", utf8.RuneCountInString(m[3]+m[5]+m[6]))
	})
	return shownCookies.ReplaceAllStringFunc(line, func(found string) string {
		m := shownCookies.FindStringSubmatch(found)
		if m[2] != "" {
			return m[1] + strings.Repeat("*", utf8.RuneCountInString(m[2]))
		}
		return m[3] + strings.Repeat("*", len(m[4])-1) + m[3]
	})
}

// excerptOf makes a line fit to be shown: nothing that moves the cursor, and of
// a long line the part around the column.
func excerptOf(line []rune, column int) (string, int) {
	const before, after, most = 60, 100, 200
	shown := make([]rune, 0, min(len(line), most))
	from, to := 0, len(line)
	if len(line) > most {
		from, to = max(0, column-1-before), min(len(line), column-1+after)
	}
	caret := column - from
	if from > 0 {
		shown = append(shown, '…')
		caret++
	}
	for _, r := range line[from:to] {
		if r != '\t' && !unicode.IsPrint(r) {
			r = '\ufffd'
		}
		shown = append(shown, r)
	}
	if to < len(line) {
		shown = append(shown, '…')
	}
	return string(shown), caret
}

// fault notes an error at a place.
func (s *source) fault(code Code, at spot, message, help string) {
	if s.full() {
		return
	}
	s.add(Diagnostic{Place: s.place(at), Severity: SeverityError, Code: code, Path: at.path, Message: message, Help: help})
}

// clash notes an error that is about two places.
func (s *source) clash(code Code, at spot, message string, other spot, otherMessage, help string) {
	if s.full() {
		return
	}
	second := s.place(other)
	s.add(Diagnostic{
		Place: s.place(at), Severity: SeverityError, Code: code, Path: at.path, Message: message, Help: help,
		Other: &second, OtherMessage: otherMessage,
	})
}

// warn notes what is worth knowing.
func (s *source) warn(code Code, at spot, message, help string) {
	if s.full() {
		return
	}
	s.add(Diagnostic{Place: s.place(at), Severity: SeverityWarning, Code: code, Path: at.path, Message: message, Help: help})
}

// add keeps a diagnostic, once: a value behind an anchor is looked at as often
// as it is used.
func (s *source) add(d Diagnostic) {
	key := fmt.Sprint(d.Line, d.Column, d.Code, d.Message)
	if s.seen[key] {
		return
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[key] = true
	s.diagnostics = append(s.diagnostics, d)
}

// full reports that nothing more will be noted.
func (s *source) full() bool { return len(s.diagnostics) >= maxDiagnostics }

// finish is everything that was found, in the order of the file.
func (s *source) finish() Diagnostics {
	s.diagnostics.sort()
	if s.full() {
		last := s.diagnostics[len(s.diagnostics)-1]
		last.Severity, last.Code, last.Path, last.Other = SeverityError, CodeTooManyErrors, "", nil
		last.Message, last.Help = fmt.Sprintf("more than %d faults: no more are shown", maxDiagnostics), "mend these first"
		s.diagnostics = append(s.diagnostics, last)
	}
	return s.diagnostics
}
