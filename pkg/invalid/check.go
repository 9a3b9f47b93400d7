package invalid

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxName bounds names: they become metric labels, table columns and log fields.
const maxName = 63

// Err returns the findings as one error, or nil if there are none.
func (l List) Err() error {
	errs := make([]error, len(l))
	for i, f := range l {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// Name checks what names a realm, a trunk and the like: 1 to 63 letters, digits,
// dots, dashes and underscores, a letter or digit first.
func (l *List) Name(key, name string) {
	const remedy = "give 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first"
	switch {
	case name == "":
		l.Add(key, remedy, "is missing")
	case len(name) > maxName:
		l.Add(key, remedy, "has %d characters", len(name))
	case strings.IndexFunc(name, func(r rune) bool { return !isNameRune(r) }) >= 0 || !isAlphanumeric(rune(name[0])):
		l.Add(key, remedy, "%q is not a name", name)
	}
}

// OneOf checks a value against the words that are known, and suggests the nearest.
func (l *List) OneOf(key, value string, known ...string) {
	switch {
	case slices.Contains(known, value):
	case value == "":
		l.Add(key, "give one of "+strings.Join(known, ", "), "is missing")
	default:
		l.Add(key, Suggest(value, known, "give one of "+strings.Join(known, ", ")), "%q is not known here", value)
	}
}

// Between checks an inclusive range.
func (l *List) Between(key string, value, low, high int) {
	if value < low || value > high {
		l.Add(key, fmt.Sprintf("give a number from %d to %d", low, high), "%d is out of range", value)
	}
}

// Nearest returns the one of known that word is most likely a slip of the finger for,
// or "" if none is within one letter in three.
func Nearest(word string, known []string) string {
	best, at := (len([]rune(word))+1)/3, ""
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d <= best && (at == "" || d < best) {
			best, at = d, k
		}
	}
	return at
}

// Suggest is a remedy: "did you mean X?" if one of known is Nearest to word, else otherwise.
func Suggest(word string, known []string, otherwise string) string {
	if at := Nearest(word, known); at != "" {
		return fmt.Sprintf("did you mean %q?", at)
	}
	return otherwise
}

func isNameRune(r rune) bool {
	return isAlphanumeric(r) || r == '.' || r == '-' || r == '_'
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// distance is the number of letters to insert, drop, replace or swap with their
// neighbour to turn a into b (optimal string alignment). Words longer than any key
// count as infinitely far: what is typed by hand is short, and a file may hold anything.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if len(s) > maxName || len(t) > maxName {
		return len(s) + len(t)
	}
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
