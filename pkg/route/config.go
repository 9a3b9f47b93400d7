package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxPrefix is well above the 15 digits of E.164 and below any attack.
const maxPrefix = 32

// Config is one route. Routes are tried in their order; the first that matches wins.
type Config struct {
	Name   string   `yaml:"name" json:"name" required:"true" doc:"Name of the route, for logs."`
	From   []string `yaml:"from" json:"from" doc:"Trunks that the call may come from; empty is any."`
	Prefix string   `yaml:"prefix" json:"prefix" doc:"What the called number starts with, in quotes, e.g. \"+49\"; empty is any number."`
	Group  string   `yaml:"group" json:"group,omitempty" doc:"Group that takes the call. Exactly one of group and trunk is given."`
	Trunk  string   `yaml:"trunk" json:"trunk,omitempty" doc:"Trunk that takes the call. Exactly one of group and trunk is given."`
}

// Validate checks the route by itself; keys are those of the route.
func (c Config) Validate() invalid.List {
	var l invalid.List
	l.Name("name", c.Name)
	switch {
	case len(c.Prefix) > maxPrefix:
		l.Add("prefix", fmt.Sprintf("give at most %d", maxPrefix), "has %d characters", len(c.Prefix))
	case strings.IndexFunc(c.Prefix, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("@;:<>\"", r) }) >= 0:
		l.Add("prefix", `give the start of a number as it is in the Request-URI, e.g. "+49"`, "%q cannot be the start of a number", c.Prefix)
	}
	switch {
	case c.Group == "" && c.Trunk == "":
		l.Add("", "add group or trunk", "leads nowhere")
	case c.Group != "" && c.Trunk != "":
		l.Add("trunk", "keep one of them; a group tries its trunks in turn", "stands beside group %q", c.Group)
	}
	for i, from := range c.From {
		if slices.Contains(c.From[:i], from) {
			l.Add(fmt.Sprintf("from[%d]", i), "leave it out", "%q is listed twice", from)
		}
	}
	return l
}

// ValidateAll checks each route and all of them together, against the names of the
// trunks and groups there are; keys start with an index: "[2].from[0]".
func ValidateAll(routes []Config, trunks, groups []string) invalid.List {
	var l invalid.List
	for i, c := range routes {
		under := fmt.Sprintf("[%d]", i)
		l.Under(under, c.Validate())
		l.Under(under, c.validateNames(trunks, groups))
		for j, earlier := range routes[:i] {
			if c.Name != "" && c.Name == earlier.Name {
				l.Add(under+".name", "give each route a name of its own", "%q is another route's already", c.Name)
			}
			if earlier.covers(c) {
				l.Add(under, fmt.Sprintf("move it before routes[%d], or remove it", j), "is never reached: route %q takes all its calls", earlier.Name)
				break
			}
		}
	}
	return l
}

func (c Config) validateNames(trunks, groups []string) invalid.List {
	var l invalid.List
	for i, from := range c.From {
		if !slices.Contains(trunks, from) {
			l.Add(fmt.Sprintf("from[%d]", i), invalid.Suggest(from, trunks, "name one of the trunks"), "there is no trunk %q", from)
		}
	}
	if c.Trunk != "" && !slices.Contains(trunks, c.Trunk) {
		l.Add("trunk", invalid.Suggest(c.Trunk, trunks, "name one of the trunks"), "there is no trunk %q", c.Trunk)
	}
	switch {
	case c.Group == "" || slices.Contains(groups, c.Group):
	case slices.Contains(trunks, c.Group):
		l.Add("group", "write trunk: "+c.Group, "%q is a trunk", c.Group)
	default:
		l.Add("group", invalid.Suggest(c.Group, groups, "name one of the groups"), "there is no group %q", c.Group)
	}
	return l
}

// covers reports whether every call that matches o matches c.
func (c Config) covers(o Config) bool {
	if !strings.HasPrefix(o.Prefix, c.Prefix) {
		return false
	}
	if len(c.From) == 0 {
		return true
	}
	return len(o.From) > 0 && !slices.ContainsFunc(o.From, func(from string) bool { return !slices.Contains(c.From, from) })
}
