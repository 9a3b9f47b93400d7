package route

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

const (
	// maxNumber bounds what a translation makes.
	maxNumber = 64
	// maxRules bounds the steps of a translation.
	maxRules = 16
)

// Translate is what a route makes of the numbers of its calls (T12).
type Translate struct {
	Called []Rule `yaml:"called" json:"called,omitempty" doc:"Steps that the called number goes through, one after the other."`
	Caller []Rule `yaml:"caller" json:"caller,omitempty" doc:"Steps that the calling number goes through, in From and P-Asserted-Identity alike; a caller who withholds it is left alone."`
}

// Rule is one step: characters off the start and others in their place, or what a regular
// expression finds for what it is.
type Rule struct {
	Strip   int    `yaml:"strip" json:"strip,omitempty" range:"0-32" doc:"How many characters are taken off the start, a + is one."`
	Add     string `yaml:"add" json:"add,omitempty" doc:"What is put in front after that, in quotes."`
	Regexp  string `yaml:"regexp" json:"regexp,omitempty" doc:"In place of strip and add: a regular expression of RE2, at most 256 characters. A number without a match stays as it is."`
	Replace string `yaml:"replace" json:"replace,omitempty" doc:"What stands in place of each match; $1 or ${1} is what the first pair of parentheses found."`
}

// rule is Rule, ready.
type rule struct {
	strip        int
	add, replace string
	regexp       expression
}

// compileRules reads the steps; key is the list's.
func compileRules(l *invalid.List, key string, list []Rule) []rule {
	if len(list) > maxRules {
		l.Add(key, fmt.Sprintf("at most %d are possible", maxRules), "has %d entries", len(list))
		return nil
	}
	rules := make([]rule, len(list))
	for i, r := range list {
		var own invalid.List
		rules[i] = r.compile(&own)
		l.Under(fmt.Sprintf("%s[%d]", key, i), own)
	}
	return rules
}

func (r Rule) compile(l *invalid.List) rule {
	l.Between("strip", r.Strip, 0, maxPrefix)
	validatePrefix(l, "add", r.Add)
	switch {
	case r == Rule{}:
		l.Add("", "give strip, add or both, or regexp and replace", "changes nothing")
	case r.Regexp == "" && r.Replace != "":
		l.Add("replace", "add regexp, or use add", "has no regexp to go with")
	case r.Regexp != "" && r.Strip != 0:
		l.Add("strip", "make it a step of its own", "stands beside regexp")
	case r.Regexp != "" && r.Add != "":
		l.Add("add", "make it a step of its own", "stands beside regexp")
	}
	c := rule{strip: r.Strip, add: r.Add, replace: r.Replace, regexp: compileRegexp(l, "regexp", r.Regexp)}
	if c.regexp.Regexp != nil {
		c.validateReplace(l)
	}
	return c
}

// validateReplace finds what the template of a regular expression would leave out in
// silence: names that are none of its groups.
func (r rule) validateReplace(l *invalid.List) {
	if len(r.replace) > maxNumber {
		l.Add("replace", fmt.Sprintf("give at most %d", maxNumber), "has %d characters", len(r.replace))
		return
	}
	for rest := r.replace; rest != ""; {
		literal, after, found := strings.Cut(rest, "$")
		if strings.IndexFunc(literal, func(c rune) bool { return !isNumberRune(c) }) >= 0 {
			l.Add("replace", "give what a number is made of, and $1 for what was found", "%q cannot be part of a number", literal)
			return
		}
		if !found {
			return
		}
		name, behind, ok := reference(after)
		if !ok || !r.hasGroup(name) {
			l.Add("replace", "write ${1} for what the first pair of parentheses found", "%q names nothing that the regexp finds", "$"+name)
			return
		}
		rest = behind
	}
}

// reference reads what stands behind a $ as package regexp does: as long a name as there is.
func reference(text string) (name, behind string, ok bool) {
	if inner, braced := strings.CutPrefix(text, "{"); braced {
		return strings.Cut(inner, "}")
	}
	end := 0
	for end < len(text) && (isToken(rune(text[end])) && !strings.ContainsRune("-.!%*+`'~", rune(text[end]))) {
		end++
	}
	return text[:end], text[end:], end > 0
}

func (r rule) hasGroup(name string) bool {
	if n, err := strconv.Atoi(name); err == nil {
		return n >= 0 && n <= r.regexp.NumSubexp()
	}
	return name != "" && r.regexp.SubexpIndex(name) >= 0
}

// translate takes a number through the steps. A number that is not known stays so, and a
// step that would leave nothing, or more than a number can have, is left out.
func translate(rules []rule, number string) string {
	for i := range rules {
		number = rules[i].apply(number)
	}
	return number
}

func (r *rule) apply(number string) string {
	if number == "" || len(number) > maxText {
		return number
	}
	var made string
	if r.regexp.Regexp != nil {
		made = r.regexp.ReplaceAllString(number, r.replace)
	} else {
		made = r.add + number[min(r.strip, len(number)):]
	}
	if made == "" || len(made) > maxNumber {
		return number
	}
	return made
}

// String is the step in words.
func (r *rule) String() string {
	switch {
	case r.regexp.Regexp != nil:
		return fmt.Sprintf("%q in place of %q", r.replace, r.regexp.text())
	case r.strip == 0:
		return fmt.Sprintf("%q in front", r.add)
	case r.add == "":
		return fmt.Sprintf("%d off the start", r.strip)
	}
	return fmt.Sprintf("%d off the start and %q in front", r.strip, r.add)
}
