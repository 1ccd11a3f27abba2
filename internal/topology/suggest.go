package topology

import (
	"slices"
	"strconv"
	"strings"
)

// nearest is the candidate that word was most likely meant to be, if one is
// near enough: the same but for case and separators, or a third of its letters
// off, at most three, or begun by the word and the only one that is.
func nearest(word string, candidates []string) (string, bool) {
	const longest = 64
	if len(word) > longest {
		return "", false
	}
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "-", " ", "-").Replace(s))
	}
	best, distance := "", max(1, min(3, len(word)/3))+1
	var begun []string
	for _, c := range candidates {
		if len(c) > longest || c == word {
			continue
		}
		d := editDistance(plain(word), plain(c))
		if d < distance || d == distance && best != "" && len(c) == len(word) && len(best) != len(word) {
			best, distance = c, d
		}
		if len(word) >= 3 && strings.HasPrefix(plain(c), plain(word)) {
			begun = append(begun, c)
		}
	}
	if best == "" && len(begun) == 1 {
		best = begun[0]
	}
	return best, best != ""
}

// editDistance counts the insertions, removals, replacements and exchanges of
// neighbours that take a to b, in octets.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// oneOf helps with a word that is none of the candidates: what was probably
// meant, and all that there is. kind is as "sites".
func oneOf(word, kind string, candidates []string) string {
	if len(candidates) == 0 {
		return "there are no " + kind
	}
	all := kind + ": " + listed(candidates)
	if c, ok := nearest(word, candidates); ok {
		return "did you mean " + c + "? (" + all + ")"
	}
	return all
}

// listed is a sorted enumeration, cut short where it gets long.
func listed(words []string) string {
	const most = 12
	words = slices.Sorted(slices.Values(words))
	if len(words) > most {
		return strings.Join(words[:most], ", ") + " and " + strconv.Itoa(len(words)-most) + " more"
	}
	return strings.Join(words, ", ")
}
