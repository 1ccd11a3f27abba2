package topology

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable is a word of the file as messages show it: as it is if it has
// nothing odd in it, else quoted; cut where it is long.
func printable(s string) string {
	const most = 80
	cut := ""
	if utf8.RuneCountInString(s) > most {
		s, cut = string([]rune(s)[:most]), "…"
	}
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:!<*&%+", r)
	}) < 0
	if plain {
		return s + cut
	}
	return strconv.Quote(s + cut)
}

// What YAML readers take words without quotes for.
const (
	yamlTrue  = "the boolean true"
	yamlFalse = "the boolean false"
)

// ambiguous reports that YAML readers take text without quotes for different
// things, and what some take it for. Version 1.1 of YAML has sixteen more words
// for true and false than version 1.2, numbers to the base of 8 and of 60, and dates.
func (n *node) ambiguous() (string, bool) {
	if n.quoted {
		return "", false
	}
	switch strings.ToLower(n.text) {
	case "true", "yes", "on", "y":
		return yamlTrue, true
	case "false", "no", "off", "n":
		return yamlFalse, true
	case "null", "~":
		return "nothing at all", true
	}
	if sexagesimal(n.text) {
		return "a number to the base of 60", true
	}
	if n.number && !isDecimal(n.text) {
		return "a number or a date", true
	}
	return "", false
}

// sexagesimal reports a number as 1:30, as YAML 1.1 has them.
func sexagesimal(s string) bool {
	parts := strings.Split(s, ":")
	if len(parts) < 2 {
		return false
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil || (i > 0 && (v > 59 || len(p) > 2)) {
			return false
		}
	}
	return true
}

// isDecimal reports a whole number that every YAML reader reads alike.
func isDecimal(s string) bool {
	if s == "" || (s[0] == '0' && len(s) > 1) {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}
