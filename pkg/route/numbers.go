package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxText is the longest that a regular expression is tried on, in bytes: a header of a
// peer's may have thousands, and a call waits for the answer.
const maxText = 1024

// Numbers says which numbers a route takes: all that is given has to fit.
type Numbers struct {
	Prefix string `yaml:"prefix" json:"prefix,omitempty" doc:"What the number starts with, in quotes, e.g. \"+49\"."`
	Range  string `yaml:"range" json:"range,omitempty" doc:"First and last of a block of numbers, both with as many digits, e.g. \"+49301230000-+49301239999\"; longer and shorter numbers are not in it."`
	Regexp string `yaml:"regexp" json:"regexp,omitempty" doc:"What the number matches, anywhere in it, so that ^ and $ stand for its ends: a regular expression of RE2, at most 256 characters, e.g. \"^\\\\+49(800|137)\"."`
}

// numbers is Numbers, ready.
type numbers struct {
	// prefix is what all numbers have at their start, whatever says so.
	prefix string
	// first and last are empty, or have the same length.
	first, last string
	regexp      expression
}

// expression is a regular expression, or none.
type expression struct{ *regexp.Regexp }

// compile reads the condition; key is its own.
func (n Numbers) compile(l *invalid.List, key string) numbers {
	validatePrefix(l, key+".prefix", n.Prefix)
	c := numbers{prefix: n.Prefix, regexp: compileRegexp(l, key+".regexp", n.Regexp)}
	if n.Range == "" {
		return c
	}
	if n.Prefix != "" {
		l.Add(key+".prefix", "leave it out", "stands beside range, which says more")
	}
	if f := c.readRange(n.Range); f.Problem != "" {
		f.Key = key + ".range"
		*l = append(*l, f)
	}
	return c
}

func (c *numbers) readRange(text string) invalid.Field {
	const remedy = `write it like "+49301230000-+49301239999"`
	first, last, ok := strings.Cut(text, "-")
	switch digits := func(s string) string { return strings.TrimPrefix(s, "+") }; {
	case !ok || !isDialled(digits(first)) || !isDialled(digits(last)):
		return invalid.Field{Problem: fmt.Sprintf("%.80q is not a range of numbers", text), Remedy: remedy}
	case strings.HasPrefix(first, "+") != strings.HasPrefix(last, "+"):
		return invalid.Field{Problem: fmt.Sprintf("one end of %q has a + and the other has none", text), Remedy: "write both as the trunk's numbers are"}
	case len(first) != len(last):
		return invalid.Field{Problem: fmt.Sprintf("the ends of %q have %d and %d digits", text, len(digits(first)), len(digits(last))), Remedy: "give a range for each length"}
	case first > last:
		return invalid.Field{Problem: fmt.Sprintf("%q begins above its end", text), Remedy: fmt.Sprintf("write %q", last+"-"+first)}
	}
	c.first, c.last = first, last
	common := 0
	for common < len(first) && first[common] == last[common] {
		common++
	}
	c.prefix = first[:common]
	return invalid.Field{}
}

// isDialled reports whether text is 1 to maxPrefix digits.
func isDialled(text string) bool {
	return text != "" && len(text) <= maxPrefix && strings.Trim(text, "0123456789") == ""
}

func validatePrefix(l *invalid.List, key, prefix string) {
	switch {
	case len(prefix) > maxPrefix:
		l.Add(key, fmt.Sprintf("give at most %d", maxPrefix), "has %d characters", len(prefix))
	case strings.IndexFunc(prefix, func(r rune) bool { return !isNumberRune(r) }) >= 0:
		l.Add(key, `give the start of a number as it is in the Request-URI, e.g. "+49"`, "%q cannot be the start of a number", prefix)
	}
}

// isNumberRune reports whether a number of a route may have it.
func isNumberRune(r rune) bool { return r > ' ' && r <= '~' && !strings.ContainsRune("@;:<>\"", r) }

func compileRegexp(l *invalid.List, key, text string) expression {
	if text == "" {
		return expression{}
	}
	if n := utf8.RuneCountInString(text); n > maxRegexp {
		l.Add(key, fmt.Sprintf("give at most %d, or more than one route", maxRegexp), "has %d characters", n)
		return expression{}
	}
	re, err := regexp.Compile(text)
	if err != nil {
		problem := err.Error()
		if wrong := (*syntax.Error)(nil); errors.As(err, &wrong) {
			problem = fmt.Sprintf("%s: %q", wrong.Code, wrong.Expr)
		}
		l.Add(key, "write it in the syntax of RE2, https://github.com/google/re2/wiki/Syntax", "is no regular expression: %s", problem)
		return expression{}
	}
	return expression{re}
}

// matches reports whether text is what the expression wants; none wants nothing.
func (e expression) matches(text string) bool {
	return e.Regexp == nil || len(text) <= maxText && e.MatchString(text)
}

func (e expression) text() string {
	if e.Regexp == nil {
		return ""
	}
	return e.String()
}

// within reports whether the expression takes nothing that o does not, as far as can be
// told without solving it.
func (e expression) within(o expression) bool { return o.Regexp == nil || e.text() == o.text() }

func (n *numbers) matches(number string) bool {
	return strings.HasPrefix(number, n.prefix) && n.contains(number) && n.regexp.matches(number)
}

// contains reports whether the number is in the range, if there is one.
func (n *numbers) contains(number string) bool {
	return n.first == "" || len(number) == len(n.first) && n.first <= number && number <= n.last &&
		isDialled(strings.TrimPrefix(number, "+"))
}

// objection is why the number does not match, or empty; what names it for people.
func (n *numbers) objection(what, number string) string {
	switch {
	case n.matches(number):
		return ""
	case !n.contains(number):
		return fmt.Sprintf("%s number %.80q is not in %s-%s", what, number, n.first, n.last)
	case !strings.HasPrefix(number, n.prefix):
		return fmt.Sprintf("%s number %.80q does not start with %q", what, number, n.prefix)
	}
	return fmt.Sprintf("%s number %.80q does not match %q", what, number, n.regexp.text())
}

// merits are what about a number fits.
func (n *numbers) merits(what, number string) (fits []string) {
	switch {
	case n.first != "":
		fits = append(fits, fmt.Sprintf("%s number %.80q is in %s-%s", what, number, n.first, n.last))
	case n.prefix != "":
		fits = append(fits, fmt.Sprintf("%s number %.80q starts with %q", what, number, n.prefix))
	}
	if n.regexp.Regexp != nil {
		fits = append(fits, fmt.Sprintf("%s number %.80q matches %q", what, number, n.regexp.text()))
	}
	return fits
}

// within reports whether every number that n takes is taken by o, as far as can be told.
func (n *numbers) within(o *numbers) bool {
	return strings.HasPrefix(n.prefix, o.prefix) && n.regexp.within(o.regexp) &&
		(o.first == "" || len(n.first) == len(o.first) && o.first <= n.first && n.last <= o.last)
}
