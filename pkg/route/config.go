package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

const (
	// MaxRoutes of one dial plan.
	MaxRoutes = 10_000
	// maxPrefix is well above the 15 digits of E.164 and below any attack.
	maxPrefix = 32
	// maxRegexp bounds regular expressions, in characters.
	maxRegexp = 256
	// maxHeader bounds names of headers.
	maxHeader = 64
)

// Config is one route. Routes are tried in their order; the first that matches wins.
// All that a route says has to fit; what it leaves out fits any call.
type Config struct {
	Name      string    `yaml:"name" json:"name" required:"true" doc:"Name of the route, for logs."`
	From      []string  `yaml:"from" json:"from" doc:"Trunks that the call may come from; empty is any."`
	Prefix    string    `yaml:"prefix" json:"prefix" doc:"What the called number starts with, in quotes, e.g. \"+49\"; empty is any number. The same as called.prefix. Routes see numbers as the trunk's country_code has normalised them."`
	Called    Numbers   `yaml:"called" json:"called,omitzero" doc:"Called numbers that the route takes."`
	Caller    Numbers   `yaml:"caller" json:"caller,omitzero" doc:"Calling numbers that the route takes: those of P-Asserted-Identity, or else of From. A caller who withholds it has none."`
	Header    Header    `yaml:"header" json:"header,omitzero" doc:"Header that the INVITE has to have."`
	Time      Time      `yaml:"time" json:"time,omitzero" doc:"When the route takes calls."`
	Default   bool      `yaml:"default" json:"default,omitempty" doc:"Whether the route is tried only after all that are not, wherever it stands. It may have from, and none of the other conditions."`
	Translate Translate `yaml:"translate" json:"translate,omitzero" doc:"What the route makes of the numbers on the way out."`
	Group     string    `yaml:"group" json:"group,omitempty" doc:"Group that takes the call. Exactly one of group and trunk is given."`
	Trunk     string    `yaml:"trunk" json:"trunk,omitempty" doc:"Trunk that takes the call. Exactly one of group and trunk is given."`
}

// Header is a condition on a header of the INVITE.
type Header struct {
	Name   string `yaml:"name" json:"name" doc:"Name of the header, in any case; several of one name are read as one, with commas between."`
	Regexp string `yaml:"regexp" json:"regexp,omitempty" doc:"What its value has to match, anywhere in it: a regular expression of RE2. Left out, any value will do."`
}

// Validate checks the route by itself; keys are those of the route.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	for i, from := range c.From {
		if slices.Contains(c.From[:i], from) {
			l.Add(fmt.Sprintf("from[%d]", i), "leave it out", "%q is listed twice", from)
		}
	}
	_, findings := compile(c)
	return append(l, findings...)
}

// validateWay checks where the route leads.
func (c Config) validateWay(l *invalid.List) {
	switch {
	case c.Group == "" && c.Trunk == "":
		l.Add("", "add group or trunk", "leads nowhere")
	case c.Group != "" && c.Trunk != "":
		l.Add("trunk", "keep one of them; a group tries its trunks in turn", "stands beside group %q", c.Group)
	}
	if c.Default && (c.Prefix != "" || c.Called != Numbers{} || c.Caller != Numbers{} || c.Header != Header{} || !c.Time.isZero()) {
		l.Add("default", "leave it out, or the conditions", "a default route takes what no other does, and this one has conditions")
	}
}

// ValidateAll checks each route and all of them together, against the names of the
// trunks and groups there are; keys start with an index: "[2].from[0]".
func ValidateAll(routes []Config, trunks, groups []string) invalid.List {
	var l invalid.List
	if len(routes) > MaxRoutes {
		l.Add("", fmt.Sprintf("at most %d are possible", MaxRoutes), "has %d entries", len(routes))
		return l
	}
	known := names{trunks: trunks, groups: groups, isTrunk: set(trunks), isGroup: set(groups)}
	seen := make(map[string]bool, len(routes))
	for i, c := range routes {
		under := fmt.Sprintf("[%d]", i)
		l.Under(under, c.Validate())
		l.Under(under, known.validate(c))
		if c.Name != "" && seen[c.Name] {
			l.Add(under+".name", "give each route a name of its own", "%q is another route's already", c.Name)
		}
		seen[c.Name] = true
	}
	validateReach(&l, routes)
	return l
}

// names are what routes may lead to.
type names struct {
	trunks, groups   []string
	isTrunk, isGroup map[string]bool
}

func set(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, s := range list {
		m[s] = true
	}
	return m
}

func (n names) validate(c Config) invalid.List {
	var l invalid.List
	for i, from := range c.From {
		if !n.isTrunk[from] {
			l.Add(fmt.Sprintf("from[%d]", i), invalid.Suggest(from, n.trunks, "name one of the trunks"), "there is no trunk %q", from)
		}
	}
	if c.Trunk != "" && !n.isTrunk[c.Trunk] {
		l.Add("trunk", invalid.Suggest(c.Trunk, n.trunks, "name one of the trunks"), "there is no trunk %q", c.Trunk)
	}
	switch {
	case c.Group == "" || n.isGroup[c.Group]:
	case n.isTrunk[c.Group]:
		l.Add("group", "write trunk: "+c.Group, "%q is a trunk", c.Group)
	default:
		l.Add("group", invalid.Suggest(c.Group, n.groups, "name one of the groups"), "there is no group %q", c.Group)
	}
	return l
}

// compile reads the condition: the expression that the header has to match, if there is one.
func (h Header) compile(l *invalid.List) expression {
	switch {
	case h == (Header{}):
		return expression{}
	case h.Name == "":
		l.Add("header.name", "name the header, e.g. User-to-User", "is missing")
	case len(h.Name) > maxHeader:
		l.Add("header.name", fmt.Sprintf("give at most %d", maxHeader), "has %d characters", len(h.Name))
	case strings.IndexFunc(h.Name, func(r rune) bool { return !isToken(r) }) >= 0:
		l.Add("header.name", "name the header, e.g. User-to-User", "%q is no name of a header", h.Name)
	}
	return compileRegexp(l, "header.regexp", h.Regexp)
}

// isToken is RFC 3261 section 25.1.
func isToken(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-.!%*_+`'~", r)
}
